"""The file engine: rows, versions and the feed in one SQLite file.

Every write is a new row of an append-only log, whose key is the store-wide revision; a second table points at the
live ones. Every commit, and with it every checkpoint, and every close happens under one lock file next to the
database: processes take turns fairly, and two never write or checkpoint at the same instant.
"""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from backend.errors import ConflictError, KCError
from backend.model.upkeep import Compaction, Fault
from backend.store.connections import Connections
from backend.store.faults import describe, explain
from backend.store.files import bring_up, connect, ensure_file, read_identity
from backend.store.formats import FORMATS, KEEP, find_format
from backend.store.lock import FileLock
from backend.store.protocol import Predicate, Retentions
from backend.store.rows import STATUS, Change, Label, ListedRow, LogEntry, LogRecord, Row, Snapshot
from backend.store.watcher import Watcher

_PAGE_ROWS = 500
PICKED = 500
"""How many names are looked up in one statement."""
WINDOW = 64
"""How many writes share the work of bringing the index up to date."""
_KEPT = Retentions()

_LIVE = """
    FROM head JOIN log ON log.revision = head.revision
    LEFT JOIN head AS status_head ON status_head.tbl = ? AND status_head.id = head.id
    LEFT JOIN log AS status ON status.revision = status_head.revision
    WHERE head.tbl = ?
"""
_READ = f"SELECT log.version, log.body, status.body {_LIVE} AND head.id = ?"
_FIND = f"SELECT log.version, log.body, status.body {_LIVE} AND head.name = ?"
_PAGE = f"SELECT head.name, log.version, log.body, status.body {_LIVE} AND head.name > ? ORDER BY head.name LIMIT ?"
_PICK = (
    f"SELECT head.name, log.version, log.body, status.body {_LIVE}"
    f" AND head.name IN ({','.join('?' * PICKED)}) ORDER BY head.name"
)
_SCAN = f"SELECT head.id, log.version, log.body, status.body {_LIVE} AND head.id > ? ORDER BY head.id LIMIT ?"
_LAST_BODY = "SELECT version, body FROM log WHERE tbl = ? AND id = ? AND version < ? ORDER BY version DESC LIMIT 1"


