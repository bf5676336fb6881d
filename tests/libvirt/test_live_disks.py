"""Disks and discs that come, grow and go under a domain that is on; its guest needs to do nothing for it."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from hosts import PrivateHost
from support.boot_sector import SIZE

from backend.errors import ConflictError, FailedError, NotFoundError
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt

Make = Callable[..., DomainPlan]
MIB = 1 << 20


class Vm:
    """A domain that is on, and the volumes of its test."""

    def __init__(self, hypervisor: Hypervisor, host: PrivateHost, plan: DomainPlan) -> None:
        self.hypervisor = hypervisor
        self.host = host
        self.plan = plan
        hypervisor.ensure_defined(plan)
        hypervisor.ensure_running(plan.uid)

    def disk(self, name: str, size_mib: int = 8, **changes: int) -> DiskPlan:
        """Return a disk whose volume is there."""
        volume = f"kc-{self.plan.uid}-{name}"
        self.host.virsh("vol-create-as", "kc", volume, f"{size_mib}M", "--format", "qcow2")
        return DiskPlan(name, volume, **changes)

    def change(self, **changes: object) -> tuple[str, ...]:
        """Change the plan, its definition and the running domain; return what waits."""
        self.plan = self.plan._replace(**changes)
        self.hypervisor.ensure_defined(self.plan)
        waiting = self.hypervisor.apply_live(self.plan)
        # All that could be done has been: nothing more happens when it is asked for again.
        before = self.describe()
        assert self.hypervisor.apply_live(self.plan) == waiting
        assert self.describe() == before
        return waiting

    def describe(self, *options: str) -> str:
        return self.host.virsh("dumpxml", self.plan.name, *options)

    def disks(self, *options: str) -> dict[str, Element]:
        """Return the disks of the domain by alias."""
        found = fromstring(self.describe(*options)).findall("devices/disk[@device='disk']")
        return {disk.find("alias").get("name", ""): disk for disk in found}  # type: ignore[union-attr]

    def size(self, target: str) -> int:
        """Return how large QEMU shows a disk to its guest, in MiB."""
        told = self.host.virsh("domblkinfo", self.plan.name, target)
        return int(told.split("Capacity:")[1].split()[0]) // MIB


def value(parent: Element, path: str, name: str) -> str:
    found = parent.find(path)
    assert found is not None
    return found.get(name, "")


@pytest.fixture
def vm(hypervisor: Hypervisor, private_host: PrivateHost, make: Make) -> Vm:
    return Vm(hypervisor, private_host, make())


def test_disks_come_live_and_stay_where_they_are_at_the_next_start(vm: Vm) -> None:
    (root,) = vm.plan.disks
    data, more = vm.disk("data"), vm.disk("more")
    assert vm.change(disks=(root, data)) == ()
    assert vm.change(disks=(root, data, more)) == ()
    disks = vm.disks()
    assert list(disks) == ["ua-disk-root", "ua-disk-data", "ua-disk-more"]
    assert [disk.findtext("serial") for disk in disks.values()] == ["root", "data", "more"]
    assert value(disks["ua-disk-data"], "driver", "type") == "qcow2"
    after = vm.disks("--inactive")
    for path, name in (("target", "dev"), ("address", "bus"), ("source", "file")):
        assert {key: value(disk, path, name) for key, disk in disks.items()} == {
            key: value(disk, path, name) for key, disk in after.items()
        }  # fmt: skip
    vm.hypervisor.ensure_stopped(vm.plan.uid, grace_seconds=0, force=True)
    vm.hypervisor.ensure_running(vm.plan.uid)
    assert vm.hypervisor.apply_live(vm.plan) == ()
    assert {key: value(disk, "address", "bus") for key, disk in vm.disks().items()} == {
        key: value(disk, "address", "bus") for key, disk in disks.items()
    }  # fmt: skip


def test_a_disk_that_the_guest_holds_waits_and_another_comes_beside_it(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.hypervisor.live.UNPLUG_SECONDS", 1.0)
    (root,) = vm.plan.disks
    held, other = vm.disk("held"), vm.disk("other")
    assert vm.change(disks=(root, held)) == ()
    bus = value(vm.disks()["ua-disk-held"], "address", "bus")
    # Nobody in this guest answers; the name and the place of the disk that stays are not given away.
    assert vm.change(disks=(root, other)) == ("disk:held",)
    disks = vm.disks()
    assert {value(disk, "target", "dev") for disk in disks.values()} == {"vda", "vdb", "vdc"}
    assert value(disks["ua-disk-held"], "address", "bus") == bus
    assert value(disks["ua-disk-other"], "address", "bus") != bus
    with pytest.raises(ConflictError):
        vm.hypervisor.ensure_volume_gone(held.volume)
    # It is wanted again before it went: it stays as it is.
    assert vm.change(disks=(root, other, held)) == ()
    assert value(vm.disks()["ua-disk-held"], "address", "bus") == bus
    vm.hypervisor.ensure_stopped(vm.plan.uid, grace_seconds=0, force=True)
    assert vm.change(disks=(root, other)) == ()
    vm.hypervisor.ensure_running(vm.plan.uid)
    assert list(vm.disks()) == ["ua-disk-root", "ua-disk-other"]
    vm.hypervisor.ensure_volume_gone(held.volume)


def test_every_disk_grows_live_and_none_shrinks(vm: Vm) -> None:
    (root,) = vm.plan.disks
    data = vm.disk("data", 8)
    assert vm.change(disks=(root, data._replace(capacity_bytes=8 * MIB))) == ()
    assert vm.change(
        disks=(root._replace(capacity_bytes=96 * MIB), data._replace(capacity_bytes=24 * MIB + 1))
    ) == ()  # fmt: skip
    assert (vm.size("vda"), vm.size("vdb")) == (96, 24)
    assert vm.change(disks=(root._replace(capacity_bytes=SIZE), data._replace(capacity_bytes=MIB))) == ()
    assert (vm.size("vda"), vm.size("vdb")) == (96, 24)
    vm.host.virsh("suspend", vm.plan.name)
    assert vm.change(disks=(root, data._replace(capacity_bytes=32 * MIB))) == ()
    assert vm.size("vdb") == 32
    vm.hypervisor.ensure_stopped(vm.plan.uid, grace_seconds=0, force=True)
    found = vm.hypervisor.find_volume(data.volume)
    assert found is not None
    assert found.capacity_bytes == 32 * MIB


def test_a_new_disk_is_there_at_the_size_that_is_wanted(vm: Vm) -> None:
    data = vm.disk("data", 4)._replace(capacity_bytes=16 * MIB)
    assert vm.change(disks=(*vm.plan.disks, data)) == ()
    assert vm.size("vdb") == 16


KILLED = """
import os, sys
from pathlib import Path
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.live_domain import RunningDomain
from backend.hypervisor.plan import *
control, left = RunningDomain.control, [{left}]
def die(*arguments):
    control(*arguments)
    left[0] -= 1
    if not left[0]:
        os._exit(9)
