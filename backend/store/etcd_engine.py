"""The etcd engine: rows, versions and the feed as keys of an etcd cluster, for KCs on several machines.

The same shape as in the file: an append-only log whose revisions are the store's own and without gaps, every version
under its own key, and a head for each live row. Writers take turns by a lock in etcd; a reader needs none.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from backend.errors import ConflictError, KCError, NotFoundError, RefusedError
from backend.model.upkeep import Compaction, Fault
from backend.store import etcd_requests as ask
from backend.store.etcd_address import Address
from backend.store.etcd_cache import CachedRow, Rows, TableCache
from backend.store.etcd_client import Client
from backend.store.etcd_feed import read_changes
from backend.store.etcd_keys import FORMAT, Entry, Keys, read_entry
from backend.store.etcd_transactions import Transactions
from backend.store.etcd_transfer import load, open_snapshot
from backend.store.etcd_upkeep import check, compact
from backend.store.etcd_watcher import EtcdWatcher
from backend.store.faults import describe
from backend.store.files import new_uid
from backend.store.protocol import EtcdOptions, Predicate, Retentions
from backend.store.rows import STATUS, Change, Label, ListedRow, LogEntry, LogRecord, Row, Snapshot

_KEPT = Retentions()
_PLAIN = EtcdOptions()
_DELETIONS = 50
_MEMORY = 10_000
_OPENING_PATIENCE = 3.0  # a wrong address is the likelier cause than an election


class EtcdEngine:
    """An engine over an etcd of version 3; for any threads, and for any number of processes and machines.

    Made after a fork, never taken through one.
    """

    def __init__(
        self, address: Address, options: EtcdOptions = _PLAIN, *, create: bool = True, retentions: Retentions = _KEPT
    ) -> None:
        """Open the store at `address`, made where there is none and `create` allows it.

        Raises UnreachableError, DeniedError, NotFoundError, and RefusedError for a prefix that others use.
        """
        self._client = Client(address, options)
        self._keys = Keys(address.root)
        self._retentions = retentions
        self._watcher = EtcdWatcher(self._client, self._keys)
        self._transactions = Transactions(self._client, self._keys, self._watcher.notify)
        self._caches: dict[str, TableCache] = {}
        self._found: dict[tuple[str, str], str] = {}
        self._mutex = threading.Lock()
        # A process that forgets to close does so at its end all the same: the next writer need not wait for a lease.
        self._end = weakref.finalize(self, _close, self._client, self._watcher, self._transactions)
        try:
            self.identity = _ensure_store(self._client, self._keys, create=create)
        except KCError:
            self.close()
            raise

    @property
    def what(self) -> str:
        """How errors name the store."""
        return self._client.what

    def close(self) -> None:
        """Let go of everything, and wake who waits; a second call does nothing."""
        _close(self._client, self._watcher, self._transactions)
        self._end.detach()

    def read(self, table: str, uid: str) -> Row | None:
        """Return one live row."""
        keys = self._keys
        wanted = [keys.head(table, uid), keys.head(table + STATUS, uid)]
        # A write that follows asks for the last version.
        head, status = self._transactions.look_up(wanted, keys.history(table, uid))
        return _make_row(head, status)

    def find(self, table: str, name: str) -> Row | None:
        """Return the live row of that name."""
        keys = self._keys
        uid = self._found.get((table, name))
        while True:
            wanted = [keys.name(table, name)]
            if uid is not None:  # it mostly is the one that it was the last time
                wanted += [keys.head(table, uid), keys.head(table + STATUS, uid)]
            found, *rows = self._transactions.look_up(wanted)
            if found is None:
                return None
            if uid == found.decode():
                return _make_row(*rows)
            uid = found.decode()
            if len(self._found) >= _MEMORY:
                self._found.clear()
            self._found[table, name] = uid

    def last_version(self, table: str, uid: str) -> int:
        """Return the newest version that was ever written under an id, a deletion included; 0 without any."""
        last = self._transactions.look_last(self._keys.history(table, uid))
        return int(self._keys.split(last)[3]) if last else 0

    def page(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows that have a name, after a name and in the order of names."""
        with self._cache(table) as rows:
            return self._as_written(table, rows).page(after, limit)

    def sift(self, table: str, where: Predicate, after: str) -> Iterator[ListedRow]:
        """Yield rows that have a name, after a name and in the order of names, among them all that `where` accepts."""
        with self._cache(table) as rows:
            found = self._as_written(table, rows).sift(where, after)
        return iter(found)

    def scan(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows after an id, in the order of ids."""
        with self._cache(table) as rows:
            return self._as_written(table, rows).scan(after, limit)

    def _cache(self, table: str) -> TableCache:
        with self._mutex:
            if table not in self._caches:
                self._caches[table] = TableCache(self._client, self._keys, table)
            return self._caches[table]

    def _as_written(self, table: str, rows: Rows) -> Rows:
        """Return rows with what this thread's transaction has changed of them."""
        if not self._transactions.writing:
            return rows
        prefixes = self._keys.head(table), self._keys.head(table + STATUS)
        touched = {self._keys.split(key)[2] for key in self._transactions.writes if key.startswith(prefixes)}
        if not touched:
            return rows
        mine = rows.copy()
        for uid in touched:
            entry, status = self._read_head(table, uid), self._read_head(table + STATUS, uid)
            if entry:
                mine.replace(CachedRow(uid, entry, status))
            else:
                mine.remove(uid)
        return mine

    def count(self, table: str) -> int:
        """Return the number of live rows of a table."""
        if self._transactions.writing:
            return len(self._transactions.look_through(self._keys.head(table), keys_only=True))
        return self._client.run([ask.get_all(self._keys.head(table), count_only=True)]).found[0].total

    def tables(self) -> list[str]:
        """Return the names of the tables that have rows."""
        if self._transactions.writing:
            heads = self._transactions.look_through(self._keys.heads, keys_only=True)
            return sorted({self._keys.split(key)[1] for key in heads})
        tables: list[str] = []
        start = self._keys.heads
        end = ask.find_end(start)
        # One step a table, instead of a walk over all rows.
        while True:
            found = self._client.run([ask.get_range(start, end, keys_only=True, limit=1)]).found[0].pairs
            if not found:
                return sorted(tables)
            tables.append(self._keys.split(found[0].key)[1])
            start = ask.find_end(self._keys.head(tables[-1]))

    def revision(self) -> int:
        """Return the revision of the newest write; 0 for none."""
        (found,) = self._transactions.look_up([self._keys.revision])
        return int(found or 0)

    def history(self, table: str, uid: str) -> list[LogEntry]:
        """Return what is kept of the writes under an id, the oldest first."""
        kept = self._transactions.look_through(self._keys.history(table, uid))
        entries = map(read_entry, kept.values())
        return [LogEntry(each.revision, each.version, each.at, each.body, each.note) for each in entries]

    def find_deleted(self, table: str, name: str) -> str:
        """Return the id of the row of that name that was deleted last and is not live again; empty for none."""
        start = self._keys.deletions(table, name)
        uids = [uid.decode() for uid in reversed(self._transactions.look_through(start).values())]
        for at in range(0, len(uids), _DELETIONS):
            some = uids[at : at + _DELETIONS]
            heads = self._transactions.look_up([self._keys.head(table, uid) for uid in some])
            for uid, head in zip(some, heads, strict=True):
                if head is None:
                    return uid
        return ""

    def leases(self, uid: str = "") -> list[tuple[str, bytes]]:
        """Return all leases, or that of one id."""
        if uid:
            (found,) = self._transactions.look_up([self._keys.lease(uid)])
            return [] if found is None else [(uid, found)]
        kept = self._transactions.look_through(self._keys.leases)
        return [(self._keys.split(key)[1], body) for key, body in kept.items()]

    def changes(self, since: int, tables: Sequence[str], limit: int) -> tuple[list[Change], int]:
        """Return the feed after a revision, and how far it was read.

        Raises ConflictError where `since` is below what is kept, or beyond what was ever written.
        """
        return read_changes(self._client, self._keys, since, tables, limit)

    def moment(self) -> int:
        """Return a number that moves with each write that is noticed; ask for it before reading."""
        return self._watcher.moment()

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a write after `seen`, and return whether one came."""
        return self._watcher.wait(seen, timeout)

    def transaction(self, *, join: bool = False) -> AbstractContextManager[None]:
        """Open a transaction for this thread, or a part of the one that it has open: all of it or nothing.

        Where etcd has taken the lock away meanwhile, because this process was stopped for longer than its lease, the
        end raises ConflictError, and nothing is written.
        """
        return self._transactions.transaction(join=join)

    def insert(self, table: str, uid: str, label: Label, body: bytes) -> int:
        """Write a row that is not live and return its version; raise ConflictError where the name is taken."""
        self._check_name(table, label.name)
        version = self.last_version(table, uid) + 1
        if label.name is not None:
            self._transactions.write(self._keys.name(table, label.name), uid.encode())
        self._log(table, uid, version, "created", label.name, body)
        return version

    def update(self, table: str, uid: str, label: Label, body: bytes, version: int) -> int:
        """Write the version after `version` of a live row whose name stays, and return it."""
        self._log(table, uid, version + 1, "updated", label.name, body)
        return version + 1

    def rename(self, table: str, uid: str, name: str | None) -> None:
        """Change the name of a live row, which an update then writes; raise ConflictError where it is taken."""
        self._check_name(table, name)
        entry = self._read_head(table, uid)
        if entry and entry.name is not None:
            self._transactions.write(self._keys.name(table, entry.name), None)
        if name is not None:
            self._transactions.write(self._keys.name(table, name), uid.encode())

    def remove(self, table: str, uid: str, name: str | None, version: int, note: bytes | None = None) -> int:
        """Delete a live row whose version is `version`, and return the version that says so; its versions stay."""
        if name is not None:
            self._transactions.write(self._keys.name(table, name), None)
        self._log(table, uid, version + 1, "deleted", name, note or b"")
        return version + 1

    def forget(self, table: str, uid: str) -> None:
        """Delete a row with all its versions, without a trace in the feed."""
        entry = self._read_head(table, uid)
        if entry and entry.name is not None:
            self._transactions.write(self._keys.name(table, entry.name), None)
        self._transactions.write(self._keys.head(table, uid), None)
        for data in self._transactions.look_through(self._keys.history(table, uid)).values():
            self._drop(table, uid, read_entry(data))

    def put_lease(self, uid: str, body: bytes | None) -> None:
        """Replace or remove a lease."""
        self._transactions.write(self._keys.lease(uid), body)

    def compact(self) -> Compaction:
        """Drop what the retentions no longer keep; etcd's own compaction is its operator's."""
        return compact(self._client, self._keys, self._transactions, self._retentions)

    def check(self, *, repair: bool) -> list[Fault]:
        """Verify everything that is kept; see the store's `check`."""
        return check(self._client, self._keys, self._transactions, repair=repair)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open the whole store as it is at this moment."""
        return open_snapshot(self._client, self._keys)

    def load(self, identity: str, records: Iterable[LogRecord], leases: Sequence[tuple[str, bytes]]) -> int:
        """Write what a snapshot has into an empty store, all or nothing, and return the number of records."""
        count = load(self._keys, self._transactions, self.what, identity, records, leases)
        self.identity = identity
        self._watcher.notify()
        return count

    def _read_head(self, table: str, uid: str) -> Entry | None:
        (found,) = self._transactions.look_up([self._keys.head(table, uid)])
        return None if found is None else read_entry(found)

    def _check_name(self, table: str, name: str | None) -> None:
        if name is None or self._transactions.look_up([self._keys.name(table, name)]) == [None]:
            return
        hint = "choose another name, or delete that one first"
        raise ConflictError(describe(table, name), "the name is taken", hint, reason="name")

    def _log(self, table: str, uid: str, version: int, event: str, name: str | None, payload: bytes) -> None:
        keys, write = self._keys, self._transactions.write
        previous = self._read_head(table, uid)
        entry = Entry(self._transactions.take_revision(), version, time.time(), event, name, payload)
        data = entry.encode()
        write(keys.version(table, uid, version), data)
        write(keys.head(table, uid), None if event == "deleted" else data)
        for key, value in keys.derive(table, uid, entry).items():
            write(key, value)
        is_status = table.endswith(STATUS)
        # A deletion shows the document as it last was, however few are kept.
        oldest = version - max(self._retentions.of(table).versions, 2 if event == "deleted" else 1)
        if is_status and previous:
            self._drop(table, uid, previous)
        elif oldest > 0 and not is_status:
            first, end = keys.version(table, uid, 0), keys.version(table, uid, oldest + 1)
            for old in self._transactions.look_through(first, end).values():
                self._drop(table, uid, read_entry(old))

    def _drop(self, table: str, uid: str, entry: Entry) -> None:
        self._transactions.write(self._keys.version(table, uid, entry.version), None)
        for key in self._keys.derive(table, uid, entry):
            self._transactions.write(key, None)


def _make_row(head: bytes | None, status: bytes | None) -> Row | None:
    if head is None:
        return None
    entry = read_entry(head)
    return entry.version, entry.payload, None if status is None else read_entry(status).payload


def _close(client: Client, watcher: EtcdWatcher, transactions: Transactions) -> None:
    if client.closed or client.inherited:
        return
    transactions.close()
    client.close()
    watcher.close()


def _ensure_store(client: Client, keys: Keys, *, create: bool) -> str:
    """Return the identity of the store, which is made where there is none; several may do so at once."""
    wanted = {
        keys.identity: new_uid().encode(), keys.format: b"%d" % FORMAT, keys.revision: b"0", keys.floor: b"0",
    }  # fmt: skip
    look = [ask.get(keys.identity), ask.get(keys.format), ask.get_all(keys.root, count_only=True)]
    identity, written, everything = client.run(look, patience=_OPENING_PATIENCE).found
    if not identity.pairs:
        if not create:
            raise NotFoundError(client.what, "there is none", "kc init makes one")
        if everything.total:
            raise RefusedError(client.what, "its prefix holds keys that are not KC's", "name another prefix")
        writes = [ask.put(key, value) for key, value in wanted.items()]
        client.run(writes, (), [ask.was_created(keys.identity, 0)])
        identity, written, _ = client.run(look).found
    found = int(written.pairs[0].value)
    if found > FORMAT:
        why = f"a newer KC wrote it, in format {found}; this one reads up to {FORMAT}"
        raise RefusedError(client.what, why, "update KC, or name another store with KC_STORE")
    return identity.pairs[0].value.decode()
