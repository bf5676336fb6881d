"""The lock of a store in an etcd: one writer at a time, in the order in which they came.

Who wants it writes a key of its own under `lock/`, bound to a lease of a few seconds. The key that was made first has
the lock; each of the others waits for the one before it to go. A process that dies, or sleeps through its lease, loses
its key; what it would still commit asks for the key's existence first, and is refused.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from backend.errors import KCError, TimedOutError
from backend.store import etcd_requests as ask
from backend.store.etcd_client import Client, Stream
from backend.store.etcd_keys import Keys
from backend.store.etcd_requests import Answer, Json

PATIENCE = 30.0  # seconds
LEASE_SECONDS = 5
_LOOK_SECONDS = 1.0
_LEAVING_PATIENCE = 1.0


class Lease:
    """A lease of etcd's, kept alive by a thread while it is held; otherwise it may end, and the next use renews it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._held = False
        self._identity = 0
        self._renewed = 0.0
        self._seconds = float(LEASE_SECONDS)

    def hold(self) -> int:
        """Return the lease, alive for a while, and keep it so until `drop`."""
        if not self._identity or time.monotonic() - self._renewed > self._seconds / 3:
            self._renew()
        if not self._identity:
            started = time.monotonic()
            answer = self._client.call("/v3/lease/grant", {"TTL": LEASE_SECONDS})
            self._identity, self._seconds, self._renewed = int(answer["ID"]), float(answer["TTL"]), started
        with self._condition:
            self._held = True
            if not self._thread:
                self._thread = threading.Thread(target=self._keep, name="kc-store-lease", daemon=True)
                self._thread.start()
            self._condition.notify()
        return self._identity

    def drop(self, *, forget: bool = False) -> None:
        """Let the lease end in its own time; with `forget` it is not used again."""
        with self._condition:
            self._held = False
            self._identity = 0 if forget else self._identity

    def close(self) -> None:
        """End the lease, and with it every key that is bound to it."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._identity and time.monotonic() - self._renewed < self._seconds:
            with contextlib.suppress(KCError):
                self._client.call("/v3/lease/revoke", {"ID": self._identity}, patience=_LEAVING_PATIENCE)

    def _renew(self) -> None:
        identity, started = self._identity, time.monotonic()
        if not identity:
            return
        answer = self._client.call("/v3/lease/keepalive", {"ID": identity})
        seconds = int(answer.get("result", {}).get("TTL", 0))
        with self._condition:
            if self._identity == identity:
                self._identity, self._renewed = (identity, started) if seconds else (0, 0.0)

    def _keep(self) -> None:
        with self._condition:
            while not self._closed:
                left = self._renewed + self._seconds / 3 - time.monotonic()
                if not self._held or not self._identity:
                    self._condition.wait()
                elif left > 0:
                    self._condition.wait(left)
                else:
                    self._keep_once()

    def _keep_once(self) -> None:
        """Renew while the condition is left to others; called with it held."""
        renewed = False
        self._condition.release()
        try:
            with contextlib.suppress(KCError):  # whoever holds the lock learns it from the commit
                self._renew()
                renewed = True
        finally:
            self._condition.acquire()
        if not renewed:
            self._condition.wait(self._seconds / 10)


class Hold(NamedTuple):
    """The lock as it was got: its key, etcd's revision that made the key, and what was read along with it."""

    key: bytes
    created: int
    answer: Answer

    @property
    def is_held(self) -> Json:
        """The condition under which the lock is still this one's."""
        return ask.was_created(self.key, self.created)


class Lock:
    """The lock of a store, for the threads of a process and the processes of a cluster."""

    def __init__(self, client: Client, keys: Keys, patience: float = PATIENCE) -> None:
        self._client = client
        self._keys = keys
        self._patience = patience
        self._threads = threading.Lock()
        self._stream: Stream | None = None
        self._lease = Lease(client)

    def acquire(self, reading: Sequence[Json] = ()) -> Hold:
        """Take the lock, and with it read what `reading` says, as it is once the lock is had.

        Raises TimedOutError after `patience` seconds, UnreachableError.
        """
        deadline = time.monotonic() + self._patience
        if not self._threads.acquire(timeout=self._patience):
            raise self._explain_wait("another part of this process")
        try:
            return self._stand_in_queue(reading, deadline)
        except BaseException:
            self._lease.drop(forget=True)
            self._threads.release()
            raise

    def release(self, hold: Hold, *, released: bool) -> None:
        """Give the lock back; `released` says that the key is gone already."""
        try:
            released = released or self._leave(hold.key, hold.created)
        finally:
            # A key that could not be taken away goes with its lease, which must not be renewed then.
            self._lease.drop(forget=not released)
            self._threads.release()

    def close(self) -> None:
        """End the lease, and wake who waits."""
        stream = self._stream
        if stream:
            stream.cut()
        self._lease.close()

    def _stand_in_queue(self, reading: Sequence[Json], deadline: float) -> Hold:
        # One look tells the whole queue: with the lock free, it is also the last.
        look = [ask.get_all(self._keys.locks, sort_target="CREATE", sort_order="ASCEND"), *reading]
        key, answer = self._join(look)
        try:
            while True:
                queue = answer.found[0].pairs
                place = next((place for place, pair in enumerate(queue) if pair.key == key), -1)
                if place == 0:
                    return Hold(key, queue[0].created, answer._replace(found=answer.found[1:]))
                self._check_patience(deadline)
                if place < 0:  # this process has slept: to the end of the queue
                    self._lease.drop(forget=True)
                    key, answer = self._join(look)
                    continue
                self._wait_for(queue[place - 1].key, answer.revision + 1, deadline)
                answer = self._client.run(look)
        except BaseException:
            self._leave(key, 0)
            raise

    def _check_patience(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise self._explain_wait("another process")

    def _join(self, look: Sequence[Json]) -> tuple[bytes, Answer]:
        lease = self._lease.hold()
        key = self._keys.locks + f"{lease:x}".encode()
        return key, self._client.run([ask.put(key, b"", lease), *look], look, [ask.was_created(key, 0)])

    def _wait_for(self, key: bytes, revision: int, deadline: float) -> None:
        """Wait until a key is deleted, but not for long: the look that follows is what counts."""
        seconds = max(0.01, min(_LOOK_SECONDS, deadline - time.monotonic()))
        self._stream = stream = Stream()
        try:
            for said in self._client.follow(key, revision, stream, seconds):
                if any(event.get("type") == "DELETE" for event in said.get("events", ())):
                    return
        finally:
            self._stream = None

    def _leave(self, key: bytes, created: int) -> bool:
        """Take the key away and return True; False where that could not be done."""
        compare = [ask.was_created(key, created)] if created else []
        with contextlib.suppress(KCError):
            self._client.run([ask.delete(key)], (), compare, patience=_LEAVING_PATIENCE)
            return True
        return False

    def _explain_wait(self, holder: str) -> TimedOutError:
        why = f"{holder} has held its write lock for {self._patience:g} s"
        return TimedOutError(self._client.what, why, "end that process, or resume it where it is stopped")
