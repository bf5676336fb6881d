"""Where the cursor goes: pyte's movements, mended where they leave the margins, and the answers that report it."""

from __future__ import annotations

from typing import Any

import pyte
from pyte import modes
from pyte.screens import Margins

_REPLY_LIMIT = 4096
_STATUS, _POSITION = 5, 6


class MovingScreen(pyte.Screen):
    """A screen whose cursor obeys the scrolling margins as xterm's does."""

    replies: bytearray

    @property
    def _region(self) -> Margins:
        """The first and the last line that scroll."""
        return self.margins or Margins(0, self.lines - 1)

    def set_margins(self, top: int | None = None, bottom: int | None = None) -> None:
        """Choose which lines scroll, counted from 1; no or zero arguments choose all of them."""
        first, last = max(top or 1, 1) - 1, min(bottom or self.lines, self.lines) - 1
        if first < last:
            self.margins = Margins(first, last)
            self.cursor_position()

    def cursor_up(self, count: int | None = None) -> None:
        """Move up within the margins, or within the screen when the cursor is above them."""
        top = self._region.top if self.cursor.y >= self._region.top else 0
        self.cursor.y = max(self.cursor.y - (count or 1), top)

    def cursor_down(self, count: int | None = None) -> None:
        """Move down within the margins, or within the screen when the cursor is below them."""
        bottom = self._region.bottom if self.cursor.y <= self._region.bottom else self.lines - 1
        self.cursor.y = min(self.cursor.y + (count or 1), bottom)

    def cursor_to_line(self, line: int | None = None) -> None:
        """Move to a line, counted from 1 at the top of the screen, or of the margins in origin mode."""
        origin = self._region.top if modes.DECOM in self.mode else 0
        self.cursor.y = (line or 1) - 1 + origin
        self.ensure_vbounds()

    def back_tab(self, count: int | None = None) -> None:
        """Move back by tab stops (CBT)."""
        stops = [0, *sorted(stop for stop in self.tabstops if 0 < stop < self.cursor.x)]
        self.cursor.x = stops[max(len(stops) - (count or 1), 0)]

    def report_device_attributes(self, mode: int = 0, **_kwargs: Any) -> None:
        """Answer that this is a VT102; it says so to anything that knows terminals, and promises nothing more."""
        if mode == 0:
            self._reply("\x1b[?6c")

    def report_device_status(self, mode: int = 0) -> None:
        """Answer that all is well (5), or where the cursor is (6)."""
        if mode == _STATUS:
            self._reply("\x1b[0n")
        elif mode == _POSITION:
            origin = self._region.top if modes.DECOM in self.mode else 0
            self._reply(f"\x1b[{self.cursor.y + 1 - origin};{min(self.cursor.x + 1, self.columns)}R")

    def _reply(self, text: str) -> None:
        """Owe the guest an answer; a guest that asks without end is answered only so far."""
        if len(self.replies) + len(text) <= _REPLY_LIMIT:
            self.replies += text.encode("ascii")
