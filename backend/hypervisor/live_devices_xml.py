"""A running domain's NICs, disks and CD-ROM drive: read from its XML, and the XML that changes them."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.domain_xml import (
    Place,
    Source,
    build_address,
    build_disk,
    build_interface,
    build_port,
    place_key,
)
from backend.hypervisor.plan import DiskPlan, NicPlan
from backend.hypervisor.xml import attribute, element, parse, render


class LiveNic(NamedTuple):
    """A NIC: `kind` and `source` as in a plan (`network` or `bridge` and its name, else the kind alone).

    An `isolated` one reaches no other isolated one on its bridge.
    """

    mac: str
    alias: str
    kind: str
    source: str
    mtu: int
    is_up: bool
    xml: str
    isolated: bool = False

    @property
    def id(self) -> str:
        """Its id in a plan, else what libvirt calls it."""
        return self.alias.removeprefix("ua-") or self.mac

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.mac


class LiveDisk(NamedTuple):
    """A disk or drive: `kind` is libvirt's word (`disk`, `cdrom`), `path` empty in an empty drive.

    `size_bytes` is what the guest sees, 0 where that was not asked for.
    """

    path: str
    alias: str
    target: str
    kind: str
    is_boot: bool
    xml: str
    size_bytes: int = 0

    @property
    def id(self) -> str:
        """Its id in a plan, else what libvirt calls it."""
        return re.sub(r"^ua-(disk-)?", "", self.alias) or self.target

    @property
    def key(self) -> str:
        """What it is known by."""
        return self.path


def read_nic(item: Element) -> LiveNic:
    """Return a NIC."""
    network, bridge = attribute(item, "source", "network"), attribute(item, "source", "bridge")
    # A running NIC on a libvirt network tells the network and the bridge behind it.
    kind, source = ("network", network) if network else ("bridge", bridge) if bridge else (item.get("type", ""), "")
    mtu = attribute(item, "mtu", "size")
    return LiveNic(
        mac=attribute(item, "mac", "address").lower(),
        alias=attribute(item, "alias", "name"),
        kind=kind,
        source=source,
        mtu=int(mtu) if mtu.isdecimal() else 0,
        is_up=attribute(item, "link", "state") != "down",
        xml=render(item),
        isolated=attribute(item, "port", "isolated") == "yes",
    )


def read_disk(item: Element) -> LiveDisk:
    """Return a disk or drive."""
    return LiveDisk(
        path=place_key(item),
        alias=attribute(item, "alias", "name"),
        target=attribute(item, "target", "dev"),
        kind=item.get("device", "disk"),
        is_boot=attribute(item, "boot", "order") == "1",
        xml=render(item),
    )


def is_same(found: LiveNic | None, nic: NicPlan, *, adopted: bool = False) -> bool:
    """Return whether a NIC is as a plan has it; an adopted domain's keeps the MTU that it has.

    What its tap is called is none of it: a running domain's has the name that it was started with.
    """
    if found is None or not is_in_place(found, nic):
        return False
    is_sized = adopted or found.kind == "user" or found.mtu == nic.mtu
    return is_sized and is_isolated_as(found, nic, adopted=adopted)


def is_in_place(found: LiveNic, nic: NicPlan) -> bool:
    """Return whether a NIC is where a plan has it, with its line up."""
    return (found.kind, found.source) == _target(nic) and found.is_up


def is_isolated_as(found: LiveNic, nic: NicPlan, *, adopted: bool = False) -> bool:
    """Return whether a NIC is isolated as a plan has it; whoever made an adopted domain may have isolated more."""
    return found.kind == "user" or found.isolated == nic.isolated or (adopted and found.isolated)


def move_nic(found: LiveNic, nic: NicPlan, *, is_up: bool) -> str:
    """Return the XML of a NIC on the network that a plan has it on, all else as it is."""
    moved = parse(found.xml)
    _remove(moved, "source", "link", "port", "virtualport", "backenddomain")
    kind, source = _target(nic)
    moved.set("type", kind)
    if source:
        moved.append(element("source", **{kind: source}))
        port = build_port(isolated=nic.isolated)
        moved.extend([port] if port is not None else [])
    moved.append(element("link", state="up" if is_up else "down"))
    return render(moved)


def isolate_nic(found: LiveNic, *, isolated: bool) -> str:
    """Return the XML of a NIC that is isolated, or no longer, all else as it is."""
    changed = parse(found.xml)
    _remove(changed, "port")
    port = build_port(isolated=isolated)
    changed.extend([port] if port is not None else [])
    return render(changed)


def add_nic(nic: NicPlan, place: Place | None) -> str:
    """Return the XML of a new NIC, at a place where one is given."""
    return _at(place, build_interface(nic))


def add_disk(disk: DiskPlan, chain: tuple[Source, ...], index: int, taken: Container[str], place: Place | None) -> str:
    """Return the XML of a new disk, at a place where one is given, under the first name for it that is not taken."""
    made = build_disk(disk, chain, index)
    # A guest that runs is not started from it.
    _remove(made, "boot")
    target = made.find("target")
    while target is not None and target.get("dev") in taken:
        index += 1
        target.set("dev", attribute(build_disk(disk, chain, index), "target", "dev"))
    return _at(place, made)


def disk_alias(disk: DiskPlan) -> str:
    """Return the name under which a plan's disk is in its domain."""
    return attribute(build_disk(disk, (Source("", disk.format),), 0), "alias", "name")


def change_disc(drive: LiveDisk, disc: Source | None) -> str:
    """Return the XML of a drive with another disc, or with none."""
    changed = parse(drive.xml)
    _remove(changed, "source", "backingStore")
    changed.set("type", "block" if disc is not None and disc.is_block else "file")
    if disc is not None:
        driver = changed.find("driver")
        if driver is not None:
            driver.set("type", disc.format)
        changed.append(element("source", **{"dev" if disc.is_block else "file": disc.path}))
        changed.append(element("backingStore"))
    return render(changed)


def _at(place: Place | None, device: Element) -> str:
    if place is not None:
        device.append(build_address(place))
    return render(device)


def _remove(parent: Element, *tags: str) -> None:
    for tag in tags:
        for item in parent.findall(tag):
            parent.remove(item)


def _target(nic: NicPlan) -> tuple[str, str]:
    if nic.bridge:
        return "bridge", nic.bridge
    return ("network", nic.network) if nic.network else ("user", "")
