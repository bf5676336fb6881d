"""`kc image`: disk images."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import UsageError
from backend.model.kinds import IMAGE
from kc_tui.cli.arguments import Parser, add_metadata, add_timeout, build_tree
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import delete_command, kept_commands, list_command, show_command

_ARCHES = ("x86_64", "aarch64")
_HEX = set("0123456789abcdef")
_DIGEST_LENGTH = 64


def _parse_digest(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if len(digest) != _DIGEST_LENGTH or not set(digest) <= _HEX:
        msg = f"{text!r} is no SHA-256: 64 hexadecimal digits"
        raise ArgumentTypeError(msg)
    return digest


def _add_upload_arguments(parser: Parser) -> None:
    parser.add("file", metavar="FILE", complete="file", help="a raw or qcow2 disk image; - reads standard input")
    parser.add("--name", metavar="N", required=True, help="what the image is to be called")
    parser.add("--format", metavar="F", help="what the file is said to be, such as raw; refused if it is not")
    parser.add("--sha256", metavar="H", type=_parse_digest, help="what the file's SHA-256 must be")
    parser.add("--arch", choices=_ARCHES, help="for which machines (default: x86_64)")
    parser.add("--title", metavar="TEXT", help="a line for people")
    add_metadata(parser)
    add_timeout(parser)


def _upload(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.changing import finish  # noqa: PLC0415 - lists change nothing
    from kc_tui.cli.following import Follower  # noqa: PLC0415

    scheme, sign, _rest = arguments.file.partition("://")
    if sign and scheme.isalpha():
        raise UsageError("kc image upload", "this version takes local files alone", "fetch it first, then upload that")
    given = {
        "format": arguments.format,
        "sha256": arguments.sha256,
        "arch": arguments.arch,
        "title": arguments.title,
    }
    with _find_file(session, arguments.file) as path:
        follower = Follower(session, timeout=arguments.timeout)
        try:
            accepted = session.service.upload_image(
                arguments.name,
                path,
                metadata=build_tree(arguments.meta, "--meta"),
                declared={key: value for key, value in given.items() if value is not None},
                sent=lambda done, whole: follower.progress.show_sent(arguments.name, done, whole),
            )
        finally:
            follower.progress.clear()
        # Its bytes are read until the operation has ended.
        return finish(session, IMAGE, follower, [accepted])


@contextmanager
def _find_file(session: Session, given: str) -> Iterator[Path]:
    """Give the file to upload; of `-` one that is there as long as the block."""
    if given != "-":
        yield Path(given).expanduser()
        return
    if not session.waits:
        raise UsageError("kc image upload", "standard input is gone before it is read", "leave --no-wait out")
    from kc_tui.cli.spooling import spool_input  # noqa: PLC0415 - most images are files

    with spool_input(session, "image.upload") as path:
        yield path


COMMANDS = {
    "upload": Command(
        "add an image from a file",
        _add_upload_arguments,
        _upload,
        "Add a raw or qcow2 image from a file. It is inspected first; one that is unsafe, or not what it is said "
        "to be, is refused.",
        ("kc image upload debian-12.qcow2 --name debian --format qcow2",),
    ),
    "list": list_command(IMAGE, "kc init, or kc image upload FILE --name N"),
    "show": show_command(IMAGE),
    **kept_commands(IMAGE),
    "delete": delete_command(IMAGE),
}
