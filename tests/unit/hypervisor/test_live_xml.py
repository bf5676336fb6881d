"""What a running domain is, how it differs from a plan, and where its devices stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.hypervisor.domain_xml import Place, Placement, Source, build_domain
from backend.hypervisor.live_devices_xml import add_disk, change_disc, isolate_nic, move_nic, read_nic
from backend.hypervisor.live_xml import (
    choose_places,
    find_differences,
    find_missing_disks,
    find_place,
    find_small_disks,
    find_surplus_disks,
    find_surplus_nics,
    read_live,
    read_places,
)
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.xml import attribute, parse

LIVE = """
<domain type='qemu' id='1'><name>web</name>
  <memory unit='KiB'>2097152</memory><currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  <vcpus><vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='yes' hotpluggable='yes'/>
    <vcpu id='2' enabled='no' hotpluggable='yes'/><vcpu id='3' enabled='no' hotpluggable='yes'/></vcpus>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader></os>
  <devices>
    <disk type='file' device='disk'><source file='/pool/root' index='1'/><target dev='vda'/><boot order='1'/>
      <alias name='ua-disk-root'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>
    <disk type='file' device='disk'><source file='/pool/data' index='2'/><target dev='vdc'/><alias name='ua-disk-data'/>
      <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></disk>
    <disk type='file' device='cdrom'><driver name='qemu'/><target dev='sdb'/><readonly/><alias name='ua-cdrom'/></disk>
    <disk type='file' device='cdrom'><source file='/pool/seed'/><target dev='sda'/><alias name='scsi0-0-0-0'/></disk>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='pci' index='1' model='pcie-root-port'><address type='pci' bus='0x00' slot='0x02'/></controller>
    <controller type='pci' index='4' model='pcie-root-port'><address type='pci' bus='0x00' slot='0x02'/></controller>
    <controller type='pci' index='5' model='pcie-root-port'><address type='pci' bus='0x00' slot='0x02'/></controller>
    <interface type='network'><mac address='52:54:00:00:00:0A'/><source network='net' portid='x' bridge='virbr3'/>
      <target dev='vnet1'/><mtu size='1400'/><alias name='ua-nic0'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:0b'/><source bridge='br0'/><link state='down'/>
      <alias name='net1'/></interface>
    <interface type='user'><mac address='52:54:00:00:00:0c'/><alias name='ua-u'/></interface>
    <memballoon model='virtio'/>
  </devices></domain>
