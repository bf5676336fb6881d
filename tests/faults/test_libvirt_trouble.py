"""libvirtd that stops, dies and comes back, and a QEMU that hangs, while operations run and lists are looked at."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.boot_sector import make_disk
from support.private import PrivateHost, wait_until

from backend.errors import KCError, UnreachableError
from backend.local import LocalService, open_service
from backend.local.initialising import MACHINE_TYPES
from backend.model.documents import Document
from backend.service import Accepted
from backend.settings import load_settings

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHost]:
    if os.geteuid() != 0:
        pytest.skip("namespaces of its own need root")
    host = PrivateHost(tmp_path_factory.mktemp("h"))
    yield host
    host.close()


@pytest.fixture
def service(host: PrivateHost, tmp_path: Path) -> Iterator[LocalService]:
    settings = load_settings(environment={"KC_HOME": str(tmp_path / "home"), "KC_LIBVIRT_URI": host.uri})
    service = open_service(settings)
    disk = tmp_path / "boot.raw"
    disk.write_bytes(make_disk())
    service.create({"kind": "MachineType", "name": "tiny", "spec": MACHINE_TYPES["tiny"]})
    settle(service, service.upload_image("boot", disk, metadata={}, declared={"format": "raw"}))
    yield service
    for vm in service.list_documents("VM").items:
        if not vm["status"].get("foreign"):
            settle(service, service.delete("VM", vm["name"], now=True))
    service.close()


def settle(service: LocalService, accepted: Accepted) -> Document:
    if accepted.operation is None:
        return accepted.document
    ended = service.wait(accepted.operation["name"], timeout=60)
    assert ended["status"]["state"] == "succeeded", ended["status"]
    return ended


def create(service: LocalService, name: str, power: str = "running") -> Accepted:
    spec = {"image": "boot", "type": "tiny", "nics": [], "power": power}
    return service.create({"kind": "VM", "name": name, "spec": spec, "metadata": {}})


def status_of(service: LocalService, accepted: Accepted) -> Document:
    assert accepted.operation is not None
    found: Document = service.get("Operation", accepted.operation["name"])["status"]
    return found


def held_before(service: LocalService, step: str) -> tuple[threading.Event, threading.Event]:
    """Have the next operation come to a step and wait; return (it is there, it may go on)."""
    there, go_on = threading.Event(), threading.Event()

    def look(point: str, which: str) -> None:
        if (point, which) == ("begun", step) and not there.is_set():
            there.set()
            go_on.wait(60)

    service.runner.trace = look
    return there, go_on


@contextmanager
def frozen(host: PrivateHost) -> Iterator[None]:
    host.tell("signal libvirtd STOP")
    try:
        yield
    finally:
        host.tell("signal libvirtd CONT")


@contextmanager
def dead(host: PrivateHost) -> Iterator[None]:
    host.tell("signal libvirtd KILL")
    try:
        yield
    finally:
        host.tell("start libvirtd")
        host.wait_for_daemon()


TROUBLE = {"frozen": frozen, "dead": dead}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("step", ["disk", "define"])
def test_an_operation_parks_while_libvirtd_is_away_and_goes_on_by_itself(
    service: LocalService, host: PrivateHost, trouble: str, step: str
) -> None:
    there, go_on = held_before(service, step)
    accepted = create(service, "web")
    assert there.wait(30)
    with TROUBLE[trouble](host):
        go_on.set()
        wait_until(lambda: status_of(service, accepted).get("parked"), "it is parked", 45)
        parked = status_of(service, accepted)
        assert parked["retry"]["why"]
        assert parked["error"]["code"] == "unreachable"
    wait_until(lambda: status_of(service, accepted)["state"] == "succeeded", "it ends by itself", 45)
    assert service.get("VM", "web")["status"]["power"] == "running"
    assert host.virsh("list", "--name").split() == ["web"]


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_start_is_waited_for_or_made_again(service: LocalService, host: PrivateHost, trouble: str) -> None:
    # libvirt may take minutes to start a domain; so a start is not given up as soon as other calls are.
    there, go_on = held_before(service, "power")
    accepted = create(service, "web")
    assert there.wait(30)
    with TROUBLE[trouble](host):
        go_on.set()
        wait_until(lambda: status_of(service, accepted)["steps"][-1]["state"] == "running", "it is being started")
        time.sleep(3.0)  # nothing tells that a call hangs
    wait_until(lambda: status_of(service, accepted)["state"] == "succeeded", "it ends by itself", 60)
    assert service.get("VM", "web")["status"]["power"] == "running"


def test_a_restart_of_libvirtd_in_the_middle_is_not_noticed(service: LocalService, host: PrivateHost) -> None:
    there, go_on = held_before(service, "define")
    accepted = create(service, "web")
    assert there.wait(30)
    with dead(host):
        go_on.set()
    assert settle(service, accepted)["status"]["state"] == "succeeded"


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_request_to_a_libvirtd_that_is_away_is_refused_and_nothing_written(
    service: LocalService, host: PrivateHost, trouble: str
) -> None:
    settle(service, create(service, "web"))
    before = service.store.revision()
    with TROUBLE[trouble](host):
        began = time.monotonic()
        for request in (lambda: service.act("web", "stop"), lambda: create(service, "other")):
            with pytest.raises(UnreachableError):
                request()
        assert time.monotonic() - began < 25
        assert service.store.revision() == before
    wait_until(lambda: answers(service.hypervisor.inventory), "the host is back", 20)


def answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except KCError:
        return False
    return True


class Follower:
    """Follows the feed as a screen does, and keeps what it was told last of each VM."""

    def __init__(self, service: LocalService) -> None:
        self.shown: dict[str, Document] = {}
        self._is_leaving = False
        self._service = service
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for event in self._service.watch(["VM"], since=0):
            if event is not None:
                self.shown[event.document["name"]] = event.document["status"]
            if self._is_leaving:
                return

    def leave(self) -> None:
        self._is_leaving = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("trouble", TROUBLE)
def test_vms_are_stale_within_seconds_and_live_again_by_themselves(
    service: LocalService, host: PrivateHost, trouble: str
) -> None:
    settle(service, create(service, "web"))
    follower = Follower(service)
    wait_until(lambda: follower.shown.get("web", {}).get("power") == "running", "it is seen to run", 20)
    with TROUBLE[trouble](host):
        began = time.monotonic()
        listed = service.list_documents("VM")
        assert time.monotonic() - began < 12
        assert [item["status"].get("stale") for item in listed.items] == [True]
        assert listed.warnings
        wait_until(lambda: follower.shown["web"].get("stale"), "its row goes grey", 20)
        began = time.monotonic()
        service.list_documents("VM", observe=False)
        assert time.monotonic() - began < 0.5
    wait_until(lambda: answers(service.hypervisor.inventory), "the host is back", 20)
    assert "stale" not in service.list_documents("VM").items[0]["status"]
    host.virsh("suspend", "web")
    wait_until(lambda: follower.shown["web"].get("power") == "paused", "the follower hears again", 30)
    assert "stale" not in follower.shown["web"]
    follower.leave()


def test_a_qemu_that_hangs_hinders_no_other_vm(service: LocalService, host: PrivateHost) -> None:
    for name in ("stuck", "web"):
        settle(service, create(service, name))
    host.tell("qemu stuck STOP")
    try:
        hanging = service.act("stuck", "stop", {"graceSeconds": 1})
        began = time.monotonic()
        for action in ("stop", "start", "pause", "resume"):
            settle(service, service.act("web", action))
        settle(service, create(service, "third"))
        settle(service, service.delete("VM", "third", now=True))
        assert len(service.list_documents("VM").items) == 2
        assert time.monotonic() - began < 25
    finally:
        host.tell("qemu stuck CONT")
    wait_until(lambda: status_of(service, hanging)["state"] in ("succeeded", "failed"), "the stop comes to an end", 60)
