"""One field of a form in a line: its title, what it holds, its unit, and beside it what it may be or what is wrong."""

from __future__ import annotations

from typing import Final

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from kc_tui.state.form_field import FormField
from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.widgets.line_input import LineInput

_LONGEST: Final = 4096


class FieldLine(Horizontal):
    """A `FormField` to be filled in."""

    def __init__(self, form_field: FormField) -> None:
        super().__init__()
        self.field = form_field
        self.control = self._make_control()
        self.error = ""
        self._message = Static(markup=False, classes="field-message")

    def _make_control(self) -> Input | ChoiceField:
        form_field = self.field
        if form_field.options:
            return ChoiceField(form_field.options, form_field.initial, labels=form_field.labels)
        control = LineInput(form_field.initial)
        control.max_length = _LONGEST
        if form_field.suggestions:
            control.suggester = SuggestFromList(form_field.suggestions)
        return control

    def compose(self) -> ComposeResult:
        """Lay out the field."""
        yield Static(self.field.title, markup=False, classes="field-title")
        yield self.control
        if self.field.unit:
            yield Static(self.field.unit, markup=False, classes="field-unit")
        yield self._message

    def on_mount(self) -> None:
        """Say what it may be."""
        self.complain("")

    @property
    def text(self) -> str:
        """What it holds, without blanks around it."""
        return self.control.value.strip()

    def check(self) -> bool:
        """Say what is wrong with what it holds; return whether nothing is."""
        self.complain(self.field.complain(self.text))
        return not self.error

    def complain(self, error: str) -> None:
        """Say what is wrong; empty for what it may be."""
        self.error = error
        self._message.update(Content.styled(error, "$danger") if error else Content.styled(self.field.hint, "$muted"))
