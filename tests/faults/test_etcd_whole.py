"""A store in an etcd as a whole: imports that are cut, and keys that are hurt."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
from conformance.test_store import feed, make, names, put, put_status
from conformance.test_store_whole import describe, fill
from faults.test_etcd_trouble import keys, raw, store, url

from backend.errors import FailedError
from backend.store import etcd_requests
from backend.store.etcd_client import Client
from backend.store.etcd_keys import Keys
from backend.store.opening import open_store
from backend.store.protocol import Store

__all__ = ["keys", "raw", "store", "url"]  # fixtures

OTHER = "019a2038-07bf-727d-ae9f-000000000000"


class TestImports:
    def make_records(self, count: int) -> list[Any]:
        entries = [
            {"revision": n, "table": "VM", "id": f"uid-of-{n}", "version": 1, "at": 1.0, "event": "created",
             "name": f"{n}", "document": make(f"{n}", uid=f"uid-of-{n}", metadata={"x": "y" * 3000})}
            for n in range(1, count + 1)
        ]  # fmt: skip
        return [
            {"kc": "export", "format": 1, "identity": OTHER, "revision": count, "at": ""},
            *entries,
            {"end": count, "entries": count},
        ]

    def test_an_import_of_many_requests_is_whole(self, store: Store, url: str):
        other = open_store(url)
        assert other.list_documents("VM").items == []
        assert store.load(self.make_records(1000)) == 1000
        assert len(other.list_documents("VM").items) == 1000
        assert (store.identity, store.revision()) == (OTHER, 1000)
        assert store.check() == []
        put(other, make("next"))
        other.close()

    def test_nobody_takes_half_an_import_for_a_store_and_the_next_writer_clears_it_away(
        self, store: Store, url: str, raw: Client, keys: Keys
    ):
        other = open_store(url)
        program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from backend.store.opening import open_store
from faults.test_etcd_whole import TestImports
def records():
    for number, record in enumerate(TestImports().make_records(1000)):
        if number == 900:
            os.kill(os.getpid(), signal.SIGKILL)
        yield record
open_store({url!r}).load(records())
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert raw.run([etcd_requests.get_all(keys.versions, count_only=True)]).found[0].total > 100
        for use in (
            lambda: other.list_documents("VM"),
            lambda: other.get("VM", "uid-of-1"),
            lambda: other.history("VM", "uid-of-1"),
            lambda: other.changes(0),
            other.check,
        ):
            with pytest.raises(FailedError, match="import"):
                use()
        put(other, make())
        assert names(other.list_documents("VM").items) == ["web"]
        assert feed(other) == [("created", "web", 1)]
        assert other.check() == []
        other.close()


class TestRepair:
    def test_what_follows_from_the_versions_is_made_again(self, store: Store, raw: Client, keys: Keys, url: str):
        fill(store)
        before = describe(store)
        other = open_store(url)
        other.list_documents("VM")
        web = keys.head("VM", "uid-of-web")
        raw.run([
            etcd_requests.delete(web),
            etcd_requests.put(keys.name("VM", "new-name"), b"nobody"),
            etcd_requests.put(keys.name("VM", "ghost"), b"uid-of-web"),
            etcd_requests.delete_all(keys.gones),
            etcd_requests.delete(keys.log(3)),
            etcd_requests.put(keys.log(4), b"[]"),
            etcd_requests.put(keys.head("VM", "nobody"), b"nonsense"),
            etcd_requests.put(keys.revision, b"3"),
        ])  # fmt: skip
        faults = store.check()
        assert len(faults) >= 8
        assert not any(fault.repaired for fault in faults)
        assert store.check() == faults
        repaired = store.check(repair=True)
        assert [fault[:2] for fault in repaired] == [fault[:2] for fault in faults]
        assert all(fault.repaired for fault in repaired)
        assert store.check() == []
        for each in (store, other):
            assert describe(each) == before
        other.close()

    def test_a_version_that_is_lost_comes_back_from_its_copy(self, store: Store, raw: Client, keys: Keys):
        put(store, make())
        put(store, make(spec={"cpus": 2}))
        before = store.history("VM", "uid-of-web")
        raw.run([etcd_requests.delete(keys.version("VM", "uid-of-web", 2))])
        assert [fault.what for fault in store.check()] == ["version 2 is missing"]
        store.check(repair=True)
        assert store.check() == []
        assert store.history("VM", "uid-of-web") == before

    def test_what_cannot_be_repaired_is_told_and_left_alone(self, store: Store, raw: Client, keys: Keys):
        for cpus in range(4):
            put(store, make(spec={"cpus": cpus}))
        put_status(store, "uid-of-web", {"power": "running"})
        (found,) = raw.run([etcd_requests.get(keys.version("VM", "uid-of-web", 2))]).found
        hurt = found.pairs[0].value[:-5]
        raw.run([
            etcd_requests.put(keys.version("VM", "uid-of-web", 2), hurt),
            etcd_requests.delete(keys.version("VM", "uid-of-web", 3)),
        ])  # fmt: skip
        faults = store.check(repair=True)
        assert any("version 2" in fault.what and not fault.repaired for fault in faults)
        assert any("does not follow" in fault.what and not fault.repaired for fault in faults)
        assert raw.run([etcd_requests.get(keys.version("VM", "uid-of-web", 2))]).found[0].pairs[0].value == hurt
        assert store.find("VM", "web")["spec"] == {"cpus": 3}  # type: ignore[index]