_APPEND = "INSERT INTO log (tbl, id, version, at, event, name, body, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class FileEngine:
    """An engine over one file on a local disk; for any threads, and for any number of processes.

    Made after a fork, never taken through one.
    """

    def __init__(self, path: Path, *, create: bool = True, retentions: Retentions = _KEPT) -> None:
        """Open the store at `path`, made where it is missing; raises RefusedError for a file that is none."""
        self.path = path.resolve()
        self._retentions = retentions
        lock = FileLock(Path(f"{self.path}.lock"))
        ensure_file(self.path, lock, create=create)
        self._watcher = Watcher(partial(connect, self.path, cache_mib=1))
        self._connections = Connections(self.path, lock, self._watcher.notify, _settle)
        # A process that forgets to close does so at its end all the same, and under the lock.
        self._end = weakref.finalize(self, _close, self._watcher, self._connections)
        try:
            self.identity = self._open(lock)
        except KCError:
            self.close()
            raise

    def _open(self, lock: FileLock) -> str:
        with self._connections.reading() as connection:
            if find_format(self.path, connection) == len(FORMATS):
                return read_identity(connection)
        bring_up(self.path, lock)
        with self._connections.reading() as connection:
            return read_identity(connection)

    @property
    def what(self) -> str:
        """How errors name the store."""
        return f"store {self.path}"

    def close(self) -> None:
        """Let go of files and connections, and wake who waits; a second call does nothing."""
        _close(self._watcher, self._connections)
        self._end.detach()

    def read(self, table: str, uid: str) -> Row | None:
        """Return one live row."""
        writing = self._connections.writing
        if writing and (table, uid) in self._connections.memory:
            remembered: Row | None = self._connections.memory[table, uid]
            return remembered
        rows = self._connections.fetch(_READ, (table + STATUS, table, uid))
        row = rows[0] if rows else None
        if writing:
            self._connections.memory[table, uid] = row
        return row

    def find(self, table: str, name: str) -> Row | None:
        """Return the live row of that name."""
        rows = self._connections.fetch(_FIND, (table + STATUS, table, name))
        return rows[0] if rows else None

    def last_version(self, table: str, uid: str) -> int:
        """Return the newest version that was ever written under an id, a deletion included; 0 without any."""
        rows = self._connections.fetch("SELECT max(version) FROM log WHERE tbl = ? AND id = ?", (table, uid))
        return int(rows[0][0] or 0)

    def page(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows that have a name, after a name and in the order of names."""
        return self._connections.fetch(_PAGE, (table + STATUS, table, after, limit))

    def sift(self, table: str, where: Predicate, after: str) -> Iterator[ListedRow]:
        """Yield rows that have a name, after a name and in the order of names, among them all that `where` accepts."""
        from backend.store.sifting import find_few, find_many, split  # noqa: PLC0415 - a list of all needs none of it

        names = find_few(self._connections, table, where, after)
        if names is None:
            # Many are taken perhaps, and perhaps the caller has enough of them soon.
            rows = self.page(table, after, _PAGE_ROWS)
            yield from rows
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1][0]
            names = find_many(self._connections, table, where, after)
        if names is None:
            while rows := self.page(table, after, _PAGE_ROWS):
                yield from rows
                after = rows[-1][0]
            return
        for places in split(names, PICKED):
            yield from self._connections.fetch(_PICK, (table + STATUS, table, *places))

    def scan(self, table: str, after: str, limit: int) -> list[ListedRow]:
        """Return rows after an id, in the order of ids."""
        return self._connections.fetch(_SCAN, (table + STATUS, table, after, limit))

    def count(self, table: str) -> int:
        """Return the number of live rows of a table."""
        return int(self._connections.fetch("SELECT count(*) FROM head WHERE tbl = ?", (table,))[0][0])

    def tables(self) -> list[str]:
        """Return the names of the tables that have rows."""
        tables: list[str] = []
        last = ""
        # One step of the index a table, instead of a walk over all rows.
        while last is not None:
            ((last,),) = self._connections.fetch("SELECT min(tbl) FROM head WHERE tbl > ?", (last,))
            tables += [last] if last else []
        return tables

    def revision(self) -> int:
        """Return the revision of the newest write; 0 for none."""
        rows = self._connections.fetch("SELECT seq FROM sqlite_sequence WHERE name = 'log'")
        return int(rows[0][0]) if rows else 0

    def history(self, table: str, uid: str) -> list[LogEntry]:
        """Return what is kept of the writes under an id, the oldest first."""
        rows = self._connections.fetch(
            "SELECT revision, version, at, body, note FROM log WHERE tbl = ? AND id = ? ORDER BY version", (table, uid)
        )
        return [LogEntry(*row) for row in rows]

    def find_deleted(self, table: str, name: str) -> str:
        """Return the id of the row of that name that was deleted last and is not live again; empty for none."""
        rows = self._connections.fetch(
            "SELECT id FROM log WHERE tbl = ? AND name = ? AND body IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM head WHERE head.tbl = log.tbl AND head.id = log.id)"
            " ORDER BY revision DESC LIMIT 1",
            (table, name),
        )
        return str(rows[0][0]) if rows else ""

    def leases(self, uid: str = "") -> list[tuple[str, bytes]]:
        """Return all leases, or that of one id."""
        if uid:
            return self._connections.fetch("SELECT id, body FROM lease WHERE id = ?", (uid,))
        return self._connections.fetch("SELECT id, body FROM lease ORDER BY id")

    def changes(self, since: int, tables: Sequence[str], limit: int) -> tuple[list[Change], int]:
        """Return the feed after a revision, and how far it was read.

        Raises ConflictError where `since` is below what is kept, or beyond what was ever written.
        """
        among = f"AND tbl IN ({','.join('?' * len(tables))})" if tables else ""
        select = f"SELECT revision, tbl, id, version, event, body FROM log WHERE revision > ? {among}"  # noqa: S608
        with self._connections.reading() as connection:
            connection.execute("BEGIN")  # one snapshot for all that follows
            try:
                until = _check_revision(connection, self.what, since)
                while True:
                    rows = connection.execute(f"{select} ORDER BY revision LIMIT ?", (since, *tables, limit)).fetchall()
                    found = [change for row in rows if (change := _complete(connection, *row))]
                    if len(rows) < limit:
                        return found, until
                    since = rows[-1][0]
                    if found:
                        return found, since
            finally:
                connection.execute("ROLLBACK")

    def moment(self) -> int:
        """Return a number that moves with each write that is noticed; ask for it before reading."""
        self._connections.check()
        try:
            return self._watcher.moment()
        except sqlite3.Error as error:
            raise explain(self.path, error) from error

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a write after `seen`, and return whether one came."""
        try:
            return self._watcher.wait(seen, timeout)
        except sqlite3.Error as error:
            raise explain(self.path, error) from error

    def transaction(self, *, join: bool = False) -> AbstractContextManager[None]:
        """Open a transaction for this thread, or a part of the one that it has open: all of it or nothing.

        With `join` a part is not taken back by itself; that is for what fails before it writes.
        """
        return self._connections.transaction(join=join)

    def insert(self, table: str, uid: str, label: Label, body: bytes) -> int:
        """Write a row that is not live and return its version; raise ConflictError where the name is taken."""
        self._check_name(table, label.name)
        version = self.last_version(table, uid) + 1
        revision = self._log(table, uid, version, "created", label.name, body)
        number = revision if label.name is not None else None
        self._connections.write(
            "INSERT INTO head (tbl, id, revision, name, metadata, number) VALUES (?, ?, ?, ?, ?, ?)",
            (table, uid, revision, *label, number),
        )
        return version

    def update(self, table: str, uid: str, label: Label, body: bytes, version: int) -> int:
        """Write the version after `version` of a live row whose name stays, and return it."""
        revision = self._log(table, uid, version + 1, "updated", label.name, body)
        self._connections.write(
            "UPDATE head SET revision = ?, metadata = ? WHERE tbl = ? AND id = ?",
            (revision, label.metadata, table, uid),
        )
        return version + 1

    def rename(self, table: str, uid: str, name: str | None) -> None:
        """Change the name of a live row; raise ConflictError where it is taken."""
        self._check_name(table, name)
        self._connections.write("UPDATE head SET name = ? WHERE tbl = ? AND id = ?", (name, table, uid))

    def remove(self, table: str, uid: str, name: str | None, version: int, note: bytes | None = None) -> int:
        """Delete a live row whose version is `version`, and return the version that says so; its versions stay."""
        self._connections.run(partial(_drop_fields, table=table, uid=uid))
        self._log(table, uid, version + 1, "deleted", name, None, note)
        self._connections.write("DELETE FROM head WHERE tbl = ? AND id = ?", (table, uid))
        return version + 1

    def forget(self, table: str, uid: str) -> None:
        """Delete a row with all its versions, without a trace in the feed."""
        self._connections.run(partial(_drop_fields, table=table, uid=uid))
        self._forget_read(table, uid)
        self._connections.write("DELETE FROM head WHERE tbl = ? AND id = ?", (table, uid))
        self._connections.write("DELETE FROM log WHERE tbl = ? AND id = ?", (table, uid))

    def put_lease(self, uid: str, body: bytes | None) -> None:
        """Replace or remove a lease."""
        if body is None:
            self._connections.write("DELETE FROM lease WHERE id = ?", (uid,))
        else:
            self._connections.write("INSERT OR REPLACE INTO lease (id, body) VALUES (?, ?)", (uid, body))

    def compact(self) -> Compaction:
        """Drop what the retentions no longer keep, and give its room back."""
        from backend.store.compaction import compact  # noqa: PLC0415 - the list of VMs needs none of these

        return compact(self.path, self._connections, self._retentions)

    def check(self, *, repair: bool) -> list[Fault]:
        """Verify everything that is kept; with `repair` make again what follows from the versions."""
        from backend.store.checking import check  # noqa: PLC0415

        if not repair:
            with self._connections.moment() as moment:
                return check(moment, self.what, repair=False)
        with self.transaction():
            faults = check(self._connections.writer, self.what, repair=True)
            self._connections.memory.clear()
        return faults

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open the whole store as it is at this moment; whoever writes meanwhile is not held up."""
        from backend.store.transfer import open_snapshot  # noqa: PLC0415

        return open_snapshot(self._connections)

    def load(self, identity: str, records: Iterable[LogRecord], leases: Sequence[tuple[str, bytes]]) -> int:
        """Write what a snapshot has into an empty store, all or nothing, and return the number of records."""
        from backend.store.transfer import load  # noqa: PLC0415

        with self.transaction():
            count = load(self._connections, self.what, identity, records, leases)
        self.identity = identity
        return count

    def _check_name(self, table: str, name: str | None) -> None:
        if name is None or not self._connections.fetch("SELECT 1 FROM head WHERE tbl = ? AND name = ?", (table, name)):
            return
        hint = "choose another name, or delete that one first"
        raise ConflictError(describe(table, name), "the name is taken", hint, reason="name")

    def _log(
        self,
        table: str,
        uid: str,
        version: int,
        event: str,
        name: str | None,
        body: bytes | None,
        note: bytes | None = None,
    ) -> int:
        connections = self._connections
        values = (table, uid, version, time.time(), event, name, body, note)
        revision = int(connections.write(_APPEND, values).lastrowid or 0)
        kept = 1 if table.endswith(STATUS) else self._retentions.of(table).versions
        # A deletion alone would not tell what was deleted.
        oldest = version - (kept if body is not None else max(kept, 2))
        if oldest > 0:
            connections.write(KEEP, {"table": table, "uid": uid, "version": oldest})
            connections.write("DELETE FROM log WHERE tbl = ? AND id = ? AND version <= ?", (table, uid, oldest))
        self._forget_read(table, uid)
        connections.move(due=revision % WINDOW == 0)
        return revision

    def _forget_read(self, table: str, uid: str) -> None:
        self._connections.memory.pop((table, uid), None)
        self._connections.memory.pop((table.removesuffix(STATUS), uid), None)


def _settle(connection: sqlite3.Connection) -> None:
    from backend.store.indexing import settle  # noqa: PLC0415 - reading needs none of it

    settle(connection)


def _drop_fields(connection: sqlite3.Connection, table: str, uid: str) -> None:
    from backend.store.indexing import drop  # noqa: PLC0415

    drop(connection, table, uid)


def _close(watcher: Watcher, connections: Connections) -> None:
    connections.close(watcher.close)


def _check_revision(connection: sqlite3.Connection, what: str, since: int) -> int:
    """Return the newest revision; raise ConflictError where `since` cannot be gone on from."""
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    (floor,) = connection.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()
    until = int(newest[0]) if newest else 0
    if not int(floor) <= since <= until:
        hint = "list again, and go on from the revision of that list"
        raise ConflictError(what, f"it cannot tell what changed after revision {since}", hint, compacted=True)
    return until


def _complete(
    connection: sqlite3.Connection, revision: int, table: str, uid: str, version: int, event: str, body: bytes | None
) -> Change | None:
    """Return the change that a row of the log stands for; None for the status of what is gone."""
    kind = table.removesuffix(STATUS)
    live = connection.execute(_READ, (kind + STATUS, kind, uid)).fetchone()
    if kind != table:
        return Change(revision, kind, "status", live) if live else None
    if body is not None:
        return Change(revision, kind, event, (version, body, live[2] if live else None))
    last = connection.execute(_LAST_BODY, (table, uid, version)).fetchone()
    return Change(revision, kind, event, (*last, None)) if last else None
