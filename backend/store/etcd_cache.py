"""The live rows of a table in memory, brought up to date from the store's log before each look.

etcd finds keys, not what is in them: a long-lived process reads a table once, and from then on each list costs one
small request and is as true as if it had been read afresh.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from backend.errors import FailedError
from backend.store import etcd_requests as ask
from backend.store.codec import decode
from backend.store.etcd_client import Client
from backend.store.etcd_faults import RevisionGoneError
from backend.store.etcd_keys import Entry, Keys, read_entry, read_pointer
from backend.store.etcd_requests import Pair
from backend.store.protocol import Predicate
from backend.store.rows import STATUS, ListedRow

_MAXIMUM_STEPS = 1000
_TRIES = 5
_PAGE_BYTES = 1 << 20
_SMALLEST_PAGE, _FIRST_PAGE, _LARGEST_PAGE = 10, 200, 2000


class CachedRow:
    """One live row, and its metadata once a selector has asked for it."""

    __slots__ = ("_metadata", "body", "name", "status", "uid", "version")

    def __init__(self, uid: str, entry: Entry, status: Entry | None) -> None:
        self.uid = uid
        self.name = entry.name
        self.version = entry.version
        self.body = entry.payload
        self.status = status.payload if status else None
        self._metadata: Any = None

    @property
    def metadata(self) -> Any:
        """What the document says of itself for selectors; never to be handed out."""
        if self._metadata is None:
            self._metadata = decode(self.body).get("metadata", {})
        return self._metadata


class Rows:
    """The rows of a table, in the order of their names and in that of their ids."""

    def __init__(self) -> None:
        self.by_id: dict[str, CachedRow] = {}
        self._by_name: dict[str, CachedRow] = {}
        self._names: list[str] = []
        self._ids: list[str] = []

    def replace(self, row: CachedRow) -> None:
        """Take a row in the place of the one that it has under its id."""
        old = self.by_id.get(row.uid)
        if old and old.name != row.name:
            self.remove(row.uid)
            old = None
        if not old:
            insort(self._ids, row.uid)
            if row.name is not None and row.name not in self._by_name:
                insort(self._names, row.name)
        self.by_id[row.uid] = row
        if row.name is not None:
            self._by_name[row.name] = row

    def fill(self, rows: Iterable[CachedRow]) -> None:
        """Take many rows at once, the first ones."""
        self.by_id = {row.uid: row for row in rows}
        self._by_name = {row.name: row for row in self.by_id.values() if row.name is not None}
        self._names = sorted(self._by_name)
        self._ids = sorted(self.by_id)

    def remove(self, uid: str) -> None:
        """Drop a row, if it is there."""
        row = self.by_id.pop(uid, None)
        if not row:
            return
        del self._ids[bisect_right(self._ids, uid) - 1]
        # Its name may already be another one's: a rename and a new row can come in one step, in any order.
        if row.name is not None and self._by_name.get(row.name) is row:
            del self._by_name[row.name]
            del self._names[bisect_right(self._names, row.name) - 1]

    def page(self, after: str, limit: int) -> list[ListedRow]:
        """Return rows after a name, in the order of names."""
        start = bisect_right(self._names, after)
        rows = (self._by_name[name] for name in self._names[start : start + limit])
        return [(row.name or "", row.version, row.body, row.status) for row in rows]

    def scan(self, after: str, limit: int) -> list[ListedRow]:
        """Return rows after an id, in the order of ids."""
        start = bisect_right(self._ids, after)
        rows = (self.by_id[uid] for uid in self._ids[start : start + limit])
        return [(row.uid, row.version, row.body, row.status) for row in rows]

    def sift(self, where: Predicate, after: str) -> list[ListedRow]:
        """Return rows after a name, in the order of names, without those that cannot be meant."""
        narrow = getattr(where, "narrow", None)
        needles: Sequence[Sequence[bytes]] = getattr(where, "needles", ())
        rows: Iterator[CachedRow] = map(self._by_name.__getitem__, self._names[bisect_right(self._names, after) :])
        for group in needles:
            rows = _contain(rows, group)
        if narrow:
            rows = (row for row in rows if narrow({"name": row.name, "metadata": row.metadata}))
        return [(row.name or "", row.version, row.body, row.status) for row in rows]

    def copy(self) -> Rows:
        """Return rows of one's own to change."""
        twin = Rows()
        twin.by_id = dict(self.by_id)
        twin._by_name = dict(self._by_name)
        twin._names = list(self._names)
        twin._ids = list(self._ids)
        return twin


def _contain(rows: Iterator[CachedRow], texts: Sequence[bytes]) -> Iterator[CachedRow]:
    if len(texts) == 1:
        (text,) = texts
        return (row for row in rows if text in row.body)
    return (row for row in rows if any(text in row.body for text in texts))


