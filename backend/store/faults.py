"""How the errors of a store name things, and what SQLite and the file system say in their words."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from backend.errors import FailedError, KCError, TimedOutError
from backend.model.kinds import KINDS
from backend.text import sanitise

_SAFE = "every change that was confirmed is kept"


def has_room(path: Path) -> bool:
    """Return whether the disk under `path` has room for a user; True where that cannot be told."""
    try:
        return os.statvfs(path.parent).f_bavail > 0
    except OSError:
        return True


def explain(path: Path, error: sqlite3.Error) -> KCError:
    """Return the error to raise for one of SQLite's (https://www.sqlite.org/rescode.html)."""
    what = f"store {path}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and not has_room(path)):
        return FailedError(what, "no room left on the disk", f"make room and repeat; {_SAFE}", reason="full")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TimedOutError(what, "another program has it locked", "end that program and repeat", reason="locked")
    if code == sqlite3.SQLITE_READONLY:
        hint = "make its folder and files writable for this user, or name another store with KC_STORE"
        return FailedError(what, "it can only be read, and KC needs to write to it", hint, reason="read-only")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        hint = "see that it is on a local disk and that this user can read and write its folder"
        return FailedError(what, "it cannot be opened", hint, reason="unopened")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        hint = "keep the file, and bring the store back from an export or a copy"
        return FailedError(what, "it is damaged", hint, reason="damaged")
    if code == sqlite3.SQLITE_IOERR:
        return FailedError(what, "the disk failed", f"see the kernel's log; {_SAFE}", reason="disk")
    return FailedError(what, str(error) or type(error).__name__, "", reason="store")


def explain_file(path: Path, error: OSError) -> KCError:
    """Return the error to raise where the file of a store cannot be made or read."""
    if not has_room(path):
        return FailedError(f"store {path}", "no room left on the disk", "make room and repeat", reason="full")
    why = str(error.strerror or error).lower()
    return FailedError(f"store {path}", why, "name another store with KC_STORE", reason="unopened")


def describe(table: str, name: str) -> str:
    """Return how an error names a document, safe for a terminal."""
    title = next((kind.title for kind in KINDS if kind.name == table), table)
    return f"{title} {sanitise(name, 80)}"
