"""Transactions on an etcd: gathered in memory under the lock, and written as one request that checks the lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import get_ident
from types import TracebackType

from backend.errors import ConflictError, FailedError, KCError, RefusedError, UnreachableError
from backend.store import etcd_requests as ask
from backend.store.etcd_cache import check_loading, read_state
from backend.store.etcd_client import Client
from backend.store.etcd_keys import Keys
from backend.store.etcd_lock import Hold, Lock
from backend.store.etcd_requests import Json
from backend.store.files import new_uid

COMMIT_PATIENCE = 10.0
# etcd takes requests of 1.5 MiB (`--max-request-bytes`).
MAXIMUM_BYTES = 1_540_000
_BYTES_A_KEY = 24


class _Work:
    """What one transaction has read and written so far."""

    def __init__(self, hold: Hold, revision: int) -> None:
        self.hold = hold
        self.revision = self.begun_at = revision
        self.writes: dict[bytes, bytes | None] = {}
        self.memory: dict[bytes, bytes | None] = {}


class Transactions:
    """Reads and writes of keys; those of the thread that has a transaction open see what it has written."""

    def __init__(self, client: Client, keys: Keys, moved: Callable[[], None]) -> None:
        """`moved` is called after each commit that moved the feed."""
        self._client = client
        self._keys = keys
        self._lock = Lock(client, keys)
        self._announce = moved
        self._done = keys.dones + new_uid().encode()
        self._owner = 0
        self._work: _Work | None = None
        self._has_committed = False

    @property
    def writing(self) -> bool:
        """Whether this thread has a transaction open."""
        return self._owner == get_ident()

    @property
    def writes(self) -> dict[bytes, bytes | None]:
        """What this thread's transaction has written; None for what it deletes."""
        return self._inside().writes

    def transaction(self, *, join: bool = False) -> AbstractContextManager[None]:
        """Open a transaction for this thread, or a part of the one that it has open: all of it or nothing."""
        if not self.writing:
            return _Whole(self)
        return _JOINED if join else _Part(self)

    def look_up(self, keys: Sequence[bytes], last: bytes = b"") -> list[bytes | None]:
        """Return the values of keys, as they are at one moment; None for those that are not there.

        Inside a transaction, what `look_last` would say of `last` is read along with them.
        """
        if not self.writing:
            answer = self._client.run([*map(ask.get, keys), ask.get(self._keys.loading)])
            *found, loading = answer.found
            if loading.pairs:
                check_loading(self._client.what)
            return [each.pairs[0].value if each.pairs else None for each in found]
        work = self._inside()
        missing = [key for key in keys if key not in work.writes and key not in work.memory]
        operations = [*map(ask.get, missing)]
        if last and last not in work.memory:
            missing.append(last)
            operations.append(_get_last(last))
        if missing:
            for key, found_one in zip(missing, self._client.run(operations).found, strict=True):
                pair = found_one.pairs[0] if found_one.pairs else None
                work.memory[key] = None if pair is None else pair.key if key == last else pair.value
        return [work.writes[key] if key in work.writes else work.memory[key] for key in keys]

    def look_last(self, prefix: bytes) -> bytes | None:
        """Return the last of the keys that begin with `prefix`, which ends in a slash."""
        if not self.writing:
            (found,) = self._client.run([_get_last(prefix)]).found
            return found.pairs[0].key if found.pairs else None
        self.look_up([], prefix)
        work = self._inside()
        mine = [key for key, value in work.writes.items() if value is not None and key.startswith(prefix)]
        return max([work.memory[prefix] or b"", *mine]) or None

    def look_through(self, start: bytes, end: bytes = b"", *, keys_only: bool = False) -> dict[bytes, bytes]:
        """Return the keys from `start` to before `end` (all that begin with `start`, where it is empty), in order."""
        end = end or ask.find_end(start)
        operation = ask.get_range(start, end, keys_only=keys_only)
        found, loading = self._client.run([operation, ask.get(self._keys.loading)]).found
        pairs = {pair.key: pair.value for pair in found.pairs}
        if not self.writing:
            if loading.pairs:
                check_loading(self._client.what)
            return pairs
        for key, value in self._inside().writes.items():
            if start <= key < end:
                pairs.pop(key, None)
                if value is not None:
                    pairs[key] = value
        return dict(sorted(pairs.items()))

    def write(self, key: bytes, value: bytes | None) -> None:
        """Write a key inside this thread's transaction, or with None delete it."""
        self._inside().writes[key] = value

    def take_revision(self) -> int:
        """Return the next revision of the store for a write of this thread's transaction."""
        work = self._inside()
        work.revision += 1
        return work.revision

    def set_revision(self, revision: int) -> None:
        """Make this the revision of the store, when this thread's transaction ends."""
        self._inside().revision = revision

    def begin(self) -> None:
        """Take the lock and open a transaction for this thread."""
        self._client.check()
        keys = self._keys
        hold = self._lock.acquire([ask.get_all(keys.meta)])
        try:
            meta = hold.answer.found[0].pairs
            is_half = any(pair.key == keys.loading for pair in meta)
            revision, _, _ = read_state(self._client.what, keys, [pair for pair in meta if pair.key != keys.loading])
            self._work = _Work(hold, revision)
            if is_half:
                self.clear()  # whoever wrote it has lost the lock, and so has ended
        except BaseException:
            self._work = None
            self._lock.release(hold, released=False)
            raise
        self._owner = get_ident()

    def end(self, *, commit: bool) -> None:
        """Commit the transaction or drop it, and give the lock back."""
        work = self._inside()
        released = False
        try:
            if commit and work.writes:
                self._commit(work)
                released = True
        finally:
            self._work = None
            self._owner = 0
            self._lock.release(work.hold, released=released)
        if released and work.revision > work.begun_at:
            self._announce()

    def flush(self) -> None:
        """Write what there is so far and keep the lock: for what is too large for one request, and repairable."""
        work = self._inside()
        self._run_fenced(work, list_operations(work.writes))
        work.writes.clear()
        work.memory.clear()

    def clear(self) -> None:
        """Take away what an import has written that did not come to its end."""
        keys = self._keys
        data = (keys.logs, keys.heads, keys.names, keys.gones, keys.versions, keys.leases)
        self._run_fenced(self._begun(), [*map(ask.delete_all, data), ask.delete(keys.loading)])

    def mark(self) -> tuple[dict[bytes, bytes | None], int]:
        """Return where the transaction stands."""
        work = self._inside()
        return dict(work.writes), work.revision

    def go_back(self, mark: tuple[dict[bytes, bytes | None], int]) -> None:
        """Drop what was written since a mark."""
        work = self._inside()
        work.writes, work.revision = mark

    def close(self) -> None:
        """Let go of the lock's lease, and of the trace of the last commit."""
        if self._owner:
            if self.writing:
                hint = "end the transaction first"
                raise FailedError(self._client.what, "it cannot be closed in the middle of a transaction", hint)
            return  # another thread is in the middle of one: its keys go with their lease
        if self._has_committed:
            try:
                self._client.run([ask.delete(self._done)], patience=1.0)
            except KCError:
                self._has_committed = False  # a compaction takes it away
        self._lock.close()

    def _commit(self, work: _Work) -> None:
        if work.revision > work.begun_at:
            work.writes[self._keys.revision] = b"%d" % work.revision
        size = measure(work.writes)
        if size > MAXIMUM_BYTES:
            why = f"{size // 1024} KiB are too much for one transaction in etcd"
            raise RefusedError(self._client.what, why, f"change less than {MAXIMUM_BYTES // 1024} KiB at a time")
        name = f"{new_uid()} {time.time():.0f}".encode()
        operations = [*list_operations(work.writes), ask.put(self._done, name), ask.delete(work.hold.key)]
        self._has_committed = True
        try:
            # The name of the transaction tells a repetition that the first try was heard: then the lock is gone, and
            # nothing is written twice.
            answer = self._client.run(operations, [ask.get(self._done)], [work.hold.is_held], patience=COMMIT_PATIENCE)
        except UnreachableError as error:
            hint = "look whether the change is there before it is repeated"
            raise UnreachableError(
                error.what, f"it is not known whether the change was written: {error.why}", hint, reason="unknown"
            ) from error
        if not answer.succeeded and [pair.value for pair in answer.found[0].pairs] != [name]:
            raise self._explain_loss()

    def _run_fenced(self, work: _Work, operations: Sequence[Json]) -> None:
        # Repeated while the lock is held, it writes the same once more.
        answer = self._client.run(operations, (), [work.hold.is_held], patience=COMMIT_PATIENCE)
        if not answer.succeeded:
            raise self._explain_loss()

    def _explain_loss(self) -> ConflictError:
        why = "this process was stopped for so long that others may have written, and nothing of it was"
        return ConflictError(self._client.what, why, "repeat it", reason="lock")

    def _begun(self) -> _Work:
        if self._work is None:
            msg = "a write needs a transaction of the same thread"
            raise RuntimeError(msg)
        return self._work

    def _inside(self) -> _Work:
        work = self._begun()
        if self._owner != get_ident():
            msg = "a write needs a transaction of the same thread"
            raise RuntimeError(msg)
        return work


def _get_last(prefix: bytes) -> Json:
    return ask.get_all(prefix, sort_target="KEY", sort_order="DESCEND", limit=1, keys_only=True)


def list_operations(writes: dict[bytes, bytes | None]) -> list[Json]:
    """Return the operations that make the keys what a transaction says."""
    return [ask.delete(key) if value is None else ask.put(key, value) for key, value in writes.items()]


def measure(writes: dict[bytes, bytes | None]) -> int:
    """Return about how many bytes etcd counts for these writes, rather too many."""
    return sum(len(key) + len(value or b"") + _BYTES_A_KEY for key, value in writes.items())


class _Whole:
    """A transaction as a block."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def __enter__(self) -> None:
        self._transactions.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._transactions.end(commit=kind is None)


class _Part:
    """A part of a transaction as a block."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def __enter__(self) -> None:
        self._mark = self._transactions.mark()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._transactions.go_back(self._mark)


_JOINED: AbstractContextManager[None] = nullcontext()
