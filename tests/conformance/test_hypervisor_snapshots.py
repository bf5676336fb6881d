"""What every hypervisor does with snapshots: in the disks with the guest's memory, or as copies beside them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from support.hypervisor_rig import GREETING, MIB, Rig, read_until

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.hypervisor.plan import DiskPlan, DomainPlan


def planned(rig: Rig, **changes: Any) -> DomainPlan:
    """Define a domain whose two disks can have snapshots."""
    uid = str(uuid.uuid4())
    disks = (rig.overlay(8 * MIB, uid), DiskPlan("data", rig.blank(8 * MIB, uid)))
    plan = rig.defined(uid=uid, disks=disks, console_log=f"kc-{uid}-console.log", **changes)
    for disk in plan.disks:
        rig.write(disk.volume, 1)
    return plan


def hold(rig: Rig, plan: DomainPlan, byte: int) -> bool:
    return all(rig.holds(disk.volume, byte) for disk in plan.disks)


@pytest.mark.parametrize(("firmware", "method"), [("bios", "internal"), ("uefi", "copy")])
def test_disks_come_back_to_what_they_were(rig: Rig, firmware: str, method: str) -> None:
    plan = planned(rig, firmware=firmware)
    taken = rig.hypervisor.take_snapshot(plan.uid, "first", "before the change")
    assert (taken.name, taken.has_memory, taken.method) == ("first", False, method)
    assert taken.at > 1_600_000_000
    assert rig.hypervisor.take_snapshot(plan.uid, "first") == taken
    for disk in plan.disks:
        rig.write(disk.volume, 2)
    second = rig.hypervisor.take_snapshot(plan.uid, "second")
    assert rig.hypervisor.list_snapshots(plan.uid) == [taken, second]
    for name, byte in (("first", 1), ("first", 1), ("second", 2)):
        rig.hypervisor.restore_snapshot(plan.uid, name)
        assert hold(rig, plan, byte)
        assert rig.power(plan) == "stopped"
    assert rig.hypervisor.list_snapshots(plan.uid) == [taken, second]
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.differences(plan) == ()
    for _ in range(2):
        rig.hypervisor.ensure_snapshot_gone(plan.uid, "first")
    assert rig.hypervisor.list_snapshots(plan.uid) == [second]
    with pytest.raises(NotFoundError):
        rig.hypervisor.restore_snapshot(plan.uid, "first")
    assert hold(rig, plan, 2)


def test_raw_disks_are_copied_while_their_domain_is_off(rig: Rig) -> None:
    plan = rig.defined()
    assert rig.hypervisor.take_snapshot(plan.uid, "off").method == "copy"
    rig.hypervisor.ensure_running(plan.uid)
    with pytest.raises(RefusedError):
        rig.hypervisor.take_snapshot(plan.uid, "on")
    assert [snapshot.name for snapshot in rig.hypervisor.list_snapshots(plan.uid)] == ["off"]


def capacities(rig: Rig, plan: DomainPlan) -> list[int]:
    volumes = [rig.hypervisor.find_volume(disk.volume) for disk in plan.disks]
    return [volume.capacity_bytes for volume in volumes if volume is not None]


def test_a_disk_that_has_grown_stays_as_large(rig: Rig) -> None:
    plan = planned(rig)
    rig.hypervisor.take_snapshot(plan.uid, "small")
    for disk in plan.disks:
        rig.hypervisor.ensure_capacity(disk.volume, 16 * MIB)
    rig.hypervisor.restore_snapshot(plan.uid, "small")
    assert capacities(rig, plan) == [16 * MIB] * 2


def test_a_disk_is_as_large_as_the_memory_of_its_guest_says(rig: Rig) -> None:
    plan = planned(rig)
    rig.hypervisor.ensure_running(plan.uid)
    rig.hypervisor.take_snapshot(plan.uid, "small")
    grown = plan._replace(disks=tuple(disk._replace(capacity_bytes=16 * MIB) for disk in plan.disks))
    assert rig.hypervisor.apply_live(grown) == ()
    assert capacities(rig, plan) == [16 * MIB] * 2
    rig.hypervisor.restore_snapshot(plan.uid, "small")
    assert capacities(rig, plan) == [8 * MIB] * 2


def test_the_label_of_a_domain_outlives_its_snapshots(rig: Rig) -> None:
    plan = planned(rig, cpus=1)
    rig.hypervisor.take_snapshot(plan.uid, "first")
    changed = plan._replace(version=4, cpus=2, metadata='{"tenant":"other"}', description="later", autostart=True)
    rig.hypervisor.ensure_defined(changed)
    rig.hypervisor.restore_snapshot(plan.uid, "first")
    assert rig.hypervisor.owner_of(plan.uid).version == 4
    # The rest of the definition is what it was.
    assert [difference.word for difference in rig.hypervisor.differences(changed)] == ["cpus", "description"]


def test_a_guest_comes_back_with_its_memory(rig: Rig) -> None:
    plan = planned(rig)
    rig.hypervisor.ensure_running(plan.uid)
    rig.wait(lambda: GREETING in rig.hypervisor.read_log(plan.console_log, 4096), "the guest is up")
    taken = rig.hypervisor.take_snapshot(plan.uid, "on")
    assert (taken.has_memory, taken.method, rig.power(plan)) == (True, "internal", "running")
    rig.hypervisor.restore_snapshot(plan.uid, "on")
    assert rig.power(plan) == "running"
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    for _ in range(2):
        rig.hypervisor.restore_snapshot(plan.uid, "on")
        assert rig.power(plan) == "running"
    # It goes on, and has not started again.
    console = rig.hypervisor.console(plan.uid)
    console.write(b"still here")
    read_until(console, b"still here")
    console.close()
    assert rig.hypervisor.read_log(plan.console_log, 4096).count(GREETING) == 1
    assert rig.hypervisor.apply_live(plan) == ()


def test_a_guest_that_stood_still_stands_still_again(rig: Rig) -> None:
    plan = planned(rig)
    rig.hypervisor.ensure_running(plan.uid)
    rig.hypervisor.ensure_paused(plan.uid)
    assert rig.hypervisor.take_snapshot(plan.uid, "paused").has_memory
    assert rig.power(plan) == "paused"
    rig.hypervisor.ensure_running(plan.uid)
    rig.hypervisor.restore_snapshot(plan.uid, "paused")
    assert rig.power(plan) == "paused"


def test_a_domain_is_off_after_a_snapshot_without_memory(rig: Rig) -> None:
    plan = planned(rig)
    rig.hypervisor.take_snapshot(plan.uid, "off")
    rig.hypervisor.ensure_running(plan.uid)
    rig.hypervisor.restore_snapshot(plan.uid, "off")
    assert rig.power(plan) == "stopped"
    assert hold(rig, plan, 1)


def test_a_domain_with_uefi_is_copied_only_while_it_is_off(rig: Rig) -> None:
    plan = planned(rig, firmware="uefi", memory_mib=128)
    rig.hypervisor.take_snapshot(plan.uid, "off")
    rig.hypervisor.ensure_running(plan.uid)
    with pytest.raises(RefusedError):
        rig.hypervisor.take_snapshot(plan.uid, "on")
    with pytest.raises(ConflictError):
        rig.hypervisor.restore_snapshot(plan.uid, "off")
    assert [snapshot.name for snapshot in rig.hypervisor.list_snapshots(plan.uid)] == ["off"]
    assert rig.power(plan) == "running"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_snapshot_of_other_disks_is_not_restored(rig: Rig, firmware: str) -> None:
    plan = planned(rig, firmware=firmware)
    rig.hypervisor.take_snapshot(plan.uid, "both")
    fewer = plan._replace(disks=plan.disks[:1])
    rig.hypervisor.ensure_defined(fewer)
    rig.write(plan.disks[0].volume, 2)
    with pytest.raises(ConflictError):
        rig.hypervisor.restore_snapshot(plan.uid, "both")
    assert rig.holds(plan.disks[0].volume, 2)
    rig.hypervisor.ensure_defined(plan)
    rig.hypervisor.restore_snapshot(plan.uid, "both")
    assert hold(rig, plan, 1)


def test_a_domain_with_snapshots_is_renamed_and_removed(rig: Rig) -> None:
    plan = planned(rig)
    taken = rig.hypervisor.take_snapshot(plan.uid, "first")
    renamed = plan._replace(name=f"{rig.prefix}-renamed")
    rig.hypervisor.ensure_defined(renamed)
    assert rig.hypervisor.list_snapshots(plan.uid) == [taken]
    rig.hypervisor.restore_snapshot(plan.uid, "first")
    assert rig.hypervisor.find_domain(renamed.name) is not None
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    assert rig.hypervisor.list_snapshots(plan.uid) == []
    assert rig.hypervisor.observe(plan.uid) is None


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_nothing_is_left_of_a_snapshot_that_is_removed(rig: Rig, firmware: str) -> None:
    plan = planned(rig, firmware=firmware)
    before = [volume.name for volume in rig.hypervisor.list_volumes()]
    rig.hypervisor.take_snapshot(plan.uid, "first")
    rig.hypervisor.ensure_snapshot_gone(plan.uid, "first")
    assert [volume.name for volume in rig.hypervisor.list_volumes()] == before
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    for disk in plan.disks:
        rig.hypervisor.ensure_volume_gone(disk.volume)
    assert rig.hypervisor.find_volume(plan.disks[0].volume) is None


def test_what_is_absent_has_no_snapshots(rig: Rig) -> None:
    uid = str(uuid.uuid4())
    assert rig.hypervisor.list_snapshots(uid) == []
    rig.hypervisor.ensure_snapshot_gone(uid, "none")
    for call in (rig.hypervisor.take_snapshot, rig.hypervisor.restore_snapshot):
        with pytest.raises(NotFoundError):
            call(uid, "none")
    plan = rig.defined()
    with pytest.raises(NotFoundError):
        rig.hypervisor.restore_snapshot(plan.uid, "none")
    rig.hypervisor.ensure_snapshot_gone(plan.uid, "none")
