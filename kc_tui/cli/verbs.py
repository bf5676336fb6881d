"""The verbs that every kind has: list, show, delete, and what the kept kinds have for their versions."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, TypeVar

from backend.errors import KCError, UsageError
from backend.model.documents import Document
from backend.model.kinds import WRITTEN_KINDS, Kind
from kc_tui.cli.arguments import Parser, add_selector, parse_count
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_list, print_results
from kc_tui.cli.reporting import report_error
from kc_tui.cli.session import Session

Named = TypeVar("Named")
Done = TypeVar("Done")


class Verb(NamedTuple):
    """What a verb of several kinds is made of; its module has it in `VERBS` and is imported when it is asked for."""

    add_arguments: Callable[[Parser, Kind], None]
    run: Callable[[Session, Kind, Namespace], int]


class _Description(NamedTuple):
    """What is told of a verb without importing it; `{kind}` and `{title}` stand for the kind's command and title."""

    module: str
    summary: str
    text: str
    examples: tuple[str, ...]


_KEPT_VERBS = {
    "history": _Description(
        "history",
        "list the versions of one {title}",
        "List the versions of one {title}, the newest first: when, who, and why or what. Also of one that is deleted.",
        ("kc {kind} history NAME",),
    ),
    "diff": _Description(
        "diff",
        "show what changed between two versions",
        "Show what changed from version A to version B, or to the {title} as it is; without A, its last change. With "
        "-o json: a JSON Patch (RFC 6902).",
        ("kc {kind} diff NAME 3", "kc {kind} diff NAME 3 5 -o json"),
    ),
    "set": _Description(
        "setting",
        "change values of {title}s",
        "Change values: each PATH=JSON gives a path below spec or metadata a value, JSON where it parses, else text. "
        "What somebody else changes meanwhile stays; with --if-version the change is refused instead.",
        (
            "kc {kind} set NAME metadata.tenant=acme",
            "kc {kind} set NAME --meta owner.mail=ann@example.org --unset metadata.old --dry-run",
            "kc {kind} set -l tenant=acme --meta tier=2",
        ),
    ),
    "edit": _Description(
        "editing",
        "change one {title} in an editor",
        "Change metadata and spec of one {title} as YAML, in the editor that $VISUAL or $EDITOR names.",
        ("EDITOR=nano kc {kind} edit NAME",),
    ),
    "rollback": _Description(
        "restoring",
        "make one {title} again what it was in a version",
        "Write a new version that is as an old one, and bring the {title} to it. On a terminal it shows the difference "
        "and asks first.",
        ("kc {kind} rollback NAME --to 3",),
    ),
    "undo": _Description(
        "restoring",
        "take the last change back",
        "Take the last change of one {title} back; done twice, it is a redo. On a terminal it shows the difference and "
        "asks first.",
        ("kc {kind} undo NAME",),
    ),
    "restore": _Description(
        "restoring",
        "bring deleted {title}s back",
        "Bring deleted {title}s back: of several of one name the one deleted last, or that of --uid.",
        ("kc {kind} restore NAME", "kc {kind} restore -l tenant=acme"),
    ),
}


def kept_commands(kind: Kind) -> dict[str, Command]:
    """Return the commands that a kind has for its versions."""
    return {verb: _describe_verb(kind, verb, description) for verb, description in _KEPT_VERBS.items()}


def _describe_verb(kind: Kind, verb: str, description: _Description) -> Command:
    def load() -> Verb:
        verbs: dict[str, Verb] = import_module(f"kc_tui.cli.{description.module}").VERBS
        return verbs[verb]

    def fill(text: str) -> str:
        return text.format(kind=kind.command, title=kind.title)

    return Command(
        fill(description.summary),
        lambda parser: load().add_arguments(parser, kind),
        lambda session, arguments: load().run(session, kind, arguments),
        fill(description.text),
        tuple(fill(example) for example in description.examples),
    )


def plural(kind: Kind, count: int) -> str:
    """Return `1 VM`, `3 machine types`."""
    from kc_tui.state.formatting import pluralise  # noqa: PLC0415 - lists count nothing

    return pluralise(count, kind.title)


Prepare = Callable[[Session, Sequence[Document]], list[Document]]
"""Adds to documents what only a person's table of them needs."""


def list_command(kind: Kind, hint: str, prepare: Prepare | None = None) -> Command:
    """Return `kc KIND list`; `hint` is the command that makes the first one."""

    def add_arguments(parser: Parser) -> None:
        parser.add(
            "-l", "--selector", metavar="SELECTOR", default="", help="only those that match, such as tenant=acme"
        )
        parser.add("--all", dest="everything", action="store_true", help="hidden ones too")
        parser.add("--limit", metavar="N", type=parse_count, help="at most N")
        parser.add("--continue", dest="after", metavar="CURSOR", default="", help="go on where a limited list ended")

    def run(session: Session, arguments: Namespace) -> int:
        return _list(session, kind, arguments, hint, prepare)

    return Command(
        f"list {kind.title}s",
        add_arguments,
        run,
        f"List {kind.title}s. With -o json: items, continue (the cursor of the next page, or null) and revision.",
        (f"kc {kind.command} list -l tenant=acme -o name",),
    )


