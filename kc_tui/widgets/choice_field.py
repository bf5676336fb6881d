"""A choice among few, in one line: the arrows go through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget


class ChoiceField(Widget, can_focus=True):
    """One of `options`; `labels` are shown in their place. Left and right, or space, go through them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "turn(-1)", show=False),
        Binding("right,l,space", "turn(1)", show=False),
        Binding("enter", "submit", show=False),
    ]

    class Changed(Message):
        """Another option was chosen."""

        def __init__(self, field: ChoiceField, value: str) -> None:
            super().__init__()
            self.field = field
            self.value = value

        @property
        def control(self) -> ChoiceField:
            """The field."""
            return self.field

    class Submitted(Message):
        """Enter was pressed."""

    def __init__(
        self,
        options: Sequence[str],
        value: str,
        *,
        labels: Mapping[str, str] | None = None,
        id: str | None = None,  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(id=id)
        self._options = tuple(options)
        self._labels = dict(labels or {})
        self.value = value if value in self._options else self._options[0]

    def render(self) -> Content:
        """Draw the chosen option between two arrows."""
        label = self._labels.get(self.value, self.value)
        arrows = "$accent" if self.has_focus else "$muted"
        text = "bold $text" if self.has_focus else "$text"
        return Content.assemble(("‹ ", arrows), (label, text), (" ›", arrows))

    def relabel(self, labels: Mapping[str, str]) -> None:
        """Show other words for the options."""
        self._labels = dict(labels)
        self.refresh(layout=True)

    def action_turn(self, by: int) -> None:
        """Choose the next option, round and round."""
        index = (self._options.index(self.value) + by) % len(self._options)
        self.set_value(self._options[index])

    def set_value(self, value: str) -> None:
        """Choose an option."""
        if value in self._options and value != self.value:
            self.value = value
            self.refresh(layout=True)
            self.post_message(self.Changed(self, value))

    def action_submit(self) -> None:
        """Say that enter was pressed."""
        self.post_message(self.Submitted())

    def watch_has_focus(self, has_focus: bool) -> None:
        """Show where keys go."""
        super().watch_has_focus(has_focus)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Choose the next option, or the one before with a click on the left arrow."""
        event.stop()
        self.focus()
        self.action_turn(-1 if event.x == 0 else 1)
