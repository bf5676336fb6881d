"""The user's clipboard, reached through the terminal (OSC 52); it is written, never read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from textual.message import Message

from backend.text import sanitise_lines

SIZE_LIMIT: Final = 74_994
"""Bytes: what terminals take is 100,000 bytes of sequence (xterm's limit), of which base64 leaves three quarters."""

_SCREEN_CHUNK: Final = 512


class CopyRequested(Message):
    """Somebody wants a text on the clipboard; `what` names it in the answer (`the address of web-1`)."""

    def __init__(self, text: str, what: str) -> None:
        super().__init__()
        self.text = text
        self.what = what


def prepare(text: str) -> str | None:
    """Return `text` without controls, as it may be put on a clipboard; None where it is too long for a terminal."""
    cleaned = sanitise_lines(text)
    return cleaned if len(cleaned.encode()) <= SIZE_LIMIT else None


def make_passthrough(text: str, environment: Mapping[str, str]) -> str:
    """Return the sequence that reaches the terminal around tmux or screen; empty where there is neither around us."""
    sequence = f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07"
    if environment.get("TMUX"):
        return f"\x1bPtmux;{sequence.replace(chr(27), chr(27) * 2)}\x1b\\"
    if environment.get("STY"):
        # screen passes on strings of at most 768 bytes.
        chunks = (sequence[at : at + _SCREEN_CHUNK] for at in range(0, len(sequence), _SCREEN_CHUNK))
        return "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)
    return ""
