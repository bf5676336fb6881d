"""The whole of a store in an etcd at one moment, and into an empty one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from backend.errors import ConflictError, FailedError, RefusedError
from backend.store import etcd_requests as ask
from backend.store.codec import decode
from backend.store.etcd_cache import read_pages, read_state
from backend.store.etcd_client import Client
from backend.store.etcd_keys import DIGITS, Entry, Keys, Pointer, make_entry, read_entry, read_pointer
from backend.store.etcd_transactions import Transactions, measure
from backend.store.rows import LogRecord, Snapshot

_PAGE = 200
# Well below what etcd takes at once.
CHUNK_BYTES = 1 << 20
_AGAIN = "export it again"


@contextmanager
def open_snapshot(client: Client, keys: Keys) -> Iterator[Snapshot]:
    """Open a store as it is at this moment; FailedError meanwhile where etcd compacts that moment away."""
    meta, leases = (answer := client.run([ask.get_all(keys.meta), ask.get_all(keys.leases)])).found
    revision, _, _ = read_state(client.what, keys, meta.pairs)
    (identity,) = (pair.value.decode() for pair in meta.pairs if pair.key == keys.identity)
    held = [(keys.split(pair.key)[1], pair.value) for pair in leases.pairs]
    yield Snapshot(identity, revision, _read_records(client, keys, answer.revision), held)


def _read_records(client: Client, keys: Keys, moment: int) -> Iterator[LogRecord]:
    pointers = (read_pointer(pair.key, pair.value) for pair in read_pages(client, keys.logs, moment))
    while page := list(islice(pointers, _PAGE)):
        wanted = [keys.version(pointer.table, pointer.uid, pointer.version) for pointer in page]
        answer = client.run([ask.get(key, revision=moment) for key in wanted])
        for pointer, found in zip(page, answer.found, strict=True):
            if not found.pairs:
                why = f"revision {pointer.revision} is missing"
                raise FailedError(client.what, why, "run kc store check", reason="damaged")
            yield _make_record(pointer, read_entry(found.pairs[0].value))


def _make_record(pointer: Pointer, entry: Entry) -> LogRecord:
    return LogRecord(
        entry.revision, pointer.table, pointer.uid, entry.version, entry.at, entry.event, entry.name,
        entry.body, entry.note,
    )  # fmt: skip


class Loading:
    """Records on their way into an empty store; inside a transaction."""

    def __init__(self, keys: Keys, transactions: Transactions) -> None:
        self._keys = keys
        self._transactions = transactions
        self._last: dict[tuple[str, str], Entry] = {}
        self._marked = False
        self._size = 0
        self.count = 0
        self.revision = 0

    def take(self, record: LogRecord) -> None:
        """Write one record; raises RefusedError where it does not follow from those before."""
        key = (record.table, record.uid)
        entry = make_entry(record)
        before = self._last.get(key)
        if before and before.version + 1 != entry.version:
            why = f"version {record.version} of {record.uid} does not follow version {before.version}"
            raise RefusedError("import", why, _AGAIN)
        if not self.revision < entry.revision < 10**DIGITS:
            raise RefusedError("import", f"revision {entry.revision} is out of order", _AGAIN)
        check_name(record.table, record.uid, entry)
        self._last[key] = entry._replace(payload=b"")
        keys, data = self._keys, entry.encode()
        writes = keys.derive(record.table, record.uid, entry)
        writes[keys.version(record.table, record.uid, entry.version)] = data
        for name, value in writes.items():
            self._transactions.write(name, value)
        self._transactions.write(keys.head(*key), data if entry.body is not None else None)
        self.count += 1
        self.revision = entry.revision
        self._size += measure({**writes, keys.head(*key): data})
        if self._size > CHUNK_BYTES:
            self._flush()

    def finish(self, identity: str, leases: Sequence[tuple[str, bytes]]) -> None:
        """Write names, leases and what makes it a store."""
        keys, write = self._keys, self._transactions.write
        names: dict[bytes, str] = {}
        for (table, uid), entry in self._last.items():
            if entry.event == "deleted" or entry.name is None:
                continue
            key = keys.name(table, entry.name)
            if key in names:
                raise RefusedError("import", f"two documents in it have the name {entry.name}", _AGAIN)
            names[key] = uid
        for key, uid in names.items():
            write(key, uid.encode())
            self._grow(len(key) + len(uid))
        for uid, body in leases:
            write(keys.lease(uid), body)
            self._grow(len(uid) + len(body))
        self._transactions.set_revision(self.revision)
        write(keys.identity, identity.encode())
        # What the other store has dropped is not known, so nobody goes on from before.
        write(keys.floor, b"%d" % self.revision)
        write(keys.epoch, identity.encode())
        if self._marked:
            write(keys.loading, None)

    def _grow(self, size: int) -> None:
        self._size += size + 2 * _PAGE
        if self._size > CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        # From here on nobody takes what is there for a store, until the last request takes the mark away.
        if not self._marked:
            self._transactions.write(self._keys.loading, b"1")
            self._marked = True
        self._transactions.flush()
        self._size = 0

    def give_up(self) -> None:
        """Take away what has been written."""
        if self._marked:
            self._transactions.clear()


def check_name(table: str, uid: str, entry: Entry) -> None:
    """Raise RefusedError where the name or id of an entry are not those in the document."""
    body = None if entry.body is None else decode(entry.body)
    if body is None:
        return
    is_whole = isinstance(body, dict) and body.get("kind") == table
    if is_whole and (body.get("uid") != uid or not entry.name or body.get("name") != entry.name):
        raise RefusedError("import", f"the name or uid of {uid} is not that of its document", _AGAIN)
    if not is_whole and entry.name is not None:
        raise RefusedError("import", f"{uid} has a name and is no document of its kind", _AGAIN)


def load(
    keys: Keys,
    transactions: Transactions,
    what: str,
    identity: str,
    records: Iterable[LogRecord],
    leases: Sequence[tuple[str, bytes]],
) -> int:
    """Write records, revisions included, into an empty store, all or nothing, and return their number.

    `leases` may be filled by the last of the records. Raises ConflictError, RefusedError.
    """
    with transactions.transaction():
        (revision,) = transactions.look_up([keys.revision])
        if revision != b"0" or transactions.look_through(keys.leases, keys_only=True):
            hint = "name another prefix with KC_STORE"
            raise ConflictError(what, "it is not empty", hint, reason="not-empty")
        loading = Loading(keys, transactions)
        try:
            for record in records:
                loading.take(record)
            loading.finish(identity, leases)
        except BaseException:
            loading.give_up()
            raise
        return loading.count
