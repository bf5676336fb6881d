"""The whole of a file at one moment, and into an empty one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from backend.errors import ConflictError, RefusedError
from backend.store.connections import Connections
from backend.store.files import read_identity
from backend.store.indexing import index_all
from backend.store.rebuilding import DISORDER, LOST, MAKE_HEAD
from backend.store.rows import LogRecord, Snapshot

_PAGE = 500
_COLUMNS = "revision, tbl, id, version, at, event, name, body, note"
_DAMAGED = "export it again"


@contextmanager
def open_snapshot(connections: Connections) -> Iterator[Snapshot]:
    """Open a file as it is at this moment; SQLite keeps the moment, and others write on."""
    with connections.reading() as connection:
        connection.execute("BEGIN")
        try:
            newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
            leases = connection.execute("SELECT id, body FROM lease ORDER BY id").fetchall()
            revision = int(newest[0]) if newest else 0
            yield Snapshot(read_identity(connection), revision, _read_log(connection), leases)
        finally:
            connection.execute("ROLLBACK")


def _read_log(connection: sqlite3.Connection) -> Iterator[LogRecord]:
    after = 0
    select = f"SELECT {_COLUMNS} FROM log WHERE revision > ? ORDER BY revision LIMIT ?"  # noqa: S608
    while rows := connection.execute(select, (after, _PAGE)).fetchall():
        yield from map(LogRecord._make, rows)
        after = rows[-1][0]


def load(
    connections: Connections,
    what: str,
    identity: str,
    records: Iterable[LogRecord],
    leases: Sequence[tuple[str, bytes]],
) -> int:
    """Write records, revisions included, into an empty file, and return their number; inside a transaction.

    `leases` may be filled by the last of the records. Raises ConflictError, RefusedError.
    """
    if connections.fetch("SELECT 1 FROM sqlite_sequence WHERE seq > 0 UNION SELECT 1 FROM lease LIMIT 1"):
        hint = "name a new one with KC_STORE, or move this one away"
        raise ConflictError(what, "it is not empty", hint, reason="not-empty")
    count, newest = 0, 0
    places = ", ".join("?" * len(LogRecord._fields))
    insert = f"INSERT OR IGNORE INTO log ({_COLUMNS}) VALUES ({places})"  # noqa: S608
    for record in records:
        if connections.write(insert, record).rowcount != 1:
            why = f"version {record.version} of {record.uid} is in it twice"
            raise RefusedError("import", why, _DAMAGED)
        count += 1
        newest = max(newest, record.revision)
    connections.write("UPDATE meta SET value = ? WHERE key = 'identity'", (identity,))
    # What the other store has dropped is not known, so nobody goes on from before.
    connections.write("UPDATE meta SET value = ? WHERE key = 'floor'", (str(newest),))
    for uid, body in leases:
        connections.write("INSERT OR REPLACE INTO lease (id, body) VALUES (?, ?)", (uid, body))
    if connections.fetch(DISORDER):
        raise RefusedError("import", "its versions are out of order", _DAMAGED)
    for statement in MAKE_HEAD:
        connections.write(statement)
    if connections.fetch(LOST):
        raise RefusedError("import", "two documents in it have one name", _DAMAGED)
    connections.run(index_all)
    connections.move(due=False)
    return count
