"""A few fields over the screen: what they would do is shown before it is done, and what is refused loses nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, Static

from backend.errors import KCError, UnreachableError
from backend.text import sanitise
from kc_tui.dialogs.base import Dialog
from kc_tui.state.form_field import ADVANCED, FormField
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.lines import Line
from kc_tui.widgets.choice_bar import Answer, ChoiceBar
from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.widgets.field_line import FieldLine
from kc_tui.widgets.line_view import Layout, LineView

LOOK_SECONDS: Final = 0.15
"""How long no key has to be pressed before what the fields would do is asked for."""
_WIDEST: Final = 104
_FRAME_COLUMNS: Final = 6
_FRAME_LINES: Final = 6
"""Border, padding, the answers and the space above them."""
_WORD_LINES: Final = 3
"""What is kept free for the text above the fields, the space below them, and what is wrong with all of them."""
_HIGH: Final = 30
"""Lines from which on there is space between the fields."""

Values = Mapping[str, str]
Look = Callable[[Values], Awaitable[Layout]]
Make = Callable[[Values], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked: `verb` is the word of the yes, `text` stands above the fields.

    `look` gives what the values would do, as lines for a width; `make` does it. Both raise KCError, which is told
    beside the field that its cause names (or its detail `parameter`). With `look`, only what was shown is done.
    """

    title: str
    verb: str
    make: Make
    fields: tuple[FormField, ...] = ()
    look: Look | None = None
    text: str = ""


def locate(error: KCError, values: Values) -> str:
    """Return which field an error is about: the one that it names, or whose text it quotes; empty for none of them."""
    names = list(values)
    parameter = str(error.details.get("parameter", ""))
    if isinstance(error, UnreachableError):
        return ""
    if parameter in names or len(names) == 1:
        return parameter if parameter in names else names[0]
    named = (name for name in names if re.search(rf"\b{re.escape(name)}\b", error.why))
    quoted = (name for name, text in values.items() if text and text in error.why)
    return next(named, "") or next(quoted, "")


