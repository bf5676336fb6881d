"""What every hypervisor does to a domain that is on: CPUs, memory, NICs, disks and discs come and go."""

from __future__ import annotations

import uuid

import pytest
from support.hypervisor_rig import MIB, Rig

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.network.plan import Side


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guest of these tests ever lets go of what it holds."""
    monkeypatch.setattr("backend.hypervisor.live.UNPLUG_SECONDS", 1.0)


def test_what_is_off_or_absent_is_not_changed_live(rig: Rig) -> None:
    plan = rig.defined()
    assert rig.hypervisor.apply_live(plan._replace(cpus=2)) == ()
    assert rig.hypervisor.apply_live(plan._replace(uid=str(uuid.uuid4()))) == ()
    assert rig.power(plan) == "stopped"


def test_what_a_running_domain_cannot_have_waits_for_its_next_start(rig: Rig) -> None:
    plan = rig.running()
    assert rig.hypervisor.apply_live(plan) == ()
    wanted = plan._replace(cpus=2, memory_mib=48, firmware="uefi", name=f"{rig.prefix}-new", version=4)
    rig.hypervisor.ensure_defined(wanted)
    sample = rig.sample(plan)
    assert (sample.cpus, sample.memory_bytes, rig.power(plan)) == (1, 32 << 20, "running")
    for _ in range(2):
        assert rig.hypervisor.apply_live(wanted) == ("cpus", "memory", "firmware", "name")
    assert rig.hypervisor.owner_of(plan.uid).version == 4
    assert rig.hypervisor.find_domain(plan.name) is not None
    # Back to what runs: nothing waits.
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.apply_live(plan) == ()


def test_secure_boot_waits_for_the_next_start(rig: Rig) -> None:
    plan = rig.defined(firmware="uefi", memory_mib=128)
    rig.hypervisor.ensure_running(plan.uid)
    wanted = plan._replace(secure_boot=True)
    rig.hypervisor.ensure_defined(wanted)
    assert rig.hypervisor.apply_live(wanted) == ("firmware",)
    assert rig.hypervisor.differences(wanted) == ()


def test_a_restart_gives_a_domain_its_whole_plan(rig: Rig) -> None:
    plan = rig.running()
    wanted = plan._replace(cpus=2, memory_mib=48, name=f"{rig.prefix}-new")
    rig.hypervisor.ensure_defined(wanted)
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=20, force=True)
    rig.hypervisor.ensure_defined(wanted)
    rig.hypervisor.ensure_running(plan.uid)
    sample = rig.sample(wanted)
    assert (sample.cpus, sample.memory_bytes) == (2, 48 << 20)
    assert rig.hypervisor.find_domain(wanted.name) is not None
    assert rig.hypervisor.apply_live(wanted) == ()


def test_nics_come_to_a_running_domain_and_move(rig: Rig) -> None:
    first, second = rig.network(), rig.network("second", ipv4=Side())
    for network in (first, second):
        rig.hypervisor.ensure_network(network)
    plan = rig.running()
    wanted = plan
    for step in (
        (NicPlan("nic0", "52:54:00:00:00:01", first.name),),
        (NicPlan("nic0", "52:54:00:00:00:01", first.name), NicPlan("nic1", "52:54:00:00:00:02", first.name)),
        (NicPlan("nic0", "52:54:00:00:00:01", second.name), NicPlan("nic1", "52:54:00:00:00:02", first.name)),
    ):
        wanted = plan._replace(nics=step)
        rig.hypervisor.ensure_defined(wanted)
        assert rig.hypervisor.apply_live(wanted) == ()
        assert rig.hypervisor.apply_live(wanted) == ()
    for network in (first, second):
        with pytest.raises(ConflictError, match=plan.name):
            rig.hypervisor.ensure_network_gone(network)
    assert rig.hypervisor.would_cut(second._replace(mtu=1400)) == (plan.name,)
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.hypervisor.apply_live(wanted) == ()


def test_a_nic_that_its_guest_holds_waits_and_is_gone_after_a_restart(rig: Rig) -> None:
    network = rig.network()
    rig.hypervisor.ensure_network(network)
    plan = rig.deaf()
    with_nic = plan._replace(nics=(NicPlan("wan", "52:54:00:00:00:01", network.name),))
    rig.hypervisor.ensure_defined(with_nic)
    assert rig.hypervisor.apply_live(with_nic) == ()
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.apply_live(plan) == ("nic:wan",)
    assert rig.hypervisor.apply_live(plan) == ("nic:wan",)
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.hypervisor.apply_live(plan) == ()
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.hypervisor.ensure_network_gone(network)


def test_a_nic_on_a_network_that_is_not_there_is_not_found(rig: Rig) -> None:
    plan = rig.running()
    with pytest.raises(NotFoundError):
        rig.hypervisor.apply_live(plan._replace(nics=(NicPlan("nic0", "52:54:00:00:00:01", f"{rig.prefix}-none"),)))
    assert rig.power(plan) == "running"
    assert rig.hypervisor.apply_live(plan) == ()


def test_another_owners_running_domain_is_not_changed(rig: Rig) -> None:
    plan = rig.running()
    with pytest.raises(ConflictError, match="kraut@host:/store"):
        rig.hypervisor.apply_live(plan._replace(owner="owner-2", version=9))
    assert rig.hypervisor.owner_of(plan.uid).version == 3


def test_cpus_come_to_a_running_domain_within_its_headroom(rig: Rig) -> None:
    plan = rig.running(max_cpus=3)
    assert rig.sample(plan).cpus == 1
    wanted = plan._replace(cpus=2)
    rig.hypervisor.ensure_defined(wanted)
    assert rig.hypervisor.apply_live(wanted) == ()
    assert rig.sample(plan).cpus == 2
    # More than it was started with: as near as can be, and the rest waits.
    more = plan._replace(cpus=4, max_cpus=4)
    rig.hypervisor.ensure_defined(more)
    assert rig.hypervisor.apply_live(more) == ("cpus",)
    assert rig.sample(plan).cpus == 3
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.sample(plan).cpus == 4
    assert rig.hypervisor.apply_live(more) == ()


def test_cpus_that_a_guest_holds_wait(rig: Rig) -> None:
    plan = rig.deaf(cpus=2, max_cpus=3)
    fewer = plan._replace(cpus=1)
    rig.hypervisor.ensure_defined(fewer)
    assert rig.hypervisor.apply_live(fewer) == ("cpus",)
    assert rig.sample(plan).cpus == 2
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.apply_live(plan) == ()


def test_memory_beyond_the_headroom_waits(rig: Rig) -> None:
    plan = rig.deaf(memory_mib=32)
    more = plan._replace(memory_mib=96, max_memory_mib=128)
    rig.hypervisor.ensure_defined(more)
    assert rig.hypervisor.apply_live(more) == ("memory",)
    assert rig.sample(plan).memory_bytes == 32 * MIB
    fewer = plan._replace(memory_mib=24)
    rig.hypervisor.ensure_defined(fewer)
    assert rig.hypervisor.apply_live(fewer) == ("memory",)
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.apply_live(plan) == ()


def test_memory_within_the_headroom_waits_for_no_start(rig: Rig) -> None:
    plan = rig.deaf(memory_mib=32, max_memory_mib=128)
    more = plan._replace(memory_mib=96)
    rig.hypervisor.ensure_defined(more)
    for _ in range(2):
        assert rig.hypervisor.apply_live(more) == ()
    assert rig.hypervisor.differences(more) == ()


def test_a_disk_comes_to_a_running_domain_and_waits_where_its_guest_holds_it(rig: Rig) -> None:
    plan = rig.deaf()
    data = DiskPlan("data", rig.blank())
    more = plan._replace(disks=(*plan.disks, data))
    rig.hypervisor.ensure_defined(more)
    for _ in range(2):
        assert rig.hypervisor.apply_live(more) == ()
    with pytest.raises(ConflictError, match=plan.name):
        rig.hypervisor.ensure_volume_gone(data.volume)
    rig.hypervisor.ensure_defined(plan)
    for _ in range(2):
        assert rig.hypervisor.apply_live(plan) == ("disk:data",)
    # The guest still has it.
    with pytest.raises(ConflictError, match=plan.name):
        rig.hypervisor.ensure_volume_gone(data.volume)
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.hypervisor.apply_live(plan) == ()
    rig.hypervisor.ensure_volume_gone(data.volume)
    assert rig.hypervisor.find_volume(data.volume) is None


def test_a_disk_whose_volume_is_not_there_is_not_found(rig: Rig) -> None:
    plan = rig.running()
    with pytest.raises(NotFoundError):
        rig.hypervisor.apply_live(plan._replace(disks=(*plan.disks, DiskPlan("data", "kc-none"))))
    assert rig.hypervisor.apply_live(plan) == ()


def test_the_first_disk_waits(rig: Rig) -> None:
    plan = rig.running()
    other = plan._replace(disks=(DiskPlan("root", rig.disk(), "raw"),))
    rig.hypervisor.ensure_defined(other)
    assert rig.hypervisor.apply_live(other) == ("disk:root",)
    with pytest.raises(ConflictError, match=plan.name):
        rig.hypervisor.ensure_volume_gone(plan.disks[0].volume)


def test_disks_grow_under_a_running_domain_and_never_shrink(rig: Rig) -> None:
    root, data = rig.overlay(8 * MIB), DiskPlan("data", rig.blank(8 * MIB))
    plan = rig.running(disks=(root, data))
    grown = plan._replace(disks=tuple(disk._replace(capacity_bytes=16 * MIB) for disk in plan.disks))
    rig.hypervisor.ensure_defined(grown)
    for _ in range(2):
        assert rig.hypervisor.apply_live(grown) == ()
    assert capacities(rig, plan) == [16 * MIB] * 2
    smaller = plan._replace(disks=tuple(disk._replace(capacity_bytes=8 * MIB) for disk in plan.disks))
    rig.hypervisor.ensure_defined(smaller)
    rig.hypervisor.apply_live(smaller)
    assert capacities(rig, plan) == [16 * MIB] * 2


def capacities(rig: Rig, plan: DomainPlan) -> list[int]:
    volumes = [rig.hypervisor.find_volume(disk.volume) for disk in plan.disks]
    return [volume.capacity_bytes for volume in volumes if volume is not None]


def test_a_disc_is_put_into_the_drive_of_a_running_domain_and_taken_out(rig: Rig) -> None:
    plan = rig.running()
    discs = [rig.disk(), rig.disk()]
    for disc in discs:
        with_disc = plan._replace(cdrom=disc)
        rig.hypervisor.ensure_defined(with_disc)
        for _ in range(2):
            assert rig.hypervisor.apply_live(with_disc) == ()
        assert rig.hypervisor.volume_users(disc) == [plan.name]
    assert rig.hypervisor.volume_users(discs[0]) == []
    with pytest.raises(ConflictError, match=plan.name):
        rig.hypervisor.ensure_volume_gone(discs[1])
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.apply_live(plan) == ()
    rig.hypervisor.ensure_volume_gone(discs[1])


def test_a_disc_is_there_after_a_start_too(rig: Rig) -> None:
    plan = rig.running(cdrom=rig.disk())
    assert rig.hypervisor.apply_live(plan) == ()
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_defined(plan._replace(cdrom="kc-none"))
