"""What an etcd can do to its users: answers that are lost, members that hang, room that ends, history that goes."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.test_store import feed, make, names, put
from support.etcd_cluster import Cluster, ask, check_etcd, make_url, share_cluster

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError, UnreachableError
from backend.store import etcd_requests
from backend.store.etcd_address import parse_address
from backend.store.etcd_client import Client
from backend.store.etcd_keys import Keys, read_entry
from backend.store.opening import open_store
from backend.store.protocol import EtcdOptions, Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return make_url(1, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def keys(url: str) -> Keys:
    return Keys(parse_address(url).root)


@pytest.fixture
def raw(url: str) -> Iterator[Client]:
    """The way to the keys past the engine."""
    client = Client(parse_address(url), EtcdOptions())
    yield client
    client.close()


class Proxy:
    """A way to a member that can lose answers: what was asked for happens, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.losing = 0
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for source, target, is_answer in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=(source, target, is_answer), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if is_answer and self.losing:
                    self.losing -= 1
                    self.lost += 1
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    between = Proxy(share_cluster(1).members[0].port)
    yield between
    between.close()


class TestLostAnswers:
    @pytest.mark.parametrize("losing", [1, 3])
    def test_a_commit_whose_answer_was_lost_is_written_once_and_acknowledged(
        self, store: Store, proxy: Proxy, url: str, losing: int
    ):
        other = open_store(f"etcd://127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}")
        with other.transaction() as transaction:
            transaction.put(make("a"), expect=0)
            transaction.put(make("b"), expect=0)
            proxy.losing = losing
        assert proxy.lost == losing
        assert feed(store) == [("created", "a", 1), ("created", "b", 1)]
        # The lock was given back with it.
        started = time.monotonic()
        put(store, make("c"))
        assert time.monotonic() - started < 2
        other.close()

    def test_a_lock_whose_answer_was_lost_is_had_once(self, store: Store, proxy: Proxy, url: str):
        other = open_store(f"etcd://127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}")
        put(other, make("a"))
        for number in range(3):
            proxy.losing = 1
            put(other, make("a", spec={"cpus": number + 5}))
        assert proxy.lost == 3
        started = time.monotonic()
        put(store, make("b"))
        assert time.monotonic() - started < 2
        assert store.revision() == 5
        other.close()


class TestUnreachable:
    def test_nobody_there(self):
        for hosts in ("127.0.0.1:1,127.0.0.1:2,[::1]:3", "no-such-host.invalid:2379"):
            started = time.monotonic()
            with pytest.raises(UnreachableError) as raised:
                open_store(f"etcd://{hosts}/x")
            assert time.monotonic() - started < 8
            assert raised.value.what == f"store etcd://{hosts}/x"
            assert raised.value.why
            assert raised.value.hint

    def test_somebody_else_is_there(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(10)

            def answer() -> None:
                with contextlib.suppress(OSError):
                    client, _ = server.accept()
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                    client.close()

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(UnreachableError, match="no etcd"):
                open_store(f"etcd://127.0.0.1:{server.getsockname()[1]}/x")
            thread.join()

    def test_one_of_several_that_is_gone_is_passed_over(self, store: Store, url: str):
        put(store, make())
        port = url.split(":")[2].partition("/")[0]
        several = open_store(f"etcd://127.0.0.1:1,127.0.0.1:{port}/{url.rpartition('/')[2]}", create=False)
        started = time.monotonic()
        assert several.find("VM", "web")
        put(several, make("b"))
        assert time.monotonic() - started < 2
        several.close()

    def test_a_member_that_hangs_is_left_for_another(self, tmp_path: Path):
        check_etcd()
        cluster = Cluster(tmp_path, 3, "--heartbeat-interval", "50", "--election-timeout", "500")
        cluster.start()
        try:
            store = open_store(cluster.url())
            put(store, make())
            cluster.members[0].signal(signal.SIGSTOP)  # the one that it speaks to
            started = time.monotonic()
            put(store, make(spec={"cpus": 2}), expect=1)
            assert time.monotonic() - started < 12
            cluster.members[0].signal(signal.SIGCONT)
            assert store.check() == []
            store.close()
        finally:
            cluster.stop()


class TestRoom:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Cluster]:
        check_etcd()
        cluster = Cluster(tmp_path, 1, "--quota-backend-bytes", str(6 << 20))
        cluster.start()
        yield cluster
        cluster.stop()

    def test_a_full_etcd_says_so_and_keeps_what_it_has(self, small: Cluster):
        store = open_store(small.url())
        written = 0

        def write_on() -> None:
            nonlocal written
            while True:
                put(store, make(metadata={"x": str(written) * 300_000}))
                written += 1

        with pytest.raises(FailedError) as raised:
            write_on()
        assert raised.value.details["reason"] == "full"
        assert "quota" in str(raised.value)
        assert store.find("VM", "web")["version"] == written  # type: ignore[index]
        with pytest.raises(FailedError, match="quota"):
            put(store, make("b"))
        assert store.check() == []
        store.close()

    def test_a_transaction_too_large_for_etcd_is_refused_before_anything_is_sent(self, store: Store):
        def write() -> None:
            with store.transaction() as transaction:
                for number in range(4):
                    transaction.put(make(f"vm-{number}", metadata={"x": "y" * 400_000}))

        with pytest.raises(RefusedError, match="KiB"):
            write()
        assert store.revision() == 0
        put(store, make())

    def test_the_largest_document_fits(self, store: Store):
        put(store, make(metadata={"x": "y" * 715_000}))
        put(store, make(metadata={"x": "z" * 715_000}))
        assert store.find("VM", "web")["metadata"]["x"] == "z" * 715_000  # type: ignore[index]


