"""`kc vm start|stop|reboot|pause|resume`."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser, add_timeout
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_results
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import add_targets, collect, find_targets, plural, report_all

_DONE = {"start": "started", "stop": "stopped", "reboot": "rebooted", "pause": "paused", "resume": "resumed"}
_STATE = {"start": "running", "stop": "stopped", "pause": "paused", "resume": "running"}


def add_arguments(parser: Parser, action: str, force: str) -> None:
    """Add what an action takes; `force` says what --force does, empty where it does nothing."""
    add_targets(parser, VM)
    if force:
        parser.add("--force", action="store_true", help=force)
    if action not in ("stop", "pause"):
        parser.add("--wait", choices=("running", "ready"), default="running", help="until when (default: running)")
    add_timeout(parser)


def act(session: Session, action: str, arguments: Namespace) -> int:
    """Do an action to VMs; print them as they are then, and return the exit code."""
    names = find_targets(session, VM, arguments)
    parameters = {"force": True} if getattr(arguments, "force", False) else {}
    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = collect(lambda name: session.service.act(name, action, parameters), names)
    idle = {entry.document["name"] for entry in accepted if entry.operation is None}
    outcomes = follower.follow(accepted)
    documents, more = follower.conclude(outcomes, getattr(arguments, "wait", "running"))
    errors += more
    for document in documents:
        if document["name"] in idle:
            session.note(f"VM {document['name']} is {_STATE[action]} already")
    print_results(session, VM, documents, several=len(arguments.names) != 1)
    if len(names) > 1 and session.waits:
        changed = sum(1 for document in documents if document["name"] not in idle)
        session.note(f"{changed} of {plural(VM, len(names))} {_DONE[action]}")
    return report_all(session, errors)
