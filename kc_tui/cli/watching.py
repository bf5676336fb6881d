"""`kc watch`: the change feed, one event a line."""

from __future__ import annotations

import select
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import suppress

from backend.errors import ConflictError, DeniedError, NotFoundError, UnreachableError, UsageError
from backend.model.documents import Document
from backend.model.kinds import KINDS, VM, find_kind
from backend.service import Event
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, parse_count
from kc_tui.cli.commands import Command
from kc_tui.cli.following import leaving_on_signals
from kc_tui.cli.output import format_json
from kc_tui.cli.session import Session

PRESENT = "present"
ALL = "all"
RETRY_SECONDS = 1.0
_TEXT = """Print each change as one line of JSON, {"revision", "type", "document"}, as it happens, whoever made it. The
type is created, updated, status (what was observed), deleted, or left (it matches the selector no more). A watch that
ended goes on with --since and the last revision that it printed. It ends with ctrl-c, with --limit, or when nobody
reads it any more. With -o name: TYPE KIND NAME."""


def parse_revision(text: str) -> int:
    """Return a revision, a whole number from 0 on."""
    if not text.isascii() or not text.isdecimal():
        msg = f"{text!r} is no revision: a whole number from 0 on"
        raise ArgumentTypeError(msg)
    return int(text)


def _add_arguments(parser: Parser) -> None:
    words = [kind.command for kind in KINDS]
    parser.add(
        "kinds", metavar="KIND", nargs="*", choices=[*words, ALL], default=ALL,
        help=f"{', '.join(words)}, or {ALL} (the default)",
    )  # fmt: skip
    parser.add("-l", "--selector", metavar="SELECTOR", default="", help="only what matches, such as tenant=acme")
    parser.add("--since", metavar="REVISION", type=parse_revision, help="from after a revision (default: from now)")
    parser.add("--initial", action="store_true", help=f"first what is there already, as events of type {PRESENT}")
    parser.add("--limit", metavar="N", type=parse_count, help="end after N events")


def _watch(session: Session, arguments: Namespace) -> int:
    if arguments.initial and arguments.since is not None:
        why = "--initial begins with what is there, --since after a revision"
        raise UsageError("kc watch", why, "give one of them")
    printed = 0
    with leaving_on_signals():
        for event in _follow(session, arguments):
            if event is None:
                _check_reader()
                continue
            sys.stdout.write(_format(session, event))
            sys.stdout.flush()
            printed += 1
            if printed == arguments.limit:
                break
    return 0


def _follow(session: Session, arguments: Namespace) -> Iterator[Event | None]:
    words: list[str] = [] if ALL in arguments.kinds else arguments.kinds
    kinds = [find_kind(word).name for word in dict.fromkeys(words)]
    since: int | None = arguments.since
    seen: dict[str, int] = {}
    if arguments.initial:
        since, present = _list_present(session, kinds, arguments.selector)
        for document in present:
            seen[document["uid"]] = document["version"]
            yield Event(since, PRESENT, document)
    try:
        for event in _read_feed(session, kinds, since, arguments.selector):
            if event is None or not _is_known(event, seen):
                yield event
    except ConflictError as error:
        if not error.details.get("compacted"):
            raise
        hint = "kc watch --initial begins anew with what is there now"
        raise ConflictError(error.what, error.why, hint, **error.details) from error


def _read_feed(session: Session, kinds: list[str], since: int | None, selector: str) -> Iterator[Event | None]:
    """Yield what changes; the feed of a KC elsewhere goes on where it was once the line is back."""
    if not session.settings.url:
        yield from session.service.watch(kinds, since=since, selector=selector)
        return
    if since is None:
        # What happens while the line is down is to be told as well, from the very beginning on.
        with suppress(DeniedError):
            since = session.service.list_documents(kinds[0] if kinds else VM.name, limit=1, observe=False).revision
    has_worked = is_lost = False
    while True:
        try:
            for event in session.service.watch(kinds, since=since, selector=selector):
                if is_lost:
                    session.note("the feed goes on")
                has_worked, is_lost = True, False
                if event is not None:
                    since = event.revision or since
                yield event
        except UnreachableError as error:
            if not (has_worked and error.is_transient):
                raise
            if not is_lost:
                session.note(f"{error.what}: {error.why}; trying again until it is back")
            is_lost = True
        yield None
        time.sleep(RETRY_SECONDS)


def _list_present(session: Session, kinds: list[str], selector: str) -> tuple[int, list[Document]]:
    """Return what is there, and the revision from which on the feed tells of all that it may lack."""
    revision: int | None = None
    documents: list[Document] = []
    for kind in kinds or [kind.name for kind in KINDS]:
        page = session.service.list_documents(kind, selector=selector, everything=True)
        revision = page.revision if revision is None else revision
        documents += page.items
        for warning in page.warnings:
            session.note(f"warning: {warning}")
    return revision or 0, documents


def _is_known(event: Event, seen: dict[str, int]) -> bool:
    """Return whether a list that was made after the feed's beginning had that version of a document already."""
    version: int = event.document["version"]
    return event.type in ("created", "updated") and version <= seen.get(event.document["uid"], -1)


def _format(session: Session, event: Event) -> str:
    if session.output == "name":
        return f"{event.type} {_name_kind(event.document)} {sanitise(event.document['name'])}\n"
    if session.output == "yaml":
        from kc_tui.yaml_text import format_yaml  # noqa: PLC0415 - JSON lines need none

        return f"---\n{format_yaml(event._asdict())}"
    return format_json(event._asdict(), indent=None) + "\n"


def _name_kind(document: Document) -> str:
    name = str(document["kind"])
    with suppress(NotFoundError):  # a newer KC may have put more kinds into the store
        return find_kind(name).command
    return sanitise(name, 80)


def _check_reader() -> None:
    """Raise BrokenPipeError where nobody reads stdout any more: nothing may change for days that could tell."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:
        return
    poll = select.poll()
    poll.register(descriptor, 0)
    if any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(0)):
        raise BrokenPipeError


COMMANDS = {
    "": Command(
        "print changes as they happen, one JSON event a line",
        _add_arguments,
        _watch,
        _TEXT,
        ("kc watch vm -l tenant=acme", "kc watch --since 4711 --limit 10 -o name", "kc watch vm network --initial"),
        finishes=False,
    )
}
