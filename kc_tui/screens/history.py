"""The versions of an object: a list of them, and beside or below it what the one under the cursor changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget

from backend.errors import KCError, NotFoundError
from backend.model.kinds import KEPT_KINDS, find_kind
from kc_tui.commands import BarEntry, Context, Scope, Subject
from kc_tui.messages import ErrorOccurred
from kc_tui.screens.changing import ChangingScreen, propose_rollback
from kc_tui.screens.object_verbs import ObjectVerbs
from kc_tui.screens.parts import Head, TitleLine
from kc_tui.screens.session_screen import Changed
from kc_tui.session import Session
from kc_tui.state.formatting import pluralise
from kc_tui.state.lines import Line
from kc_tui.state.masthead import Masthead
from kc_tui.state.roles import Role
from kc_tui.state.table import Empty, Row, Run
from kc_tui.state.versions import COLUMNS, Difference, Timeline, draw_difference
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.line_view import LineView
from kc_tui.widgets.virtual_table import VirtualTable

_FIRST: Final = 60
"""Versions that are compared before the list is shown: what most screens have lines for."""
_SLICE: Final = 20
"""Versions that are compared between two keys: some 6 ms."""
_SHOWN_AT_ONCE: Final = 1000
_PAIR: Final = 2
NOT_HERE: Final[Mapping[str, str]] = {
    "list.filter": "a history is not filtered",
    "list.sort": "a history stands in its own order",
    "list.reverse": "a history stands in its own order",
    "list.mark-range": "two versions are compared: mark each with space",
    "list.invert-marks": "two versions are compared: mark each with space",
}
"""Commands of lists that a history has no use for, and why."""


class VersionTable(VirtualTable):
    """The list of versions; marks are for two of them, one by one."""

    def action_toggle_range(self) -> None:
        """Say why ranges are not marked."""
        self.post_message(Refused(NOT_HERE["list.mark-range"]))

    def action_invert_marks(self) -> None:
        """Say why marks are not inverted."""
        self.post_message(Refused(NOT_HERE["list.invert-marks"]))


class Refused(Message):
    """A key does nothing here, for a reason."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class HistoryView(Widget):
    """The versions of one object, and the difference that the one under the cursor, or two marked ones, made.

    `uid` names the object among those that are there; it is empty for one that was deleted.
    """

    class Loaded(Message):
        """The versions are known, or are others than before."""

    def __init__(self, session: Session, kind: str, name: str, uid: str) -> None:
        super().__init__()
        self.session = session
        self.kind = kind
        self.object_name = name
        self.uid = uid
        self.timeline = Timeline()
        self.table = VersionTable(COLUMNS, empty=Empty("Reading its history…"), glyphs=session.glyphs, id="versions")
        self.pane = LineView(glyphs=session.glyphs, can_focus=False, id="difference")
        self._rows: list[Row] = []
        self._pair: tuple[str, ...] = ()
        self._is_loading = False

    def compose(self) -> ComposeResult:
        """Lay out the list and the difference; which of them stands where is the styles'."""
        yield self.table
        yield self.pane

    def on_mount(self) -> None:
        """Read the history."""
        self.load()

    # --- what it shows

    @work(exclusive=True, group="history")
    async def load(self) -> None:
        """Read the history and show it; of a long one the first versions at once, the others between keys."""
        session = self.session
        self._is_loading = True
        try:
            timeline = await session.gateway.history(self.kind, self.object_name)
        except NotFoundError:
            timeline = Timeline()
        except KCError as error:
            self.post_message(ErrorOccurred(error))
            self.table.set_empty(Empty("Its history cannot be read", "section 6 has the details"))
            return
        finally:
            self._is_loading = False
        self.timeline = timeline
        self.table.set_empty(Empty("Nothing is kept of its history"))
        now, glyphs = session.clock(), session.glyphs
        self._rows = timeline.build_rows(0, _FIRST, now, glyphs)
        self.table.show(self._rows)
        self._describe()
        self.post_message(self.Loaded())
        for start in range(_FIRST, len(timeline), _SLICE):
            await asyncio.sleep(0)
            self._rows += timeline.build_rows(start, start + _SLICE, now, glyphs)
            if len(self._rows) >= len(self.table.rows) + _SHOWN_AT_ONCE or len(self._rows) == len(timeline):
                self.table.show(self._rows)

    def follow(self) -> None:
        """Read the history again where the object has another version by now."""
        document = self.session.inventory.get(self.kind, self.uid) if self.uid else None
        version = int(document.get("version", 0)) if document is not None else 0
        is_gone = bool(self.uid) and document is None and not self.timeline.is_deleted
        if not self._is_loading and len(self.timeline) and (is_gone or (version and version != self.timeline.newest)):
            self.load()

    @property
    def number(self) -> int:
        """The version under the cursor; 0 where there is none."""
        return int(self.table.row.key) if self.table.row is not None else 0

    @property
    def difference(self) -> Difference | None:
        """What is shown: between the two that are marked, else what the one under the cursor changed."""
        if len(self._pair) == _PAIR:
            return self.timeline.compare_two(int(self._pair[0]), int(self._pair[1]))
        return self.timeline.compare(self.number)

    def _describe(self) -> None:
        difference = self.difference
        glyphs = self.session.glyphs
        if difference is None:
            self.pane.show(lambda _width: ())
        else:
            self.pane.show(lambda width: draw_difference(difference, width, glyphs))

    @on(VirtualTable.Highlighted)
    def _highlighted(self) -> None:
        self._describe()

    @on(VirtualTable.Marked)
    def _marked(self, event: VirtualTable.Marked) -> None:
        """Keep the two that were marked last."""
        kept = [key for key in self._pair if key in event.keys]
        new = sorted(event.keys - set(kept), key=int)
        pair = tuple([*kept, *new][-_PAIR:])
        self._pair = pair
        if len(event.keys) > len(pair):
            self.table.mark(pair)
        self._describe()


