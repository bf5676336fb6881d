"""What the questions before a deed share: what follows, whom it concerns, and a name to type where much is at stake."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from kc_tui.dialogs.base import Dialog, Result
from kc_tui.state.formatting import join_words
from kc_tui.widgets.choice_bar import Answer, ChoiceBar
from kc_tui.widgets.line_input import LineInput

_NAMES_SHOWN: Final = 8


def expect(names: Sequence[str]) -> str:
    """Return what must be typed for a deed upon objects: the name of one, the number of several; empty for none."""
    if not names:
        return ""
    return names[0] if len(names) == 1 else str(len(names))


class ProofDialog(Dialog[Result]):
    """A question upon `names`; while `needs_proof`, the yes is what `expect` says, typed. Letters answer otherwise."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer_key('yes')", show=False),
        Binding("n", "answer_key('no')", show=False),
    ]

    def __init__(self, title: str, names: tuple[str, ...], deed: str, *, cursor: int = 1) -> None:
        super().__init__()
        self._title = title
        self._names = names
        self._deed = deed
        self._text = Static(markup=False, classes="dialog-text")
        self._input = LineInput()
        self._answers = ChoiceBar((), cursor=cursor)

    @property
    @abstractmethod
    def consequence(self) -> str:
        """What follows from a yes."""

    @property
    @abstractmethod
    def needs_proof(self) -> bool:
        """Whether a name, or a number, is to be typed."""

    @abstractmethod
    def make_answers(self) -> Sequence[Answer]:
        """Return the answers; `yes` and `no` are among them."""

    @abstractmethod
    def take(self, answer: str) -> None:
        """Take an answer other than no; a yes has been proved."""

    def compose(self) -> ComposeResult:
        """Lay out what follows, whom it concerns, the line to type into, and the answers."""
        with Vertical(classes="dialog") as panel:
            panel.border_title = Content(self._title)
            yield self._text
            if len(self._names) > 1:
                names = Content.styled(join_words(self._names, _NAMES_SHOWN), "$muted")
                yield Static(names, classes="dialog-text dialog-gap")
            what = "the number of them" if len(self._names) > 1 else "its name"
            line = Content.assemble(
                (f"Type {what}, ", "$muted"), (expect(self._names), "bold $text"), (f", to {self._deed}:", "$muted")
            )
            with Vertical(classes="dialog-proof"):
                yield Static(line, classes="dialog-text dialog-gap")
                with Horizontal(classes="dialog-typed"):
                    yield Static(">", markup=False)
                    yield self._input
            yield self._answers

    def on_mount(self) -> None:
        """Show it, with the focus where the answer is given."""
        self.show()

    def show(self) -> None:
        """Show what follows from a yes as it is now."""
        self.query_one(".dialog").set_class(self.needs_proof, "-danger")
        self.query_one(".dialog-proof").display = self.needs_proof
        self._text.update(Content(self.consequence))
        self._answers.show(self.make_answers())
        self.set_focus(self._input if self.needs_proof else self._answers)

    @property
    def is_armed(self) -> bool:
        """Whether a yes would be taken: what had to be typed has been."""
        return not self.needs_proof or self._input.value == expect(self._names)

    def action_answer_key(self, answer: str) -> None:
        """Take a letter for an answer; where a name is to be typed it may be the name's first, and is none."""
        if not self.needs_proof:
            self._answer(answer)

    @on(Input.Changed)
    def _arm(self, event: Input.Changed) -> None:
        event.stop()
        self._answers.show(self.make_answers())

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        self._answer("yes")

    @on(ChoiceBar.Chosen)
    def _choose(self, event: ChoiceBar.Chosen) -> None:
        event.stop()
        self._answer(event.answer_id)

    def _answer(self, answer: str) -> None:
        if answer == "no":
            self.action_leave()
        elif answer != "yes" or self.is_armed:
            self.take(answer)
