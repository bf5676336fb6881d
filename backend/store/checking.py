"""Verifies a file row by row, and makes again what follows from the versions: the log is the store, all else a copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from backend.errors import FailedError
from backend.model.documents import Document
from backend.model.upkeep import Fault
from backend.store.codec import decode, is_same
from backend.store.faults import describe
from backend.store.indexing import copy_metadata, index_all, list_indexed
from backend.store.rebuilding import IS_NEWEST, LOST, MAKE_HEAD
from backend.store.rows import STATUS
from backend.text import sanitise

_PAGE = 1000
_MOST = 100
"""Faults of one sort that are told one by one."""

_OF_STATUS = f"head.tbl = substr(log.tbl, 1, length(log.tbl) - {len(STATUS)}) AND head.id = log.id"
_STRAY = f"""
SELECT tbl, id, name, 'the newest version is not the one that is listed' FROM log
WHERE body NOTNULL AND {IS_NEWEST} AND EXISTS (
    SELECT 1 FROM head WHERE head.tbl = log.tbl AND head.id = log.id AND head.revision != log.revision
) UNION ALL
SELECT log.tbl, log.id, log.name, 'it is listed under another name' FROM log JOIN head USING (tbl, id, revision)
WHERE head.name IS NOT log.name UNION ALL
SELECT head.tbl, head.id, head.name, 'it is listed, and its versions say that there is none' FROM head
WHERE NOT EXISTS (
    SELECT 1 FROM log WHERE log.tbl = head.tbl AND log.id = head.id AND body NOTNULL AND {IS_NEWEST}
) UNION ALL
SELECT tbl, id, name, 'it is not listed' FROM log WHERE body NOTNULL AND {IS_NEWEST}
AND NOT EXISTS (SELECT 1 FROM head WHERE head.tbl = log.tbl AND head.id = log.id)
AND NOT (tbl GLOB '*{STATUS}' AND NOT EXISTS (
    SELECT 1 FROM head WHERE {_OF_STATUS}
))
"""  # noqa: S608 - constants
_ORPHANS = f"""
SELECT tbl, id, NULL, 'it is the status of a document that there is not' FROM log WHERE tbl GLOB '*{STATUS}'
AND NOT EXISTS (SELECT 1 FROM head WHERE {_OF_STATUS}) GROUP BY tbl, id
"""  # noqa: S608 - constants
_COPIES = (
    "SELECT head.tbl, head.id, head.name, head.metadata, log.body FROM head JOIN log USING (revision)"
    " WHERE head.metadata NOTNULL AND (head.tbl, head.id) > (?, ?) ORDER BY head.tbl, head.id LIMIT ?"
)
_LOG = (
    "SELECT tbl, id, version, revision, at, event, name, body, note FROM log"
    " WHERE (tbl, id, version) > (?, ?, ?) ORDER BY tbl, id, version LIMIT ?"
)


def check(connection: sqlite3.Connection, what: str, *, repair: bool) -> list[Fault]:
    """Return what is wrong with a file as it is at this moment; to `repair`, the caller has a transaction open."""
    return _Check(connection, what, repair=repair).run()


class _Check:
    def __init__(self, connection: sqlite3.Connection, what: str, *, repair: bool) -> None:
        self._connection = connection
        self._what = what
        self._repair = repair
        self._faults: list[Fault] = []

    def run(self) -> list[Fault]:
        try:
            self._check_file()
            for check in (self._check_log, self._check_numbers, self._check_leases, self._check_heads):
                check()
            self._check_index()
        except sqlite3.DatabaseError as error:
            self._add(self._what, f"SQLite cannot read it any further: {error}")
        return self._faults

    def _add(self, where: str, what: str, mend: Callable[[], object] | None = None) -> None:
        repaired = self._repair and mend is not None
        if repaired and mend is not None:
            mend()
        self._faults.append(Fault(sanitise(where, 300), sanitise(what, 300), repaired))

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _check_file(self) -> None:
        """Ask SQLite itself; of what it finds, indexes alone can be made again."""
        found = self._ask_sqlite()
        if found and self._repair:
            self._execute("REINDEX")
            left = self._ask_sqlite()
            self._faults += [Fault(self._what, line, repaired=line not in left) for line in found]
        else:
            self._faults += [Fault(self._what, line) for line in found]

    def _ask_sqlite(self) -> list[str]:
        lines = [str(line) for (line,) in self._execute(f"PRAGMA integrity_check({_MOST})").fetchall()]
        return [f"SQLite finds: {sanitise(line, 300)}" for line in lines if line != "ok"]

    def _read_log(self) -> Iterator[tuple[Any, ...]]:
        after: tuple[Any, ...] = ("", "", -1)
        while rows := self._execute(_LOG, (*after, _PAGE)).fetchall():
            yield from rows
            after = rows[-1][:3]

    def _check_log(self) -> None:
        """Look at every version, in the order of documents and versions."""
        before: tuple[str, str, int, int] | None = None
        for row in self._read_log():
            table, uid, version, revision, at, event, name, body, note = row
            what: list[str] = []
            if before and before[:2] == (table, uid):
                if version != before[2] + 1:
                    gap = f"{before[2] + 1}" if version == before[2] + 2 else f"{before[2] + 1} to {version - 1}"
                    what.append(f"before it, version {gap} is missing")
                if revision < before[3]:
                    what.append(f"it is older than version {before[2]}, which is before it")
            before = (table, uid, version, revision)
            if event not in ("created", "updated", "deleted") or (event == "deleted") != (body is None):
                what.append(f"it is marked as {event}, which it cannot be")
            if not isinstance(at, (int, float)):
                what.append("its time is damaged")
            document = _read(note or b"{}") if body is None else _read(body)
            if not isinstance(document, dict):
                what.append("its content is damaged and cannot be read")
                document = {}
            where = f"{describe(table, str(name or uid))}, version {version} (revision {revision})" if what else ""
            for each in what:
                self._add(where, each)
            if document.get("kind") == table:
                self._check_identity(document, (table, uid, version, name))

    def _check_identity(self, document: Document, row: tuple[str, str, int, str | None]) -> None:
        table, uid, version, name = row
        own = document.get("name")
        if document.get("uid") == uid and own == name:
            return
        where = f"{describe(table, str(name or uid))}, version {version}"
        if document.get("uid") != uid:
            self._add(where, "it is kept under another uid than its own")
        if isinstance(own, str) and own != name:
            mend = "UPDATE log SET name = ? WHERE tbl = ? AND id = ? AND version = ?"
            self._add(where, "it is kept under another name than its own", lambda: self._execute(mend, (own, *row[:3])))

    def _check_numbers(self) -> None:
        """Compare the counters with the log: a number must never be given out twice."""
        ((newest,),) = self._execute("SELECT ifnull(max(revision), 0) FROM log")
        counter = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
        if newest and (counter is None or counter[0] < newest):
            self._add(
                self._what, "its counter of revisions has fallen behind its versions", lambda: self._count(newest)
            )
        ((newest,),) = self._execute("SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'log'")
        meta = dict(self._execute("SELECT key, value FROM meta").fetchall())
        if len(str(meta.get("identity", ""))) != 36:  # noqa: PLR2004 - a uuid
            self._add(self._what, "it has lost its identity")
        floor = str(meta.get("floor", ""))
        if not floor.isdecimal() or int(floor) > newest:
            mend = "INSERT OR REPLACE INTO meta (key, value) VALUES ('floor', ?)"
            self._add(
                self._what, "the beginning of its feed is damaged", lambda: self._execute(mend, (str(newest),))
            )  # fmt: skip

    def _count(self, newest: int) -> None:
        self._execute("DELETE FROM sqlite_sequence WHERE name = 'log'")
        self._execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('log', ?)", (newest,))

    def _check_leases(self) -> None:
        for uid, body in self._execute("SELECT id, body FROM lease ORDER BY id").fetchall():
            if not isinstance(_read(body), dict):
                self._add(
                    f"lease of operation {uid}",
                    "its content is damaged; without it, the operation goes on with whoever looks next",
                    lambda uid=uid: self._execute("DELETE FROM lease WHERE id = ?", (uid,)),  # type: ignore[misc]
                )

    def _check_heads(self) -> None:
        """Compare what is listed with the newest versions."""
        found = self._execute(f"SELECT * FROM ({_STRAY} UNION ALL {_ORPHANS}) LIMIT {_MOST}").fetchall()  # noqa: S608
        found += self._find_wrong_copies()
        lost: set[tuple[str, str]] = set()
        if found and self._repair:
            for statement in MAKE_HEAD:
                self._execute(statement)
            index_all(self._connection)
            lost = set(self._execute(LOST).fetchall())
        for table, uid, name, what in found:
            if (table, uid) in lost:
                self._add(describe(table, str(name or uid)), f"{what}: another document has its name")
            else:
                self._add(describe(table, str(name or uid)), what, lambda: None)

    def _find_wrong_copies(self) -> list[tuple[str, str, str, str]]:
        found: list[tuple[str, str, str, str]] = []
        after = ("", "")
        while rows := self._execute(_COPIES, (*after, _PAGE)).fetchall():
            for table, uid, name, copy, body in rows:
                right = copy_metadata(body)
                if copy != right and not (right is not None and is_same(_read(copy), _read(right))):
                    found.append((table, uid, name, "the copy of its metadata, which selectors ask, is not right"))
            after = rows[-1][:2]
        return found[:_MOST]

    def _check_index(self) -> None:
        """Compare the index of fields with one made from the documents, by number and by a sum of all entries."""
        total = sum(map(hash, self._execute("SELECT key, value, number FROM field")))
        ((count,),) = self._execute("SELECT count(*) FROM field")
        wanted, right = 0, 0
        for entries in list_indexed(self._connection):
            wanted += len(entries)
            right += sum(map(hash, entries))
        if (count, total) != (wanted, right):
            self._add(
                "the index of fields",
                f"it has {count} entries, and not the {wanted} that are right: selectors may miss documents",
                lambda: index_all(self._connection),
            )


def _read(data: Any) -> Any:
    try:
        return decode(data)
    except (FailedError, TypeError, AttributeError):
        return None
