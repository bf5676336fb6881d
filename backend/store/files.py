"""The file of a store: how one is born, and how one is told from any other file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from pathlib import Path

from backend.errors import NotFoundError, RefusedError
from backend.paths import make_private
from backend.store.faults import explain, explain_file
from backend.store.formats import migrate
from backend.store.lock import FileLock

APPLICATION_ID = 0x4B433031  # "KC01"
BUSY_SECONDS = 10.0
_MIGRATION_CACHE_MIB = 64


def new_uid() -> str:
    """Return a UUID of version 7 (RFC 9562), its fraction of a millisecond included: later ones sort later."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_header(path: Path) -> bool:
    """Return whether a store is at `path`; raise RefusedError for any other file, which is left alone.

    An empty file counts as nothing.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise explain_file(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"store {path}", "it is no file", "name another one with KC_STORE")
    if not status.st_size:
        return False
    # SQLite reads it, because whoever else opens and closes a file drops all locks that this process has on it
    # (https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
    try:
        with contextlib.closing(_open(path, "ro")) as connection:
            (found,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_NOTADB:
            raise explain(path, error) from error
        found = 0
    if found != APPLICATION_ID:
        raise RefusedError(f"store {path}", "the file is no KC store", "name another one with KC_STORE")
    return True


def _open(path: Path, mode: str) -> sqlite3.Connection:
    quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{quoted}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
    )


def connect(path: Path, *, cache_mib: int) -> sqlite3.Connection:
    """Return a connection to a store that exists; each statement is a transaction unless one was begun."""
    connection = _open(path, "rw")
    # WAL alone survives a crash of the process; FULL survives one of the machine. The memory map stays off: with it,
    # a file that is cut short by another program kills the process.
    connection.executescript(
        f"PRAGMA synchronous=FULL; PRAGMA cache_size=-{cache_mib * 1024}; PRAGMA journal_size_limit={16 << 20};"
    )
    return connection


def read_identity(connection: sqlite3.Connection) -> str:
    """Return the uuid that a store was born with."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    if not found:
        raise sqlite3.DatabaseError("it has lost its identity")
    return str(found[0])


def bring_up(path: Path, lock: FileLock) -> None:
    """Bring the store at `path` to the newest format."""
    try:
        with lock, contextlib.closing(connect(path, cache_mib=_MIGRATION_CACHE_MIB)) as connection:
            migrate(path, connection)
    except sqlite3.Error as error:
        raise explain(path, error) from error


def ensure_file(path: Path, lock: FileLock, *, create: bool) -> None:
    """Make a new store at `path` where none is; raise NotFoundError where `create` forbids it."""
    if check_header(path):
        return
    if not create:
        raise NotFoundError(f"store {path}", "there is none", "kc init makes one")
    make_private(path.parent)
    lock.acquire()
    try:
        if not check_header(path):
            _check_for_log(path)
            _create(path)
    except sqlite3.Error as error:
        raise explain(path, error) from error
    except OSError as error:
        raise explain_file(path, error) from error
    finally:
        lock.release(close=True)


def _check_for_log(path: Path) -> None:
    # SQLite would replay a log that was left by another database of the same name over the new one.
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        raise RefusedError(
            f"store {path}",
            f"it is gone, and its log {log.name} is still there",
            "bring the store back, or move the log away to begin anew",
        )


def _create(path: Path) -> None:
    # Born under another name and renamed when it is whole: nobody ever sees half a store.
    young = Path(f"{path}.new")
    for leftover in (young, Path(f"{young}-journal"), Path(f"{young}-wal"), Path(f"{young}-shm")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(young, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(connect(young, cache_mib=1)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        migrate(path, connection)
        connection.execute("INSERT INTO meta (key, value) VALUES ('identity', ?), ('floor', '0')", (new_uid(),))
        connection.execute("PRAGMA journal_mode=WAL")
    young.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
