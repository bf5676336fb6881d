"""An error, or news, as a person can use it: what, why, what to do next, and the details to copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from backend.errors import KCError
from backend.text import sanitise, sanitise_lines
from kc_tui.clipboard import CopyRequested
from kc_tui.dialogs.base import Dialog
from kc_tui.widgets.choice_bar import Answer, ChoiceBar


@dataclass(frozen=True, slots=True)
class Report:
    """What went wrong: `what` names the thing, `why` the cause, `hint` the next step, `details` all there is.

    `copied` is what is copied in the place of all of it; news that are no error are not shown as danger.
    """

    what: str
    why: str
    hint: str = ""
    details: str = ""
    copied: str = ""
    is_error: bool = True

    @classmethod
    def of(cls, error: KCError) -> Report:
        """Return the report of one of KC's errors, fit for a terminal."""
        details = json.dumps(error.details, indent=2, ensure_ascii=False, default=str) if error.details else ""
        return cls(sanitise(error.what), sanitise(error.why), sanitise(error.hint), sanitise_lines(details))

    @property
    def text(self) -> str:
        """All of it, to be copied."""
        lines = (f"{self.what}: {self.why}", self.hint, self.details)
        return self.copied or "\n".join(line for line in lines if line)


class MessageDialog(Dialog[None]):
    """Show a `Report`; `y` copies it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", show=False),
        Binding("q", "leave", show=False),
        Binding("down,j", "scroll_details(1)", show=False),
        Binding("up,k", "scroll_details(-1)", show=False),
    ]

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._answers = ChoiceBar((Answer("close", "esc", "close"), Answer("copy", "y", "copy")))

    def compose(self) -> ComposeResult:
        """Lay out the cause, the next step and the details."""
        report = self._report
        with Vertical(classes="dialog -danger" if report.is_error else "dialog") as panel:
            panel.border_title = Content(report.what)
            yield Static(Content(_as_sentence(report.why)), classes="dialog-text")
            if report.hint:
                yield Static(Content.styled(_as_sentence(report.hint), "$accent"), classes="dialog-text dialog-gap")
            if report.details:
                with VerticalScroll(classes="dialog-details", can_focus=False):
                    yield Static(Content.styled(report.details, "$muted"), classes="dialog-text")
            yield self._answers

    def on_mount(self) -> None:
        """Let enter close it."""
        self.set_focus(self._answers)

    @on(ChoiceBar.Chosen)
    def _answer(self, event: ChoiceBar.Chosen) -> None:
        event.stop()
        if event.answer_id == "copy":
            self.action_copy()
        else:
            self.action_leave()

    def action_copy(self) -> None:
        """Put all of it on the clipboard."""
        self.post_message(CopyRequested(self._report.text, self._report.copied or "the error"))

    def action_scroll_details(self, lines: int) -> None:
        """Scroll the details."""
        for details in self.query(VerticalScroll):
            details.scroll_relative(y=lines, animate=False)


def _as_sentence(text: str) -> str:
    closed = text if not text or text[-1] in ".!?:" else f"{text}."
    return closed[:1].upper() + closed[1:]
