"""Tables for a terminal: columns as wide as what stands in them, numbers to the right, nothing unsafe shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TextIO

from backend.text import sanitise

_GAP = "  "
_LEAST = 8
# Only states have a colour, and only the terminal's own sixteen: the person's theme decides how they look.
_COLOURS = {"ok": "32", "warn": "33", "bad": "31", "dim": "2"}


class Column(NamedTuple):
    """A column: its heading, and whether it holds numbers."""

    title: str
    right: bool = False


class Cell(NamedTuple):
    """A cell with a meaning: `tone` is ok, warn, bad or dim."""

    text: str
    tone: str = ""


Value = str | Cell


def is_coloured(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream is a terminal whose user wants colour (no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"


def colour(text: str, tone: str) -> str:
    """Return a text in the colour of a tone; as it is where there is none."""
    return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m" if tone else text


def measure(text: str) -> int:
    """Return how many cells a sanitised text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width  # noqa: PLC0415 - nearly all names are ASCII

    return sum(
        0 if category(sign) in ("Mn", "Me", "Cf") else 2 if east_asian_width(sign) in ("W", "F") else 1 for sign in text
    )


def clip(text: str, width: int) -> str:
    """Return a sanitised text cut to `width` cells, the last of them an ellipsis where something is missing."""
    if measure(text) <= width:
        return text
    kept, used = [], 1
    for sign in text:
        used += measure(sign)
        if used > width:
            break
        kept.append(sign)
    return "".join(kept) + "…" if width > 0 else ""


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - measure(text))
    return space + text if right else text + space


def _fit(columns: Sequence[Column], widths: list[int], limit: int) -> list[int]:
    """Return the widths of the columns that fit into `limit` cells: texts give way, then the last columns go."""

    def excess() -> int:
        return sum(widths) + len(_GAP) * (len(widths) - 1) - limit

    least = [width if column.right else min(width, _LEAST) for column, width in zip(columns, widths, strict=True)]
    while len(widths) > 1 and sum(least[: len(widths)]) + len(_GAP) * (len(widths) - 1) > limit:
        widths.pop()
    while excess() > 0:
        widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return widths


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[Value]], *, limit: int = 0, coloured: bool = False
) -> list[str]:
    """Return the lines of a table; `limit` is how many cells a line may have, 0 for as many as it takes."""
    texts = [[column.title for column in columns]]
    texts += [[sanitise(cell.text if isinstance(cell, Cell) else cell) for cell in row] for row in rows]
    widths = [max(map(measure, column)) for column in zip(*texts, strict=True)]
    if limit:
        widths = _fit(columns, widths, limit)
    lines = []
    for number, line in enumerate(texts):
        parts = []
        for index, (text, width, column) in enumerate(zip(line, widths, columns, strict=False)):
            part = _pad(clip(text, width), width, right=column.right)
            cell = rows[number - 1][index] if number else ""
            parts.append(colour(part, cell.tone if coloured and isinstance(cell, Cell) else ""))
        lines.append(_GAP.join(parts).rstrip())
    return lines


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> None:
    """Print a table to stdout, cut to the terminal's width where stdout is one."""
    limit = 0
    if sys.stdout.isatty():
        from kc_tui.cli.arguments import terminal_width  # noqa: PLC0415 - it pulls in argparse

        limit = terminal_width(sys.stdout.fileno())
    lines = render(columns, rows, limit=limit, coloured=is_coloured(sys.stdout))
    sys.stdout.write("\n".join(lines) + "\n")
