"""The audit trail: appended by many, never rewritten, read from its end."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from backend.audit import AuditTrail
from backend.errors import FailedError, RefusedError

_WORKER = """
import sys
from pathlib import Path
from backend.audit import AuditTrail
trail = AuditTrail(Path(sys.argv[1]), segment_bytes=20_000)
for number in range(int(sys.argv[3])):
    trail.record({"worker": sys.argv[2], "number": number, "text": "ä" * 80}, durable=number % 50 == 0)
trail.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def lines_of(folder: Path) -> list[str]:
    return [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def write(folder: Path, count: int, **options: int) -> None:
    trail = AuditTrail(folder, **options)
    for number in range(count):
        trail.record({"subject": f"user{number % 3}", "number": number}, durable=False)
    trail.close()


def test_a_durable_entry_is_in_a_private_file_at_once(folder: Path) -> None:
    trail = AuditTrail(folder)
    trail.record({"subject": "alice", "action": "vm.start"}, durable=True)
    (line,) = lines_of(folder)
    entry = json.loads(line)
    assert entry["at"].endswith("Z")
    assert (entry["subject"], entry["action"]) == ("alice", "vm.start")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    trail.close()


def test_nothing_is_made_by_a_trail_that_records_nothing(folder: Path) -> None:
    trail = AuditTrail(folder)
    assert trail.read().items == []
    trail.close()
    assert not folder.exists()


def test_other_entries_are_written_within_a_moment(folder: Path) -> None:
    trail = AuditTrail(folder)
    trail.record({"number": 1}, durable=False)
    ends = time.monotonic() + 5
    while not (folder.exists() and lines_of(folder)):
        assert time.monotonic() < ends
        time.sleep(0.01)
    trail.record({"number": 2}, durable=False)
    trail.record({"number": 3}, durable=True)
    assert [json.loads(line)["number"] for line in lines_of(folder)] == [1, 2, 3]
    trail.close()
    trail.close()


def test_fields_are_bounded_and_no_terminal_takes_them_for_commands(folder: Path) -> None:
    trail = AuditTrail(folder)
    hostile = {
        "name": "\x1b[2Jx\nfake",
        "long": "y" * 100_000,
        "deep": {"a": {"b": {"c": {"d": [1]}}}},
        "nan": float("nan"),
    }
    trail.record({**hostile, "many": list(range(1000)), **{f"k{i}": "z" * 1000 for i in range(100)}}, durable=True)
    (line,) = lines_of(folder)
    entry = json.loads(line)
    assert len(line) <= 16 << 10
    assert len(entry["long"]) == 300
    assert "\x1b" not in line
    assert entry["name"] == "\ufffd[2Jx\ufffdfake"
    trail.close()


def test_the_newest_comes_first_and_a_selector_asks_for_fields(folder: Path) -> None:
    write(folder, 9)
    trail = AuditTrail(folder)
    page = trail.read()
    assert [item["metadata"]["number"] for item in page.items] == list(range(8, -1, -1))
    assert {item["kind"] for item in page.items} == {"Audit"}
    names = [item["name"] for item in page.items]
    assert names == sorted(set(names), reverse=True)
    assert [item["metadata"]["number"] for item in trail.read("subject=user1").items] == [7, 4, 1]
    assert [item["metadata"]["number"] for item in trail.read("number>6").items] == [8, 7]
    with pytest.raises(RefusedError):
        trail.read("a b")


def test_fields_that_every_document_has_are_those_of_the_entry(folder: Path) -> None:
    trail = AuditTrail(folder)
    for name in ("web", "db"):
        trail.record({"kind": "VM", "name": name, "uid": "1", "version": 3}, durable=True)
    assert [item["metadata"]["name"] for item in trail.read("kind=VM,name=web,uid=1,version>2").items] == ["web"]
    assert trail.read("kind=Audit").items == []
    trail.close()


@pytest.mark.parametrize("segment", [16 << 20, 300])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_follow_each_other_whatever_is_written_meanwhile(folder: Path, segment: int, size: int) -> None:
    write(folder, 20, segment_bytes=segment)
    trail = AuditTrail(folder, segment_bytes=segment)
    found: list[int] = []
    cursor = ""
    while True:
        page = trail.read("subject in (user0,user2)", size, cursor)
        found += [item["metadata"]["number"] for item in page.items]
        trail.record({"subject": "user0", "number": 99}, durable=True)
        cursor = page.next
        if not cursor:
            break
    assert found == [number for number in range(19, -1, -1) if number % 3 != 1]
    trail.close()


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "1-1-1", "../../x-1"])
def test_a_cursor_that_is_none_is_refused(folder: Path, cursor: str) -> None:
    with pytest.raises(RefusedError):
        AuditTrail(folder).read(after=cursor)


