"""The local service on a host in memory: what is accepted, what operations do, what failures leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.homes import ONLY_LOCAL, opened
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.errors import (
    ConflictError,
    FailedError,
    NotFoundError,
    RefusedError,
    TimedOutError,
    UnreachableError,
)
from backend.hypervisor.memory import MemoryDomain, MemoryHypervisor, fail_with
from backend.local import LocalService


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def service(tmp_path: Path, host: MemoryHypervisor, place: str) -> Iterator[LocalService]:
    service = make_service(tmp_path, host)
    furnish(service)
    with opened(place, service, tmp_path) as home:
        yield home


def volumes_of(host: MemoryHypervisor, uid: str) -> list[str]:
    return sorted(name.removeprefix(f"kc-{uid}-") for name in host.volumes if uid in name)


def test_a_created_vm_runs_and_has_its_address(service: LocalService, host: MemoryHypervisor) -> None:
    accepted = service.create(vm_document("web", metadata={"tenant": "acme"}))
    assert accepted.document["status"]["operation"]["type"] == "vm.create"
    ended = settle(service, accepted)
    assert ended["status"]["state"] == "succeeded"
    assert ended["status"]["percent"] == 100
    assert [step["state"] for step in ended["status"]["steps"]] == ["done"] * 6
    vm = service.get("VM", "web")
    assert vm["version"] == 1
    assert vm["status"]["power"] == "running"
    assert vm["status"]["accelerator"] == "tcg"
    address = vm["status"]["addresses"][0]
    assert (address["source"], address["network"], address["nic"]) == ("lease", "default", "nic0")
    assert vm["spec"]["type"] == {"name": "tiny", "uid": service.get("MachineType", "tiny")["uid"], "version": 1}
    assert volumes_of(host, vm["uid"]) == ["console.log", "root", "seed"]
    assert host.domains[vm["uid"]].plan.metadata == '{"tenant": "acme"}'
    assert service.store.leases() == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image": "none"}, NotFoundError, "no image none"),
        ({"type": "none"}, NotFoundError, "no machine type none"),
        ({"nics": [{"network": "none"}]}, NotFoundError, "no network none"),
        ({"parameters": {"cpus": 99}}, RefusedError, "cpus"),
        ({"parameters": {"cpus": True}}, RefusedError, "cpus"),
        ({"parameters": {"x": 1}}, RefusedError, "parameter x: unknown"),
        ({"nics": [{"network": "default", "mac": "01:00:00:00:00:00"}]}, RefusedError, "mac"),
        (
            {"nics": [{"network": "default", "ipv4": {"mode": "none", "address": "10.0.0.5/24"}}]},
            RefusedError,
            r"spec\.nics\.0\.ipv4\.address: mode none takes no address",
        ),
        ({"nics": [{"network": "default", "ipv4": {"mode": "static", "address": "10.0.0.5"}}]}, RefusedError, "CIDR"),
        (
            {"nics": [{"network": "default", "ipv4": {"mode": "static", "address": "10.0.0.5/24"}}]},
            RefusedError,
            "not in 192.168.150.0/24",
        ),
        ({"userData": "neither this nor that"}, RefusedError, "user-data"),
        ({"sshKeys": ["not a key"]}, RefusedError, "SSH key"),
        ({"colour": "red"}, RefusedError, "colour: unknown field|colour.*unexpected"),
    ],
)
def test_a_wrong_document_is_refused_and_nothing_is_written(
    service: LocalService, change: dict, error: type[Exception], words: str
) -> None:
    before = service.store.revision()
    with pytest.raises(error, match=words):
        service.create(vm_document("web", **change))
    assert service.store.revision() == before


def test_a_failed_creation_leaves_nothing_but_its_journal(service: LocalService, host: MemoryHypervisor) -> None:
    host.fail = fail_with(FailedError("domain web", "QEMU said no", "look at its log"), "ensure_running")
    accepted = service.create(vm_document("web"))
    ended = settle(service, accepted)
    assert ended["status"]["state"] == "failed"
    assert ended["status"]["error"]["detail"] == "QEMU said no"
    assert ended["status"]["error"]["hint"] == "look at its log"
    assert [step["state"] for step in ended["status"]["undo"]] == ["done"] * 5
    assert host.domains == {}
    assert volumes_of(host, accepted.document["uid"]) == []
    with pytest.raises(NotFoundError):
        service.get("VM", "web")
    host.fail = lambda _call: None
    assert settle(service, service.create(vm_document("web")))["status"]["state"] == "succeeded"


def test_a_failed_start_keeps_the_vm(service: LocalService, host: MemoryHypervisor) -> None:
    settle(service, service.create(vm_document("web", power="stopped")))
    host.fail = fail_with(FailedError("domain web", "QEMU said no"), "ensure_running")
    assert settle(service, service.act("web", "start"))["status"]["state"] == "failed"
    assert service.get("VM", "web")["status"]["power"] == "stopped"


def test_start_and_stop_write_versions_and_do_nothing_twice(service: LocalService) -> None:
    settle(service, service.create(vm_document("web")))
    assert service.act("web", "start").operation is None
    settle(service, service.act("web", "stop"))
    stopped = service.get("VM", "web")
    assert (stopped["version"], stopped["spec"]["power"], stopped["status"]["power"]) == (2, "stopped", "stopped")
    assert service.act("web", "stop").operation is None
    settle(service, service.act("web", "start"))
    assert service.get("VM", "web")["version"] == 3


@ONLY_LOCAL
def test_a_guest_that_does_not_obey_is_said(service: LocalService, host: MemoryHypervisor) -> None:
    host.boots = False
    settle(service, service.create(vm_document("web")))
    ended = settle(service, service.act("web", "stop", {"graceSeconds": 0}))
    assert ended["status"]["state"] == "failed"
    assert "--force" in ended["status"]["error"]["hint"]
    assert settle(service, service.act("web", "stop", {"force": True}))["status"]["state"] == "succeeded"


def test_a_vm_that_powered_itself_off_can_be_started(service: LocalService, host: MemoryHypervisor) -> None:
    settle(service, service.create(vm_document("web")))
    host.set_power(service.get("VM", "web")["uid"], "stopped")
    assert settle(service, service.act("web", "start"))["status"]["state"] == "succeeded"
    assert service.get("VM", "web")["status"]["power"] == "running"


def test_deletion_leaves_nothing_and_history_stays(service: LocalService, host: MemoryHypervisor) -> None:
    settle(service, service.create(vm_document("web")))
    uid = service.get("VM", "web")["uid"]
    settle(service, service.delete("VM", "web", now=True))
    assert host.domains == {}
    assert volumes_of(host, uid) == []
    assert service.list_documents("Trash").items == []
    assert [version.document is None for version in service.store.history("VM", uid)] == [False, True]
    with pytest.raises(NotFoundError):
        service.delete("VM", "web")


def test_what_is_in_use_is_not_deleted(service: LocalService) -> None:
    settle(service, service.create(vm_document("web")))
    for kind, name in (("Image", "starter"), ("Network", "default"), ("MachineType", "tiny")):
        with pytest.raises(ConflictError, match="web"):
            service.delete(kind, name)
    service.delete("MachineType", "large")


def test_foreign_domains_are_shown_and_never_touched(service: LocalService, host: MemoryHypervisor) -> None:
    uid = "22222222-2222-4222-8222-222222222222"
    host.domains[uid] = MemoryDomain(uid, "old\x1b[31m", None, power="running")
    shown = service.list_documents("VM").items
    assert [item["name"] for item in shown] == ["old\ufffd[31m"]
    assert shown[0]["status"]["foreign"] is True
    host.domains[uid].name = "old"
    for call in (lambda: service.act("old", "stop"), lambda: service.delete("VM", "old")):
        # Behind a guard what is not KC's is shown in lists, and is nothing that anything could be done to.
        with pytest.raises((ConflictError, NotFoundError), match=r"foreign|no such VM"):
            call()
    with pytest.raises(ConflictError, match="no KC made"):
        service.create(vm_document("old"))
    assert host.domains[uid].power == "running"


def test_two_creations_of_one_name_have_one_winner(tmp_path: Path, host: MemoryHypervisor) -> None:
    services = [make_service(tmp_path, host) for _ in range(2)]
    furnish(services[0])
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def create(service: LocalService) -> None:
        barrier.wait(10)
        try:
            settle(service, service.create(vm_document("web")))
        except ConflictError:
            outcomes.append("conflict")
        else:
            outcomes.append("made")

    threads = [threading.Thread(target=create, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for service in services:
        service.close()
    assert sorted(outcomes) == ["conflict", "made"]


def test_one_operation_at_a_time_works_on_a_vm(service: LocalService, host: MemoryHypervisor) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        if call == "ensure_defined":
            inside.set()
            go_on.wait(20)

    host.fail = hold
    accepted = service.create(vm_document("web"))
    assert inside.wait(10)
    with pytest.raises(ConflictError, match="at work"):
        service.delete("VM", "web")
    listed = service.list_documents("VM").items[0]
    assert listed["status"]["operation"]["step"] == 5
    go_on.set()
    assert settle(service, accepted)["status"]["state"] == "succeeded"


def test_a_cancelled_creation_undoes_itself(service: LocalService, host: MemoryHypervisor) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        if call == "ensure_overlay":
            inside.set()
            go_on.wait(20)

    host.fail = hold
    accepted = service.create(vm_document("web"))
    assert inside.wait(10)
    service.cancel(accepted.operation["name"])
    go_on.set()
    ended = settle(service, accepted)
    assert ended["status"]["state"] == "cancelled"
    assert host.domains == {}
    assert volumes_of(host, accepted.document["uid"]) == []
    with pytest.raises(ConflictError, match="cancelled already"):
        service.cancel(accepted.operation["name"])


def test_an_unreachable_host_parks_the_operation_and_it_goes_on_later(
    service: LocalService, host: MemoryHypervisor
) -> None:
    host.fail = fail_with(UnreachableError("host", "libvirtd does not answer", "start it"), "ensure_overlay")
    accepted = service.create(vm_document("web"))
    with pytest.raises(UnreachableError):
        service.wait(accepted.operation["name"], timeout=20)
    host.fail = lambda _call: None
    service.resume()
    assert service.get("Operation", accepted.operation["name"])["status"]["state"] == "succeeded"
    assert service.get("VM", "web")["status"]["power"] == "running"


def test_an_unreachable_host_refuses_before_anything_is_written(service: LocalService, host: MemoryHypervisor) -> None:
    host.fail = fail_with(UnreachableError("host", "libvirtd does not answer"))
    before = service.store.revision()
    with pytest.raises(UnreachableError):
        service.create(vm_document("web"))
    assert service.store.revision() == before
    page = service.list_documents("VM")
    assert page.warnings
    assert page.items == []


def test_what_one_process_leaves_another_ends(tmp_path: Path, host: MemoryHypervisor) -> None:
    first = make_service(tmp_path, host, operate=False)
    furnishing = make_service(tmp_path, host)
    furnish(furnishing)
    accepted = first.create(vm_document("web"))
    assert first.store.leases()
    assert furnishing.resume() == 1
    assert furnishing.get("Operation", accepted.operation["name"])["status"]["state"] == "succeeded"
    first.close()
    furnishing.close()


def test_a_watcher_sees_documents_progress_and_live_states(service: LocalService, host: MemoryHypervisor) -> None:
    seen: list[tuple[str, str, str]] = []
    stopped = threading.Event()
    follower = service.watch(("VM",))

    def follow() -> None:
        for event in follower:
            if stopped.is_set():
                return
            if event is not None:
                seen.append((event.type, event.document["name"], event.document["status"].get("power", "")))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()

    def wait_for(entry: tuple[str, str, str]) -> None:
        deadline = time.monotonic() + 10
        while entry not in seen:
            assert time.monotonic() < deadline, (entry, seen)
            time.sleep(0.02)

    settle(service, service.create(vm_document("web")))
    wait_for(("created", "web", "absent"))
    wait_for(("status", "web", "running"))
    host.set_power(service.get("VM", "web")["uid"], "paused")
    wait_for(("status", "web", "paused"))
    settle(service, service.delete("VM", "web"))
    deadline = time.monotonic() + 10
    while not any(kind == "deleted" for kind, _, _ in seen):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stopped.set()
    thread.join(5)


def test_waiting_has_a_limit(service: LocalService, host: MemoryHypervisor) -> None:
    host.boots = False
    settle(service, service.create(vm_document("web")))
    with pytest.raises(TimedOutError, match="nic0 has no address"):
        service.wait_until("web", "ready", timeout=0.2)
    host.domains[service.get("VM", "web")["uid"]].power = "crashed"
    with pytest.raises(FailedError, match="crashed"):
        service.wait_until("web", "ready", timeout=5)


@pytest.mark.parametrize("observe", [True, False])
def test_pages_go_through_the_whole_list_once(service: LocalService, observe: bool) -> None:
    for index in range(7):
        settle(service, service.create(vm_document(f"vm-{index}", power="stopped")))
    names: list[str] = []
    after = ""
    while True:
        page = service.list_documents("VM", limit=3, after=after, observe=observe)
        names += [item["name"] for item in page.items]
        after = page.next
        if not after:
            break
    assert names == [f"vm-{index}" for index in range(7)]


def test_the_console_says_what_was_said_before(service: LocalService) -> None:
    settle(service, service.create(vm_document("web")))
    assert b"KC starter" in service.console_log("web")
    console = service.console("web")
    assert b"KC starter" in (console.read(1.0) or b"")
    console.write(b"ls\r")
    assert b"ls" in (console.read(1.0) or b"")
    console.close()


def test_a_console_that_is_asked_for_early_waits_for_the_start(service: LocalService, host: MemoryHypervisor) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        if call == "ensure_running":
            inside.set()
            go_on.wait(20)

    host.fail = hold
    service.create(vm_document("web"))
    assert inside.wait(10)
    threading.Timer(0.1, go_on.set).start()
    console = service.console("web")
    assert b"KC starter" in (console.read(1.0) or b"")
    console.close()


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tenant=acme", ["web"]),
        ("tenant=acme,status.power=running", ["web"]),
        ("status.power=stopped", ["off", "old"]),
        ("!tenant", ["off", "old"]),
        ("tenant!=acme,status.foreign=true", ["old"]),
        ("status", ["off", "web", "old"]),
        ("spec.power=running", ["web"]),
        ("tenant=none", []),
    ],
)
def test_a_list_of_vms_is_chosen_by_documents_and_live_states_alike(
    service: LocalService, host: MemoryHypervisor, selector: str, names: list[str]
) -> None:
    settle(service, service.create(vm_document("web", metadata={"tenant": "acme"})))
    settle(service, service.create(vm_document("off", power="stopped")))
    uid = "22222222-2222-4222-8222-222222222222"
    host.domains[uid] = MemoryDomain(uid, "old", None, power="stopped")
    found = service.list_documents("VM", selector=selector).items
    assert [item["name"] for item in found] == names
