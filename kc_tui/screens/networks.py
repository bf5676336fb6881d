"""The section of networks, and the page of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual import on, work
from textual.screen import Screen
from textual.timer import Timer

from backend.model.documents import Document
from backend.model.kinds import NETWORK, VM
from kc_tui.commands import Scope, Subject
from kc_tui.screens.close_look import Look, look_at_all
from kc_tui.screens.item import OnePage
from kc_tui.screens.network_verbs import NetworkVerbs
from kc_tui.screens.others import ReferredScreen
from kc_tui.screens.session_screen import WIDE, Changed
from kc_tui.session import Session
from kc_tui.state import network_details, networks
from kc_tui.state.lines import Line
from kc_tui.state.listing import Entry
from kc_tui.state.table import Column, Empty
from kc_tui.widgets.virtual_table import VirtualTable

LOOK_SECONDS: Final = 5.0
REST_SECONDS: Final = 0.3
"""How long the cursor stays before the host is asked about what is under it."""
LIST_SECONDS: Final = 10.0
"""How often the host is asked about all networks while their list is in front."""


class NetworksScreen(ReferredScreen, NetworkVerbs):
    """All networks, with what the host's kernel says of them."""

    SCOPES = frozenset({Scope.LIST, Scope.NETWORK, Scope.OBJECT})
    SECTION: ClassVar[str] = "networks"
    KIND: ClassVar[str] = NETWORK.name
    WORD: ClassVar[str] = "network"
    COLUMNS: ClassVar[tuple[Column, ...]] = networks.COLUMNS
    EMPTY: ClassVar[Empty] = Empty("There is no network yet", "n makes one, kc init makes the default one")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._looks: dict[str, Look] = {}
        self._is_asking = False
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        """Begin to ask the host how they are."""
        self.set_interval(LIST_SECONDS, self.look_at_all)
        self.set_interval(LOOK_SECONDS, self.look_closely)

    def on_screen_resume(self) -> None:
        """Ask again: much may have happened while another screen was in front."""
        self.look_at_all()
        self.look_closely()

    def build(self, document: Document) -> Entry:
        """Return what the list shows of a network."""
        users = len(self.users_of(str(document.get("name", ""))))
        return networks.build_entry(document, self.session.operation_on(document), users, self.session.glyphs)

    def describe(self, uid: str) -> Sequence[Line]:
        """Return all about a network."""
        document = self.session.inventory.get(self.KIND, uid)
        if document is None:
            return ()
        users = self.users_of(str(document.get("name", "")))
        return describe_network(self.session, document, self._looks.get(uid), users)

    def make_page(self, uid: str) -> Screen[None]:
        """Return the page of one network."""
        return NetworkPage(self.session, uid)

    def documents_changed(self, changed: Changed | None) -> None:
        """Show what changed; what was told of a network that is gone is forgotten."""
        self._looks = {uid: look for uid, look in self._looks.items() if self.session.inventory.get(self.KIND, uid)}
        super().documents_changed(changed)

    # --- what the host says

    @work(group="look-at-all")
    async def look_at_all(self) -> None:
        """Ask the host how its networks are."""
        if self._is_asking or self.app.screen is not self:
            return
        self._is_asking = True
        try:
            changed = await look_at_all(self.session, self.KIND)
        finally:
            self._is_asking = False
        if changed:
            self.documents_changed({self.KIND: changed})

    @on(VirtualTable.Highlighted)
    def _look_soon(self) -> None:
        """Ask once the cursor stays where it is."""
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(REST_SECONDS, self.look_closely)

    @work(group="look")
    async def look_closely(self) -> None:
        """Ask the host about the one network that the pane shows."""
        row = self.table.row
        document = self.session.inventory.get(self.KIND, row.key) if row is not None else None
        if document is None or self.size.width < WIDE or self.app.screen is not self:
            return
        look = self._looks.setdefault(str(document["uid"]), Look(self.session, self.KIND))
        if await look.ask(document):
            self.show_details()


class NetworkPage(OnePage, NetworkVerbs):
    """All about one network; it follows the network live."""

    SCOPES = frozenset({Scope.NETWORK, Scope.OBJECT})

    def __init__(self, session: Session, uid: str) -> None:
        super().__init__(session, uid)
        self._look = Look(session, NETWORK.name)
        self._users: dict[str, list[str]] | None = None

    def on_mount(self) -> None:
        """Begin to look at the network closely."""
        self.set_interval(LOOK_SECONDS, self.look_closely)

    def on_screen_resume(self) -> None:
        """Show how it is after another screen was in front."""
        self.documents_changed(None)
        self.look_closely()

    @property
    def document(self) -> Document | None:
        """The network, unless it is gone."""
        return self.session.inventory.get(NETWORK.name, self.uid)

    def documents_changed(self, changed: Changed | None) -> None:
        """Show the network as it is now."""
        if changed is None or VM.name in changed:
            self._users = None
        super().documents_changed(changed)

    def describe(self) -> Sequence[Line]:
        """Return all about the network."""
        document = self.document
        if document is None:
            return ()
        if self._users is None:
            self._users = self.session.users_of(NETWORK.name)
        users = self._users.get(str(document.get("name", "")), [])
        return describe_network(self.session, document, self._look, users)

    def subjects(self) -> tuple[Subject, ...]:
        """Return the network."""
        document = self.document
        if document is None:
            return ()
        operation = self.session.operation_on(document)
        entry = networks.build_entry(document, operation, 0, self.session.glyphs)
        version = int(document.get("version", 0))
        return (Subject("network", entry.name, entry.state, entry.busy, uid=self.uid, version=version),)

    @work(group="look")
    async def look_closely(self) -> None:
        """Ask the host about this one network."""
        document = self.document
        if document is not None and self.app.screen is self and await self._look.ask(document):
            super().documents_changed(None)


def describe_network(session: Session, document: Document, look: Look | None, users: list[str]) -> Sequence[Line]:
    """Return all about a network, with what the last look at it has told."""
    shown = document if look is None else look.complete(document)
    return network_details.describe(shown, users, session.glyphs, session.operation_on(document))
