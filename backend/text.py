"""The one gate for strings from outside on their way to a terminal."""

from __future__ import annotations

import re
from typing import Any

# C0 and C1 controls, DEL, line and paragraph separators, bidirectional overrides and isolates, zero-width
# characters, the byte order mark, tag characters, and lone surrogates: each can rewrite what a terminal shows.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_UNSAFE_IN_TEXT = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
REPLACEMENT = "\ufffd"
# KC's own tokens, and what stands behind the name of a scheme (RFC 9110, 11.4).
_SECRET = re.compile(r"\bkc[gts]_[A-Za-z0-9_=-]{8,}|(?i:\b(basic|bearer|digest) )[A-Za-z0-9._~+/=-]{8,}")


def sanitise(value: object, limit: int = 4096) -> str:
    """Return `value` as one line of at most `limit` characters that no terminal can take for a command."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(REPLACEMENT, text)


def sanitise_lines(value: str, limit: int = 1 << 20) -> str:
    """Return a text with line feeds and tabs kept and other controls replaced; at most `limit` characters."""
    return _UNSAFE_IN_TEXT.sub(REPLACEMENT, value[:limit].replace("\r\n", "\n"))


def hide_secrets(text: str) -> str:
    """Return a text without what looks like a credential: for reports of faults, which quote what nobody foresaw."""
    return _SECRET.sub("(hidden)", text)


def sanitise_tree(value: Any) -> Any:
    """Return a JSON value with every string in it, keys included, sanitised."""
    if isinstance(value, str):
        return sanitise(value)
    if isinstance(value, dict):
        return {sanitise(key): sanitise_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sanitise_tree(item) for item in value]
    return value
