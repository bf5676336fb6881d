"""The line of keys at the foot of a screen: what can be done here, and why a key did nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from kc_tui.commands.keymap import BarEntry

FLASH_SECONDS: Final = 2.0
_GAP: Final = 2
_INDENT: Final = 1


class KeyBar(Widget):
    """Keys and words in one line; where room is short, the entries of the highest rank are left out.

    One widget without children: Textual's own footer makes new widgets with every change of focus and keeps them.
    """

    class Pressed(Message):
        """An entry was clicked."""

        def __init__(self, command_id: str) -> None:
            super().__init__()
            self.command_id = command_id

    def __init__(self, entries: Sequence[BarEntry] = (), *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._entries = tuple(entries)
        self._reason = ""
        self._timer: Timer | None = None

    @property
    def reason(self) -> str:
        """What is being said in the place of the keys, if anything."""
        return self._reason

    def show(self, entries: Sequence[BarEntry]) -> None:
        """Show other keys."""
        shown = tuple(entries)
        if shown != self._entries:
            self._entries = shown
            self.refresh()

    def flash(self, reason: str) -> None:
        """Say for two seconds why a key did nothing; data in `reason` must be sanitised."""
        if self._timer is not None:
            self._timer.stop()
        self._reason = reason
        self._timer = self.set_timer(FLASH_SECONDS, self._end_flash)
        self.refresh()

    def _end_flash(self) -> None:
        self._reason = ""
        self._timer = None
        self.refresh()

    def _shown(self) -> list[tuple[int, BarEntry]]:
        """Return the entries that have room, each with the cell where it starts."""
        kept = list(self._entries)
        while kept and _measure(kept) > self.size.width - 2 * _INDENT:
            kept.remove(max(reversed(kept), key=lambda entry: entry.rank))
        placed: list[tuple[int, BarEntry]] = []
        at = _INDENT
        for entry in kept:
            placed.append((at, entry))
            at += _width(entry) + _GAP
        return placed

    def render(self) -> Content:
        """Draw the reason while there is one, else the keys."""
        if self._reason:
            return Content.assemble(" " * _INDENT, (self._reason, "$warn"))
        parts: list[Content] = [Content(" " * _INDENT)]
        for at, entry in self._shown():
            if at > _INDENT:
                parts.append(Content(" " * _GAP))
            parts.append(Content.styled(entry.key, "bold $accent" if entry.enabled else "$muted"))
            parts.append(Content.styled(f" {entry.word}", "$text" if entry.enabled else "$muted"))
        return Content("").join(parts)

    def on_click(self, event: events.Click) -> None:
        """Run what was clicked."""
        event.stop()
        for at, entry in [] if self._reason else self._shown():
            if at <= event.x < at + _width(entry):
                self.post_message(self.Pressed(entry.command_id))


def _width(entry: BarEntry) -> int:
    return cell_len(entry.key) + 1 + cell_len(entry.word)


def _measure(entries: Sequence[BarEntry]) -> int:
    return sum(map(_width, entries)) + _GAP * max(0, len(entries) - 1)
