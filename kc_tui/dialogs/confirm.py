"""The question before something is done: yes or no, or the name of what would be destroyed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from kc_tui.commands.command import Command, Danger, Subject
from kc_tui.dialogs.base import Dialog
from kc_tui.state.formatting import join_words, pluralise
from kc_tui.state.roles import Role
from kc_tui.widgets.choice_bar import Answer, ChoiceBar
from kc_tui.widgets.line_input import LineInput

_NAMES_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: `title` the question, `consequence` what follows from a yes, `verb` the word of the yes.

    `names` are the objects concerned. With `Danger.TYPE_NAME` the yes is the name typed, or of several their number. A
    yes that `is_harmless` is under the cursor.
    """

    title: str
    consequence: str
    verb: str
    names: tuple[str, ...] = ()
    danger: Danger = Danger.CONFIRM
    keep: str = "cancel"
    is_harmless: bool = False

    @property
    def expected(self) -> str:
        """What must be typed for a yes; empty where a key will do."""
        if self.danger is not Danger.TYPE_NAME or not self.names:
            return ""
        return self.names[0] if len(self.names) == 1 else str(len(self.names))


def ask_about(command: Command, subjects: Sequence[Subject], consequence: str, noun: str = "VM") -> Question | None:
    """Return the question that a command needs before it acts on subjects; None where it needs none.

    What is harmless for one object is still asked for several, with their names.
    """
    names = tuple(subject.name for subject in subjects)
    danger = max(command.danger, Danger.CONFIRM if len(names) > 1 else Danger.NONE)
    if danger is Danger.NONE:
        return None
    verb = command.label
    whom = names[0] if len(names) == 1 else pluralise(len(names), noun)
    return Question(f"{verb.capitalize()} {whom}?", consequence, verb, names, Danger(danger))


class ConfirmDialog(Dialog[bool]):
    """Ask a `Question`; the result is True only for a yes. The answer under the cursor is the harmless one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer_key('yes')", show=False),
        Binding("n", "answer_key('no')", show=False),
    ]

    def __init__(self, question: Question) -> None:
        super().__init__()
        self._question = question
        self._input = LineInput()
        answers = self._make_answers(armed=not question.expected)
        self._answers = ChoiceBar(answers, cursor=0 if question.is_harmless else 1)

    def compose(self) -> ComposeResult:
        """Lay out what follows, whom it concerns, and the answers."""
        question = self._question
        with Vertical(classes="dialog -danger" if question.danger is Danger.TYPE_NAME else "dialog") as panel:
            panel.border_title = Content(question.title)
            yield Static(Content(question.consequence), classes="dialog-text")
            if len(question.names) > 1:
                names = Content.styled(join_words(question.names, _NAMES_SHOWN), "$muted")
                yield Static(names, classes="dialog-text dialog-gap")
            if question.expected:
                what = "the number of them" if len(question.names) > 1 else "its name"
                line = Content.assemble(
                    (f"Type {what}, ", "$muted"),
                    (question.expected, "bold $text"),
                    (f", to {question.verb}:", "$muted"),
                )
                yield Static(line, classes="dialog-text dialog-gap")
                with Horizontal(classes="dialog-typed"):
                    yield Static(">", markup=False)
                    yield self._input
            yield self._answers

    def on_mount(self) -> None:
        """Put the focus where the answer is given."""
        self.set_focus(self._input if self._question.expected else self._answers)

    def action_answer_key(self, answer: str) -> None:
        """Take a letter for an answer; where a name is to be typed it may be the name's first, and is none."""
        if not self._question.expected:
            self._take(answer)

    def _make_answers(self, *, armed: bool) -> tuple[Answer, Answer]:
        question = self._question
        role = Role.DANGER if question.danger is Danger.TYPE_NAME else Role.ACCENT
        keys = ("enter", "esc") if question.expected else ("y", "n")
        return Answer("yes", keys[0], question.verb, role, armed), Answer("no", keys[1], question.keep, Role.ACCENT)

    @property
    def is_armed(self) -> bool:
        """Whether a yes would be taken: what had to be typed has been."""
        return self._input.value == self._question.expected

    @on(Input.Changed)
    def _arm(self, event: Input.Changed) -> None:
        event.stop()
        self._answers.show(self._make_answers(armed=self.is_armed))

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        self._take("yes")

    @on(ChoiceBar.Chosen)
    def _answer(self, event: ChoiceBar.Chosen) -> None:
        event.stop()
        self._take(event.answer_id)

    def _take(self, answer: str) -> None:
        if answer == "no":
            self.action_leave()
        elif self.is_armed:
            self.dismiss(result=True)
