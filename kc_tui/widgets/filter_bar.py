"""The line in which a list is filtered: what one types, what it finds, and where it is wrong."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.widgets.line_input import LineInput


class _ErrorLine(Widget):
    """What is wrong, beside a caret that points at the wrong character, on the side where it has room."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(classes="filter-error")
        self._glyphs = glyphs
        self.message = ""
        self.column: int | None = None

    def render(self) -> Content:
        room, at, message = self.content_size.width, self.column, self.message
        if at is None or not 0 <= at < room:
            line = message
        elif at + 2 + len(message) <= room:
            line = f"{' ' * at}{self._glyphs.caret} {message}"
        elif len(message) + 1 <= at:
            line = f"{message} ".rjust(at) + self._glyphs.caret
        else:
            line = message
        return Content.styled(line, "$danger")


class FilterBar(Widget):
    """A filter that applies while one types; enter keeps it, Esc takes it away.

    Its owner listens to `Changed`, filters, and answers with `show_matches` or `show_error`. It is hidden while empty
    and not in use.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("down", "accept", show=False),
    ]

    class Changed(Message):
        """The text is another one; it may be wrong."""

        def __init__(self, bar: FilterBar, text: str) -> None:
            super().__init__()
            self.bar = bar
            self.text = text

        @property
        def control(self) -> FilterBar:
            """The bar."""
            return self.bar

    class Closed(Message):
        """The user is done with it: the list has the focus again."""

        def __init__(self, bar: FilterBar) -> None:
            super().__init__()
            self.bar = bar

        @property
        def control(self) -> FilterBar:
            """The bar."""
            return self.bar

    def __init__(self, *, glyphs: Glyphs = UNICODE, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._input = LineInput()
        self._count = Static(markup=False, classes="filter-count")
        self._error = _ErrorLine(glyphs)
        self._error.display = False
        self.display = False

    def _fill(self) -> None:
        """Make what stands in the bar: only when it is first needed, as most lists are never filtered."""
        if not self.children:
            sign = Static("/", markup=False, classes="filter-sign")
            self.mount(Horizontal(sign, self._input, self._count, classes="filter-line"), self._error)

    @property
    def text(self) -> str:
        """The filter."""
        return self._input.value

    @property
    def error(self) -> str:
        """What is said to be wrong with it."""
        return self._error.message

    def open(self) -> None:
        """Show it and type into it."""
        self._fill()
        self.display = True
        # At once, not with `focus()`, which takes effect after keys that are already on their way.
        self.screen.set_focus(self._input)

    def clear(self) -> bool:
        """Take the filter away and hide; return whether there was one."""
        had = bool(self._input.value)
        self._input.value = ""
        self.show_error("")
        self.display = self._input.has_focus
        return had

    def show_matches(self, found: int, total: int) -> None:
        """Say how many of how many were found; this takes an error away."""
        self.show_error("")
        self._count.update(Content.styled(f"{found:,} of {total:,}", "$muted"))

    def show_error(self, message: str, position: int | None = None) -> None:
        """Say what is wrong, under the character at `position` where that is known; empty takes it away."""
        self._error.message = message
        if position is not None:
            before = self._input.value[:position]
            position += cell_len(before) - len(before) - self._input.scroll_offset.x
        self._error.column = position
        self._error.display = bool(message)
        self._error.refresh()
        if message:
            self._count.update("")

    @on(Input.Changed)
    def _pass_on(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self, event.value))

    @on(Input.Submitted)
    def _accept_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_accept()

    def action_accept(self) -> None:
        """Keep the filter and go back to the list."""
        self.display = bool(self._input.value)
        self.post_message(self.Closed(self))

    def action_leave(self) -> None:
        """Take the filter away and go back to the list."""
        self.clear()
        self.display = False
        self.post_message(self.Closed(self))
