"""A line of the screen: runs of text while it is only written from left to right, cells from then on."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import cast

from pyte.screens import Char, StaticDefaultDict

from kc_tui.terminal.cells import BLANK, Cell, cells_of, mend_wide
from kc_tui.terminal.style import DEFAULT_STYLE, Row, Run, Style


class Line(StaticDefaultDict[int, Char]):
    """Cells by column, missing ones looking like `default`.

    Most lines of a console are written once, from left to right. As long as that holds, `runs` has their text and no
    cell is made; that is ten times faster.
    """

    def __init__(self, default: Cell = BLANK) -> None:
        super().__init__(default)
        self.default: Cell = default
        self.runs: list[Run] | None = []
        self.end = 0

    def write(self, column: int, text: str, style: Style) -> None:
        """Put narrow characters at `column`, over what is there."""
        if self.runs is None or column < self.end:
            cells = self.cells()
            cells.update(zip(range(column, column + len(text)), map(cells_of(style).__getitem__, text), strict=False))
            return
        if column > self.end:
            _append(self.runs, " " * (column - self.end), self.default.style)
        _append(self.runs, text, style)
        self.end = column + len(text)

    def cells(self) -> dict[int, Char]:
        """Return the line as cells that may be changed; from now on it is kept as cells."""
        if self.runs is not None:
            runs, self.runs = self.runs, None
            column = 0
            for text, style in runs:
                stop = column + len(text)
                self.update(zip(range(column, stop), map(cells_of(style).__getitem__, text), strict=False))
                column = stop
        return self

    def erase(self, start: int, stop: int, blank: Cell) -> None:
        """Make the columns from `start` to before `stop` look like `blank`."""
        if self.runs is not None and start >= self.end and blank is self.default:
            return
        cells = self.cells()
        if blank is self.default:
            for column in [column for column in cells if start <= column < stop]:
                del cells[column]
        else:
            cells.update(dict.fromkeys(range(start, stop), blank))

    def shift(self, start: int, count: int, columns: int, blank: Cell) -> None:
        """Move the cells from `start` on right, or left for a negative count; what is left behind becomes `blank`."""
        cells = self.cells()
        moved = {
            column + count if column >= start else column: cell
            for column, cell in cells.items()
            if column < start or start <= column + count < columns
        }
        cells.clear()
        cells.update(moved)
        if count > 0:
            self.erase(start, min(start + count, columns), blank)
        else:
            self.erase(max(columns + count, start), columns, blank)

    def cut(self, columns: int) -> None:
        """Forget what is at `columns` and to the right of it."""
        if self.runs is None or self.end > columns:
            cells = self.cells()
            for column in [column for column in cells if column >= columns]:
                del cells[column]

    def covers_two(self, column: int) -> bool:
        """Return whether a wide character begins at `column`."""
        following = self.get(column + 1)
        return following is not None and not following.data

    def row(self, columns: int) -> Row:
        """Return what the line shows in `columns` columns."""
        if self.runs is not None and self.end <= columns:
            runs = list(self.runs)
            if self.default is not BLANK:
                _append(runs, " " * (columns - self.end), self.default.style)
            return _without_trailing_blanks(runs)
        cells = self._in_order(columns)
        text = "".join([cell.data for cell in cells])
        if not text.isascii() or len(text) != len(cells):
            cells = mend_wide(cells)
        return _without_trailing_blanks(
            [("".join([cell.data for cell in group]), style) for style, group in groupby(cells, attrgetter("style"))]
        )

    def _in_order(self, columns: int) -> list[Cell]:
        """Return the cells from column 0 to the last one that differs from `default`, or all if `default` shows."""
        cells = self.cells()
        end = columns if self.default is not BLANK else min(columns, max(cells, default=-1) + 1)
        filled = dict.fromkeys(range(end), cast("Char", self.default))
        filled.update(cells)
        return cast("list[Cell]", list(filled.values())[:end])


def _append(runs: list[Run], text: str, style: Style) -> None:
    """Add text to the last run if that has the same style, else as a run of its own."""
    if runs and runs[-1][1] is style:
        runs[-1] = (runs[-1][0] + text, style)
    else:
        runs.append((text, style))


def _without_trailing_blanks(runs: list[Run]) -> Row:
    """Return the runs less the spaces at the right end that look like an empty line."""
    if runs and runs[-1][1] == DEFAULT_STYLE:
        runs[-1] = (runs[-1][0].rstrip(" "), DEFAULT_STYLE)
    return tuple([run for run in runs if run[0]])
