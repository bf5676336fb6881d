"""`kc export`: the whole store, history included, as JSON lines."""

from __future__ import annotations

import codecs
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.errors import FailedError, RefusedError, UsageError
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.exchange import Counter
from kc_tui.cli.following import leaving_on_signals
from kc_tui.cli.output import format_json, print_data
from kc_tui.cli.session import Session

Write = Callable[[str], object]
_TEXT = """Write the whole store as it is at one moment, every kept version of every document included, as JSON lines:
to stdout, or to a file that is complete or not there, and that only its owner may read. kc import takes it into an
empty store."""


def _add_arguments(parser: Parser) -> None:
    parser.add("file", metavar="FILE", nargs="?", default="-", complete="file", help="where to (default: stdout)")


def _export(session: Session, arguments: Namespace) -> int:
    path: str = arguments.file
    if path == "-":
        if session.output in ("yaml", "name"):
            raise UsageError("kc export", "an export is JSON lines", f"leave -o {session.output} out, or name a FILE")
        with leaving_on_signals():
            _write_all(session, sys.stdout.write, plainly=_is_narrow(sys.stdout.encoding))
        return 0
    name = sanitise(path, 200)
    try:
        with leaving_on_signals(), _open_whole(Path(path), name) as write:
            count, revision = _write_all(session, write, plainly=False)
    except OSError as error:
        why = str(error.strerror or error).lower()
        raise FailedError(f"export to {name}", why, "name a file where there is room") from error
    if session.output in ("json", "yaml"):
        print_data(session, {"file": path, "entries": count, "revision": revision})
    elif session.output == "name":
        sys.stdout.write(f"{name}\n")
    else:
        session.note(f"{count} entries, up to revision {revision}, are in {name}")
    return 0


def _is_narrow(encoding: str | None) -> bool:
    """Return whether a stream's encoding lacks signs that JSON then must escape."""
    return codecs.lookup(encoding or "ascii").name != "utf-8"


def _write_all(session: Session, write: Write, *, plainly: bool) -> tuple[int, int]:
    """Write every record on a line of its own; return how many entries there are, and the revision that they end at."""
    counter = Counter(session, "exporting")
    revision = count = 0
    try:
        for record in session.service.export():
            # The header says how far it goes, the end what it was.
            revision = record.get("revision", revision) if "kc" in record else revision
            count = record.get("entries", count)
            counter.add(record.get("revision", 0) if "kc" not in record else 0, revision)
            line = json.dumps(record, allow_nan=False) if plainly else format_json(record, indent=None)
            write(f"{line}\n")
    finally:
        counter.clear()
    return count, revision


@contextmanager
def _open_whole(path: Path, name: str) -> Iterator[Write]:
    """Open a file that takes the place of the old one once the block has ended well; mode 0600."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise RefusedError(f"export to {name}", "it is a folder", "name a file in it")
    if target.exists() and not target.is_file():
        # A device or a pipe is written to, never replaced.
        with target.open("wb") as file:
            yield _encoding(file)
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield _encoding(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _encoding(file: Any) -> Write:
    def write(text: str) -> None:
        file.write(text.encode())

    return write


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


COMMANDS = {
    "": Command(
        "write the whole store, history included, as JSON lines",
        _add_arguments,
        _export,
        _TEXT,
        ("kc export backup.jsonl", "kc export | gzip > backup.jsonl.gz"),
        finishes=False,
    )
}
