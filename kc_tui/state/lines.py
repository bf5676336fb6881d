"""Text to be read as values: lines of runs, as the detail panes and the pages of one object show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from kc_tui.state.glyphs import Glyphs
from kc_tui.state.roles import Role
from kc_tui.state.table import Run

Line = tuple[Run, ...]
LABEL_WIDTH: Final = 10
_DEEPEST: Final = 12
_MOST_LINES: Final = 2000

BLANK: Final[Line] = ()


def heading(text: str) -> Line:
    """Return the title of a part."""
    return (Run(text, Role.ACCENT),)


def labelled(label: str, *runs: Run | str, width: int = LABEL_WIDTH) -> Line:
    """Return a label and what it stands for."""
    return (Run(f"{label.ljust(width - 1)} ", Role.MUTED), *(Run(run) if isinstance(run, str) else run for run in runs))


def labelled_all(label: str, values: Iterable[Sequence[Run]], width: int = LABEL_WIDTH) -> list[Line]:
    """Return a line for each value, the label before the first alone."""
    return [labelled(label if index == 0 else "", *value, width=width) for index, value in enumerate(values)]


def join_parts(parts: Iterable[Sequence[Line]]) -> list[Line]:
    """Return the parts that have something in them, with a blank line between two."""
    lines: list[Line] = []
    for part in parts:
        if part:
            lines += [BLANK, *part] if lines else part
    return lines


def draw_tree(value: Any, glyphs: Glyphs, depth: int = 0) -> list[Line]:
    """Return a JSON value as an indented tree; what is nested too deep, or too long, is left out with an ellipsis."""
    lines: list[Line] = []
    _grow(value, depth, lines, glyphs)
    if len(lines) >= _MOST_LINES:
        return [*lines[:_MOST_LINES], (Run(glyphs.ellipsis, Role.MUTED),)]
    return lines


def _grow(value: Any, depth: int, lines: list[Line], glyphs: Glyphs) -> None:
    if len(lines) >= _MOST_LINES:
        return
    indent = "  " * depth
    if depth >= _DEEPEST:
        lines.append((Run(indent + glyphs.ellipsis, Role.MUTED),))
        return
    items: list[tuple[str, Any]]
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    else:
        items = [(glyphs.dot, item) for item in value] if isinstance(value, list) else []
    for key, item in items:
        if isinstance(item, (dict, list)) and item:
            lines.append((Run(f"{indent}{key}", Role.MUTED),))
            _grow(item, depth + 1, lines, glyphs)
        else:
            lines.append((Run(f"{indent}{key} ", Role.MUTED), _leaf(item, glyphs)))


def _leaf(item: Any, glyphs: Glyphs) -> Run:
    if isinstance(item, str):
        return Run(item) if item else Run('""', Role.MUTED)
    if isinstance(item, (dict, list)):
        return Run("{}" if isinstance(item, dict) else "[]", Role.MUTED)
    if item is None:
        return Run(glyphs.dash, Role.MUTED)
    return Run({True: "true", False: "false"}[item] if isinstance(item, bool) else f"{item}", Role.ACCENT)
