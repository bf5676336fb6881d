"""`kc KIND delete`: it asks, deletes, says what came of each, and until when it can be brought back."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from backend.errors import UsageError
from backend.model.documents import Document
from backend.model.kinds import TOKEN, TRASH, VM, Kind
from backend.service import Accepted
from backend.text import sanitise
from kc_tui.cli.arguments import (
    Parser,
    add_idempotency_key,
    add_if_version,
    add_message,
    add_timeout,
    add_yes,
    key_of,
)  # fmt: skip
from kc_tui.cli.changing import ask, explaining_conflicts, read_current, require_terminal
from kc_tui.cli.columns import show_time
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_results
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import add_targets, collect, find_targets, plural, report_all

_SHOWN = 10


def add_arguments(parser: Parser, kind: Kind) -> None:
    """Add what `kc KIND delete` takes."""
    add_targets(parser, kind)
    add_yes(parser)
    if kind is not TOKEN:
        parser.add("--now", action="store_true", help="for good, without a grace time")
    if kind is VM:
        parser.add("--keep-disks", action="store_true", help="leave the disks in the pool")
    add_message(parser)
    add_if_version(parser, kind)
    add_timeout(parser)
    add_idempotency_key(parser)


def delete(session: Session, kind: Kind, arguments: Namespace) -> int:
    """Delete what was named; return the exit code."""
    command = f"kc {kind.command} delete"
    if not arguments.yes:
        require_terminal(command)
    names = find_targets(session, kind, arguments)
    if arguments.if_version is not None and len(arguments.names) != 1:
        raise UsageError(command, "--if-version goes with one name", "each object has versions of its own")
    keep_disks = bool(getattr(arguments, "keep_disks", False))
    now = bool(getattr(arguments, "now", kind is TOKEN))
    if not arguments.yes and names:
        # A name that is not there is told before anybody confirms anything.
        found = [session.service.get(kind.name, name, observe=False) for name in names]
        keeps_all = keep_disks or all(map(_is_adopted, found))
        hours = 0.0 if now or keep_disks else session.settings.grace_hours
        if hours:
            what = names[0] if len(names) == 1 else "NAME"
            # How long a KC elsewhere keeps things is told by kc trash list.
            span = "for a time" if session.settings.url else f"for {hours:g} h"
            session.note(f"{span} kc {kind.command} restore {what} will bring back what is deleted now")
        ending = "" if hours or keep_disks else " for good"
        _confirm(kind, names, with_disks=kind is VM and not keeps_all, ending=ending)

    def delete_one(name: str) -> Accepted:
        return _delete_one(session, kind, name, arguments, keep_disks=keep_disks, now=now)

    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = collect(delete_one, names)
    outcomes = follower.follow(accepted)
    errors += [outcome.error for outcome in outcomes if outcome.error is not None]
    deleted = [outcome.document for outcome in outcomes if outcome.error is None]
    several = len(arguments.names) != 1
    if session.output == "table":
        _tell(session, kind, deleted, now=now)
    else:
        print_results(session, kind, deleted, several=several)
    if len(names) > 1 and errors:
        session.note(f"{len(deleted)} of {plural(kind, len(names))} deleted")
    return report_all(session, errors)


def _delete_one(
    session: Session, kind: Kind, name: str, arguments: Namespace, *, keep_disks: bool, now: bool
) -> Accepted:
    version = arguments.if_version
    if version is not None:
        read_current(session, kind, name, version)
    with explaining_conflicts(session, kind, name, version):
        return session.service.delete(
            kind.name,
            name,
            if_version=version,
            keep_disks=keep_disks,
            now=now,
            message=arguments.message,
            key=key_of(arguments, name),
        )


def _tell(session: Session, kind: Kind, deleted: Sequence[Document], *, now: bool) -> None:
    """Say of each what was deleted, and until when and how it can be brought back."""
    until = {} if now or session.quiet or not deleted else _find_untils(session)
    done = "deleted" if session.waits else "is being deleted"
    for document in deleted:
        text = f"{kind.title} {document['name']} {done}"
        if _is_adopted(document):
            left = "is no longer managed" if session.waits else "is being left"
            text = f"{kind.title} {document['name']} {left}: its domain stays with libvirt"
        elif now:
            text += " for good"
        if document.get("uid") in until:
            back = f"kc {kind.command} restore {document['name']}"
            text += f"; until {show_time(until[document['uid']])} {back} brings it back"
        session.note(text)


def _is_adopted(document: Document) -> bool:
    """Return whether somebody else made a VM's domain, so that it outlives the document."""
    return document["kind"] == VM.name and bool(document.get("spec", {}).get("adopted"))


def _find_untils(session: Session) -> dict[str, str]:
    """Return until when each deleted object can be brought back, by its uid."""
    page = session.service.list_documents(TRASH.name)
    # A disk that was taken from a VM is there under the VM's uid too.
    return {
        document["spec"]["target"]["uid"]: document["spec"]["until"]
        for document in page.items
        if not document["spec"].get("disk")
    }


def name_some(names: Sequence[str]) -> str:
    """Return names as they stand in a question: the first ones, and how many more."""
    shown = ", ".join(sanitise(name, 80) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _confirm(kind: Kind, names: Sequence[str], *, with_disks: bool, ending: str) -> None:
    """Ask on the terminal; raise FailedError unless the answer is the one that was asked for."""
    shown = name_some(names)
    if len(names) > 1:
        whose = " and their disks" if with_disks else ""
        question = f"Delete {plural(kind, len(names))} ({shown}){whose}{ending}? type how many:"
        wanted: tuple[str, ...] = (str(len(names)),)
    elif with_disks:
        question, wanted = f"Delete {kind.title} {shown} and its disks{ending}? type the name:", (names[0],)
    else:
        question, wanted = f"Delete {kind.title} {shown}{ending}? type y:", ("y", "yes")
    ask(f"kc {kind.command} delete", question, wanted, "nothing was deleted")
