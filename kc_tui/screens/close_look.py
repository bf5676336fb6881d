"""What the host tells of one object when it is asked about that one alone, and a small picture of a VM's screen."""

from __future__ import annotations

import logging
from typing import Any, Final

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import VM
from backend.service import Service
from kc_tui.session import Session
from kc_tui.state.picture import Picture, shrink_png
from kc_tui.state.vms import is_on

_TOLD: Final = ("drift", "disks", "snapshots", "display", "newerType", "guards")
_log = logging.getLogger(__name__)


async def look_at_all(session: Session, kind: str) -> set[str]:
    """Ask the host about all objects of a kind; return the uids of those that look different now."""
    try:
        page = await session.gateway.list_documents(kind, observe=True)
    except KCError as error:
        # That the host does not answer is told at the top; what was known stays.
        _log.info("a look at all of kind %s: %s", kind, error)
        return set()
    before = {str(item.get("uid", "")): item for item in session.inventory.documents(kind)}
    session.inventory.replace(kind, page)
    after = {str(item.get("uid", "")): item for item in session.inventory.documents(kind)}
    return {uid for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)}


class Look:
    """What the last look at one object of a kind has told; at most one is under way, however slow the host is.

    `is_old`: the host did not answer the last question.
    """

    def __init__(self, session: Session, kind: str) -> None:
        self._session = session
        self._kind = kind
        self._status: dict[str, Any] = {}
        self._under_way: set[str] = set()
        self.is_old = False

    def complete(self, document: Document) -> Document:
        """Return an object as the session knows it, with what the look told in the place of what is stored."""
        old = {"stale": True} if self.is_old else {}
        return {**document, "status": {**document.get("status", {}), **self._status, **old}}

    async def ask(self, document: Document) -> bool:
        """Ask about an object; return whether there is news."""
        name = str(document.get("name", ""))
        if "status" in self._under_way:
            return False
        self._under_way.add("status")
        try:
            told = await self._session.gateway.look_at(self._kind, name)
        except KCError as error:
            # That the host does not answer is told at the top; what was known stays.
            _log.info("a close look at %s: %s", name, error)
            was_old, self.is_old = self.is_old, True
            return not was_old
        finally:
            self._under_way.discard("status")
        self._status, self.is_old = dict(told.get("status", {})), False
        return True


class CloseLook(Look):
    """A look at a VM, at its figures, and at its screen."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, VM.name)
        self.picture: Picture | None = None

    def complete(self, document: Document) -> Document:
        """Return a VM as the session knows it, with what the look told beside that."""
        status: dict[str, Any] = {key: self._status[key] for key in _TOLD if key in self._status}
        if is_on(document) and self._status.get("addresses"):
            # These have the guest agent's too.
            status["addresses"] = self._status["addresses"]
        return {**document, "status": {**document.get("status", {}), **status}}

    async def sample(self) -> bool:
        """Ask for the figures of all VMs; return whether there are any."""
        if "samples" in self._under_way:
            return False
        self._under_way.add("samples")
        try:
            samples = await self._session.gateway.sample()
        finally:
            self._under_way.discard("samples")
        if samples is None:
            return False
        self._session.usages.take(samples)
        return True

    async def draw(self, document: Document, width: int, height: int) -> None:
        """Ask for a picture of at most `width` times `height` pixels; one of a VM that is off is none."""
        if not is_on(document):
            self.picture = None
            return
        if "picture" in self._under_way:
            return
        name = str(document.get("name", ""))

        def shrink(service: Service) -> Picture | None:
            try:
                return shrink_png(service.screenshot(name), width, height)
            except ValueError as error:
                _log.info("the screen of %s: %s", name, error)
                return None

        self._under_way.add("picture")
        try:
            self.picture = await self._session.gateway.call(shrink)
        except KCError as error:
            _log.info("the screen of %s: %s", name, error)
            self.picture = None
        finally:
            self._under_way.discard("picture")