"""
NICS = (
    NicPlan("nic0", "52:54:00:00:00:0a", "net", mtu=1400),
    NicPlan("lan", "52:54:00:00:00:0b", bridge="br0"),
    NicPlan("u", "52:54:00:00:00:0c", mtu=1400),
)
ROOT, DATA = DiskPlan("root", "root"), DiskPlan("data", "data")
PLAN = DomainPlan(
    uid="4cac02f2-4624-4a25-baba-ad7227406426", name="web", version=1, owner="o", owner_label="", metadata="{}",
    arch="x86_64", cpus=2, memory_mib=1024, firmware="uefi", accelerator="qemu",
    disks=(ROOT, DATA), nics=NICS, seed="", console_log="", max_cpus=4,
)  # fmt: skip


def place(plan: DomainPlan) -> Placement:
    disc = Source(f"/pool/{plan.cdrom}", "raw") if plan.cdrom else None
    return Placement(tuple((Source(f"/pool/{disk.volume}", disk.format),) for disk in plan.disks), None, "", disc)


def differences(xml: str = LIVE, **changes: Any) -> list[str]:
    plan = PLAN._replace(**changes)
    return list(find_differences(read_live(xml), plan, place(plan)))


def test_a_running_domain_is_read() -> None:
    live = read_live(LIVE)
    assert (live.cpus, live.maximum_cpus, live.memory_mib, live.maximum_memory_mib) == (2, 4, 1024, 2048)
    assert read_live(LIVE.replace("type='qemu'", "type='kvm'")).minimum_cpus == 1
    assert (live.minimum_cpus, live.has_balloon, live.name, live.firmware) == (2, True, "web", "uefi")
    assert [(disk.id, disk.path, disk.target, disk.is_boot) for disk in live.disks] == [
        ("root", "/pool/root", "vda", True), ("data", "/pool/data", "vdc", False),
    ]  # fmt: skip
    assert live.cdrom is not None
    assert live.cdrom.path == ""
    assert live.targets == {"vda", "vdc", "sda", "sdb"}
    assert [(nic.kind, nic.source, nic.mtu, nic.is_up, nic.id) for nic in live.nics] == [
        ("network", "net", 1400, True, "nic0"), ("bridge", "br0", 0, False, "net1"), ("user", "", 0, True, "u"),
    ]  # fmt: skip


UP = LIVE.replace("<link state='down'/>", "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"max_cpus": 8, "description": "x", "metadata": "[]", "version": 9, "accelerator": "kvm"}, []),
        ({"cpus": 3, "memory_mib": 512, "firmware": "bios", "name": "new"}, ["cpus", "memory", "firmware", "name"]),
        ({"nics": NICS[1:]}, ["nic:nic0"]),
        ({"nics": (*NICS, NicPlan("more", "52:54:00:00:00:0d", "net"))}, ["nic:more"]),
        ({"nics": (NICS[0]._replace(mtu=0), *NICS[1:])}, ["nic:nic0"]),
        ({"nics": (NICS[0]._replace(network="other"), *NICS[1:])}, ["nic:nic0"]),
        ({"nics": (NICS[0]._replace(mac="52:54:00:00:00:0f"), *NICS[1:])}, ["nic:nic0"]),
        ({"disks": (DiskPlan("root", "other"), DATA)}, ["disk:root"]),
        ({"disks": (ROOT, DATA, DiskPlan("more", "more"))}, ["disk:more"]),
        ({"disks": (ROOT,)}, ["disk:data"]),
        ({"disks": ()}, ["disk:root", "disk:data"]),
        ({"disks": (ROOT, DATA._replace(capacity_bytes=9 << 30))}, []),
        ({"cdrom": "disc.iso"}, ["cdrom"]),
        ({"adopted": True, "disks": (), "cdrom": "x", "firmware": "bios", "cpus": 3, "name": "new"}, ["cpus", "name"]),
        ({"adopted": True, "disks": (), "nics": (NICS[0]._replace(mtu=0), *NICS[1:2])}, []),
        ({"adopted": True, "disks": (), "nics": NICS[1:]}, ["nic:nic0"]),
        # A domain of an earlier definition keeps its tap, and has nothing to wait for.
        ({"nics": (NICS[0]._replace(tap="kt0123456789"), *NICS[1:])}, []),
        ({"nics": (NICS[0]._replace(isolated=True), *NICS[1:])}, ["nic:nic0"]),
        ({"nics": (*NICS[:2], NICS[2]._replace(isolated=True))}, []),
        ({"adopted": True, "disks": (), "nics": (NICS[0]._replace(isolated=True), *NICS[1:])}, ["nic:nic0"]),
    ],
)
def test_what_differs_is_named_once_and_nothing_else_is(changes: dict[str, Any], words: list[str]) -> None:
    assert differences(UP, **changes) == words


def test_a_nic_that_is_isolated_differs_unless_it_was_so_when_its_domain_was_adopted() -> None:
    isolated = UP.replace("<target dev='vnet1'/>", "<port isolated='yes'/><target dev='vnet1'/>")
    assert differences(isolated) == ["nic:nic0"]
    assert differences(isolated, nics=(NICS[0]._replace(isolated=True), *NICS[1:])) == []
    assert differences(isolated, adopted=True, disks=()) == []


def test_a_nic_moves_and_is_isolated_with_all_else_as_it_was() -> None:
    found = read_live(UP).nics[0]
    alone = parse(isolate_nic(found, isolated=True))
    moved = parse(move_nic(found, NICS[0]._replace(network="other", isolated=True, tap="kt0123456789"), is_up=True))
    for changed in (alone, moved):
        assert [port.get("isolated") for port in changed.findall("port")] == ["yes"]
        # What runs keeps its tap.
        assert attribute(changed, "target", "dev") == "vnet1"
        assert attribute(changed, "address", "bus") == "0x01"
    assert parse(isolate_nic(read_nic(alone), isolated=False)).find("port") is None
    assert parse(move_nic(read_nic(alone), NICS[0], is_up=True)).find("port") is None


def test_a_line_that_is_down_is_a_difference() -> None:
    assert differences() == ["nic:lan"]


def test_what_was_built_differs_in_nothing_from_its_plan() -> None:
    assert list(find_differences(read_live(build_domain(PLAN, place(PLAN))), PLAN, place(PLAN))) == []


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_what_was_built_has_the_firmware_of_its_plan(arch: str, firmware: str) -> None:
    plan = PLAN._replace(arch=arch, firmware=firmware, max_cpus=0)
    assert "firmware" not in differences(build_domain(plan, place(plan)), arch=arch, firmware=firmware)


def test_secure_boot_is_another_firmware() -> None:
    plan = PLAN._replace(secure_boot=True)
    built = build_domain(plan, place(plan))
    assert "firmware" not in differences(built, secure_boot=True)
    assert "firmware" in differences(built)
    assert "firmware" in differences(secure_boot=True)


def test_a_disk_is_small_only_where_it_was_measured() -> None:
    plan = PLAN._replace(disks=(ROOT._replace(capacity_bytes=20), DATA._replace(capacity_bytes=20)))
    live = read_live(UP)
    root, data = live.disks
    measured = live._replace(disks=(root._replace(size_bytes=19), data._replace(size_bytes=21)))
    assert [(found.target, disk.id) for found, disk in find_small_disks(measured, plan, place(plan))] == [
        ("vda", "root")
    ]  # fmt: skip
    assert list(find_differences(measured, plan, place(plan))) == ["disk:root"]
    assert find_small_disks(live, plan, place(plan)) == []


def test_what_comes_and_goes_is_never_the_first_disk_and_never_one_of_a_known_name() -> None:
    live = read_live(UP)
    for disks, missing, surplus in (
        ((ROOT, DATA, DiskPlan("more", "more")), [2], []),
        ((ROOT,), [], ["data"]),
        ((), [], ["data"]),
        ((ROOT, DiskPlan("other", "other")), [1], ["data"]),
        # Another volume under a known name: nothing is done about it.
        ((DiskPlan("root", "x"), DiskPlan("data", "x2")), [], []),
    ):
        plan = PLAN._replace(disks=disks)
        assert find_missing_disks(live, plan, place(plan)) == missing
        assert [disk.id for disk in find_surplus_disks(live, plan, place(plan))] == surplus


def test_memory_that_the_guest_will_see_to_by_itself_waits_for_no_start() -> None:
    booting = read_live(UP)._replace(silent_balloon=True)
    for memory, most, words in (
        (512, 2048, []),
        (512, 4096, ["memory"]),
        (512, 0, ["memory"]),
        (3072, 2048, ["memory"]),
    ):
        plan = PLAN._replace(memory_mib=memory, max_memory_mib=most)
        assert list(find_differences(booting, plan, place(plan))) == words


def test_nics_of_other_kinds_are_an_adopted_domains_own() -> None:
    live = read_live(UP)
    assert [nic.id for nic in find_surplus_nics(live, PLAN._replace(nics=()))] == ["nic0", "net1", "u"]
    assert [nic.id for nic in find_surplus_nics(live, PLAN._replace(nics=(), adopted=True))] == ["nic0", "net1"]


def test_a_new_disk_takes_the_first_name_that_is_free_and_its_place() -> None:
    chain = (Source("/pool/more", "qcow2"),)
    made = parse(add_disk(DiskPlan("more", "more"), chain, 2, {"vda", "vdc", "vdd"}, Place(5)))
    assert made.find("target").attrib == {"dev": "vde", "bus": "virtio"}  # type: ignore[union-attr]
    assert made.find("address[@bus='0x05']") is not None
    assert made.find("boot") is None
    assert made.findtext("serial") == "more"


def test_a_disc_is_changed_and_nothing_else_of_its_drive() -> None:
    drive = read_live(UP).cdrom
    assert drive is not None
    with_disc = parse(change_disc(drive, Source("/dev/disc", "raw", is_block=True)))
    assert with_disc.attrib == {"type": "block", "device": "cdrom"}
    assert with_disc.find("source").attrib == {"dev": "/dev/disc"}  # type: ignore[union-attr]
    assert with_disc.find("driver").get("type") == "raw"  # type: ignore[union-attr]
    empty = parse(change_disc(drive._replace(xml=change_disc(drive, Source("/pool/a", "raw"))), None))
    assert [item.tag for item in empty] == [item.tag for item in parse(drive.xml)]
    assert (empty.get("type"), empty.find("source")) == ("file", None)


def test_a_nic_that_moves_keeps_all_but_its_network() -> None:
    moved = parse(move_nic(read_live(LIVE).nics[0], NICS[0]._replace(network="", bridge="br9"), is_up=False))
    assert moved.get("type") == "bridge"
    assert [(item.tag, item.attrib) for item in moved if item.tag in ("source", "link")] == [
        ("source", {"bridge": "br9"}), ("link", {"state": "down"}),
    ]  # fmt: skip
    kept = {item.tag for item in moved}
    assert kept >= {"mac", "target", "mtu", "alias", "address"}


def test_a_place_is_taken_where_it_is_free_and_there() -> None:
    mac = "52:54:00:00:00:0d"
    for bus, found in ((5, Place(5)), (1, None), (4, None), (3, None), (9, None)):
        assert find_place(LIVE, mac, {mac: Place(bus)}) == found
    assert find_place(LIVE, mac, {}) is None


places = st.dictionaries(st.sampled_from("abcdefgh"), st.builds(Place, st.integers(1, 12)), max_size=8)


@given(places.filter(lambda found: len(set(found.values())) == len(found)), places)
def test_no_two_devices_are_given_one_place(now: dict[str, Place], after: dict[str, Place]) -> None:
    chosen = choose_places(now, after)
    assert len(set(chosen.values())) == len(chosen)
    assert now.items() <= chosen.items()


def test_devices_are_defined_where_they_were() -> None:
    found = read_places(LIVE)
    assert found == {"/pool/root": Place(4), "/pool/data": Place(6), "52:54:00:00:00:0a": Place(1)}
    far = {**found, "52:54:00:00:00:0b": Place(40), "gone": Place(2)}
    xml = build_domain(PLAN, place(PLAN), places=far)
    assert read_places(xml) == {key: found for key, found in far.items() if key != "gone"}
    assert len(parse(xml).findall("devices/controller[@model='pcie-root-port']")) == 40
