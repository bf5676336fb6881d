"""The page of name and size, made from the machine type's parameters; what is wrong is said while one types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from kc_tui.commands import BarEntry
from kc_tui.state.create_vm import LONGEST_NAME
from kc_tui.state.fields import Field, FieldKind
from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.wizards.page import Page

NAME: Final = "name"
_CHECK_SECONDS: Final = 0.15
_LONGEST_TEXT: Final = 4096
_NAME_RULE: Final = "small letters, digits, hyphens"
_YES_NO: Final = {"true": "yes", "false": "no"}


class FieldLine(Horizontal):
    """One field: its title, what it holds, its unit, and beside it what it may be or what is wrong with it."""

    def __init__(self, name: str, title: str, field: Field | None, text: str) -> None:
        super().__init__(classes="field")
        self.key = name
        self._title = title
        self.field = field
        self._rest = " ".join(part for part in (field.limits, field.help) if part) if field is not None else _NAME_RULE
        self.control = self._make_control(text)
        self._message = Static(markup=False, classes="field-message")
        self.error = ""

    def _make_control(self, text: str) -> Input | ChoiceField:
        field = self.field
        if field is not None and field.kind is FieldKind.BOOLEAN:
            return ChoiceField(("true", "false"), text, labels=_YES_NO)
        if field is not None and field.kind is FieldKind.CHOICE:
            return ChoiceField(field.options, text)
        if field is None:
            # One goes on with a name, and types a figure anew.
            control = Input(text, compact=True, max_length=LONGEST_NAME + 1, select_on_focus=False)
        else:
            control = Input(text, compact=True, max_length=_LONGEST_TEXT)
        control.cursor_blink = False
        return control

    def compose(self) -> ComposeResult:
        """Lay out the field."""
        yield Static(self._title, markup=False, classes="field-title")
        yield self.control
        yield Static(self.field.unit if self.field is not None else "", markup=False, classes="field-unit")
        yield self._message

    def on_mount(self) -> None:
        """Say what it may be."""
        self.complain("")

    @property
    def text(self) -> str:
        """What it holds."""
        return self.control.value

    def complain(self, error: str) -> None:
        """Say what is wrong; empty for what it may be."""
        self.error = error
        self._message.update(Content.styled(error, "$danger") if error else Content.styled(self._rest, "$muted"))


class FieldsPage(Page):
    """The VM's name, then the parameters of its machine type."""

    class Edited(Message):
        """A text changed and, as far as can be told at once, nothing is wrong: the full check is due."""

    def __init__(self, complain_about_name: Callable[[str], str]) -> None:
        super().__init__(id="page-name")
        self._complain_about_name = complain_about_name
        self.lines: list[FieldLine] = []
        self._scroll = VerticalScroll(can_focus=False)
        self._error = Static(markup=False, classes="page-error")
        self._made_for: object = None
        self._timer: Timer | None = None
        self._was_left = False

    def compose(self) -> ComposeResult:
        """Lay out the fields, and below them what belongs to none."""
        yield Static(" Name and size", markup=False, classes="page-title")
        yield self._scroll
        yield self._error

    async def load(self, fields: Sequence[Field], name: str, values: Mapping[str, str], made_for: object) -> None:
        """Show these fields; those of the same machine type (`made_for`) stay as they are."""
        if made_for == self._made_for:
            return
        self._made_for = made_for
        self.lines = [FieldLine(NAME, "Name", None, name)]
        self.lines += [
            FieldLine(field.name, field.title, field, values.get(field.name, field.initial)) for field in fields
        ]
        await self._scroll.remove_children()
        await self._scroll.mount(*self.lines)
        self._was_left = bool(name)
        self._complain()

    def forget(self) -> None:
        """Make the fields anew next time, whatever they are for."""
        self._made_for = None

    def enter(self) -> None:
        """Type into the first field that is wrong, else into the first."""
        wrong = next((line for line in self.lines if line.error), self.lines[0] if self.lines else None)
        if wrong is not None:
            self.screen.set_focus(wrong.control)

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        return (
            BarEntry("enter", "enter", "review", 1),
            BarEntry("", "tab", "next field", 3),
            BarEntry("back", "shift-tab", "back", 4),
            BarEntry("leave", "esc", "leave (draft is kept)", 2),
        )

    @property
    def name_text(self) -> str:
        """The name as it stands."""
        return self.lines[0].text.strip() if self.lines else ""

    @property
    def values(self) -> dict[str, str]:
        """The texts in the parameters' fields that are other than those they began with."""
        return {
            line.key: line.text for line in self.lines if line.field is not None and line.text != line.field.initial
        }

    def show_error(self, field: str, text: str) -> None:
        """Show an error beside its field, or below all."""
        line = next((line for line in self.lines if line.key == field), None)
        if line is not None:
            line.complain(text)
        else:
            self._error.update(Content.styled(text, "$danger"))

    def _complain(self) -> bool:
        """Say beside each field what is wrong with it; return whether nothing is."""
        self._error.update("")
        for line in self.lines:
            if line.field is None:
                # An empty name is no mistake before one had the chance to type it.
                is_untouched = not line.text and not self._was_left
                line.complain("" if is_untouched else self._complain_about_name(line.text.strip()))
            else:
                line.complain(line.field.complain(line.text))
        return not any(line.error for line in self.lines)

    @on(Input.Changed)
    @on(ChoiceField.Changed)
    def _changed(self, event: Input.Changed | ChoiceField.Changed) -> None:
        event.stop()
        if self._timer is not None:
            self._timer.stop()
        if self._complain():
            self._timer = self.set_timer(_CHECK_SECONDS, lambda: self.post_message(self.Edited()) and None)

    @on(Input.Submitted)
    @on(ChoiceField.Submitted)
    def _submitted(self, event: Input.Submitted | ChoiceField.Submitted) -> None:
        event.stop()
        self.submit()

    def submit(self) -> None:
        """Finish, or go to the first field that is wrong."""
        self._was_left = True
        if self._complain():
            self.post_message(self.Finished())
        else:
            self.enter()

    def on_key(self, event: events.Key) -> None:
        """Go from field to field."""
        if event.key in ("down", "tab"):
            self._go(1)
        elif event.key == "up":
            self._go(-1)
        else:
            return
        event.stop()
        event.prevent_default()

    def back(self) -> bool:
        """Go to the field before; return whether there was one."""
        return self._go(-1)

    def _go(self, by: int) -> bool:
        at = next((index for index, line in enumerate(self.lines) if line.control.has_focus), 0)
        if not 0 <= at + by < len(self.lines):
            return False
        self.screen.set_focus(self.lines[at + by].control)
        return True
