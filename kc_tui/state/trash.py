"""What the trash shows: deleted objects, who deleted them, and until when they can be brought back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import find_kind
from kc_tui.state.formatting import format_age
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.images import list_metadata
from kc_tui.state.lines import Line, draw_tree, heading, join_parts, labelled
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.operations import clock_time, describe_busy, describe_progress, read_time
from kc_tui.state.roles import Role
from kc_tui.state.table import Cell, Column, Row, Run

COLUMNS: Final = (
    Column("name", "NAME", 14, weight=3, widest=40, lasting=True),
    Column("kind", "KIND", 12, lasting=True),
    Column("deleted", "DELETED", 9),
    Column("by", "BY", 8, weight=1, widest=20, rank=1),
    Column("until", "UNTIL", 22),
)
_HOUR: Final = 3600.0


def target_of(entry: Document) -> Mapping[str, Any]:
    """Return what an entry of the trash was: `kind`, `name`, `uid`, `version`."""
    target = entry.get("spec", {}).get("target")
    return target if isinstance(target, dict) else {}


def name_kind(kind: str) -> str:
    """Return a kind as people call it; one of a newer KC by its own name."""
    try:
        return find_kind(kind).title
    except KCError:
        return kind


def describe_until(until: float | None, now: float, glyphs: Glyphs) -> tuple[Run, ...]:
    """Return until when something can be brought back: the hour, and how long that is."""
    if until is None:
        return (Run(glyphs.dash, Role.MUTED),)
    left = until - now
    if left <= 0:
        return (Run("being removed", Role.WARN),)
    hour = time.strftime("%d %b %H:%M", time.localtime(until))
    return Run(hour, Role.WARN if left < _HOUR else Role.TEXT), Run(f"  in {format_age(left, glyphs)}", Role.MUTED)


def build_entry(entry: Document, operation: Mapping[str, Any] | None, now: float, glyphs: Glyphs) -> Entry:
    """Return one deleted object as the trash shows it."""
    target = target_of(entry)
    name, kind, by = (
        str(target.get("name", "")),
        name_kind(str(target.get("kind", ""))),
        str(entry.get("updatedBy", "")),
    )
    deleted = read_time(entry.get("createdAt"))
    until = read_time(entry.get("spec", {}).get("until"))
    left = describe_until(until, now, glyphs)
    cells = (
        Cell(name),
        Cell(kind, Role.MUTED),
        Cell(format_age(None if deleted is None else max(0.0, now - deleted), glyphs), Role.MUTED),
        Cell(by, Role.MUTED),
        Cell(left[0].text, left[0].role, left[1:]),
    )
    progress = describe_progress(operation) if operation is not None else None
    uid = str(entry.get("uid", ""))
    glyph = Cell(glyphs.changing, Role.ACCENT) if progress else Cell(glyphs.stopped, Role.MUTED)
    return Entry(
        uid=uid,
        name=name,
        row=Row(uid, (cells, progress), cells, glyph, progress),
        search="\n".join((name, kind, by, str(entry.get("name", "")))).casefold(),
        sort_keys={
            "name": natural_key(name),
            "kind": kind,
            "deleted": -(deleted or 0.0),
            "by": by,
            "until": until or 0.0,
        },
        state="deleted",
        busy=describe_busy(operation) if operation is not None else "",
    )


def describe(entry: Document, now: float, glyphs: Glyphs) -> list[Line]:
    """Return all about a deleted object."""
    target = target_of(entry)
    until = read_time(entry.get("spec", {}).get("until"))
    top: list[Line] = [
        (Run(str(target.get("name", "")), Role.STRONG),),
        (Run(f"deleted {name_kind(str(target.get('kind', '')))}", Role.MUTED),),
    ]
    facts = [
        labelled("deleted", clock_time(entry.get("createdAt"))),
        labelled("by", str(entry.get("updatedBy", ""))),
        labelled("until", *describe_until(until, now, glyphs)),
        labelled("version", str(target.get("version", ""))),
        labelled("entry", Run(str(entry.get("name", "")), Role.MUTED)),
    ]
    document = entry.get("spec", {}).get("document")
    spec = document.get("spec") if isinstance(document, dict) else None
    whole = [heading("As it was"), *draw_tree(_name_references(spec), glyphs, 1)] if spec else []
    return join_parts((top, facts, list_metadata(entry, glyphs), whole))


def _name_references(value: Any) -> Any:
    """Return a JSON value with what refers to other objects by their names alone."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str) and "uid" in value:
            return value["name"]
        return {key: _name_references(item) for key, item in value.items()}
    return [_name_references(item) for item in value] if isinstance(value, list) else value
