"""`kc audit`: the audit trail."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from backend.model.documents import Document
from backend.service import FILTERED
from kc_tui.cli.arguments import Parser, parse_count
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

_MOST = 100
_TONES = {"allow": "ok", "accepted": "ok", "deny": "bad", "challenge": "warn", "error": "bad"}
_TEXT = f"""List what was decided and what was changed, the newest first: {_MOST} entries, or as many as --limit says.
In a selector a key is a field of an entry: subject, action, kind, name, uid, outcome, event (decision, refusal,
write), requestId, via, at. With -o json: items, each with its entry as metadata, and continue, the cursor of the next
page or null."""


def _add_list_arguments(parser: Parser) -> None:
    example = "only those that match, such as subject=alice,at>2026-01-01"
    parser.add("-l", "--selector", metavar="SELECTOR", default="", help=example)
    parser.add("--limit", metavar="N", type=parse_count, default=_MOST, help=f"at most N; {_MOST} by default")
    parser.add("--continue", dest="after", metavar="CURSOR", default="", help="go on where a list ended")


def _list(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.output import print_data, print_names  # noqa: PLC0415 - help prints nothing

    page = session.service.list_audit(selector=arguments.selector, limit=arguments.limit, after=arguments.after)
    if session.output == "table":
        _print_table(page.items)
    elif session.output == "name":
        print_names(page.items)
    else:
        print_data(session, {"items": page.items, "continue": page.next or None})
    for warning in page.warnings:
        if warning != FILTERED:
            session.note(f"warning: {warning}")
    if page.filtered:
        session.note("there may be entries that you are not allowed to see")
    if session.output == "table":
        if page.next:
            session.note(f"there are more: --continue {page.next}")
        elif not page.items:
            session.note(f"no entries match {arguments.selector}" if arguments.selector else "nothing was audited yet")
    return 0


def _print_table(items: list[Document]) -> None:
    from kc_tui.cli.columns import show_time  # noqa: PLC0415 - JSON needs no columns
    from kc_tui.cli.table import Cell, Column, print_table  # noqa: PLC0415 - as above

    columns = tuple(Column(title) for title in ("AT", "SUBJECT", "ACTION", "OBJECT", "OUTCOME", "VIA"))
    rows = []
    for item in items:
        entry = item["metadata"]
        outcome = _text(entry, "outcome")
        rows.append(
            (
                show_time(_text(entry, "at")),
                _text(entry, "subject") or "–",
                _text(entry, "action") or _text(entry, "event"),
                describe_object(entry),
                Cell(outcome, _TONES.get(outcome, "")),
                _text(entry, "via") or _text(entry, "transport"),
            )
        )
    if rows:
        print_table(columns, rows)


def describe_object(entry: dict[str, Any]) -> str:
    """Return what an entry is about: kind, name and version."""
    version = f" v{entry['version']}" if entry.get("version") else ""
    return f"{_text(entry, 'kind')} {_text(entry, 'name')}".strip() + version


def _text(entry: dict[str, Any], field: str) -> str:
    return str(entry.get(field) or "")


COMMANDS = {
    "list": Command(
        "list entries of the audit trail",
        _add_list_arguments,
        _list,
        _TEXT,
        ("kc audit list -l subject=alice", "kc audit list -l 'event=write,kind=VM,name=web' -o json"),
        finishes=False,
    ),
}
