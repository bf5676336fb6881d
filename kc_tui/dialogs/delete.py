"""The question before something is deleted: to the trash, or, where the user wants it so, for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from kc_tui.dialogs.base import Dialog
from kc_tui.state.formatting import join_words
from kc_tui.state.roles import Role
from kc_tui.widgets.choice_bar import Answer, ChoiceBar
from kc_tui.widgets.line_input import LineInput

TRASH: Final = "trash"
NOW: Final = "now"
_NAMES_SHOWN: Final = 8


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

    @property
    def expected(self) -> str:
        """What must be typed for a deletion for good."""
        return self.names[0] if len(self.names) == 1 else str(len(self.names))


class DeleteDialog(Dialog[str]):
    """Ask a `DeleteQuestion`; the result is `TRASH`, `NOW` or None. Tab goes from one way to the other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer_key('yes')", show=False),
        Binding("n", "answer_key('no')", show=False),
        # Before the answers, which have it to go round, and before the line that one types into.
        Binding("tab,shift+tab", "switch", show=False, priority=True),
    ]

    def __init__(self, question: DeleteQuestion) -> None:
        super().__init__()
        self._question = question
        self.is_now = not question.to_trash
        self._text = Static(markup=False, classes="dialog-text")
        self._input = LineInput()
        self._answers = ChoiceBar(self._make_answers(), cursor=1)

    def compose(self) -> ComposeResult:
        """Lay out what follows, whom it concerns, and the answers."""
        question = self._question
        with Vertical(classes="dialog") as panel:
            panel.border_title = Content(question.title)
            yield self._text
            if len(question.names) > 1:
                names = Content.styled(join_words(question.names, _NAMES_SHOWN), "$muted")
                yield Static(names, classes="dialog-text dialog-gap")
            what = "the number of them" if len(question.names) > 1 else "its name"
            line = Content.assemble(
                (f"Type {what}, ", "$muted"), (question.expected, "bold $text"), (", to delete for good:", "$muted")
            )
            with Vertical(classes="dialog-proof"):
                yield Static(line, classes="dialog-text dialog-gap")
                with Horizontal(classes="dialog-typed"):
                    yield Static(">", markup=False)
                    yield self._input
            yield self._answers

    def on_mount(self) -> None:
        """Show the harmless way."""
        self._show()

    def _make_answers(self) -> tuple[Answer, ...]:
        question = self._question
        if not self.is_now:
            yes = Answer("yes", "y", "to the trash")
            return yes, Answer("no", "n", "cancel"), Answer("switch", "tab", "for good instead")
        yes = Answer("yes", "enter", "delete for good", Role.DANGER, self.is_armed)
        back = (Answer("switch", "tab", "to the trash"),) if question.to_trash else ()
        return yes, Answer("no", "esc", "cancel"), *back

    @property
    def is_armed(self) -> bool:
        """Whether a yes would be taken: what had to be typed has been."""
        return not self.is_now or self._input.value == self._question.expected

    def _show(self) -> None:
        panel = self.query_one(".dialog")
        panel.set_class(self.is_now, "-danger")
        self.query_one(".dialog-proof").display = self.is_now
        self._text.update(Content(self._question.for_good if self.is_now else self._question.to_trash))
        self._answers.show(self._make_answers())
        self.set_focus(self._input if self.is_now else self._answers)

    def action_switch(self) -> None:
        """Go from the trash to for good, or back."""
        if self._question.to_trash:
            self.is_now = not self.is_now
            self._show()

    def action_answer_key(self, answer: str) -> None:
        """Take a letter for an answer; where a name is to be typed it may be the name's first, and is none."""
        if not self.is_now:
            self._take(answer)

    @on(Input.Changed)
    def _arm(self, event: Input.Changed) -> None:
        event.stop()
        self._answers.show(self._make_answers())

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
        elif answer == "switch":
            self.action_switch()
        elif self.is_armed:
            self.dismiss(NOW if self.is_now else TRASH)
