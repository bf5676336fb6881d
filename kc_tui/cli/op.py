"""`kc op`: operations."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import OPERATION
from backend.service import Accepted
from kc_tui.cli.arguments import Parser, add_timeout
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import list_command, report_all, show_command


def _add_cancel_arguments(parser: Parser) -> None:
    parser.add("name", metavar="ID", complete="op", help="which operation")
    add_timeout(parser)


def _cancel(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.following import Follower  # noqa: PLC0415 - lists follow nothing
    from kc_tui.cli.output import print_results  # noqa: PLC0415

    operation = session.service.cancel(arguments.name)
    outcome = Follower(session, timeout=arguments.timeout).follow([Accepted(operation, operation)])[0]
    if session.waits:
        operation = session.service.get(OPERATION.name, operation["name"])
        state = operation.get("status", {}).get("state")
        if state == "failed" and outcome.error is not None:
            return report_all(session, [outcome.error])
        if state != "cancelled":
            session.note(f"operation {operation['name']} {state} before it could be cancelled")
    print_results(session, OPERATION, [operation], several=False)
    return 0


COMMANDS = {
    "list": list_command(OPERATION, ""),
    "show": show_command(OPERATION, "ID"),
    "cancel": Command(
        "end an operation and undo what it did",
        _add_cancel_arguments,
        _cancel,
        "Ask an operation to end; wait until what it did is undone.",
        ("kc op cancel op-1f2e3d4c5b",),
        finishes=False,
    ),
}
