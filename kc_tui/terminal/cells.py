"""Cells: what one character of the guest shows, and how wide it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from pyte.screens import Char
from wcwidth import wcwidth

from kc_tui.terminal.style import DEFAULT_STYLE, Style

REPLACEMENT = "\ufffd"
WIDE = 2
_MARKS_PER_CELL = 4


class Cell(Char):
    """One character of the guest and its style; the second half of a wide character is a cell with no text."""

    style: Style

    @classmethod
    def of(cls, text: str, style: Style) -> Cell:
        """Return the cell that shows `text` in `style`."""
        cell = cls(text)
        cell.style = style
        return cell


BLANK = Cell.of(" ", DEFAULT_STYLE)


class StyledCells(dict[str, Cell]):
    """The cells of one style, those of ASCII each made once: making them ever again is what makes pyte slow."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self._style = style

    def __missing__(self, character: str) -> Cell:
        cell = Cell.of(character, self._style)
        if character.isascii():
            self[character] = cell
        return cell


@lru_cache(maxsize=64)
def cells_of(style: Style) -> StyledCells:
    """Return the cells of a style."""
    return StyledCells(style)


@lru_cache(maxsize=4096)
def shown(character: str) -> tuple[str, int]:
    """Return what is drawn for `character` and its width in columns: 0 for a mark that joins the cell before it.

    The text is empty for what draws nothing. Format characters (bidirectional controls, joiners, tags) and variation
    selectors vanish: each could reorder or widen the line in the operator's terminal.
    """
    category = unicodedata.category(character)
    if not character.isprintable():
        if category == "Zs":
            return " ", max(wcwidth(character), 1)
        return ("", 0) if category in {"Cc", "Cf", "Zl", "Zp"} else (REPLACEMENT, 1)
    if unicodedata.name(character, "").startswith("VARIATION SELECTOR"):
        return "", 0
    width = wcwidth(character)
    if width > 0:
        return character, width
    return (character, 0) if category.startswith("M") else ("", 0)


@lru_cache(maxsize=4096)
def _is_narrow(character: str) -> bool:
    return shown(character) == (character, 1)


def are_narrow(text: str) -> bool:
    """Return whether each character of `text` is shown as it is, in one column."""
    return (text.isascii() and text.isprintable()) or all(map(_is_narrow, text))


def is_wide(cell: Char) -> bool:
    """Return whether the text of `cell` fills two columns."""
    return not cell.data.isascii() and shown(cell.data[0])[1] == WIDE


def with_mark(cell: Cell, mark: str) -> Cell:
    """Return `cell` with a combining mark on its text, unless it bears its fill of them already."""
    if not cell.data or len(cell.data) > _MARKS_PER_CELL:
        return cell
    return Cell.of(unicodedata.normalize("NFC", cell.data + mark), cell.style)


def mend_wide(cells: Sequence[Cell]) -> list[Cell]:
    """Return `cells` with a space for each half of a wide character that has lost its other half."""
    mended: list[Cell] = []
    after_wide = False
    for cell, following in zip(cells, [*cells[1:], BLANK], strict=True):
        is_stub = not cell.data
        whole = after_wide if is_stub else not is_wide(cell) or not following.data
        mended.append(cell if whole else Cell.of(" ", cell.style))
        after_wide = whole and not is_stub and is_wide(cell)
    return mended
