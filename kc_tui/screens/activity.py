"""The activity list: every operation with its steps, and every error that the user was told of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import work

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import OPERATION
from kc_tui.commands import Context, Scope
from kc_tui.messages import ErrorOccurred
from kc_tui.screens.item import ItemScreen
from kc_tui.screens.section import SectionScreen
from kc_tui.screens.session_screen import Changed
from kc_tui.state import operations
from kc_tui.state.lines import Line
from kc_tui.state.listing import Entry
from kc_tui.state.remembered import Order
from kc_tui.state.table import Column, Empty


class ActivityScreen(SectionScreen[Entry]):
    """What KC did and is doing, the newest first."""

    SCOPES = frozenset({Scope.LIST, Scope.OPERATION})
    SECTION: ClassVar[str] = "activity"
    KIND: ClassVar[str] = OPERATION.name
    WORD: ClassVar[str] = "op"
    COLUMNS: ClassVar[tuple[Column, ...]] = operations.COLUMNS
    EMPTY: ClassVar[Empty] = Empty("Nothing has been done yet", "what you start is told here, step by step")

    def default_order(self) -> Order:
        """Return the newest first."""
        return Order("when")

    def concerns(self, _changed: Changed) -> bool:
        """Return whether errors were told: they stand among the operations."""
        return self.session.ERRORS in _changed

    def build(self, document: Document) -> Entry:
        """Return what the list shows of an operation."""
        return operations.build_entry(document, self.session.clock(), self.session.glyphs)

    def build_all(self) -> list[Entry]:
        """Return what the list shows of all operations and errors."""
        session = self.session
        notices = [operations.build_notice(notice, session.clock(), session.glyphs) for notice in session.notices]
        return [*super().build_all(), *notices]

    def describe(self, uid: str) -> Sequence[Line]:
        """Return all about an operation or an error."""
        session = self.session
        document = session.inventory.get(OPERATION.name, uid)
        if document is not None:
            return operations.describe_operation(document, session.glyphs)
        notice = next((notice for notice in session.notices if uid == f"notice:{notice.number}"), None)
        return () if notice is None else operations.describe_notice(notice)

    def make_page(self, uid: str) -> OperationPage:
        """Return the page of an operation or an error."""
        return OperationPage(self, uid)

    @work
    async def do_op_cancel(self, context: Context) -> None:
        """Ask the selected operations to end and undo themselves."""
        from kc_tui.dialogs.confirm import ConfirmDialog, Question  # noqa: PLC0415 - not for the first picture

        active = [subject for subject in context.subjects if subject.state not in operations.ENDED | {"notice"}]
        title = f"Cancel {len(active)} operations?"
        if len(active) == 1:
            cells = next(entry.row.cells for entry in self.listing.shown if entry.name == active[0].name)
            title = f"Cancel {cells[1].text} {cells[2].text}?"
        consequence = "The present step is ended, and what was done so far is undone."
        if not await self.app.push_screen_wait(ConfirmDialog(Question(title, consequence, "cancel it", keep="go on"))):
            return
        for subject in active:
            try:
                await self.session.gateway.cancel(subject.name)
            except KCError as error:
                self.post_message(ErrorOccurred(error))


class OperationPage(ItemScreen):
    """All about one operation."""

    def __init__(self, section: ActivityScreen, uid: str) -> None:
        super().__init__(section, uid)
        self._activity = section

    def do_op_cancel(self, context: Context) -> None:
        """Do as the list does."""
        self._activity.do_op_cancel(context)
