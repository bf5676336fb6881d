"""The power goes off: what was acknowledged is on the disk, wherever in a write the cut came.

A cut is made from the files themselves. They are copied after each acknowledgement; between two such moments SQLite
appends to the log, waits for the disk, and now and then moves the log into the database. So the disk may have, of all
that was written in between, any part: each boundary of a page, and the middle of one, of the log; and any of the pages
of the database, because the disk orders them as it likes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conformance.test_store import delete, make, put, put_status

from backend.errors import FailedError
from backend.store.engine import FileEngine
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions, Store

PAGE = 4096
HEADER = 32
FRAME = 24 + PAGE
CHECKPOINT = 25  # pages; SQLite's own choice is 1000
WRITES = 90

Versions = dict[tuple[str, int], Any]


class Moment(NamedTuple):
    """The files as an acknowledgement found them, and all that had been acknowledged."""

    database: bytes
    log: bytes
    live: dict[str, tuple[int, Any, Any]]
    deleted: set[str]


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """What a writer left after each of its acknowledged writes, checkpoints among them."""
    path = tmp_path_factory.mktemp("power") / "kc.db"
    store = open_store(f"tinydb:{path}", retentions=Retentions(Retention(versions=1000)))
    put(store, make("first"))
    engine = store._engine  # type: ignore[attr-defined]
    assert isinstance(engine, FileEngine)
    writer = engine._connections._writer
    assert writer
    writer.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT}")
    chance = random.Random(3)
    live: dict[str, tuple[int, Any, Any]] = {"uid-of-first": (1, {"cpus": 1}, {})}
    deleted: set[str] = set()
    found = [snap(path, live, deleted)]
    for number in range(WRITES):
        uid = f"uid-of-vm-{chance.randrange(12)}"
        known = live.get(uid)
        verb = chance.randrange(8)
        if known and verb == 0:
            delete(store, uid)
            del live[uid]
            deleted.add(uid)
        elif known and verb < 3:
            put_status(store, uid, {"n": number})
            live[uid] = (*known[:2], {"n": number})
        else:
            spec = {"n": number, "x": "y" * chance.choice([10, 3000, 9000])}
            written = put(store, make(uid[7:], metadata={"n": number}, spec=spec))
            live[uid] = (written["version"], spec, known[2] if known else {})
            deleted.discard(uid)
        found.append(snap(path, live, deleted))
    store.close()
    return found


def snap(path: Path, live: dict[str, Any], deleted: set[str]) -> Moment:
    return Moment(path.read_bytes(), Path(f"{path}-wal").read_bytes(), dict(live), set(deleted))


def open_cut(folder: Path, database: bytes, log: bytes) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "kc.db").write_bytes(database)
    (folder / "kc.db-wal").write_bytes(log)
    return open_store(f"tinydb:{folder}/kc.db", create=False)


def holds(store: Store, moment: Moment) -> bool:
    """Return whether a store has exactly what had been acknowledged at a moment."""
    found = {
        document["uid"]: (document["version"], document["spec"], document["status"])
        for document in store.list_documents("VM").items
    }
    gone = {uid for uid in moment.deleted if store.history("VM", uid)[-1].document is None}
    return found == moment.live and gone == moment.deleted


def check_cut(folder: Path, database: bytes, log: bytes, allowed: list[Moment]) -> int:
    """Open what a cut left and return which of the allowed moments it is."""
    store = open_cut(folder, database, log)
    try:
        matching = [index for index, moment in enumerate(allowed) if holds(store, moment)]
        assert matching, "what was acknowledged is not there, or only in part"
        for uid, (version, _, _) in allowed[matching[0]].live.items():
            assert [entry.version for entry in store.history("VM", uid)] == list(range(1, version + 1))
        assert store.check() == []
        put(store, make("after the cut"))
        assert store.find("VM", "after the cut")
    finally:
        store.close()
    return matching[0]


def list_changed_pages(before: bytes, after: bytes) -> list[int]:
    size = max(len(before), len(after))
    return [at for at in range(0, size, PAGE) if before[at : at + PAGE] != after[at : at + PAGE]]


def find_difference(before: bytes, after: bytes) -> tuple[int, int]:
    """Return the first and the last place at which a file has changed; what is behind is left of earlier rounds."""
    size = min(len(before), len(after))
    first = next((at for at in range(size) if before[at] != after[at]), size)
    if len(after) > len(before):
        return first, len(after) - 1
    return first, next(at for at in range(size - 1, -1, -1) if before[at] != after[at])


def list_cuts(before: bytes, after: bytes) -> Iterator[bytes]:
    """Yield the log as it may be while it grows from one moment's to the next one's: at every boundary, and torn."""
    first, last = find_difference(before, after)
    ends = [HEADER + FRAME * number for number in range((len(after) - HEADER) // FRAME + 1)]
    boundaries = sorted({0, *ends, len(after)})
    for start, end in zip(boundaries, [*boundaries[1:], len(after)], strict=True):
        for at in (start, start + 11, start + 24 + 512, end - 1):
            if first <= at <= last:
                # What the write has not reached is as it was before.
                yield after[:at] + before[at:]


def test_the_recording_has_what_it_is_to_test(moments: list[Moment]):
    checkpoints = [a for a, b in pairwise(moments) if a.database != b.database]
    restarts = [a for a, b in pairwise(moments) if a.log[16:24] != b.log[16:24]]
    assert len(checkpoints) >= 5
    assert len(restarts) >= 5
    assert any(moment.deleted for moment in moments)
    places = {find_difference(a.log, b.log)[0] for a, b in pairwise(moments)}
    assert len(places) > 10


def test_every_acknowledged_write_is_on_the_disk(moments: list[Moment], tmp_path: Path):
    for moment in moments:
        assert check_cut(tmp_path / "cut", moment.database, moment.log, [moment]) == 0


def test_a_cut_while_the_log_is_written_leaves_the_state_before_or_after(moments: list[Moment], tmp_path: Path):
    results = set()
    count = 0
    for before, after in zip(moments[::5], moments[1::5], strict=False):
        for log in list_cuts(before.log, after.log):
            results.add(check_cut(tmp_path / "cut", before.database, log, [before, after]))
            count += 1
    assert count > 100
    # The last frame of a write is what makes it count, so before its end the state is that of before.
    assert results == {0}


def test_a_cut_between_the_log_and_its_acknowledgement_leaves_the_write(moments: list[Moment], tmp_path: Path):
    for before, after in zip(moments[::4], moments[1::4], strict=False):
        assert check_cut(tmp_path / "cut", before.database, after.log, [before, after]) == 1


def test_a_cut_while_the_log_is_moved_into_the_database_loses_nothing(moments: list[Moment], tmp_path: Path):
    chance = random.Random(5)
    count = 0
    for before, after in pairwise(moments):
        pages = list_changed_pages(before.database, after.database)
        if not pages:
            continue
        for _ in range(6):
            database = bytearray(before.database.ljust(len(after.database), b"\0"))
            for at in chance.sample(pages, chance.randint(1, len(pages))):
                torn = chance.choice([PAGE, PAGE, 512, 1536])
                database[at : at + torn] = after.database[at : at + torn]
            length = len(database) if chance.random() < 0.5 else max(len(before.database), max(pages) + PAGE)
            assert check_cut(tmp_path / "cut", bytes(database[:length]), after.log, [after]) == 0
            count += 1
    assert count >= 30


def test_a_log_whose_middle_is_damaged_is_read_up_to_there(moments: list[Moment], tmp_path: Path):
    """No power cut does that to what the disk said it had; then it is at least told from what is whole."""
    moment = max(moments, key=lambda each: len(each.log))
    log = bytearray(moment.log)
    log[HEADER + FRAME + 100] ^= 0xFF
    store = open_cut(tmp_path / "cut", moment.database, bytes(log))
    assert len(store.list_documents("VM").items) <= len(moment.live)
    store.close()


def test_a_database_that_the_disk_lost_says_so(moments: list[Moment], tmp_path: Path):
    moment = moments[-1]
    damaged = bytearray(moment.database)
    for at in range(PAGE, len(damaged), PAGE):
        damaged[at : at + PAGE] = b"\xff" * PAGE
    with pytest.raises(FailedError, match="damaged") as raised:
        open_cut(tmp_path / "cut", bytes(damaged), b"").list_documents("VM")
    assert "export or a copy" in raised.value.hint
