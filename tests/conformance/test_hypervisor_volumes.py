"""What every hypervisor does with volumes that are a VM's own: made empty, grown, copied."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO

import pytest
from support.hypervisor_rig import MIB, Rig

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.plan import DiskPlan


def test_an_empty_volume_is_made_once(rig: Rig) -> None:
    made = rig.hypervisor.ensure_blank("kc-b", 8 * MIB)
    assert (made.name, made.format, made.capacity_bytes, made.whole) == ("kc-b", "qcow2", 8 * MIB, True)
    assert made.allocation_bytes < MIB
    again = rig.hypervisor.ensure_blank("kc-b", 16 * MIB)
    assert again.capacity_bytes == 8 * MIB
    assert rig.hypervisor.volume_users("kc-b") == []
    rig.hypervisor.ensure_volume_gone("kc-b")
    assert rig.hypervisor.find_volume("kc-b") is None


def test_volumes_grow_and_never_shrink(rig: Rig) -> None:
    for name in (rig.blank(8 * MIB), rig.overlay(8 * MIB).volume):
        for asked, has in ((16 * MIB, 16 * MIB), (16 * MIB, 16 * MIB), (4 * MIB, 16 * MIB)):
            assert rig.hypervisor.ensure_capacity(name, asked).capacity_bytes == has
            found = rig.hypervisor.find_volume(name)
            assert found is not None
            assert found.capacity_bytes == has
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_capacity("kc-none", MIB)


def test_a_volume_grows_below_a_domain_only_while_it_is_off(rig: Rig) -> None:
    root = rig.overlay(8 * MIB)
    plan = rig.running(disks=(root,))
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_capacity(root.volume, 16 * MIB)
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    assert rig.hypervisor.ensure_capacity(root.volume, 16 * MIB).capacity_bytes == 16 * MIB
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.hypervisor.apply_live(plan) == ()


def test_a_copy_has_the_bytes_of_its_source(rig: Rig) -> None:
    content = os.urandom(512 * 600)
    rig.hypervisor.upload("kc-a", BytesIO(content), len(content))
    done: list[tuple[int, int]] = []
    copy = rig.hypervisor.ensure_copy("kc-c", "kc-a", report=lambda *progress: done.append(progress))
    assert (copy.name, copy.format, copy.capacity_bytes, copy.whole) == ("kc-c", "raw", len(content), True)
    assert rig.hypervisor.read_volume("kc-c") == content
    assert done == sorted(done)
    assert done[-1][0] == done[-1][1] > 0
    rig.hypervisor.upload("kc-a", BytesIO(b"other"), 5)
    assert rig.hypervisor.ensure_copy("kc-c", "kc-a") == copy
    assert rig.hypervisor.read_volume("kc-c") == content


def test_a_copy_of_an_overlay_has_the_same_volume_below_it(rig: Rig) -> None:
    root = rig.overlay(8 * MIB)
    rig.write(root.volume, 7)
    copy = rig.hypervisor.ensure_copy("kc-c", root.volume)
    assert (copy.format, copy.capacity_bytes) == ("qcow2", 8 * MIB)
    assert rig.holds("kc-c", 7)
    assert sorted(rig.hypervisor.volume_users(root.base_volume)) == sorted(["volume kc-c", f"volume {root.volume}"])
    # It is a volume of its own.
    rig.write(root.volume, 8)
    assert rig.holds("kc-c", 7)
    plan = rig.running(disks=(root._replace(volume="kc-c"),))
    assert rig.hypervisor.volume_users("kc-c") == [plan.name]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_disk_of_a_domain_that_runs_is_copied_under_it(rig: Rig, kind: str) -> None:
    disk = DiskPlan("root", rig.disk(), "raw") if kind == "raw" else rig.overlay(8 * MIB)
    if kind == "qcow2":
        rig.write(disk.volume, 7)
    plan = rig.running(disks=(disk, DiskPlan("data", rig.blank())))
    for name, source in (("kc-c", disk.volume), ("kc-d", plan.disks[1].volume)):
        done: list[tuple[int, int]] = []
        copy = rig.hypervisor.ensure_copy(name, source, report=lambda *progress, done=done: done.append(progress))
        assert copy.whole
        assert done[-1][0] == done[-1][1]
    assert rig.power(plan) == "running"
    assert rig.hypervisor.apply_live(plan) == ()
    if kind == "qcow2":
        assert rig.holds("kc-c", 7)
    else:
        assert rig.hypervisor.read_volume("kc-c") == rig.hypervisor.read_volume(disk.volume)
    assert rig.hypervisor.volume_users("kc-c") == []
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    clone = rig.running("clone", disks=(disk._replace(volume="kc-c"),))
    assert rig.power(clone) == "running"


@pytest.mark.parametrize("is_on", [False, True])
def test_a_copy_that_is_given_up_leaves_nothing(rig: Rig, is_on: bool) -> None:
    root = rig.overlay(8 * MIB)
    rig.write(root.volume, 7)
    plan = rig.running(disks=(root,)) if is_on else rig.defined(disks=(root,))
    before = [volume.name for volume in rig.hypervisor.list_volumes()]
    with pytest.raises(KeyboardInterrupt):
        rig.hypervisor.ensure_copy("kc-c", root.volume, report=give_up())
    assert [volume.name for volume in rig.hypervisor.list_volumes()] == before
    assert rig.hypervisor.ensure_copy("kc-c", root.volume).whole
    assert rig.power(plan) == ("running" if is_on else "stopped")


def give_up() -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        raise KeyboardInterrupt(done, total)

    return report


def test_a_copy_of_what_is_not_there_is_not_made(rig: Rig) -> None:
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_copy("kc-c", "kc-none")
    assert rig.hypervisor.list_volumes() == []
