"""The formats of the file: a store is born in the newest one, and an older one is brought up to it, step by step.

Each format is one function of `FORMATS`; the next one is one more. It runs in a transaction of its own, under the lock:
killed at any point, the file is in the format before or in the one after, and the next to open it goes on.

Another process may have a store open whose format is no longer the newest one, and may go on writing: a format only
adds, and tells what such a process has written from what it wrote itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from backend.errors import RefusedError

# `log` has every version that was written and is the feed; `head` says which of them is live, and has what selectors
# ask for most next to it, so that looking through all documents is not reading them all.
_TABLES = """
CREATE TABLE log (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    tbl TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
    at REAL NOT NULL, event TEXT NOT NULL, name TEXT, body BLOB
);
CREATE UNIQUE INDEX log_row ON log (tbl, id, version);
CREATE INDEX log_deleted ON log (tbl, name) WHERE body IS NULL;
CREATE TABLE head (
    tbl TEXT NOT NULL, id TEXT NOT NULL, name TEXT, revision INTEGER NOT NULL, metadata BLOB,
    PRIMARY KEY (tbl, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX head_name ON head (tbl, name);
CREATE TABLE lease (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# `note` says who deleted and why; `number` names a live document in the index of fields, which is that of all documents
# as they were at the revision `indexed`; a row keeps what the index has of it where the log has that no more.
_FIELDS = """
ALTER TABLE log ADD COLUMN note BLOB;
ALTER TABLE head ADD COLUMN number INTEGER;
ALTER TABLE head ADD COLUMN indexed BLOB;
CREATE UNIQUE INDEX head_number ON head (number);
CREATE TABLE field (
    key INTEGER NOT NULL, value NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (key, value, number)
) WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('indexed', '0');
"""


INDEXED = "SELECT ifnull((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'indexed'), 0)"
"""The revision that the index is of."""
KEEP = f"""
UPDATE head SET indexed = (SELECT body FROM log WHERE tbl = :table AND id = :uid AND version = :version)
WHERE tbl = :table AND id = :uid
    AND EXISTS (SELECT 1 FROM log WHERE tbl = :table AND id = :uid AND version = :version AND revision <= ({INDEXED}))
    AND NOT EXISTS (
        SELECT 1 FROM log
        WHERE tbl = :table AND id = :uid AND version > :version AND (body IS NULL OR revision <= ({INDEXED}))
    )
"""  # noqa: S608 - constants
"""Keeps what the index has of a row, before all its versions up to `version` are dropped from the log."""


def _make_tables(connection: sqlite3.Connection) -> None:
    _run(connection, _TABLES)


def _add_fields(connection: sqlite3.Connection) -> None:
    _run(connection, _FIELDS)
    from backend.store.indexing import index_all  # noqa: PLC0415 - it imports what is here, and most stores are new

    index_all(connection)


FORMATS: tuple[Callable[[sqlite3.Connection], None], ...] = (_make_tables, _add_fields)
"""What makes each format from the one before it; the first makes the first from an empty file."""


def find_format(path: Path, connection: sqlite3.Connection) -> int:
    """Return the format of a file, 1 being the first; raise RefusedError where a newer KC has written it."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > len(FORMATS):
        raise RefusedError(
            f"store {path}",
            f"a newer KC wrote it, in format {found}; this one reads up to {len(FORMATS)}",
            "update KC, or name another store with KC_STORE",
        )
    return int(found)


def migrate(path: Path, connection: sqlite3.Connection) -> None:
    """Bring a file to the newest format; the caller holds the lock, and the connection is in no transaction."""
    while (found := find_format(path, connection)) < len(FORMATS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            FORMATS[found](connection)
            connection.execute(f"PRAGMA user_version={found + 1}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _run(connection: sqlite3.Connection, script: str) -> None:
    # `executescript` would commit what was begun.
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)
