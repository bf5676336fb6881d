"""The memory engine: rows, versions and the feed in a list and some dicts, for tests.

It is also the plainest answer to what an engine must do. A transaction is a copy of everything, which takes the place
of what was there when it ends; whoever reads meanwhile reads the old one.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError, TimedOutError
from backend.model.upkeep import Compaction, Fault
from backend.store.faults import describe
from backend.store.files import new_uid
from backend.store.memory_state import State, check_log, complete_change, count_kept, find_old, group_log
from backend.store.protocol import Predicate, Retentions
from backend.store.rows import Change, Label, ListedRow, LogEntry, LogRecord, Row, Snapshot
from backend.text import sanitise

PATIENCE = 30.0  # seconds
_KEPT = Retentions()


class _Shared:
    """What all openings of one name have in common."""

    def __init__(self) -> None:
        self.state = State(new_uid())
        self.writer = threading.Lock()
        self.changed = threading.Condition()
        self.moment = 0


_named: dict[str, _Shared] = {}


class MemoryEngine:
    """An engine in the memory of this process, for any threads of it.

    All openings of one name share what it holds until the process ends; without a name it is the opening's own.
    """

    def __init__(self, name: str = "", *, create: bool = True, retentions: Retentions = _KEPT) -> None:
        """Open the store of that name, made where it is missing; raises NotFoundError where `create` forbids that."""
        self.what = f"store memory:{sanitise(name, 200)}"
        if name and not create and name not in _named:
            raise NotFoundError(self.what, "there is none in this process", "open it where it is to be made")
        self._shared = _named.setdefault(name, _Shared()) if name else _Shared()
        self._retentions = retentions
        self._process = os.getpid()
        self._owner = 0
        self._drafts: list[State] = []
        self._closed = False

    @property
    def identity(self) -> str:
        """The uuid that the store was born with."""
        return self._shared.state.identity

    # --- reading
    def read(self, table: str, uid: str) -> Row | None:
        """Return one live row."""
        state = self._state()
        head = state.heads.get(table, {}).get(uid)
        return state.row(head) if head else None

    def find(self, table: str, name: str) -> Row | None:
        """Return the live row of that name."""
        state = self._state()
        return next((state.row(head) for head in state.heads.get(table, {}).values() if head.name == name), None)

    def last_version(self, table: str, uid: str) -> int:
        """Return the newest version that was ever written under an id, a deletion included; 0 without any."""
        records = self._state().records(table, uid)
        return records[-1].version if records else 0

    def page(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows that have a name, after a name and in the order of names."""
        state = self._state()
        named = {head.name: head for head in state.heads.get(table, {}).values() if head.name is not None}
        return [(name, *state.row(named[name])) for name in sorted(named) if name > after][:limit]

    def sift(self, table: str, where: Predicate, after: str) -> Iterator[ListedRow]:
        """Yield rows that have a name, after a name and in the order of names: all, for there is no index."""
        del where
        yield from self.page(table, after, self.count(table))

    def scan(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows after an id, in the order of ids."""
        state = self._state()
        heads = state.heads.get(table, {})
        return [(uid, *state.row(heads[uid])) for uid in sorted(heads) if uid > after][:limit]

    def count(self, table: str) -> int:
        """Return the number of live rows of a table."""
        return len(self._state().heads.get(table, {}))

    def tables(self) -> list[str]:
        """Return the names of the tables that have rows."""
        return sorted(table for table, heads in self._state().heads.items() if heads)

    def revision(self) -> int:
        """Return the revision of the newest write; 0 for none."""
        return self._state().revision

    def history(self, table: str, uid: str) -> list[LogEntry]:
        """Return what is kept of the writes under an id, the oldest first."""
        records = self._state().records(table, uid)
        return [LogEntry(each.revision, each.version, each.at, each.body, each.note) for each in records]

    def find_deleted(self, table: str, name: str) -> str:
        """Return the id of the row of that name that was deleted last and is not live again; empty for none."""
        state = self._state()
        live = state.heads.get(table, {})
        for record in reversed(state.log):
            if record.body is None and (record.table, record.name) == (table, name) and record.uid not in live:
                return record.uid
        return ""

    # --- the feed
    def changes(self, since: int, tables: Sequence[str], limit: int) -> tuple[list[Change], int]:
        """Return the feed after a revision, and how far it was read.

        Raises ConflictError where `since` is below what is kept, or beyond what was ever written.
        """
        state = self._state()
        if not state.floor <= since <= state.revision:
            hint = "list again, and go on from the revision of that list"
            raise ConflictError(
                self.what, f"it cannot tell what changed after revision {since}", hint, compacted=True
            )  # fmt: skip
        found: list[Change] = []
        for record in state.log[bisect_right(state.log, since, key=lambda each: each.revision) :]:
            if (not tables or record.table in tables) and (change := complete_change(state, record)):
                found.append(change)
            if len(found) == limit:
                return found, record.revision
        return found, state.revision

    def moment(self) -> int:
        """Return a number that moves with each write."""
        self._state()
        return self._shared.moment

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a write after `seen`, and return whether one came."""
        with self._shared.changed:
            self._shared.changed.wait_for(lambda: self._shared.moment != seen or self._closed, timeout)
            return self._shared.moment != seen

    # --- writing
    def transaction(self, *, join: bool = False) -> AbstractContextManager[None]:
        """Open a transaction for this thread, or a part of the one that it has open: all of it or nothing.

        With `join` a part is not taken back by itself; that is for what fails before it writes.
        """
        if self._owner != threading.get_ident():
            return self._whole()
        return nullcontext() if join else self._part()

    def insert(self, table: str, uid: str, label: Label, body: bytes) -> int:
        """Write a row that is not live and return its version; raise ConflictError where the name is taken."""
        self._check_name(table, label.name)
        return self._log(table, uid, self.last_version(table, uid) + 1, "created", label.name, body)

    def update(self, table: str, uid: str, label: Label, body: bytes, version: int) -> int:
        """Write the version after `version` of a live row whose name stays, and return it."""
        return self._log(table, uid, version + 1, "updated", label.name, body)

    def rename(self, table: str, uid: str, name: str | None) -> None:
        """Change the name of a live row; raise ConflictError where it is taken."""
        self._check_name(table, name)
        heads = self._draft().heads[table]
        heads[uid] = heads[uid]._replace(name=name)

    def remove(self, table: str, uid: str, name: str | None, version: int, note: bytes | None = None) -> int:
        """Delete a live row whose version is `version`, and return the version that says so; its versions stay."""
        return self._log(table, uid, version + 1, "deleted", name, None, note)

    def forget(self, table: str, uid: str) -> None:
        """Delete a row with all its versions, without a trace in the feed."""
        draft = self._draft()
        draft.heads.get(table, {}).pop(uid, None)
        draft.log = [record for record in draft.log if (record.table, record.uid) != (table, uid)]

    def put_lease(self, uid: str, body: bytes | None) -> None:
        """Replace or remove a lease."""
        if body is None:
            self._draft().leases.pop(uid, None)
        else:
            self._draft().leases[uid] = body

    def leases(self, uid: str = "") -> list[tuple[str, bytes]]:
        """Return all leases, or that of one id."""
        return [(key, body) for key, body in sorted(self._state().leases.items()) if uid in ("", key)]

    # --- the store as a whole
    def compact(self) -> Compaction:
        """Drop what the retentions no longer keep; see the store's `compact`."""
        with self.transaction():
            draft = self._draft()
            documents, dropped = 0, set()
            for (table, uid), records in group_log(draft.log).items():
                is_live = uid in draft.heads.get(table, {})
                drops = find_old(self._retentions.of(table), records, is_live=is_live)
                # The store's newest write stays: it is where others go on from.
                if draft.revision not in drops:
                    dropped |= drops
                    documents += len(drops) == len(records)
            draft.log = [record for record in draft.log if record.revision not in dropped]
            draft.floor = max(draft.floor, *dropped, 0)
            return Compaction(len(dropped), documents)

    def check(self, *, repair: bool) -> list[Fault]:
        """Verify that the log is whole and that the heads follow from it, which `repair` sees to."""
        with self.transaction():
            draft = self._draft()
            faults = check_log(draft)
            right = draft.follow_log()
            for table in sorted({*right, *draft.heads}):
                expected, found = right.get(table, {}), draft.heads.get(table, {})
                for uid in sorted({*expected, *found}):
                    if expected.get(uid) != found.get(uid):
                        faults.append(Fault(describe(table, uid), "it is not as its last version", repair))
            if repair:
                draft.heads = right
            return faults

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Open the whole store as it is at this moment."""
        state = self._state().copy()
        yield Snapshot(state.identity, state.revision, iter(state.log), sorted(state.leases.items()))

    def load(self, identity: str, records: Iterable[LogRecord], leases: Sequence[tuple[str, bytes]]) -> int:
        """Write what a snapshot has into an empty store, all or nothing, and return the number of records."""
        with self.transaction():
            draft = self._draft()
            if draft.revision or draft.log or draft.leases:
                raise ConflictError(self.what, "it is not empty", "name another one", reason="not-empty")
            draft.log = list(records)
            draft.identity = identity
            # What the other store has dropped is not known, so nobody goes on from before.
            draft.revision = draft.floor = draft.log[-1].revision if draft.log else 0
            draft.heads = draft.follow_log()
            draft.leases = dict(leases)
            if faults := check_log(draft):
                raise RefusedError("import", f"{faults[0].where}: {faults[0].what}", "export it again")
            return len(draft.log)

    def close(self) -> None:
        """Wake who waits, and refuse what follows; a second call does nothing."""
        if self._owner == threading.get_ident():
            raise FailedError(self.what, "it cannot be closed in the middle of a transaction", "end it first")
        self._closed = True
        with self._shared.changed:
            self._shared.changed.notify_all()

    def _state(self) -> State:
        """Return what this thread reads: its own transaction's draft, or what is committed."""
        if self._owner == threading.get_ident():
            return self._drafts[-1]
        if self._closed:
            raise FailedError(self.what, "it is closed", "open it again", reason="closed")
        if os.getpid() != self._process:
            raise FailedError(self.what, "it was opened before a fork", "use a store in a file", reason="fork")
        return self._shared.state

    def _draft(self) -> State:
        if self._owner != threading.get_ident():
            msg = "a write needs a transaction of the same thread"
            raise RuntimeError(msg)
        return self._drafts[-1]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        self._state()
        if not self._shared.writer.acquire(timeout=PATIENCE):
            why = f"another part of this process has held its write lock for {PATIENCE:g} s"
            raise TimedOutError(self.what, why, "end what that part does")
        try:
            self._drafts = [self._state().copy()]
            self._owner = threading.get_ident()
            yield
            (draft,) = self._drafts
            moved = draft.revision != self._shared.state.revision
            self._shared.state = draft
        finally:
            self._owner = 0
            self._shared.writer.release()
        if moved:
            with self._shared.changed:
                self._shared.moment += 1
                self._shared.changed.notify_all()

    @contextmanager
    def _part(self) -> Iterator[None]:
        self._drafts.append(self._drafts[-1].copy())
        try:
            yield
            self._drafts[-2] = self._drafts[-1]
        finally:
            self._drafts.pop()

    def _check_name(self, table: str, name: str | None) -> None:
        if name is not None and self.find(table, name):
            hint = "choose another name, or delete that one first"
            raise ConflictError(describe(table, name), "the name is taken", hint, reason="name")

    def _log(self, table: str, uid: str, version: int, event: str, name: str | None, body: bytes | None,
             note: bytes | None = None) -> int:  # fmt: skip
        draft = self._draft()
        draft.revision += 1
        record = LogRecord(draft.revision, table, uid, version, time.time(), event, name, body, note)
        draft.log.append(record)
        heads = draft.heads.setdefault(table, {})
        if body is None:
            del heads[uid]
        else:
            heads[uid] = record
        oldest = version - count_kept(self._retentions.of(table), table, is_live=body is not None)
        if oldest > 0:
            draft.log = [
                each for each in draft.log if (each.table, each.uid) != (table, uid) or each.version > oldest
            ]  # fmt: skip
        return version
