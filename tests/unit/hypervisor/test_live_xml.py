"""What a running domain is, how it differs from a plan, and where its devices stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.hypervisor.domain_xml import Place, Placement, Source, build_domain
from backend.hypervisor.live_xml import choose_places, find_differences, find_place, move_nic, read_live, read_places
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.xml import parse

LIVE = """
<domain type='qemu' id='1'><name>web</name>
  <memory unit='KiB'>2097152</memory><currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader></os>
  <devices>
    <disk type='file' device='disk'><source file='/pool/root' index='1'/><target dev='vda'/><alias name='ua-disk-root'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>
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
  </devices></domain>
"""
NICS = (
    NicPlan("nic0", "52:54:00:00:00:0a", "net", mtu=1400),
    NicPlan("lan", "52:54:00:00:00:0b", bridge="br0"),
    NicPlan("u", "52:54:00:00:00:0c", mtu=1400),
)
PLAN = DomainPlan(
    uid="4cac02f2-4624-4a25-baba-ad7227406426", name="web", version=1, owner="o", owner_label="", metadata="{}",
    arch="x86_64", cpus=2, memory_mib=1024, firmware="uefi", accelerator="qemu", disks=(DiskPlan("root", "root"),),
    nics=NICS, seed="", console_log="", max_cpus=4,
)  # fmt: skip


def place(plan: DomainPlan) -> Placement:
    return Placement(tuple((Source(f"/pool/{disk.volume}", disk.format),) for disk in plan.disks), None, "")


def differences(xml: str = LIVE, **changes: Any) -> list[str]:
    plan = PLAN._replace(**changes)
    return list(find_differences(read_live(xml), plan, place(plan)))


def test_a_running_domain_is_read() -> None:
    live = read_live(LIVE)
    assert (live.cpus, live.maximum_cpus, live.memory_mib, live.maximum_memory_mib) == (2, 4, 1024, 2048)
    assert (live.name, live.firmware, live.disks) == ("web", "uefi", {"/pool/root": "root"})
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
        ({"disks": (DiskPlan("root", "other"),)}, ["disk:root"]),
        ({"disks": (DiskPlan("root", "root"), DiskPlan("data", "data"))}, ["disk:data"]),
        ({"disks": ()}, ["disk:root"]),
    ],
)
def test_what_differs_is_named_once_and_nothing_else_is(changes: dict[str, Any], words: list[str]) -> None:
    assert differences(UP, **changes) == words


def test_a_line_that_is_down_is_a_difference() -> None:
    assert differences() == ["nic:lan"]


def test_what_was_built_differs_in_nothing_from_its_plan() -> None:
    assert list(find_differences(read_live(build_domain(PLAN, place(PLAN))), PLAN, place(PLAN))) == []


def test_a_nic_that_moves_keeps_all_but_its_network() -> None:
    moved = parse(move_nic(read_live(LIVE).nics[0], NICS[0]._replace(network="", bridge="br9"), is_up=False))
    assert moved.get("type") == "bridge"
    assert [(item.tag, item.attrib) for item in moved if item.tag in ("source", "link")] == [
        ("source", {"bridge": "br9"}), ("link", {"state": "down"}),
    ]  # fmt: skip
    kept = {item.tag for item in moved}
    assert kept >= {"mac", "target", "mtu", "alias", "address"}


def test_a_place_is_taken_where_it_is_free_and_there() -> None:
    mac = "52:54:00:00:00:0D"
    for bus, found in ((5, Place(5)), (1, None), (4, None), (3, None), (9, None)):
        assert find_place(LIVE, mac, {mac.lower(): Place(bus)}) == found
    assert find_place(LIVE, mac, {}) is None


places = st.dictionaries(st.sampled_from("abcdefgh"), st.builds(Place, st.integers(1, 12)), max_size=8)


@given(places.filter(lambda found: len(set(found.values())) == len(found)), places)
def test_no_two_devices_are_given_one_place(now: dict[str, Place], after: dict[str, Place]) -> None:
    chosen = choose_places(now, after)
    assert len(set(chosen.values())) == len(chosen)
    assert now.items() <= chosen.items()


def test_devices_are_defined_where_they_were() -> None:
    found = read_places(LIVE)
    assert found == {"/pool/root": Place(4), "52:54:00:00:00:0a": Place(1)}
    far = {**found, "52:54:00:00:00:0b": Place(40), "gone": Place(2)}
    xml = build_domain(PLAN, place(PLAN), places=far)
    assert read_places(xml) == {key: found for key, found in far.items() if key != "gone"}
    assert len(parse(xml).findall("devices/controller[@model='pcie-root-port']")) == 40
