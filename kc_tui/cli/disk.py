"""`kc vm disk`: the disks of one VM."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from backend.errors import ConflictError, NotFoundError
from backend.model.documents import Document
from backend.model.kinds import TRASH, VM
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_yes, parse_gibibytes
from kc_tui.cli.changing import Edit, add_change_arguments, ask, change_all, require_terminal
from kc_tui.cli.columns import DASH, show_time
from kc_tui.cli.commands import Command
from kc_tui.cli.parts import ROOT, get_vm, list_disks, print_parts
from kc_tui.cli.session import Session
from kc_tui.cli.table import Column, Value

_COLUMNS = (Column("DISK"), Column("WANTED", right=True), Column("SIZE", right=True), Column("USED", right=True))


def _add_name(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")


def _add_disk(parser: Parser) -> None:
    _add_name(parser)
    parser.add("disk", metavar="DISK", complete="vm:disks", help="which disk, by its id")


def _add_size(parser: Parser) -> None:
    parser.add("--size", metavar="GIB", type=parse_gibibytes, required=True, help="its size in GiB")


# --- list


def _list(session: Session, arguments: Namespace) -> int:
    items = list_disks(get_vm(session, arguments.name))
    hint = f"VM {arguments.name} has no disk that KC knows of"
    print_parts(session, _COLUMNS, items, [_show(disk) for disk in items], hint, named="id")
    return 0


def _show(disk: Document) -> Sequence[Value]:
    from kc_tui.state.formatting import format_bytes  # noqa: PLC0415 - only tables need it

    wanted = f"{disk['sizeGiB']} GiB" if disk["sizeGiB"] else DASH
    return (str(disk["id"]), wanted, format_bytes(disk["sizeBytes"]), format_bytes(disk["usedBytes"]))


# --- add, grow


def _add_add_arguments(parser: Parser) -> None:
    _add_name(parser)
    _add_size(parser)
    parser.add("--id", metavar="ID", default="", help="what it is to be called (default: disk1, disk2, …)")
    add_change_arguments(parser, VM)


def _add(session: Session, arguments: Namespace) -> int:
    def edit(document: Document) -> None:
        disks = document["spec"].get("disks", [])
        if any(disk["id"] == arguments.id for disk in disks):
            hint = f"kc vm disk grow {document['name']} {arguments.id} makes it larger"
            raise ConflictError(f"VM {document['name']}", f"it has a disk {arguments.id} already", hint)
        document["spec"]["disks"] = [*disks, {"id": arguments.id, "sizeGiB": arguments.size}]

    return change_all(session, VM, [arguments.name], edit, arguments)


def _add_grow_arguments(parser: Parser) -> None:
    _add_disk(parser)
    _add_size(parser)
    add_change_arguments(parser, VM)


def _grow(session: Session, arguments: Namespace) -> int:
    def edit(document: Document) -> None:
        if arguments.disk == ROOT and not document["spec"].get("adopted"):
            document["spec"]["parameters"] = {**document["spec"].get("parameters", {}), "diskGiB": arguments.size}
        else:
            _find(document, arguments.disk)["sizeGiB"] = arguments.size

    return change_all(session, VM, [arguments.name], edit, arguments)


def _find(document: Document, name: str) -> Document:
    """Return a disk of a VM's spec; raise NotFoundError."""
    disks: list[Document] = document["spec"].get("disks", [])
    for disk in disks:
        if disk["id"] == name:
            return disk
    known = ", ".join(disk["id"] for disk in disks)
    hint = f"there is {known}" if known else f"kc vm disk add {document['name']} --size GIB gives it one"
    raise NotFoundError(f"VM {document['name']}", f"no disk {sanitise(name, 40)} of its own", hint)


# --- remove


def _add_remove_arguments(parser: Parser) -> None:
    _add_disk(parser)
    add_yes(parser)
    add_change_arguments(parser, VM)


def _removing(disk: str) -> Edit:
    def edit(document: Document) -> None:
        gone = _find(document, disk)
        document["spec"]["disks"] = [other for other in document["spec"]["disks"] if other is not gone]

    return edit


def _remove(session: Session, arguments: Namespace) -> int:
    command, asks = "kc vm disk remove", not (arguments.yes or arguments.dry_run)
    if asks:
        require_terminal(command)
    current = get_vm(session, arguments.name, observe=False)
    size = _find(current, arguments.disk)["sizeGiB"]
    if asks:
        question = f"Remove disk {arguments.disk} ({size} GiB) of VM {current['name']}? type y:"
        ask(command, question, ("y", "yes"), "nothing was removed")
    code = change_all(session, VM, [arguments.name], _removing(arguments.disk), arguments)
    if code == 0 and not arguments.dry_run:
        _tell_way_back(session, current, arguments.disk)
    return code


def _tell_way_back(session: Session, before: Document, disk: str) -> None:
    """Say until when the removed disk is kept, and how it comes back with its data."""
    if session.quiet or not session.waits or session.output != "table":
        return
    back = f"kc vm rollback {before['name']} --to {before['version']}"
    for entry in session.service.list_documents(TRASH.name).items:
        spec = entry["spec"]
        if spec.get("disk") == disk and spec["target"]["uid"] == before["uid"]:
            until = show_time(str(spec["until"]))
            session.note(f"disk {disk} is kept until {until}; kc vm undo {before['name']}, or later {back}, "
                         "brings it back with its data")  # fmt: skip
            return
    session.note(f"disk {disk} is gone for good")


COMMANDS = {
    "list": Command(
        "list the disks of a VM",
        _add_name,
        _list,
        "List the disks of a VM: what size each is to have, which it has, and what it takes in the pool.",
        ("kc vm disk list web",),
    ),
    "add": Command(
        "give a VM another disk",
        _add_add_arguments,
        _add,
        "Give a VM another disk, empty, while it runs or not.",
        ("kc vm disk add web --size 20", "kc vm disk add web --size 20 --id data"),
    ),
    "grow": Command(
        "make a disk of a VM larger",
        _add_grow_arguments,
        _grow,
        "Make a disk of a VM larger, while it runs or not; root is the one that its image is on. The guest sees the "
        "new size; its file systems are its own to grow.",
        ("kc vm disk grow web root --size 20", "kc vm disk grow web data --size 100"),
    ),
    "remove": Command(
        "take a disk from a VM",
        _add_remove_arguments,
        _remove,
        "Take a disk from a VM. It asks first; without a terminal it needs --yes. Until its grace time has passed the "
        "disk is kept, and kc vm undo brings it back with its data.",
        ("kc vm disk remove web data --yes",),
    ),
}
