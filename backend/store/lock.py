"""The lock of a store: one writer at a time among the threads of a process and the processes of a machine."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from backend.errors import FailedError, TimedOutError

PATIENCE = 30.0  # seconds


class _Waiter(threading.Thread):
    """A thread that stands in the kernel's queue, because `flock` itself knows no deadline."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="kc-store-lock", daemon=True)
        self._descriptor = descriptor
        self._mutex = threading.Lock()
        self._abandoned = False
        self.granted = threading.Event()

    def run(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._mutex:
            if self._abandoned:
                os.close(self._descriptor)  # and so unlocks
            else:
                self.granted.set()

    def abandon(self) -> bool:
        """Leave the descriptor to the thread, which closes it; False where the lock has come after all."""
        with self._mutex:
            self._abandoned = not self.granted.is_set()
            return self._abandoned


class FileLock:
    """A `flock` on a file of its own, which is made when it is first asked for and never removed.

    The kernel queues those who wait, so no process starves. Waiting ends after `patience` seconds with TimedOutError.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._threads = threading.Lock()
        self._descriptor = -1

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def acquire(self, patience: float | None = None) -> None:
        """Take the lock; raise TimedOutError after `patience` seconds, FailedError where its file cannot be made."""
        seconds = self._patience if patience is None else patience
        deadline = time.monotonic() + seconds
        if not self._threads.acquire(timeout=seconds):
            raise self._explain_wait("another part of this process", seconds)
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._stand_in_queue(deadline, seconds)
        except BaseException:
            self._threads.release()
            raise

    def release(self, *, close: bool = False) -> None:
        """Give the lock back, and let go of its file as well where it will not be needed again soon."""
        if close:
            os.close(self._descriptor)  # and so unlocks
            self._descriptor = -1
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            why = f"its lock file cannot be opened: {str(error.strerror or error).lower()}"
            raise FailedError(
                f"store {self._path.with_suffix('')}", why, "a store needs a local folder that this user can write to"
            ) from error

    def _stand_in_queue(self, deadline: float, seconds: float) -> None:
        waiter = _Waiter(self._descriptor)
        waiter.start()
        try:
            granted = waiter.granted.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:
            if waiter.abandon():
                self._descriptor = -1
            else:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            raise
        if not granted and waiter.abandon():
            self._descriptor = -1
            raise self._explain_wait(self._find_holder(), seconds)

    def _explain_wait(self, holder: str, seconds: float) -> TimedOutError:
        return TimedOutError(
            f"store {self._path.with_suffix('')}",
            f"{holder} has held its write lock for {seconds:g} s",
            "end that process, or resume it where it is stopped",
        )

    def _find_holder(self) -> str:
        try:
            inode = str(self._path.stat().st_ino)
            lines = Path("/proc/locks").read_text("ascii").splitlines()
        except OSError:
            return "another process"
        for words in map(str.split, lines):
            if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:  # noqa: PLR2004
                return f"process {words[4]}"
        return "another process"
