"""The difference between two versions, filling the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from kc_tui.clipboard import CopyRequested
from kc_tui.commands import BarEntry, Context, Scope, Subject
from kc_tui.screens.parts import Head, TitleLine
from kc_tui.screens.session_screen import SessionScreen
from kc_tui.session import Session
from kc_tui.state.lines import Line
from kc_tui.state.masthead import Masthead
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.state.versions import Difference, describe_author, draw_difference
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.line_view import LineView

_COPY_WIDTH: Final = 200
_NO_LIST: Final = "this is a text: there is nothing to choose in it"


class DifferenceScreen(SessionScreen):
    """All of one difference; it scrolls."""

    SCOPES: ClassVar[frozenset[Scope]] = frozenset({Scope.LIST})
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space,V,asterisk", "say_why", show=False)]

    def __init__(self, session: Session, name: str, difference: Difference) -> None:
        super().__init__(session)
        self.object_name = name
        self._difference = difference
        self.head = Head(session.glyphs)
        self.title_line = TitleLine()
        self.view = LineView(glyphs=session.glyphs)

    def compose(self) -> ComposeResult:
        """Lay out the lines at the top, the difference and the keys."""
        with Vertical(classes="whole"):
            yield self.head
            yield self.title_line
            yield self.view
            yield KeyBar()

    def on_mount(self) -> None:
        """Show the difference."""
        title: Line = (
            Run(f" {self.object_name}", Role.STRONG),
            Run(f"  {describe_author(self._difference)}", Role.MUTED),
        )
        self.title_line.show(title)
        self.view.show(lambda width: draw_difference(self._difference, width, self.session.glyphs))
        self.view.focus()

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top."""
        self.head.show(masthead)

    def refusals(self) -> Mapping[str, str]:
        """Return what of a list's commands a text has no use for."""
        names = ("open", "filter", "sort", "reverse", "mark", "mark-range", "invert-marks")
        return {f"list.{name}": _NO_LIST for name in names}

    def action_say_why(self) -> None:
        """Say why a list's key does nothing here."""
        refuse: Any = getattr(self.app, "refuse")  # noqa: B009 - every app of commands has one
        refuse(_NO_LIST)

    def refresh_keys(self) -> None:
        """Show the keys."""
        keymap = getattr(self.app, "keymap", None)
        if keymap is None or not self.is_composed:
            return
        hidden = set(self.refusals())
        entries = [entry for entry in keymap.bar(self.command_context()) if entry.command_id not in hidden]
        move = BarEntry("", f"{keymap.label('move.down')} {keymap.label('move.up')}", "scroll", 2)
        back = BarEntry("app.back", keymap.label("app.back"), "back", 3)
        self.query_one(KeyBar).show((move, back, *entries))

    def command_context(self) -> Context:
        """Return what commands are judged by here; the text can be copied."""
        context = super().command_context()
        return Context(context.scopes, (Subject("", self.object_name),), len(self.view.lines), context.refusals)

    def do_list_copy(self, _context: Context) -> None:
        """Copy the difference as text."""
        lines = draw_difference(self._difference, _COPY_WIDTH, self.session.glyphs)
        text = "\n".join("".join(run.text for run in line) for line in lines)
        self.post_message(CopyRequested(text, "the difference"))
