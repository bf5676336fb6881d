"""What the sections share: a list with its filter and order, a pane that shows the selected object, the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from backend.errors import KCError
from backend.model.documents import Document
from kc_tui.clipboard import CopyRequested
from kc_tui.commands import Context, Scope, Subject
from kc_tui.screens.parts import Head, SidePane
from kc_tui.screens.session_screen import WIDE, Changed, SessionScreen
from kc_tui.session import Session
from kc_tui.state.filtering import compile_filter
from kc_tui.state.lines import Line
from kc_tui.state.listing import EntryType, Listing
from kc_tui.state.masthead import Masthead
from kc_tui.state.remembered import Order
from kc_tui.state.table import Column, Empty
from kc_tui.widgets.filter_bar import FilterBar
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.virtual_table import VirtualTable


class SectionScreen(SessionScreen, Generic[EntryType]):
    """A list of one kind of objects with a pane at its right where there is room."""

    SECTION: ClassVar[str]
    KIND: ClassVar[str]
    WORD: ClassVar[str]
    COLUMNS: ClassVar[tuple[Column, ...]]
    EMPTY: ClassVar[Empty]

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        glyphs = session.glyphs
        self.listing: Listing[EntryType] = Listing()
        self.head = Head(glyphs)
        self.filter_bar = FilterBar(glyphs=glyphs)
        self.table = VirtualTable(self.columns, empty=Empty("", ""), glyphs=glyphs, id="list")
        self.pane = SidePane(id="details")
        self.order = session.remembered.orders.get(self.SECTION) or self.default_order()
        self._wanted = ""
        self._keys_for: object = None

    def compose(self) -> ComposeResult:
        """Lay out the lines at the top, filter, list and keys; the pane comes when there is room for it."""
        with Vertical(classes="whole"):
            yield self.head
            yield self.filter_bar
            with Horizontal(classes="body"):
                yield self.table
            yield KeyBar()

    def on_mount(self) -> None:
        """Show what is known; the list has the focus."""
        self._sort()
        self.documents_changed(None)
        self.table.focus()

    # --- what a section says of itself

    def default_order(self) -> Order:
        """Return how the list is sorted where the user has not said."""
        return Order()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the list."""
        return self.COLUMNS

    def build(self, document: Document) -> EntryType:
        """Return what the list shows of a document."""
        raise NotImplementedError

    def build_all(self) -> list[EntryType]:
        """Return what the list shows of all documents."""
        return [self.build(document) for document in self.session.inventory.documents(self.KIND)]

    def describe(self, uid: str) -> Sequence[Line]:
        """Return what the pane shows of one object."""
        raise NotImplementedError

    def concerns(self, _changed: Changed) -> bool:
        """Return whether the whole list may look different after changes of other kinds."""
        return False

    # --- what changes

    def documents_changed(self, changed: Changed | None) -> None:
        """Show what changed."""
        if not self.is_composed:
            return
        inventory = self.session.inventory
        if changed is None or self.concerns(changed):
            self.listing.fill(self.build_all())
            self._show_rows()
        elif uids := changed.get(self.KIND):
            documents = {uid: inventory.get(self.KIND, uid) for uid in uids}
            entries = [self.build(document) for document in documents.values() if document is not None]
            rows = self.listing.update(entries, [uid for uid, document in documents.items() if document is None])
            if rows is None:
                self._show_rows()
            else:
                self.table.replace(rows)
        else:
            return
        if self._wanted:
            self.point_at(self._wanted)
        self.show_details()
        self.refresh_keys()

    def point_at(self, uid: str) -> None:
        """Put the cursor on an object as soon as it is in the list; a filter that hides it is taken away."""
        entry = self.listing.get(uid)
        self._wanted = "" if entry is not None else uid
        if entry is None:
            return
        if not self.table.move_to(uid):
            self.filter_bar.clear()
            self.table.move_to(uid)

    def _show_rows(self) -> None:
        is_loaded = self.KIND in self.session.inventory.loaded
        if not is_loaded:
            self.table.set_empty(Empty("Reading what there is…"))
        elif self.filter_bar.text and len(self.listing):
            self.table.set_empty(Empty("Nothing matches the filter", "esc takes it away"))
        else:
            self.table.set_empty(self.EMPTY)
        self.table.show(self.listing.rows)
        if self.filter_bar.text and not self.filter_bar.error:
            self.filter_bar.show_matches(len(self.listing.shown), len(self.listing))

    def show_details(self) -> None:
        """Show the selected object in the pane, where there is room for one."""
        if self.size.width < WIDE:
            return
        if not self.pane.is_attached:
            self.query_one(".body").mount(self.pane)
        row = self.table.row
        self.pane.show(self.describe(row.key) if row is not None else ())

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top."""
        self.head.show(masthead)

    @on(VirtualTable.Selected)
    def _open(self, event: VirtualTable.Selected) -> None:
        event.stop()
        self.open_row(event.row.key)

    def open_row(self, uid: str) -> None:
        """Show all about an object: a page in the place of the list, which esc leaves."""
        self.app.push_screen(self.make_page(uid))

    def make_page(self, uid: str) -> Screen[None]:
        """Return the page of one object."""
        from kc_tui.screens.item import ItemScreen  # noqa: PLC0415 - not for the first picture

        return ItemScreen(self, uid)

    def acted(self) -> None:
        """Take the marks away: what they were for is done."""
        self.table.clear_marks()

    def on_resize(self) -> None:
        """Fill the pane once there is room for it."""
        self.show_details()

    def on_screen_resume(self) -> None:
        """Show what changed while another screen was in front."""
        self.documents_changed(None)

    @on(VirtualTable.Highlighted)
    def _highlighted(self) -> None:
        self.show_details()

    # --- what is selected

    @property
    def selected(self) -> list[EntryType]:
        """The marked entries in their order, else the one under the cursor."""
        marked = self.table.marked
        if marked:
            return [entry for entry in self.listing.shown if entry.uid in marked]
        row = self.table.row
        entry = self.listing.get(row.key) if row is not None else None
        return [] if entry is None else [entry]

    def subjects(self) -> tuple[Subject, ...]:
        """Return what a verb would act upon."""
        return tuple(self.make_subject(entry) for entry in self.selected)

    def make_subject(self, entry: EntryType) -> Subject:
        """Return an entry as a command sees it."""
        document = self.session.inventory.get(self.KIND, entry.uid) or {}
        version, is_adopted = int(document.get("version", 0)), bool(document.get("spec", {}).get("adopted"))
        return Subject(self.WORD, entry.name, entry.state, entry.busy, entry.is_foreign, entry.uid, version, is_adopted)

    def command_context(self) -> Context:
        """Return what commands are judged by here."""
        return Context(self.SCOPES | {Scope.APP}, self.subjects(), len(self.table.rows), self.refusals())

    def refresh_keys(self) -> None:
        """Show in the key bar what can be done now; to another VM in the same state the same can be done."""
        states = tuple((item.state, item.busy, item.is_foreign, item.version > 1) for item in self.subjects())
        judged_by = (states, bool(self.table.rows))
        if judged_by != self._keys_for:
            self._keys_for = judged_by
            super().refresh_keys()

    # --- filter and order

    @on(FilterBar.Changed)
    def _narrow(self, event: FilterBar.Changed) -> None:
        try:
            accepts = compile_filter(event.text, lambda uid: self.session.inventory.get(self.KIND, uid))
        except KCError as error:
            position = error.details.get("position")
            self.filter_bar.show_error(error.why, position if isinstance(position, int) else None)
            return
        self.filter_bar.show_error("")
        self.listing.filter(accepts)
        self._show_rows()
        self.show_details()

    @on(FilterBar.Closed)
    def _end_filter(self) -> None:
        self.table.focus()

    def do_list_filter(self, _context: Context) -> None:
        """Type a filter."""
        self.filter_bar.open()

    def do_app_back(self, context: Context) -> None:
        """Take back the marks, then the filter, then leave."""
        if not self.table.marked and self.filter_bar.clear():
            return
        super().do_app_back(context)

    def do_list_sort(self, _context: Context) -> None:
        """Order the list by the next column."""
        ids = [column.id for column in self.columns]
        at = ids.index(self.order.column) + 1 if self.order.column in ids else 0
        self._reorder(Order(ids[at % len(ids)]))

    def do_list_reverse(self, _context: Context) -> None:
        """Turn the order round."""
        self._reorder(Order(self.order.column, not self.order.reverse))

    @on(VirtualTable.HeaderPressed)
    def _sort_by_header(self, event: VirtualTable.HeaderPressed) -> None:
        is_same = event.column_id == self.order.column
        self._reorder(Order(event.column_id, is_same and not self.order.reverse))

    def _reorder(self, order: Order) -> None:
        self.order = order
        self.session.remember(self.session.remembered.with_order(self.SECTION, order))
        self._sort()
        self.table.show(self.listing.rows)

    def _sort(self) -> None:
        self.listing.sort(self.order.column, reverse=self.order.reverse)
        self.table.set_order(self.order.column, reverse=self.order.reverse)

    # --- copying

    def do_list_copy(self, _context: Context) -> None:
        """Copy the names of what is selected."""
        names = [entry.name for entry in self.selected]
        what = f"the name {names[0]}" if len(names) == 1 else f"{len(names)} names"
        self.post_message(CopyRequested("\n".join(names), what))
