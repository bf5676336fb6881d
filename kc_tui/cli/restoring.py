"""`kc KIND rollback`, `undo` and `restore`: what was, again."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from backend.errors import UsageError
from backend.model.documents import Document
from backend.model.kinds import TRASH, VM, Kind
from backend.service import Accepted
from kc_tui.cli.arguments import (
    Parser,
    add_if_version,
    add_message,
    add_selector,
    add_timeout,
    add_yes,
    parse_count,
)  # fmt: skip
from kc_tui.cli.changing import (
    Written,
    ask,
    ask_about_cuts,
    can_cut,
    explaining_conflicts,
    finish,
    has_terminal,
    read_current,
    require_agreement,
    tell_versions,
)  # fmt: skip
from kc_tui.cli.diff import print_changes
from kc_tui.cli.following import Follower
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import Verb, choose_names, collect, select

Write = Callable[[int | None], Accepted]
"""Writes the new version, where the object is at the version that is given."""


def _add_undo_arguments(parser: Parser, kind: Kind) -> None:
    parser.add("name", metavar="NAME", complete=kind.command, help=f"which {kind.title}")
    add_if_version(parser, kind)
    add_yes(parser)
    add_timeout(parser)


def _add_rollback_arguments(parser: Parser, kind: Kind) -> None:
    parser.add(
        "--to", metavar="N", type=parse_count, required=True, complete=f"{kind.command}:versions",
        help="the version that it is to be again",
    )  # fmt: skip
    _add_undo_arguments(parser, kind)
    add_message(parser)


def _rollback(session: Session, kind: Kind, arguments: Namespace) -> int:
    name, to = arguments.name, arguments.to
    current = read_current(session, kind, name, arguments.if_version)
    wanted = session.service.get(kind.name, name, version=to)

    def write(version: int | None) -> Accepted:
        return session.service.rollback(kind.name, name, to, if_version=version, message=arguments.message)

    return _take_back(session, kind, arguments, current, wanted, write, f"Roll {kind.title} {name} back to {to}?")


def _undo(session: Session, kind: Kind, arguments: Namespace) -> int:
    name = arguments.name
    current = read_current(session, kind, name, arguments.if_version)
    versions = session.service.history(kind.name, name)
    wanted = versions[-2].document if len(versions) > 1 else None

    def write(version: int | None) -> Accepted:
        return session.service.undo(kind.name, name, if_version=version)

    question = f"Take back the last change of {kind.title} {name}?"
    # Where nothing is before it the service says why.
    return _take_back(session, kind, arguments, current, wanted or current, write, question)


def _take_back(
    session: Session,
    kind: Kind,
    arguments: Namespace,
    current: Document,
    wanted: Document,
    write: Write,
    question: str,
) -> int:
    """Show what will change and what it does to the object, ask where somebody is there, write, wait, print."""
    asks = has_terminal() and not arguments.yes
    version, tells = arguments.if_version, session.output == "table" and not session.quiet
    if wanted is not current and (asks or tells or (can_cut(kind) and not arguments.yes)):
        fields = {key: wanted[key] for key in ("metadata", "spec")}
        preview = session.service.preview({**fields, "kind": kind.name, "name": current["name"],
                                           "version": current["version"]})  # fmt: skip
        if preview.cuts and not arguments.yes:
            require_agreement(f"{kind.title} {current['name']}", preview.cuts)
        if asks or tells:
            sys.stdout.flush()
            print_changes(preview.changes, preview.effects, stream=sys.stderr)
        if asks and preview.cuts:
            ask_about_cuts(f"kc {kind.command}", preview.cuts, question)
        elif asks and preview.changes:
            ask(f"kc {kind.command}", f"{question} [Y/n]", ("", "y", "yes"), "nothing was changed")
        # What was shown is what was meant.
        version = current["version"] if asks and preview.changes else version
    follower = Follower(session, timeout=arguments.timeout)
    with explaining_conflicts(session, kind, current["name"], version):
        accepted = write(version)
    code = finish(session, kind, follower, [accepted])
    tell_versions(session, kind, [Written(accepted, current["version"])])
    return code


# --- kc KIND restore


def _add_restore_arguments(parser: Parser, kind: Kind) -> None:
    parser.add(
        "names", metavar="NAME", nargs="*", complete=f"{kind.command}:deleted", help=f"which deleted {kind.title}s"
    )  # fmt: skip
    add_selector(parser)
    parser.add("--uid", metavar="U", default="", help="which one, where several of that name were deleted")
    if kind is VM:
        parser.add("--new-disks", action="store_true", help="make new disks of the image where the old ones are gone")
    add_timeout(parser)


def _restore(session: Session, kind: Kind, arguments: Namespace) -> int:
    names = choose_names(kind, arguments.names, arguments.selector)
    if arguments.uid and len(names) != 1:
        raise UsageError(f"kc {kind.command} restore", "--uid goes with one name", "name the one that it belongs to")
    targets = [(name, arguments.uid) for name in names]
    if not names:
        deleted = [document["spec"] for document in select(session, TRASH, arguments.selector)]
        # A single disk comes back with its VM's document: kc vm undo.
        found = [spec["target"] for spec in deleted if not spec.get("disk")]
        targets = [(target["name"], target["uid"]) for target in found if target["kind"] == kind.name]
    new_disks = bool(getattr(arguments, "new_disks", False))
    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = collect(
        lambda target: session.service.restore(kind.name, target[0], uid=target[1], new_disks=new_disks), targets
    )
    for entry in accepted:
        session.note(f"{kind.title} {entry.document['name']} is back, at version {entry.document['version']}")
    return finish(session, kind, follower, accepted, errors, several=len(arguments.names) != 1)


VERBS = {
    "rollback": Verb(_add_rollback_arguments, _rollback),
    "undo": Verb(_add_undo_arguments, _undo),
    "restore": Verb(_add_restore_arguments, _restore),
}
