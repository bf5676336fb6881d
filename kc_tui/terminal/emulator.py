"""A terminal in memory: bytes from a serial line in, rows of styled text and answers for the guest out."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from kc_tui.terminal.parser import Parser
from kc_tui.terminal.screen import APPLICATION_CURSOR, BRACKETED_PASTE, Screen
from kc_tui.terminal.scrollback import SCROLLBACK_LINES
from kc_tui.terminal.style import Row, Style

__all__ = ["SCROLLBACK_LINES", "Cursor", "Emulator", "Row", "Style", "row_text"]

_LARGEST_SIZE = 1000


class Cursor(NamedTuple):
    """The cursor's place on the screen, counted from 0 at the top left, and how many columns it covers."""

    column: int
    row: int
    width: int
    visible: bool


class Emulator:
    """The screen and the scrollback of one serial console.

    The guest is hostile: any bytes may come. None raises, none makes memory grow without end, and what comes out holds
    printable characters and spaces only. Titles, clipboard writes, links and other strings meant for the outer terminal
    vanish. Lines are numbered from 0 at the oldest line of the scrollback; the screen's rows are the last of them.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._screen = Screen(_clamp(columns), _clamp(rows))
        self._parser = Parser(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the line; a character may be cut in two, invalid bytes show as U+FFFD."""
        self._parser.feed(self._decoder.decode(data))

    def take_replies(self) -> bytes:
        """Return, once, what the guest asked for: device status, cursor position, device attributes."""
        replies = bytes(self._screen.replies)
        self._screen.replies.clear()
        return replies

    def take_dirty(self) -> set[int]:
        """Return, once, the rows of the screen that have changed since the last call."""
        dirty, self._screen.dirty = self._screen.dirty, set()
        return dirty

    def resize(self, columns: int, rows: int) -> None:
        """Change the size; the guest on a serial line does not learn of it."""
        self._screen.resize(_clamp(rows), _clamp(columns))

    @property
    def columns(self) -> int:
        """The width in columns."""
        return self._screen.columns

    @property
    def rows(self) -> int:
        """The height in rows, scrollback excluded."""
        return self._screen.lines

    @property
    def cursor(self) -> Cursor:
        """Where the cursor is."""
        cursor = self._screen.cursor
        column = min(cursor.x, self.columns - 1)
        return Cursor(column, cursor.y, self._screen.cursor_width, visible=not cursor.hidden)

    @property
    def application_cursor(self) -> bool:
        """Whether the guest wants the cursor keys' application sequences."""
        return APPLICATION_CURSOR in self._screen.mode

    @property
    def bracketed_paste(self) -> bool:
        """Whether the guest wants pasted text marked as such."""
        return BRACKETED_PASTE in self._screen.mode

    @property
    def scrolled(self) -> int:
        """How many lines have ever gone to the scrollback; it only rises."""
        return self._screen.scrollback.total

    @property
    def scrollback_count(self) -> int:
        """How many lines the scrollback holds, at most `SCROLLBACK_LINES`."""
        return len(self._screen.scrollback)

    @property
    def line_count(self) -> int:
        """How many lines there are, scrollback and screen together."""
        return self.scrollback_count + self.rows

    def row(self, number: int) -> Row:
        """Return a row of the screen."""
        return self._screen.row(number)

    def line(self, number: int) -> Row:
        """Return a line of scrollback and screen together."""
        scrollback = self._screen.scrollback
        return scrollback[number] if number < len(scrollback) else self.row(number - len(scrollback))

    def lines(self) -> Iterator[Row]:
        """Return every line from the oldest on; the emulator must not be fed meanwhile."""
        yield from self._screen.scrollback
        for number in range(self.rows):
            yield self.row(number)

    def text(self, *, scrollback: bool = False) -> str:
        """Return the screen as text, a line for each row, or everything with the scrollback."""
        rows = self.lines() if scrollback else (self.row(number) for number in range(self.rows))
        return "\n".join(row_text(row).rstrip(" ") for row in rows)

    def find(self, needle: str) -> list[int]:
        """Return the numbers of the lines that contain `needle`, whatever its case, the oldest first."""
        wanted = needle.casefold()
        return [number for number, row in enumerate(self.lines()) if wanted in row_text(row).casefold()]


def row_text(row: Row) -> str:
    """Return a row's characters without their styles."""
    return "".join([text for text, _ in row])


def _clamp(size: int) -> int:
    return max(1, min(size, _LARGEST_SIZE))
