"""What of a guest's console reaches the user's terminal.

The guest speaks to the terminal on purpose: colours, cursor, line editing. What it has no business with is taken out:
control strings (OSC, DCS, APC, PM, SOS and the title of screen), with which a guest could write the clipboard, the
window's title or links. Source: ECMA-48, xterm's ctlseqs.
"""

from __future__ import annotations

import re

from backend.text import sanitise_lines

_ESCAPE = 0x1B
_LAST_ASCII = 0x7F
_TEXT, _ESCAPED, _STRING, _STRING_ESCAPED, _LEAD, _CODING = range(6)
# ESC and: P (DCS), X (SOS), ] (OSC), ^ (PM), _ (APC), k (the title of screen).
_OPENERS = frozenset(b"PX]^_k")
# The same as C1 controls, as UTF-8 has them: 0xC2 and one of these.
_C1_OPENERS = frozenset((0x90, 0x98, 0x9D, 0x9E, 0x9F))
_C1_LEAD = 0xC2
_CONTINUATIONS = range(0x80, 0xC0)
# BEL and ST end a string, CAN and SUB abort it; a line's end ends one that was never meant to be one.
_CLOSERS = frozenset(b"\x07\x18\x1a\r\n")


class StringFilter:
    """Takes control strings out of a stream of bytes, however it is cut into pieces."""

    def __init__(self) -> None:
        """Begin outside of any string."""
        self._state = _TEXT

    def feed(self, data: bytes) -> bytes:
        """Return what of `data` may reach the terminal; the beginning of a sequence waits for its next byte."""
        if self._state == _TEXT and _ESCAPE not in data and _C1_LEAD not in data:
            return data
        passed = bytearray()
        for byte in data:
            self._take(byte, passed)
        return bytes(passed)

    def _take(self, byte: int, passed: bytearray) -> None:
        if self._state in (_STRING, _STRING_ESCAPED):
            self._take_in_string(byte, passed)
        elif self._state == _ESCAPED:
            self._take_escaped(byte, passed)
        elif self._state == _CODING:
            self._state = _TEXT
        elif self._state == _LEAD:
            self._state = _STRING if byte in _C1_OPENERS else _TEXT
            if self._state == _TEXT:
                # Half a character is dropped: the byte after a string that is taken out must not complete it.
                if byte in _CONTINUATIONS:
                    passed += bytes((_C1_LEAD, byte))
                else:
                    self._take(byte, passed)
        elif byte == _ESCAPE:
            self._state = _ESCAPED
        elif byte == _C1_LEAD:
            self._state = _LEAD
        else:
            passed.append(byte)

    def _take_escaped(self, byte: int, passed: bytearray) -> None:
        if byte in _OPENERS:
            self._state = _STRING
        elif byte == ord("%"):
            # Another character set would give bytes above 0x7f another meaning than the one that is judged here.
            self._state = _CODING
        elif byte > _LAST_ASCII:
            # No sequence goes on so: the escape is dropped, and the byte may begin a C1 control of its own.
            self._state = _TEXT
            self._take(byte, passed)
        elif byte != _ESCAPE:  # of two escapes the first is dropped, as a terminal does
            passed += bytes((_ESCAPE, byte))
            self._state = _TEXT

    def _take_in_string(self, byte: int, passed: bytearray) -> None:
        if self._state == _STRING_ESCAPED:
            # ESC \ ends the string; any other sequence aborts it and counts for itself.
            self._state = _TEXT if byte == ord("\\") else _ESCAPED
            if self._state == _ESCAPED:
                self._take(byte, passed)
        elif byte == _ESCAPE:
            self._state = _STRING_ESCAPED
        elif byte in _CLOSERS:
            self._state = _TEXT
            if byte in b"\r\n":
                passed.append(byte)


_SEQUENCE = re.compile(
    # A string up to its end or the line's, CSI, two-byte sequences with intermediates, a lone escape.
    r"\x1b[PX\]^_k][^\x07\x18\x1a\x1b\r\n]*(?:\x07|\x1b\\|\x18|\x1a)?"
    r"|(\x1b\[[0-9;:]*m)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)


def clean_log(data: bytes, *, coloured: bool) -> str:
    """Return what a console has said as lines of plain text; where `coloured`, colours stay, all else goes."""
    text = data.decode("utf-8", "replace")
    pieces: list[str] = []
    end = 0
    for found in _SEQUENCE.finditer(text):
        pieces.append(_clean_text(text[end : found.start()]))
        if coloured and found[1]:
            pieces.append(found[1])
        end = found.end()
    pieces.append(_clean_text(text[end:]))
    cleaned = "".join(pieces)
    if cleaned and not cleaned.endswith("\n"):
        cleaned += "\n"
    return f"{cleaned}\x1b[0m" if coloured and "\x1b" in cleaned else cleaned


def _clean_text(text: str) -> str:
    # A serial line ends lines with CR LF, sometimes CR CR LF; a lone CR goes back to write a line anew.
    text = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")
    return sanitise_lines(re.sub(r"[\x00\x07\x08]", "", text), len(text) + 1)
