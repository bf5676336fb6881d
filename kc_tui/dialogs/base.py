"""What all dialogs share: one panel, Esc leads out."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

Result = TypeVar("Result")


class Dialog(ModalScreen[Result | None], Generic[Result], inherit_bindings=False):
    """A question over the screen; its result is None where the user left without an answer.

    Esc and a click beside the panel leave. Compose one container with the class `dialog`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """Leave on a click beside the panel."""
        widget, _ = self.get_widget_at(event.screen_x, event.screen_y)
        if widget is self:
            self.action_leave()
