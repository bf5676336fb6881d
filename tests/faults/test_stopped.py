"""A process that is stopped at the worst moment keeps others waiting for a while only, and they are told which."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conformance.test_store import make, names, put

from backend.errors import TimedOutError
from backend.store import lock
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions, Store

PATIENCE = 1.0  # seconds; thirty in earnest
SLACK = 4.0  # seconds; how late a loaded machine may be

HOLDER = """
import sys
sys.path[:0] = {path!r}
from conformance.test_store import make
from backend.store.opening import open_store
store = open_store({url!r}, create=False)
with store.transaction() as transaction:
    transaction.put(make("held"))
    print("holding", flush=True)
    sys.stdin.readline()
print("done", flush=True)
sys.stdin.readline()
store.close()
"""
READER = """
import sys
sys.path[:0] = {path!r}
from backend.store.opening import open_store
store = open_store({url!r}, create=False)
records = store.dump()
next(records), next(records)
print("holding", flush=True)
sys.stdin.readline()
print(sum(1 for _ in records), flush=True)
store.close()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"tinydb:{tmp_path}/kc.db"


def open_impatient(url: str, retentions: Retentions = Retentions()) -> Store:  # noqa: B008 - it never changes
    opened = open_store(url, retentions=retentions)
    opened._engine._connections._lock._patience = PATIENCE  # type: ignore[attr-defined]
    return opened


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_impatient(url)
    put(opened, make("first"))
    yield opened
    opened.close()


@contextmanager
def start(program: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that has come to its critical point; it is ended in any case."""
    process = subprocess.Popen(
        [sys.executable, "-c", program.format(path=sys.path, url=url)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "holding\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a process, and wait until it has stopped."""
    process.send_signal(signal.SIGSTOP)
    pid, status = os.waitpid(process.pid, os.WUNTRACED)
    assert (pid, os.WIFSTOPPED(status)) == (process.pid, True)


def go_on(process: subprocess.Popen[str]) -> str:
    """Let a stopped process do one step more, and return what it says then."""
    process.send_signal(signal.SIGCONT)
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def expect_time_out(store: Store, holder: int) -> None:
    """Write, and see the error come in time and name the process that is in the way."""
    begun = time.monotonic()
    with pytest.raises(TimedOutError) as raised:
        put(store, make("new"))
    assert PATIENCE * 0.9 < time.monotonic() - begun < PATIENCE + SLACK
    assert re.search(rf"\bprocess {holder}\b", str(raised.value)), raised.value
    assert "resume it" in raised.value.hint


def test_patience_in_earnest_is_half_a_minute():
    assert lock.PATIENCE == 30


def test_writers_are_told_who_is_in_the_way_and_go_on_after_it(store: Store, url: str):
    with start(HOLDER, url) as holder:
        stop(holder)
        expect_time_out(store, holder.pid)
        # Who gave up can ask again, and others have waited no longer for it.
        expect_time_out(store, holder.pid)
        assert go_on(holder) == "done\n"
        put(store, make("new"))
        assert names(store.list_documents("VM").items) == ["first", "held", "new"]
    assert store.check() == []


def test_reading_goes_on_beside_a_stopped_writer(store: Store, url: str):
    with start(HOLDER, url) as holder:
        stop(holder)
        begun = time.monotonic()
        assert names(store.list_documents("VM").items) == ["first"]
        assert len(store.changes(0)) == 1
        assert store.changes(store.revision(), wait=0.2) == []
        assert len(list(store.dump())) == 3
        another = open_impatient(url)
        assert another.find("VM", "first")
        another.close()
        # Closing waits for the lock a little, for the sake of the file's log, and does without.
        assert time.monotonic() - begun < 2 + SLACK


def test_all_threads_that_wait_are_told_at_once(store: Store, url: str):
    with start(HOLDER, url) as holder:
        stop(holder)
        told: list[float] = []

        def write(number: int) -> None:
            begun = time.monotonic()
            try:
                put(store, make(f"vm-{number}"))
            except TimedOutError:
                told.append(time.monotonic() - begun)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(told) == 6
        assert max(told) < PATIENCE + SLACK
        go_on(holder)
        put(store, make("new"))


def test_a_compaction_and_an_import_wait_no_longer_than_a_write(store: Store, url: str):
    put(store, make("first", spec={"cpus": 2}))
    narrow = open_impatient(url, Retentions(Retention(versions=1)))
    with start(HOLDER, url) as holder:
        stop(holder)
        for call in (narrow.compact, lambda: store.load(store.dump())):
            begun = time.monotonic()
            with pytest.raises(TimedOutError):
                call()
            assert time.monotonic() - begun < PATIENCE + SLACK
        go_on(holder)
        assert narrow.compact().versions == 1
    narrow.close()


def test_the_lock_of_a_stopped_process_that_is_killed_is_free(store: Store, url: str):
    with start(HOLDER, url) as holder:
        stop(holder)
        expect_time_out(store, holder.pid)
        holder.kill()
        holder.wait(20)
        put(store, make("new"))
        assert names(store.list_documents("VM").items) == ["first", "new"], "it had committed nothing"
    assert store.check() == []


def test_a_stopped_process_in_the_queue_is_in_nobodys_way(store: Store, url: str):
    queued = f"""
import sys
sys.path[:0] = {sys.path!r}
from conformance.test_store import make, put
from backend.store.opening import open_store
store = open_store({url!r}, create=False)
store.find("VM", "first"), __import__("backend.store.tables")
print("holding", flush=True)
put(store, make("queued"))
print("done", flush=True)
store.close()
"""
    with start(HOLDER, url) as holder, start(queued.replace("{", "{{").replace("}", "}}"), url) as waiter:
        wait_for_queue(waiter.pid, Path(url.removeprefix("tinydb:") + ".lock"))
        stop(waiter)
        assert go_on(holder) == "done\n"
        for number in range(3):
            put(store, make(f"vm-{number}"))
        waiter.send_signal(signal.SIGCONT)
        assert waiter.stdout
        assert waiter.stdout.readline() == "done\n"
    assert names(store.list_documents("VM").items) == ["first", "held", "queued", "vm-0", "vm-1", "vm-2"]


def wait_for_queue(pid: int, file: Path) -> None:
    """Wait until a process stands in the queue for a lock file; proc_locks(5): those that wait have an arrow."""
    inode = str(file.stat().st_ino)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.split()
            if words[1] == "->" and words[5] == str(pid) and words[6].endswith(f":{inode}"):
                return
        time.sleep(0.02)
    pytest.fail(f"process {pid} never came to the queue")


def test_a_reader_that_is_stopped_in_the_middle_holds_nobody_up(store: Store, url: str):
    for cpus in range(20):
        put(store, make(spec={"cpus": cpus}))
    narrow = open_impatient(url, Retentions(Retention(versions=1)))
    entries = len(list(store.dump()))
    with start(READER, url) as reader:
        stop(reader)
        begun = time.monotonic()
        put(store, make("new"))
        assert narrow.compact().versions == 19
        put(store, make("newer"))
        assert time.monotonic() - begun < SLACK
        # What it reads is still the moment at which it began.
        assert go_on(reader) == f"{entries - 2}\n"
    narrow.compact()
    assert store.check() == []
    narrow.close()
