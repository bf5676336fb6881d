"""`kc vm snapshot`: the snapshots of one VM."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from backend.errors import NotFoundError
from backend.model.documents import Document
from backend.model.kinds import VM
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_timeout, add_yes
from kc_tui.cli.changing import ask, finish, require_terminal
from kc_tui.cli.columns import DASH, show_time
from kc_tui.cli.commands import Command
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_data
from kc_tui.cli.parts import get_vm, print_parts
from kc_tui.cli.session import Session
from kc_tui.cli.table import Column, Value
from kc_tui.cli.verbs import report_all

_COLUMNS = (
    Column("SNAPSHOT"), Column("TAKEN"), Column("VERSION", right=True), Column("MEMORY"), Column("KEPT"),
    Column("DESCRIPTION"),
)  # fmt: skip


def _add_name(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")


def _add_snapshot(parser: Parser) -> None:
    _add_name(parser)
    parser.add("snapshot", metavar="SNAPSHOT", complete="vm:snapshots", help="which snapshot")
    add_yes(parser)
    add_timeout(parser)


def _snapshots_of(document: Document) -> list[dict[str, Any]]:
    return document.get("status", {}).get("snapshots") or []


def _show(snapshot: Document) -> Sequence[Value]:
    return (
        str(snapshot.get("name", "")),
        show_time(str(snapshot.get("at", ""))),
        str(snapshot.get("version") or DASH),
        "yes" if snapshot.get("hasMemory") else "no",
        {"internal": "in the disks", "copy": "as copies"}.get(str(snapshot.get("method")), DASH),
        str(snapshot.get("description", "")),
    )


def _list(session: Session, arguments: Namespace) -> int:
    items = _snapshots_of(get_vm(session, arguments.name))
    hint = f"VM {arguments.name} has no snapshot; kc vm snapshot create {arguments.name} takes one"
    print_parts(session, _COLUMNS, items, [_show(snapshot) for snapshot in items], hint, named="name")
    return 0


# --- create


def _add_create_arguments(parser: Parser) -> None:
    _add_name(parser)
    parser.add("snapshot", metavar="SNAPSHOT", nargs="?", default="", help="its name (default: one of date and time)")
    parser.add("--description", metavar="TEXT", default="", help="a line for people")
    add_timeout(parser)


def _create(session: Session, arguments: Namespace) -> int:
    asked = {"snapshot": arguments.snapshot, "description": arguments.description}
    follower = Follower(session, timeout=arguments.timeout)
    accepted = session.service.act(arguments.name, "snapshot", {key: value for key, value in asked.items() if value})
    name = arguments.snapshot
    if accepted.operation is not None:
        name = str(accepted.operation["spec"].get("parameters", {}).get("snapshot") or name)
    documents, errors = follower.conclude(follower.follow([accepted]), "")
    for document in documents:
        found = [snapshot for snapshot in _snapshots_of(document) if snapshot.get("name") == name]
        # Nobody has waited for it: its name is all that is known.
        item = found[0] if found else {"name": name}
        if session.output in ("json", "yaml"):
            print_data(session, item)
        else:
            print_parts(session, _COLUMNS, [item], [_show(item)], "", named="name")
            if session.output == "table" and session.waits:
                session.note(f"kc vm snapshot restore {document['name']} {name} brings the VM back to it")
    return report_all(session, errors)


# --- restore, delete


def _find(session: Session, arguments: Namespace) -> dict[str, Any]:
    """Return the snapshot that was named; raise NotFoundError before anybody is asked about it."""
    known = _snapshots_of(get_vm(session, arguments.name))
    for snapshot in known:
        if snapshot.get("name") == arguments.snapshot:
            return snapshot
    names = ", ".join(sanitise(snapshot.get("name", ""), 80) for snapshot in known)
    hint = f"there is {names}" if names else f"kc vm snapshot create {arguments.name} takes one"
    raise NotFoundError(f"VM {arguments.name}", f"no snapshot {sanitise(arguments.snapshot, 80)}", hint)


def _act(session: Session, arguments: Namespace, verb: str, question: str, otherwise: str) -> int:
    """Ask, then restore or delete a snapshot."""
    command = f"kc vm snapshot {verb}"
    if not arguments.yes:
        require_terminal(command)
        _find(session, arguments)
        ask(command, question, ("y", "yes"), otherwise)
    follower = Follower(session, timeout=arguments.timeout)
    accepted = session.service.act(arguments.name, f"{verb}-snapshot", {"snapshot": arguments.snapshot})
    code = finish(session, VM, follower, [accepted])
    if code == 0 and session.waits and session.output == "table":
        name, snapshot = arguments.name, arguments.snapshot
        is_back = f"VM {name} is as it was at snapshot {snapshot}"
        session.note(is_back if verb == "restore" else f"snapshot {snapshot} of VM {name} is gone")
    return code


def _restore(session: Session, arguments: Namespace) -> int:
    question = (
        f"Bring VM {arguments.name} back to snapshot {sanitise(arguments.snapshot, 80)}? What is on its disks now, and "
        "was written since, is lost. type y:"
    )
    return _act(session, arguments, "restore", question, "nothing was changed")


def _delete(session: Session, arguments: Namespace) -> int:
    question = f"Delete snapshot {sanitise(arguments.snapshot, 80)} of VM {arguments.name} for good? type y:"
    return _act(session, arguments, "delete", question, "nothing was deleted")


COMMANDS = {
    "create": Command(
        "take a snapshot of a VM",
        _add_create_arguments,
        _create,
        "Take a snapshot of a VM: its disks, and where it runs its memory, as they are at one moment.",
        ("kc vm snapshot create web", "kc vm snapshot create web before-upgrade --description 'still on 11'"),
    ),
    "list": Command(
        "list the snapshots of a VM",
        _add_name,
        _list,
        "List the snapshots of a VM, the oldest first.",
        ("kc vm snapshot list web",),
    ),
    "restore": Command(
        "bring a VM back to a snapshot",
        _add_snapshot,
        _restore,
        "Bring a VM back to a snapshot: its disks, its memory where that is in it, and its document, as a new version. "
        "What is on the disks now is lost. It asks first; without a terminal it needs --yes.",
        ("kc vm snapshot restore web before-upgrade --yes",),
    ),
    "delete": Command(
        "delete a snapshot of a VM",
        _add_snapshot,
        _delete,
        "Delete a snapshot of a VM for good. It asks first; without a terminal it needs --yes.",
        ("kc vm snapshot delete web before-upgrade --yes",),
    ),
}