class FormDialog(Dialog[bool]):
    """Fill a `Form` in; the result is True once it was made. An error leaves everything as it was typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pagedown", "scroll_lines(4)", show=False),
        Binding("pageup", "scroll_lines(-4)", show=False),
    ]

    def __init__(self, form: Form, *, glyphs: Glyphs = UNICODE) -> None:
        super().__init__()
        self._form = form
        self.lines = [FieldLine(field) for field in form.fields]
        self._view = LineView(glyphs=glyphs, can_focus=False, classes="-below" if self.lines else None)
        self._error = Static(markup=False, classes="dialog-text dialog-gap")
        self._answers = ChoiceBar(())
        self._shown: Values | None = None
        self._layout: Layout = lambda _width: ()
        self._timer: Timer | None = None
        self._is_making = False

    def compose(self) -> ComposeResult:
        """Lay out the fields, what they would do, what is wrong, and the answers."""
        with Vertical(classes="dialog form") as panel:
            panel.border_title = Content(self._form.title)
            if self._form.text:
                yield Static(Content(self._form.text), classes="dialog-text form-text")
            yield from self.lines
            yield self._view
            yield self._error
            yield self._answers

    def on_mount(self) -> None:
        """Show what the values would do as they are; the first field has the focus."""
        self._fit()
        self._tell("")
        self.set_focus(self.lines[0].control if self.lines else self._answers)
        self._fold()
        if all(not line.field.complain(line.text) for line in self.lines):
            self._look()

    def on_resize(self) -> None:
        """Take the room there is."""
        self._fit()

    def _fit(self) -> None:
        columns, rows = self.app.size
        width = min(_WIDEST, columns)
        self.query_one(".dialog").styles.width = width
        lines: Sequence[Line] = self._layout(width - _FRAME_COLUMNS - 1)
        is_low = rows < _HIGH
        self.set_class(is_low, "-low")
        room = max(3, rows - _FRAME_LINES - (1 if is_low else 2) * len(self._unfolded) - _WORD_LINES)
        self._view.display = bool(lines)
        self._view.styles.height = min(room, len(lines))
        self.query_one(".dialog", Vertical).border_subtitle = Content("pgdn scrolls" if len(lines) > room else "")

    @property
    def _unfolded(self) -> list[FieldLine]:
        return [line for line in self.lines if line.display]

    def _fold(self) -> None:
        """Show the advanced fields where the field of that name says yes."""
        is_open = self.values.get(ADVANCED) == "yes"
        for line in self.lines:
            line.display = is_open or not line.field.advanced or bool(line.error)
        self._fit()

    def _tell(self, error: str) -> None:
        self._error.display = bool(error)
        self._error.update(Content.styled(error, "$danger"))
        word = f"{self._form.verb}…" if self._is_making else self._form.verb
        self._answers.show((Answer("yes", "enter", word, enabled=not self._is_making), Answer("no", "esc", "leave")))

    # --- values

    @property
    def values(self) -> dict[str, str]:
        """What the fields hold, by their names."""
        return {line.field.name: line.text for line in self.lines}

    @property
    def is_shown(self) -> bool:
        """Whether what the values would do is what is shown."""
        return self._form.look is None or self._shown == self.values

    def _check(self) -> bool:
        """Say beside every field what is wrong with it; return whether nothing is."""
        complaints = [line.check() for line in self.lines]
        return all(complaints)

    @on(Input.Changed)
    @on(ChoiceField.Changed)
    def _changed(self, event: Input.Changed | ChoiceField.Changed) -> None:
        event.stop()
        if self._timer is not None:
            self._timer.stop()
        self._fold()
        self._tell("")
        if not self._check():
            self._hide()
        elif not self.is_shown:
            self._timer = self.set_timer(LOOK_SECONDS, self._look)

    def _hide(self) -> None:
        """Show nothing in the place of what other values would do, at the same height: nothing is to jump."""
        self._shown = None
        self._view.show(lambda _width: ())
        self.query_one(".dialog", Vertical).border_subtitle = Content("")

    @work(exclusive=True, group="look")
    async def _look(self) -> None:
        look, values = self._form.look, self.values
        # A text that came between the asking and this is judged already.
        if look is None or any(line.field.complain(line.text) for line in self.lines):
            return
        try:
            layout = await look(values)
        except KCError as error:
            self._complain(error)
            return
        self._shown, self._layout = values, layout
        self._view.show(layout)
        self._fit()

    def _complain(self, error: KCError) -> None:
        self._hide()
        text = sanitise(f"{error.why}{f'. {error.hint}' if error.hint else ''}", 400)
        name = locate(error, self.values)
        line = next((line for line in self.lines if line.field.name == name), None)
        if line is None:
            self._tell(text)
        else:
            line.complain(text)

    # --- answers

    @on(Input.Submitted)
    @on(ChoiceField.Submitted)
    def _submitted(self, event: Input.Submitted | ChoiceField.Submitted) -> None:
        event.stop()
        self._submit()

    @on(ChoiceBar.Chosen)
    def _chosen(self, event: ChoiceBar.Chosen) -> None:
        event.stop()
        if event.answer_id == "no":
            self.action_leave()
        else:
            self._submit()

    def _submit(self) -> None:
        """Do it, where it was shown; else show it, or go to the first field that is wrong."""
        if self._is_making:
            return
        if not self._check():
            self.set_focus(next(line.control for line in self.lines if line.error))
        elif self.is_shown:
            self._make()
        else:
            self._look()

    @work(exclusive=True, group="make")
    async def _make(self) -> None:
        self._is_making = True
        self._tell("")
        try:
            await self._form.make(self.values)
        except KCError as error:
            self._is_making = False
            self._tell("")
            self._complain(error)
            return
        self.dismiss(result=True)

    # --- keys

    def on_key(self, event: events.Key) -> None:
        """Go from field to field."""
        ways = {"tab": 1, "down": 1, "shift+tab": -1, "up": -1}
        if event.key not in ways or not self.lines:
            return
        event.stop()
        event.prevent_default()
        lines = self._unfolded
        at = next((index for index, line in enumerate(lines) if line.control.has_focus), 0)
        self.set_focus(lines[(at + ways[event.key]) % len(lines)].control)

    def action_scroll_lines(self, lines: int) -> None:
        """Scroll what the values would do."""
        self._view.scroll_relative(y=lines, animate=False)
