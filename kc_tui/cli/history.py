"""`kc KIND history`: the versions of one object, the newest first."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from backend.model.changes import compare_documents
from backend.model.kinds import KEPT_KINDS, Kind
from backend.service import Version
from kc_tui.cli.arguments import Parser, parse_count
from kc_tui.cli.columns import show_time
from kc_tui.cli.diff import summarise_changes
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Cell, Column, Value, print_table
from kc_tui.cli.verbs import Verb

_COLUMNS = (Column("VERSION", right=True), Column("WHEN"), Column("WHO"), Column("WHAT"))


def _add_arguments(parser: Parser, kind: Kind) -> None:
    parser.add("name", metavar="NAME", complete=kind.command, help=f"which {kind.title}; also one that is deleted")
    parser.add("--limit", metavar="N", type=parse_count, help="the newest N alone")


def _print_history(session: Session, kind: Kind, arguments: Namespace) -> int:
    versions = session.service.history(kind.name, arguments.name)
    first = 0 if arguments.limit is None else max(0, len(versions) - arguments.limit)
    shown = range(len(versions) - 1, first - 1, -1)
    if session.output in ("json", "yaml"):
        print_data(session, {"items": [versions[index]._asdict() for index in shown]})
    elif session.output == "name":
        sys.stdout.write("".join(f"{versions[index].version}\n" for index in shown))
    else:
        print_table(_COLUMNS, [_show(versions, index) for index in shown])
        if versions and versions[-1].document is None:
            back = f"; kc {kind.command} restore {arguments.name} brings it back" if kind in KEPT_KINDS else ""
            session.note(f"{kind.title} {arguments.name} is deleted{back}")
    return 0


def _show(versions: Sequence[Version], index: int) -> Sequence[Value]:
    entry = versions[index]
    return (str(entry.version), show_time(entry.at), entry.by, _describe(versions, index))


def _describe(versions: Sequence[Version], index: int) -> Value:
    """Return why a version was written, or else what changed in it."""
    entry = versions[index]
    if entry.document is None:
        return Cell(f"deleted: {entry.message}" if entry.message else "deleted", "bad")
    if entry.message:
        return entry.message
    before = versions[index - 1] if index else None
    if before is None:
        return "made" if entry.version == 1 else "the oldest version that is kept"
    if before.document is None:
        return "restored"
    return summarise_changes(compare_documents(before.document, entry.document)) or "nothing"


VERBS = {"history": Verb(_add_arguments, _print_history)}
