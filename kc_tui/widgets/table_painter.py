"""The lines of a table as strips in the colours of the theme, kept until something about them changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textual.cache import LRUCache
from textual.strip import Strip
from textual.widget import Widget

from kc_tui.state.glyphs import Glyphs
from kc_tui.state.roles import Role
from kc_tui.state.table import (
    Column,
    Empty,
    Look,
    Place,
    Row,
    Run,
    draw_header,
    draw_note,
    draw_row,
    fit,
    lay_out,
    measure,
)
from kc_tui.widgets.inks import Inks

_CACHED_STRIPS: Final = 1024


class TablePainter:
    """Draws rows, titles and the words of an empty list for one widget.

    Strips are kept by key and version of the row and its look; another width, theme, sign or column forgets them all.
    """

    def __init__(self, widget: Widget, columns: Sequence[Column], empty: Empty, glyphs: Glyphs) -> None:
        self.places: tuple[Place, ...] = ()
        self.width = 0
        self._widget = widget
        self._columns = tuple(columns)
        self._empty = empty
        self._glyphs = glyphs
        self._sorted_by = ""
        self._reverse = False
        self._laid_out_for: tuple[int, int] | None = None
        self._strips: LRUCache[object, Strip] = LRUCache(_CACHED_STRIPS)
        self._inks: Inks | None = None

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Draw other columns."""
        self._columns = tuple(columns)
        self._laid_out_for = None

    def set_glyphs(self, glyphs: Glyphs) -> None:
        """Draw with other signs."""
        self._glyphs = glyphs
        self._laid_out_for = None

    def set_order(self, column_id: str, *, reverse: bool) -> None:
        """Draw the arrow of an order."""
        self._sorted_by, self._reverse = column_id, reverse

    def set_empty(self, empty: Empty) -> None:
        """Say something else where there are no rows."""
        self._empty = empty

    def forget_colors(self) -> None:
        """Draw everything anew in the colours that hold now."""
        self._inks = None
        self._strips.clear()

    def lay_out(self, width: int, usable: int) -> None:
        """Put the columns into `width` cells, of which the first `usable` are drawn upon."""
        if self._laid_out_for != (width, usable):
            self._laid_out_for = (width, usable)
            self.width = usable
            self.places = lay_out(self._columns, width, usable)
            self._strips.clear()

    def draw_blank(self) -> Strip:
        """Return an empty line."""
        return self._draw((Run(" " * self.width),))

    def draw_header(self) -> Strip:
        """Return the line of titles."""
        return self._draw(draw_header(self.places, self.width, self._sorted_by, self._reverse, self._glyphs))

    def draw_row(self, row: Row, look: Look) -> Strip:
        """Return the line of a row."""
        return self._keep(row, look, draw_row(row, self.places, self.width, look, self._glyphs))

    def draw_note(self, row: Row, look: Look) -> Strip:
        """Return the line of a row's note."""
        return self._keep(row, look, draw_note(row, self.width, self._glyphs), is_note=True)

    def find(self, row: Row, look: Look, *, is_note: bool) -> Strip | None:
        """Return a line of a row, or of its note, that was drawn before."""
        return self._strips.get((row.key, row.version, look, is_note))

    def draw_empty(self, line: int, lines: int) -> Strip:
        """Return line `line` of the `lines` that an empty list has."""
        first = lines // 3
        texts = {first: Run(self._empty.title, Role.TEXT), first + 1: Run(self._empty.hint, Role.MUTED)}
        run = texts.get(line, Run(""))
        indent = max(0, (self.width - measure((run,))) // 2)
        text = fit(run.text, self.width - indent, glyphs=self._glyphs)
        return self._draw((Run(" " * indent), Run(text, run.role)))

    def _keep(self, row: Row, look: Look, runs: Sequence[Run], *, is_note: bool = False) -> Strip:
        strip = self._draw(runs, on_cursor=look.cursor and look.focused)
        self._strips[row.key, row.version, look, is_note] = strip
        return strip

    def _draw(self, runs: Sequence[Run], *, on_cursor: bool = False) -> Strip:
        if self._inks is None:
            self._inks = Inks(self._widget)
        return self._inks.draw(runs, on_cursor=on_cursor)
