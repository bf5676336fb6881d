"""Pages on which one thing is chosen from a list; typing filters at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from kc_tui.commands import BarEntry
from kc_tui.screens.drawing import draw_runs
from kc_tui.screens.parts import SidePane
from kc_tui.state.create_vm_rows import NEW, Option, new_row
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import Line
from kc_tui.state.matching import rank
from kc_tui.state.roles import Role
from kc_tui.state.table import Column, Empty, Run
from kc_tui.widgets.virtual_table import VirtualTable
from kc_tui.wizards.page import Page


class PickPage(Page):
    """A list at the left, what is under the cursor at the right.

    `options` gives None as long as it is not known what there is; an enter that comes before is done then.
    """

    TITLE: ClassVar[str] = ""
    NOUN: ClassVar[str] = ""
    IS_FIRST: ClassVar[bool] = False
    OWN_LETTERS: ClassVar[frozenset[str]] = frozenset()
    """Characters that are keys of the page as long as nothing was typed."""

    def __init__(
        self,
        columns: Sequence[Column],
        options: Callable[[], list[Option] | None],
        describe: Callable[[str], Sequence[Line]],
        glyphs: Glyphs,
        *,
        id: str,  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(id=id)
        self._list_options = options
        self._describe = describe
        self._glyphs = glyphs
        self._options: dict[str, Option] = {}
        self._wanted = ""
        self._is_loading = False
        self._is_eager = False
        self.typed = ""
        self._error = ""
        self.top = Static(markup=False, classes="page-title")
        self.table = VirtualTable(columns, empty=Empty("Nothing matches"), glyphs=glyphs, show_header=False)
        self.pane = SidePane()

    def compose(self) -> ComposeResult:
        """Lay out the line with the filter, the list, and what is said of the selected."""
        yield self.top
        with Horizontal(classes="body"):
            yield self.table
            yield self.pane

    def enter(self) -> None:
        """Show what can be chosen."""
        self.typed = self._wanted = ""
        self._is_eager = False
        self._show_options()
        # At once: a key that is typed before a `focus()` has come round would find nobody.
        self.screen.set_focus(self.table)

    def choose(self, name: str) -> None:
        """Put the cursor on one of them, or on the first."""
        self._wanted = name
        if not self.table.move_to(name):
            self.table.action_cursor_top()

    @property
    def current(self) -> str:
        """The name under the cursor; empty where there is none."""
        row = self.table.row
        return row.key if row is not None and row.key != NEW else ""

    def documents_changed(self) -> None:
        """Show what can be chosen now."""
        self._show_options()

    def show_error(self, field: str, text: str) -> None:
        """Show an error at the top of the page."""
        del field
        self._error = text
        self._show_top()

    def leave(self) -> bool:
        """Take back what was typed."""
        had = bool(self.typed)
        if had:
            self._type("")
        return had

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        back = () if self.IS_FIRST else (BarEntry("back", "shift-tab", "back", 3),)
        return (
            BarEntry("enter", "enter", "choose", 1),
            BarEntry("", "type", "to filter", 4),
            *back,
            BarEntry("leave", "esc", "leave (draft is kept)", 2),
        )

    def _show_options(self) -> None:
        listed = self._list_options()
        was_loading, self._is_loading = self._is_loading, listed is None
        options = listed or []
        self._options = {option.name: option for option in options}
        found = [options[index] for index in rank(self.typed, [option.search for option in options])]
        rows = [option.row for option in found]
        if not self.typed and not self._is_loading:
            new = new_row(self.NOUN)
            self._options[NEW] = new
            rows.append(new.row)
        self.table.show(rows)
        has_come = was_loading and not self._is_loading
        if has_come and not self.typed:
            self.choose(self._wanted)
        self._show_top(len(found), len(options))
        self._show_selected()
        if has_come and self._is_eager:
            self._is_eager = False
            self.submit()

    def _show_top(self, found: int = 0, total: int = 0) -> None:
        if self._error:
            self.top.update(draw_runs((Run(f" {self._error}", Role.DANGER),)))
        elif self.typed:
            count = Run(f"   {found} of {total}", Role.MUTED)
            self.top.update(draw_runs((Run(" / ", Role.ACCENT), Run(self.typed), Run("▏", Role.ACCENT), count)))
        else:
            more = "   looking what there is…" if self._is_loading else ""
            self.top.update(Content.styled(f" {self.TITLE}{more}", "$muted"))

    def _show_selected(self) -> None:
        row = self.table.row
        if row is not None:
            option = self._options.get(row.key)
            refusal: Sequence[Line] = ((Run(option.refusal, Role.WARN),), ()) if option and option.refusal else ()
            self.pane.show([*refusal, *self._describe(row.key)])
        else:
            self.pane.show(())

    def _type(self, text: str) -> None:
        self.typed = text
        self._error = ""
        self._show_options()
        if text:
            self.table.action_cursor_top()

    def on_key(self, event: events.Key) -> None:
        """Filter by what is typed into the list."""
        if not self.table.has_focus:
            return
        character = event.character or ""
        if self.typed and event.key == "backspace":
            self._type(self.typed[:-1])
        elif self.typed and event.key == "ctrl+u":
            self._type("")
        elif event.is_printable and len(character) == 1 and character != " ":
            if character == "/" and not self.typed:
                event.stop()
                return
            if character in self.OWN_LETTERS and not self.typed:
                self.press(character)
            else:
                self._type(self.typed + character)
        elif event.key == "space":
            self.press(" ")
        elif event.key == "enter" and self._is_loading:
            self._is_eager = True
        else:
            return
        event.stop()
        event.prevent_default()

    def submit(self) -> None:
        """Choose what is under the cursor."""
        self.table.action_select_row()

    def choose_new(self) -> None:
        """Do what the line of a new thing is for."""
        self.post_message(self.Refused("the line at the right makes one; this list shows it at once"))

    @on(VirtualTable.Highlighted)
    def _highlighted(self, event: VirtualTable.Highlighted) -> None:
        event.stop()
        self._show_selected()

    @on(VirtualTable.Selected)
    def _selected(self, event: VirtualTable.Selected) -> None:
        event.stop()
        option = self._options.get(event.row.key)
        if event.row.key == NEW:
            self.choose_new()
        elif option is not None and option.refusal:
            self.post_message(self.Refused(option.refusal))
        else:
            self._error = ""
            self.post_message(self.Finished())


class ImagePage(PickPage):
    """The image to boot from."""

    TITLE: ClassVar[str] = "Image"
    NOUN: ClassVar[str] = "image"
    IS_FIRST: ClassVar[bool] = True


class TypePage(PickPage):
    """The machine type."""

    TITLE: ClassVar[str] = "Machine type"
    NOUN: ClassVar[str] = "machine type"
