"""The question before documents change: the difference, and what it does on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content

from backend.model.changes import Change
from kc_tui.dialogs.base import Dialog
from kc_tui.state.differences import count_changes, draw_changes, wrap
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.lines import BLANK, Line, heading, join_parts
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.widgets.choice_bar import Answer, ChoiceBar
from kc_tui.widgets.line_view import LineView

YES: Final = "yes"
AGAIN: Final = "again"
_WIDEST: Final = 104
_FRAME_COLUMNS: Final = 6
_FRAME_LINES: Final = 6
"""Border, padding, the answers and the space above them."""


@dataclass(frozen=True, slots=True)
class Part:
    """What would become of one object, fit for a terminal; `notice` says what happened to it meanwhile."""

    name: str
    changes: Sequence[Change]
    effects: Sequence[str]
    notice: str = ""


@dataclass(frozen=True, slots=True)
class ChangeQuestion:
    """What is asked: `verb` is the word of the yes, `again` that of a third answer, if there is one."""

    title: str
    verb: str
    parts: tuple[Part, ...]
    again: str = ""


def draw_parts(parts: Sequence[Part], width: int, glyphs: Glyphs, *, is_short: bool = False) -> list[Line]:
    """Return the differences and their effects as lines; each object's name before its own where there are several.

    Where there is but little room (`is_short`) the effects come first.
    """
    named = len(parts) > 1
    return join_parts(_draw_part(part, width, glyphs, is_named=named, is_short=is_short) for part in parts)


def _draw_part(part: Part, width: int, glyphs: Glyphs, *, is_named: bool, is_short: bool) -> list[Line]:
    top: list[Line] = []
    if is_named:
        top.append((Run(part.name, Role.STRONG), Run("   "), *count_changes(part.changes, glyphs)))
    if part.notice:
        top += [*wrap(f"{glyphs.attention} ", Role.WARN, part.notice, Role.WARN, width), BLANK]
    changes, effects = draw_changes(part.changes, width, glyphs), _draw_effects(part, width, glyphs)
    if not changes and not effects:
        return [*top, (Run("Nothing in it would change.", Role.MUTED),)]
    return [*top, *join_parts((effects, changes) if is_short else (changes, effects))]


def _draw_effects(part: Part, width: int, glyphs: Glyphs) -> list[Line]:
    if not part.effects:
        return [(Run("Nothing changes on the host.", Role.MUTED),)] if part.changes else []
    lines: list[Line] = [heading("On the host")]
    for effect in part.effects:
        lines += wrap(f"{glyphs.dot} ", Role.MUTED, effect, Role.TEXT, width)
    return lines


class ChangeDialog(Dialog[str]):
    """Show what would change; enter does it. The result is `YES`, `AGAIN` or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_lines(1)", show=False),
        Binding("up,k", "scroll_lines(-1)", show=False),
        Binding("pagedown,ctrl+d", "scroll_lines(8)", show=False),
        Binding("pageup,ctrl+u", "scroll_lines(-8)", show=False),
        Binding("e", "again", show=False),
    ]

    def __init__(self, question: ChangeQuestion, *, glyphs: Glyphs = UNICODE) -> None:
        super().__init__()
        self._question = question
        self._glyphs = glyphs
        self._view = LineView(glyphs=glyphs, can_focus=False)
        answers = [Answer(YES, "enter", question.verb), Answer("no", "esc", "leave")]
        if question.again:
            answers.insert(1, Answer(AGAIN, "e", question.again))
        self._answers = ChoiceBar(answers)

    def compose(self) -> ComposeResult:
        """Lay out the difference and the answers."""
        with Vertical(classes="dialog") as panel:
            panel.border_title = Content(self._question.title)
            yield self._view
            yield self._answers

    def on_mount(self) -> None:
        """Show the difference; enter is at hand."""
        self._fit()
        self._view.show(lambda width: draw_parts(self._question.parts, width, self._glyphs))
        self.set_focus(self._answers)

    def on_resize(self) -> None:
        """Take the room there is."""
        self._fit()

    def _fit(self) -> None:
        columns, rows = self.app.size
        width = min(_WIDEST, columns)
        lines = draw_parts(self._question.parts, width - _FRAME_COLUMNS - 1, self._glyphs)
        room = max(3, rows - _FRAME_LINES)
        self.query_one(".dialog").styles.width = width
        self._view.styles.height = min(room, len(lines))
        if len(lines) > room:
            self.query_one(".dialog", Vertical).border_subtitle = Content("j k scroll")

    def action_scroll_lines(self, lines: int) -> None:
        """Scroll the difference."""
        self._view.scroll_relative(y=lines, animate=False)

    def action_again(self) -> None:
        """Give the third answer, where there is one."""
        if self._question.again:
            self.dismiss(AGAIN)

    @on(ChoiceBar.Chosen)
    def _answer(self, event: ChoiceBar.Chosen) -> None:
        event.stop()
        if event.answer_id == "no":
            self.action_leave()
        else:
            self.dismiss(event.answer_id)
