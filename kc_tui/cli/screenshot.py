"""`kc vm screenshot`: a picture of a VM's screen in a file."""

from __future__ import annotations

import stat
import sys
from argparse import Namespace
from pathlib import Path

from backend.errors import FailedError, NotFoundError, RefusedError, UsageError
from backend.paths import write_atomically
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session

_PNG = b"\x89PNG\r\n\x1a\n"


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm screenshot` takes."""
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("file", metavar="FILE.png", complete="file", help="where the picture goes; - is standard output")


def run(session: Session, arguments: Namespace) -> int:
    """Write the picture and return the exit code."""
    if arguments.file == "-":
        _check_output(session)
        picture = session.service.screenshot(arguments.name)
        sys.stdout.flush()
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return 0
    path = Path(arguments.file).expanduser()
    # Nothing is asked of the host for a file that cannot be written.
    _check_target(path)
    picture = session.service.screenshot(arguments.name)
    try:
        write_atomically(path, picture)
    except OSError as error:
        raise FailedError(_what(path), str(error.strerror).lower(), "name another file") from error
    if session.output == "name":
        sys.stdout.write(f"{sanitise(path)}\n")
    elif session.output != "table":
        print_data(session, {"name": arguments.name, "file": str(path), "sizeBytes": len(picture)})
    else:
        session.note(f"the screen of VM {arguments.name} is in {path}")
    return 0


def _check_output(session: Session) -> None:
    command = "kc vm screenshot"
    if session.output != "table":
        raise UsageError(command, "the picture is all that goes to standard output", "leave -o out, or name a file")
    if sys.stdout.isatty():
        raise UsageError(command, "a terminal shows no picture", "name a file, or redirect standard output")


def _what(path: Path) -> str:
    return f"file {sanitise(path, 200)}"


def _check_target(path: Path) -> None:
    """Raise NotFoundError where there is no such folder, RefusedError over what is there and is no picture."""
    try:
        if not path.parent.is_dir():
            raise NotFoundError(_what(path), f"no folder {sanitise(path.parent, 200)}", "make it first")
        if not path.exists():
            return
        if not stat.S_ISREG(path.stat().st_mode):
            raise RefusedError(_what(path), "it is there, and no file", "name another one")
        with path.open("rb") as file:
            beginning = file.read(len(_PNG))
    except OSError as error:
        raise RefusedError(_what(path), f"cannot be read: {str(error.strerror).lower()}", "name another one") from error
    if beginning and beginning != _PNG:
        raise RefusedError(_what(path), "it is there, and no PNG picture", "name another one, or remove it first")
