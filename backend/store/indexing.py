"""How the index of fields follows the documents: in batches, and never in the way of a write.

The index is that of all documents as they were at one revision, which is kept beside it. What the log has after that
revision has changed since, and whoever asks the index looks at it as well. Now and then a write brings the index up to
date in its own transaction. What a process writes that knows no index is found all the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from backend.errors import FailedError
from backend.store.codec import decode, encode_metadata
from backend.store.fields import Field, compare_fields, list_fields
from backend.store.formats import INDEXED
from backend.store.rows import STATUS

NOTHING: frozenset[Field] = frozenset()
_BATCH = 1000
_INSERT = "INSERT OR IGNORE INTO field (key, value, number) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM field WHERE key = ? AND value = ? AND number = ?"
_HEAD = "SELECT name, number, revision, indexed FROM head WHERE tbl = ? AND id = ?"


def settle(connection: sqlite3.Connection) -> None:
    """Bring the index up to date; inside a transaction that writes."""
    ((settled,),) = connection.execute(INDEXED)
    removed: list[tuple[Any, ...]] = []
    added: list[tuple[Any, ...]] = []
    changed = "SELECT DISTINCT tbl, id FROM log WHERE revision > ? ORDER BY tbl, id"
    for table, uid in connection.execute(changed, (settled,)).fetchall():
        number = _find_number(connection, table, uid)
        if number is None:
            continue  # it is gone, or no document of KC's
        old = _read_indexed(connection, table, uid, settled)
        live = _read_live(connection, table, uid) or b"null"
        if old is not None:
            lost, got = compare_fields(table, old, live)
        else:
            lost, got = NOTHING, list_fields(table, live)
            if (status := _read_live(connection, table + STATUS, uid)) is not None:
                got |= list_fields(table + STATUS, status)
        removed += [(*field, number) for field in lost]
        added += [(*field, number) for field in got]
        connection.execute("UPDATE head SET indexed = NULL WHERE tbl = ? AND id = ? AND indexed NOTNULL", (table, uid))
    connection.executemany(_DELETE, removed)
    connection.executemany(_INSERT, added)
    _set_indexed(connection)


def drop(connection: sqlite3.Connection, table: str, uid: str) -> None:
    """Take a row that goes, and its status with it, out of the index; before it is written that it goes."""
    number = _find_number(connection, table, uid)
    if number is None:
        return
    ((settled,),) = connection.execute(INDEXED)
    for each in (table, table + STATUS):
        old = _read_indexed(connection, each, uid, settled)
        if old is not None:
            connection.executemany(_DELETE, [(*field, number) for field in list_fields(each, old)])


def index_all(connection: sqlite3.Connection) -> None:
    """Make the index of all live documents, and the copies of their metadata, anew; inside a transaction."""
    connection.execute("DELETE FROM field")
    connection.execute("UPDATE head SET number = NULL, indexed = NULL")
    connection.execute("UPDATE head SET number = revision WHERE name NOTNULL")
    # Written in the order of the index: in that of the documents, each would touch the whole of it.
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS unsorted (key, value, number)")
    connection.execute("DELETE FROM temp.unsorted")
    after = ("", "")
    while rows := connection.execute(_LIVE, (*after, _BATCH)).fetchall():
        entries: list[tuple[Any, ...]] = []
        for table, uid, body, number, is_named, _, _, known in rows:
            if number is not None:
                entries += [(*field, number) for field in list_fields(table, body)]
            if is_named and (copy := copy_metadata(body)) != known:
                connection.execute("UPDATE head SET metadata = ? WHERE tbl = ? AND id = ?", (copy, table, uid))
        connection.executemany("INSERT INTO temp.unsorted VALUES (?, ?, ?)", entries)
        after = rows[-1][:2]
    connection.execute(
        "INSERT OR IGNORE INTO field (key, value, number) SELECT key, value, number FROM temp.unsorted ORDER BY 1, 2, 3"
    )
    connection.execute("DELETE FROM temp.unsorted")
    _set_indexed(connection)


_LIVE = (
    "SELECT head.tbl, head.id, log.body, coalesce(head.number, document.number), head.name NOTNULL,"  # noqa: S608
    " head.revision, head.indexed, head.metadata"
    " FROM head JOIN log ON log.revision = head.revision LEFT JOIN head AS document"
    f" ON document.tbl = iif(head.tbl GLOB '*{STATUS}', substr(head.tbl, 1, length(head.tbl) - {len(STATUS)}), NULL)"
    " AND document.id = head.id WHERE (head.tbl, head.id) > (?, ?) ORDER BY head.tbl, head.id LIMIT ?"
)  # fmt: skip


def list_indexed(connection: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
    """Yield, in parts, the rows that the index has if it is right."""
    ((settled,),) = connection.execute(INDEXED)
    after = ("", "")
    while rows := connection.execute(_LIVE, (*after, _BATCH)).fetchall():
        entries: list[tuple[Any, ...]] = []
        for table, uid, body, number, _, revision, indexed, _ in rows:
            if number is None:
                continue
            is_settled = revision <= settled and indexed is None
            old = body if is_settled else _read_indexed(connection, table, uid, settled)
            if old is not None:
                entries += [(*field, number) for field in list_fields(table, old)]
        yield entries
        after = rows[-1][:2]


def copy_metadata(body: bytes) -> bytes | None:
    """Return the metadata of a document's body as they stand beside its head; None where they are many."""
    try:
        document = decode(body)
    except FailedError:
        return None
    return encode_metadata(document) if isinstance(document, dict) else None


def _set_indexed(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value) SELECT 'indexed', CAST(ifnull(max(revision), 0) AS TEXT) FROM log"
    )


def _find_number(connection: sqlite3.Connection, table: str, uid: str) -> int | None:
    """Return the number of a live document, or that of the document of a status; None for any other row."""
    found = connection.execute(_HEAD, (table.removesuffix(STATUS), uid)).fetchone()
    if found is None or found[0] is None:
        return None
    name, number, revision, _ = found
    if number is None:  # written by a process that knows no index
        number = revision
        statement = "UPDATE head SET number = ? WHERE tbl = ? AND name = ?"
        connection.execute(statement, (number, table.removesuffix(STATUS), name))
    return int(number)


def _read_live(connection: sqlite3.Connection, table: str, uid: str) -> bytes | None:
    select = "SELECT log.body FROM head JOIN log USING (revision) WHERE head.tbl = ? AND head.id = ?"
    found = connection.execute(select, (table, uid)).fetchone()
    return found[0] if found else None


def _read_indexed(connection: sqlite3.Connection, table: str, uid: str, settled: int) -> bytes | None:
    """Return the body that the index has the fields of; None where it has none of this row."""
    head = connection.execute(_HEAD, (table, uid)).fetchone()
    if head is None:
        return None
    if head[3] is not None:
        return bytes(head[3])
    versions = "SELECT revision, body FROM log WHERE tbl = ? AND id = ? ORDER BY version DESC"
    for revision, body in connection.execute(versions, (table, uid)):
        if body is None:
            return None  # its fields went with it
        if revision <= settled:
            return bytes(body)
    return None
