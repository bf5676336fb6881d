"""What an engine keeps, and what the tables and the store ask of one.

A *row* is one live document of one table: its version, its bytes, and the bytes of its status where it has one. The
status of the document `id` in table `T` is the document `id` in table `T.status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from backend.model.documents import Document
from backend.model.upkeep import Compaction, Fault
from backend.store.codec import decode
from backend.store.protocol import Predicate

STATUS = ".status"

Row = tuple[int, bytes, bytes | None]
"""version, body, status"""


ListedRow = tuple[str, int, bytes, bytes | None]
"""name or id, version, body, status"""


class Label(NamedTuple):
    """What a document of KC's is found by: its name, and its metadata where that is small; any other row has none."""

    name: str | None = None
    metadata: bytes | None = None


class LogEntry(NamedTuple):
    """One write; `body` is None where it was a deletion, and `note` then says who and why; `at` in Unix seconds."""

    revision: int
    version: int
    at: float
    body: bytes | None
    note: bytes | None = None


class LogRecord(NamedTuple):
    """One write with all that is known of it, as stores hand it to each other."""

    revision: int
    table: str
    uid: str
    version: int
    at: float
    event: str
    name: str | None
    body: bytes | None
    note: bytes | None = None


class Snapshot(NamedTuple):
    """A whole store at one moment; `records` in the order of revisions, read while they are asked for."""

    identity: str
    revision: int
    records: Iterator[LogRecord]
    leases: list[tuple[str, bytes]]


class Change(NamedTuple):
    """One entry of the feed: the row that it is about, and `created`, `updated`, `status` or `deleted`."""

    revision: int
    table: str
    event: str
    row: Row


class Engine(Protocol):
    """Rows, their versions and their feed; the tables, and so the store, run on any of these.

    Reads made inside a transaction by the thread that opened it see its writes; the others see committed rows only.
    """

    @property
    def identity(self) -> str:
        """The uuid that the store was born with."""

    @property
    def what(self) -> str:
        """How errors name the store."""

    def read(self, table: str, uid: str) -> Row | None:
        """Return one live row."""

    def find(self, table: str, name: str) -> Row | None:
        """Return the live row of that name."""

    def last_version(self, table: str, uid: str) -> int:
        """Return the newest version that was ever written under an id, a deletion included; 0 without any."""

    def page(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows that have a name, after a name and in the order of names."""

    def sift(self, table: str, where: Predicate, after: str) -> Iterator[ListedRow]:
        """Yield rows that have a name, after a name and in the order of names, among them all that `where` accepts.

        Those that are known not to be, from an index or a cache, are left out; the caller asks `where` of the others.
        """

    def scan(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows after an id, in the order of ids."""

    def count(self, table: str) -> int:
        """Return the number of live rows of a table."""

    def tables(self) -> list[str]:
        """Return the names of the tables that have rows."""

    def revision(self) -> int:
        """Return the revision of the newest write; 0 for none."""

    def history(self, table: str, uid: str) -> list[LogEntry]:
        """Return what is kept of the writes under an id, the oldest first."""

    def find_deleted(self, table: str, name: str) -> str:
        """Return the id of the row of that name that was deleted last and is not live again; empty for none."""

    def changes(self, since: int, tables: Sequence[str], limit: int) -> tuple[list[Change], int]:
        """Return the feed after a revision (of some tables; of all where none is named), and how far it was read."""

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a write after `seen` (see `moment`), and return whether one came."""

    def moment(self) -> int:
        """Return a number that moves with each write that is noticed; ask for it before reading."""

    def transaction(self, *, join: bool = False) -> AbstractContextManager[None]:
        """Open a transaction for this thread, or a part of the one that it has open: all of it or nothing.

        With `join` a part is not taken back by itself; that is for what fails before it writes.
        """

    def insert(self, table: str, uid: str, label: Label, body: bytes) -> int:
        """Write a row that is not live and return its version; raise ConflictError where the name is taken."""

    def update(self, table: str, uid: str, label: Label, body: bytes, version: int) -> int:
        """Write the version after `version` of a live row whose name stays, and return it."""

    def rename(self, table: str, uid: str, name: str | None) -> None:
        """Change the name of a live row; raise ConflictError where it is taken."""

    def remove(self, table: str, uid: str, name: str | None, version: int, note: bytes | None = None) -> int:
        """Delete a live row whose version is `version`, and return the version that says so; its versions stay."""

    def forget(self, table: str, uid: str) -> None:
        """Delete a row with all its versions, without a trace in the feed."""

    def put_lease(self, uid: str, body: bytes | None) -> None:
        """Replace or remove a lease."""

    def leases(self, uid: str = "") -> list[tuple[str, bytes]]:
        """Return all leases, or that of one id."""

    def compact(self) -> Compaction:
        """Drop what the retentions no longer keep; see the store's `compact`."""

    def check(self, *, repair: bool) -> list[Fault]:
        """Verify everything that is kept; see the store's `check`."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open the whole store as it is at this moment."""

    def load(self, identity: str, records: Iterable[LogRecord], leases: Sequence[tuple[str, bytes]]) -> int:
        """Write what a snapshot has into an empty store, all or nothing, and return the number of records.

        A name, head and status follow from the records. Raises ConflictError where the store is not empty.
        """

    def close(self) -> None:
        """Let go of everything; a second call does nothing."""


def join_row(row: Row) -> Document:
    """Return the whole document of a row: its body with `version` and `status`; a copy of the caller's own."""
    version, body, status = row
    return complete(decode(body), version, status)


def complete(body: Document, version: int, status: bytes | None) -> Document:
    """Make a body the whole document that it is a part of, in place, and return it."""
    body["version"] = version
    body["status"] = decode(status) if status else {}
    return body


def strip_document(document: dict[str, Any]) -> Document:
    """Return the body of a whole document: what is stored of it."""
    return {key: value for key, value in document.items() if key not in ("version", "status")}
