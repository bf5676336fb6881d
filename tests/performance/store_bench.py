"""The store's figures side by side with raw SQLite and plain TinyDB, in one run; prints a table.

    python tests/performance/store_bench.py [--documents N] [--many N] [NAME…]

Each function yields rows of (name, ours, theirs, budget, against): medians in seconds, and the budget as a ratio.
"""

from __future__ import annotations

import argparse
import gc
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tinydb import TinyDB

from backend.model.documents import Document
from backend.model.selectors import parse
from backend.store.opening import open_store
from backend.store.protocol import Store

DOCUMENTS = 10_000
MANY = 100_000
# One in a hundred documents is this customer's.
TENANTS = 100
SIZES = (1_000, 10_000, 100_000)
SELECTORS = (
    "tenant=t7", "tenant in (t7)", "number<1000", "owner.mail~a-1?@*", "tenant=t7,status.power=running",
    "number>=500,number<600", "status.power=failed", "spec.parameters.cpus=64", "name~vm-00001*", "!tenant",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Row(NamedTuple):
    """One line of the table: ours and theirs in seconds, medians; `budget` is a ratio."""

    name: str
    ours: float
    theirs: float
    budget: float
    against: str

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def make(number: int) -> Document:
    """Return a VM of some 900 bytes; the order of names is not that of creation."""
    return {
        "apiVersion": "kc/v1",
        "kind": "VM",
        "name": f"vm-{number * 7919 % 1_000_003:07}",
        "uid": f"019a2038-07bf-727d-ae9f-{number:012x}",
        "metadata": {
            "tenant": f"t{number % TENANTS}",
            "number": number,
            "owner": {"mail": f"a-{number}@example.org"},
        },
        "spec": {
            "image": {"name": "starter", "uid": "019a2038-07bf-727d-ae9f-000000000000"},
            "type": {"name": "small", "uid": "019a2038-07bf-727d-ae9f-000000000001", "version": 1},
            "parameters": {"cpus": 64 if number % 500 == 3 else 2, "memoryMiB": 2048},
            "nics": [{"id": "nic0", "network": {"name": "default", "uid": "x" * 36}, "mac": "52:54:00:00:00:01"}],
            "userData": "#cloud-config\n" + "x" * 300,
        },
        "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z",
        "updatedBy": "anna@example.org",
    }


def fill(folder: Path, documents: int, *, statuses: bool = False) -> Store:
    """Return a store of `documents` VMs, made in `folder` where it is not there yet."""
    store = open_store(f"tinydb:{folder}/kc-{documents}{'-with-statuses' * statuses}.db")
    if store.revision():
        return store
    for start in range(0, documents, 1000):
        with store.transaction() as transaction:
            for number in range(start, min(start + 1000, documents)):
                body = make(number)
                transaction.put(body)
                if statuses:
                    power = "failed" if number % 1000 == 1 else "running" if number % 2 else "stopped"
                    transaction.put_status("VM", body["uid"], {"power": power})
    return store


def fill_raw(path: Path, documents: int) -> sqlite3.Connection:
    """Return SQLite as one would use it by hand for documents with versions: a log, and a pointer into it."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384;"
        "CREATE TABLE log (rev INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT, id TEXT, ver INTEGER, at REAL, body BLOB);"
        "CREATE UNIQUE INDEX log_row ON log (tbl, id, ver);"
        "CREATE TABLE head (tbl TEXT, id TEXT, rev INTEGER, PRIMARY KEY (tbl, id)) WITHOUT ROWID; BEGIN;"
    )
    for number in range(documents):
        body = make(number)
        values = (body["uid"], time.time(), _encode(body))
        cursor = raw.execute("INSERT INTO log (tbl, id, ver, at, body) VALUES ('VM', ?, 1, ?, ?)", values)
        raw.execute("INSERT INTO head VALUES ('VM', ?, ?)", (body["uid"], cursor.lastrowid))
    raw.execute("COMMIT")
    return raw


def update_raw(raw: sqlite3.Connection, uid: str, value: int) -> None:
    raw.execute("BEGIN IMMEDIATE")
    select = "SELECT ver, body FROM head JOIN log USING (rev) WHERE head.tbl = 'VM' AND head.id = ?"
    version, data = raw.execute(select, (uid,)).fetchone()
    body = _decode(data)
    body["metadata"]["number"] = value
    insert = "INSERT INTO log (tbl, id, ver, at, body) VALUES ('VM', ?, ?, ?, ?)"
    cursor = raw.execute(insert, (uid, version + 1, time.time(), _encode(body)))
    raw.execute("UPDATE head SET rev = ? WHERE tbl = 'VM' AND id = ?", (cursor.lastrowid, uid))
    raw.execute("COMMIT")


def update_ours(store: Store, uid: str, value: int) -> None:
    with store.transaction() as transaction:
        body = transaction.get("VM", uid)
        assert body
        body["metadata"]["number"] = value
        transaction.put(body, expect=body["version"])


def time_once(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def median(function: Callable[[], Any], rounds: int) -> float:
    function()
    return statistics.median(time_once(function) for _ in range(rounds))


def measure_update(folder: Path, documents: int, _many: int) -> Iterator[Row]:
    """A durable change of one document of many, read first and checked by its version."""
    store = fill(folder, documents)
    raw = fill_raw(folder / f"raw-{documents}.db", documents)
    uids = [make(number)["uid"] for number in range(documents)]
    for value in range(100):
        update_ours(store, uids[value], -value)
        update_raw(raw, uids[value], -value)
    ours, theirs = [], []
    for value in range(1500):  # in turn, because the disk has moods
        uid = random.choice(uids)
        ours.append(time_once(lambda uid=uid, value=value: update_ours(store, uid, 10**6 + value)))
        theirs.append(time_once(lambda uid=uid, value=value: update_raw(raw, uid, 10**6 + value)))
    name = f"durable update, {documents:,} documents"
    yield Row(name, statistics.median(ours), statistics.median(theirs), 1.2, "raw SQLite, FULL")
    # One write in so many brings the index up to date, which the median does not show.
    yield Row(f"{name}, mean", statistics.mean(ours), statistics.mean(theirs), 2.0, "raw SQLite, FULL")
    raw.close()
    plain = TinyDB(folder / f"plain-{documents}.json")
    plain.insert_multiple(make(number) for number in range(documents))
    ids = [document.doc_id for document in plain]
    rounds = 2 if documents > DOCUMENTS else 3 if documents > 2000 else 9
    tiny = median(lambda: plain.update({"message": random.random()}, doc_ids=[random.choice(ids)]), rounds)
    plain.close()
    yield Row(name, statistics.median(ours), tiny, 1 / 500 if documents >= DOCUMENTS else 1 / 50, "plain TinyDB")
    one = median(lambda: store.get("VM", random.choice(uids)), 2000)
    yield Row(f"one of {documents:,} by its uid", one, 50e-6, 1.0, "50 µs")
    store.close()


def measure_list(folder: Path, documents: int, _many: int) -> Iterator[Row]:
    """Pages and whole lists."""
    store = fill(folder, documents)
    page = median(lambda: store.list_documents("VM", limit=100), 50)
    yield Row(f"a page of 100 of {documents:,}", page, 5e-3, 1.0, "5 ms")
    whole = median(lambda: store.list_documents("VM"), 5)
    yield Row(f"all {documents:,}", whole, documents * 40e-6, 1.0, "40 µs a document")
    store.close()


def measure_start(folder: Path, _documents: int, _many: int) -> Iterator[Row]:
    """A process that imports the store, opens it and lists 200 documents, against Python and its sqlite3."""
    fill(folder, 200).close()
    program = (
        "from backend.store.opening import open_store\n"
        f"store = open_store('tinydb:{folder}/kc-200.db', create=False)\n"
        "assert len(store.list_documents('VM').items) == 200\nstore.close()\n"
    )

    def run(text: str) -> float:
        return time_once(lambda: subprocess.run([sys.executable, "-c", text], check=True))

    pairs = [(run(program), run("import sqlite3, json, typing")) for _ in range(12)][1:]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    yield Row("a process that lists 200", ours, theirs, 2.0, "import sqlite3, json, typing")


def measure_selector(folder: Path, _documents: int, many: int) -> Iterator[Row]:
    """Selectors over many documents: on documents in memory, and through the store."""
    gc.set_threshold(50_000, 20, 50)
    store = fill(folder, many, statuses=True)
    held = [{**make(number), "version": 1, "status": {"power": "running"}} for number in range(many)]
    for text in SELECTORS:
        holds = parse(text).holds
        memory = median(lambda holds=holds: sum(map(holds, held)), 5)
        yield Row(f"in memory, {many:,}: {text}", memory, 0.1, 1.0, "100 ms")
    held.clear()
    for text in SELECTORS:
        where = parse(text)
        through = median(lambda where=where: store.list_documents("VM", where=where), 5)
        found = len(store.list_documents("VM", where=where).items)
        # What only must not be can be looked up nowhere.
        budget = 5.0 if text.startswith("!") else 1.0
        yield Row(f"in the store, {many:,}: {text} ({found})", through, 0.1, budget, "100 ms")
    store.close()


def measure_sizes(folder: Path, _documents: int, many: int) -> Iterator[Row]:
    """Everything that may grow with the number of documents, at three of them."""
    for documents in (size for size in SIZES if size <= many):
        yield from measure_update(folder, documents, many)
        yield from measure_list(folder, documents, many)
        yield from measure_selector(folder, documents, documents)


def measure_upkeep(folder: Path, _documents: int, many: int) -> Iterator[Row]:
    """What an operator runs now and then, a document; and what the index takes of the file."""
    store = fill(folder, many, statuses=True)
    target = open_store(f"tinydb:{folder}/copy-{many}.db")
    per = many * 1e-6
    yield Row(f"check {many:,}", time_once(store.check), 200 * per, 1.0, "200 µs a document")
    yield Row(f"compact {many:,}", time_once(store.compact), 100 * per, 1.0, "100 µs a document")
    yield Row(f"export and import {many:,}", time_once(lambda: target.load(store.dump())), 300 * per, 1.0, "300 µs")
    target.close()
    store.close()


MEASURES: dict[str, Callable[[Path, int, int], Iterator[Row]]] = {
    "update": measure_update,
    "list": measure_list,
    "start": measure_start,
    "selector": measure_selector,
    "upkeep": measure_upkeep,
    "sizes": measure_sizes,
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("names", nargs="*", choices=[[], *MEASURES])
    arguments = parser.parse_args()
    print(f"{'what':<62} {'KC':>11} {'against':>11} {'ratio':>8} {'budget':>7}")
    with tempfile.TemporaryDirectory(prefix="kc-store-bench-") as folder:
        # The three sizes have the others in them.
        for name in arguments.names or ("start", "upkeep", "sizes"):
            for row in MEASURES[name](Path(folder), arguments.documents, arguments.many):
                verdict = "ok  " if row.ratio <= row.budget else "OVER"
                print(
                    f"{row.name:<62} {row.ours * 1e3:>8.3f} ms {row.theirs * 1e3:>8.3f} ms {row.ratio:>8.4f}"
                    f" {row.budget:>7.4g} {verdict} {row.against}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
