"""The verbs that every kind has: list, show, delete."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence

from backend.errors import KCError, UsageError
from backend.model.documents import Document
from backend.model.kinds import Kind
from backend.service import Accepted
from kc_tui.cli.arguments import Parser, parse_count
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_list, print_results
from kc_tui.cli.reporting import report_error
from kc_tui.cli.session import Session


def plural(kind: Kind, count: int) -> str:
    """Return `1 VM`, `3 machine types`."""
    from kc_tui.state.formatting import pluralise  # noqa: PLC0415 - lists count nothing

    return pluralise(count, kind.title)


def list_command(kind: Kind, hint: str) -> Command:
    """Return `kc KIND list`; `hint` is the command that makes the first one."""

    def add_arguments(parser: Parser) -> None:
        parser.add(
            "-l", "--selector", metavar="SELECTOR", default="", help="only those that match, such as tenant=acme"
        )
        parser.add("--all", dest="everything", action="store_true", help="hidden ones too")
        parser.add("--limit", metavar="N", type=parse_count, help="at most N")
        parser.add("--continue", dest="after", metavar="CURSOR", default="", help="go on where a limited list ended")

    def run(session: Session, arguments: Namespace) -> int:
        return _list(session, kind, arguments, hint)

    return Command(
        f"list {kind.title}s",
        add_arguments,
        run,
        f"List {kind.title}s. With -o json: items, continue (the cursor of the next page, or null) and revision.",
        (f"kc {kind.command} list -l tenant=acme -o name",),
    )


def _list(session: Session, kind: Kind, arguments: Namespace, hint: str) -> int:
    page = session.service.list_documents(
        kind.name,
        selector=arguments.selector,
        limit=arguments.limit,
        after=arguments.after,
        everything=arguments.everything,
    )
    print_list(session, kind, page.items, page.next, page.revision)
    for warning in page.warnings:
        session.note(f"warning: {warning}")
    if session.output == "table":
        if page.next:
            session.note(f"there are more: --continue {page.next}")
        elif not page.items:
            matching = f" match {arguments.selector}" if arguments.selector else ""
            session.note(f"no {kind.title}s{matching}" + ("" if matching or not hint else f"; make one with {hint}"))
    return 0


def show_command(kind: Kind, noun: str = "NAME") -> Command:
    """Return `kc KIND show NAME…`."""

    def add_arguments(parser: Parser) -> None:
        parser.add("names", metavar=noun, nargs="+", complete=kind.command, help=f"which {kind.title}")

    def run(session: Session, arguments: Namespace) -> int:
        return _show(session, kind, arguments.names)

    return Command(
        f"show one {kind.title}",
        add_arguments,
        run,
        f"Show one {kind.title}, or several. With -o json: the document.",
        (f"kc {kind.command} show {noun} -o yaml",),
    )


def _show(session: Session, kind: Kind, names: Sequence[str]) -> int:
    documents, errors = collect(lambda name: session.service.get(kind.name, name), names)
    if session.output == "table":
        from kc_tui.cli.details import print_details  # noqa: PLC0415 - JSON needs none

        print_details(kind, documents)
    else:
        print_results(session, kind, documents, several=len(names) > 1)
    return report_all(session, errors)


def collect(get: Callable[[str], Document], names: Sequence[str]) -> tuple[list[Document], list[KCError]]:
    """Return what `get` gives for each name, and the errors that it raised for others."""
    documents, errors = [], []
    for name in names:
        try:
            documents.append(get(name))
        except KCError as error:
            errors.append(error)
    return documents, errors


def report_all(session: Session, errors: Sequence[KCError]) -> int:
    """Print each error and return the exit code of the first; 0 where there is none."""
    codes = [report_error(error, as_json=session.output == "json") for error in errors]
    return codes[0] if codes else 0


def add_targets(parser: Parser, kind: Kind) -> None:
    """Add `NAME…` and `-l SELECTOR`, of which a command takes one."""
    parser.add("names", metavar="NAME", nargs="*", complete=kind.command, help=f"which {kind.title}s")
    parser.add("-l", "--selector", metavar="SELECTOR", help="those that match, such as tenant=acme")


def find_targets(session: Session, kind: Kind, arguments: Namespace) -> list[str]:
    """Return the names that a command is about; raise UsageError unless names or a selector were given."""
    names: list[str] = list(dict.fromkeys(arguments.names))
    if bool(names) == (arguments.selector is not None):
        raise UsageError(f"kc {kind.command}", "give names, or -l SELECTOR", f"see kc {kind.command} --help")
    if names:
        return names
    if not arguments.selector.strip():
        raise UsageError(f"kc {kind.command}", "an empty selector would mean all of them", "name what is meant")
    page = session.service.list_documents(kind.name, selector=arguments.selector)
    for warning in page.warnings:
        session.note(f"warning: {warning}")
    found = [document["name"] for document in page.items if not document.get("status", {}).get("foreign")]
    if not found:
        session.note(f"no {kind.title}s match {arguments.selector}")
    return found


def delete_command(kind: Kind) -> Command:
    """Return `kc KIND delete NAME…`."""

    def add_arguments(parser: Parser) -> None:
        from kc_tui.cli.deleting import add_arguments as add  # noqa: PLC0415 - only the chosen parser is built

        add(parser, kind)

    def run(session: Session, arguments: Namespace) -> int:
        from kc_tui.cli.deleting import delete  # noqa: PLC0415 - lists delete nothing

        return delete(session, kind, arguments)

    with_disks = " with their disks" if kind.command == "vm" else ""
    return Command(
        f"delete {kind.title}s{with_disks}",
        add_arguments,
        run,
        f"Delete {kind.title}s{with_disks}. It asks first; without a terminal it needs --yes.",
        (f"kc {kind.command} delete NAME --yes", f"kc {kind.command} delete -l tenant=acme"),
    )


def accept_all(act: Callable[[str], Accepted], names: Sequence[str]) -> tuple[list[Accepted], list[KCError]]:
    """Return what was accepted for each name, and the errors for others."""
    accepted, errors = [], []
    for name in names:
        try:
            accepted.append(act(name))
        except KCError as error:
            errors.append(error)
    return accepted, errors
