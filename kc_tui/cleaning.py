"""Documents through the gate for terminals, thousands at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

from backend.model.documents import Document
from backend.text import sanitise, sanitise_lines, sanitise_tree

if TYPE_CHECKING:
    from backend.model.changes import Change

_SHORT: Final = 4096
"""Characters: no string within a text of that length needs to be cut."""

Cleaned = TypeVar("Cleaned", Document, "Document | None")


def clean(document: Cleaned) -> Cleaned:
    """Return a document with every string in it fit for a terminal.

    Most documents are plain ASCII. JSON writes any control character, and nothing else that is harmless, with a
    backslash, so one look at the text of the whole tells that there is nothing to clean: a fifth of the walk's cost.
    """
    text = json.dumps(document, ensure_ascii=False)
    if len(text) <= _SHORT and text.isascii() and "\\" not in text and "\x7f" not in text:
        return document
    cleaned: Cleaned = sanitise_tree(document)
    return cleaned


def clean_changes(changes: list[Change]) -> list[Change]:
    """Return differences fit for a terminal; texts keep their lines."""
    return [
        change._replace(
            path=tuple(sanitise(step) if isinstance(step, str) else step for step in change.path),
            old=_clean_lines(change.old),
            new=_clean_lines(change.new),
        )
        for change in changes
    ]


def _clean_lines(value: Any) -> Any:
    if isinstance(value, str):
        return sanitise_lines(value)
    if isinstance(value, dict):
        return {sanitise(key): _clean_lines(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean_lines(item) for item in value]
    return value
