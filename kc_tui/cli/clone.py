"""`kc vm clone`: a VM like another."""

from __future__ import annotations

from argparse import Namespace

from backend.errors import UsageError
from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser, add_idempotency_key, add_metadata, add_timeout, build_tree, key_of
from kc_tui.cli.changing import tell_warnings
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_results
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import report_all


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm clone` takes."""
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("new_name", metavar="NEW", help="what the clone is to be called")
    add_metadata(parser)
    parser.add("--start", action="store_true", help="start it")
    parser.add("--wait", choices=("running", "ready"), help="with --start: until when to wait (default: running)")
    add_timeout(parser)
    add_idempotency_key(parser)


def run(session: Session, arguments: Namespace) -> int:
    """Make the clone, wait as asked, print it and return the exit code."""
    what, hint = "usage of kc vm clone", "see kc vm clone --help"
    if arguments.wait and not arguments.start:
        raise UsageError(what, "--wait goes with --start", hint)
    if arguments.wait and not session.waits:
        raise UsageError(what, "--wait and --no-wait exclude each other", hint)
    metadata = build_tree(arguments.meta, "--meta") if arguments.meta else None
    follower = Follower(session, timeout=arguments.timeout)
    accepted = session.service.clone(
        arguments.name,
        arguments.new_name,
        metadata=metadata,
        start=arguments.start,
        key=key_of(arguments, arguments.new_name),
    )
    tell_warnings(session, [accepted])
    documents, errors = follower.conclude(follower.follow([accepted]), arguments.wait or "")
    print_results(session, VM, documents, several=False)
    return report_all(session, errors)
