"""What the pages of a wizard share, and the line of steps above them."""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from kc_tui.commands import BarEntry
from kc_tui.screens.drawing import draw_runs
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.roles import Role
from kc_tui.state.table import Run, measure
from kc_tui.state.wizard import Mark, Step


class StepLine(Widget):
    """The wizard's title and its steps: done, now, ahead."""

    def __init__(self, title: str, glyphs: Glyphs) -> None:
        super().__init__()
        self._title = title
        self._glyphs = glyphs
        self._marks: tuple[tuple[Step, Mark], ...] = ()

    def show(self, marks: tuple[tuple[Step, Mark], ...]) -> None:
        """Show where one stands."""
        self._marks = marks
        self.refresh()

    def render(self) -> Content:
        """Draw the steps; where room is short only the present one keeps its title."""
        for gap, has_titles in ((3, True), (1, True), (1, False)):
            runs = self._draw(gap, has_titles=has_titles)
            if measure(runs) <= self.size.width:
                break
        return draw_runs(runs)

    def _draw(self, gap: int, *, has_titles: bool) -> list[Run]:
        glyphs = self._glyphs
        looks = {
            Mark.DONE: (glyphs.step_done, Role.OK, Role.MUTED),
            Mark.NOW: (glyphs.step_now, Role.ACCENT, Role.STRONG),
            Mark.AHEAD: (glyphs.step_ahead, Role.MUTED, Role.MUTED),
        }
        runs = [Run(f" {self._title}   ", Role.ACCENT)]
        for index, (step, mark) in enumerate(self._marks):
            sign, sign_role, text_role = looks[mark]
            if index:
                runs.append(Run(f" {glyphs.rule * gap} ", Role.MUTED))
            runs.append(Run(sign, sign_role))
            if has_titles or mark is Mark.NOW:
                runs.append(Run(f" {step.title}", text_role))
        return runs


class Page(Vertical):
    """One page: it tells its wizard what was chosen, and which keys it has."""

    class Finished(Message):
        """The page is done: the next one is wanted."""

    class KeysChanged(Message):
        """The page has other keys now."""

    class Refused(Message):
        """A key did nothing; `reason` says why."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    def enter(self) -> None:
        """Come to the front: show what is known now, and take the focus."""
        raise NotImplementedError

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        raise NotImplementedError

    def documents_changed(self) -> None:
        """Show what changed in what can be chosen."""

    def show_error(self, field: str, text: str) -> None:
        """Show an error beside the field that it belongs to, or for the whole page where `field` is empty."""

    def leave(self) -> bool:
        """Take something of the page back, such as its filter; return whether there was anything."""
        return False

    def back(self) -> bool:
        """Go back within the page; return whether that was possible."""
        return False

    def submit(self) -> None:
        """Do what enter does."""
        self.post_message(self.Finished())

    def press(self, key: str) -> None:
        """Do what one of the page's own keys means, by its character or by the name in the key bar."""
