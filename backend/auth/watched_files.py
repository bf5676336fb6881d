"""Files that say who may come in: read again when they changed, and not believed where others may write them."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from backend.errors import FailedError, RefusedError

T = TypeVar("T")

_MOST_BYTES: Final = 16 << 20
# A clock of the kernel's that ticks every few milliseconds stamps files: within this a second change may look like one.
_TICK_NS: Final = 50_000_000


class _Stamp(NamedTuple):
    """What changes with a file's content, or with who may change it."""

    modified_ns: int
    size: int
    inode: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Stamp:
        return cls(status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)


class WatchedFile(Generic[T]):
    """What `parse` makes of a file, as the file is now; safe to use from threads."""

    def __init__(
        self, path: Path, parse: Callable[[bytes], T], *, forbidden: int = stat.S_IWGRP | stat.S_IWOTH
    ) -> None:
        """Name the file; `forbidden` are the bits that its mode must not have."""
        self.path = path
        self._parse = parse
        self._forbidden = forbidden
        self._guard = threading.Lock()
        self._kept: tuple[_Stamp, T] | None = None

    def read(self) -> T:
        """Return it, parsed anew only where the file changed; raise FailedError, RefusedError."""
        try:
            stamp = _Stamp.of(self.path.stat())
            with self._guard:
                if self._kept is None or self._kept[0] != stamp:
                    self._kept = None
                    return self._load()
                return self._kept[1]
        except OSError as error:
            raise FailedError(f"file {self.path}", str(error.strerror or error).lower()) from error

    def _load(self) -> T:
        # Not blocking, for a pipe of that name would never end; the checks are of what was opened, not of a name.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            self._check(status)
            now = time.time_ns()
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise RefusedError(f"file {self.path}", f"it is larger than {_MOST_BYTES >> 20} MiB")
        parsed = self._parse(data)
        if now - status.st_mtime_ns > _TICK_NS:
            self._kept = (_Stamp.of(status), parsed)
        return parsed

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"file {self.path}", "it is not a file")
        if status.st_mode & self._forbidden:
            mode = stat.S_IMODE(status.st_mode)
            verb = "read" if self._forbidden & stat.S_IROTH else "write"
            hint = f"chmod {mode & ~self._forbidden:o} {self.path}"
            raise RefusedError(f"file {self.path}", f"others may {verb} it (mode {mode:04o})", hint)
