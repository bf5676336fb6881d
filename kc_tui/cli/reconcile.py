"""`kc vm reconcile`, `kc network reconcile`: what is not as the documents say is made so again."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from backend.errors import UnreachableError
from backend.model.documents import Document
from backend.model.kinds import NETWORK, VM, Kind
from backend.service import Accepted
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_timeout
from kc_tui.cli.changing import finish
from kc_tui.cli.following import Follower
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import add_targets, collect, find_targets, plural


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm reconcile` takes."""
    _add_arguments(parser, VM)


def run(session: Session, arguments: Namespace) -> int:
    """Mend VMs that somebody else changed; see `_reconcile`."""
    return _reconcile(session, VM, arguments, lambda name: session.service.act(name, "reconcile"))


def add_network_arguments(parser: Parser) -> None:
    """Add what `kc network reconcile` takes."""
    _add_arguments(parser, NETWORK)


def run_network(session: Session, arguments: Namespace) -> int:
    """Mend networks of which something is gone or different; see `_reconcile`."""
    return _reconcile(session, NETWORK, arguments, lambda name: session.service.act_on_network(name, "reconcile"))


def _add_arguments(parser: Parser, kind: Kind) -> None:
    add_targets(parser, kind)
    add_timeout(parser)


def _reconcile(session: Session, kind: Kind, arguments: Namespace, act: Callable[[str], Accepted]) -> int:
    """Show what is not as it should be, mend it, print the objects as they are then and return the exit code."""
    names = find_targets(session, kind, arguments)

    def reconcile(name: str) -> Accepted:
        if session.output == "table" and not session.quiet:
            _tell(session, kind, session.service.get(kind.name, name))
        accepted = act(name)
        if accepted.operation is None and accepted.document.get("status", {}).get("stale"):
            what, why = f"{kind.title} {name}", "its host does not answer: nobody knows how it is"
            raise UnreachableError(what, why, "see kc doctor")
        return accepted

    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = collect(reconcile, names)
    begun = sum(entry.operation is not None for entry in accepted)
    for entry in accepted:
        if entry.operation is None:
            session.note(f"{kind.title} {entry.document['name']} is as its document says; there is nothing to mend")
    code = finish(session, kind, follower, accepted, errors, several=len(arguments.names) != 1)
    if len(names) > 1 and session.waits:
        session.note(f"{begun} of {plural(kind, len(names))} had something to mend")
    return code


def _tell(session: Session, kind: Kind, document: Document) -> None:
    lines = list(_describe_mending(document) if kind is VM else _describe_problems(document))
    if lines:
        why = "somebody else changed it; mended is" if kind is VM else "what is wrong with it"
        session.note(f"{kind.title} {document['name']}: {why}")
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


def _describe_mending(document: Document) -> Iterator[str]:
    """Yield a line for each thing of a VM that is not as its document says: what it is, and what it becomes."""
    for entry in document.get("status", {}).get("drift") or ():
        yield sanitise(f"~ {entry.get('path', '')}: {entry.get('found', '')} → {entry.get('wanted', '')}", 500)


def _describe_problems(document: Document) -> Iterator[str]:
    for problem in document.get("status", {}).get("problems") or ():
        yield sanitise(f"! {problem.get('message', '')}", 500)
