"""A cluster of three under load: the leader is killed and members come back; what was acknowledged is kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance.test_store import make, put
from support.etcd_cluster import Cluster, check_etcd

from backend.errors import ConflictError, UnreachableError
from backend.store import etcd_lock
from backend.store.etcd_lock import LEASE_SECONDS
from backend.store.opening import open_store
from backend.store.protocol import Store

KILLS = 5
BETWEEN = 10
WRITERS = 3
DOCUMENTS = ("a", "b")

_BEGIN = f"""
import os, random, sys, time
sys.path[:0] = {sys.path!r}
from conformance.test_store import make, put
from backend.errors import ConflictError, TimedOutError, UnreachableError
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def tell(*words):
    os.write(out, (" ".join(map(str, words)) + "\\n").encode())
def open_again():
    while True:
        try:
            return open_store(sys.argv[1], create=False, retentions=Retentions(Retention(versions=10**6)))
        except UnreachableError:
            pass
store = open_again()
print("ready", flush=True)
"""
# Increments with compare-and-swap; what fails for the cluster's sake is begun anew, from what is there then.
WRITER = f"""{_BEGIN}
while True:
    try:
        document = store.find("VM", random.choice({DOCUMENTS!r}))
        document["spec"]["count"] += 1
        written = put(store, document, expect=document["version"])
    except (ConflictError, UnreachableError, TimedOutError):
        continue
    tell(written["name"], written["version"])
"""
WATCHER = f"""{_BEGIN}
since, batches = 0, 0
while True:
    try:
        changes = store.changes(since, wait=1)
    except UnreachableError:
        continue
    for change in changes:
        tell(change.revision, change.document["name"], change.document["version"])
        since = change.revision
    batches += 1
    if {{reopening}} and batches % 20 == 0:
        store.close()
        store = open_again()
"""
# It takes the lock, says so, and commits when it is told to.
HOLDER = f"""{_BEGIN}
from backend.store import etcd_lock
etcd_lock.LEASE_SECONDS = int(sys.argv[3])
with store.transaction() as transaction:
    transaction.put(make("held"))
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    check_etcd()
    three = Cluster(tmp_path, 3, "--heartbeat-interval", "50", "--election-timeout", "500")
    try:
        three.start()
        yield three
    finally:
        three.stop()


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Store]:
    opened = open_store(cluster.url())
    yield opened
    opened.close()


def start(program: str, url: str, file: Path, lease: int = LEASE_SECONDS) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, url, str(file), str(lease)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()[1]
    return process


def end(process: subprocess.Popen[str]) -> str:
    """Kill a process and return what it complained of."""
    assert process.poll() is None, f"it has ended by itself: {process.communicate()[1]}"
    process.send_signal(signal.SIGKILL)
    return process.communicate()[1]


def torment(cluster: Cluster, count: Callable[[], int]) -> None:
    """Kill the leader, or once a follower, let the others go on, and bring it back; several times.

    `count` tells how much was acknowledged: each kill falls among writes, and the others write on without the killed.
    """
    for number in range(KILLS):
        leader = cluster.find_leader()
        others = [member for member in cluster.members if member is not leader]
        victim = random.choice(others) if number == 2 else leader
        await_writes(count)
        time.sleep(random.uniform(0, 0.5))  # the moment of the kill is what is random here
        victim.kill()
        cluster.find_leader()
        await_writes(count)
        cluster.start()
    await_writes(count)


def await_writes(count: Callable[[], int]) -> None:
    """Wait until some more writes have been acknowledged."""
    wanted, deadline = count() + BETWEEN, time.monotonic() + 60
    while count() < wanted:
        assert time.monotonic() < deadline, "the writers do not get on"
        time.sleep(0.05)


