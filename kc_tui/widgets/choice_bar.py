"""The answers to a question, side by side in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from kc_tui.state.roles import Role

_GAP: Final = 2


class Answer(NamedTuple):
    """One answer: `id` is what is reported, `key` the letter shown before its word."""

    id: str
    key: str
    word: str
    role: Role = Role.ACCENT
    enabled: bool = True


class ChoiceBar(Widget, can_focus=True):
    """Answers in a line, one of them under the cursor; arrows move, enter or a click chooses."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h,shift+tab", "move(-1)", show=False),
        Binding("right,l,tab", "move(1)", show=False),
        Binding("enter,space", "choose", show=False),
    ]

    class Chosen(Message):
        """An answer was chosen."""

        def __init__(self, answer_id: str) -> None:
            super().__init__()
            self.answer_id = answer_id

    def __init__(self, answers: Sequence[Answer], *, cursor: int = 0, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._answers = tuple(answers)
        self._cursor = cursor

    @property
    def answer(self) -> Answer:
        """The answer under the cursor."""
        return self._answers[self._cursor]

    def show(self, answers: Sequence[Answer]) -> None:
        """Show other answers."""
        self._answers = tuple(answers)
        self._cursor = max(0, min(self._cursor, len(self._answers) - 1))
        self.refresh()

    def render(self) -> Content:
        """Draw the answers; the one under the cursor stands on the selection's colour."""
        parts: list[Content | str] = []
        for index, answer in enumerate(self._answers):
            key, word = ("bold $" + answer.role, "$text") if answer.enabled else ("$muted", "$muted")
            if self.has_focus and index == self._cursor:
                # One colour on the cursor: where a theme shows its selection reversed, two would make two grounds.
                key = word = "bold $text on $selection $selection-style"
            parts += [
                "" if index == 0 else " " * _GAP,
                Content.styled(f" {answer.key} ", key),
                Content.styled(f"{answer.word} ", word),
            ]
        return Content("").join(parts)

    def action_move(self, by: int) -> None:
        """Go to the next answer, round and round."""
        self._cursor = (self._cursor + by) % len(self._answers)
        self.refresh()

    def action_choose(self) -> None:
        """Choose the answer under the cursor."""
        self._choose(self.answer)

    def watch_has_focus(self, has_focus: bool) -> None:
        """Show the cursor only while keys reach it."""
        super().watch_has_focus(has_focus)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked."""
        event.stop()
        at = 0
        for answer in self._answers:
            width = cell_len(answer.key) + cell_len(answer.word) + 3
            if at <= event.x < at + width:
                self._choose(answer)
            at += width + _GAP

    def _choose(self, answer: Answer) -> None:
        if answer.enabled:
            self.post_message(self.Chosen(answer.id))
