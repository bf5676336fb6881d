"""What a store of documents must do; one conformance suite holds every engine to it.

A *body* is a document without what the store itself knows: `version` and `status` are never in it. Identity is the
`uid`; a `name` is unique among the live documents of one kind. Every accepted write gets the next store-wide
*revision*, which orders the change feed. A status is kept apart, has no versions, and moves the feed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from backend.model.documents import Document
from backend.model.upkeep import Compaction, Fault

Predicate = Callable[[Document], bool]


class Retention(NamedTuple):
    """How much is kept of a kind's history: by number on every write, by age when the store is compacted.

    The newest `versions` of a document, of those none that was replaced more than `days` ago; a deleted document's
    for `deleted_days`. 0 days: for ever. What is live is never touched.
    """

    versions: int = 100
    days: float = 0.0
    deleted_days: float = 30.0


class Retentions(NamedTuple):
    """The retention of each kind, `default` for those that `kinds` does not name."""

    default: Retention = Retention()
    kinds: Mapping[str, Retention] = MappingProxyType({})

    def of(self, kind: str) -> Retention:
        """Return the retention of one kind."""
        return self.kinds.get(kind, self.default)


class EtcdOptions(NamedTuple):
    """How to speak to an etcd: files of a CA, of a certificate and of its key; a user. All may be empty."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        """Name the user, and nothing that is secret."""
        return f"EtcdOptions({self.user!r})"


class Page(NamedTuple):
    """One page of a list: whole documents, the cursor of the next page (empty at the end), the store's revision."""

    items: list[Document]
    next: str
    revision: int


class Change(NamedTuple):
    """One entry of the change feed; `document` is whole, or the last one known where `type` is `deleted`."""

    revision: int
    type: str  # "created", "updated", "status" or "deleted"
    document: Document


class Version(NamedTuple):
    """One kept version of a document; `document` is None where it records the deletion."""

    version: int
    revision: int
    at: float
    by: str
    message: str
    document: Document | None


class Transaction(Protocol):
    """Several reads and writes that happen together or not at all; reads see the writes before them."""

    def get(self, kind: str, uid: str) -> Document | None:
        """Return one document, whole, or None."""

    def find(self, kind: str, name: str) -> Document | None:
        """Return the live document of that name, or None."""

    def put(self, body: Document, *, expect: int | None = None) -> Document:
        """Write the next version of a document and return it whole.

        `expect` is the version that must be the current one; 0: the uid must be new. Raises ConflictError for another
        version and for a name that another live document of the kind has. A body equal to the current one makes no
        version.
        """

    def put_status(self, kind: str, uid: str, status: dict[str, Any]) -> None:
        """Replace the status of a live document; an equal one moves nothing."""

    def delete(self, kind: str, uid: str, *, expect: int | None = None, by: str = "", message: str = "") -> int:
        """Delete a live document and return the version that says so; its other versions stay, its status goes.

        `by` and `message` tell who and why in the history. Raises NotFoundError, ConflictError.
        """

    def put_lease(self, uid: str, lease: dict[str, Any] | None) -> None:
        """Replace, or with None remove, the lease of one operation; leases move no feed."""

    def get_lease(self, uid: str) -> dict[str, Any] | None:
        """Return the lease of one operation, or None."""


class Store(Protocol):
    """A store; safe to use from several threads and, on one path or cluster, from several processes."""

    @property
    def url(self) -> str:
        """What `KC_STORE` would name this store."""

    @property
    def identity(self) -> str:
        """The uuid that this store was born with."""

    def get(self, kind: str, uid: str) -> Document | None:
        """Return one live document, whole, or None."""

    def find(self, kind: str, name: str) -> Document | None:
        """Return the live document of that name, or None."""

    def list_documents(
        self, kind: str, *, where: Predicate | None = None, limit: int | None = None, after: str = ""
    ) -> Page:
        """Return live documents in the order of their names, those that `where` accepts, `after` a cursor."""

    def revision(self) -> int:
        """Return the revision of the newest write; 0 for a new store."""

    def history(self, kind: str, uid: str) -> list[Version]:
        """Return the kept versions of a document, the oldest first; also of a deleted one."""

    def find_deleted(self, kind: str, name: str) -> str:
        """Return the uid of the document of that name that was deleted last; empty where there is none."""

    def changes(self, since: int, kinds: Sequence[str] = (), *, wait: float = 0.0) -> list[Change]:
        """Return what changed after revision `since`, in order, waiting up to `wait` seconds for the first change.

        Middle states may be left out, the newest never is. Raises ConflictError with detail `compacted` where `since`
        is too old to tell.
        """

    def leases(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the leases of all unfinished operations, as (operation's uid, lease)."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction: committed durably when the block ends, dropped when it raises."""

    def compact(self) -> Compaction:
        """Drop what the store's retentions no longer keep, and give its room back.

        The feed's beginning moves to the newest revision that was dropped: whoever follows from before is told so.
        """

    def check(self, *, repair: bool = False) -> list[Fault]:
        """Verify every row, version, head, name and index; with `repair` make again what follows from the versions."""

    def dump(self) -> Iterator[Document]:
        """Yield the whole store as JSON objects, from one moment: a header, every version and status, leases, an end.

        First `{"kc": "export", "format": 1, "identity", "revision", "at"}`; then, in the order of revisions,
        `{"revision", "table", "id", "version", "at", "event", "name", "by", "message", "document"}`, whose document is
        null for a deletion, and whose table is `KIND.status` for a status; `{"lease", "value"}`; at last
        `{"end": revision, "entries"}`.
        """

    def load(self, records: Iterable[Document]) -> int:
        """Take what `dump` gave, revisions, versions and identity included, and return the number of entries.

        Leases lose their owner. All or nothing. Raises ConflictError where the store is not empty, RefusedError for
        records that are damaged, incomplete or of a newer format.
        """

    def close(self) -> None:
        """Let go of files and connections; a second call does nothing."""


def watch(store: Store, since: int, kinds: Sequence[str] = (), *, wait: float = 1.0) -> Iterator[list[Change]]:
    """Yield the changes after `since` in batches for ever; an empty batch every `wait` seconds without one."""
    while True:
        changes = store.changes(since, kinds, wait=wait)
        if changes:
            since = changes[-1].revision
        yield changes
