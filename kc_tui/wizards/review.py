"""The last page: what will be made, and the command that does the same; nothing happens before its enter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from kc_tui.commands import BarEntry
from kc_tui.screens.drawing import draw_lines, draw_runs
from kc_tui.state.create_vm_review import Switch
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import Line
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.wizards.page import Page


class Switches(Widget, can_focus=True):
    """Lines that can be switched on and off."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("space", "switch", show=False),
    ]

    class Toggled(Message):
        """A line was switched."""

        def __init__(self, switch_id: str) -> None:
            super().__init__()
            self.switch_id = switch_id

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._switches: tuple[Switch, ...] = ()
        self._cursor = 0

    def show(self, switches: Sequence[Switch]) -> None:
        """Show these lines."""
        self._switches = tuple(switches)
        self._cursor = max(0, min(self._cursor, len(self._switches) - 1))
        self.styles.height = len(self._switches)
        self.refresh(layout=True)

    def render(self) -> Content:
        """Draw the lines."""
        lines = []
        for index, switch in enumerate(self._switches):
            is_here = self.has_focus and index == self._cursor
            mark = self._glyphs.mark if switch.is_on else " "
            runs = [
                Run(f"{self._glyphs.cursor if is_here else ' '} ", Role.ACCENT),
                Run("[", Role.MUTED),
                Run(mark, Role.ACCENT),
                Run("] ", Role.MUTED),
                Run(switch.text, Role.TEXT if switch.is_on else Role.MUTED),
                Run(f"  {switch.remark}", Role.MUTED),
            ]
            lines.append(draw_runs(runs))
        return Content("\n").join(lines)

    def action_move(self, by: int) -> None:
        """Go to another line."""
        self._cursor = max(0, min(self._cursor + by, len(self._switches) - 1))
        self.refresh()

    def action_switch(self) -> None:
        """Switch the line under the cursor."""
        if self._switches:
            self.post_message(self.Toggled(self._switches[self._cursor].id))

    def watch_has_focus(self, has_focus: bool) -> None:
        """Show the cursor only while keys reach it."""
        super().watch_has_focus(has_focus)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Switch what was clicked."""
        event.stop()
        if event.y < len(self._switches):
            self._cursor = event.y
            self.action_switch()


class ReviewPage(Page):
    """What was chosen, what will be made on the host, and the equivalent command."""

    class CopyAsked(Message):
        """The command is wanted on the clipboard."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="page-review")
        self._text = Static(markup=False)
        self.switches = Switches(glyphs)
        self._command = Static(markup=False, classes="command")
        self._status = Static(markup=False, classes="page-error")
        self.command_text = ""
        self.error = ""

    def compose(self) -> ComposeResult:
        """Lay out essentials, switches, command and what stands against it."""
        with VerticalScroll(can_focus=False):
            yield self._text
            yield self.switches
            yield self._command
        yield self._status

    def enter(self) -> None:
        """Take the focus, so that enter is the last one."""
        self.screen.set_focus(self.switches)

    def show(self, lines: Sequence[Line], switches: Sequence[Switch], words: Sequence[str]) -> None:
        """Show what would be made, and the words of the command."""
        self._text.update(draw_lines(lines))
        self.switches.show(switches)
        self.command_text = " ".join(words)
        self._command.update(draw_lines(self._break_command(words)))

    def _break_command(self, words: Sequence[str]) -> list[Line]:
        """Return the command in lines that fit, broken between words as a shell takes it."""
        room = max(20, self.app.size.width - 10)
        lines: list[str] = []
        for word in words:
            if lines and len(lines[-1]) + 1 + len(word) <= room:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        last = len(lines) - 1
        return [
            (
                Run("$ " if index == 0 else "    ", Role.MUTED),
                Run(line, Role.TEXT),
                Run(" \\" if index < last else "", Role.MUTED),
            )
            for index, line in enumerate(lines)
        ]

    def say(self, text: str) -> None:
        """Say what is being done."""
        self.error = ""
        self._status.update(Content.styled(text, "$muted"))

    def show_error(self, field: str, text: str) -> None:
        """Say what stands against it."""
        del field
        self.error = text
        self._status.update(Content.styled(text, "$danger"))

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        return (
            BarEntry("enter", "enter", "create", 1),
            BarEntry("toggle", "space", "switch", 4),
            BarEntry("copy", "y", "copy the command", 3),
            BarEntry("back", "shift-tab", "back", 5),
            BarEntry("leave", "esc", "leave (draft is kept)", 2),
        )

    def press(self, key: str) -> None:
        """Switch, or copy the command."""
        if key == "toggle":
            self.switches.action_switch()
        elif key == "copy":
            self.post_message(self.CopyAsked())

    def on_key(self, event: events.Key) -> None:
        """Create, or copy the command."""
        if event.key == "enter":
            self.post_message(self.Finished())
        elif event.key == "y":
            self.post_message(self.CopyAsked())
        else:
            return
        event.stop()
        event.prevent_default()
