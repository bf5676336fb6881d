"""A document as the text that a person edits, and back: YAML without its surprises."""

from __future__ import annotations

from typing import Final, NamedTuple

from backend.errors import RefusedError
from backend.model.documents import Document
from backend.text import sanitise
from kc_tui.yaml_text import TextError, check_value, format_yaml, parse_yaml

_KEYS: Final = ("version", "message", "metadata", "spec")
_LARGEST: Final = 2 << 20
_HINT: Final = "mend it, or leave the editor without saving"


class Edited(NamedTuple):
    """What a text says: the version that it was made from (0 where it does not say), why, and the document's parts."""

    version: int
    message: str
    parts: Document


def write_text(document: Document, title: str) -> str:
    """Return the text of a document; `title` says what it is.

    What could play tricks on a terminal is written with backslashes.
    """
    value = {
        "version": document.get("version", 0),
        "message": "",
        "metadata": document.get("metadata", {}),
        "spec": document.get("spec", {}),
    }
    head = f"# {sanitise(title)}\n# Save and leave: what would change is shown before anything does.\n"
    return f"{head}# `message` is kept in the history; what you leave out of spec KC fills in.\n{format_yaml(value)}"


def read_text(text: str, what: str) -> Edited:
    """Return what a text says; raise RefusedError, with the line where that is known."""
    if len(text) > _LARGEST:
        raise RefusedError(what, "the text is longer than 2 MiB", _HINT)
    try:
        values = parse_yaml(text)
        check_value(values)
    except TextError as error:
        raise RefusedError(what, sanitise(error, 300), _HINT) from error
    value = values[0] if len(values) == 1 else None
    if not isinstance(value, dict):
        raise RefusedError(what, "the text is no YAML object with metadata and spec", _HINT)
    unknown = set(value) - set(_KEYS)
    if unknown:
        raise RefusedError(what, f"{sanitise(min(unknown), 60)}: unknown field", f"known are {', '.join(_KEYS)}")
    version, message = value.get("version"), value.get("message")
    parts = {key: value[key] for key in ("metadata", "spec") if value.get(key) is not None}
    for key, part in parts.items():
        if not isinstance(part, dict):
            raise RefusedError(what, f"{key} is no object", _HINT)
    return Edited(version if isinstance(version, int) else 0, message if isinstance(message, str) else "", parts)
