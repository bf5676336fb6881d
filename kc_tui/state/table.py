"""A table as values: what its rows say, where its columns stand, and the runs of text that make up each line.

Nothing here draws: `kc_tui.widgets.virtual_table` turns runs into coloured strips.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from kc_tui.state.formatting import draw_bar, format_percent
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.roles import Role

MARGIN: Final = 4
"""Cells before the first column: cursor, mark, glyph, space."""
GAP: Final = 2
"""Cells between two columns."""
BAR_WIDTH: Final = 10
_LEAST_BAR: Final = 5
_PERCENT_WIDTH: Final = 5
_LEAST_TEXT_BESIDE_BAR: Final = 16


class Align(StrEnum):
    """On which side of its column a cell stands; numbers stand right."""

    LEFT = "left"
    RIGHT = "right"


class Run(NamedTuple):
    """A piece of text in one role."""

    text: str
    role: Role = Role.TEXT


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one column of one row: plain text in a role, and further runs where parts differ in role."""

    text: str = ""
    role: Role = Role.TEXT
    more: tuple[Run, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """All its pieces."""
        return (Run(self.text, self.role), *self.more)


@dataclass(frozen=True, slots=True)
class Progress:
    """What runs on an object: it takes the place of the row's figures; `fraction` (1.0 is all) is None when unknown."""

    text: str
    fraction: float | None = None
    role: Role = Role.ACCENT


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a list, never changed: another state is another row with the same `key` and another `version`.

    `version` is anything hashable that changes whenever the row looks different. `cells` follow the table's columns;
    `note` is shown in a line of its own below the row while the cursor is on it.
    """

    key: str
    version: Hashable
    cells: tuple[Cell, ...]
    glyph: Cell = Cell()
    progress: Progress | None = None
    note: str = ""
    note_role: Role = Role.WARN


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `width` is its least width in cells, `weight` its share of what is left over, up to `widest`.

    Where room is short, columns with the highest `rank` disappear first, of equal ones the rightmost; rank 0 always
    stays. `lasting` columns stay beside an operation's progress, which takes the place of all columns after them.
    """

    id: str
    title: str
    width: int
    weight: int = 0
    widest: int = 0
    align: Align = Align.LEFT
    rank: int = 0
    lasting: bool = False


class Place(NamedTuple):
    """Where a column stands: `cell` is the index of its cell in a row, `start` and `width` are in cells."""

    cell: int
    column: Column
    start: int
    width: int


@dataclass(frozen=True, slots=True)
class Empty:
    """What an empty list says: that it is empty, and which key makes a first thing."""

    title: str
    hint: str = ""


class Look(NamedTuple):
    """How a row is met: under the cursor, marked, in the focused list."""

    cursor: bool = False
    marked: bool = False
    focused: bool = True


PLAIN_LOOK: Final = Look()
"""A row that nothing points at."""


def measure(runs: Sequence[Run]) -> int:
    """Return the width of runs in cells."""
    return sum(cell_len(run.text) for run in runs)


def fit(text: str, width: int, align: Align = Align.LEFT, glyphs: Glyphs = UNICODE) -> str:
    """Return `text` in exactly `width` cells, padded, or cut with an ellipsis."""
    if width <= 0:
        return ""
    length = len(text) if text.isascii() and text.isprintable() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + glyphs.ellipsis
    blank = " " * (width - length)
    return blank + text if align is Align.RIGHT else text + blank


def fit_runs(runs: Sequence[Run], width: int, align: Align = Align.LEFT, glyphs: Glyphs = UNICODE) -> tuple[Run, ...]:
    """Return runs in exactly `width` cells together."""
    if len(runs) == 1:
        return (Run(fit(runs[0].text, width, align, glyphs), runs[0].role),) if width > 0 else ()
    spare = width - measure(runs)
    if spare >= 0:
        blank = (Run(" " * spare),) if spare else ()
        kept = tuple(run for run in runs if run.text)
        return (*blank, *kept) if align is Align.RIGHT else (*kept, *blank)
    fitted: list[Run] = []
    left = width
    for run in runs:
        length = cell_len(run.text)
        if length >= left:
            # What follows is cut off, so an ellipsis is due even where this run would just fit.
            fitted.append(Run(fit(run.text + " ", left, glyphs=glyphs), run.role))
            break
        if run.text:
            fitted.append(run)
        left -= length
    return tuple(run for run in fitted if run.text)


def lay_out(columns: Sequence[Column], width: int, usable: int | None = None) -> tuple[Place, ...]:
    """Return where the columns stand in a line of `width` cells; those without room are left out.

    Only the first `usable` cells are drawn upon: the last column gives the rest to a scroll bar, and no other moves.
    """
    end = width if usable is None else usable
    room = max(0, width - MARGIN)
    shown = list(enumerate(columns))
    while _least(shown) > room:
        droppable = [entry for entry in shown if entry[1].rank > 0]
        if not droppable:
            break
        shown.remove(max(droppable, key=lambda entry: (entry[1].rank, entry[0])))
    widths = _share(dict(shown), room - _least(shown))
    places: list[Place] = []
    start = MARGIN
    for index, column in shown:
        granted = min(widths[index], max(0, end - start))
        places.append(Place(index, column, start, granted))
        start += granted + GAP
    return tuple(places)


def _least(shown: Sequence[tuple[int, Column]]) -> int:
    return sum(column.width for _, column in shown) + GAP * max(0, len(shown) - 1)


def _share(columns: dict[int, Column], spare: int) -> dict[int, int]:
    """Share out the cells left over by weight; a column that reached its widest leaves the rest to the others."""
    widths = {index: column.width for index, column in columns.items()}
    while spare > 0:
        growing = [
            (index, column)
            for index, column in columns.items()
            if column.weight and (not column.widest or widths[index] < column.widest)
        ]
        total = sum(column.weight for _, column in growing)
        if not total:
            break
        before = spare
        for index, column in growing:
            share = min(spare, max(1, before * column.weight // total))
            if column.widest:
                share = min(share, column.widest - widths[index])
            widths[index] += share
            spare -= share
    return widths


def draw_header(
    places: Sequence[Place], width: int, sorted_by: str = "", reverse: bool = False, glyphs: Glyphs = UNICODE
) -> tuple[Run, ...]:
    """Return the line of titles; the column that the list is sorted by carries an arrow."""
    runs: list[Run] = []
    at = 0
    for place in places:
        runs.append(Run(" " * (place.start - at), Role.MUTED))
        title = place.column.title
        is_sorted = bool(title) and place.column.id == sorted_by
        if is_sorted:
            arrow = glyphs.descending if reverse else glyphs.ascending
            title = f"{fit(title, min(len(title), place.width - 2), glyphs=glyphs)} {arrow}"
        role = Role.ACCENT if is_sorted else Role.MUTED
        runs.append(Run(fit(title, place.width, place.column.align, glyphs), role))
        at = place.start + place.width
    return _finish(runs, at, width)


def draw_row(
    row: Row, places: Sequence[Place], width: int, look: Look = PLAIN_LOOK, glyphs: Glyphs = UNICODE
) -> tuple[Run, ...]:
    """Return one row as runs of exactly `width` cells."""
    runs = [
        Run(glyphs.cursor if look.cursor else " ", Role.ACCENT if look.focused else Role.MUTED),
        Run(glyphs.mark if look.marked else " ", Role.ACCENT),
        Run(fit(row.glyph.text, 1, glyphs=glyphs), row.glyph.role),
        Run(" "),
    ]
    at = MARGIN
    for place in places:
        if row.progress is not None and not place.column.lasting:
            runs.append(Run(" " * (place.start - at)))
            runs.extend(draw_progress(row.progress, width - place.start, glyphs))
            return _finish(runs, width, width)
        cell = row.cells[place.cell] if place.cell < len(row.cells) else Cell()
        runs.append(Run(" " * (place.start - at)))
        runs.extend(fit_runs(cell.runs, place.width, place.column.align, glyphs))
        at = place.start + place.width
    return _finish(runs, at, width)


def draw_progress(progress: Progress, width: int, glyphs: Glyphs = UNICODE) -> tuple[Run, ...]:
    """Return an operation's step, a bar and its share in `width` cells; the bar goes first where room is short."""
    if progress.fraction is None:
        return (Run(fit(progress.text, width, glyphs=glyphs), Role.TEXT),)
    percent = fit(format_percent(min(1.0, max(0.0, progress.fraction))), _PERCENT_WIDTH, Align.RIGHT, glyphs)
    beside = width - _PERCENT_WIDTH - 1
    if beside < 1:
        return (Run(fit(progress.text, width, glyphs=glyphs), Role.TEXT),)
    tail = (Run(" "), Run(percent, Role.MUTED))
    # The bar gives way to the text, down to its least width; the text is cut only after that.
    bar_width = min(BAR_WIDTH, max(_LEAST_BAR, beside - GAP - cell_len(progress.text)))
    if beside - bar_width - GAP < _LEAST_TEXT_BESIDE_BAR:
        return (Run(fit(progress.text, beside, glyphs=glyphs)), *tail)
    bar = draw_bar(progress.fraction, bar_width, glyphs)
    full = bar.count(glyphs.bar_full)
    return (
        Run(fit(progress.text, beside - bar_width - GAP, glyphs=glyphs) + " " * GAP),
        Run(bar[:full], progress.role),
        Run(bar[full:], Role.MUTED),
        *tail,
    )


def draw_note(row: Row, width: int, glyphs: Glyphs = UNICODE) -> tuple[Run, ...]:
    """Return the line below a row that says what the row has no room for."""
    lead = " " * MARGIN
    runs = [Run(f"{lead}{glyphs.branch} ", Role.MUTED), Run(row.note, row.note_role)]
    return fit_runs(runs, width, glyphs=glyphs)


def _finish(runs: list[Run], at: int, width: int) -> tuple[Run, ...]:
    if at < width:
        runs.append(Run(" " * (width - at)))
    return tuple(run for run in runs if run.text)
