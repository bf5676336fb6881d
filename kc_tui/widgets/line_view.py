"""Any number of lines to be read, drawn a line at a time; they are laid out anew for each width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kc_tui.commands.command import Scope
from kc_tui.commands.keymap import make_bindings
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.lines import Line
from kc_tui.state.table import Run, fit_runs
from kc_tui.widgets.inks import Inks

_WHEEL_LINES: Final = 3
_MOVES: Final = (
    "cursor_down", "cursor_up", "cursor_top", "cursor_bottom", "half_page_down", "half_page_up", "page_down", "page_up",
)  # fmt: skip
_BLANK: Final = Run("")
Layout = Callable[[int], Sequence[Line]]
"""Gives the lines for a width in cells."""


class LineView(ScrollView):
    """Lines that scroll, with the keys that move in lists."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    LineView {
        height: 1fr;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-size-vertical: 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*make_bindings(Scope.LIST, *_MOVES)]

    def __init__(
        self,
        *,
        glyphs: Glyphs = UNICODE,
        can_focus: bool = True,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.can_focus = can_focus
        self._glyphs = glyphs
        self._lay_out: Layout = lambda _width: ()
        self._lines: list[Line] = []
        self._width = 0
        self._inks: Inks | None = None

    @property
    def lines(self) -> Sequence[Line]:
        """The lines as they are laid out now."""
        return self._lines

    def show(self, lay_out: Layout) -> None:
        """Show other lines, from the first one on."""
        self._lay_out = lay_out
        self._width = 0
        self.scroll_to(y=0, animate=False, force=True)
        self._arrange()

    def _arrange(self) -> None:
        # One cell is left to the scroll bar whether or not there is one, so that its coming moves nothing.
        width = max(0, self.size.width - 1)
        if width and width != self._width:
            self._width = width
            self._lines = list(self._lay_out(width))
            self.virtual_size = Size(0, len(self._lines))
            self.refresh()

    def on_resize(self) -> None:
        """Lay the lines out for another width."""
        self._arrange()

    def render_line(self, y: int) -> Strip:
        """Draw line `y` of the widget."""
        if self._inks is None:
            self._inks = Inks(self)
        at = y + round(self.scroll_y)
        line = (self._lines[at] if at < len(self._lines) else ()) or (_BLANK,)
        return self._inks.draw(fit_runs(line, self.scrollable_content_region.width, glyphs=self._glyphs))

    def notify_style_update(self) -> None:
        """Forget the colours of another theme."""
        super().notify_style_update()
        self._inks = None

    # --- actions, bound to keys by the registry

    def action_cursor_down(self) -> None:
        """Scroll one line down."""
        self._scroll(1)

    def action_cursor_up(self) -> None:
        """Scroll one line up."""
        self._scroll(-1)

    def action_cursor_top(self) -> None:
        """Scroll to the first line."""
        self._scroll(-len(self._lines))

    def action_cursor_bottom(self) -> None:
        """Scroll to the last line."""
        self._scroll(len(self._lines))

    def action_half_page_down(self) -> None:
        """Scroll half a page down."""
        self._scroll(max(1, self.size.height // 2))

    def action_half_page_up(self) -> None:
        """Scroll half a page up."""
        self._scroll(-max(1, self.size.height // 2))

    def action_page_down(self) -> None:
        """Scroll a page down."""
        self._scroll(max(1, self.size.height - 1))

    def action_page_up(self) -> None:
        """Scroll a page up."""
        self._scroll(-max(1, self.size.height - 1))

    def _scroll(self, lines: int) -> None:
        self.scroll_to(y=round(self.scroll_y) + lines, animate=False)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll down by the wheel."""
        event.stop()
        event.prevent_default()
        self._scroll(_WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll up by the wheel."""
        event.stop()
        event.prevent_default()
        self._scroll(-_WHEEL_LINES)