class TestOpening:
    def test_two_that_open_at_once_find_one_store(self, url: str):
        opened: list[Store] = []
        threads = [threading.Thread(target=lambda: opened.append(open_store(url))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({each.identity for each in opened}) == 1
        for each in opened:
            each.close()

    def test_none_is_made_where_none_is_wanted(self, url: str):
        with pytest.raises(NotFoundError):
            open_store(url, create=False)

    def test_a_prefix_of_others_is_left_alone(self, url: str, raw: Client, keys: Keys):
        raw.run([etcd_requests.put(keys.root + b"theirs", b"1")])
        with pytest.raises(RefusedError, match="not KC's"):
            open_store(url)

    def test_a_newer_format_is_refused(self, store: Store, url: str, raw: Client, keys: Keys):
        raw.run([etcd_requests.put(keys.format, b"99")])
        with pytest.raises(RefusedError, match="newer KC"):
            open_store(url)

    def test_a_store_whose_keys_are_gone_says_so(self, store: Store, raw: Client, keys: Keys):
        put(store, make())
        raw.run([etcd_requests.delete_all(keys.root)])
        for use in (lambda: store.list_documents("VM"), lambda: store.changes(0), lambda: put(store, make("b"))):
            with pytest.raises(FailedError, match="gone"):
                use()

    def test_nothing_is_left_behind_by_who_closes(self, store: Store, raw: Client, keys: Keys):
        put(store, make())
        store.close()
        for prefix in (keys.locks, keys.dones):
            assert raw.run([etcd_requests.get_all(prefix)]).found[0].pairs == []

    def test_etcd_may_compact_its_own_history(self, store: Store, url: str):
        other = open_store(url)
        put(store, make("a"))
        since = other.revision()
        records = store.dump()
        begun = next(records)
        assert begun["kc"] == "export"
        for number in range(20):
            put(store, make("a", spec={"cpus": number + 2}))
        compact_etcd()
        assert len(other.changes(since)) == 20
        assert other.find("VM", "a")["version"] == 21  # type: ignore[index]
        assert store.check() == []
        with pytest.raises(FailedError, match="repeat"):
            list(records)
        other.close()

    def test_a_follower_is_woken_after_etcd_compacted(self, store: Store, url: str):
        other = open_store(url)
        since = other.revision()
        assert other.changes(since, wait=0.2) == []
        for number in range(5):
            put(store, make("a", spec={"cpus": number + 2}))
        compact_etcd()
        assert len(other.changes(since, wait=5)) == 5
        timer = threading.Timer(0.2, lambda: put(store, make("b")))
        timer.start()
        started = time.monotonic()
        assert names([change.document for change in other.changes(store.revision(), wait=10)]) == ["b"]
        assert time.monotonic() - started < 3
        timer.join()
        other.close()

    def test_a_fork_is_noticed(self, url: str):
        program = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from backend.errors import FailedError
from backend.store.opening import open_store
store = open_store({url!r})
if os.fork() == 0:
    try:
        store.revision()
    except FailedError as error:
        os._exit(7 if "fork" in str(error) else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
print(store.revision())
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, text=True, check=False)
        assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


class TestPieces:
    def test_an_entry_is_read_as_it_was_written(self, store: Store, raw: Client, keys: Keys):
        put(store, make("name/with%2F", uid="a/b%"))
        (found,) = raw.run([etcd_requests.get_all(keys.history("VM", "a/b%"))]).found
        assert keys.split(found.pairs[0].key) == ["version", "VM", "a/b%", "0000000001"]
        assert read_entry(found.pairs[0].value)[:2] == (1, 1)
        assert store.find("VM", "name/with%2F")["uid"] == "a/b%"  # type: ignore[index]
        with pytest.raises(ConflictError):
            put(store, make("name/with%2F", uid="another"))

    @pytest.mark.skipif(not shutil.which("etcdctl"), reason="no etcdctl here: Debian has it as etcd-client")
    def test_etcds_own_tool_reads_a_document(self, store: Store, url: str):
        put(store, make("hello"))
        address = parse_address(url)
        done = subprocess.run(
            ["etcdctl", "--endpoints", "{}:{}".format(*address.endpoints[0]), "get", "--prefix",
             f"/{address.prefix}/head/VM/"],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        assert '"name":"hello"' in done.stdout


def compact_etcd() -> None:
    """Make etcd forget all of its own history."""
    port = share_cluster(1).members[0].port
    revision = ask(port, "/v3/kv/range", {"key": "AA=="})["header"]["revision"]  # type: ignore[index]
    assert "header" in ask(port, "/v3/kv/compaction", {"revision": revision, "physical": True})
