"""The list that every section, dialog and wizard page of KC is made of: any number of rows, drawn a line at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kc_tui.commands.command import Scope
from kc_tui.commands.keymap import make_bindings
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.selection import Selection
from kc_tui.state.table import Column, Empty, Look, Row
from kc_tui.widgets.table_painter import TablePainter

_WHEEL_LINES: Final = 3


class _TableMessage(Message):
    def __init__(self, table: VirtualTable) -> None:
        super().__init__()
        self.table = table

    @property
    def control(self) -> VirtualTable:
        """The table that it came from."""
        return self.table


class VirtualTable(ScrollView, can_focus=True):
    """A list of immutable rows with a cursor and marks.

    Give it rows with `show` (all of them) and `replace` (changed ones); only lines that changed are drawn again. The
    cursor stays with its row's key. It knows nothing of what the rows stand for. One that `is_lit` shows its cursor as
    though it had the focus, which is on the line that one types into.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    VirtualTable {
        height: 1fr;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-size-vertical: 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*make_bindings(Scope.LIST)]

    class Highlighted(_TableMessage):
        """The row under the cursor is another one, or looks different; None in an empty list."""

        def __init__(self, table: VirtualTable, row: Row | None) -> None:
            super().__init__(table)
            self.row = row

        def can_replace(self, message: Message) -> bool:
            """Let only the last of a burst be handled."""
            return isinstance(message, VirtualTable.Highlighted) and message.table is self.table

    class Selected(_TableMessage):
        """A row was chosen: enter, or a double click."""

        def __init__(self, table: VirtualTable, row: Row) -> None:
            super().__init__(table)
            self.row = row

    class Marked(_TableMessage):
        """Other rows are marked than before."""

        def __init__(self, table: VirtualTable, keys: frozenset[str]) -> None:
            super().__init__(table)
            self.keys = keys

    class HeaderPressed(_TableMessage):
        """A column's title was clicked."""

        def __init__(self, table: VirtualTable, column_id: str) -> None:
            super().__init__(table)
            self.column_id = column_id

    def __init__(
        self,
        columns: Sequence[Column] = (),
        *,
        empty: Empty | None = None,
        glyphs: Glyphs = UNICODE,
        show_header: bool = True,
        is_lit: bool = False,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._painter = TablePainter(self, columns, empty or Empty(""), glyphs)
        self._header_lines = 1 if show_header else 0
        self._is_lit = is_lit
        self._selection = Selection()

    # --- what it shows

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows, in their order."""
        return self._selection.rows

    @property
    def row(self) -> Row | None:
        """The row under the cursor; None in an empty list."""
        return self._selection.row

    @property
    def marked(self) -> frozenset[str]:
        """The keys of the marked rows."""
        return self._selection.marked

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows; the cursor stays on its row's key, and in view on the line where it was."""
        before, old_line = self.row, self._selection.cursor - self._top
        marked, lines = self.marked, self._visible_lines()
        was_in_view = 0 <= old_line < self._view_lines
        self._selection.show(rows)
        self._measure()
        if was_in_view and self._top:
            self._scroll_to_line(self._selection.cursor - old_line)
        elif self._top > self.max_scroll_y:
            self._scroll_to_line(self.max_scroll_y)
        self._keep_cursor_in_view()
        self._refresh_changed(lines, self._visible_lines())
        self._tell(before, marked)

    def replace(self, rows: Iterable[Row]) -> None:
        """Put changed rows in the place of those with the same keys; rows that are not in the list are passed over."""
        before, lines = self.row, self._visible_lines()
        if self._selection.replace(rows):
            self._measure()
            self._refresh_changed(lines, self._visible_lines())
            self._tell(before, self.marked)

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Show other columns; rows that fit them must follow."""
        self._painter.set_columns(columns)
        self.refresh()

    def set_order(self, column_id: str, *, reverse: bool = False) -> None:
        """Say in the header which column the rows are sorted by; sorting is their owner's."""
        self._painter.set_order(column_id, reverse=reverse)
        self.refresh()

    def set_empty(self, empty: Empty) -> None:
        """Change what is said where there are no rows."""
        self._painter.set_empty(empty)
        if not self.rows:
            self.refresh()

    def set_glyphs(self, glyphs: Glyphs) -> None:
        """Draw with another set of signs."""
        self._painter.set_glyphs(glyphs)
        self.refresh()

    def move_to(self, key: str) -> bool:
        """Put the cursor on the row of that key; return whether there is one."""
        index = self._selection.find(key)
        if index is not None:
            self._move(index)
        return index is not None

    def mark(self, keys: Iterable[str]) -> None:
        """Mark the rows of these keys and no others."""
        marked = self.marked
        self._selection.mark(keys)
        self._marks_changed(marked)

    def clear_marks(self) -> bool:
        """Take all marks away; return whether there were any."""
        marked = self.marked
        cleared = self._selection.clear_marks()
        if cleared:
            self._marks_changed(marked)
        return cleared

    # --- actions, bound to keys by the registry

    def action_cursor_down(self) -> None:
        """Go one line down."""
        self._move(self._selection.cursor + 1)

    def action_cursor_up(self) -> None:
        """Go one line up."""
        self._move(self._selection.cursor - 1)

    def action_cursor_top(self) -> None:
        """Go to the first line."""
        self._move(0)

    def action_cursor_bottom(self) -> None:
        """Go to the last line."""
        self._move(len(self.rows) - 1)

    def action_half_page_down(self) -> None:
        """Go half a page down."""
        self._move(self._selection.cursor + max(1, self._view_lines // 2))

    def action_half_page_up(self) -> None:
        """Go half a page up."""
        self._move(self._selection.cursor - max(1, self._view_lines // 2))

    def action_page_down(self) -> None:
        """Go a page down."""
        self._move(self._selection.cursor + max(1, self._view_lines - 1))

    def action_page_up(self) -> None:
        """Go a page up."""
        self._move(self._selection.cursor - max(1, self._view_lines - 1))

    def action_select_row(self) -> None:
        """Choose the row under the cursor."""
        if self.row is not None:
            self.post_message(self.Selected(self, self.row))

    def action_toggle_mark(self) -> None:
        """Mark the row, or take its mark away, and go on to the next."""
        marked, was_range = self.marked, self._selection.in_range
        self._selection.toggle_mark()
        self._marks_changed(marked)
        if not was_range:
            self._move(self._selection.cursor + 1)

    def action_toggle_range(self) -> None:
        """Start or end a range of marks."""
        marked = self.marked
        self._selection.toggle_range()
        self._marks_changed(marked)

    def action_invert_marks(self) -> None:
        """Mark what is not marked, and the other way round."""
        marked = self.marked
        self._selection.invert_marks()
        self._marks_changed(marked)

    # --- drawing

    def render_line(self, y: int) -> Strip:
        """Draw line `y` of the widget."""
        painter, line = self._painter, y - self._header_lines
        painter.lay_out(self.size.width, self.scrollable_content_region.width)
        if not self.rows:
            return painter.draw_empty(line, self._view_lines)
        if line < 0:
            return painter.draw_header()
        index, is_note = self._selection.locate(line + self._top)
        if index is None:
            return painter.draw_blank()
        row = self.rows[index]
        look = Look(index == self._selection.cursor, self._selection.is_marked(index), self._is_lit or self.has_focus)
        draw = painter.draw_note if is_note else painter.draw_row
        return painter.find(row, look, is_note=is_note) or draw(row, look)

    def notify_style_update(self) -> None:
        """Forget what was drawn in the colours of another theme."""
        super().notify_style_update()
        self._painter.forget_colors()

    # --- where lines and rows are

    @property
    def _top(self) -> int:
        """The line of the list at the top of the view."""
        return round(self.scroll_y)

    @property
    def _view_lines(self) -> int:
        """How many lines of the list can be seen."""
        return max(0, self.size.height - self._header_lines)

    def _visible_lines(self) -> list[object]:
        """Return what tells each line in view from another, as it would be drawn now."""
        return [self._selection.identify(line) for line in range(self._top, self._top + self._view_lines)]

    def _refresh_changed(self, before: Sequence[object], after: Sequence[object]) -> None:
        """Draw the lines again that differ; a list that was or became empty is drawn whole."""
        if len(before) != len(after) or not any(before) or not any(after):
            self.refresh()
            return
        lines = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        width = self.size.width
        if lines:
            self.refresh(*(Region(0, at + self._header_lines, width, 1) for at in lines))

    def _measure(self) -> None:
        """Tell the scroll bar how long the list is; a list with notes keeps a line for the one that is shown."""
        spare = 1 if any(row.note for row in self.rows) else 0
        self.virtual_size = Size(0, self._header_lines + len(self.rows) + spare)

    def _scroll_to_line(self, line: int) -> None:
        self.scroll_to(y=max(0, line), animate=False, force=True)

    def _keep_cursor_in_view(self) -> None:
        first = self._selection.cursor
        last = first + (1 if self._selection.has_note else 0)
        if self._view_lines <= 0:
            # Not laid out yet: the first resize brings it into view.
            return
        if first < self._top:
            self._scroll_to_line(first)
        elif last >= self._top + self._view_lines:
            self._scroll_to_line(last - self._view_lines + 1)

    # --- what changes

    def _move(self, index: int) -> None:
        before, marked, lines = self.row, self.marked, self._visible_lines()
        if not self._selection.move(index):
            return
        top = self._top
        self._keep_cursor_in_view()
        if self._top == top:
            self._refresh_changed(lines, self._visible_lines())
        self._tell(before, marked)

    def _marks_changed(self, before: frozenset[str]) -> None:
        self.refresh()
        if self.marked != before:
            self.post_message(self.Marked(self, self.marked))

    def _tell(self, row: Row | None, marked: frozenset[str]) -> None:
        if self.row is not row:
            self.post_message(self.Highlighted(self, self.row))
        if self.marked != marked:
            self.post_message(self.Marked(self, self.marked))

    def watch_has_focus(self, has_focus: bool) -> None:
        """Draw the cursor as that of the focused list, or not."""
        super().watch_has_focus(has_focus)
        self.refresh()

    def on_resize(self) -> None:
        """Keep the cursor in view in another size."""
        self._keep_cursor_in_view()

    # --- the mouse

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse is; a double click chooses."""
        event.stop()
        line = event.y - self._header_lines
        if line < 0:
            self._press_header(event.x)
            return
        index, _ = self._selection.locate(line + self._top)
        if index is None:
            return
        self._move(index)
        if event.chain == 2:  # noqa: PLR2004 - a double click
            self.action_select_row()

    def _press_header(self, x: int) -> None:
        for place in self._painter.places:
            if place.start <= x < place.start + place.width and place.column.title:
                self.post_message(self.HeaderPressed(self, place.column.id))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll without moving the cursor."""
        self._turn_wheel(event, _WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll without moving the cursor."""
        self._turn_wheel(event, -_WHEEL_LINES)

    def _turn_wheel(self, event: events.MouseEvent, lines: int) -> None:
        event.stop()
        event.prevent_default()
        self._scroll_to_line(self._top + lines)