def test_no_acknowledged_write_is_lost_and_no_watcher_misses_one(cluster: Cluster, store: Store, tmp_path: Path):
    url = cluster.url()
    for name in DOCUMENTS:
        put(store, make(name, spec={"count": 0}))
    writers = [start(WRITER, url, tmp_path / f"acknowledged-{number}") for number in range(WRITERS)]
    watchers = [
        start(WATCHER.replace("{reopening}", str(reopening)), url, tmp_path / f"seen-{reopening}")
        for reopening in (False, True)
    ]
    torment(cluster, lambda: sum(file.read_text().count("\n") for file in tmp_path.glob("acknowledged-*")))
    for writer in writers:
        assert end(writer) == ""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not all(
        (tmp_path / f"seen-{each}")
        .read_text()
        .rpartition("\n")[0]
        .rpartition("\n")[2]
        .startswith(f"{store.revision()} ")
        for each in (False, True)
    ):
        time.sleep(0.1)
    for watcher in watchers:
        assert end(watcher) == ""

    acknowledged = Counter(
        (line.split()[0], int(line.split()[1]))
        for file in tmp_path.glob("acknowledged-*")
        for line in file.read_text().splitlines()
    )
    assert set(acknowledged.values()) == {1}, "two writers were told that they wrote the same version"
    written = {}
    for name in DOCUMENTS:
        document = store.find("VM", name)
        assert document
        assert document["spec"]["count"] == document["version"] - 1
        history = store.history("VM", document["uid"])
        assert [entry.version for entry in history] == list(range(1, document["version"] + 1))
        mine = {version for acknowledged_name, version in acknowledged if acknowledged_name == name}
        assert mine <= {entry.version for entry in history}
        # What was committed and not acknowledged is what a kill, or an answer that never came, was between.
        assert document["version"] - 1 - len(mine) <= WRITERS * (KILLS + 1)
        written |= {entry.revision: (name, entry.version) for entry in history}
    assert sorted(written) == list(range(1, store.revision() + 1))
    for reopening in (False, True):
        lines = [line.split() for line in (tmp_path / f"seen-{reopening}").read_text().splitlines()]
        assert [(int(revision), (name, int(version))) for revision, name, version in lines] == sorted(written.items())
    assert store.check() == []
    print(f"{sum(acknowledged.values())} acknowledged, {len(written)} written, {KILLS} members killed")


def test_a_writer_killed_with_the_lock_delays_the_others_by_its_lease_alone(
    cluster: Cluster, store: Store, tmp_path: Path
):
    holder = start(HOLDER, cluster.url(), tmp_path / "out")
    assert holder.stdout.readline() == "held\n"
    end(holder)
    started = time.monotonic()
    put(store, make("next"))
    taken = time.monotonic() - started
    assert taken < LEASE_SECONDS + 3
    assert store.find("VM", "held") is None
    assert store.revision() == 1
    assert store.check() == []


def test_a_writer_that_sleeps_through_its_lease_writes_nothing(cluster: Cluster, store: Store, tmp_path: Path):
    holder = start(HOLDER, cluster.url(), tmp_path / "out", lease=2)
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGSTOP)
    put(store, make("next"))  # once the lease has ended
    os.kill(holder.pid, signal.SIGCONT)
    complaint = holder.communicate("now\n")[1]
    assert "ConflictError" in complaint
    assert "nothing of it was" in complaint
    assert store.find("VM", "held") is None
    assert [change.document["name"] for change in store.changes(0)] == ["next"]
    put(store, make("held"))
    assert store.check() == []


def test_a_long_transaction_keeps_its_lock(store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    other = open_store(cluster.url())
    monkeypatch.setattr(etcd_lock, "LEASE_SECONDS", 2)
    with store.transaction() as transaction:
        transaction.put(make("slow"))
        time.sleep(4)  # longer than the lease that is kept alive meanwhile
    assert other.find("VM", "slow")
    other.close()


def test_without_most_members_nothing_is_written_and_it_is_said(cluster: Cluster, store: Store):
    put(store, make("a"))
    first, second, _ = cluster.members
    first.kill()
    second.kill()
    for use in (lambda: put(store, make("b")), lambda: open_store(cluster.url())):
        started = time.monotonic()
        with pytest.raises(UnreachableError) as raised:
            use()
        assert time.monotonic() - started < 8
        assert raised.value.exit_code == 6
        assert raised.value.hint
    cluster.start()
    put(store, make("b"), expect=0)
    with pytest.raises(ConflictError):
        put(store, make("b"), expect=0)
    assert store.revision() == 2
    assert store.check() == []
