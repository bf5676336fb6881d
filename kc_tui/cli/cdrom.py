"""`kc vm cd`: the disc in a VM's CD-ROM drive."""

from __future__ import annotations

from argparse import Namespace

from backend.model.documents import Document
from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser
from kc_tui.cli.changing import add_change_arguments, change_all
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session


def _add_eject_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    add_change_arguments(parser, VM)


def _add_insert_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("image", metavar="IMAGE", complete="image", help="the image that it is to read")
    add_change_arguments(parser, VM)


def _put(session: Session, arguments: Namespace, image: str | None) -> int:
    def edit(document: Document) -> None:
        document["spec"]["cdrom"] = image

    return change_all(session, VM, [arguments.name], edit, arguments)


def _insert(session: Session, arguments: Namespace) -> int:
    return _put(session, arguments, arguments.image)


def _eject(session: Session, arguments: Namespace) -> int:
    return _put(session, arguments, None)


COMMANDS = {
    "insert": Command(
        "put an image into a VM's CD-ROM drive",
        _add_insert_arguments,
        _insert,
        "Put an image into a VM's CD-ROM drive, while it runs or not; what was in it is ejected.",
        ("kc vm cd insert web debian-installer",),
    ),
    "eject": Command(
        "empty a VM's CD-ROM drive",
        _add_eject_arguments,
        _eject,
        "Take out what is in a VM's CD-ROM drive.",
        ("kc vm cd eject web",),
    ),
}
