"""A VM's serial console, filling the screen."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content

from backend.errors import KCError
from kc_tui.commands import BarEntry, Scope
from kc_tui.console_link import ConsoleLink
from kc_tui.dialogs.confirm import ConfirmDialog, Question
from kc_tui.screens.session_screen import SessionScreen
from kc_tui.session import Session
from kc_tui.state.formatting import pluralise
from kc_tui.state.operations import as_sentence
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.terminal import BACKLOG_LIMIT, Terminal


class ConsoleScreen(SessionScreen):
    """The console; every key but ctrl-] goes to the guest, until the stream ends."""

    SCOPES = frozenset({Scope.CONSOLE})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "retry", show=False),
        Binding("escape,q,ctrl+right_square_bracket", "leave", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session)
        self.vm_name = name
        self.terminal = Terminal()
        self.link: ConsoleLink | None = None
        self.end_reason = ""
        self._is_first = True

    def compose(self) -> ComposeResult:
        """Lay out the terminal and the line below it."""
        with Vertical(classes="whole"):
            yield self.terminal
            yield KeyBar()

    def on_mount(self) -> None:
        """Connect."""
        self._connect()

    def on_unmount(self) -> None:
        """Let go of the console."""
        if self.link is not None:
            self.link.close()

    def refresh_keys(self) -> None:
        """Show the keys that are not the guest's."""
        if self.end_reason:
            entries = [BarEntry("retry", "enter", "open it again", 1), BarEntry("leave", "esc", "back", 2)]
        else:
            entries = [
                BarEntry("leave", "^]", "leave", 1),
                BarEntry("", "shift-pgup", "scroll back", 2),
                BarEntry("", "any other key", "goes to the guest", 3),
            ]
        for bar in self.query(KeyBar):
            bar.show(entries)

    def _connect(self) -> None:
        self.end_reason = ""
        self._is_first = True
        self.terminal.can_focus = True
        self.terminal.focus()
        self._set_title("connecting")
        self.link = self.session.gateway.open_console(self.vm_name, self._show, self._end)
        self.refresh_keys()

    def _set_title(self, state: str = "") -> None:
        parts: list[tuple[str, str]] = [(f" {self.vm_name}", "bold"), (" · console ", "")]
        if state:
            parts.append((f" {state} ", "$warn"))
        self.terminal.title = Content.assemble(*parts)

    def _show(self, data: bytes) -> None:
        if self._is_first:
            self._set_title()
        # What comes first was said before: questions in it are of another time, and so would the answers be.
        self.terminal.write(data, answer=not self._is_first)
        self._is_first = False
        if self.link is not None and self.terminal.backlog > BACKLOG_LIMIT:
            self.link.pause()

    def _end(self, error: KCError | None) -> None:
        self.end_reason = "The guest has ended it." if error is None else as_sentence(f"{error.what}: {error.why}")
        self._set_title(self.end_reason)
        self.terminal.can_focus = False
        self.set_focus(None)
        self.refresh_keys()

    @on(Terminal.Drained)
    def _read_on(self) -> None:
        if self.link is not None:
            self.link.resume()

    @on(Terminal.Input)
    def _send(self, event: Terminal.Input) -> None:
        event.stop()
        if self.link is not None and not self.end_reason:
            self.link.send(event.data)

    @on(Terminal.Leave)
    def _leave(self) -> None:
        self.action_leave()

    @on(Terminal.PasteRequested)
    def _confirm_paste(self, event: Terminal.PasteRequested) -> None:
        event.stop()
        count = event.text.rstrip("\n").count("\n") + 1
        consequence = f"The guest gets {pluralise(count, 'line')} at once, as if typed."
        question = Question(f"Paste into {self.vm_name}?", consequence, "paste")
        text = event.text
        self.app.push_screen(ConfirmDialog(question), lambda yes: self.terminal.paste(text) if yes else None)

    @on(KeyBar.Pressed)
    def _press(self, event: KeyBar.Pressed) -> None:
        event.stop()
        if event.command_id == "leave":
            self.action_leave()
        elif event.command_id == "retry":
            self.action_retry()

    def action_retry(self) -> None:
        """Connect again after the end."""
        if self.end_reason:
            self._connect()

    def action_leave(self) -> None:
        """Go back to where one came from."""
        if self.link is not None:
            self.link.close()
        self.app.pop_screen()
