"""What a domain that is on is, read from its XML, and how that differs from a plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.domain_xml import CDROM_ALIAS, Place, Placement, place_key
from backend.hypervisor.live_devices_xml import LiveDisk, LiveNic, disk_alias, is_same, read_disk, read_nic
from backend.hypervisor.machine_xml import firmware_of, maximum_memory
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.xml import attribute, child_text, parse
from backend.text import sanitise

_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20}
_FIRMWARE_TYPES = ("pflash", "efi")
# What KC has networks for; any other NIC of an adopted domain is its maker's.
_MANAGED_KINDS = ("network", "bridge")


class LiveDomain(NamedTuple):
    """A domain; memory in MiB, `maximum_*` what it can have without a start, `minimum_cpus` what it cannot give up.

    `targets` are what libvirt calls its disks and drives, `cdrom` is the drive of the plan's disc. A `silent_balloon`
    is one whose driver in the guest has told nothing yet, because the guest still boots or has none.
    """

    name: str
    cpus: int
    maximum_cpus: int
    minimum_cpus: int
    memory_mib: int
    maximum_memory_mib: int
    has_balloon: bool
    firmware: str
    disks: tuple[LiveDisk, ...]
    cdrom: LiveDisk | None
    targets: frozenset[str]
    nics: tuple[LiveNic, ...]
    silent_balloon: bool = False

    def find_nic(self, nic: NicPlan) -> LiveNic | None:
        """Return the NIC of a plan, which its MAC identifies."""
        return next((one for one in self.nics if one.mac == nic.mac.lower()), None)

    def find_disk(self, path: str) -> LiveDisk | None:
        """Return the disk that has a volume open."""
        return next((one for one in self.disks if one.path == path), None)


def read_live(xml: str) -> LiveDomain:
    """Return what a domain is."""
    root = parse(xml)
    vcpu = root.find("vcpu")
    maximum = int(child_text(root, "vcpu") or 1)
    cpus = int(vcpu.get("current", maximum)) if vcpu is not None else maximum
    memory = _mib(root.find("memory"))
    drives = [read_disk(item) for item in root.findall("devices/disk")]
    return LiveDomain(
        name=child_text(root, "name"),
        cpus=cpus,
        maximum_cpus=maximum,
        minimum_cpus=_count_fixed_cpus(root, cpus),
        memory_mib=_mib(root.find("currentMemory")) or memory,
        maximum_memory_mib=memory,
        has_balloon=attribute(root, "devices/memballoon", "model") not in ("", "none"),
        firmware=_read_firmware(root),
        disks=tuple(drive for drive in drives if drive.kind == "disk"),
        cdrom=next((drive for drive in drives if drive.kind == "cdrom" and drive.alias == CDROM_ALIAS), None),
        targets=frozenset(drive.target for drive in drives),
        nics=tuple(read_nic(item) for item in root.findall("devices/interface")),
    )


def _read_firmware(root: Element) -> str:
    """Return a domain's firmware in the words of `firmware_of`."""
    system = root.find("os")
    is_chosen = system is not None and system.get("firmware") == "efi"
    if not is_chosen and attribute(root, "os/loader", "type") not in _FIRMWARE_TYPES:
        return "bios"
    feature = attribute(root, "os/firmware/feature[@name='secure-boot']", "enabled") == "yes"
    return "uefi with secure boot" if feature or attribute(root, "os/loader", "secure") == "yes" else "uefi"


def read_places(xml: str) -> dict[str, Place]:
    """Return where the devices behind a domain's root ports are, by `place_key`."""
    found: dict[str, Place] = {}
    for device in parse(xml).findall("devices/*"):
        address = device.find("address[@type='pci']")
        bus = int(address.get("bus", "0"), 16) if address is not None else 0
        if address is not None and bus:
            found[place_key(device)] = Place(bus, int(address.get("slot", "0"), 16))
    return found


def find_differences(live: LiveDomain, plan: DomainPlan, placement: Placement) -> Iterator[str]:
    """Yield what of a plan a domain has not, in the words of `Hypervisor.apply_live`."""
    if live.cpus != plan.cpus:
        yield "cpus"
    if live.memory_mib != plan.memory_mib and not is_memory_on_its_way(live, plan):
        yield "memory"
    if not plan.adopted and live.firmware != firmware_of(plan):
        yield "firmware"
    if live.name != plan.name:
        yield "name"
    nics = [nic.id or nic.mac for nic in plan.nics if not is_same(live.find_nic(nic), nic, adopted=plan.adopted)]
    nics += [nic.id for nic in find_surplus_nics(live, plan) if nic.id not in nics]
    yield from (f"nic:{sanitise(name)}" for name in nics)
    if plan.adopted:
        return
    yield from (f"disk:{sanitise(name)}" for name in dict.fromkeys(_different_disks(live, plan, placement)))
    disc = placement.cdrom.path if placement.cdrom is not None else ""
    if disc != (live.cdrom.path if live.cdrom is not None else ""):
        yield "cdrom"


