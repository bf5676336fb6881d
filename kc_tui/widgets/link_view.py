"""Lines with places in them that one can go to: a drawing whose nodes open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from kc_tui.commands.command import Scope
from kc_tui.commands.keymap import make_bindings
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.roles import Role
from kc_tui.state.table import Run, measure
from kc_tui.widgets.inks import Inks
from kc_tui.widgets.line_view import LineView


class LinkedPiece(Protocol):
    """A piece of a line; `node` names what it shows, and is empty where it shows nothing."""

    @property
    def text(self) -> str:
        """Its text."""

    @property
    def role(self) -> Role:
        """Its role."""

    @property
    def node(self) -> str:
        """What it shows."""


class Spot(NamedTuple):
    """A place that one can go to: its line, its piece in that, what it shows, and the cells that it takes."""

    line: int
    piece: int
    node: str
    start: int
    end: int


class LinkView(LineView):
    """Lines of pieces; the cursor goes from one that leads somewhere to the next."""

    BINDINGS: ClassVar[list[BindingType]] = [*make_bindings(Scope.LIST, "select_row")]

    class Chosen(Message):
        """A place was chosen."""

        def __init__(self, node: str) -> None:
            super().__init__()
            self.node = node

    class Moved(Message):
        """The cursor is on another place, or there is none."""

    def __init__(self, leads: Callable[[str], bool], *, glyphs: Glyphs = UNICODE, id: str | None = None) -> None:  # noqa: A002
        super().__init__(glyphs=glyphs, id=id)
        self._leads = leads
        self._pieces: Sequence[Sequence[LinkedPiece]] = ()
        self._spots: list[Spot] = []
        self._at = 0

    @property
    def spots(self) -> Sequence[Spot]:
        """The places that one can go to, in the order of reading."""
        return self._spots

    @property
    def spot(self) -> Spot | None:
        """The place under the cursor."""
        return self._spots[self._at] if self._spots else None

    def draw(self, lines: Sequence[Sequence[LinkedPiece]]) -> None:
        """Show other lines; the cursor stays on what it was on, as far as that is still there."""
        before = self.spot
        self._pieces = lines
        self._lines = [tuple(Run(piece.text, piece.role) for piece in line) for line in lines]
        self._spots = [spot for number, line in enumerate(lines) for spot in self._find_spots(number, line)]
        same = [index for index, spot in enumerate(self._spots) if before is not None and spot.node == before.node]
        last = max(0, len(self._spots) - 1)
        self._at = min(same, key=lambda index: abs(index - self._at)) if same else min(self._at, last)
        self.virtual_size = Size(0, len(lines))
        self.refresh()
        self.post_message(self.Moved())

    def _find_spots(self, number: int, line: Sequence[LinkedPiece]) -> list[Spot]:
        starts = [0]
        for piece in line:
            starts.append(starts[-1] + measure([Run(piece.text)]))
        return [
            Spot(number, index, piece.node, start, end)
            for index, (piece, (start, end)) in enumerate(zip(line, pairwise(starts), strict=True))
            if piece.node and self._leads(piece.node)
        ]

    def _arrange(self) -> None:
        """Wait for `draw`: whoever draws knows the width."""

    def render_line(self, y: int) -> Strip:
        """Draw line `y` of the widget, the place under the cursor on the cursor's ground."""
        if self._inks is None:
            self._inks = Inks(self)
        at = y + round(self.scroll_y)
        width = self.scrollable_content_region.width
        line = self._lines[at] if at < len(self._lines) else ()
        spot = self.spot
        blank = self._inks.draw((Run(" " * width),))
        if not line:
            return blank
        cut = spot.piece if spot is not None and spot.line == at and self.has_focus else len(line)
        parts = [
            self._inks.draw(line[:cut]),
            self._inks.draw(line[cut : cut + 1], on_cursor=True),
            self._inks.draw(line[cut + 1 :]),
        ]
        return Strip.join([*parts, blank]).crop(0, width)

    # --- the cursor

    def _go(self, index: int) -> None:
        if not self._spots:
            return
        self._at = max(0, min(index, len(self._spots) - 1))
        line, height = self._spots[self._at].line, max(1, self.size.height)
        top = round(self.scroll_y)
        # The frame of a box is shown with what stands in it.
        if line <= top:
            self.scroll_to(y=line - 1, animate=False)
        elif line >= top + height - 1:
            self.scroll_to(y=line - height + 2, animate=False)
        self.refresh()
        self.post_message(self.Moved())

    def _go_lines(self, lines: int) -> None:
        spot = self.spot
        if spot is None:
            self._scroll(lines)
            return
        wanted = spot.line + lines
        self._go(min(range(len(self._spots)), key=lambda index: abs(self._spots[index].line - wanted)))

    def action_cursor_down(self) -> None:
        """Go to the next place, or scroll where there is none."""
        self._go(self._at + 1) if self._spots else self._scroll(1)

    def action_cursor_up(self) -> None:
        """Go to the place before, or scroll where there is none."""
        self._go(self._at - 1) if self._spots else self._scroll(-1)

    def action_cursor_top(self) -> None:
        """Go to the first place."""
        self._scroll(-len(self._lines))
        self._go(0)

    def action_cursor_bottom(self) -> None:
        """Go to the last place, with all that stands below it."""
        self._go(len(self._spots) - 1)
        self._scroll(len(self._lines))

    def action_half_page_down(self) -> None:
        """Go half a page down."""
        self._go_lines(max(1, self.size.height // 2))

    def action_half_page_up(self) -> None:
        """Go half a page up."""
        self._go_lines(-max(1, self.size.height // 2))

    def action_page_down(self) -> None:
        """Go a page down."""
        self._go_lines(max(1, self.size.height - 1))

    def action_page_up(self) -> None:
        """Go a page up."""
        self._go_lines(-max(1, self.size.height - 1))

    def action_select_row(self) -> None:
        """Choose the place under the cursor."""
        spot = self.spot
        if spot is not None:
            self.post_message(self.Chosen(spot.node))

    def on_click(self, event: events.Click) -> None:
        """Go to what was clicked; a second click chooses it."""
        event.stop()
        line = event.y + round(self.scroll_y)
        for index, spot in enumerate(self._spots):
            if spot.line == line and spot.start <= event.x < spot.end:
                is_there = index == self._at
                self._go(index)
                if is_there:
                    self.action_select_row()

    def watch_has_focus(self, has_focus: bool) -> None:
        """Show the cursor only while keys reach it."""
        super().watch_has_focus(has_focus)
        self.refresh()
