"""What retention keeps, and that a compaction is in nobody's way and loses nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from conformance.test_store import delete, make, put, put_status
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import ConflictError
from backend.store.compaction import DAY, Entry, choose
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions

NOW = 1_800_000_000.0
WRITERS = 8


def make_entries(*days: float, deleted: tuple[int, ...] = ()) -> list[Entry]:
    """Return the versions of a document, each written so many days ago; some are deletions."""
    return [Entry(n, n * 10, NOW - age * DAY, n in deleted) for n, age in enumerate(days, start=1)]


def chosen(entries: list[Entry], *retention: float) -> list[int]:
    return [entry.version for entry in choose(entries, Retention(*retention), NOW)]  # type: ignore[arg-type]


class TestChoice:
    def test_beyond_a_number(self):
        assert chosen(make_entries(5, 4, 3, 2, 1), 2) == [1, 2, 3]
        assert chosen(make_entries(5, 4), 2) == []

    def test_by_the_age_of_what_replaced_them(self):
        assert chosen(make_entries(90, 60, 20, 1), 100, 30) == [1]
        assert chosen(make_entries(90, 60, 31, 1), 100, 30) == [1, 2]
        assert chosen(make_entries(900), 100, 30) == []
        assert chosen(make_entries(900, 800), 100, 30) == [1]

    def test_by_both(self):
        assert chosen(make_entries(90, 60, 20, 10, 1), 2, 30) == [1, 2, 3]

    def test_the_deleted_as_a_whole_and_not_before_its_time(self):
        assert chosen(make_entries(90, 80, 31, deleted=(3,)), 100, 0, 30) == [1, 2, 3]
        assert chosen(make_entries(90, 80, 29, deleted=(3,)), 100, 1, 30) == []
        assert chosen(make_entries(90, 80, 31, deleted=(3,)), 100, 0, 0) == []

    def test_what_came_back_is_live(self):
        assert chosen(make_entries(90, 80, 70, deleted=(2,)), 100, 0, 30) == []
        assert chosen(make_entries(90, 80, 70, deleted=(2,)), 100, 30, 30) == [1, 2]

    @given(
        ages=st.lists(st.floats(0, 100), min_size=1, max_size=12),
        deletions=st.sets(st.integers(1, 12)),
        retention=st.builds(Retention, st.integers(1, 12), st.sampled_from([0, 1, 30]), st.sampled_from([0, 1, 30])),
    )
    def test_what_is_kept_is_never_torn(self, ages: list[float], deletions: set[int], retention: Retention):
        entries = make_entries(*ages, deleted=tuple(deletions))
        dropped = choose(entries, retention, NOW)
        assert dropped == entries[: len(dropped)]
        if not entries[-1].is_deletion:
            assert len(dropped) < len(entries)
        assert choose(entries[len(dropped) :], retention, NOW) == [] if len(dropped) < len(entries) else True


# Each writer creates, changes, deletes and brings back documents of its own, and tells what was acknowledged.
WRITER = f"""
import os, random, sys
sys.path[:0] = {sys.path!r}
from conformance.test_store import delete, make, put, put_status
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions
store = open_store(sys.argv[1], create=False, retentions=Retentions(Retention(versions=50)))
own = sys.argv[3]
acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
number = 0
while True:
    number += 1
    name = f"{{own}}-{{number % 5}}"
    written = put(store, make(name, metadata={{"n": number, "x": "y" * 500}}))
    put_status(store, written["uid"], {{"n": number}})
    version = written["version"]
    if number % 11 == 0:
        delete(store, written["uid"])
        version += 1
    os.write(acknowledged, f"{{name}} {{version}} {{number}}\\n".encode())
