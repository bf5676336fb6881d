"""How the session comes to know things: the store first, then its feed, then the host; and again after a break."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TRASH, VM
from backend.service import DocumentPage
from kc_tui.messages import DocumentsChanged, FeedChanged, Link
from kc_tui.session import Session

FIRST_PAGE: Final = 60
"""VMs that are read before the others: what the first picture needs."""
_STORED: Final = (OPERATION.name, IMAGE.name, NETWORK.name, MACHINE_TYPE.name, TRASH.name)
"""What the store alone knows all about, in the order in which it is needed."""
Changed = dict[str, set[str]]
_log = logging.getLogger(__name__)


class Loader:
    """Fills a session's inventory; the first picture never waits for the host.

    `show` is told what changed (None: everything may have), `link_changed` that the link is another one, `fail` of an
    error that a person has to know.
    """

    def __init__(
        self,
        session: Session,
        *,
        show: Callable[[Changed | None], object],
        link_changed: Callable[[], object],
        fail: Callable[[KCError], object],
    ) -> None:
        self._session = session
        self._show = show
        self._link_changed = link_changed
        self._fail = fail
        self._is_observing = False
        self._first: asyncio.Future[DocumentPage]

    def begin(self) -> None:
        """Start to read what the first picture needs, while the screen is being made."""
        first = self._session.gateway.list_documents(VM.name, observe=False, limit=FIRST_PAGE)
        self._first = asyncio.ensure_future(first)

    async def load(self) -> None:
        """Read the store, follow its feed, then ask the host."""
        gateway, inventory = self._session.gateway, self._session.inventory
        try:
            first = await self._first
            inventory.replace(VM.name, first)
            self._show(None)
            if first.next:
                inventory.replace(VM.name, await gateway.list_documents(VM.name, observe=False))
                self._show(None)
            gateway.watch(first.revision)
            for kind in _STORED:
                inventory.replace(kind, await gateway.list_documents(kind, observe=False))
            await gateway.resume()
        except KCError as error:
            self.set_link(Link.STALE, str(error))
            self._fail(error)
            # The feed tries again by itself, and tells when it is worth reading anew.
            gateway.watch(None)
            return
        self._show(None)
        await self.observe()

    async def observe(self) -> None:
        """Ask the host for the live states; a host that does not answer makes what is shown stale."""
        if self._is_observing:
            return
        self._is_observing = True
        session = self._session
        try:
            page = await session.gateway.list_documents(VM.name, observe=True)
        except KCError as error:
            self.set_link(Link.STALE, str(error))
            return
        finally:
            self._is_observing = False
        session.inventory.replace(VM.name, page)
        session.has_observed = True
        self.set_link(Link.STALE if page.warnings else Link.LIVE, " ".join(page.warnings))
        self._show(None)

    async def expire(self) -> None:
        """Have removed what the trash need not keep any longer, and gone on with what another KC has left."""
        try:
            await self._session.gateway.resume()
        except KCError as error:
            # That the store does not answer is told by the feed.
            _log.info("expiry: %s", error)

    async def reload(self) -> None:
        """Read everything again after the feed was broken."""
        for kind in _STORED:
            try:
                page = await self._session.gateway.list_documents(kind, observe=False)
            except KCError as error:
                self.set_link(Link.STALE, str(error))
                return
            self._session.inventory.replace(kind, page)
        await self.observe()

    def set_link(self, link: Link, why: str = "") -> None:
        """Note how KC stands to what it manages."""
        if self._session.set_link(link, why):
            self._link_changed()

    @property
    def is_stale(self) -> bool:
        """Whether what is shown may be old."""
        return self._session.link_state.link is Link.STALE

    def take(self, event: DocumentsChanged) -> tuple[Changed, list[Document], bool]:
        """Take changes from the feed.

        Returns what changed, the operations that have failed by it, and whether the host should be asked again: the
        news of some VM do not fit to what is said of the link.
        """
        session = self._session
        active = {str(item.get("uid", "")) for item in session.inventory.active_operations}
        changed = session.inventory.apply(event.events)
        failed: list[Document] = []
        is_odd = False
        for told in event.events:
            document = told.document
            status = document.get("status", {})
            if document.get("kind") == OPERATION.name:
                if document.get("uid") in active and status.get("state") == "failed":
                    failed.append(document)
            elif document.get("kind") == VM.name and told.type != "deleted":
                is_odd |= bool(status.get("stale")) != self.is_stale
        return changed, failed, is_odd and session.has_observed

    def should_reload(self, event: FeedChanged) -> bool:
        """Note the feed's own news; return whether everything is to be read again."""
        if event.link is Link.STALE:
            self.set_link(Link.STALE, event.why)
            return False
        return self.is_stale or not self._session.inventory.loaded
