"""What every hypervisor does with a domain beside changing it: pause, drift, adoption, and its screen."""

from __future__ import annotations

import struct
import uuid

import pytest
from support.hypervisor_rig import GREETING, Rig

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.plan import DiskPlan, DomainPlan, FoundDomain, FoundNic, NicPlan
from backend.service import ConsoleStream

MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")

# --- pause


def test_a_paused_domain_stands_still_until_it_is_started(rig: Rig) -> None:
    plan = rig.running()
    for _ in range(2):
        rig.hypervisor.ensure_paused(plan.uid)
        assert rig.power(plan) == "paused"
    assert not rig.hypervisor.agent_answers(plan.uid)
    with pytest.raises(ConflictError):
        rig.hypervisor.reboot(plan.uid, force=True)
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.power(plan) == "running"
    # It went on, and did not start again.
    assert rig.hypervisor.read_log(plan.console_log, 4096).count(GREETING) == 1


def test_a_paused_domain_hears_the_power_button(rig: Rig) -> None:
    plan = rig.running()
    rig.hypervisor.ensure_paused(plan.uid)
    assert rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=20, force=False)
    assert rig.power(plan) == "stopped"


def test_what_is_off_or_absent_cannot_be_paused(rig: Rig) -> None:
    plan = rig.defined()
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_paused(plan.uid)
    assert rig.power(plan) == "stopped"
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_paused(str(uuid.uuid4()))


# --- drift


def full_plan(rig: Rig) -> DomainPlan:
    """Return the plan of a domain that has something of everything."""
    network = rig.network()
    rig.hypervisor.ensure_network(network)
    return rig.plan(
        cpus=2, max_cpus=4, memory_mib=32, max_memory_mib=64, description="ours <&>", cdrom=rig.disk(),
        disks=(rig.overlay(), DiskPlan("data", rig.blank())),
        nics=(NicPlan("nic0", MACS[0], network.name), NicPlan("nic1", MACS[1], network.name, mtu=1400)),
    )  # fmt: skip


def words(rig: Rig, plan: DomainPlan) -> list[str]:
    return [difference.word for difference in rig.hypervisor.differences(plan)]


def test_a_domain_is_what_its_plan_says_off_and_on_and_after_changes(rig: Rig) -> None:
    plan = full_plan(rig)
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.differences(plan) == ()
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.hypervisor.differences(plan) == ()
    changed = plan._replace(cpus=3, memory_mib=48, cdrom="", nics=plan.nics[:1], description="other")
    assert sorted(words(rig, changed)) == ["cdrom", "cpus", "description", "memory", "nic:nic1"]
    rig.hypervisor.ensure_defined(changed)
    assert rig.hypervisor.differences(changed) == ()


@pytest.mark.parametrize("is_on", [False, True])
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("cpus", ["cpus"]), ("memory", ["memory"]), ("description", ["description"]), ("autostart", ["autostart"]),
        ("nic", ["nic:nic0"]), ("disk", ["disk:data"]), ("on-crash", ["on-crash"]), ("cdrom", ["cdrom"]),
    ],
)  # fmt: skip
def test_what_somebody_else_changed_is_told_and_mended(rig: Rig, word: str, told: list[str], is_on: bool) -> None:
    plan = full_plan(rig)
    rig.hypervisor.ensure_defined(plan)
    if is_on:
        rig.hypervisor.ensure_running(plan.uid)
    rig.meddle(plan, word)
    for _ in range(2):
        found = rig.hypervisor.differences(plan)
        assert [difference.word for difference in found] == told
        assert found[0].wanted != found[0].found
    rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.differences(plan) == ()


def test_a_label_that_was_taken_off_is_told(rig: Rig) -> None:
    plan = rig.defined()
    rig.meddle(plan, "owner")
    assert "owner" in words(rig, plan)
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_defined(plan)


def test_a_domain_that_is_gone_is_told(rig: Rig) -> None:
    plan = rig.defined()
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    (difference,) = rig.hypervisor.differences(plan)
    assert difference.word == "definition"
    assert difference.wanted != difference.found


# --- domains of others


def adopted_plan(rig: Rig, found: FoundDomain) -> DomainPlan:
    """Return the plan that manages a domain as it is."""
    return rig.plan(disks=())._replace(
        uid=found.uid, name=found.name, cpus=found.cpus, memory_mib=found.memory_mib, description=found.description,
        nics=tuple(NicPlan(f"nic{index}", nic.mac, nic.source) for index, nic in enumerate(found.nics)),
        console_log="", adopted=True, arch=found.arch, firmware=found.firmware, autostart=found.autostart,
    )  # fmt: skip


def foreign(rig: Rig) -> FoundDomain:
    """Return a domain of somebody else's that is off, with a NIC."""
    network = rig.network()
    rig.hypervisor.ensure_network(network)
    uid = rig.foreign((FoundNic(MACS[0], "network", network.name, "e1000"),))
    found = rig.hypervisor.find_adoptable(uid)
    assert found is not None
    return found


def test_a_foreign_domain_is_described(rig: Rig) -> None:
    found = foreign(rig)
    assert rig.hypervisor.find_adoptable(found.name) == found
    assert (found.power, found.arch, found.firmware, found.autostart) == ("stopped", "x86_64", "bios", False)
    assert (found.cpus, found.memory_mib, found.description) == (2, 64, "theirs")
    assert [(nic.mac, nic.kind) for nic in found.nics] == [(MACS[0], "network")]
    assert len(found.disks) == 1
    assert any("ich9" in line for line in found.untouched)
    assert found.owner.owner == ""
    assert rig.hypervisor.find_adoptable(f"{rig.prefix}-none") is None
    assert rig.hypervisor.find_adoptable(str(uuid.uuid4())) is None
    own = rig.defined()
    mine = rig.hypervisor.find_adoptable(own.name)
    assert mine is not None
    assert (mine.uid, mine.owner.owner, mine.cpus, mine.memory_mib) == (own.uid, "owner-1", 1, 32)


