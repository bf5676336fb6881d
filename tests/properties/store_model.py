"""A store as it is meant: lists, dicts, and no thought for speed, files or other processes."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

from backend.errors import ConflictError, NotFoundError
from backend.model.documents import Document

REMARKS = ("updatedAt", "updatedBy", "message")


class Entry(NamedTuple):
    """One accepted write of a document; `body` is None for a deletion."""

    revision: int
    kind: str
    uid: str
    version: int
    type: str
    name: str
    body: Document | None
    by: str
    message: str


def exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def without_remarks(body: Document) -> str:
    return exact({key: value for key, value in body.items() if key not in REMARKS})


class Model:
    """What a store holds, and what it must answer; errors are the store's own."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.revision = 0
        self.floor = 0
        self.entries: list[Entry] = []
        self.statuses: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        self.leases: dict[str, dict[str, Any]] = {}

    def become(self, other: Model) -> None:
        """Be as another model is: the end of a transaction that raised."""
        self.__dict__.update(copy.deepcopy(other.__dict__))

    # --- what it is asked
    def of(self, kind: str, uid: str) -> list[Entry]:
        return [entry for entry in self.entries if (entry.kind, entry.uid) == (kind, uid)]

    def last(self, kind: str, uid: str) -> Entry | None:
        entries = self.of(kind, uid)
        return entries[-1] if entries else None

    def version(self, kind: str, uid: str) -> int:
        last = self.last(kind, uid)
        return last.version if last else 0

    def get(self, kind: str, uid: str) -> Document | None:
        last = self.last(kind, uid)
        if last is None or last.body is None:
            return None
        _, status = self.statuses.get((kind, uid), (0, {}))
        return {**last.body, "version": last.version, "status": status}

    def list(self, kind: str) -> list[Document]:
        uids = {entry.uid for entry in self.entries if entry.kind == kind}
        documents = [document for uid in uids if (document := self.get(kind, uid))]
        return sorted(documents, key=lambda document: document["name"])

    def find(self, kind: str, name: str) -> Document | None:
        return next((document for document in self.list(kind) if document["name"] == name), None)

    def find_deleted(self, kind: str, name: str) -> str:
        dead = [
            entry
            for entry in self.entries
            if (entry.kind, entry.name, entry.body) == (kind, name, None) and self.get(kind, entry.uid) is None
        ]
        return dead[-1].uid if dead else ""

    def live(self) -> list[tuple[str, str, str]]:
        """Return (kind, uid, name) of what is live."""
        uids = sorted({(entry.kind, entry.uid) for entry in self.entries})
        return [(*each, document["name"]) for each in uids if (document := self.get(*each))]

    def dead(self) -> list[tuple[str, str]]:
        """Return (kind, uid) of what was deleted."""
        uids = sorted({(entry.kind, entry.uid) for entry in self.entries})
        return [each for each in uids if not self.get(*each)]

    def feed(self, since: int, kinds: tuple[str, ...]) -> list[tuple[int, str, str, int]]:
        """Return (revision, type, uid, version) of all that may be told of what came after a revision."""
        told = [
            (each.revision, each.type, each.uid, each.version - (each.type == "deleted"))
            for each in self.entries
            if not kinds or each.kind in kinds
        ]
        told += [
            (revision, "status", uid, self.version(kind, uid))
            for (kind, uid), (revision, _) in self.statuses.items()
            if not kinds or kind in kinds
        ]
        return sorted(each for each in told if each[0] > since)

    def newest(self, since: int, kinds: tuple[str, ...]) -> set[int]:
        """Return the revisions of which a follower must be told: the newest of each document and of each status."""
        last = {(each.kind, each.uid): each.revision for each in self.entries if not kinds or each.kind in kinds}
        statuses = {revision for (kind, _), (revision, _) in self.statuses.items() if not kinds or kind in kinds}
        return {revision for revision in (*last.values(), *statuses) if revision > since}

    # --- what is done to it
    def put(self, body: Document, expect: int | None) -> Document:
        kind, uid = body["kind"], body["uid"]
        if expect is not None and self.version(kind, uid) != expect:
            raise ConflictError("model", "version", reason="version", current=self.version(kind, uid))
        current = self.get(kind, uid)
        last = self.last(kind, uid)
        if current and last and without_remarks(last.body or {}) == without_remarks(body):
            return current
        other = self.find(kind, body["name"])
        if other and other["uid"] != uid:
            raise ConflictError("model", "name", reason="name")
        self._write(
            kind, uid, "updated" if current else "created", body["name"], body, body["updatedBy"], body["message"]
        )
        document = self.get(kind, uid)
        assert document
        return document

    def put_status(self, kind: str, uid: str, status: dict[str, Any]) -> None:
        if self.get(kind, uid) is None:
            raise NotFoundError("model", "none")
        current = self.statuses.get((kind, uid))
        if current is None or exact(current[1]) != exact(status):
            self.revision += 1
            self.statuses[kind, uid] = (self.revision, status)

    def delete(self, kind: str, uid: str, expect: int | None, by: str, message: str) -> int:
        current = self.get(kind, uid)
        if current is None:
            raise NotFoundError("model", "none")
        if expect is not None and current["version"] != expect:
            raise ConflictError("model", "version", reason="version", current=current["version"])
        self._write(kind, uid, "deleted", current["name"], None, by, message)
        self.statuses.pop((kind, uid), None)
        return self.version(kind, uid)

    def compact(self, kept: int) -> int:
        """Drop what is beyond a number of versions; return how many that were."""
        before = len(self.entries)
        for kind, uid in {(entry.kind, entry.uid) for entry in self.entries}:
            for entry in self.of(kind, uid)[: -self._count(kind, uid, kept)]:
                self.floor = max(self.floor, entry.revision)
                self.entries.remove(entry)
        return before - len(self.entries)

    def move(self) -> None:
        """Be what an import makes of an export."""
        self.leases = {uid: {**lease, "owner": "", "expiresAt": 0} for uid, lease in self.leases.items()}
        self.floor = self.revision

    def _write(self, kind: str, uid: str, event: str, name: str, body: Document | None, by: str, message: str) -> None:
        self.revision += 1
        version = self.version(kind, uid) + 1
        self.entries.append(Entry(self.revision, kind, uid, version, event, name, copy.deepcopy(body), by, message))
        for entry in self.of(kind, uid)[: -self._count(kind, uid, self.kept)]:
            self.entries.remove(entry)

    def _count(self, kind: str, uid: str, kept: int) -> int:
        """Return how many versions are kept: of what is deleted the last one as it was, too."""
        return kept if self.get(kind, uid) else max(kept, 2)
