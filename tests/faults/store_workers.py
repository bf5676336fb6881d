"""Processes that write to one store and may be killed: a nursery forks them, which takes a moment and not a second."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from conformance.test_store import make

from backend.errors import ConflictError
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions

COUNTERS = ("a", "b", "c", "d")
# All of the history is looked at in the end.
RETENTIONS = Retentions(Retention(versions=1_000_000))
_ONE_IN_FOR_A_COMPACTION = 300


def begin(url: str) -> None:
    """Make the counters."""
    store = open_store(url, retentions=RETENTIONS)
    for name in COUNTERS:
        with store.transaction() as transaction:
            transaction.put(make(name, spec={"count": 0, "by": "nobody"}))
            transaction.put_status("VM", f"uid-of-{name}", {"count": 0})
    store.close()


def increment_for_ever(url: str, acknowledged: Path, seed: int) -> None:
    """Increment counters by compare-and-swap, their status in the same transaction, and log each acknowledgement."""
    chance = random.Random(seed)
    # Each line is one write, on the disk when the call returns.
    log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC, 0o600)
    store = open_store(url, create=False, retentions=RETENTIONS)
    number = 0
    while True:
        document = store.find("VM", chance.choice(COUNTERS))
        assert document
        number += 1
        count, by = document["spec"]["count"] + 1, f"{os.getpid()}-{seed}-{number}"
        body = {**document, "spec": {"count": count, "by": by}}
        try:
            with store.transaction() as transaction:
                written = transaction.put(body, expect=document["version"])
                transaction.put_status("VM", document["uid"], {"count": count})
        except ConflictError:
            continue
        os.write(log, json.dumps([written["name"], written["version"], by]).encode() + b"\n")
        if chance.randrange(_ONE_IN_FOR_A_COMPACTION) == 0:
            store.compact()


class Nursery:
    """Forks workers on demand; each is killed by its process id and reaped by the nursery."""

    def __init__(self, url: str, folder: Path) -> None:
        program = f"import sys; sys.path[:0] = {sys.path!r}; from faults.store_workers import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, url, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids: list[int] = []

    def start(self, seed: int) -> int:
        """Start a worker and return its process id."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        self.pids.append(int(self._process.stdout.readline()))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        """Kill a worker with -9."""
        self.pids.remove(pid)
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the workers that are left, and end."""
        for pid in list(self.pids):
            self.kill(pid)
        self._process.communicate(timeout=20)
        assert self._process.returncode == 0


def serve() -> None:
    """Fork a worker for each line with a seed, and answer with its process id; TinyDB is imported before."""
    import backend.store.engine
    import backend.store.tables  # noqa: F401

    url, folder = sys.argv[1], Path(sys.argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nobody is left a zombie
    for number, line in enumerate(sys.stdin):
        pid = os.fork()
        if pid == 0:
            # A worker that ends by itself has failed; the parent finds what it says, and that its process is gone.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                increment_for_ever(url, folder / f"acknowledged-{number}", int(line))
            except BaseException as error:  # noqa: BLE001 - it is the end of the process, whatever it was
                (folder / f"died-{number}").write_text(repr(error))
            os._exit(1)
        print(pid, flush=True)
