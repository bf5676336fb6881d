"""Snapshots and screens as libvirt writes them, its own and others'."""

from __future__ import annotations

import pytest

from backend.errors import ConflictError
from backend.hypervisor.display import Screen, read_screen
from backend.hypervisor.snapshot_xml import (
    Disk,
    build_snapshot,
    has_pflash,
    read_disks,
    read_snapshot,
    read_snapshot_disks,
)
from backend.hypervisor.snapshots import compare_disks
from backend.hypervisor.volume_xml import read_changed_at
from backend.hypervisor.xml import parse

DOMAIN = """<domain><os firmware='efi'><type>hvm</type></os><devices>
  <disk type='file' device='disk'><driver type='qcow2'/><source file='/p/a'/><target dev='vda'/></disk>
  <disk type='block' device='disk'><driver type='raw'/><source dev='/dev/b'/><target dev='vdb'/></disk>
  <disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
  <disk type='file' device='disk'><source file='/p/c'/><target dev='vdc'/><readonly/></disk>
</devices></domain>"""
DISKS = [Disk("vda", "/p/a", "qcow2"), Disk("vdb", "/dev/b", "raw")]


def snapshot(body: str) -> str:
    return f"<domainsnapshot><name>one\x85two</name>{body}</domainsnapshot>"


@pytest.mark.parametrize(
    ("body", "has_memory", "method"),
    [
        ("<state>running</state><memory snapshot='internal'/>", True, "internal"),
        ("<state>running</state><memory snapshot='no'/>", False, "internal"),
        ("<state>shutoff</state><memory snapshot='no'/>", False, "internal"),
        ("<state>running</state>", True, "internal"),
        ("<state>shutoff</state>", False, "internal"),
        ("<memory snapshot='no'/><disks><disk name='vda' snapshot='external'/></disks>", False, "external"),
        ("<memory snapshot='external'/>", True, "external"),
    ],
    ids=["on", "disks of one that was on", "off", "old, on", "old, off", "external", "external memory"],
)
def test_a_snapshot_is_read(body: str, has_memory: bool, method: str) -> None:
    found = read_snapshot(snapshot(f"{body}<creationTime>1700000000</creationTime>"))
    assert (found.name, found.at, found.has_memory, found.method) == ("one\ufffdtwo", 1.7e9, has_memory, method)


def test_a_snapshot_without_a_time_is_read() -> None:
    assert read_snapshot(snapshot("<creationTime>soon</creationTime>")).at == 0
    assert read_snapshot_disks(snapshot("")) is None


def test_only_disks_that_a_guest_may_write_to_count() -> None:
    assert read_disks(DOMAIN) == DISKS
    assert read_snapshot_disks(snapshot(DOMAIN)) == DISKS


def test_a_description_cannot_break_out() -> None:
    root = parse(build_snapshot("one", "</description><name>two</name>\x1b[2J"))
    assert [child.tag for child in root] == ["name", "description"]
    assert "\x1b" not in (root.findtext("description") or "")


@pytest.mark.parametrize(
    ("system", "is_uefi"),
    [
        ("<os firmware='efi'/>", True),
        ("<os><loader type='pflash'>/x</loader></os>", True),
        ("<os><loader type='rom'>/x</loader></os>", False),
        ("<os/>", False),
        ("", False),
    ],
    ids=range(5),
)
def test_uefi_is_told_from_bios(system: str, is_uefi: bool) -> None:
    assert has_pflash(f"<domain>{system}</domain>") is is_uefi


def test_disks_that_came_and_went_are_named() -> None:
    compare_disks("VM web", DISKS, list(reversed(DISKS)))
    with pytest.raises(ConflictError, match="a was added, b was removed"):
        compare_disks("VM web", DISKS[1:], DISKS[:1])


@pytest.mark.parametrize(
    ("graphics", "screen"),
    [
        (
            "<graphics type='vnc' socket='/s'><listen type='socket' socket='/s'/></graphics>",
            Screen(0, "/s", "", ""),
        ),
        ("<graphics type='spice'/><graphics type='vnc' port='5901'/>", Screen(1, "", "127.0.0.1", "5901")),
        (
            "<graphics type='vnc' port='5901'><listen type='address' address='::'/></graphics>",
            Screen(0, "", "::", "5901"),
        ),
        ("<graphics type='vnc' port='-1'><listen type='none'/></graphics>", Screen(0, "", "127.0.0.1", "")),
        ("<graphics type='spice'/>", None),
        ("", None),
    ],
    ids=["socket", "second", "everywhere", "nowhere", "spice", "none"],
)
def test_a_screen_is_found(graphics: str, screen: Screen | None) -> None:
    assert read_screen(f"<domain><devices>{graphics}</devices></domain>") == screen


def test_when_a_volume_changed() -> None:
    volume = "<volume><target><timestamps><mtime>{}</mtime></timestamps></target></volume>"
    assert read_changed_at(volume.format("1700000000.5")) == 1700000000.5
    assert read_changed_at(volume.format("x")) == 0
    assert read_changed_at("<volume/>") == 0
