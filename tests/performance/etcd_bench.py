"""The store's figures on an etcd, side by side with its bare gateway and with etcdctl, in one run; prints a table.

    python tests/performance/etcd_bench.py [--documents N…] [--members 1|3] [NAME…]

A fresh etcd on loopback holds both: KC's store, and the same documents one a key, as one would keep them by hand. The
gateway is asked over a connection that stays open; etcdctl is a process each time, as in a script.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from performance.store_bench import Row, make, median, time_once, update_ours
from support.etcd_cluster import Cluster

from backend.model.documents import Document
from backend.model.selectors import parse
from backend.store import etcd_requests as ask
from backend.store.etcd_address import parse_address
from backend.store.etcd_cache import read_pages
from backend.store.etcd_client import Client
from backend.store.opening import open_store
from backend.store.protocol import EtcdOptions, Store

DOCUMENTS = (1_000, 10_000)
SELECTORS = ("tenant=t7", "number<100", "owner.mail~a-1?@*", "spec.parameters.cpus>1,tenant=t7")
BY_HAND = b"/byhand/"
OLD = b"/old"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Bench(NamedTuple):
    """A store of so many documents, and the same by hand in the same etcd."""

    url: str
    endpoint: str
    store: Store
    raw: Client
    documents: int

    def key(self, number: int) -> bytes:
        return BY_HAND + b"%d/" % self.documents + make(number)["name"].encode()

    def run_etcdctl(self, *arguments: str) -> str:
        command = ["etcdctl", "--endpoints", self.endpoint, *arguments]
        environment = {"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def fill(cluster: Cluster, documents: int) -> Bench:
    url = cluster.url(f"bench-{documents}")
    store = open_store(url)
    raw = Client(parse_address(url), EtcdOptions())
    entries = (
        {"revision": number + 1, "table": "VM", "id": body["uid"], "version": 1, "at": time.time(), "event": "created",
         "name": body["name"], "document": body}
        for number, body in enumerate(map(make, range(documents)))
    )  # fmt: skip
    header = {"kc": "export", "format": 1, "identity": f"bench-{documents}", "revision": documents, "at": ""}
    store.load(itertools.chain([header], entries, [{"end": documents, "entries": documents}]))
    bench = Bench(url, cluster.hosts.split(",")[0], store, raw, documents)
    for start in range(0, documents, 500):
        numbers = range(start, min(start + 500, documents))
        raw.run([ask.put(bench.key(number), _encode(make(number))) for number in numbers])
    return bench


def update_by_hand(bench: Bench, number: int, value: int) -> None:
    """Read a document, and write it with its version where nobody has written it since."""
    key = bench.key(number)
    (found,) = bench.raw.run([ask.get(key)]).found
    body = _decode(found.pairs[0].value)
    body["metadata"]["number"] = value
    data = _encode(body)
    writes = [ask.put(key, data), ask.put(b"%s%s/%d" % (OLD, key, value), data)]
    texts = {"key": key, "value": found.pairs[0].value}
    unchanged = {"target": "VALUE", **{name: b64encode(text).decode() for name, text in texts.items()}}
    assert bench.raw.run(writes, (), [unchanged]).succeeded


def measure_update(bench: Bench) -> Iterator[Row]:
    """A durable change of one document of many, read first and checked by its version."""
    ours, theirs = [], []
    for value in range(220):  # in turn, because the disk has moods
        number = random.randrange(bench.documents)
        uid = make(number)["uid"]
        ours.append(time_once(lambda uid=uid, value=value: update_ours(bench.store, uid, 10**6 + value)))
        theirs.append(time_once(lambda number=number, value=value: update_by_hand(bench, number, 10**6 + value)))
    name = f"update, {bench.documents:,} documents"
    mine = statistics.median(ours[20:])
    yield Row(name, mine, statistics.median(theirs[20:]), 3.0, "gateway: get, compare and put")
    data = _encode(make(1)).decode()
    yield Row(name, mine, median(lambda: bench.run_etcdctl("put", "/byhand/one", data), 9), 1.0, "etcdctl put")


def measure_get(bench: Bench) -> Iterator[Row]:
    """One document, by uid and by name."""
    numbers = [random.randrange(bench.documents) for _ in range(200)]
    bodies = [make(number) for number in numbers]
    cycle = itertools.cycle(zip(numbers, bodies, strict=True))

    def time_it(function: Callable[[int, Document], object]) -> float:
        return median(lambda: function(*next(cycle)), len(numbers))

    raw = time_it(lambda number, _: _decode(bench.raw.run([ask.get(bench.key(number))]).found[0].pairs[0].value))
    by_uid = time_it(lambda _, body: bench.store.get("VM", body["uid"]))
    yield Row(f"one by its uid, of {bench.documents:,}", by_uid, raw, 1.5, "gateway: range of one key")
    ctl = median(lambda: bench.run_etcdctl("get", bench.key(1).decode()), 9)
    yield Row(f"one by its uid, of {bench.documents:,}", by_uid, ctl, 1.0, "etcdctl get")
    by_name = time_it(lambda _, body: bench.store.find("VM", body["name"]))
    yield Row(f"one by its name, of {bench.documents:,}", by_name, raw, 3.0, "gateway: range of one key")


def measure_list(bench: Bench) -> Iterator[Row]:
    """A page and all, as a process does that lists for the first time, and as one that has listed before."""
    prefix = BY_HAND + b"%d/" % bench.documents
    where, name = prefix.decode(), f"of {bench.documents:,}"

    def read_all() -> list[Document]:
        moment = bench.raw.run([ask.get(prefix)]).revision
        return [_decode(pair.value) for pair in read_pages(bench.raw, prefix, moment)]

    def list_first() -> None:
        other = open_store(bench.url, create=False)
        assert len(other.list_documents("VM").items) == bench.documents
        other.close()

    rounds = 5 if bench.documents > 2000 else 15
    all_by_hand = median(read_all, rounds)
    yield Row(f"all {name}, the first time", median(list_first, rounds), all_by_hand, 2.5, "gateway: pages of the keys")
    everything = median(lambda: bench.store.list_documents("VM"), rounds)
    yield Row(f"all {name}, again", everything, all_by_hand, 1.0, "gateway: pages of the keys")
    ctl = median(lambda: bench.run_etcdctl("get", "--prefix", where), 5)
    yield Row(f"all {name}, again", everything, ctl, 1.0, "etcdctl get --prefix")

    def read_page() -> list[Document]:
        (found,) = bench.raw.run([ask.get_all(prefix, limit=100)]).found
        return [_decode(pair.value) for pair in found.pairs]

    page = median(lambda: bench.store.list_documents("VM", limit=100), 50)
    yield Row(f"a page of 100 {name}", page, median(read_page, 50), 1.5, "gateway: range of 100 keys")
    ctl = median(lambda: bench.run_etcdctl("get", "--prefix", "--limit", "100", where), 9)
    yield Row(f"a page of 100 {name}", page, ctl, 1.0, "etcdctl get --prefix --limit 100")


def measure_selector(bench: Bench) -> Iterator[Row]:
    """Selectors in a process that has listed before; by hand it is reading all, and looking through it."""
    prefix = BY_HAND + b"%d/" % bench.documents
    gc.set_threshold(50_000, 20, 50)

    def select_by_hand(text: str) -> list[Document]:
        holds = parse(text).holds
        moment = bench.raw.run([ask.get(prefix)]).revision
        return [body for pair in read_pages(bench.raw, prefix, moment) if holds(body := _decode(pair.value))]

    for text in SELECTORS:
        ours = median(lambda text=text: bench.store.list_documents("VM", where=parse(text)), 9)
        theirs = median(lambda text=text: select_by_hand(text), 3)
        yield Row(f"{text}, of {bench.documents:,}", ours, theirs, 0.5, "gateway: read all, then select")


MEASURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "update": measure_update,
    "get": measure_get,
    "list": measure_list,
    "selector": measure_selector,
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, nargs="*", default=DOCUMENTS)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("names", nargs="*", choices=[[], *MEASURES])
    arguments = parser.parse_args()
    print(f"{'what':<54} {'KC':>11} {'against':>11} {'ratio':>8} {'budget':>7}")
    with tempfile.TemporaryDirectory(prefix="kc-etcd-bench-") as folder:
        cluster = Cluster(Path(folder), arguments.members, "--quota-backend-bytes", str(8 << 30))
        cluster.start()
        try:
            for documents in arguments.documents:
                bench = fill(cluster, documents)
                for name in arguments.names or MEASURES:
                    for row in MEASURES[name](bench):
                        verdict = "ok  " if row.ratio <= row.budget else "OVER"
                        print(
                            f"{row.name:<54} {row.ours * 1e3:>8.3f} ms {row.theirs * 1e3:>8.3f} ms {row.ratio:>8.4f}"
                            f" {row.budget:>7.4g} {verdict} {row.against}",
                            flush=True,
                        )
                bench.store.close()
                bench.raw.close()
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
