"""Retention by age, and the room that it gives back, while other processes read and write."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from backend.errors import FailedError
from backend.model.upkeep import Compaction
from backend.store.connections import Connections
from backend.store.files import BUSY_SECONDS
from backend.store.indexing import settle
from backend.store.protocol import Retention, Retentions
from backend.store.rows import STATUS

DAY = 86400.0
# Few enough that those who wait for the lock hardly notice.
_BATCH = 100
# One part in so many is free, or has just been dropped.
_WORTH_IT = 20
_PATIENCE = 200  # milliseconds


class Entry(NamedTuple):
    """One write of a document, as retention sees it."""

    version: int
    revision: int
    at: float
    is_deletion: bool


def choose(entries: list[Entry], retention: Retention, now: float) -> list[Entry]:
    """Return which writes of one document a retention no longer keeps; `entries` are all there are, the oldest first.

    They are always the first ones, so that what is kept has no gap, and never the newest one of what is live.
    """
    newest = entries[-1]
    if newest.is_deletion:
        if retention.deleted_days and newest.at < now - retention.deleted_days * DAY:
            return entries
        return entries[: -max(retention.versions, 2)]
    # The versions before the last deletion are those of another life, and go as any other.
    count = max(0, len(entries) - max(retention.versions, 1))
    if retention.days:
        replaced = now - retention.days * DAY
        while count < len(entries) - 1 and entries[count + 1].at < replaced:
            count += 1
    return entries[:count]


def compact(path: Path, connections: Connections, retentions: Retentions) -> Compaction:
    """Drop what the retentions no longer keep, a batch a transaction, and give its room back.

    Where the disk has too little room for that, the room is used by the writes to come instead.
    """
    before = measure(path)
    versions, documents = 0, 0
    now = time.time()
    for (table,) in connections.fetch("SELECT DISTINCT tbl FROM log"):
        if table.endswith(STATUS):
            continue
        for uids in _find_candidates(connections, table, retentions.of(table), now):
            with connections.transaction():
                dropped, forgotten = _drop(connections, table, uids, retentions.of(table), now)
            versions, documents = versions + dropped, documents + forgotten
    with suppress(FailedError):  # too little room for a second copy
        _give_back(connections, versions)
    return Compaction(versions, documents, before, measure(path))


def measure(path: Path) -> int:
    """Return how many bytes a store takes on the disk."""
    size = 0
    for file in (path, Path(f"{path}-wal")):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _find_candidates(
    connections: Connections, table: str, retention: Retention, now: float
) -> Iterator[list[str]]:  # fmt: skip
    """Yield, in batches, the ids of documents of which something is to go as they stand now."""
    rows = connections.fetch(
        "SELECT id FROM log WHERE tbl = ? GROUP BY id HAVING count(*) > 1"
        " UNION SELECT id FROM log WHERE tbl = ? AND body IS NULL",
        (table, table),
    )
    for start in range(0, len(rows), _BATCH):
        uids = [uid for (uid,) in rows[start : start + _BATCH]]
        found = [uid for uid, entries in _read(connections, table, uids) if choose(entries, retention, now)]
        if found:
            yield found


def _read(connections: Connections, table: str, uids: list[str]) -> Iterable[tuple[str, list[Entry]]]:
    rows = connections.fetch(
        "SELECT id, version, revision, at, body IS NULL FROM log"  # noqa: S608 - places alone
        f" WHERE tbl = ? AND id IN ({','.join('?' * len(uids))}) ORDER BY id, version",
        (table, *uids),
    )
    for uid, group in groupby(rows, itemgetter(0)):
        yield uid, [Entry(version, revision, at, bool(gone)) for _, version, revision, at, gone in group]


def _drop(
    connections: Connections, table: str, uids: list[str], retention: Retention, now: float
) -> tuple[int, int]:  # fmt: skip
    """Drop what is to go of some documents, looked at again under the lock; return how many versions and documents."""
    connections.run(settle)  # so that the index needs none of what goes
    ((newest,),) = connections.fetch("SELECT max(revision) FROM log")
    revisions: list[int] = []
    documents = 0
    for _, entries in _read(connections, table, uids):
        chosen = choose(entries, retention, now)
        # The store's newest write stays: the revision to go on from is told by it.
        if chosen and chosen[-1].revision != newest:
            revisions += [entry.revision for entry in chosen]
            documents += len(chosen) == len(entries)
    for revision in revisions:
        connections.write("DELETE FROM log WHERE revision = ?", (revision,))
    if revisions:
        connections.write(
            "UPDATE meta SET value = max(CAST(value AS INTEGER), ?) WHERE key = 'floor'", (max(revisions),)
        )
    return len(revisions), documents


def _give_back(connections: Connections, dropped: int) -> None:
    """Write the file anew without its holes where that is worth it; readers go on with what they read."""
    with connections.alone() as connection:
        ((pages,),) = connection.execute("PRAGMA page_count")
        ((free,),) = connection.execute("PRAGMA freelist_count")
        ((kept,),) = connection.execute("SELECT count(*) FROM log")
        if free * _WORTH_IT > pages or dropped * _WORTH_IT > kept:
            connection.execute("VACUUM")
        # A reader in the middle of a list keeps its moment: the log is then cut short another time.
        connection.execute(f"PRAGMA busy_timeout={_PATIENCE}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute(f"PRAGMA busy_timeout={round(BUSY_SECONDS * 1000)}")
