"""The question before something is deleted: to the trash, or, where the user wants it so, for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from textual.binding import Binding, BindingType

from kc_tui.dialogs.proof import ProofDialog
from kc_tui.state.roles import Role
from kc_tui.widgets.choice_bar import Answer

TRASH: Final = "trash"
NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class DeleteQuestion:
    """What is asked: what follows from a deletion to the trash and from one for good.

    `names` are the objects concerned; one for good wants their name typed, or of several their number. An empty
    `to_trash` says that there is no grace time.
    """

    title: str
    to_trash: str
    for_good: str
    names: tuple[str, ...]


class DeleteDialog(ProofDialog[str]):
    """Ask a `DeleteQuestion`; the result is `TRASH`, `NOW` or None. Tab goes from one way to the other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the answers, which have it to go round, and before the line that one types into.
        Binding("tab,shift+tab", "switch", show=False, priority=True),
    ]

    def __init__(self, question: DeleteQuestion) -> None:
        super().__init__(question.title, question.names, "delete for good")
        self._question = question
        self.is_now = not question.to_trash

    @property
    def consequence(self) -> str:
        """What follows from the way that is shown."""
        return self._question.for_good if self.is_now else self._question.to_trash

    @property
    def needs_proof(self) -> bool:
        """Whether it is for good."""
        return self.is_now

    def make_answers(self) -> tuple[Answer, ...]:
        """Return the way that is shown, the way out, and the other way."""
        if not self.is_now:
            yes = Answer("yes", "y", "to the trash")
            return yes, Answer("no", "n", "cancel"), Answer("switch", "tab", "for good instead")
        yes = Answer("yes", "enter", "delete for good", Role.DANGER, self.is_armed)
        back = (Answer("switch", "tab", "to the trash"),) if self._question.to_trash else ()
        return yes, Answer("no", "esc", "cancel"), *back

    def action_switch(self) -> None:
        """Go from the trash to for good, or back."""
        if self._question.to_trash:
            self.is_now = not self.is_now
            self.show()

    def take(self, answer: str) -> None:
        """Answer, or go to the other way."""
        if answer == "switch":
            self.action_switch()
        else:
            self.dismiss(NOW if self.is_now else TRASH)