class HistoryVerbs(ChangingScreen):
    """The verbs of a history; `history` is the one in front."""

    @property
    def history(self) -> HistoryView | None:
        """The history that is shown, if any."""
        return next(iter(self.query(HistoryView)), None)

    def refuse_in_history(self) -> dict[str, str]:
        """Return why commands cannot run upon the version under the cursor, by command id."""
        history = self.history
        if history is None:
            return {}
        reason = history.timeline.refuse_rollback(history.number)
        return {**NOT_HERE, **({"history.rollback": reason} if reason else {})}

    @work
    async def do_history_rollback(self, _context: Context) -> None:
        """Roll the object back to the version under the cursor, after it was shown what that does."""
        history = self.history
        if history is None:
            return
        name, number = history.object_name, history.number
        proposal = propose_rollback(history.kind, name, history.timeline.newest, number)
        await self.ask_and_change(f"Roll {name} back to version {number}?", "roll back", [proposal])

    @on(VirtualTable.Selected)
    def _open_difference(self, event: VirtualTable.Selected) -> None:
        history = self.history
        if history is None or event.table is not history.table:
            return
        event.stop()
        from kc_tui.screens.difference import DifferenceScreen  # noqa: PLC0415 - when it is needed

        difference = history.difference
        if difference is not None:
            self.app.push_screen(DifferenceScreen(self.session, history.object_name, difference))

    @on(HistoryView.Loaded)
    def _show_keys(self) -> None:
        self.refresh_keys()

    @on(Refused)
    def _say_why(self, event: Refused) -> None:
        event.stop()
        self.refuse(event.reason)


class HistoryScreen(HistoryVerbs, ObjectVerbs):
    """The versions of any object, filling the screen."""

    SCOPES: ClassVar[frozenset[Scope]] = frozenset({Scope.LIST, Scope.HISTORY})

    def __init__(self, session: Session, kind: str, name: str, uid: str) -> None:
        super().__init__(session)
        self.head = Head(session.glyphs)
        self.title_line = TitleLine()
        self.view = HistoryView(session, kind, name, uid)

    def compose(self) -> ComposeResult:
        """Lay out the lines at the top, the history and the keys."""
        with Vertical(classes="whole"):
            yield self.head
            yield self.title_line
            yield self.view
            yield KeyBar()

    def on_mount(self) -> None:
        """Put the focus on the list."""
        self.view.table.focus()
        self._show_title()

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top."""
        self.head.show(masthead)

    def documents_changed(self, _changed: Changed | None) -> None:
        """Read the history again where it went on."""
        if self.is_composed:
            self.view.follow()
            self.refresh_keys()

    def subjects(self) -> Sequence[Subject]:  # type: ignore[override]
        """Return the object, unless it was deleted."""
        view = self.view
        document = self.session.inventory.get(view.kind, view.uid) if view.uid else None
        if document is None:
            return ()
        operation = self.session.operation_on(document)
        busy = str(operation.get("title", "") or "changing") if operation is not None else ""
        word = find_kind(view.kind).command
        return (Subject(word, view.object_name, "", busy, uid=view.uid, version=int(document.get("version", 0))),)

    def refusals(self) -> Mapping[str, str]:
        """Return why commands cannot run here."""
        return {**self.refuse_in_history(), "object.history": "this is its history"}

    def command_context(self) -> Context:
        """Return what commands are judged by here."""
        context = super().command_context()
        is_kept = self.view.kind in {kind.name for kind in KEPT_KINDS} and bool(self.subjects())
        return Context(
            context.scopes | ({Scope.OBJECT} if is_kept else set()),
            context.subjects,
            context.row_count,
            context.refusals,
        )

    def refresh_keys(self) -> None:
        """Show what can be done here, and the way back."""
        keymap = getattr(self.app, "keymap", None)
        if keymap is None or not self.is_composed:
            return
        context = self.command_context()
        hidden = {*NOT_HERE, "object.history", "list.copy"}
        entries = [entry for entry in keymap.bar(context) if entry.command_id not in hidden]
        back = BarEntry("app.back", keymap.label("app.back"), "back", 3)
        self.query_one(KeyBar).show((*entries, back))

    @on(HistoryView.Loaded)
    def _show_title(self) -> None:
        timeline = self.view.timeline
        self.title_line.show(describe_history(self.view.kind, self.view.object_name, timeline))

    def do_list_copy(self, _context: Context) -> None:
        """Copy the object's name."""
        from kc_tui.clipboard import CopyRequested  # noqa: PLC0415 - when it is needed

        self.post_message(CopyRequested(self.view.object_name, f"the name {self.view.object_name}"))


def describe_history(kind: str, name: str, timeline: Timeline) -> Line:
    """Return whose history it is, and how long."""
    runs = [Run(f" {name}", Role.STRONG), Run(f"  {find_kind(kind).title}", Role.MUTED)]
    if len(timeline):
        runs.append(Run(f"  {pluralise(len(timeline), 'version')}", Role.MUTED))
    if timeline.is_deleted:
        runs.append(Run("  deleted", Role.DANGER))
    return tuple(runs)
