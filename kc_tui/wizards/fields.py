"""The page of name and size, made from the machine type's parameters; what is wrong is said while one types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Static

from kc_tui.state.create_vm import LONGEST_NAME
from kc_tui.state.fields import Field, FieldKind
from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.wizards.entry_page import EntryPage

NAME: Final = "name"
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


class FieldsPage(EntryPage):
    """The VM's name, then the parameters of its machine type."""

    def __init__(self, complain_about_name: Callable[[str], str]) -> None:
        super().__init__("Name and size", "review", id="page-name")
        self._complain_about_name = complain_about_name
        self.lines: list[FieldLine] = []
        self._made_for: object = None

    async def load(self, fields: Sequence[Field], name: str, values: Mapping[str, str], made_for: object) -> None:
        """Show these fields; those of the same machine type (`made_for`) stay as they are."""
        if made_for == self._made_for:
            return
        self._made_for = made_for
        self.lines = [FieldLine(NAME, "Name", None, name)]
        self.lines += [
            FieldLine(field.name, field.title, field, values.get(field.name, field.initial)) for field in fields
        ]
        await self.scroll.remove_children()
        await self.scroll.mount(*self.lines)
        self.was_left = bool(name)
        self.complain()

    def forget(self) -> None:
        """Make the fields anew next time, whatever they are for."""
        self._made_for = None

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

    def list_lines(self) -> Sequence[FieldLine]:
        """Return all fields."""
        return self.lines

    def find_line(self, name: str) -> FieldLine | None:
        """Return the field of a name."""
        return next((line for line in self.lines if line.key == name), None)

    def complain(self) -> bool:
        """Say beside each field what is wrong with it; return whether nothing is."""
        self.say("")
        for line in self.lines:
            if line.field is None:
                # An empty name is no mistake before one had the chance to type it.
                is_untouched = not line.text and not self.was_left
                line.complain("" if is_untouched else self._complain_about_name(line.text.strip()))
            else:
                line.complain(line.field.complain(line.text))
        return not any(line.error for line in self.lines)
