"""What the memory engine holds: a log, the heads that follow from it, and what can be told from the two."""

from __future__ import annotations

import time

from backend.model.upkeep import Fault
from backend.store.codec import decode
from backend.store.faults import describe
from backend.store.protocol import Retention
from backend.store.rows import STATUS, Change, LogRecord, Row

_DAY = 86400.0  # seconds


class State:
    """All that a store holds at one moment; `log` is in the order of revisions, `heads` has the live record of each."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.revision = 0
        self.floor = 0
        self.log: list[LogRecord] = []
        self.heads: dict[str, dict[str, LogRecord]] = {}
        self.leases: dict[str, bytes] = {}

    def copy(self) -> State:
        """Return another one that can be changed by itself; records never change."""
        twin = State(self.identity)
        twin.revision, twin.floor = self.revision, self.floor
        twin.log, twin.leases = self.log.copy(), self.leases.copy()
        twin.heads = {table: heads.copy() for table, heads in self.heads.items()}
        return twin

    def row(self, head: LogRecord) -> Row:
        """Return the row of a live record, with its status."""
        status = self.heads.get(head.table + STATUS, {}).get(head.uid)
        return head.version, head.body or b"", status.body if status else None

    def records(self, table: str, uid: str) -> list[LogRecord]:
        """Return all that is kept of one id, the oldest first."""
        return [record for record in self.log if record.uid == uid and record.table == table]

    def follow_log(self) -> dict[str, dict[str, LogRecord]]:
        """Return the heads that follow from the log."""
        heads: dict[str, dict[str, LogRecord]] = {}
        for record in self.log:
            if record.body is None:
                heads.get(record.table, {}).pop(record.uid, None)
            else:
                heads.setdefault(record.table, {})[record.uid] = record
        return heads


def group_log(log: list[LogRecord]) -> dict[tuple[str, str], list[LogRecord]]:
    """Return the records of each table and id, the oldest first."""
    groups: dict[tuple[str, str], list[LogRecord]] = {}
    for record in log:
        groups.setdefault((record.table, record.uid), []).append(record)
    return groups


def count_kept(retention: Retention, table: str, *, is_live: bool) -> int:
    """Return how many versions are kept by number; of what was deleted two at least, for it is shown as it was."""
    return max(1 if table.endswith(STATUS) else retention.versions, 1 if is_live else 2)


def find_old(retention: Retention, records: list[LogRecord], *, is_live: bool) -> set[int]:
    """Return the revisions that need not be kept of the records of one id."""
    now = time.time()
    if not is_live and retention.deleted_days and records[-1].at < now - retention.deleted_days * _DAY:
        return {record.revision for record in records}
    old = max(0, len(records) - count_kept(retention, records[-1].table, is_live=is_live))
    if is_live and retention.days:
        while old < len(records) - 1 and records[old + 1].at < now - retention.days * _DAY:
            old += 1
    return {record.revision for record in records[:old]}


def complete_change(state: State, record: LogRecord) -> Change | None:
    """Return the change that a record stands for; None where newer ones say all that it would."""
    table = record.table.removesuffix(STATUS)
    live = state.heads.get(table, {}).get(record.uid)
    if table != record.table:
        return Change(record.revision, table, "status", state.row(live)) if live else None
    if record.body is not None:
        return Change(
            record.revision, table, record.event, (record.version, record.body, state.row(live)[2] if live else None)
        )
    before = [each for each in state.records(table, record.uid) if each.version < record.version and each.body]
    if not before:  # it came back since, and was changed often
        return None
    return Change(record.revision, table, record.event, (before[-1].version, before[-1].body or b"", None))


def check_log(state: State) -> list[Fault]:
    """Return what is wrong with the log itself, which nothing can repair."""
    faults = []
    revisions = [record.revision for record in state.log]
    if revisions != sorted(set(revisions)) or (revisions and revisions[-1] > state.revision):
        faults.append(Fault("log", "its revisions are out of order"))
    for (table, uid), records in group_log(state.log).items():
        versions = [record.version for record in records]
        if versions != list(range(versions[0], versions[0] + len(versions))):
            faults.append(Fault(describe(table, uid), "its versions are out of order"))
        if any(record.body is not None and not isinstance(decode(record.body), dict) for record in records):
            faults.append(Fault(describe(table, uid), "a version is no object"))
    for table, heads in state.follow_log().items():
        names = [head.name for head in heads.values() if head.name is not None]
        faults += [
            Fault(describe(table, name), "two live documents have the name")
            for name in sorted(set(names))
            if names.count(name) > 1
        ]
    return faults
