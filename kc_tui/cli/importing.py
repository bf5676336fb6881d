"""`kc import`: an export into an empty store."""

from __future__ import annotations

import os
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.model.documents import Document
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.exchange import MAXIMUM_LINE_BYTES, Counter
from kc_tui.cli.following import leaving_on_signals
from kc_tui.cli.output import print_data
from kc_tui.cli.reading_documents import parse_json
from kc_tui.cli.session import Session
from kc_tui.yaml_text import TextError

_TEXT = """Take what kc export wrote into an empty store: all of it, or, where it is damaged or cut short, nothing. The
store then is the one that was exported, its identity included: go on with one of the two, not with both."""
_AGAIN = "nothing was imported; export it again"


def _add_arguments(parser: Parser) -> None:
    parser.add("file", metavar="FILE", complete="file", help="what kc export wrote; - reads standard input")


def _import(session: Session, arguments: Namespace) -> int:
    name = "standard input" if arguments.file == "-" else sanitise(arguments.file, 200)
    with leaving_on_signals(), _open(arguments.file, name) as file:
        reader = _Reader(file, name, Counter(session, "importing"))
        try:
            count = session.service.load(reader.records())
        except ConflictError as error:
            hint = "KC_STORE=tinydb:PATH kc import FILE makes a store at PATH; or move this one away first"
            raise ConflictError(error.what, error.why, hint, **error.details) from error
        except RefusedError as error:
            if "line" in error.details:
                raise
            raise reader.refuse(error.why, error.hint) from error
        finally:
            reader.counter.clear()
    if session.output in ("json", "yaml"):
        print_data(session, {"entries": count})
    else:
        session.note(f"{count} entries imported from {name}")
    return 0


@contextmanager
def _open(path: str, name: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below, and not for what its reader raises
    except FileNotFoundError as error:
        raise NotFoundError(f"import {name}", "no such file") from error
    except (OSError, ValueError) as error:
        why = f"cannot be read: {str(getattr(error, 'strerror', None) or error).lower()}"
        raise RefusedError(f"import {name}", why) from error
    with file:
        yield file


class _Reader:
    """Reads an export line by line; `line` is the number of the last one."""

    def __init__(self, file: BinaryIO, name: str, counter: Counter) -> None:
        self.line = 0
        self.counter = counter
        self._file = file
        self._name = name
        self._read = 0
        self._size = _measure(file)

    def refuse(self, why: str, hint: str = _AGAIN) -> RefusedError:
        """Return the error that names the line."""
        return RefusedError(f"import {self._name}", f"line {self.line}: {why}", hint, line=self.line)

    def records(self) -> Iterator[Document]:
        """Yield the records; raise RefusedError for a line that is none, and for any after the end."""
        ended = False
        while (text := self._next_line()) is not None:
            if not text:
                continue
            if ended:
                raise self.refuse("it goes on after its end")
            try:
                values = list(parse_json(text))
            except TextError as error:
                raise self.refuse(f"it is no JSON: {sanitise(str(error).partition(': ')[2], 200)}") from error
            if len(values) != 1 or not isinstance(values[0], dict):
                raise self.refuse("it is not one JSON object")
            ended = "end" in values[0]
            if ended and self._follows():
                self.line += 1
                raise self.refuse("it goes on after its end")
            yield values[0]

    def _follows(self) -> bool:
        """Return whether anything but space comes after the end, before the end is handed on and all is written."""
        return any(chunk.strip() for chunk in iter(lambda: self._file.read(1 << 16), b""))

    def _next_line(self) -> str | None:
        try:
            data = self._file.readline(MAXIMUM_LINE_BYTES + 1)
        except OSError as error:
            raise self.refuse(f"cannot be read on: {str(error.strerror).lower()}") from error
        if not data:
            return None
        self.line += 1
        if len(data) > MAXIMUM_LINE_BYTES:
            raise self.refuse("it is too long for an export")
        self._read += len(data)
        self.counter.add(self._read, self._size)
        try:
            return data.decode("utf-8-sig" if self.line == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise self.refuse("it is no text") from error


def _measure(file: BinaryIO) -> int:
    """Return the size of a regular file, 0 for anything else."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


COMMANDS = {
    "": Command(
        "take an export into an empty store",
        _add_arguments,
        _import,
        _TEXT,
        ("KC_STORE=tinydb:new.db kc import backup.jsonl", "zcat backup.jsonl.gz | kc import -"),
        finishes=False,
    )
}
