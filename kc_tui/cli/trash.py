"""`kc trash`: deleted objects, until they are gone for good."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import TRASH
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import add_targets, collect, list_command, plural, report_all, select, show_command


def _add_empty_arguments(parser: Parser) -> None:
    from kc_tui.cli.arguments import add_timeout, add_yes  # noqa: PLC0415 - only the chosen parser is built

    add_targets(parser, TRASH)
    add_yes(parser)
    add_timeout(parser)


def _empty(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.changing import ask, require_terminal  # noqa: PLC0415 - lists change nothing
    from kc_tui.cli.deleting import name_some  # noqa: PLC0415
    from kc_tui.cli.following import Follower  # noqa: PLC0415
    from kc_tui.cli.output import print_results  # noqa: PLC0415
    from kc_tui.cli.verbs import choose_names  # noqa: PLC0415

    command = "kc trash empty"
    if not arguments.yes:
        require_terminal(command)
    if arguments.names or arguments.selector is not None:
        names = choose_names(TRASH, arguments.names, arguments.selector)
        names = names or [document["name"] for document in select(session, TRASH, arguments.selector)]
    else:
        names = [document["name"] for document in session.service.list_documents(TRASH.name).items]
        if not names:
            session.note("the trash is empty already")
    documents, errors = collect(lambda name: session.service.get(TRASH.name, name), names)
    count = plural(TRASH, len(documents))
    if documents and not arguments.yes:
        shown = name_some([document["name"] for document in documents])
        question = f"Remove {count} ({shown}) for good? type how many:"
        ask(command, question, (str(len(documents)),), "nothing was removed")
    follower = Follower(session, timeout=arguments.timeout)
    accepted = session.service.empty_trash([document["name"] for document in documents]) if documents else []
    outcomes = follower.follow(accepted)
    errors += [outcome.error for outcome in outcomes if outcome.error is not None]
    gone = [outcome.document for outcome in outcomes if outcome.error is None]
    if session.output == "table":
        if documents:
            share = count if len(gone) == len(documents) else f"{len(gone)} of {count}"
            session.note(f"{share} {'removed' if session.waits else 'being removed'} for good")
    else:
        print_results(session, TRASH, gone, several=True)
    return report_all(session, errors)


COMMANDS = {
    "list": list_command(TRASH, ""),
    "show": show_command(TRASH),
    "empty": Command(
        "remove deleted objects for good",
        _add_empty_arguments,
        _empty,
        "Remove deleted objects for good, with what they have on the host: those that are named, those that match, or "
        "all. It asks first; without a terminal it needs --yes.",
        ("kc trash empty --yes", "kc trash empty -l tenant=acme"),
    ),
}
