"""What the host tells of one VM when it is asked about that one alone, and a small picture of its screen."""

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

_TOLD: Final = ("drift", "disks", "snapshots", "display", "newerType")
_log = logging.getLogger(__name__)


class CloseLook:
    """The answers of the last look; at most one question of each kind is under way, however slow the host is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._status: dict[str, Any] = {}
        self._under_way: set[str] = set()
        self.picture: Picture | None = None

    def complete(self, document: Document) -> Document:
        """Return a VM as the session knows it, with what the look told beside that."""
        status: dict[str, Any] = {key: self._status[key] for key in _TOLD if key in self._status}
        if is_on(document) and self._status.get("addresses"):
            # These have the guest agent's too.
            status["addresses"] = self._status["addresses"]
        return {**document, "status": {**document.get("status", {}), **status}}

    async def ask(self, document: Document) -> bool:
        """Ask about a VM; return whether there is an answer."""
        name = str(document.get("name", ""))
        if "status" in self._under_way:
            return False
        self._under_way.add("status")
        try:
            told = await self._session.gateway.look_at(VM.name, name)
        except KCError as error:
            # That the host does not answer is told at the top; what was known stays.
            _log.info("a close look at %s: %s", name, error)
            return False
        finally:
            self._under_way.discard("status")
        self._status = dict(told.get("status", {}))
        return True

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