def is_memory_on_its_way(live: LiveDomain, plan: DomainPlan) -> bool:
    """Return whether another start would change nothing: a guest that is told before it has booted does so after it."""
    return live.silent_balloon and live.maximum_memory_mib == maximum_memory(plan)


def find_surplus_nics(live: LiveDomain, plan: DomainPlan) -> list[LiveNic]:
    """Return the NICs that a plan has not."""
    wanted = {nic.mac.lower() for nic in plan.nics}
    return [
        nic for nic in live.nics if nic.mac not in wanted and (not plan.adopted or nic.kind in _MANAGED_KINDS)
    ]  # fmt: skip


def find_surplus_disks(live: LiveDomain, plan: DomainPlan, placement: Placement) -> list[LiveDisk]:
    """Return the disks that can go: those that a plan has not, but never the one that the guest was started from.

    One of the same name with another volume under it, as during a copy, is somebody's work, and stays.
    """
    paths = {chain[0].path for chain in placement.disks}
    aliases = {disk_alias(disk) for disk in plan.disks}
    return [
        disk for disk in live.disks if disk.path not in paths and disk.alias not in aliases and not disk.is_boot
    ]  # fmt: skip


def find_missing_disks(live: LiveDomain, plan: DomainPlan, placement: Placement) -> list[int]:
    """Return which disks of a plan can come, by their index: all but the first that are not there."""
    aliases = {disk.alias for disk in live.disks}
    return [
        index
        for index, (disk, chain) in enumerate(zip(plan.disks, placement.disks, strict=True))
        if index and live.find_disk(chain[0].path) is None and disk_alias(disk) not in aliases
    ]


def find_small_disks(live: LiveDomain, plan: DomainPlan, placement: Placement) -> list[tuple[LiveDisk, DiskPlan]]:
    """Return the disks that a plan wants larger, with what it wants; one that is larger stays."""
    found = [(live.find_disk(chain[0].path), disk) for disk, chain in zip(plan.disks, placement.disks, strict=True)]
    return [(one, disk) for one, disk in found if one is not None and is_small(one, disk)]


def is_small(found: LiveDisk, disk: DiskPlan) -> bool:
    """Return whether a disk that was measured is smaller than a plan has it."""
    return 0 < found.size_bytes < disk.capacity_bytes


def choose_places(now: Mapping[str, Place], next_start: Mapping[str, Place]) -> dict[str, Place]:
    """Return where devices stay: where they are now, else where they were to be, if that is free."""
    chosen = dict(now)
    for key, place in next_start.items():
        if place not in chosen.values():
            chosen.setdefault(key, place)
    return chosen


def find_place(xml: str, key: str, next_start: Mapping[str, Place]) -> Place | None:
    """Return the place that a device (`place_key`) has after the next start, where a running domain has it free."""
    place = next_start.get(key)
    if place is None:
        return None
    root = parse(xml)
    ports = {int(port.get("index", "0")) for port in root.findall("devices/controller[@model='pcie-root-port']")}
    taken = {int(item.get("bus", "0"), 16) for item in root.findall("devices/*/address[@type='pci']")}
    return place if place.bus in ports - taken else None


def _different_disks(live: LiveDomain, plan: DomainPlan, placement: Placement) -> Iterator[str]:
    paths: Sequence[str] = [chain[0].path for chain in placement.disks]
    for path, disk in zip(paths, plan.disks, strict=True):
        found = live.find_disk(path)
        if found is None or is_small(found, disk):
            yield disk.id
    yield from (disk.id for disk in live.disks if disk.path not in paths)


def find_overlaid(xml: str, paths: Iterable[str]) -> str:
    """Return the path of a domain's disk that lies over one of `paths`; empty where none does."""
    below = set(paths)
    for disk in parse(xml).findall("devices/disk"):
        if any(_path(store) in below for store in disk.iterfind(".//backingStore")):
            top = _path(disk)
            if top not in below:
                return top
    return ""


def _path(item: Element) -> str:
    return attribute(item, "source", "file") or attribute(item, "source", "dev")


def _count_fixed_cpus(root: Element, cpus: int) -> int:
    """Return how many CPUs a domain was started with that it cannot give up; without a list of them, all.

    An emulated CPU goes without QEMU's word to libvirt (QEMU 7.2), which then never gives it back: none is asked for.
    """
    listed = root.findall("vcpus/vcpu") if root.get("type") != "qemu" else []
    fixed = [item for item in listed if item.get("enabled") == "yes" and item.get("hotpluggable") != "yes"]
    return len(fixed) if listed else cpus


def _mib(item: Element | None) -> int:
    text = ((item.text if item is not None else "") or "").strip()
    unit = item.get("unit", "KiB") if item is not None else "KiB"
    return int(int(text) * _KIB.get(unit, 1)) // 1024 if re.fullmatch(r"[0-9]+", text) else 0
