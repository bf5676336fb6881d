"""Snapshots bring disks, and the guest's memory where it is in them, back to what they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import Disks, root_of
from hosts import PrivateHost, wait_until
from support.writing_guest import DISK_BYTES, make_writer

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.hypervisor import copying
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DiskPlan, DomainPlan
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt

MIB = 1 << 20
# Restores a snapshot, says so before each volume that is written anew is filled, and waits for a line.
RESTORER = """
import sys
from pathlib import Path
from backend.hypervisor import copying
from backend.hypervisor.host import open_hypervisor
uri, cache, uid, act = sys.argv[1:5]
start = copying.start_helper
def tell(*arguments):
    made = start(*arguments)
    print("there", flush=True)
    sys.stdin.readline()
    return made
copying.start_helper = tell
driver = open_hypervisor(uri, "kc", Path(cache))
driver.restore_snapshot(uid, "one") if act == "restore" else driver.take_snapshot(uid, "one")
"""


@pytest.fixture
def disks(private_host: PrivateHost, hypervisor: Hypervisor, tmp_path: Path) -> Disks:
    return Disks(private_host, tmp_path)


@pytest.fixture(autouse=True)
def soon_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "DEAD_SECONDS", 1.0)


@pytest.fixture
def vm(hypervisor: Hypervisor, make: Callable[..., DomainPlan]) -> DomainPlan:
    """A VM with BIOS that is off."""
    plan = make()
    hypervisor.ensure_capacity(root_of(plan), 4 * MIB)
    hypervisor.ensure_defined(plan)
    return plan


@pytest.fixture
def uefi(hypervisor: Hypervisor, make: Callable[..., DomainPlan]) -> Iterator[DomainPlan]:
    """A VM with UEFI and two disks that is off."""
    plan = make(firmware="uefi")
    hypervisor.ensure_capacity(root_of(plan), 4 * MIB)
    hypervisor.ensure_blank(f"kc-{plan.uid}-data", 4 * MIB)
    plan = plan._replace(disks=(*plan.disks, DiskPlan("data", f"kc-{plan.uid}-data")))
    hypervisor.ensure_defined(plan)
    yield plan
    # They are over the same base as the disk.
    for snapshot in ("one", "two"):
        hypervisor.ensure_snapshot_gone(plan.uid, snapshot)


def copies_of(hypervisor: Hypervisor, plan: DomainPlan) -> list[str]:
    return [volume.name for volume in hypervisor.list_volumes(f"kc-{plan.uid}") if ".snapshot" in volume.name]


def data_of(plan: DomainPlan) -> str:
    return plan.disks[1].volume


def stop(hypervisor: Hypervisor, plan: DomainPlan) -> None:
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)


def power(hypervisor: Hypervisor, plan: DomainPlan) -> str:
    observed = hypervisor.observe(plan.uid)
    assert observed is not None
    return observed.power


def kill_on_the_way(host: PrivateHost, folder: Path, plan: DomainPlan, act: str, volumes: int) -> None:
    """Kill a process that takes or restores a snapshot while it writes its so manieth volume."""
    process = subprocess.Popen(
        [sys.executable, "-c", RESTORER, host.uri, str(folder), plan.uid, act],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(volumes):
        if number:
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.stdin.close()
    process.stdout.close()
    process.wait(20)


def test_a_snapshot_of_a_vm_that_is_off_brings_its_disks_back(
    hypervisor: Hypervisor, disks: Disks, vm: DomainPlan
) -> None:
    disks.write(root_of(vm), 1)
    before = disks.read(root_of(vm))
    began = time.time()
    first = hypervisor.take_snapshot(vm.uid, "first", "for <you> & me")
    assert (first.name, first.has_memory, first.method) == ("first", False, "internal")
    assert abs(first.at - began) < 60
    assert hypervisor.take_snapshot(vm.uid, "first") == first
    disks.write(root_of(vm), 2)
    hypervisor.restore_snapshot(vm.uid, "first")
    hypervisor.restore_snapshot(vm.uid, "first")
    assert disks.read(root_of(vm)) == before
    assert power(hypervisor, vm) == "stopped"
    hypervisor.ensure_snapshot_gone(vm.uid, "first")
    hypervisor.ensure_snapshot_gone(vm.uid, "first")
    assert hypervisor.list_snapshots(vm.uid) == []
    assert "snapshots" not in disks.info(root_of(vm))
    with pytest.raises(NotFoundError):
        hypervisor.restore_snapshot(vm.uid, "first")


def test_a_snapshot_of_a_vm_that_is_on_brings_its_memory_back(
    hypervisor: Hypervisor, disks: Disks, make: Callable[..., DomainPlan], private_host: PrivateHost
) -> None:
    plan = make(make_writer())
    hypervisor.ensure_capacity(root_of(plan), DISK_BYTES)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    wait_until(lambda: disks.counts(root_of(plan))[0] > 10, "the guest counts", 30)
    private_host.virsh("suspend", plan.name)
    paused = hypervisor.take_snapshot(plan.uid, "paused")
    at_pause = disks.counts(root_of(plan))
    hypervisor.ensure_running(plan.uid)
    running = hypervisor.take_snapshot(plan.uid, "running")
    assert (paused.has_memory, running.has_memory, running.method) == (True, True, "internal")
    assert [found.name for found in hypervisor.list_snapshots(plan.uid)] == ["paused", "running"]
    wait_until(lambda: disks.counts(root_of(plan))[0] > at_pause[0] + 50, "it counts on")
    hypervisor.restore_snapshot(plan.uid, "paused")
    assert power(hypervisor, plan) == "paused"
    assert disks.counts(root_of(plan)) == at_pause
    stop(hypervisor, plan)
    # The number is in its memory: it goes on where it was, also from off.
    hypervisor.restore_snapshot(plan.uid, "running")
    assert power(hypervisor, plan) == "running"
    stop(hypervisor, plan)
    hypervisor.ensure_running(plan.uid)
    wait_until(lambda: disks.counts(root_of(plan))[0] < at_pause[0], "it has begun anew, and so without its memory", 30)
    hypervisor.restore_snapshot(plan.uid, "paused")
    hypervisor.ensure_running(plan.uid)
    wait_until(lambda: disks.counts(root_of(plan))[0] > at_pause[0], "it counts on from there")


def test_an_empty_drive_and_a_disc_do_not_hinder(
    hypervisor: Hypervisor, vm: DomainPlan, private_host: PrivateHost, tmp_path: Path
) -> None:
    drive = tmp_path / "drive.xml"
    drive.write_text("<disk type='file' device='cdrom'><target dev='sdx' bus='scsi'/><readonly/></disk>")
    private_host.virsh("attach-device", vm.name, str(drive), "--config")
    assert hypervisor.take_snapshot(vm.uid, "off").method == "internal"
    hypervisor.ensure_running(vm.uid)
    assert hypervisor.take_snapshot(vm.uid, "on").has_memory
    hypervisor.restore_snapshot(vm.uid, "on")
    assert power(hypervisor, vm) == "running"
    hypervisor.restore_snapshot(vm.uid, "off")
    assert power(hypervisor, vm) == "stopped"


def test_a_disk_that_has_grown_since_stays_as_large(hypervisor: Hypervisor, disks: Disks, vm: DomainPlan) -> None:
    disks.write(root_of(vm), 1)
    before = disks.read(root_of(vm))
    hypervisor.take_snapshot(vm.uid, "small")
    hypervisor.ensure_capacity(root_of(vm), 6 * MIB)
    hypervisor.restore_snapshot(vm.uid, "small")
    assert disks.info(root_of(vm))["virtual-size"] == 6 * MIB
    assert disks.read(root_of(vm)) == before + bytes(2 * MIB)


def test_other_disks_than_then_are_a_conflict(hypervisor: Hypervisor, disks: Disks, vm: DomainPlan) -> None:
    hypervisor.take_snapshot(vm.uid, "one-disk")
    hypervisor.ensure_blank(f"kc-{vm.uid}-data", MIB)
    both = vm._replace(disks=(*vm.disks, DiskPlan("data", f"kc-{vm.uid}-data")))
    hypervisor.ensure_defined(both)
    hypervisor.take_snapshot(vm.uid, "two-disks")
    disks.write(root_of(vm), 3)
    now = disks.read(root_of(vm))
    with pytest.raises(ConflictError, match="-data was added"):
        hypervisor.restore_snapshot(vm.uid, "one-disk")
    hypervisor.ensure_defined(vm)
    with pytest.raises(ConflictError, match="-data was removed"):
        hypervisor.restore_snapshot(vm.uid, "two-disks")
    assert disks.read(root_of(vm)) == now
    hypervisor.restore_snapshot(vm.uid, "one-disk")
    assert disks.read(root_of(vm)) != now


def test_whose_a_vm_is_stays_when_it_is_restored_and_so_does_its_name(hypervisor: Hypervisor, vm: DomainPlan) -> None:
    hypervisor.take_snapshot(vm.uid, "before")
    hypervisor.ensure_defined(vm._replace(version=9, name=f"{vm.name}-renamed"))
    hypervisor.restore_snapshot(vm.uid, "before")
    assert hypervisor.owner_of(vm.uid).version == 9
    assert hypervisor.find_domain(f"{vm.name}-renamed") is not None


def test_another_s_snapshots_are_listed_harmlessly(
    hypervisor: Hypervisor, vm: DomainPlan, private_host: PrivateHost
) -> None:
    name = "evil\x9b2J\u202ename"
    private_host.virsh("snapshot-create-as", vm.name, name)
    private_host.virsh("snapshot-create-as", vm.name, "outside", "--disk-only")
    found = {snapshot.name: snapshot for snapshot in hypervisor.list_snapshots(vm.uid)}
    assert set(found) == {"evil\ufffd2J\ufffdname", "outside"}
    assert found["outside"].method == "external"
    with pytest.raises(RefusedError, match="files of their own"):
        hypervisor.restore_snapshot(vm.uid, "outside")
    hypervisor.ensure_snapshot_gone(vm.uid, "evil\ufffd2J\ufffdname")
    assert [snapshot.name for snapshot in hypervisor.list_snapshots(vm.uid)] == ["outside"]
    private_host.virsh("snapshot-delete", vm.name, "outside", "--metadata")


def test_what_is_not_there_has_no_snapshots(hypervisor: Hypervisor) -> None:
    uid = "00000000-0000-4000-8000-000000000001"
    assert hypervisor.list_snapshots(uid) == []
    hypervisor.ensure_snapshot_gone(uid, "one")
    with pytest.raises(NotFoundError):
        hypervisor.take_snapshot(uid, "one")


def test_a_vm_with_uefi_is_copied_while_it_is_off(hypervisor: Hypervisor, disks: Disks, uefi: DomainPlan) -> None:
    volumes = (root_of(uefi), data_of(uefi))
    for volume in volumes:
        disks.write(volume, 1)
    before = [disks.read(volume) for volume in volumes]
    began = time.time()
    taken = hypervisor.take_snapshot(uefi.uid, "one")
    assert (taken.name, taken.has_memory, taken.method) == ("one", False, "copy")
    assert abs(taken.at - began) < 60
    assert hypervisor.take_snapshot(uefi.uid, "one") == taken
    assert disks.info(f"{root_of(uefi)}.one.snapshot")["backing-filename"].endswith(uefi.disks[0].base_volume)
    assert f"volume {root_of(uefi)}.one.snapshot" in hypervisor.volume_users(uefi.disks[0].base_volume)
    for volume in volumes:
        disks.write(volume, 2)
    hypervisor.take_snapshot(uefi.uid, "two")
    hypervisor.ensure_capacity(root_of(uefi), 5 * MIB)
    hypervisor.restore_snapshot(uefi.uid, "one")
    assert [disks.read(volume) for volume in volumes] == [before[0] + bytes(MIB), before[1]]
    assert hypervisor.list_snapshots(uefi.uid)[0] == taken
    hypervisor.ensure_defined(uefi)
    hypervisor.ensure_running(uefi.uid)
    with pytest.raises(RefusedError, match=r"10\.9") as refused:
        hypervisor.take_snapshot(uefi.uid, "three")
    assert refused.value.hint == f"stop it first: `kc vm stop {uefi.name}`"
    with pytest.raises(ConflictError, match="while it is off"):
        hypervisor.restore_snapshot(uefi.uid, "one")
    hypervisor.ensure_snapshot_gone(uefi.uid, "one")
    assert [snapshot.name for snapshot in hypervisor.list_snapshots(uefi.uid)] == ["two"]
    hypervisor.ensure_snapshot_gone(uefi.uid, "two")
    assert copies_of(hypervisor, uefi) == []


def test_a_copied_snapshot_wants_the_disks_that_it_had(hypervisor: Hypervisor, uefi: DomainPlan) -> None:
    hypervisor.take_snapshot(uefi.uid, "one")
    hypervisor.ensure_defined(uefi._replace(disks=uefi.disks[:1]))
    with pytest.raises(ConflictError, match="other disks then"):
        hypervisor.restore_snapshot(uefi.uid, "one")
    hypervisor.ensure_snapshot_gone(uefi.uid, "one")
    assert copies_of(hypervisor, uefi) == []


@pytest.mark.parametrize("volumes", [1, 2])
def test_a_restore_that_was_killed_is_repeated_and_loses_nothing(
    hypervisor: Hypervisor, disks: Disks, uefi: DomainPlan, private_host: PrivateHost, tmp_path: Path, volumes: int
) -> None:
    for volume in (root_of(uefi), data_of(uefi)):
        disks.write(volume, 1)
    before = [disks.read(volume) for volume in (root_of(uefi), data_of(uefi))]
    taken = hypervisor.take_snapshot(uefi.uid, "one")
    for volume in (root_of(uefi), data_of(uefi)):
        disks.write(volume, 2)
    kill_on_the_way(private_host, tmp_path, uefi, "restore", volumes)
    assert hypervisor.list_snapshots(uefi.uid) == [taken]
    half = (root_of(uefi), data_of(uefi))[volumes - 1]
    assert hypervisor.find_volume(half) is None
    with pytest.raises(ConflictError, match="being written"):
        hypervisor.ensure_blank(half, 4 * MIB)
    hypervisor.restore_snapshot(uefi.uid, "one")
    assert [disks.read(volume) for volume in (root_of(uefi), data_of(uefi))] == before
    assert ".part" not in private_host.virsh("vol-list", "kc")


@pytest.mark.parametrize("volumes", [1, 2])
def test_a_copied_snapshot_that_was_not_finished_is_none(
    hypervisor: Hypervisor, disks: Disks, uefi: DomainPlan, private_host: PrivateHost, tmp_path: Path, volumes: int
) -> None:
    disks.write(root_of(uefi), 1)
    kill_on_the_way(private_host, tmp_path, uefi, "take", volumes)
    assert hypervisor.list_snapshots(uefi.uid) == []
    assert hypervisor.take_snapshot(uefi.uid, "one").method == "copy"
    assert disks.read(f"{root_of(uefi)}.one.snapshot") == disks.read(root_of(uefi))
    kill_on_the_way(private_host, tmp_path, uefi, "restore", 1)
    hypervisor.ensure_snapshot_gone(uefi.uid, "one")
    assert copies_of(hypervisor, uefi) == []


def test_a_raw_disk_is_copied_and_a_disk_elsewhere_is_refused(
    hypervisor: Hypervisor, disks: Disks, make: Callable[..., DomainPlan], private_host: PrivateHost
) -> None:
    plan = make()
    volume = f"kc-{plan.uid}-raw"
    disks.do(f"head -c 1048576 /dev/urandom > {volume}")
    hypervisor.list_volumes()
    plan = plan._replace(disks=(DiskPlan("root", volume, "raw"),))
    hypervisor.ensure_defined(plan)
    before = disks.read(volume, "raw")
    assert hypervisor.take_snapshot(plan.uid, "one").method == "copy"
    disks.write(volume, 3, "0", "64k", "raw")
    hypervisor.restore_snapshot(plan.uid, "one")
    assert disks.read(volume, "raw") == before
    hypervisor.ensure_snapshot_gone(plan.uid, "one")
    disks.do(f"mkdir -p ../else; cp {volume} ../else/disk")
    private_host.virsh("attach-disk", plan.name, "/var/lib/libvirt/images/else/disk", "vdb", "--config")
    with pytest.raises(RefusedError, match="not in KC's pool"):
        hypervisor.take_snapshot(plan.uid, "two")


def test_no_room_for_a_restore_is_said_before_anything_is_touched(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path
) -> None:
    private_host.virsh("pool-define-as", "full", "dir", "--target", "/var/lib/libvirt/small")
    driver = open_hypervisor(private_host.uri, "full", tmp_path)
    driver.ensure_pool()
    uid = "00000000-0000-4000-8000-000000000002"
    volume = f"kc-{uid}-root"
    driver.ensure_blank(volume, 64 * MIB)
    shell = Disks(private_host, tmp_path)
    small = "/var/lib/libvirt/small"
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(3 * MIB))
    shell.do(f"qemu-io -f qcow2 -c 'write -s {noise} 0 3M' {small}/{volume}")
    plan = DomainPlan(
        uid=uid, name="full", version=1, owner="owner", owner_label="tests", metadata="{}", arch="x86_64", cpus=1,
        memory_mib=64, firmware="uefi", accelerator="qemu", disks=(DiskPlan("root", volume),), nics=(), seed="",
        console_log="",
    )  # fmt: skip
    driver.ensure_defined(plan)
    driver.take_snapshot(uid, "one")
    shell.do(f"qemu-img create -q -f qcow2 {small}/{volume} 64M; fallocate -l 3M {small}/filler")
    with pytest.raises(FailedError, match="no room"):
        driver.restore_snapshot(uid, "one")
    assert driver.find_volume(volume) is not None
    shell.do(f"rm {small}/filler")
    driver.restore_snapshot(uid, "one")
    driver.ensure_undefined(uid, "owner")
    driver.close()


def test_a_snapshot_goes_although_one_of_its_disks_or_its_disc_has_gone_before(
    hypervisor: Hypervisor, private_host: PrivateHost, vm: DomainPlan
) -> None:
    hypervisor.ensure_blank(f"kc-{vm.uid}-data", 4 * MIB)
    larger = vm._replace(disks=(*vm.disks, DiskPlan("data", f"kc-{vm.uid}-data")), cdrom=vm.disks[0].base_volume)
    hypervisor.ensure_defined(larger)
    for name in ("one", "two"):
        hypervisor.take_snapshot(vm.uid, name)
    daemon = private_host.virsh("domid", vm.name)
    hypervisor.ensure_defined(vm._replace(cdrom="", disks=larger.disks))
    hypervisor.ensure_snapshot_gone(vm.uid, "two")
    hypervisor.ensure_defined(vm)
    hypervisor.ensure_snapshot_gone(vm.uid, "one")
    assert hypervisor.list_snapshots(vm.uid) == []
    assert private_host.virsh("domid", vm.name) == daemon


def test_a_disk_that_another_tool_has_put_a_file_over_is_not_taken_from_under_it(
    hypervisor: Hypervisor, private_host: PrivateHost, vm: DomainPlan
) -> None:
    private_host.virsh("snapshot-create-as", vm.name, "outside", "--disk-only", "--diskspec", "sda,snapshot=no")
    with pytest.raises(ConflictError, match=r"another tool has put .*outside over its disk"):
        hypervisor.ensure_defined(vm)
    private_host.virsh("snapshot-delete", vm.name, "outside", "--metadata")
    hypervisor.ensure_undefined(vm.uid, vm.owner)
    hypervisor.ensure_defined(vm)