@pytest.mark.parametrize("is_on", [False, True])
def test_an_adopted_domain_is_labelled_and_else_as_it_was(rig: Rig, is_on: bool) -> None:
    found = foreign(rig)
    plan = adopted_plan(rig, found)
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_defined(plan)
    if is_on:
        rig.hypervisor.ensure_running(found.uid)
    for _ in range(2):
        rig.hypervisor.adopt(found.uid, plan)
    assert rig.hypervisor.owner_of(found.uid).owner == plan.owner
    assert rig.hypervisor.differences(plan) == ()
    assert rig.hypervisor.apply_live(plan) == ()
    rig.hypervisor.ensure_defined(plan)
    now = rig.hypervisor.find_adoptable(found.uid)
    assert now is not None
    power = "running" if is_on else "stopped"
    assert now == found._replace(owner=rig.hypervisor.owner_of(found.uid), power=power)


def test_of_an_adopted_domain_only_what_the_plan_decides_is_changed(rig: Rig) -> None:
    found = foreign(rig)
    plan = adopted_plan(rig, found)
    rig.hypervisor.adopt(found.uid, plan)
    (nic,) = plan.nics
    wanted = plan._replace(
        name=f"{rig.prefix}-ours", cpus=1, memory_mib=32, description="ours", autostart=True, version=4,
        nics=(nic, NicPlan("nic1", MACS[1], nic.network)),
    )  # fmt: skip
    assert sorted(words(rig, wanted)) == ["autostart", "cpus", "description", "memory", "name", "nic:nic1"]
    rig.hypervisor.ensure_defined(wanted)
    assert rig.hypervisor.differences(wanted) == ()
    now = rig.hypervisor.find_adoptable(wanted.name)
    assert now is not None
    assert (now.uid, now.cpus, now.memory_mib, now.description) == (found.uid, 1, 32, "ours")
    assert (now.autostart, now.owner.version, now.disks) == (True, 4, found.disks)
    assert any("ich9" in line for line in now.untouched)
    assert [one.mac for one in now.nics] == list(MACS)
    assert now.nics[0] == found.nics[0]
    rig.hypervisor.ensure_running(found.uid)
    assert rig.hypervisor.apply_live(wanted) == ()


def test_another_kcs_domain_is_not_adopted_nor_disowned(rig: Rig) -> None:
    plan = rig.defined()
    other = plan._replace(owner="owner-2", owner_label="other", adopted=True, disks=())
    with pytest.raises(ConflictError, match="kraut@host:/store"):
        rig.hypervisor.adopt(plan.uid, other)
    with pytest.raises(ConflictError, match="kraut@host:/store"):
        rig.hypervisor.disown(plan.uid, "owner-2")
    assert rig.hypervisor.owner_of(plan.uid).owner == plan.owner
    with pytest.raises(NotFoundError):
        rig.hypervisor.adopt(str(uuid.uuid4()), other)


@pytest.mark.parametrize("is_on", [False, True])
def test_a_domain_that_is_let_go_stays_without_its_label(rig: Rig, is_on: bool) -> None:
    found = foreign(rig)
    rig.hypervisor.adopt(found.uid, adopted_plan(rig, found))
    if is_on:
        rig.hypervisor.ensure_running(found.uid)
    for _ in range(2):
        rig.hypervisor.disown(found.uid, "owner-1")
    assert rig.hypervisor.owner_of(found.uid).owner == ""
    assert rig.hypervisor.find_adoptable(found.uid) == found._replace(power="running" if is_on else "stopped")
    rig.hypervisor.disown(str(uuid.uuid4()), "owner-1")
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_undefined(found.uid, "owner-1")


def test_what_a_foreign_domain_uses_stays(rig: Rig) -> None:
    found = foreign(rig)
    volume = found.disks[0].rpartition("/")[2]
    assert rig.hypervisor.volume_users(volume) == [found.name]
    with pytest.raises(ConflictError, match=found.name):
        rig.hypervisor.ensure_volume_gone(volume)


# --- screens


def read_exactly(stream: ConsoleStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.read(5)
        assert more, f"only {data!r}"
        data += more
    return data


def test_a_screen_speaks_vnc_to_several_viewers_and_ends_with_its_guest(rig: Rig) -> None:
    plan = rig.running()
    viewers = [rig.hypervisor.display(plan.uid) for _ in range(2)]
    for viewer in viewers:
        assert read_exactly(viewer, 12) == b"RFB 003.008\n"
        viewer.write(b"RFB 003.008\n")
    address = rig.hypervisor.display_address(plan.uid)
    assert address.startswith(("vnc+unix:///", "vnc://"))
    viewers[0].close()
    viewers[0].close()
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.wait(lambda: viewers[1].read(0.1) == b"", "the screen ends")
    viewers[1].close()


def test_a_picture_is_taken_of_a_screen_that_is_on(rig: Rig) -> None:
    plan = rig.running()
    rig.hypervisor.ensure_paused(plan.uid)
    for _ in range(2):
        picture = rig.hypervisor.screenshot(plan.uid)
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", picture[16:24])
        assert width > height > 100


def test_what_is_off_or_absent_has_no_screen(rig: Rig) -> None:
    plan = rig.defined()
    for call in (rig.hypervisor.display, rig.hypervisor.screenshot):
        with pytest.raises(ConflictError):
            call(plan.uid)
        with pytest.raises(NotFoundError):
            call(str(uuid.uuid4()))
    assert rig.hypervisor.display_address(plan.uid) == ""
