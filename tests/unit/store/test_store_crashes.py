"""What is acknowledged is kept, whoever is killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from conformance.test_store import make, put

from backend.store.opening import open_store

WRITERS = 4
SECONDS = 7.0
DOCUMENTS = ("a", "b")

# Increments with compare-and-swap; each acknowledgement is one write of its own, after the commit.
WRITER = f"""
import os, random, sys
sys.path[:0] = {sys.path!r}
from conformance.test_store import put
from backend.errors import ConflictError
from backend.store.opening import open_store
store = open_store(sys.argv[1], create=False)
acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
while True:
    document = store.find("VM", random.choice({DOCUMENTS!r}))
    document["spec"]["count"] += 1
    try:
        written = put(store, document, expect=document["version"])
    except ConflictError:
        continue
    os.write(acknowledged, f"{{written['name']}} {{written['version']}}\\n".encode())
"""


def start_writer(url: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(folder / f"acknowledged-{number}")], stdout=subprocess.PIPE
    )


def end(writer: subprocess.Popen[bytes]) -> None:
    writer.kill()
    writer.wait()
    assert writer.stdout
    writer.stdout.close()


def test_no_acknowledged_increment_is_lost_to_kill_9(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    store = open_store(url)
    for name in DOCUMENTS:
        put(store, make(name, spec={"count": 0}))
    writers = [start_writer(url, tmp_path, number) for number in range(WRITERS)]
    kills = WRITERS
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        time.sleep(random.uniform(0.05, 0.3))  # the moment of the kill is what is random here
        victim = random.randrange(WRITERS)
        end(writers[victim])
        kills += 1
        writers[victim] = start_writer(url, tmp_path, victim)
    for writer in writers:
        end(writer)

    acknowledged = Counter(
        line for file in tmp_path.glob("acknowledged-*") for line in file.read_text().splitlines() if line
    )
    assert sum(acknowledged.values()) > 50
    assert set(acknowledged.values()) == {1}, "two writers were told that they wrote the same version"
    for name in DOCUMENTS:
        document = store.find("VM", name)
        assert document
        assert document["spec"]["count"] == document["version"] - 1
        versions = [int(line.split()[1]) for line in acknowledged if line.split()[0] == name]
        assert document["version"] >= max(versions)
        # What was committed and not acknowledged is what a kill came between.
        assert 0 <= document["version"] - 1 - len(versions) <= kills
        kept = [entry.version for entry in store.history("VM", document["uid"])]
        assert kept == list(range(max(1, document["version"] - 99), document["version"] + 1))
    assert store.check() == []
    store.close()


def test_no_writer_starves(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    store = open_store(url)
    for name in DOCUMENTS:
        put(store, make(name, spec={"count": 0}))
    program = WRITER.replace(f"random.choice({DOCUMENTS!r})", "sys.argv[3]")
    for number in range(WRITERS):
        put(store, make(f"own-{number}", spec={"count": 0}))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, str(tmp_path / f"acknowledged-{number}"), f"own-{number}"],
            stdout=subprocess.PIPE,
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    before = [store.find("VM", f"own-{number}")["spec"]["count"] for number in range(WRITERS)]  # type: ignore[index]
    time.sleep(2)
    after = [store.find("VM", f"own-{number}")["spec"]["count"] for number in range(WRITERS)]  # type: ignore[index]
    for writer in writers:
        end(writer)
    store.close()
    done = [late - early for early, late in zip(before, after, strict=True)]
    assert min(done) > 5
    assert min(done) > max(done) / 4
