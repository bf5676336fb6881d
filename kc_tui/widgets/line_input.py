"""One line that one types into, without a box; its cursor does not blink."""

from __future__ import annotations

from textual.widgets import Input


class LineInput(Input):
    """Textual's input as KC shows it."""

    def __init__(self, value: str = "", *, placeholder: str = "", id: str | None = None) -> None:  # noqa: A002 - Textual's
        super().__init__(value, placeholder=placeholder, compact=True, select_on_focus=False, id=id)
        # A blinking cursor would write to the terminal for ever, and move what should be calm.
        self.cursor_blink = False