RunningDomain.control = die
open_hypervisor({uri!r}, "kc", Path({cache!r})).apply_live({plan!r})
"""


def test_killed_after_each_of_its_steps_it_is_brought_to_its_end(
    vm: Vm, discs: tuple[str, str], tmp_path: Path
) -> None:
    (root,) = vm.plan.disks
    for left in itertools.count(1):
        data, more = vm.disk(f"data{left}", 8), vm.disk(f"more{left}", 8)
        size = (96 + left) * MIB
        wanted = vm.plan._replace(
            disks=(root._replace(capacity_bytes=size), *vm.plan.disks[1:], data._replace(capacity_bytes=9 * MIB), more),
            cdrom=discs[left % 2], nics=(NicPlan(f"nic{left}", f"52:54:00:77:33:{left:02x}"), *vm.plan.nics),
        )  # fmt: skip
        vm.hypervisor.ensure_defined(wanted)
        script = KILLED.format(left=left, uri=vm.host.uri, cache=str(tmp_path), plan=wanted)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 9), done.stderr
        assert vm.change(**wanted._asdict()) == ()
        assert list(vm.disks()) == [f"ua-disk-{disk.id}" for disk in wanted.disks]
        assert (vm.size("vda"), inserted(vm)) == (96 + left, discs[left % 2])
        if done.returncode == 0:
            break
        # Started anew, it has room on its bus again.
        vm.hypervisor.ensure_stopped(vm.plan.uid, grace_seconds=0, force=True)
        vm.hypervisor.ensure_running(vm.plan.uid)
    # The label, a NIC, two disks, two that grow, a disc.
    assert left == 7 + 1


def test_the_first_disk_neither_goes_nor_is_replaced(vm: Vm) -> None:
    assert vm.hypervisor.apply_live(vm.plan._replace(disks=())) == ("disk:root",)
    other = vm.disk("other")._replace(id="root")
    assert vm.hypervisor.apply_live(vm.plan._replace(disks=(other,))) == ("disk:root",)
    assert list(vm.disks()) == ["ua-disk-root"]


def test_a_disk_of_another_tool_keeps_its_name_and_goes_or_is_named(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.hypervisor.live.UNPLUG_SECONDS", 1.0)
    foreign, data = vm.disk("foreign"), vm.disk("data")
    path = vm.host.virsh("vol-path", foreign.volume, "--pool", "kc").strip()
    vm.host.virsh("attach-disk", vm.plan.name, path, "vdb", "--subdriver", "qcow2", "--live")
    (root,) = vm.plan.disks
    assert vm.change(disks=(root, data)) == ("disk:virtio-disk1",)
    assert value(vm.disks()["ua-disk-data"], "target", "dev") == "vdc"


def test_disks_and_nics_share_the_bus_and_what_finds_no_room_waits(vm: Vm) -> None:
    disks = (*vm.plan.disks, *(vm.disk(f"d{number}", 1) for number in range(9)))
    waiting = vm.change(disks=disks)
    assert waiting == ("disk:d8",)
    nic = NicPlan("late", "52:54:00:77:32:01")
    assert vm.change(nics=(nic,)) == ("nic:late", "disk:d8")
    vm.hypervisor.ensure_stopped(vm.plan.uid, grace_seconds=0, force=True)
    vm.hypervisor.ensure_running(vm.plan.uid)
    assert vm.hypervisor.apply_live(vm.plan) == ()


def test_a_disk_that_is_not_there_is_told_and_nothing_comes(vm: Vm) -> None:
    with pytest.raises(NotFoundError, match="kc-absent"):
        vm.hypervisor.apply_live(vm.plan._replace(disks=(*vm.plan.disks, DiskPlan("x", "kc-absent"))))
    assert list(vm.disks()) == ["ua-disk-root"]


def test_a_disk_that_cannot_be_opened_is_told(vm: Vm, tmp_path: Path) -> None:
    volume = f"kc-{vm.plan.uid}-torn"
    vm.hypervisor.upload(volume, io.BytesIO(b"no qcow2" * 64), 512)
    with pytest.raises(FailedError, match="qcow2"):
        vm.hypervisor.apply_live(vm.plan._replace(disks=(*vm.plan.disks, DiskPlan("torn", volume))))
    assert vm.hypervisor.apply_live(vm.plan) == ()
    assert list(vm.disks()) == ["ua-disk-root"]


def test_an_adopted_domains_disks_are_neither_touched_nor_told(vm: Vm) -> None:
    data = vm.disk("data", 8)
    assert vm.change(disks=(*vm.plan.disks, data)) == ()
    adopted = vm.plan._replace(adopted=True, disks=(), seed="", console_log="", firmware="uefi")
    assert vm.hypervisor.apply_live(adopted) == ()
    assert list(vm.disks()) == ["ua-disk-root", "ua-disk-data"]


@pytest.fixture
def discs(vm: Vm) -> tuple[str, str]:
    names = (f"kc-{vm.plan.uid}-disc1", f"kc-{vm.plan.uid}-disc2")
    for name in names:
        vm.hypervisor.upload(name, io.BytesIO(bytes(65536)), 65536)
    return names


def inserted(vm: Vm, *options: str) -> str:
    """Return what is in the drive: the name of the volume, or an empty text."""
    found = fromstring(vm.describe(*options)).findall("devices/disk[@device='cdrom']")
    (drive,) = [item for item in found if value(item, "target", "dev") == "sdb"]
    source = drive.find("source")
    return Path(source.get("file", "")).name if source is not None else ""


def test_a_disc_is_put_in_changed_and_taken_out(vm: Vm, discs: tuple[str, str]) -> None:
    first, second = discs
    for disc in (first, second, "", second, first, ""):
        assert vm.change(cdrom=disc) == ()
        assert inserted(vm) == disc
        assert inserted(vm, "--inactive") == disc
    # The disc that is out can go.
    vm.hypervisor.ensure_volume_gone(first)


def test_a_disc_waits_where_the_domain_was_started_without_a_drive(vm: Vm, discs: tuple[str, str]) -> None:
    vm.host.virsh("detach-disk", vm.plan.name, "sdb", "--live")
    assert vm.hypervisor.apply_live(vm.plan) == ()
    assert vm.change(cdrom=discs[0]) == ("cdrom",)
    vm.hypervisor.ensure_stopped(vm.plan.uid, grace_seconds=0, force=True)
    vm.hypervisor.ensure_running(vm.plan.uid)
    assert vm.hypervisor.apply_live(vm.plan) == ()
    assert inserted(vm) == discs[0]
