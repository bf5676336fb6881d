"""One field of a form in a line: its title, what it holds, its unit, and beside it what it may be or what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Static

from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.widgets.line_input import LineInput

_LONGEST: Final = 4096


def _accept(_text: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class FormField:
    """One field: `options` make it a choice among few, shown as `labels` say; `hint` is what it may be.

    `complain` gives, at each key, what is wrong with a text; empty where nothing is.
    """

    name: str
    title: str
    initial: str = ""
    options: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    hint: str = ""
    complain: Callable[[str], str] = _accept


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
