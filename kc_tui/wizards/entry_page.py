"""A page of fields, a line each; what is wrong is said while one types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from textual import events, on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from kc_tui.commands import BarEntry
from kc_tui.state.form_field import FormField
from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.widgets.field_line import FieldLine
from kc_tui.wizards.page import Page

_CHECK_SECONDS: Final = 0.15


class EntryLine(Protocol):
    """One field of the page, a widget."""

    control: Input | ChoiceField
    error: str
    display: Any

    def complain(self, error: str) -> None:
        """Say what is wrong; empty for what it may be."""


class EntryPage(Page):
    """Fields below each other; tab goes through them, enter finishes the page where nothing is wrong."""

    class Edited(Message):
        """A text changed and, as far as can be told at once, nothing is wrong: the full check is due."""

    def __init__(self, title: str, next_word: str, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._title = title
        self._next_word = next_word
        self._error = Static(markup=False, classes="page-error")
        self._timer: Timer | None = None
        self.was_left = False
        self.leave_word = "leave (draft is kept)"
        self.scroll = VerticalScroll(can_focus=False)

    def compose(self) -> ComposeResult:
        """Lay out the fields, and below them what belongs to none."""
        yield Static(f" {self._title}", markup=False, classes="page-title")
        yield self.scroll
        yield self._error

    def list_lines(self) -> Sequence[EntryLine]:
        """Return the fields that are shown."""
        raise NotImplementedError

    def find_line(self, name: str) -> EntryLine | None:
        """Return the field of a name."""
        raise NotImplementedError

    def complain(self) -> bool:
        """Say beside each field what is wrong with it; return whether nothing is."""
        raise NotImplementedError

    def enter(self) -> None:
        """Type into the first field that is wrong, else into the first."""
        lines = self.list_lines()
        wrong = next((line for line in lines if line.error), lines[0] if lines else None)
        if wrong is not None:
            self.screen.set_focus(wrong.control)

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        return (
            BarEntry("enter", "enter", self._next_word, 1),
            BarEntry("", "tab", "next field", 3),
            BarEntry("back", "shift-tab", "back", 4),
            BarEntry("leave", "esc", self.leave_word, 2),
        )

    def show_error(self, field: str, text: str) -> None:
        """Show an error beside its field, or below all."""
        line = self.find_line(field)
        if line is not None:
            line.complain(text)
        else:
            self.say(text)

    def say(self, text: str) -> None:
        """Say below the fields what is wrong with none of them alone."""
        self._error.update(Content.styled(text, "$danger"))

    @on(Input.Changed)
    @on(ChoiceField.Changed)
    def _changed(self, event: Input.Changed | ChoiceField.Changed) -> None:
        event.stop()
        if self._timer is not None:
            self._timer.stop()
        if self.complain():
            self._timer = self.set_timer(_CHECK_SECONDS, lambda: self.post_message(self.Edited()) and None)

    @on(Input.Submitted)
    @on(ChoiceField.Submitted)
    def _submitted(self, event: Input.Submitted | ChoiceField.Submitted) -> None:
        event.stop()
        self.submit()

    def submit(self) -> None:
        """Finish, or go to the first field that is wrong."""
        self.was_left = True
        if self.complain():
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
        lines = self.list_lines()
        at = next((index for index, line in enumerate(lines) if line.control.has_focus), 0)
        if not 0 <= at + by < len(lines):
            return False
        self.screen.set_focus(lines[at + by].control)
        return True


class FormPage(EntryPage):
    """A page of form fields; `hide` names those that the values of the others make pointless."""

    def __init__(
        self,
        title: str,
        next_word: str,
        fields: Sequence[FormField],
        hide: Callable[[Mapping[str, str]], frozenset[str]],
        *,
        id: str,  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(title, next_word, id=id)
        self.lines = [FieldLine(field) for field in fields]
        self.scroll = VerticalScroll(*self.lines, can_focus=False)
        self._hide = hide
        self._hidden: frozenset[str] = frozenset()

    @property
    def values(self) -> dict[str, str]:
        """What the fields hold, by their names."""
        return {line.field.name: line.text for line in self.lines}

    def load(self, values: dict[str, str]) -> None:
        """Put texts into the fields; those that are not named have what they began with."""
        for line in self.lines:
            line.control.value = values.get(line.field.name, line.field.initial)
            line.control.refresh()
        self.was_left = False
        self.complain()

    def list_lines(self) -> Sequence[FieldLine]:
        """Return the fields that are shown."""
        return [line for line in self.lines if line.field.name not in self._hidden]

    def find_line(self, name: str) -> FieldLine | None:
        """Return the field of a name."""
        return next((line for line in self.lines if line.field.name == name), None)

    def complain(self) -> bool:
        """Say beside each field what is wrong with it; return whether nothing is."""
        self.say("")
        self._hidden = self._hide(self.values)
        for line in self.lines:
            line.display = line.field.name not in self._hidden
            # An empty field is no mistake before one had the chance to fill it in.
            is_untouched = not line.text and not self.was_left
            is_quiet = is_untouched or not line.display
            line.complain("" if is_quiet else line.field.complain(line.text))
        return not any(line.error for line in self.lines)
