"""The question before something is done: yes or no, or the name of what would be destroyed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kc_tui.commands.command import Command, Danger, Subject
from kc_tui.dialogs.proof import ProofDialog, expect
from kc_tui.state.formatting import pluralise
from kc_tui.state.roles import Role
from kc_tui.widgets.choice_bar import Answer


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
        return expect(self.names) if self.danger is Danger.TYPE_NAME else ""


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


class ConfirmDialog(ProofDialog[bool]):
    """Ask a `Question`; the result is True only for a yes. The answer under the cursor is the harmless one."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.title, question.names, question.verb, cursor=0 if question.is_harmless else 1)
        self._question = question

    @property
    def consequence(self) -> str:
        """What follows from a yes."""
        return self._question.consequence

    @property
    def needs_proof(self) -> bool:
        """Whether the danger is such that a name is to be typed."""
        return bool(self._question.expected)

    def make_answers(self) -> tuple[Answer, ...]:
        """Return the yes and the no."""
        question = self._question
        role = Role.DANGER if question.danger is Danger.TYPE_NAME else Role.ACCENT
        keys = ("enter", "esc") if self.needs_proof else ("y", "n")
        yes = Answer("yes", keys[0], question.verb, role, self.is_armed)
        return yes, Answer("no", keys[1], question.keep, Role.ACCENT)

    def take(self, _answer: str) -> None:
        """Say yes."""
        self.dismiss(result=True)
