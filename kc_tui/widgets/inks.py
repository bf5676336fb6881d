"""The colours of the current theme for widgets that draw their lines themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.color import Color
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from kc_tui.state.roles import Role
from kc_tui.state.table import Run, measure

_COLOR_OF: Final = {Role.STRONG: "text"}


def _read_color(variables: Mapping[str, str], name: str) -> Color:
    value = variables.get(name, "")
    # A theme that is not KC's has no such role, or a text colour that only a style sheet can work out.
    return Color.parse(variables["foreground"] if not value or value.startswith("auto") else value)


class Inks:
    """The style of every role on a widget's ground and on the cursor's line, for one theme.

    Make another one when the widget's style changes (`notify_style_update`).
    """

    def __init__(self, widget: Widget) -> None:
        variables = widget.app.theme_variables
        ground = widget.background_colors[1]
        selection = _read_color(variables, "selection") if "selection" in variables else ground
        is_reversed = variables.get("selection-style") == "reverse"
        self._ground: dict[Role, RichStyle] = {}
        self._cursor: dict[Role, RichStyle] = {}
        for role in Role:
            color = _read_color(variables, _COLOR_OF.get(role, role))
            bold = True if role is Role.STRONG else None
            self._ground[role] = Style(background=ground, foreground=color, bold=bold).rich_style
            if is_reversed:
                # Colours of their own would make a patchwork of a reversed line.
                plain = _read_color(variables, "text")
                self._cursor[role] = Style(background=ground, foreground=plain, bold=bold, reverse=True).rich_style
            else:
                self._cursor[role] = Style(background=selection, foreground=color, bold=bold).rich_style

    def draw(self, runs: Sequence[Run], *, on_cursor: bool = False) -> Strip:
        """Return runs as a strip, exactly as wide as they are."""
        styles = self._cursor if on_cursor else self._ground
        return Strip([Segment(run.text, styles[run.role]) for run in _join(runs)], measure(runs))


def _join(runs: Sequence[Run]) -> list[Run]:
    """Return runs with those of one role joined, and blanks taken into the run before: fewer bytes for the terminal."""
    joined: list[Run] = []
    for run in runs:
        if joined and (run.role is joined[-1].role or run.text.isspace()):
            joined[-1] = Run(joined[-1].text + run.text, joined[-1].role)
        else:
            joined.append(run)
    return joined
