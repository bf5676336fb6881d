"""What a domain is, read from its XML, and how that differs from a plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.domain_xml import Place, Placement, build_address, build_interface, place_key
from backend.hypervisor.plan import DomainPlan, NicPlan
from backend.hypervisor.xml import attribute, child_text, element, parse, render
from backend.text import sanitise

_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20}
_FIRMWARE_TYPES = ("pflash", "efi")


class LiveNic(NamedTuple):
    """A NIC: `kind` and `source` as in a plan (`network` or `bridge` and its name, else the kind alone)."""

    mac: str
    alias: str
    kind: str
    source: str
    mtu: int
    is_up: bool
    xml: str

    @property
    def id(self) -> str:
        """Its id in a plan, else what libvirt calls it."""
        return self.alias.removeprefix("ua-") or self.mac


class LiveDomain(NamedTuple):
    """A domain; memory in MiB, `disks` the ids by path, `maximum_*` what it can have without a start."""

    name: str
    cpus: int
    maximum_cpus: int
    memory_mib: int
    maximum_memory_mib: int
    firmware: str
    disks: Mapping[str, str]
    nics: tuple[LiveNic, ...]

    def find_nic(self, nic: NicPlan) -> LiveNic | None:
        """Return the NIC of a plan, which its MAC identifies."""
        return next((one for one in self.nics if one.mac == nic.mac.lower()), None)


def read_live(xml: str) -> LiveDomain:
    """Return what a domain is."""
    root = parse(xml)
    vcpu = root.find("vcpu")
    maximum = int(child_text(root, "vcpu") or 1)
    memory = _mib(root.find("memory"))
    loader = attribute(root, "os/loader", "type")
    system = root.find("os")
    is_uefi = loader in _FIRMWARE_TYPES or (system is not None and system.get("firmware") == "efi")
    return LiveDomain(
        name=child_text(root, "name"),
        cpus=int(vcpu.get("current", maximum)) if vcpu is not None else maximum,
        maximum_cpus=maximum,
        memory_mib=_mib(root.find("currentMemory")) or memory,
        maximum_memory_mib=memory,
        firmware="uefi" if is_uefi else "bios",
        disks=dict(_read_disks(root)),
        nics=tuple(_read_nic(item) for item in root.findall("devices/interface")),
    )


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
    if live.memory_mib != plan.memory_mib:
        yield "memory"
    if live.firmware != plan.firmware:
        yield "firmware"
    if live.name != plan.name:
        yield "name"
    nics = [nic.id or nic.mac for nic in plan.nics if not is_same(live.find_nic(nic), nic)]
    nics += [nic.id for nic in find_surplus(live, plan) if nic.id not in nics]
    yield from (f"nic:{sanitise(name)}" for name in nics)
    wanted = {chain[0].path: disk.id for disk, chain in zip(plan.disks, placement.disks, strict=True)}
    paths = wanted.keys() ^ live.disks.keys()
    names = {side[path] for side in (wanted, live.disks) for path in paths if path in side}
    yield from (f"disk:{sanitise(name)}" for name in sorted(names))


def find_surplus(live: LiveDomain, plan: DomainPlan) -> list[LiveNic]:
    """Return the NICs that a plan has not."""
    wanted = {nic.mac.lower() for nic in plan.nics}
    return [nic for nic in live.nics if nic.mac not in wanted]


def is_same(found: LiveNic | None, nic: NicPlan) -> bool:
    """Return whether a NIC is as a plan has it."""
    return found is not None and is_in_place(found, nic) and (found.kind == "user" or found.mtu == nic.mtu)


def is_in_place(found: LiveNic, nic: NicPlan) -> bool:
    """Return whether a NIC is where a plan has it, with its line up."""
    return (found.kind, found.source) == _target(nic) and found.is_up


def move_nic(found: LiveNic, nic: NicPlan, *, is_up: bool) -> str:
    """Return the XML of a NIC on the network that a plan has it on, all else as it is."""
    moved = parse(found.xml)
    for tag in ("source", "link", "virtualport", "backenddomain"):
        for item in moved.findall(tag):
            moved.remove(item)
    kind, source = _target(nic)
    moved.set("type", kind)
    if source:
        moved.append(element("source", **{kind: source}))
    moved.append(element("link", state="up" if is_up else "down"))
    return render(moved)


def add_nic(nic: NicPlan, place: Place | None) -> str:
    """Return the XML of a new NIC, at a place where one is given."""
    device = build_interface(nic)
    if place is not None:
        device.append(build_address(place))
    return render(device)


def choose_places(now: Mapping[str, Place], next_start: Mapping[str, Place]) -> dict[str, Place]:
    """Return where devices stay: where they are now, else where they were to be, if that is free."""
    chosen = dict(now)
    for key, place in next_start.items():
        if place not in chosen.values():
            chosen.setdefault(key, place)
    return chosen


def find_place(xml: str, mac: str, next_start: Mapping[str, Place]) -> Place | None:
    """Return the place that a NIC will have after the next start, where a running domain has it free."""
    place = next_start.get(mac.lower())
    if place is None:
        return None
    root = parse(xml)
    ports = {int(port.get("index", "0")) for port in root.findall("devices/controller[@model='pcie-root-port']")}
    taken = {int(item.get("bus", "0"), 16) for item in root.findall("devices/*/address[@type='pci']")}
    return place if place.bus in ports - taken else None


def _target(nic: NicPlan) -> tuple[str, str]:
    if nic.bridge:
        return "bridge", nic.bridge
    return ("network", nic.network) if nic.network else ("user", "")


def _read_nic(item: Element) -> LiveNic:
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
    )


def _read_disks(root: Element) -> Iterator[tuple[str, str]]:
    for item in root.findall("devices/disk"):
        if item.get("device", "disk") == "disk":
            alias = re.sub(r"^ua-(disk-)?", "", attribute(item, "alias", "name"))
            yield place_key(item), alias or attribute(item, "target", "dev")


def _mib(item: Element | None) -> int:
    if item is None or not (item.text or "").strip().isdecimal():
        return 0
    return int(int(item.text or 0) * _KIB.get(item.get("unit", "KiB"), 1)) // 1024
