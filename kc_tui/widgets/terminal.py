"""A serial console as a widget: it shows what a guest writes, and tells its owner what the guest is to be sent."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from rich.color import Color as RichColour
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

from kc_tui.terminal.emulator import Emulator, Row, Style, row_text
from kc_tui.terminal.keys import LEADER, encode_key

BACKLOG_LIMIT = 256 * 1024
"""Bytes waiting above which the widget feeds without painting; a reader should pause there until `Terminal.Drained`."""

_FRAME = 1 / 30
_FEED_TIME = 0.012
_SOONEST = 0.0001
_SLICE = 256  # the worst that a guest can pack into so few bytes takes some 15 ms on a large screen
_CACHED_STRIPS = 512
_CACHED_STYLES = 1024
_PASTE_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass
class TerminalMessage(Message):
    """What a terminal tells its owner."""

    terminal: Terminal

    @property
    def control(self) -> Terminal:
        """The sender, for `@on` selectors."""
        return self.terminal


class Terminal(ScrollView, can_focus=True, inherit_bindings=False):
    """A terminal that belongs to a guest.

    Every key goes to the guest but the leader, ctrl-], and shift with page up or down, home and end, which scroll. A
    priority binding of the app or the screen still comes first: the owner has to disable those while this has focus.
    """

    ALLOW_SELECT = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("shift+pageup", "page_up", "Scroll up", show=False),
        Binding("shift+pagedown", "page_down", "Scroll down", show=False),
        Binding("shift+home", "scroll_home", "Oldest line", show=False),
        Binding("shift+end", "scroll_end", "Newest line", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"terminal--badge"}
    # Guests take a serial line for 80 columns wide, so neither sides nor scrollbar may cost one.
    DEFAULT_CSS = """
    Terminal {
        background: $background;
        color: $foreground;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size: 0 0;
        .terminal--badge { background: $accent; color: $background; }
    }
    """

    # The height grows with each line of output; laying the screen out again for it would cost more than the line.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0), layout=False)

    @dataclass
    class Input(TerminalMessage):
        """Bytes for the guest: from the keyboard, from a paste, or an answer to its question."""

        data: bytes

    @dataclass
    class Leave(TerminalMessage):
        """The operator wants out: the leader was pressed."""

    @dataclass
    class PasteRequested(TerminalMessage):
        """Text of several lines was pasted; `Terminal.paste` sends it once that is confirmed."""

        text: str

    @dataclass
    class Resized(TerminalMessage):
        """The screen has its first or a new size; a serial line does not tell the guest."""

        columns: int
        rows: int

    @dataclass
    class Drained(TerminalMessage):
        """The backlog is below the limit again after it was above."""

    def __init__(
        self,
        title: Content | str = "",
        *,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (Textual's name)
        classes: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.emulator = Emulator()
        self.title = title
        self._clock = clock
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._position = 0
        self._backlog = 0
        self._is_fast_forwarding = False
        self._pump_timer: Timer | None = None
        self._next_frame = 0.0
        self._scrolled = 0
        self._cursor_row = 0
        self._told_size = Size(0, 0)
        self._strips: LRUCache[Row, Strip] = LRUCache(_CACHED_STRIPS)
        self._styles: LRUCache[Style, RichStyle] = LRUCache(_CACHED_STYLES)

    # What the owner sets and asks.

    @property
    def title(self) -> Content:
        """What the border says; a string is data, never markup."""
        return self._title

    @title.setter
    def title(self, title: Content | str) -> None:
        self._title = title if isinstance(title, Content) else Content(title)
        self.border_title = self._title if self._title.plain else None

    @property
    def text(self) -> str:
        """The text in view, a line for each row."""
        top = self.scroll_offset.y
        lines = range(top, min(top + self.emulator.rows, self.emulator.line_count))
        return "\n".join(row_text(self.emulator.line(number)).rstrip(" ") for number in lines)

    @property
    def backlog(self) -> int:
        """Bytes written and not yet shown."""
        return self._backlog

    @property
    def is_fast_forwarding(self) -> bool:
        """Whether the backlog is so long that it is fed without being painted."""
        return self._is_fast_forwarding

    def write(self, data: bytes, *, answer: bool = True) -> None:
        """Show what the guest wrote, in order and within a few frames.

        With `answer` false its questions stay unanswered: for a log that is replayed, they are of another time.
        """
        if data:
            self._waiting.append((data, answer))
            self._backlog += len(data)
            self._schedule_pump()

    def paste(self, text: str) -> None:
        """Send text to the guest as if typed, without control characters, and marked as pasted if the guest asks so."""
        typed = _PASTE_CONTROLS.sub("", text.replace("\r\n", "\r").replace("\n", "\r")).encode("utf-8", "replace")
        if typed:
            self._send(b"\x1b[200~" + typed + b"\x1b[201~" if self.emulator.bracketed_paste else typed)

    # From the guest.

    def on_mount(self) -> None:
        """Begin with what was written before there was a screen to show it on."""
        self._schedule_pump()

    def _schedule_pump(self) -> None:
        """Have the waiting bytes fed: at once if nothing was of late, else when the next frame is due."""
        if self._waiting and self._pump_timer is None and self.is_attached:
            self._pump_timer = self.set_timer(max(self._next_frame - self._clock(), _SOONEST), self._pump)

    def _pump(self) -> None:
        """Feed the emulator for part of a frame, then paint what has changed, unless there is too much to come."""
        self._pump_timer = None
        started = self._clock()
        self._next_frame = started + _FRAME
        while self._waiting and self._clock() - started < _FEED_TIME:
            self._feed_slice()
        was_fast_forwarding = self._is_fast_forwarding
        self._is_fast_forwarding = self._backlog > BACKLOG_LIMIT
        if self._is_fast_forwarding or was_fast_forwarding:
            self._refresh_row(0)
        if not self._is_fast_forwarding:
            self._show_changes()
            if was_fast_forwarding:
                self.post_message(self.Drained(self))
        self._schedule_pump()

    def _feed_slice(self) -> None:
        data, answer = self._waiting[0]
        part = data[self._position : self._position + _SLICE]
        self._position += len(part)
        self._backlog -= len(part)
        if self._position >= len(data):
            self._waiting.popleft()
            self._position = 0
        self.emulator.feed(part)
        replies = self.emulator.take_replies()
        if replies and answer:
            self.post_message(self.Input(self, replies))

    def _show_changes(self) -> None:
        """Follow the output, or stay with the lines in view if the operator has scrolled back; repaint what changed."""
        emulator, dirty = self.emulator, self.emulator.take_dirty()
        top = self.scroll_offset.y
        follows = self.is_vertical_scroll_end
        if emulator.scrolled != self._scrolled:
            dropped = self.virtual_size.height + emulator.scrolled - self._scrolled - emulator.line_count
            self._scrolled = emulator.scrolled
            self.virtual_size = Size(emulator.columns, emulator.line_count)
            self.scroll_to(y=self.max_scroll_y if follows else max(top - dropped, 0), animate=False)
            self.refresh()
        else:
            for row in dirty | {self._cursor_row, emulator.cursor.row}:
                self._refresh_row(emulator.scrollback_count + row - top)
        self._cursor_row = emulator.cursor.row

    def _refresh_row(self, y: int) -> None:
        """Have a row of the view painted again; one outside of it is not."""
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # To the guest.

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Return that every key is taken, for whoever lists the keys that still do something."""
        del key, character
        return True

    async def _on_key(self, event: events.Key) -> None:
        if event.key in self._bindings.key_to_bindings:
            return
        event.stop()
        event.prevent_default()
        if event.key == LEADER:
            self.post_message(self.Leave(self))
            return
        data = encode_key(event.key, event.character, application_cursor=self.emulator.application_cursor)
        if data is not None:
            self._send(data)

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        if "\n" in event.text or "\r" in event.text:
            self.post_message(self.PasteRequested(self, event.text))
        else:
            self.paste(event.text)

    def _send(self, data: bytes) -> None:
        self.scroll_to(y=self.max_scroll_y, animate=False)
        self.post_message(self.Input(self, data))

    # Size, scrolling and looks.

    def on_resize(self) -> None:
        """Give the emulator the size of the content."""
        columns, rows = self.scrollable_content_region.size
        if columns < 1 or rows < 1:
            return
        follows = self.is_vertical_scroll_end
        self.emulator.resize(columns, rows)
        self._scrolled = self.emulator.scrolled
        self.virtual_size = Size(columns, self.emulator.line_count)
        if follows:
            self.scroll_to(y=self.max_scroll_y, animate=False)
        self.refresh()
        if (columns, rows) != self._told_size:
            self._told_size = Size(columns, rows)
            self.post_message(self.Resized(self, columns, rows))

    def action_page_up(self) -> None:
        """Scroll back by a page."""
        self.scroll_to(y=self.scroll_offset.y - self.emulator.rows, animate=False)

    def action_page_down(self) -> None:
        """Scroll towards the newest line by a page."""
        self.scroll_to(y=self.scroll_offset.y + self.emulator.rows, animate=False)

    def action_scroll_home(self) -> None:
        """Scroll back to the oldest line."""
        self.scroll_to(y=0, animate=False)

    def action_scroll_end(self) -> None:
        """Scroll to the newest line and follow the output."""
        self.scroll_to(y=self.max_scroll_y, animate=False)

    def notify_style_update(self) -> None:
        """Forget strips in colours of the past."""
        super().notify_style_update()
        self._strips.clear()
        self._styles.clear()

    def render_line(self, y: int) -> Strip:
        """Return row `y` of the view, the cursor, the selection and the badge included."""
        number = self.scroll_offset.y + y
        width = self.size.width
        if number >= self.emulator.line_count:
            return Strip.blank(width, self.rich_style)
        strip = self._with_selection(self._strip(self.emulator.line(number), width), number)
        cursor = self.emulator.cursor
        if self.has_focus and cursor.visible and number == self.emulator.scrollback_count + cursor.row:
            strip = _with_reversed(strip, cursor.column, cursor.column + cursor.width)
        badge = self._badge() if y == 0 else ""
        if badge and len(badge) < width:
            style = self.get_component_rich_style("terminal--badge")
            strip = Strip.join([strip.crop(0, width - len(badge)), Strip([Segment(badge, style)])])
        return strip.apply_offsets(0, number)

    def _badge(self) -> str:
        """Return what the top right corner says of the distance between the view and the newest output."""
        if self._is_fast_forwarding:
            return f" skipping ahead, {self._backlog // 1024} KiB left "
        behind = self.max_scroll_y - self.scroll_offset.y
        return f" {behind} lines back " if behind > 0 else ""

    def _strip(self, row: Row, width: int) -> Strip:
        strip = self._strips.get(row)
        if strip is None or strip.cell_length != width:
            segments = [Segment(text, self._rich_style(style)) for text, style in row]
            strip = Strip(segments).adjust_cell_length(width, self.rich_style)
            self._strips[row] = strip
        return strip

    def _rich_style(self, style: Style) -> RichStyle:
        rich_style = self._styles.get(style)
        if rich_style is None:
            rich_style = self._styles[style] = self.rich_style + RichStyle(
                color=_rich_colour(style.fg),
                bgcolor=_rich_colour(style.bg),
                bold=style.bold,
                dim=style.dim,
                italic=style.italics,
                underline=style.underline,
                strike=style.strikethrough,
                reverse=style.reverse,
            )
        return rich_style

    # Selection by mouse.

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the selected text and what ends it."""
        return selection.extract(self.emulator.text(scrollback=True)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Repaint with the new selection."""
        del selection
        self.refresh()

    def _with_selection(self, strip: Strip, number: int) -> Strip:
        selection = self.text_selection
        span = selection.get_span(number) if selection is not None else None
        if span is None:
            return strip
        start, end = span
        return _with_reversed(strip, start, strip.cell_length if end < 0 else end)


def _rich_colour(colour: int | tuple[int, int, int] | None) -> RichColour | None:
    """Return Rich's colour; the 16 of the palette stay names, so that the theme decides what they look like."""
    if isinstance(colour, tuple):
        return RichColour.from_rgb(*colour)
    return None if colour is None else RichColour.from_ansi(colour)


def _with_reversed(strip: Strip, start: int, end: int) -> Strip:
    """Return the strip with foreground and background exchanged from column `start` to before `end`."""
    width = strip.cell_length
    start, end = max(0, min(start, width)), max(0, min(end, width))
    if start >= end:
        return strip
    reversed_part = [
        Segment(text, (style or RichStyle()) + RichStyle(reverse=not (style and style.reverse)))
        for text, style, _ in strip.crop(start, end)
    ]
    return Strip.join([strip.crop(0, start), Strip(reversed_part), strip.crop(end, width)])
