"""The list of VMs: KC's first screen."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

from textual import work

from backend.model.documents import Document
from backend.model.kinds import VM
from kc_tui.clipboard import CopyRequested
from kc_tui.commands import Context, Scope
from kc_tui.dialogs.choose import Choice, ChooseDialog
from kc_tui.messages import OpenObject
from kc_tui.screens.section import SectionScreen
from kc_tui.screens.session_screen import WIDEST, Changed
from kc_tui.screens.vm_verbs import VMVerbs
from kc_tui.session import Session
from kc_tui.state.lines import Line
from kc_tui.state.table import Column, Empty
from kc_tui.state.vms import COLUMNS, VMEntry, build_entry, flatten, metadata_column, refresh_usage

SAMPLE_SECONDS: Final = 2.0
_MOST_COLUMNS: Final = 2
_AT_ONCE: Final = 500
_SLICE: Final = 100
"""VMs that are built between two keys: some 6 ms."""
_COUNTED: Final = 500
"""VMs that are looked at to choose the metadata columns."""


class VMsScreen(SectionScreen[VMEntry], VMVerbs):
    """All VMs of the host, those that are not KC's included."""

    SCOPES = frozenset({Scope.LIST, Scope.VM, Scope.OBJECT})
    SECTION: ClassVar[str] = "vms"
    KIND: ClassVar[str] = VM.name
    WORD: ClassVar[str] = "vm"
    COLUMNS: ClassVar[tuple[Column, ...]] = COLUMNS
    EMPTY: ClassVar[Empty] = Empty("There is no VM yet", "n makes the first one")

    def __init__(self, session: Session) -> None:
        self._paths: tuple[str, ...] = ()
        self._built: dict[str, tuple[tuple[object, ...], VMEntry]] = {}
        super().__init__(session)

    def on_mount(self) -> None:
        """Begin to sample what the running VMs use."""
        self.set_interval(SAMPLE_SECONDS, self._sample)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns; with much room those of the metadata too."""
        return (*COLUMNS, *map(metadata_column, self._paths))

    def build(self, document: Document) -> VMEntry:
        """Return what the list shows of a VM; one of which nothing has changed is not built anew."""
        session = self.session
        uid = str(document.get("uid", ""))
        operation, usage = session.operation_on(document), session.usages.get(uid)
        made_from = (document, operation, self._paths, session.has_observed)
        built = self._built.get(uid)
        if built is not None and built[0] == made_from:
            return built[1]
        entry = build_entry(
            document,
            operation,
            usage,
            session.glyphs,
            metadata_columns=self._paths,
            is_connecting=not session.has_observed,
        )
        self._built[uid] = (made_from, entry)
        return entry

    def documents_changed(self, changed: Changed | None) -> None:
        """Show what changed, in the columns that suit it; many VMs at once are built a few at a time, between keys."""
        if changed is None:
            self._choose_columns()
            if self.listing.shown and self._count_unbuilt() > _AT_ONCE:
                self._build_slowly()
                return
        super().documents_changed(changed)

    def _count_unbuilt(self) -> int:
        documents = self.session.inventory.documents(VM.name)
        return sum(
            1 for document in documents if (b := self._built.get(document["uid"])) is None or b[0][0] is not document
        )

    @work(exclusive=True, group="build")
    async def _build_slowly(self) -> None:
        for index, document in enumerate(self.session.inventory.documents(VM.name)):
            self.build(document)
            if index % _SLICE == 0:
                await asyncio.sleep(0)
        super().documents_changed(None)

    def build_all(self) -> list[VMEntry]:
        """Return what the list shows of all VMs, and forget those that are gone."""
        entries = super().build_all()
        if len(self._built) > len(entries):
            self._built = {entry.uid: self._built[entry.uid] for entry in entries}
        return entries

    def concerns(self, _changed: Changed) -> bool:
        """Return whether VMs look different after other changes: an operation's change names its VM itself."""
        return False

    def describe(self, uid: str) -> Sequence[Line]:
        """Return all about a VM."""
        from kc_tui.state import vm_details  # noqa: PLC0415 - for the pane only, which the first picture may not have

        session = self.session
        document = session.inventory.get(VM.name, uid)
        if document is None:
            return ()
        operation = session.operation_on(document)
        return vm_details.describe(document, operation, session.usages.get(uid), session.clock(), session.glyphs)

    def open_row(self, uid: str) -> None:
        """Show all about a VM."""
        self.post_message(OpenObject(VM.name, uid))

    def do_vm_metadata(self, _context: Context) -> None:
        """Show the metadata of the VM under the cursor."""
        if self.table.row is not None:
            self.post_message(OpenObject(VM.name, self.table.row.key, "metadata"))

    @work(exclusive=True, group="columns")
    async def choose_columns(self) -> None:
        """Choose the metadata columns, one after another, until the user leaves."""
        session = self.session
        while True:
            shown = self._paths if session.remembered.columns is None else session.remembered.columns
            paths = [*shown, *(path for path in self._all_paths() if path not in shown)]
            mark = session.glyphs.mark
            choices = [Choice(path, f"{mark if path in shown else ' '} {path}", search=path) for path in paths]
            chosen = await self.app.push_screen_wait(
                ChooseDialog("Metadata columns, from 140 columns on", choices, glyphs=session.glyphs)
            )
            if chosen is None:
                return
            columns = tuple(path for path in shown if path != chosen) if chosen in shown else (*shown, chosen)
            session.remember(replace(session.remembered, columns=columns))
            self.documents_changed(None)

    def do_vm_columns(self, _context: Context) -> None:
        """Choose the metadata columns."""
        self.choose_columns()

    def do_list_copy(self, context: Context) -> None:
        """Copy the address of the selected VM, or the names of several, or of one without an address."""
        selected = self.selected
        if len(selected) == 1 and selected[0].address:
            self.post_message(CopyRequested(selected[0].address, f"the address of {selected[0].name}"))
        else:
            super().do_list_copy(context)

    def _in_view(self) -> Sequence[VMEntry]:
        """Return the entries whose figures are worth drawing: those in view, or all where they make the order."""
        if self.order.column == "cpu":
            return self.listing.shown
        top = max(0, int(self.table.scroll_offset.y) - 1)
        return self.listing.shown[top : top + self.table.size.height + 1]

    # --- metadata columns

    def on_resize(self) -> None:
        """Show metadata columns where there is much room."""
        if self._choose_columns():
            super().documents_changed(None)

    def _choose_columns(self) -> bool:
        """Choose the metadata columns for this width; return whether they are others."""
        paths: tuple[str, ...] = ()
        if self.size.width >= WIDEST:
            chosen = self.session.remembered.columns
            paths = self._commonest_paths() if chosen is None else chosen
        if paths == self._paths:
            return False
        self._paths = paths
        self.table.set_columns(self.columns)
        return True

    def _commonest_paths(self) -> tuple[str, ...]:
        return self._all_paths()[:_MOST_COLUMNS]

    def _all_paths(self) -> tuple[str, ...]:
        """Return the paths in the metadata of the VMs, the commonest first."""
        documents = self.session.inventory.documents(VM.name)[:_COUNTED]
        counts = Counter(path for document in documents for path, _ in flatten(document.get("metadata", {})))
        return tuple(path for path, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    # --- figures

    async def _sample(self) -> None:
        """Ask for the figures of the running VMs, where the service has any and this list is in front."""
        session = self.session
        if self.app.screen is not self or not any(entry.is_on for entry in self.listing.shown):
            return
        samples = await session.gateway.sample()
        if samples is None:
            return
        session.usages.take(samples)
        self.show_figures()

    def show_figures(self) -> None:
        """Show what the VMs in view use."""
        session = self.session
        changed = []
        for entry in self._in_view():
            document = session.inventory.get(VM.name, entry.uid) if entry.is_on else None
            if document is not None:
                refreshed = refresh_usage(entry, document, session.usages.get(entry.uid), session.glyphs)
                changed.append(refreshed)
                if entry.uid in self._built:
                    self._built[entry.uid] = (self._built[entry.uid][0], refreshed)
        rows = self.listing.update(changed)
        if rows is None:
            self.table.show(self.listing.rows)
        else:
            self.table.replace(rows)
        self.show_details()
