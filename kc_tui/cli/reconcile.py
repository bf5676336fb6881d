"""`kc vm reconcile`: what somebody else changed on the host is made again what the documents say."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator

from backend.errors import UnreachableError
from backend.model.documents import Document
from backend.model.kinds import VM
from backend.service import Accepted
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_timeout
from kc_tui.cli.changing import finish
from kc_tui.cli.following import Follower
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import add_targets, collect, find_targets, plural


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm reconcile` takes."""
    add_targets(parser, VM)
    add_timeout(parser)


def run(session: Session, arguments: Namespace) -> int:
    """Show what is not as it should be, mend it, print the VMs as they are then and return the exit code."""
    names = find_targets(session, VM, arguments)

    def reconcile(name: str) -> Accepted:
        if session.output == "table" and not session.quiet:
            _tell(session, session.service.get(VM.name, name))
        accepted = session.service.act(name, "reconcile")
        if accepted.operation is None and accepted.document.get("status", {}).get("stale"):
            raise UnreachableError(f"VM {name}", "its host does not answer: nobody knows how it is", "see kc doctor")
        return accepted

    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = collect(reconcile, names)
    begun = sum(entry.operation is not None for entry in accepted)
    for entry in accepted:
        if entry.operation is None:
            session.note(f"VM {entry.document['name']} is as its document says; there is nothing to mend")
    code = finish(session, VM, follower, accepted, errors, several=len(arguments.names) != 1)
    if len(names) > 1 and session.waits:
        session.note(f"{begun} of {plural(VM, len(names))} had something to mend")
    return code


def _tell(session: Session, document: Document) -> None:
    lines = list(describe_mending(document))
    if lines:
        session.note(f"VM {document['name']}: somebody else changed it; mended is")
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


def describe_mending(document: Document) -> Iterator[str]:
    """Yield a line for each thing of a VM that is not as its document says: what it is, and what it becomes."""
    for entry in document.get("status", {}).get("drift") or ():
        yield sanitise(f"~ {entry.get('path', '')}: {entry.get('found', '')} → {entry.get('wanted', '')}", 500)
