"""`kc KIND delete`: it asks, deletes, and says what came of each."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from backend.errors import FailedError, UsageError
from backend.model.kinds import VM, Kind
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_timeout
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_results
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import accept_all, add_targets, find_targets, plural, report_all

_SHOWN = 10


def add_arguments(parser: Parser, kind: Kind) -> None:
    """Add what `kc KIND delete` takes."""
    add_targets(parser, kind)
    parser.add("-y", "--yes", action="store_true", help="do not ask")
    parser.add("--now", action="store_true", help="without a grace time; so far every deletion is")
    if kind is VM:
        parser.add("--keep-disks", action="store_true", help="leave the disks in the pool")
    add_timeout(parser)


def delete(session: Session, kind: Kind, arguments: Namespace) -> int:
    """Delete what was named; return the exit code."""
    asks = not arguments.yes
    if asks and not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"kc {kind.command} delete", "it asks first, and here is no terminal", "add --yes to mean it")
    names = find_targets(session, kind, arguments)
    keep_disks = bool(getattr(arguments, "keep_disks", False))
    if asks and names:
        for name in names:
            # A name that is not there is told before anybody confirms anything.
            session.service.get(kind.name, name, observe=False)
        _confirm(kind, names, with_disks=kind is VM and not keep_disks)
    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = accept_all(lambda name: session.service.delete(kind.name, name, keep_disks=keep_disks), names)
    outcomes = follower.follow(accepted)
    errors += [outcome.error for outcome in outcomes if outcome.error is not None]
    deleted = [outcome.document for outcome in outcomes if outcome.error is None]
    several = len(arguments.names) != 1
    if session.output == "table":
        for document in deleted:
            session.note(f"{kind.title} {document['name']} {'deleted' if session.waits else 'is being deleted'}")
    else:
        print_results(session, kind, deleted, several=several)
    if len(names) > 1 and errors:
        session.note(f"{len(deleted)} of {plural(kind, len(names))} deleted")
    return report_all(session, errors)


def _confirm(kind: Kind, names: Sequence[str], *, with_disks: bool) -> None:
    """Ask on the terminal; raise FailedError unless the answer is the one that was asked for."""
    shown = ", ".join(sanitise(name, 80) for name in names[:_SHOWN])
    if len(names) > _SHOWN:
        shown += f" and {len(names) - _SHOWN} more"
    wanted: tuple[str, ...]
    if len(names) > 1:
        whose = " and their disks" if with_disks else ""
        question, wanted = f"Delete {plural(kind, len(names))} ({shown}){whose}? type how many:", (str(len(names)),)
    elif with_disks:
        question, wanted = f"Delete {kind.title} {shown} and its disks? type the name:", (names[0],)
    else:
        question, wanted = f"Delete {kind.title} {shown}? type y:", ("y", "yes")
    sys.stdout.flush()
    print(question, end=" ", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    if answer.strip() not in wanted:
        raise FailedError(f"kc {kind.command} delete", "not confirmed", "nothing was deleted")
