"""The sections of images and machine types, and what they share with that of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.screen import Screen

from backend.model.documents import Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, VM
from kc_tui.commands import Scope
from kc_tui.screens.item import ObjectPage
from kc_tui.screens.object_verbs import ObjectVerbs
from kc_tui.screens.section import SectionScreen
from kc_tui.screens.session_screen import Changed
from kc_tui.state import images, machine_types
from kc_tui.state.lines import Line
from kc_tui.state.listing import Entry
from kc_tui.state.remembered import Order
from kc_tui.state.table import Column, Empty


class ReferredScreen(SectionScreen[Entry], ObjectVerbs):
    """A list of things that VMs are made from."""

    _users: dict[str, list[str]] | None = None

    def concerns(self, _changed: Changed) -> bool:
        """Return whether the VMs changed: each object here counts those that use it."""
        return VM.name in _changed

    def documents_changed(self, changed: Changed | None) -> None:
        """Show what changed."""
        self._users = None
        super().documents_changed(changed)

    def make_page(self, uid: str) -> Screen[None]:
        """Return the page of one object."""
        return ObjectPage(self, uid)

    def users_of(self, name: str) -> list[str]:
        """Return the names of the VMs that use an object."""
        if self._users is None:
            self._users = self.session.users_of(self.KIND)
        return self._users.get(name, [])


class ImagesScreen(ReferredScreen):
    """All images."""

    SCOPES = frozenset({Scope.LIST, Scope.IMAGE, Scope.OBJECT})
    SECTION: ClassVar[str] = "images"
    KIND: ClassVar[str] = IMAGE.name
    WORD: ClassVar[str] = "image"
    COLUMNS: ClassVar[tuple[Column, ...]] = images.COLUMNS
    EMPTY: ClassVar[Empty] = Empty(
        "There is no image yet", "kc init makes a starter image, kc image upload takes yours"
    )

    def build(self, document: Document) -> Entry:
        """Return what the list shows of an image."""
        users = len(self.users_of(str(document.get("name", ""))))
        return images.build_entry(document, self.session.operation_on(document), users, self.session.glyphs)

    def describe(self, uid: str) -> Sequence[Line]:
        """Return all about an image."""
        document = self.session.inventory.get(self.KIND, uid)
        if document is None:
            return ()
        return images.describe(document, self.users_of(str(document.get("name", ""))), self.session.glyphs)


class TypesScreen(ReferredScreen):
    """All machine types."""

    SCOPES = frozenset({Scope.LIST, Scope.TYPE, Scope.OBJECT})
    SECTION: ClassVar[str] = "types"
    KIND: ClassVar[str] = MACHINE_TYPE.name
    WORD: ClassVar[str] = "type"
    COLUMNS: ClassVar[tuple[Column, ...]] = machine_types.COLUMNS
    EMPTY: ClassVar[Empty] = Empty("There is no machine type yet", "kc init makes tiny, small, medium and large")

    def default_order(self) -> Order:
        """Return the smallest first."""
        return Order("memory")

    def build(self, document: Document) -> Entry:
        """Return what the list shows of a machine type."""
        users = len(self.users_of(str(document.get("name", ""))))
        return machine_types.build_entry(document, users, self.session.glyphs)

    def describe(self, uid: str) -> Sequence[Line]:
        """Return all about a machine type."""
        document = self.session.inventory.get(self.KIND, uid)
        if document is None:
            return ()
        return machine_types.describe(document, self.users_of(str(document.get("name", ""))), self.session.glyphs)
