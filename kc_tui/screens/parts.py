"""What the full screens are made of beside lists: the lines at the top, panes of text, the word for too little room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from kc_tui.screens.drawing import draw_lines, draw_runs
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import Line
from kc_tui.state.masthead import Masthead, draw_sections, draw_summary, place_sections

LEAST_WIDTH = 60
LEAST_HEIGHT = 15


class Head(Widget):
    """The lines at the top; a click on a section shows it."""

    class SectionPressed(Message):
        """A section was clicked."""

        def __init__(self, section: str) -> None:
            super().__init__()
            self.section = section

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._shown = Masthead()

    def show(self, masthead: Masthead) -> None:
        """Say something else; nothing is drawn where it is the same."""
        if masthead != self._shown:
            self._shown = masthead
            self.refresh()

    def render(self) -> Content:
        """Draw both lines."""
        width = self.size.width
        summary = draw_runs(draw_summary(self._shown, width, self._glyphs))
        return Content("\n").join([summary, draw_runs(draw_sections(self._shown, width))])

    def on_click(self, event: events.Click) -> None:
        """Show the section that was clicked."""
        event.stop()
        for tab in place_sections():
            if event.y == 1 and tab.start <= event.x < tab.end:
                self.post_message(self.SectionPressed(tab.section.id))


class TitleLine(Widget):
    """One line that says what a screen is about."""

    def __init__(self) -> None:
        super().__init__()
        self._line: Line = ()

    def show(self, line: Line) -> None:
        """Say something else; nothing is drawn where it is the same."""
        if line != self._line:
            self._line = line
            self.refresh()

    def render(self) -> Content:
        """Draw the line."""
        return draw_runs(self._line)


class Pane(VerticalScroll, can_focus=False):
    """A pane of lines that scrolls."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._text = Static(markup=False)
        self._lines: tuple[Line, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        yield self._text

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines; nothing is drawn where they are the same."""
        if tuple(lines) != self._lines:
            self._lines = tuple(lines)
            self._text.update(draw_lines(lines))


class SidePane(Widget):
    """A pane of lines beside a list; what has no room is cut off, for the object's own page has all.

    It has a fixed size, so that moving in the list lays nothing out again.
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._lines: tuple[Line, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines; nothing is drawn where they are the same."""
        if tuple(lines) != self._lines:
            self._lines = tuple(lines)
            self.refresh()

    def render(self) -> Content:
        """Draw the lines."""
        return draw_lines(self._lines)


class TooSmall(Static):
    """What is said where a terminal is too small for anything else."""

    def __init__(self) -> None:
        super().__init__(markup=False, classes="too-small")

    def on_resize(self) -> None:
        """Say how small."""
        width, height = self.app.size
        self.update(Content(f"KC needs {LEAST_WIDTH} columns and {LEAST_HEIGHT} lines; here are {width} and {height}."))


def tell_if_too_small(screen: Screen[Any]) -> None:
    """Put the word for too little room on a screen that has not enough; the styles show it in the place of the rest."""
    width, height = screen.app.size
    if (width < LEAST_WIDTH or height < LEAST_HEIGHT) and not screen.query(TooSmall):
        screen.mount(TooSmall())
