"""The store of documents, over TinyDB's tables and an engine.

TinyDB is imported with the first write or query: listing and looking up ask the engine for rows and need no more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from backend.errors import NotFoundError, RefusedError
from backend.model.documents import Document
from backend.model.upkeep import Compaction, Fault
from backend.store.codec import decode, encode
from backend.store.faults import describe
from backend.store.protocol import Change, Page, Predicate, Version
from backend.store.rows import STATUS, Engine, ListedRow, join_row

if TYPE_CHECKING:
    from backend.store.tables import DocumentDatabase, DocumentTable

_PAGE = 500
_FEED_PAGE = 200
_MEMORY = 64


class TinyDBTransaction:
    """Reads and writes of one transaction, as a block; for the thread that opened it, until it ends."""

    def __init__(self, engine: Engine, database: DocumentDatabase) -> None:
        self._engine = engine
        self._database = database
        self._block = engine.transaction()

    def __enter__(self) -> Self:
        self._block.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._block.__exit__(kind, error, at)

    def get(self, kind: str, uid: str) -> Document | None:
        """Return one document, whole, or None."""
        row = self._engine.read(kind, uid)
        return join_row(row) if row else None

    def find(self, kind: str, name: str) -> Document | None:
        """Return the live document of that name, or None."""
        row = self._engine.find(kind, name)
        return join_row(row) if row else None

    def put(self, body: Document, *, expect: int | None = None) -> Document:
        """Write the next version of a document and return it whole; a `version` and `status` in it are passed over."""
        for field in ("kind", "name", "uid"):
            if not isinstance(body.get(field), str) or not body[field]:
                raise RefusedError(describe("document", str(body.get("name"))), f"it has no {field}", "give it one")
        if "." in body["kind"]:
            # The part after a dot tells what is kept about a kind's documents, such as their status.
            raise RefusedError(describe("document", body["name"]), "a kind has no dot", "take another kind")
        return self._table(body["kind"]).put(body, expect=expect)

    def put_status(self, kind: str, uid: str, status: dict[str, Any]) -> None:
        """Replace the status of a live document; an equal one moves nothing."""
        if self._engine.read(kind, uid) is None:
            raise NotFoundError(describe(kind, uid), "there is none", "it may just have been deleted")
        self._table(kind + STATUS).replace(uid, status)

    def delete(self, kind: str, uid: str, *, expect: int | None = None, by: str = "", message: str = "") -> int:
        """Delete a live document and return the version that says so; its other versions stay, its status goes."""
        note = encode({"updatedBy": by, "message": message}, kind, uid)[0] if by or message else None
        return self._table(kind).delete(uid, expect=expect, note=note)

    def put_lease(self, uid: str, lease: dict[str, Any] | None) -> None:
        """Replace, or with None remove, the lease of one operation."""
        self._engine.put_lease(uid, None if lease is None else encode(lease, "lease", uid)[0])

    def get_lease(self, uid: str) -> dict[str, Any] | None:
        """Return the lease of one operation, or None."""
        found = self._engine.leases(uid)
        return decode(found[0][1]) if found else None

    def _table(self, name: str) -> DocumentTable:
        return self._database.table(name)  # type: ignore[return-value]  # the table class is a hook of TinyDB's


class TinyDBStore:
    """The store of documents; see `backend.store.protocol` for what it promises."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self.url = url
        self._database: DocumentDatabase | None = None
        # How far the feed was read for a cursor that nothing followed: those who ask for few kinds read no more twice.
        self._read_until: dict[tuple[int, tuple[str, ...]], int] = {}

    @property
    def identity(self) -> str:
        """The uuid that this store was born with."""
        return self._engine.identity

    @property
    def database(self) -> DocumentDatabase:
        """The documents as TinyDB's tables, one a kind, for its queries."""
        if self._database is None:
            from backend.store.tables import DocumentDatabase  # noqa: PLC0415 - it imports TinyDB

            self._database = DocumentDatabase(self._engine)
        return self._database

    def get(self, kind: str, uid: str) -> Document | None:
        """Return one live document, whole, or None."""
        row = self._engine.read(kind, uid)
        return join_row(row) if row else None

    def find(self, kind: str, name: str) -> Document | None:
        """Return the live document of that name, or None."""
        row = self._engine.find(kind, name)
        return join_row(row) if row else None

    def list_documents(
        self, kind: str, *, where: Predicate | None = None, limit: int | None = None, after: str = ""
    ) -> Page:
        """Return live documents in the order of their names, those that `where` accepts, `after` a cursor.

        What is written meanwhile may be in it or not; the feed after the page's revision tells of it in any case.
        """
        revision = self._engine.revision()
        holds = getattr(where, "holds", where)
        items: list[Document] = []
        for name, version, body, status in self._rows(kind, where, after, limit):
            document = join_row((version, body, status))
            if holds is None or holds(document):
                if len(items) == limit:
                    return Page(items, after, revision)
                items.append(document)
            after = name
        return Page(items, "", revision)

    def _rows(self, kind: str, where: Predicate | None, after: str, limit: int | None) -> Iterator[ListedRow]:
        if where is not None:
            yield from self._engine.sift(kind, where, after)
            return
        size = _PAGE if limit is None else min(_PAGE, limit + 1)
        while rows := self._engine.page(kind, after, size):
            yield from rows
            if len(rows) < size:
                return
            after = rows[-1][0]

    def revision(self) -> int:
        """Return the revision of the newest write; 0 for a new store."""
        return self._engine.revision()

    def history(self, kind: str, uid: str) -> list[Version]:
        """Return the kept versions of a document, the oldest first; also of a deleted one."""
        versions = []
        for entry in self._engine.history(kind, uid):
            document = None if entry.body is None else join_row((entry.version, entry.body, None))
            said = document or decode(entry.note or b"{}")
            by, message = str(said.get("updatedBy", "")), str(said.get("message", ""))
            versions.append(Version(entry.version, entry.revision, entry.at, by, message, document))
        return versions

    def find_deleted(self, kind: str, name: str) -> str:
        """Return the uid of the document of that name that was deleted last and is not live again; or empty."""
        return self._engine.find_deleted(kind, name)

    def changes(self, since: int, kinds: Sequence[str] = (), *, wait: float = 0.0) -> list[Change]:
        """Return what changed after revision `since`, in order, waiting up to `wait` seconds for the first change."""
        deadline = time.monotonic() + wait
        tables = tuple(sorted({table for kind in kinds for table in (kind, kind + STATUS)}))
        at = self._read_until.pop((since, tables), since)
        while True:
            moment = self._engine.moment() if wait else 0
            found, at = self._engine.changes(at, tables, _FEED_PAGE)
            changes = [
                Change(change.revision, change.event, document)
                for change in found
                # Tables that hold no documents of KC's are nobody's concern.
                if (document := join_row(change.row)).get("kind") == change.table
            ]
            if changes:
                return changes
            left = deadline - time.monotonic()
            if not found and (left <= 0 or not self._engine.wait(moment, left)):
                break
        if at > since:
            if len(self._read_until) >= _MEMORY:
                self._read_until.clear()
            self._read_until[since, tables] = at
        return []

    def leases(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the leases of all unfinished operations, as (operation's uid, lease)."""
        return [(uid, decode(body)) for uid, body in self._engine.leases()]

    def transaction(self) -> TinyDBTransaction:
        """Open a transaction: committed durably when the block ends, dropped when it raises.

        Inside another one of the same thread it is a part of that one.
        """
        return TinyDBTransaction(self._engine, self.database)

    def compact(self) -> Compaction:
        """Drop what the retentions no longer keep, and give its room back."""
        return self._engine.compact()

    def check(self, *, repair: bool = False) -> list[Fault]:
        """Verify every row, version, head, name and index; with `repair` make again what follows from the versions."""
        return self._engine.check(repair=repair)

    def dump(self) -> Iterator[Document]:
        """Yield the whole store as JSON objects; see the protocol."""
        from backend.store.exchange import dump  # noqa: PLC0415 - who lists needs none of it

        yield from dump(self._engine)

    def load(self, records: Iterable[Document]) -> int:
        """Take what `dump` gave; see the protocol."""
        from backend.store.exchange import load  # noqa: PLC0415

        return load(self._engine, records)

    def close(self) -> None:
        """Let go of files and connections; a second call does nothing."""
        self._engine.close()
