"""A disk of a few megabytes that can be filled to the last page, and given room again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backend.errors import FailedError

_CHUNK = 64 << 10


class SmallDisk:
    """A tmpfs; `fill` takes all its room, `make_room` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes of room, none by default."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while (room := self.room() - leave) > 0:
                file.write(b"x" * min(_CHUNK, room))

    def make_room(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)

    def room(self) -> int:
        """Return how many bytes are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextmanager
def mount_small_disk(path: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount one at `path`; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("a disk of its own can be mounted by root alone")
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "kc-small-disk", str(path)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    if mount.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mount.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        # What still runs in a thread of the test may have a file open there.
        subprocess.run(["umount", "--lazy", str(path)], timeout=20, check=True)


@contextmanager
def exhaust(disk: SmallDisk, database: Path, write: Callable[[], object]) -> Iterator[FailedError]:
    """Make every write to a store fail until the end of the block, and give the error that the first one got.

    The log of a store is used again once a checkpoint has emptied it, so that a full disk alone stops nobody for long;
    a reader in the middle of something keeps it from that, as any follower may.
    """
    reader = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchone()
    disk.fill()
    failure = None
    while failure is None:
        try:
            write()
        except FailedError as error:
            failure = error
    try:
        yield failure
    finally:
        disk.make_room()
        reader.execute("ROLLBACK")
        reader.close()
