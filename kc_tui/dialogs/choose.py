"""Choosing one of many by typing a part of it: themes, commands, objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from kc_tui.dialogs.base import Dialog
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.matching import rank
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Empty, Row
from kc_tui.widgets.line_input import LineInput
from kc_tui.widgets.virtual_table import VirtualTable

_LABEL_WIDTH: Final = 28
_HINT_WIDTH: Final = 12


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing to choose: `hint` stands at the right (its key, its kind), `help` below the list while it is selected.

    `refusal` is the reason why it cannot be chosen now; `search` are further words that find it.
    """

    id: str
    label: str
    detail: str = ""
    hint: str = ""
    help: str = ""
    refusal: str = ""
    search: str = ""

    @property
    def row(self) -> Row:
        """Its line in the list."""
        role = Role.MUTED if self.refusal else Role.TEXT
        cells = (Cell(self.label, role), Cell(self.detail, Role.MUTED), Cell(self.hint, Role.ACCENT))
        return Row(self.id, (self.label, self.detail, self.hint, self.refusal), cells)


def _fit_columns(choices: Sequence[Choice]) -> tuple[Column, ...]:
    """Return columns as wide as the choices need; one without a hint among them has no column for it."""
    label = max((cell_len(choice.label) for choice in choices), default=0)
    hint = max((cell_len(choice.hint) for choice in choices), default=0)
    columns = (
        Column("label", "", min(label, _LABEL_WIDTH), weight=1, widest=label),
        Column("detail", "", 10, weight=9, rank=1),
        # One cell more for the scroll bar, which takes it from the last column.
        Column("hint", "", min(hint, _HINT_WIDTH) + 1, align=Align.RIGHT),
    )
    return columns if hint else columns[:2]


class ChooseDialog(Dialog[str]):
    """A list that one types into; the result is the id of the chosen. `preview` is told what is under the cursor."""

    LINES: ClassVar[int] = 12
    """The most lines of the list; one with fewer choices is as long as these."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,ctrl+n", "cursor_down", show=False),
        Binding("up", "cursor_up", show=False),
        Binding("pagedown", "page_down", show=False),
        Binding("pageup", "page_up", show=False),
        Binding("enter", "choose", show=False),
    ]

    def __init__(
        self,
        title: str,
        choices: Sequence[Choice],
        *,
        current: str = "",
        preview: Callable[[str], None] | None = None,
        glyphs: Glyphs = UNICODE,
    ) -> None:
        super().__init__()
        self._title = title
        self._choices = tuple(choices)
        self._by_id = {choice.id: choice for choice in self._choices}
        self._texts = [f"{choice.label} {choice.detail} {choice.search}" for choice in self._choices]
        self._current = current
        self._preview = preview
        self._input = LineInput(placeholder="type to search")
        self._help = Static(markup=False, classes="choose-help")
        self._help.display = any(choice.help or choice.refusal for choice in self._choices)
        empty = Empty("Nothing matches", "take something away from what you typed")
        columns = _fit_columns(self._choices)
        self._table = VirtualTable(columns, empty=empty, glyphs=glyphs, show_header=False, is_lit=True)
        self._table.can_focus = False
        self._table.styles.height = max(2, min(len(self._choices), self.LINES))

    def compose(self) -> ComposeResult:
        """Lay out the line that one types into, the list, and the help of what is selected."""
        with Vertical(classes="dialog") as panel:
            panel.border_title = Content(self._title)
            panel.border_subtitle = Content("enter choose  esc leave")
            with Horizontal(classes="choose-line"):
                yield Static("/", markup=False)
                yield self._input
            yield self._table
            yield self._help

    def on_mount(self) -> None:
        """Show everything, with the cursor on the current one."""
        self._table.show([choice.row for choice in self._choices])
        self._table.move_to(self._current)
        self.set_focus(self._input)

    @on(Input.Changed)
    def _search(self, event: Input.Changed) -> None:
        event.stop()
        self._table.show([self._choices[index].row for index in rank(event.value, self._texts)])
        # What matches best is what is meant; the cursor must not stay with what was selected before.
        if event.value:
            self._table.action_cursor_top()

    @on(VirtualTable.Highlighted)
    def _describe(self, event: VirtualTable.Highlighted) -> None:
        event.stop()
        choice = self._by_id.get(event.row.key) if event.row is not None else None
        refusal = choice.refusal if choice else ""
        text = choice.help if choice else ""
        self._help.update(Content.styled(refusal, "$warn") if refusal else Content.styled(text, "$muted"))
        if choice is not None and self._preview is not None:
            self._preview(choice.id)

    @on(VirtualTable.Selected)
    def _take(self, event: VirtualTable.Selected) -> None:
        event.stop()
        self.action_choose()

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_choose()

    def action_choose(self) -> None:
        """Choose what is under the cursor; what cannot be chosen says why below the list."""
        row = self._table.row
        if row is not None and not self._by_id[row.key].refusal:
            self.dismiss(row.key)

    def action_cursor_down(self) -> None:
        """Move in the list while the focus stays on the text."""
        self._table.action_cursor_down()

    def action_cursor_up(self) -> None:
        """Move in the list while the focus stays on the text."""
        self._table.action_cursor_up()

    def action_page_down(self) -> None:
        """Move a page in the list."""
        self._table.action_page_down()

    def action_page_up(self) -> None:
        """Move a page in the list."""
        self._table.action_page_up()
