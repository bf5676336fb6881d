"""All about one image, network, machine type or operation, in the place of its list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from kc_tui.commands import BarEntry, Context, Scope
from kc_tui.screens.object_verbs import ObjectVerbs
from kc_tui.screens.parts import Head, Pane
from kc_tui.screens.session_screen import Changed, SessionScreen
from kc_tui.session import Session
from kc_tui.state.lines import Line
from kc_tui.state.masthead import Masthead
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from kc_tui.screens.section import SectionScreen

_GONE: Final[tuple[Line, ...]] = ((Run("It is gone.", Role.STRONG),), (Run("esc goes back", Role.MUTED),))


class OnePage(SessionScreen):
    """One object, in the place of its list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_item(1)", show=False),
        Binding("up,k", "scroll_item(-1)", show=False),
        Binding("pagedown,ctrl+d", "scroll_item(10)", show=False),
        Binding("pageup,ctrl+u", "scroll_item(-10)", show=False),
        Binding("enter", "leave", show=False),
    ]

    def __init__(self, session: Session, uid: str) -> None:
        super().__init__(session)
        self.uid = uid
        self.head = Head(session.glyphs)
        self.pane = Pane()

    def compose(self) -> ComposeResult:
        """Lay out the lines at the top, the object and the keys."""
        with Vertical(classes="whole"):
            yield self.head
            yield self.pane
            yield KeyBar()

    def on_mount(self) -> None:
        """Show the object."""
        self.documents_changed(None)

    def documents_changed(self, _changed: Changed | None) -> None:
        """Show the object as it is now."""
        if self.is_composed:
            self.pane.show(self.describe() or _GONE)
            self.refresh_keys()

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top."""
        self.head.show(masthead)

    def describe(self) -> Sequence[Line]:
        """Return all about the object; nothing where it is gone."""
        raise NotImplementedError

    def list_ways(self) -> tuple[BarEntry, ...]:
        """Return the way back."""
        keymap: Any = getattr(self.app, "keymap", None)
        label = keymap.label("app.back") if keymap is not None else "esc"
        return (*super().list_ways(), BarEntry("app.back", label, "back", 1))

    def action_scroll_item(self, lines: int) -> None:
        """Scroll."""
        self.pane.scroll_relative(y=lines, animate=False)

    def action_leave(self) -> None:
        """Go back to the list."""
        self.app.pop_screen()


class ItemScreen(OnePage):
    """One object of a section; its verbs are the section's."""

    def __init__(self, section: SectionScreen[Any], uid: str) -> None:
        super().__init__(section.session, uid)
        self._section = section

    def describe(self) -> Sequence[Line]:
        """Return what the section tells of it."""
        return self._section.describe(self.uid)

    def command_context(self) -> Context:
        """Return the section's scopes without the list's, upon this one object."""
        entry = self._section.listing.get(self.uid)
        subjects = () if entry is None else (self._section.make_subject(entry),)
        return Context(self._section.SCOPES - {Scope.LIST} | {Scope.APP}, subjects, refusals=self.refusals())


class ObjectPage(ItemScreen, ObjectVerbs):
    """All about one object that has versions."""
