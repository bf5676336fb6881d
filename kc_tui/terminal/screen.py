"""The guest's screen: pyte's, with a fast way to draw, a scrollback of its own, and an alternate buffer.

Where this departs from pyte it follows xterm, or closes what a hostile guest could use: pyte lets the guest resize the
screen, stacks saved cursors without end, and fails on sequences it did not expect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from pyte import charsets, modes
from pyte.screens import Char

from kc_tui.terminal.cells import BLANK, WIDE, Cell, are_narrow, shown, with_mark
from kc_tui.terminal.line import Line
from kc_tui.terminal.motion import MovingScreen
from kc_tui.terminal.scrollback import Scrollback
from kc_tui.terminal.style import DEFAULT_STYLE, Row, Style, apply_sgr, intern

# pyte keeps a private mode as its number shifted by five bits.
APPLICATION_CURSOR = 1 << 5
BRACKETED_PASTE = 2004 << 5
_ALTERNATE_BUFFERS = {47 << 5, 1047 << 5, 1049 << 5}
_ALTERNATE_WITH_CURSOR = 1049 << 5
_SAVED_CURSOR = 1048 << 5
_SWITCHES = {
    modes.IRM,
    modes.LNM,
    modes.DECAWM,
    modes.DECOM,
    modes.DECSCNM,
    APPLICATION_CURSOR,
    BRACKETED_PASTE,
}
_DEFAULT_MODES = {modes.DECAWM, modes.DECTCEM}

_LINE_DRAWING = str.maketrans({chr(code): charsets.VT100_MAP[code] for code in range(0x60, 0x7F)})
_LINE_DRAWING_CODE = "0"

_TO_END, _TO_START, _ALL = 0, 1, 2


class SavedCursor(NamedTuple):
    """What DECSC keeps for DECRC."""

    x: int
    y: int
    style: Style
    line_drawing: tuple[bool, bool]
    charset: int
    origin: bool


_HOME = SavedCursor(0, 0, DEFAULT_STYLE, line_drawing=(False, False), charset=0, origin=False)


class Screen(MovingScreen):
    """The lines and columns that the guest draws on, what has scrolled off their top, and the answers owed to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.scrollback = Scrollback()
        self.replies = bytearray()
        self._primary: list[Line] | None = None
        self._lines: list[Line] = []
        super().__init__(columns, lines)
        self.mode = _DEFAULT_MODES.copy()

    # The state as a whole.

    @property
    def default_char(self) -> Char:
        """The cell of an empty place."""
        return BLANK

    def reset(self) -> None:
        """Return to the state after power-on; the text on the screen goes to the scrollback."""
        if self._primary is not None:
            self._lines, self._primary = self._primary, None
        self._keep_screen()
        super().reset()
        self._lines = [Line() for _ in range(self.lines)]
        self._saved_cursor = _HOME
        self._reset_modes()

    def soft_reset(self) -> None:
        """Return modes, margins and style to their defaults and leave the text alone (DECSTR)."""
        self.dirty.update(range(self.lines))
        self._reset_modes()

    def _reset_modes(self) -> None:
        self.mode = _DEFAULT_MODES.copy()
        self.margins = None
        self.cursor.hidden = False
        self._line_drawing = [False, False]
        self.charset = 0
        self._last_drawn = " "
        self._set_style(DEFAULT_STYLE)

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Change the size; lines that no longer fit above the cursor go to the scrollback."""
        lines, columns = lines or self.lines, columns or self.columns
        if (lines, columns) == (self.lines, self.columns):
            return
        surplus = self.cursor.y - (lines - 1)
        if surplus > 0:
            self._scroll(0, self.lines - 1, surplus)
            self.cursor.y -= surplus
        for screenful in (self._lines, self._primary):
            if screenful is not None:
                del screenful[lines:]
                screenful.extend(Line() for _ in range(lines - len(screenful)))
                for line in screenful:
                    line.cut(columns)
        self.lines, self.columns = lines, columns
        self.margins = None
        self.tabstops = set(range(8, columns, 8))
        self.cursor.x = min(self.cursor.x, columns - 1)
        self.dirty = set(range(lines))

    def row(self, y: int) -> Row:
        """Return what line `y` of the screen shows."""
        row = self._lines[y].row(self.columns)
        if modes.DECSCNM not in self.mode:
            return row
        width = sum(shown(character)[1] for text, _ in row for character in text)
        padded = (*row, (" " * (self.columns - width), DEFAULT_STYLE))
        return tuple((text, replace(style, reverse=not style.reverse)) for text, style in padded if text)

    @property
    def cursor_width(self) -> int:
        """How many columns the character under the cursor covers."""
        return WIDE if self._lines[self.cursor.y].covers_two(self.cursor.x) else 1

    # Modes.

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        """Turn modes on; `private=True` for DEC's own."""
        self._switch(modes, on=True, private=bool(kwargs.get("private")))

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        """Turn modes off; `private=True` for DEC's own."""
        self._switch(modes, on=False, private=bool(kwargs.get("private")))

    def _switch(self, numbers: Iterable[int], *, on: bool, private: bool) -> None:
        for mode in [number << 5 if private else number for number in numbers]:
            if mode in _SWITCHES:
                (self.mode.add if on else self.mode.discard)(mode)
            if mode in _ALTERNATE_BUFFERS:
                self._switch_buffer(on=on, with_cursor=mode == _ALTERNATE_WITH_CURSOR)
            elif mode == _SAVED_CURSOR:
                (self.save_cursor if on else self.restore_cursor)()
            elif mode == modes.DECTCEM:
                self.cursor.hidden = not on
            elif mode == modes.DECOM:
                self.cursor_position()
            elif mode == modes.DECSCNM:
                self.dirty.update(range(self.lines))

    def _switch_buffer(self, *, on: bool, with_cursor: bool) -> None:
        """Show the alternate buffer, empty, or the primary one as it was left."""
        if on and self._primary is None:
            if with_cursor:
                self.save_cursor()
            self._primary, self._lines = self._lines, [Line() for _ in range(self.lines)]
        elif not on and self._primary is not None:
            self._lines, self._primary = self._primary, None
            if with_cursor:
                self.restore_cursor()
        self.dirty.update(range(self.lines))

    def define_charset(self, code: str, mode: str) -> None:
        """Choose what G0 (`mode` is "(") or G1 (")") holds: line drawing for the code "0", else plain text."""
        self._line_drawing["()".index(mode)] = code == _LINE_DRAWING_CODE

    def save_cursor(self) -> None:
        """Keep the cursor's place, style and character sets (DECSC); one slot, as in xterm."""
        line_drawing = (self._line_drawing[0], self._line_drawing[1])
        origin = modes.DECOM in self.mode
        self._saved_cursor = SavedCursor(self.cursor.x, self.cursor.y, self._style, line_drawing, self.charset, origin)

    def restore_cursor(self) -> None:
        """Return to what was kept, or to the top left corner (DECRC)."""
        saved = self._saved_cursor
        self._set_style(saved.style)
        self._line_drawing = list(saved.line_drawing)
        self.charset = saved.charset
        (self.mode.add if saved.origin else self.mode.discard)(modes.DECOM)
        self.cursor.x, self.cursor.y = saved.x, saved.y
        self.ensure_hbounds()
        self.ensure_vbounds()

    # Drawing.

    def set_rendition(self, parameters: str) -> None:
        """Change the style of what is drawn from now on by the parameters of an SGR sequence."""
        self._set_style(apply_sgr(self._style, parameters))

    def _set_style(self, style: Style) -> None:
        self._style = style
        self._blank = BLANK if style.bg is None else Cell.of(" ", intern(Style(bg=style.bg)))

    def draw(self, data: str) -> None:
        """Draw text at the cursor, wrapping at the right edge; control characters in it draw nothing."""
        if self._line_drawing[self.charset]:
            data = data.translate(_LINE_DRAWING)
        if are_narrow(data):
            self._draw_narrow(data)
        else:
            for character in data:
                self._draw_character(character)
        self._last_drawn = data[-1:] or self._last_drawn

    def repeat(self, count: int = 1) -> None:
        """Draw the last drawn character again (REP), at most a line of it."""
        self.draw(self._last_drawn * min(count or 1, self.columns))

    def _draw_narrow(self, text: str) -> None:
        cursor, columns = self.cursor, self.columns
        offset, length = 0, len(text)
        while offset < length:
            if cursor.x >= columns and not self._wrap(1):
                # Without wrapping, only the last character is left to see, in the last column.
                offset = length - 1
            part = text[offset : offset + columns - cursor.x]
            if modes.IRM in self.mode:
                self.insert_characters(len(part))
            self._lines[cursor.y].write(cursor.x, part, self._style)
            self.dirty.add(cursor.y)
            cursor.x += len(part)
            offset += len(part)

    def _draw_character(self, character: str) -> None:
        text, width = shown(character)
        cursor = self.cursor
        if width == 0:
            self._join_mark(text)
        elif width <= self.columns:
            if cursor.x + width > self.columns:
                self._wrap(width)
            if modes.IRM in self.mode:
                self.insert_characters(width)
            cells = self._lines[cursor.y].cells()
            cells[cursor.x] = Cell.of(text, self._style)
            if width == WIDE:
                cells[cursor.x + 1] = Cell.of("" if text != " " else " ", self._style)
            self.dirty.add(cursor.y)
            cursor.x += width

    def _wrap(self, width: int) -> bool:
        """Make room for `width` columns on a new line, or at the end of this one where wrapping is off."""
        if modes.DECAWM in self.mode:
            self.cursor.x = 0
            self.index()
            return True
        self.cursor.x = self.columns - width
        return False

    def _join_mark(self, mark: str) -> None:
        """Put a combining mark on the character before the cursor."""
        cells = self._lines[self.cursor.y].cells()
        column = self.cursor.x - 1
        cell = cells.get(column)
        if cell is not None and not cell.data:
            column -= 1
            cell = cells.get(column)
        if mark and isinstance(cell, Cell):
            cells[column] = with_mark(cell, mark)
            self.dirty.add(self.cursor.y)

    # Changing lines.

    def insert_characters(self, count: int | None = None) -> None:
        """Insert blanks at the cursor; the characters from there on move right."""
        self._lines[self.cursor.y].shift(self.cursor.x, count or 1, self.columns, self._blank)
        self.dirty.add(self.cursor.y)

    def delete_characters(self, count: int | None = None) -> None:
        """Delete characters from the cursor on; those after them move left."""
        self._lines[self.cursor.y].shift(self.cursor.x, -(count or 1), self.columns, self._blank)
        self.dirty.add(self.cursor.y)

    def erase_characters(self, count: int | None = None) -> None:
        """Erase characters from the cursor on; nothing moves."""
        self._erase(self.cursor.y, self.cursor.x, min(self.cursor.x + (count or 1), self.columns))

    def erase_in_line(self, how: int = _TO_END, private: bool = False) -> None:  # noqa: ARG002 (pyte's signature)
        """Erase the cursor's line: from the cursor (0), to the cursor (1), or all of it (2)."""
        start = self.cursor.x if how == _TO_END else 0
        stop = min(self.cursor.x + 1, self.columns) if how == _TO_START else self.columns
        if how in {_TO_END, _TO_START, _ALL}:
            self._erase(self.cursor.y, start, stop)

    def erase_in_display(self, how: int = _TO_END, *_args: Any, **_kwargs: Any) -> None:
        """Erase from the cursor (0), to the cursor (1), or everything (2).

        A screen that is cleared goes to the scrollback first, so that the panic before a reboot can still be read. The
        scrollback is the operator's record: the guest's request to erase it (3) is not honoured.
        """
        y = self.cursor.y
        if how == _ALL or (how == _TO_END and self.cursor.x == y == 0):
            self._keep_screen()
            self._erase_lines(range(self.lines))
        elif how == _TO_END:
            self.erase_in_line(how)
            self._erase_lines(range(y + 1, self.lines))
        elif how == _TO_START:
            self._erase_lines(range(y))
            self.erase_in_line(how)

    def _erase(self, y: int, start: int, stop: int) -> None:
        if start == 0 and stop == self.columns:
            self._lines[y] = Line(self._blank)
        else:
            self._lines[y].erase(start, stop, self._blank)
        self.dirty.add(y)

    def _erase_lines(self, numbers: range) -> None:
        for y in numbers:
            self._lines[y] = Line(self._blank)
        self.dirty.update(numbers)

    # Scrolling.

    def index(self) -> None:
        """Move down a line; on the last line of the margins, scroll up."""
        top, bottom = self._region
        if self.cursor.y == bottom:
            self._scroll(top, bottom, 1)
        elif self.cursor.y < self.lines - 1:
            self.cursor.y += 1

    def reverse_index(self) -> None:
        """Move up a line; on the first line of the margins, scroll down."""
        top, bottom = self._region
        if self.cursor.y == top:
            self._scroll(top, bottom, -1)
        elif self.cursor.y > 0:
            self.cursor.y -= 1

    def next_line(self) -> None:
        """Move to the start of the next line (NEL)."""
        self.cursor.x = 0
        self.index()

    def insert_lines(self, count: int | None = None) -> None:
        """Insert empty lines at the cursor; the lines below move down."""
        self._move_from_cursor(-(count or 1))

    def delete_lines(self, count: int | None = None) -> None:
        """Delete lines from the cursor on; the lines below move up."""
        self._move_from_cursor(count or 1)

    def scroll_up(self, count: int | None = None) -> None:
        """Move the lines within the margins up (SU)."""
        self._scroll(*self._region, count or 1)

    def scroll_down(self, count: int | None = None) -> None:
        """Move the lines within the margins down (SD)."""
        self._scroll(*self._region, -(count or 1))

    def _move_from_cursor(self, count: int) -> None:
        top, bottom = self._region
        if top <= self.cursor.y <= bottom:
            self._move(self.cursor.y, bottom, count)
            self.cursor.x = 0

    def _scroll(self, top: int, bottom: int, count: int) -> None:
        """Move the lines from `top` to `bottom` up, or down for a negative count; what leaves the screen is kept."""
        if top == 0 and self._primary is None:
            for y in range(min(count, bottom + 1)):
                self.scrollback.append(self._lines[y].row(self.columns))
        self._move(top, bottom, count)

    def _move(self, top: int, bottom: int, count: int) -> None:
        lines, height = self._lines, bottom + 1 - top
        empty = [Line(self._blank) for _ in range(min(abs(count), height))]
        if count > 0:
            del lines[top : top + len(empty)]
            lines[bottom + 1 - len(empty) : bottom + 1 - len(empty)] = empty
        else:
            del lines[bottom + 1 - len(empty) : bottom + 1]
            lines[top:top] = empty
        self.dirty.update(range(top, bottom + 1))

    def _keep_screen(self) -> None:
        """Append the primary buffer to the scrollback, without the empty lines at its end."""
        if self._primary is None:
            rows = [line.row(self.columns) for line in self._lines]
            while rows and not rows[-1]:
                rows.pop()
            for row in rows:
                self.scrollback.append(row)