class TableCache:
    """One table as it is in the store at this moment, for any threads."""

    def __init__(self, client: Client, keys: Keys, table: str) -> None:
        self._client = client
        self._keys = keys
        self._table = table
        self._lock = threading.Lock()
        self._rows: Rows | None = None
        self._revision = 0
        self._epoch = b""

    def __enter__(self) -> Rows:
        """Bring the rows up to date and lend them for the length of a block."""
        self._lock.acquire()
        try:
            return self._refresh()
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _refresh(self) -> Rows:
        for _ in range(_TRIES):
            try:
                rows = self._rows
                if rows is None or not self._go_on(rows):
                    rows = self._rows = self._fill()
            except RevisionGoneError:
                self._rows = None
            except BaseException:
                self._rows = None  # it may be half a step further
                raise
            else:
                return rows
        raise FailedError(
            self._client.what, "etcd compacts its history faster than a table can be read", "let it keep some minutes"
        )

    def _go_on(self, rows: Rows) -> bool:
        """Take what the log has more; False where the table is better read anew."""
        keys = self._keys
        log = ask.get_range(keys.log(self._revision + 1), ask.find_end(keys.logs), limit=_MAXIMUM_STEPS)
        answer = self._client.run([ask.get_all(keys.meta), log])
        revision, floor, epoch = read_state(self._client.what, keys, answer.found[0].pairs)
        if epoch != self._epoch or self._revision < floor or self._revision > revision or answer.found[1].more:
            return False
        touched = {
            pointer.uid
            for pointer in (read_pointer(*pair[:2]) for pair in answer.found[1].pairs)
            if pointer.table.removesuffix(STATUS) == self._table.removesuffix(STATUS)
        }
        if touched:
            self._take(rows, sorted(touched), answer.revision)
        self._revision = revision
        return True

    def _take(self, rows: Rows, uids: Sequence[str], moment: int) -> None:
        """Read rows as they were at one moment of etcd's."""
        keys = self._keys
        wanted = [keys.head(table, uid) for uid in uids for table in (self._table, self._table + STATUS)]
        answer = self._client.run([ask.get(key, revision=moment) for key in wanted])
        for uid, head, status in zip(uids, answer.found[::2], answer.found[1::2], strict=True):
            if head.pairs:
                rows.replace(CachedRow(uid, _read(head.pairs[0]), _read(status.pairs[0]) if status.pairs else None))
            else:
                rows.remove(uid)

    def _fill(self) -> Rows:
        keys = self._keys
        answer = self._client.run([ask.get_all(keys.meta)])
        revision, _, epoch = read_state(self._client.what, keys, answer.found[0].pairs)
        moment = answer.revision
        heads, statuses = (
            {keys.split(pair.key)[2]: _read(pair) for pair in read_pages(self._client, keys.head(table), moment)}
            for table in (self._table, self._table + STATUS)
        )
        rows = Rows()
        rows.fill(CachedRow(uid, entry, statuses.get(uid)) for uid, entry in heads.items())
        self._revision, self._epoch = revision, epoch
        return rows


def _read(pair: Pair) -> Entry:
    return read_entry(pair.value)


def read_pages(client: Client, prefix: bytes, moment: int, start: bytes = b"") -> Iterator[Pair]:
    """Yield the keys that begin with `prefix`, from `start` on, as they were at one moment of etcd's.

    Raises RevisionGoneError where etcd has compacted that moment.
    """
    start, limit = start or prefix, _FIRST_PAGE
    while True:
        operation = ask.get_range(start, ask.find_end(prefix), limit=limit, revision=moment)
        (found,) = client.run([operation]).found
        yield from found.pairs
        if not found.more:
            return
        start = found.pairs[-1].key + b"\0"
        size = sum(len(pair.value) for pair in found.pairs) // len(found.pairs) + 1
        limit = max(_SMALLEST_PAGE, min(_LARGEST_PAGE, _PAGE_BYTES // size))


def read_state(what: str, keys: Keys, meta: Sequence[Pair]) -> tuple[int, int, bytes]:
    """Return revision, floor and epoch; raise FailedError where the store is gone, or half of one."""
    found: Mapping[bytes, bytes] = {pair.key: pair.value for pair in meta}
    if keys.loading in found:
        check_loading(what)
    if keys.identity not in found:
        raise FailedError(what, "it is gone", "see who has deleted its keys", reason="gone")
    return int(found[keys.revision]), int(found[keys.floor]), found.get(keys.epoch, b"0")


def check_loading(what: str) -> None:
    """Raise FailedError: an import is being written, or was cut short."""
    hint = "wait for its end; after one that was cut short, the next write or kc store check --repair clears it away"
    raise FailedError(what, "an import into it has not ended", hint, reason="loading")
