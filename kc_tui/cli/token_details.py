"""What the list of tokens and `kc token show` say of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from backend.model.documents import Document, format_time
from kc_tui.cli.table import Cell, Value

_DASH = "–"


def _show_end(document: Document) -> Value:
    until = document["spec"].get("expiresAt")
    if not until:
        return Cell("never", "warn")
    text = f"{until[:10]} {until[11:16]}Z"
    return Cell(f"{text}, over", "bad") if until <= format_time(time.time()) else text


def _show_scopes(document: Document) -> list[str]:
    entries = document["spec"].get("scopes")
    if entries is None:
        return ["what its subject may"]
    return [
        ", ".join(entry["actions"]) + (f": {entry['selector']}" if entry.get("selector") else "") for entry in entries
    ]


def show_token(document: Document) -> Sequence[Value]:
    """Return the row of a token: name, type, end, what it may do, who made it."""
    spec = document["spec"]
    return (
        str(document["name"]),
        Cell("god", "bad") if spec["type"] == "god" else str(spec["type"]),
        _show_end(document),
        "; ".join(_show_scopes(document)),
        str(spec.get("subject") or document.get("updatedBy") or _DASH),
    )


def describe_token(document: Document) -> Iterator[tuple[str, str]]:
    """Yield labels and texts."""
    spec, end = document["spec"], _show_end(document)
    yield "type", str(spec["type"])
    yield "expires", end.text if isinstance(end, Cell) else end
    for line in _show_scopes(document):
        yield "may do", line
    if spec.get("subject"):
        yield "subject", str(spec["subject"])
    if spec.get("groups"):
        yield "groups", ", ".join(spec["groups"])