"""


def test_compacting_while_eight_processes_write_loses_nothing(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    store = open_store(url, retentions=Retentions(Retention(versions=3, deleted_days=1e-9)))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(tmp_path / f"acknowledged-{number}"), f"w{number}"],
            stdout=subprocess.PIPE,
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
    rounds, versions, documents = 0, 0, 0
    deadline = time.monotonic() + 6
    since, seen = store.revision(), 0
    while time.monotonic() < deadline or rounds < 3:
        done = store.compact()
        rounds, versions, documents = rounds + 1, versions + done.versions, documents + done.documents
        try:
            changes = store.changes(since)
            seen += len(changes)
            since = changes[-1].revision if changes else since
        except ConflictError as error:
            assert error.details["compacted"] is True  # noqa: PT017 - the other right answer
            since = store.revision()
        assert [writer.poll() for writer in writers] == [None] * WRITERS
    for writer in writers:
        writer.kill()
        writer.wait()
        assert writer.stdout
        writer.stdout.close()
    assert versions > 100
    assert documents > 0
    assert seen > 0
    newest: dict[str, tuple[int, int]] = {}
    for file in tmp_path.glob("acknowledged-*"):
        for line in file.read_text().splitlines():
            name, version, number = line.split()
            newest[name] = (int(version), int(number))
    assert len(newest) == WRITERS * 5
    for name, (_version, number) in newest.items():
        document = store.find("VM", name)
        if number % 11:
            assert document, name
            assert document["metadata"]["n"] >= number
            assert document["status"]["n"] >= number - 5
    assert store.check() == []
    store.compact()
    assert store.check() == []
    store.close()


def test_a_compaction_that_is_killed_leaves_a_sound_store(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    wide = open_store(url)
    with wide.transaction() as transaction:
        for number in range(400):
            for cpus in range(4):
                transaction.put(make(f"vm-{number}", spec={"cpus": cpus, "x": "y" * 500}))
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions
store = open_store({url!r}, retentions=Retentions(Retention(versions=1)))
print("ready", flush=True)
print(store.compact().versions, flush=True)
"""
    before = wide.list_documents("VM").items
    for delay in (0.0, 0.01, 0.02, 0.04, 0.08):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)  # the moment of the kill is what differs
        process.kill()
        process.wait()
        process.stdout.close()
        assert wide.list_documents("VM").items == before
        assert wide.check() == []
    narrow = open_store(url, retentions=Retentions(Retention(versions=1)))
    narrow.compact()
    counts = Counter(len(narrow.history("VM", document["uid"])) for document in before)
    assert counts == {1: 400}
    assert narrow.list_documents("VM").items == before
    assert narrow.check() == []
    narrow.close()
    wide.close()


def test_room_is_given_back_to_the_disk(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    store = open_store(url, retentions=Retentions(Retention(versions=100)))
    for number in range(60):
        put(store, make(metadata={"x": str(number) * 30_000}))
    other = open_store(url, retentions=Retentions(Retention(versions=1)))
    done = other.compact()
    on_disk = sum((tmp_path / name).stat().st_size for name in ("kc.db", "kc.db-wal"))
    assert done.bytes_after == on_disk < done.bytes_before / 5
    assert store.find("VM", "web")
    put(store, make())
    assert other.check() == []
    store.close()
    other.close()


def test_a_reader_in_the_middle_of_an_export_is_not_disturbed(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    store = open_store(url, retentions=Retentions(Retention(versions=1)))
    wide = open_store(url)
    for cpus in range(1200):
        put(wide, make(f"vm-{cpus % 20}", spec={"cpus": cpus}))
    records = wide.dump()
    next(records)
    assert store.compact().versions == 1180
    assert len(list(records)) == 1201
    put(wide, make("later"))
    assert store.compact()[:2] == (0, 0)
    assert store.check() == []
    wide.close()
    store.close()


def test_export_and_import_take_no_more_memory_for_more_documents(tmp_path: Path):
    peaks = []
    for count in (2000, 8000):
        store = open_store(f"tinydb:{tmp_path}/{count}.db")
        for start in range(0, count, 1000):
            with store.transaction() as transaction:
                for number in range(start, start + 1000):
                    transaction.put(make(f"vm-{number}", metadata={"x": "y" * 500, "n": number}))
        target = open_store(f"tinydb:{tmp_path}/{count}-again.db")
        tracemalloc.start()
        assert target.load(store.dump()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        target.close()
        store.close()
    assert peaks[1] < peaks[0] * 1.5, peaks


@pytest.mark.parametrize("versions", [1, 2, 5])
def test_what_a_status_leaves_is_one_version(tmp_path: Path, versions: int):
    store = open_store(f"tinydb:{tmp_path}/kc.db", retentions=Retentions(Retention(versions=versions)))
    put(store, make())
    for number in range(10):
        put_status(store, "uid-of-web", {"n": number})
    delete(store, "uid-of-web")
    store.close()
    connection = sqlite3.connect(tmp_path / "kc.db")
    assert connection.execute("SELECT tbl, version FROM log").fetchall() == [("VM", 1), ("VM", 2)]
    connection.close()
