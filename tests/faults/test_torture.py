"""Eight processes increment counters in one file, a hundred are killed with -9: no acknowledged increment is lost."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

from faults.store_workers import COUNTERS, RETENTIONS, Nursery, begin

from backend.store.opening import open_store
from backend.store.protocol import watch

WORKERS = 8
KILLS = 100
LONGEST_SECONDS = 60.0


class Follower(threading.Thread):
    """Follows the feed of an opening of its own all the time, and keeps what it was told."""

    def __init__(self, url: str) -> None:
        super().__init__(name="follower", daemon=True)
        self._store = open_store(url, create=False, retentions=RETENTIONS)
        self.told: list[tuple[int, str, int, int]] = []
        self._until: int | None = None

    def run(self) -> None:
        for changes in watch(self._store, 0, wait=0.2):
            for change in changes:
                document = change.document
                if change.type != "status":
                    row = (change.revision, document["name"], document["version"], document["spec"]["count"])
                    self.told.append(row)
            if self._until is not None and not changes:
                break
        self._store.close()

    def finish(self) -> None:
        """Return once all has been told."""
        self._until = 0
        self.join(30)
        assert not self.is_alive()


def test_no_acknowledged_increment_is_lost_to_a_hundred_kills(tmp_path: Path):
    seed = int(os.environ.get("KC_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}: repeat with KC_TEST_SEED={seed}")
    chance = random.Random(seed)
    url = f"tinydb:{tmp_path}/kc.db"
    begin(url)
    follower = Follower(url)
    follower.start()
    nursery = Nursery(url, tmp_path)
    kills = 0
    try:
        workers = [nursery.start(chance.randrange(1 << 32)) for _ in range(WORKERS)]
        deadline = time.monotonic() + LONGEST_SECONDS * 0.7
        while kills < KILLS:
            # The moment of a kill is what is random here; a slow machine gets fewer moments, never fewer kills.
            time.sleep(min(chance.uniform(0.02, 0.5), max(0.0, (deadline - time.monotonic()) / (KILLS - kills))))
            victim = chance.randrange(WORKERS)
            nursery.kill(workers[victim])
            kills += 1
            workers[victim] = nursery.start(chance.randrange(1 << 32))
    finally:
        nursery.close()
    assert not list(tmp_path.glob("died-*")), [file.read_text() for file in tmp_path.glob("died-*")]
    follower.finish()
    check(tmp_path, url, follower, kills + WORKERS)


def check(folder: Path, url: str, follower: Follower, kills: int) -> None:
    """Compare what was acknowledged with what is there, and with what the follower was told."""
    lines = [line for file in folder.glob("acknowledged-*") for line in file.read_text().splitlines()]
    acknowledged = [tuple(json.loads(line)) for line in lines]
    print(f"{len(acknowledged)} acknowledged, {kills} killed, {len(follower.told)} told")
    assert len(acknowledged) > KILLS
    assert set(Counter(acknowledged).values()) == {1}
    store = open_store(url, create=False, retentions=RETENTIONS)
    assert store.check() == []
    written = 0
    for name in COUNTERS:
        document = store.find("VM", name)
        assert document
        history = store.history("VM", document["uid"])
        assert [entry.version for entry in history] == list(range(1, document["version"] + 1)), "a gap or a double"
        assert [entry.document["spec"]["count"] for entry in history if entry.document] == list(range(len(history)))
        authors = [entry.document["spec"]["by"] for entry in history if entry.document]
        assert set(Counter(authors).values()) == {1}, "one increment was written twice"
        for which, version, by in acknowledged:
            assert which != name or authors[version - 1] == by, "an acknowledged increment is lost"
        # The status was written with the counter, or not at all.
        assert document["status"] == {"count": document["spec"]["count"]}
        told = [(version, count) for _, which, version, count in follower.told if which == name]
        assert told == [(version, version - 1) for version in range(1, len(history) + 1)], (
            "a follower missed or doubled"
        )
        written += len(history) - 1
    # What is there and was not acknowledged is what a kill came between.
    assert 0 <= written - len(acknowledged) <= kills
    revisions = [revision for revision, *_ in follower.told]
    assert revisions == sorted(set(revisions))
    store.close()
    connection = sqlite3.connect(folder / "kc.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
