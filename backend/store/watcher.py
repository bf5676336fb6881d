"""How a reader learns that somebody wrote: at once from this process, within a tick from another."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable

TICK = 0.05  # seconds; half the work of 0.02 at rest, and still well within what a person sees


class Watcher:
    """A number that moves with each write that is noticed.

    Of all the threads that wait, one at a time asks SQLite whether another process has written: `PRAGMA data_version`
    moves on a connection when any other one commits. The others sleep.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], tick: float = TICK) -> None:
        """`connect` opens the connection of the watcher's own, on first use."""
        self._connect = connect
        self._tick = tick
        self._condition = threading.Condition()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._asking = False
        self._data_version = 0
        self._moment = 0

    def moment(self) -> int:
        """Return the number as it is now; take it before reading, and what is read later is never older."""
        with self._condition:
            if not self._connection and not self._closed:
                self._connection = self._connect()
                self._data_version = self._ask(self._connection)
            return self._moment

    def notify(self) -> None:
        """Say that this process has written."""
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
                    self._condition.notify()  # another one asks from here on
                    return False
                if self._asking:
                    self._condition.wait(left)
                else:
                    self._wait_asking(min(self._tick, left))
            return self._moment != seen

    def close(self) -> None:
        """Wake all who wait, and let go of the connection."""
        with self._condition:
            self._closed = True
            if self._connection:
                self._connection.close()
                self._connection = None
            self._condition.notify_all()

    def _wait_asking(self, seconds: float) -> None:
        self._asking = True
        try:
            self._condition.wait(seconds)
            if self._connection:
                found = self._ask(self._connection)
                if found != self._data_version:
                    self._data_version = found
                    self._moment += 1
                    self._condition.notify_all()
        finally:
            self._asking = False

    @staticmethod
    def _ask(connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        return int(version)
