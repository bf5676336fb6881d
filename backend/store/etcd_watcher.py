"""How a reader learns that somebody wrote to a store in an etcd: etcd's watch rings, the store's own log tells what."""

from __future__ import annotations

import threading
import time

from backend.store import etcd_requests as ask
from backend.store.etcd_client import Client, Stream
from backend.store.etcd_keys import Keys

# A connection that died without a word is noticed after this long.
_SILENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


class EtcdWatcher:
    """A number that moves with each write that is noticed; a thread follows etcd once somebody has asked for it."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._condition = threading.Condition()
        self._stream = Stream()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._moment = 0

    def moment(self) -> int:
        """Return the number as it is now; take it before reading, and what is read later is never older."""
        self._client.check()
        with self._condition:
            if not self._thread and not self._closed:
                # From this very moment on nothing is missed, however long it takes the thread to be connected.
                since = self._client.run([ask.get(self._keys.revision)]).revision
                self._thread = threading.Thread(target=self._follow, args=(since,), name="kc-store-watch", daemon=True)
                self._thread.start()
            return self._moment

    def notify(self) -> None:
        """Say that there is something new."""
        with self._condition:
            self._moment += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the number is not `seen` any more; return whether it is not."""
        deadline = time.monotonic() + timeout
        with self._condition:
            while self._moment == seen and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left)
            return self._moment != seen

    def close(self) -> None:
        """Wake all who wait, and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._stream.cut()

    def _follow(self, since: int) -> None:
        while not self._closed and not self._client.closed:
            started = time.monotonic()
            for said in self._client.follow(self._keys.revision, since + 1, self._stream, _SILENCE_SECONDS):
                if said.get("events"):
                    since = max(since, int(said["header"]["revision"]))
                    self.notify()
                if said.get("canceled"):
                    # etcd has compacted what was to be followed: go on from now, and let everyone look.
                    since = max(since, int(said.get("compact_revision", 0)))
                    self.notify()
                    break
            with self._condition:
                if not self._closed and time.monotonic() - started < _PAUSE_SECONDS:
                    self._condition.wait(_PAUSE_SECONDS)
