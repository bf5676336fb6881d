"""The roles in which text is shown; a theme gives each its colour, nothing else does."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a piece of text is; `STRONG` is `TEXT` in bold."""

    TEXT = "text"
    STRONG = "strong"
    MUTED = "muted"
    ACCENT = "accent"
    OK = "ok"
    WARN = "warn"
    DANGER = "danger"
