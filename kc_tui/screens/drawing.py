"""From lines of runs to what Textual draws; the roles become the theme's colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from textual.content import Content

from kc_tui.state.lines import Line
from kc_tui.state.roles import Role
from kc_tui.state.table import Run

_STYLES: Final = {role: f"${role}" for role in Role} | {Role.STRONG: "bold $text"}


def draw_runs(runs: Sequence[Run]) -> Content:
    """Return runs as content; their texts are data, never markup."""
    return Content.assemble(*((run.text, _STYLES[run.role]) for run in runs if run.text))


def draw_lines(lines: Iterable[Line]) -> Content:
    """Return lines as content."""
    return Content("\n").join([draw_runs(line) for line in lines])