def _list(session: Session, kind: Kind, arguments: Namespace, hint: str, prepare: Prepare | None) -> int:
    page = session.service.list_documents(
        kind.name,
        selector=arguments.selector,
        limit=arguments.limit,
        after=arguments.after,
        everything=arguments.everything,
    )
    items = prepare(session, page.items) if prepare is not None and session.output == "table" else page.items
    print_list(session, kind, items, page.next, page.revision)
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
    """Return `kc KIND show NAME…`; of a kept kind old versions too."""
    kept = kind in WRITTEN_KINDS

    def add_arguments(parser: Parser) -> None:
        parser.add("names", metavar=noun, nargs="+", complete=kind.command, help=f"which {kind.title}")
        if kept:
            parser.add(
                "--version", metavar="N", type=parse_count, complete=f"{kind.command}:versions",
                help="as it was in version N, without its state; of a deleted one too",
            )  # fmt: skip

    def run(session: Session, arguments: Namespace) -> int:
        return _show(session, kind, arguments.names, arguments.version if kept else None)

    return Command(
        f"show one {kind.title}",
        add_arguments,
        run,
        f"Show one {kind.title}, or several. With -o json: the document.",
        (f"kc {kind.command} show {noun} -o yaml", *([f"kc {kind.command} show {noun} --version 3"] if kept else [])),
    )


def _show(session: Session, kind: Kind, names: Sequence[str], version: int | None) -> int:
    def get(name: str) -> Document:
        if version is None:
            return session.service.get(kind.name, name)
        document = session.service.get(kind.name, name, version=version)
        return {key: value for key, value in document.items() if key != "status"}

    documents, errors = collect(get, names)
    if session.output == "table":
        from kc_tui.cli.details import print_details  # noqa: PLC0415 - JSON needs none

        print_details(kind, documents)
    else:
        print_results(session, kind, documents, several=len(names) > 1)
    return report_all(session, errors)


def collect(do: Callable[[Named], Done], names: Sequence[Named]) -> tuple[list[Done], list[KCError]]:
    """Return what `do` gives for each name, and the errors that it raised for others."""
    results, errors = [], []
    for name in names:
        try:
            results.append(do(name))
        except KCError as error:
            errors.append(error)
    return results, errors


def report_all(session: Session, errors: Sequence[KCError]) -> int:
    """Print each error and return the exit code of the first; 0 where there is none."""
    codes = [report_error(error, as_json=session.output == "json") for error in errors]
    return codes[0] if codes else 0


def add_targets(parser: Parser, kind: Kind) -> None:
    """Add `NAME…` and `-l SELECTOR`, of which a command takes one."""
    parser.add("names", metavar="NAME", nargs="*", complete=kind.command, help=f"which {kind.title}s")
    add_selector(parser)


def find_targets(session: Session, kind: Kind, arguments: Namespace) -> list[str]:
    """Return the names that a command is about; raise UsageError unless names or a selector were given."""
    names = choose_names(kind, arguments.names, arguments.selector)
    return names or [document["name"] for document in select(session, kind, arguments.selector)]


def choose_names(kind: Kind, names: Sequence[str], selector: str | None) -> list[str]:
    """Return the names that were given, none where there is a selector; raise UsageError unless it is one of both."""
    if bool(names) == (selector is not None):
        raise UsageError(f"kc {kind.command}", "give names, or -l SELECTOR", f"see kc {kind.command} --help")
    if selector is not None and not selector.strip():
        raise UsageError(f"kc {kind.command}", "an empty selector would mean all of them", "name what is meant")
    return list(dict.fromkeys(names))


def select(session: Session, kind: Kind, selector: str) -> list[Document]:
    """Return what of ours matches a selector, and say so where nothing does."""
    page = session.service.list_documents(kind.name, selector=selector)
    for warning in page.warnings:
        session.note(f"warning: {warning}")
    found = [document for document in page.items if not document.get("status", {}).get("foreign")]
    if not found:
        session.note(f"no {kind.title}s match {selector}")
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
        f"Delete {kind.title}s{with_disks}. It asks first; without a terminal it needs --yes. Until their grace time "
        f"has passed, kc {kind.command} restore brings them back; with --now they are gone for good.",
        (f"kc {kind.command} delete NAME --yes", f"kc {kind.command} delete -l tenant=acme"),
    )
