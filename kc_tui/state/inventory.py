"""What KC knows at this moment: documents by kind and uid, the newest of what lists and the feed have told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from backend.model.documents import Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TRASH, VM
from backend.service import DocumentPage, Event

WATCHED: tuple[str, ...] = tuple(kind.name for kind in (VM, IMAGE, NETWORK, MACHINE_TYPE, OPERATION, TRASH))
ENDED_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class _Entry(NamedTuple):
    revision: int
    document: Document


class Inventory:
    """The live documents of each kind, as the gateway hands them over: every string has passed the gate for terminals.

    Lists and the feed cross on their way, so each document is kept with the revision at which it was told, and an
    older word never takes the place of a newer one.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, _Entry]] = {kind: {} for kind in WATCHED}
        self._gone: dict[str, int] = {}
        self._active: dict[str, str] = {}
        self.loaded: set[str] = set()
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.filtered: set[str] = set()

    def documents(self, kind: str) -> list[Document]:
        """Return the documents of a kind, in no particular order."""
        return [entry.document for entry in self._kinds[kind].values()]

    def count(self, kind: str) -> int:
        """Return how many documents of a kind there are."""
        return len(self._kinds[kind])

    def get(self, kind: str, uid: str) -> Document | None:
        """Return the document of that uid."""
        entry = self._kinds[kind].get(uid)
        return None if entry is None else entry.document

    def find(self, kind: str, name: str) -> Document | None:
        """Return the document of that name; KC's own before a foreign one."""
        found = [entry.document for entry in self._kinds[kind].values() if entry.document.get("name") == name]
        return min(found, key=lambda document: not document.get("version"), default=None)

    def operation_on(self, uid: str) -> Document | None:
        """Return the unfinished operation that works on the object of that uid."""
        operation = self._active.get(uid)
        return None if operation is None else self.get(OPERATION.name, operation)

    @property
    def active_operations(self) -> list[Document]:
        """The unfinished operations."""
        found = (self.get(OPERATION.name, uid) for uid in self._active.values())
        return [document for document in found if document is not None]

    def replace(self, kind: str, page: DocumentPage) -> None:
        """Take a whole list of a kind: what it does not have is gone, unless the feed told of it later."""
        known = self._kinds[kind]
        listed = {str(document.get("uid", "")) for document in page.items}
        for uid in [uid for uid, entry in known.items() if uid not in listed and entry.revision <= page.revision]:
            del known[uid]
        for document in page.items:
            self._put(kind, str(document.get("uid", "")), document, page.revision)
        if not page.next:
            self.loaded.add(kind)
        self.warnings[kind] = tuple(page.warnings)
        (self.filtered.add if page.filtered else self.filtered.discard)(kind)
        if kind == OPERATION.name:
            self._active = {}
            for entry in known.values():
                self._note_operation(entry.document)

    def apply(self, events: Iterable[Event]) -> dict[str, set[str]]:
        """Take changes from the feed; return the uids that changed, by kind."""
        changed: dict[str, set[str]] = {}
        for event in events:
            kind, uid = str(event.document.get("kind", "")), str(event.document.get("uid", ""))
            if kind not in self._kinds:
                continue
            if event.type == "deleted":
                self._drop(kind, uid, event)
            else:
                self._put(kind, uid, event.document, event.revision)
            changed.setdefault(kind, set()).add(uid)
            if kind == OPERATION.name:
                # The object that it works on looks different, too.
                target = event.document.get("spec", {}).get("target", {})
                changed.setdefault(str(target.get("kind", "")), set()).add(str(target.get("uid", "")))
        return changed

    def _put(self, kind: str, uid: str, document: Document, revision: int) -> None:
        known = self._kinds[kind].get(uid)
        if (known is not None and known.revision > revision) or self._gone.get(uid, -1) > revision:
            return
        self._kinds[kind][uid] = _Entry(revision, document)
        if kind == OPERATION.name:
            self._note_operation(document)

    def _drop(self, kind: str, uid: str, event: Event) -> None:
        known = self._kinds[kind].pop(uid, None)
        self._gone[uid] = event.revision
        if kind == OPERATION.name and known is not None:
            self._forget_operation(known.document)

    def _note_operation(self, operation: Document) -> None:
        if operation.get("status", {}).get("state") in ENDED_STATES:
            self._forget_operation(operation)
        else:
            self._active[_target(operation)] = str(operation.get("uid", ""))

    def _forget_operation(self, operation: Document) -> None:
        target = _target(operation)
        if self._active.get(target) == operation.get("uid"):
            del self._active[target]


def _target(operation: Document) -> str:
    return str(operation.get("spec", {}).get("target", {}).get("uid", ""))
