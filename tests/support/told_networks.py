"""A service whose networks are as a host has told of them: the states that screens have to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.local import LocalService
from backend.model.documents import Document
from backend.model.kinds import NETWORK
from backend.service import DocumentPage
from backend.store.opening import open_store
from support.world import Lab

Told = Mapping[str, Mapping[str, Any]]
"""What the host tells of networks, by their names."""
LISTED = ("state", "problems", "gateway", "mtu", "bridge", "stale")
"""What a list tells; the rest is told of one network alone."""


class TellingService(LocalService):
    """Documents, store and operations are real; what the kernel of a host would say is `told`."""

    told: Told

    def list_documents(self, kind: str, **options: Any) -> DocumentPage:
        """List as always, with what the host tells."""
        page = super().list_documents(kind, **options)
        if kind != NETWORK.name or not options.get("observe", True):
            return page
        return page._replace(items=[self._tell(item, is_alone=False) for item in page.items])

    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        """Get as always, with what the host tells."""
        document = super().get(kind, name, observe=observe, version=version)
        return self._tell(document, is_alone=True) if kind == NETWORK.name and observe and version is None else document

    def _tell(self, document: Document, *, is_alone: bool) -> Document:
        told = self.told.get(document["name"], {"state": "up"})
        shown = {key: value for key, value in told.items() if is_alone or key in LISTED}
        return {**document, "status": {**document.get("status", {}), **shown}}


def tell(lab: Lab, told: Told) -> TellingService:
    """Return another service on a lab, for the application."""
    service = TellingService(open_store(lab.service.store.url), lab.host, lab.service.settings)
    service.told = told
    return service
