"""The disk is full: a clear error, nothing lost, reading goes on, and writing too once there is room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import delete, make, put, put_status
from faults.small_disk import SmallDisk, exhaust, mount_small_disk
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.errors import ConflictError, FailedError, KCError, NotFoundError
from backend.hypervisor.memory import MemoryHypervisor
from backend.local import LocalService
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions, Store

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small_disk(tmp_path / "disk", 12) as mounted:
        yield mounted


@pytest.fixture
def store(disk: SmallDisk) -> Iterator[Store]:
    opened = open_store(f"tinydb:{disk.path}/kc.db")
    yield opened
    opened.close()


def assert_full(error: FailedError) -> None:
    assert error.details == {"reason": "full"}
    assert "no room left on the disk" in str(error)
    assert "make room" in error.hint


def describe(store: Store) -> Any:
    """Return all that a store tells of its VMs."""
    items = store.list_documents("VM").items
    return store.revision(), items, [store.history("VM", item["uid"]) for item in items], store.leases()


def write_until_full(store: Store, size: int) -> list[str]:
    """Write documents of a size until one fails; return the names of those that were acknowledged."""
    acknowledged: list[str] = []
    with pytest.raises(FailedError) as raised:  # noqa: PT012 - which of the writes fails is not known before
        for number in range(100_000):
            put(store, make(f"{size}-{number:05}", metadata={"x": "y" * size}))
            acknowledged.append(f"{size}-{number:05}")
    assert_full(raised.value)
    return acknowledged


def test_writes_fail_clearly_and_nothing_acknowledged_is_lost(disk: SmallDisk, store: Store):
    disk.fill(leave=8 << 20)
    put(store, make("first"))
    acknowledged = ["first"]
    other = open_store(f"tinydb:{disk.path}/kc.db", create=False)
    for size in (200 * KIB, 20 * KIB, 2 * KIB, 10):
        acknowledged += write_until_full(store, size)
        # Reading goes on, here and for others, and what failed is not there in part.
        for reader in (store, other):
            assert [document["name"] for document in reader.list_documents("VM").items] == sorted(acknowledged)
            assert reader.revision() == len(acknowledged)
            assert reader.find("VM", "first")
            assert len(reader.history("VM", "uid-of-first")) == 1
            since = reader.revision() - 1
            assert [change.document["name"] for change in reader.changes(since)] == acknowledged[-1:]
    assert len(acknowledged) > 20
    disk.fill()
    for reader in (store, other):
        with pytest.raises(FailedError) as raised:
            put(reader, make("large", metadata={"x": "y" * 200 * KIB}))
        assert_full(raised.value)
    disk.make_room()
    other.close()
    delete(store, f"uid-of-{acknowledged[1]}")
    assert store.check() == []
    assert sorted([*acknowledged[:1], *acknowledged[2:]]) == [
        document["name"] for document in store.list_documents("VM").items
    ]


def test_with_a_reader_in_the_way_every_write_fails_and_then_all_go_on(disk: SmallDisk, store: Store):
    put(store, make(spec={"count": 0}))
    put(store, make("other"))
    state = {"count": 0}

    def increment() -> None:
        put(store, make(spec={"count": state["count"] + 1}))
        state["count"] += 1

    with exhaust(disk, disk.path / "kc.db", increment) as failure:
        assert_full(failure)
        before = describe(store)
        for write in (
            increment,
            lambda: put(store, make("new")),
            lambda: put_status(store, "uid-of-web", {"power": "running"}),
            lambda: delete(store, "uid-of-other"),
            lambda: put(store, make("renamed", uid="uid-of-web")),
        ):
            with pytest.raises(FailedError) as raised:
                write()
            assert_full(raised.value)
            assert describe(store) == before
        # Nothing new makes no version, and needs no room.
        put(store, make("other"))
        assert store.find("VM", "web")["spec"] == state  # type: ignore[index]
    increment()
    put_status(store, "uid-of-web", {"power": "running"})
    delete(store, "uid-of-other")
    assert store.find("VM", "web")["spec"] == state  # type: ignore[index]
    assert store.find("VM", "web")["status"] == {"power": "running"}  # type: ignore[index]
    assert store.check() == []


def test_a_transaction_that_finds_the_disk_full_leaves_nothing(disk: SmallDisk, store: Store):
    put(store, make("first"))
    before = describe(store)

    def write_much() -> None:
        with store.transaction() as transaction:
            for number in range(200):
                transaction.put(make(f"vm-{number}", metadata={"x": "y" * 100 * KIB}))
                transaction.put_lease(f"op-{number}", {"owner": "me"})

    with pytest.raises(FailedError) as raised:
        write_much()
    assert_full(raised.value)
    assert describe(store) == before
    put(store, make("second"))
    assert store.check() == []


def test_who_catches_the_error_of_one_write_does_not_keep_the_others(disk: SmallDisk, store: Store):
    put(store, make("first"))

    def write_on() -> None:
        with store.transaction() as transaction:
            transaction.put(make("small"))
            for number in range(200):
                try:
                    transaction.put(make(f"vm-{number}", metadata={"x": "y" * 100 * KIB}))
                except FailedError:
                    break
            transaction.put_lease("op", {"owner": "me"})

    with pytest.raises(FailedError):
        write_on()
    assert [document["name"] for document in store.list_documents("VM").items] == ["first"]
    assert store.leases() == []
    assert store.check() == []


def test_a_store_is_not_born_half_on_a_full_disk(disk: SmallDisk):
    disk.fill()
    url = f"tinydb:{disk.path}/new/kc.db"
    with pytest.raises(FailedError) as raised:
        open_store(url)
    assert raised.value.details == {"reason": "full"}
    disk.make_room()
    store = open_store(url)
    put(store, make())
    assert store.check() == []
    store.close()


def test_a_store_on_a_full_disk_opens_or_says_why_it_does_not(disk: SmallDisk):
    url = f"tinydb:{disk.path}/kc.db"
    store = open_store(url)
    put(store, make())
    store.close()
    disk.fill()
    try:
        opened = open_store(url, create=False)
        found = opened.find("VM", "web")
    except FailedError as error:
        failure = error
    else:
        failure = None
        opened.close()
        assert found
    if failure:
        assert_full(failure)
    disk.make_room()
    store = open_store(url, create=False)
    assert store.find("VM", "web")
    assert store.check() == []
    store.close()


def test_a_compaction_without_room_loses_nothing_and_is_done_later(disk: SmallDisk, store: Store):
    for number in range(60):
        put(store, make(metadata={"x": f"{number:06}" + "y" * 60 * KIB}))
    put(store, make("other"))
    narrow = open_store(f"tinydb:{disk.path}/kc.db", create=False, retentions=Retentions(Retention(versions=2)))
    live = store.list_documents("VM").items
    disk.fill()
    try:
        narrow.compact()
    except FailedError as error:
        failure = error
    else:
        failure = None
    if failure:
        assert_full(failure)
    for reader in (store, narrow):
        assert reader.list_documents("VM").items == live
        versions = [entry.version for entry in reader.history("VM", "uid-of-web")]
        assert versions[-2:] == [59, 60]
        assert versions == list(range(versions[0], 61))
    disk.make_room()
    assert store.check() == []
    done = narrow.compact()
    assert [entry.version for entry in store.history("VM", "uid-of-web")] == [59, 60]
    assert store.list_documents("VM").items == live
    assert done.bytes_after < 2 << 20, "the room was not given back"
    assert store.check() == []
    narrow.close()


def test_an_import_without_room_leaves_an_empty_store(disk: SmallDisk, store: Store, tmp_path: Path):
    source = open_store(f"tinydb:{tmp_path}/source.db")
    for number in range(60):
        put(source, make(f"vm-{number}", metadata={"x": "y" * 300 * KIB}))
    identity = store.identity
    with pytest.raises(FailedError) as raised:
        store.load(source.dump())
    assert_full(raised.value)
    assert (store.revision(), store.identity) == (0, identity)
    assert store.list_documents("VM").items == []
    assert store.check() == []
    source.close()
    small = open_store(f"tinydb:{tmp_path}/small.db")
    put(small, make())
    assert store.load(small.dump()) == 1
    assert store.identity == small.identity
    assert store.check() == []
    small.close()


class TestOperations:
    """An operation whose journal cannot be written stays whole, and is finished once there is room."""

    @pytest.fixture
    def host(self) -> MemoryHypervisor:
        return MemoryHypervisor()

    @pytest.fixture
    def service(self, disk: SmallDisk, host: MemoryHypervisor) -> Iterator[LocalService]:
        service = make_service(disk.path, host)
        furnish(service)
        yield service
        service.close()

    def database(self, service: LocalService) -> Path:
        return Path(service.store.url.removeprefix("tinydb:"))

    def touch(self, service: LocalService) -> None:
        """Write something that nobody looks at."""
        put_status(service.store, "uid-of-note", {"revision": service.store.revision()}, kind="Note")

    @pytest.mark.parametrize("call", ["ensure_overlay", "ensure_defined", "ensure_running"])
    def test_it_is_finished_once_there_is_room(
        self, service: LocalService, host: MemoryHypervisor, disk: SmallDisk, call: str
    ):
        put(service.store, make("note", kind="Note"))
        reached, go_on = threading.Event(), threading.Event()
        calls: list[str] = []

        def stop_at(name: str) -> None:
            calls.append(name)
            if name == call and not reached.is_set():
                reached.set()
                assert go_on.wait(60)

        host.fail = stop_at
        accepted = service.create(vm_document("web"))
        assert reached.wait(30), calls
        with exhaust(disk, self.database(service), lambda: self.touch(service)):
            go_on.set()
            service.runner.join(accepted.operation["uid"], 30)  # type: ignore[index]
            assert not service.runner.is_running(accepted.operation["uid"])  # type: ignore[index]
            # It is neither ended nor forgotten: its lease is there, and the document it works on.
            assert [uid for uid, _ in service.store.leases()] == [accepted.operation["uid"]]  # type: ignore[index]
            assert service.store.get("VM", accepted.document["uid"])
            operation = service.store.get("Operation", accepted.operation["uid"])  # type: ignore[index]
            assert operation
            assert operation["status"]["state"] not in ("succeeded", "failed", "cancelled")
            # What is asked for meanwhile is refused before anything of it happens.
            for ask in (
                lambda: service.create(vm_document("second")),
                lambda: service.delete("Network", "default"),
            ):
                with pytest.raises(KCError) as raised:
                    ask()
                assert raised.value.details.get("reason") == "full" or isinstance(raised.value, ConflictError)
            assert service.get("VM", "web")
            assert service.store.find("VM", "second") is None
        assert service.resume(wait=True) == 1
        ended = settle(service, accepted)
        assert ended["status"]["state"] == "succeeded"
        vm = service.get("VM", "web")
        assert vm["status"]["power"] == "running"
        assert list(host.domains) == [vm["uid"]]
        assert service.store.leases() == []
        assert service.store.check() == []

    def test_another_process_finishes_it(self, service: LocalService, host: MemoryHypervisor, disk: SmallDisk):
        put(service.store, make("note", kind="Note"))
        settle(service, service.create(vm_document("web")))
        uid = service.get("VM", "web")["uid"]
        reached, go_on = threading.Event(), threading.Event()

        def stop_at(name: str) -> None:
            if name == "ensure_undefined":
                reached.set()
                assert go_on.wait(60)

        host.fail = stop_at
        accepted = service.delete("VM", "web", now=True)
        assert reached.wait(30)
        with exhaust(disk, self.database(service), lambda: self.touch(service)):
            go_on.set()
            service.runner.join(accepted.operation["uid"], 30)  # type: ignore[index]
            assert len(service.store.leases()) == 1
        service.close()
        # The lease of a process that lives is its own; this one gave it up by closing, or lets it run out.
        second = make_service(disk.path, host)
        with second.store.transaction() as transaction:
            for operation, lease in second.store.leases():
                transaction.put_lease(operation, {**lease, "expiresAt": 0})
        second.resume(wait=True)
        assert second.store.leases() == []
        with pytest.raises(NotFoundError):
            second.get("VM", "web")
        assert uid not in host.domains
        assert not [name for name in host.volumes if uid in name]
        assert second.store.check() == []