def test_a_full_segment_is_left_as_it_is(folder: Path) -> None:
    write(folder, 50, segment_bytes=500)
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "000001.jsonl"
    assert len(names) > 5
    before = {path: path.read_bytes() for path in sorted(folder.iterdir())[:-1]}
    assert all(500 <= len(data) < 650 for data in before.values())
    write(folder, 50, segment_bytes=500)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(AuditTrail(folder).read().items) == 100


def test_a_torn_line_takes_no_other_with_it(folder: Path) -> None:
    write(folder, 3)
    path = folder / "000001.jsonl"
    with path.open("ab") as file:
        file.write(b'{"at":"2026-01-01T00:00:00.000Z","num')
    trail = AuditTrail(folder)
    page = trail.read()
    assert [item["metadata"]["number"] for item in page.items] == [2, 1, 0]
    assert page.warnings == []  # it may still be being written
    trail.record({"number": 3}, durable=True)
    page = trail.read()
    assert [item["metadata"]["number"] for item in page.items] == [3, 2, 1, 0]
    assert page.warnings == ["a line of the audit trail is damaged"]
    trail.close()


def test_a_segment_that_was_moved_away_is_followed_by_the_next(folder: Path, tmp_path: Path) -> None:
    trail = AuditTrail(folder)
    trail.record({"number": 1}, durable=True)
    (folder / "000001.jsonl").rename(tmp_path / "archived")
    trail.record({"number": 2}, durable=True)
    assert [path.name for path in folder.iterdir()] == ["000002.jsonl"]
    assert [item["metadata"]["number"] for item in trail.read().items] == [2]
    trail.close()


def test_no_entry_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / "000001.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FailedError):
        AuditTrail(folder).record({"number": 1}, durable=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_refuses_what_must_be_told_and_is_told_of_later(folder: Path) -> None:
    trail = AuditTrail(folder)
    trail.record({"number": 0}, durable=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "000001.jsonl").stat().st_size + 5, limits[1]))
        with pytest.raises(FailedError, match="audit trail"):
            trail.record({"number": 1}, durable=True)
        trail.record({"number": 2}, durable=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    trail.record({"number": 3}, durable=True)
    numbers = [item["metadata"]["number"] for item in trail.read().items]
    assert numbers == [3, 2, 0]
    trail.close()


def test_what_is_lost_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.audit._MOST_WAITING", 10)
    monkeypatch.setattr("backend.audit.FLUSH_SECONDS", 3600)
    trail = AuditTrail(folder)
    for number in range(25):
        trail.record({"number": number}, durable=False)
    trail.close()
    entries = [json.loads(line) for line in lines_of(folder)]
    assert (entries[0]["event"], entries[0]["count"]) == ("lost", 15)
    assert [entry["number"] for entry in entries[1:]] == list(range(15, 25))


def test_eight_processes_append_side_by_side(folder: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(folder), str(number), "300"], cwd=Path(__file__).parents[2]
        )
        for number in range(8)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 8
    entries = [json.loads(line) for line in lines_of(folder) if line]
    for worker in range(8):
        assert [each["number"] for each in entries if each["worker"] == str(worker)] == list(range(300))
    names = [item["name"] for item in AuditTrail(folder).read().items]
    assert len(set(names)) == 2400
    assert len(list(folder.iterdir())) > 20


def test_memory_stays_flat_on_a_large_trail(folder: Path) -> None:
    folder.mkdir()
    line = json.dumps({"at": "2026-01-01T00:00:00.000Z", "subject": "alice", "text": "x" * 100}).encode() + b"\n"
    with (folder / "000001.jsonl").open("wb") as file:
        for _ in range(100):
            file.write(line * 1000)
        file.write(b"z" * 300_000 + b"\n" + line)
    size = (folder / "000001.jsonl").stat().st_size
    assert size > 15 << 20
    trail = AuditTrail(folder)
    tracemalloc.start()
    assert trail.read("subject=bob").items == []
    assert len(trail.read(limit=3).items) == 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
