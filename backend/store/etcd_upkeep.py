"""What keeps a store in an etcd in order: retention by age, and the check of what follows from the versions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from backend.errors import KCError
from backend.model.upkeep import Compaction, Fault
from backend.store import etcd_requests as ask
from backend.store.codec import decode
from backend.store.compaction import Entry as Write
from backend.store.compaction import choose
from backend.store.etcd_cache import read_pages, read_state
from backend.store.etcd_client import Client
from backend.store.etcd_keys import Entry, Keys, Pointer, read_entry, read_pointer
from backend.store.etcd_requests import Pair
from backend.store.etcd_transactions import Transactions, measure
from backend.store.etcd_transfer import CHUNK_BYTES, check_name
from backend.store.faults import describe
from backend.store.protocol import Retentions
from backend.store.rows import STATUS

_BATCH = 500
_TRACE_SECONDS = 3600.0
_WORDS = {
    b"head": "it is not as its last version",
    b"name": "its name leads elsewhere",
    b"gone": "the index of deletions is wrong",
    b"log": "its place in the feed is wrong",
}

Document = tuple[str, str]
"""table, id"""


def compact(client: Client, keys: Keys, transactions: Transactions, retentions: Retentions) -> Compaction:
    """Drop what the retentions no longer keep, a batch a transaction."""
    now = time.time()
    meta, traces = (answer := client.run([ask.get_all(keys.meta), ask.get_all(keys.dones)])).found
    read_state(client.what, keys, meta.pairs)
    histories: dict[Document, list[Pointer]] = {}
    newest = 0
    for pair in read_pages(client, keys.logs, answer.revision):
        pointer = read_pointer(pair.key, pair.value)
        newest = pointer.revision
        if not pointer.table.endswith(STATUS):
            histories.setdefault((pointer.table, pointer.uid), []).append(pointer)
    old: list[tuple[list[Pointer], int]] = []
    for (table, _), history in histories.items():
        writes = [Write(each.version, each.revision, each.at, each.event == "deleted") for each in history]
        chosen = choose(writes, retentions.of(table), now)
        # The store's newest write stays: the revision to go on from is told by it.
        if chosen and chosen[-1].revision != newest:
            old.append((history, len(chosen)))
    versions = documents = 0
    for batch in _split(old):
        with transactions.transaction():
            dropped, forgotten = _drop(keys, transactions, batch)
        versions, documents = versions + dropped, documents + forgotten
    # What others left behind who did not come to their end.
    stale = [pair.key for pair in traces.pairs if float(pair.value.split()[-1]) < now - _TRACE_SECONDS]
    if stale:
        client.run([ask.delete(key) for key in stale])
    return Compaction(versions, documents)


def _split(old: Sequence[tuple[list[Pointer], int]]) -> Iterator[list[tuple[list[Pointer], int]]]:
    batch: list[tuple[list[Pointer], int]] = []
    size = 0
    for each in old:
        batch.append(each)
        size += each[1]
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _drop(keys: Keys, transactions: Transactions, batch: Sequence[tuple[list[Pointer], int]]) -> tuple[int, int]:
    """Drop the first versions of documents under the lock; return how many versions and documents."""
    revisions: list[int] = []
    documents = 0
    for history, count in batch:
        if count == len(history):
            kept = transactions.look_through(keys.history(*history[0][1:3]), keys_only=True)
            if not kept or int(keys.split(list(kept)[-1])[3]) != history[-1].version:
                continue  # it has come back meanwhile
            documents += 1
        for pointer in history[:count]:
            transactions.write(keys.version(pointer.table, pointer.uid, pointer.version), None)
            entry = Entry(pointer.revision, pointer.version, pointer.at, pointer.event, pointer.name, b"")
            for key in keys.derive(pointer.table, pointer.uid, entry):
                transactions.write(key, None)
            revisions.append(pointer.revision)
    if revisions:
        (floor,) = transactions.look_up([keys.floor])
        transactions.write(keys.floor, b"%d" % max(int(floor or 0), *revisions))
    return len(revisions), documents


def check(client: Client, keys: Keys, transactions: Transactions, *, repair: bool) -> list[Fault]:
    """Verify everything that is kept; with `repair` make again what follows from the versions."""
    if not repair:
        return _Check(client, keys, repair=False).run()
    with transactions.transaction():
        checking = _Check(client, keys, repair=True)
        faults = checking.run()
        for key, value in checking.repairs.items():
            transactions.write(key, value)
            if measure(transactions.writes) > CHUNK_BYTES:
                transactions.flush()
        if checking.repairs:
            transactions.write(keys.epoch, b"%d" % time.time_ns())  # nobody's memory is right any more
    return faults


class _Check:
    """One look through a whole store, as it is at one moment of etcd's."""

    def __init__(self, client: Client, keys: Keys, *, repair: bool) -> None:
        self._client = client
        self._keys = keys
        self._repair = repair
        self._faults: list[Fault] = []
        self._expected: dict[bytes, bytes] = {}
        self._newest: dict[bytes, int] = {}
        self._revision = 0
        self.repairs: dict[bytes, bytes | None] = {}

    def run(self) -> list[Fault]:
        """Return what is wrong, and gather what mends it."""
        keys = self._keys
        answer = self._client.run([ask.get_all(keys.meta)])
        meta = answer.found[0].pairs
        revision, floor, _ = read_state(self._client.what, keys, meta)
        moment = answer.revision
        for document, pairs in groupby(read_pages(self._client, keys.versions, moment), self._name_document):
            self._look_at(document, list(pairs))
        for prefix in (keys.heads, keys.names, keys.gones, keys.logs):
            self._compare(prefix, read_pages(self._client, prefix, moment))
        if self._revision > revision:
            self._note("log", "the store's revision is behind it", keys.revision, b"%d" % self._revision)
        if floor > max(revision, self._revision):
            self._note("log", "its beginning is behind its end", keys.floor, b"%d" % revision)
        return self._faults

    def _name_document(self, pair: Pair) -> Document:
        _, table, uid, *_ = self._keys.split(pair.key)
        return table, uid

    def _look_at(self, document: Document, pairs: Sequence[Pair]) -> None:
        """Verify the versions of one document, and note what follows from them."""
        keys, entry, version, revision = self._keys, None, 0, 0
        for pair in pairs:
            entry = self._read(document, pair)
            before, version = version, int(keys.split(pair.key)[3])
            if before and version != before + 1:
                self._note(describe(*document), f"version {version} does not follow version {before}")
            if entry is None:
                continue
            if entry.revision <= revision:
                self._note(describe(*document), f"version {version} was written before the one before it")
            revision = entry.revision
            self._expected.update(keys.derive(*document, entry))
            self._revision = max(self._revision, revision)
        head = keys.head(*document)
        if entry is None:  # the newest cannot be read: what is live stays as it is
            self._newest[head] = -1
            return
        self._newest[head] = entry.version
        if entry.event != "deleted":
            self._expect_live(document, entry)

    def _expect_live(self, document: Document, entry: Entry) -> None:
        table, uid = document
        self._expected[self._keys.head(table, uid)] = entry.encode()
        if entry.name is None:
            return
        key = self._keys.name(table, entry.name)
        if key in self._expected:
            self._note(describe(table, entry.name), "two live documents have the name")
        self._expected[key] = uid.encode()

    def _read(self, document: Document, pair: Pair) -> Entry | None:
        version = int(self._keys.split(pair.key)[3])
        where = describe(*document)
        try:
            entry = read_entry(pair.value)
            if entry.payload and not isinstance(decode(entry.payload), dict):
                self._note(where, f"version {version} is no object")
                return None
            check_name(*document, entry)
        except KCError as error:
            self._note(where, f"version {version}: {error.why}")
            return None
        if entry.version != version:
            self._note(where, f"version {version} says that it is version {entry.version}")
            return None
        return entry

    def _compare(self, prefix: bytes, found: Iterator[Pair]) -> None:
        for pair in found:
            expected = self._expected.pop(pair.key, None)
            if expected == pair.value:
                continue
            if prefix == self._keys.heads and self._keep_head(pair, expected):
                continue
            self._note_difference(prefix, pair.key, expected)
        for key in [key for key in self._expected if key.startswith(prefix)]:
            self._note_difference(prefix, key, self._expected.pop(key))

    def _keep_head(self, pair: Pair, expected: bytes | None) -> bool:
        """Return whether a head is better than the versions, which have lost it then; nothing is thrown away."""
        newest = self._newest.get(pair.key, 0)
        if newest < 0:
            return True
        _, table, uid = self._keys.split(pair.key)
        try:
            entry = read_entry(pair.value)
        except KCError:
            return False
        if entry.version <= newest:
            return False
        if expected is not None:
            self._expected.pop(self._keys.name(table, read_entry(expected).name or ""), None)
        key = self._keys.version(table, uid, entry.version)
        self._note(describe(table, entry.name or uid), f"version {entry.version} is missing", key, pair.value)
        self._expected.update(self._keys.derive(table, uid, entry))
        self._expect_live((table, uid), entry)
        del self._expected[pair.key]
        self._revision = max(self._revision, entry.revision)
        return True

    def _note_difference(self, prefix: bytes, key: bytes, value: bytes | None) -> None:
        parts = self._keys.split(key)
        where = "log" if prefix == self._keys.logs else describe(parts[1], parts[2])
        word = _WORDS[prefix[len(self._keys.root) : -1]]
        self._note(f"{where} {int(parts[1])}" if where == "log" and parts[1].isdigit() else where, word, key, value)

    def _note(self, where: str, what: str, key: bytes = b"", value: bytes | None = None) -> None:
        if key:
            self.repairs[key] = value
        self._faults.append(Fault(where, what, bool(key) and self._repair))
