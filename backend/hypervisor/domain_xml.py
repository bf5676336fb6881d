"""From a plan to a libvirt domain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.errors import RefusedError
from backend.hypervisor.machine_xml import (
    MACHINES,
    Machine,
    build_clock,
    build_cpu,
    build_cpus,
    build_features,
    build_memory,
    build_suspending,
    build_system,
)
from backend.hypervisor.plan import DiskPlan, DomainOwner, DomainPlan, NicPlan
from backend.hypervisor.xml import NAMESPACE, attribute, clean, element, escape_json, parse, render
from backend.text import sanitise

# Root ports that stay free, so that NICs and disks can be added to a running guest.
SPARE_PORTS = 8
BALLOON_SECONDS = 10
SERIAL_LENGTH = 20
# Behind all disks, however many come and go.
CDROM_ORDER = "1000"
CDROM_ALIAS = "ua-cdrom"
# What KC has networks for; any other NIC of an adopted domain is its maker's.
MANAGED_KINDS = ("network", "bridge")
CRASH_ACTIONS = {"restart": "restart", "stop": "destroy", "preserve": "preserve"}
PROBE_MIB = 384
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Source(NamedTuple):
    """Where a volume is: a file, or a block device."""

    path: str
    format: str
    is_block: bool = False


class Placement(NamedTuple):
    """Where a plan's volumes are: each disk with all that back it, the seed, the console's log (or ""), the disc."""

    disks: tuple[tuple[Source, ...], ...]
    seed: Source | None
    console_log: str
    cdrom: Source | None = None


class Place(NamedTuple):
    """Where a device is on the guest's PCI bus: what its guest names it after."""

    bus: int
    slot: int = 0


ARCHITECTURES = tuple(MACHINES)


def build_domain(
    plan: DomainPlan,
    placement: Placement,
    cpu_model: str = "",
    places: Mapping[str, Place] | None = None,
    *,
    name: str = "",
) -> str:
    """Return the domain's XML; `cpu_model` is a model or mode of libvirt, or empty: what suits the accelerator.

    `places` are where devices stay, by `place_key`; libvirt finds a place for the others. `name` is what a domain that
    is on keeps being called. Raises RefusedError for what this driver does not know.
    """
    check_plan(plan)
    kept = _behind_root_ports(places or {})
    return render(
        element(
            "domain",
            element("name", text=name or plan.name),
            element("uuid", text=plan.uid),
            element("description", text=sanitise(plan.description)) if plan.description else None,
            element("metadata", build_label(plan)),
            *build_memory(plan),
            build_cpus(plan),
            build_system(plan, _nvram_file(plan, placement)),
            build_features(plan),
            build_cpu(plan, cpu_model),
            build_clock(plan),
            element("on_poweroff", text="destroy"),
            element("on_reboot", text="restart"),
            element("on_crash", text=CRASH_ACTIONS[plan.on_crash]),
            build_suspending(plan),
            element("devices", *_keep_places(_devices(plan, placement, kept), kept)),
            type=plan.accelerator,
        )
    )


def build_machine(plan: DomainPlan) -> str:
    """Return a domain with the plan's firmware and nothing else, to ask libvirt whether there is such firmware."""
    bare = plan._replace(cpus=1, max_cpus=0)
    return render(
        element(
            "domain",
            element("name", text=plan.uid),
            element("memory", text=str(PROBE_MIB), unit="MiB"),
            element("vcpu", text="1"),
            build_system(bare),
            build_features(bare),
            type="qemu",
        )
    )


def check_plan(plan: DomainPlan) -> None:
    """Raise RefusedError for an architecture, a firmware or a crash policy that this driver does not know."""
    what = f"VM {plan.name}"
    machine = MACHINES.get(plan.arch)
    if machine is None:
        raise RefusedError(what, f"unknown architecture {plan.arch}", f"use {' or '.join(MACHINES)}")
    if plan.firmware not in ("bios", "uefi"):
        raise RefusedError(what, f"unknown firmware {plan.firmware}", "use bios or uefi")
    if plan.secure_boot and plan.firmware != "uefi":
        raise RefusedError(what, "secure boot is UEFI's", "take a machine type with the firmware uefi")
    if plan.on_crash not in CRASH_ACTIONS:
        raise RefusedError(what, f"unknown crash policy {plan.on_crash}", f"use {' or '.join(CRASH_ACTIONS)}")


def _nvram_file(plan: DomainPlan, placement: Placement) -> str:
    """Return the file of the guest's firmware variables; empty in a pool without files: libvirt's own choice.

    That is named after the domain, and so would stay behind when it is renamed, for the next of the old name to find.
    Secure boot has a file of its own, as the keys are in it.
    """
    if not placement.console_log:
        return ""
    kind = "secure" if plan.secure_boot else "nvram"
    return str(PurePosixPath(placement.console_log).with_name(f"kc-{plan.uid}-{kind}.fd"))


def read_owner(label: str) -> DomainOwner:
    """Return who made a domain, from KC's element in its metadata."""
    root = parse(label)
    version = root.get("version", "")
    return DomainOwner(
        owner=sanitise(root.get("owner", "")),
        label=sanitise(root.get("ownerLabel", "")),
        version=int(version) if version.isdecimal() else 0,
    )


def build_label(plan: DomainPlan) -> Element:
    """Return KC's element of the metadata, what survives the loss of KC's store; libvirt keeps it word for word."""
    attributes = {
        "uid": plan.uid,
        "name": plan.name,
        "version": str(plan.version),
        "owner": plan.owner,
        "ownerLabel": sanitise(plan.owner_label),
    }
    label = Element(f"{{{NAMESPACE}}}vm", {name: clean(value) for name, value in attributes.items()})
    metadata = Element(f"{{{NAMESPACE}}}metadata")
    metadata.text = escape_json(plan.metadata)
    label.append(metadata)
    return label


def _devices(plan: DomainPlan, placement: Placement, places: Mapping[str, Place]) -> Iterator[Element]:
    machine = MACHINES[plan.arch]
    for index, (disk, chain) in enumerate(zip(plan.disks, placement.disks, strict=True)):
        yield build_disk(disk, chain, index)
    if placement.seed is not None:
        yield _seed(placement.seed, machine)
    yield build_cdrom(plan.arch, placement.cdrom)
    yield from _controllers(plan, machine, max((place.bus for place in places.values()), default=0))
    for nic in plan.nics:
        yield build_interface(nic)
    log = element("log", file=placement.console_log, append="on") if placement.console_log else None
    yield element("serial", log, element("target", port="0"), type="pty")
    yield element("console", element("target", type="serial", port="0"), type="pty")
    yield element("channel", element("target", type="virtio", name="org.qemu.guest_agent.0"), type="unix")
    # A socket that only QEMU's user and root can open: a port would show the screen to every user of the host.
    # Every viewer shares the screen, also one that asks to have it alone.
    yield element("graphics", element("listen", type="socket"), type="vnc", sharePolicy="ignore")
    video = {"vram": "16384"} if machine.video == "vga" else {}
    yield element("video", element("model", type=machine.video, heads="1", primary="yes", **video))
    if machine.panic:
        yield element("panic", model=machine.panic)
    yield element("memballoon", element("stats", period=str(BALLOON_SECONDS)), model="virtio")
    yield element("rng", element("backend", text="/dev/urandom", model="random"), model="virtio")


def place_key(device: Element) -> str:
    """Return what a device is known by from one definition to the next: a disk's path, a NIC's MAC, else its kind."""
    if device.tag == "disk":
        source = device.find("source")
        return (source.get("file") or source.get("dev") or "") if source is not None else ""
    if device.tag == "interface":
        return attribute(device, "mac", "address").lower()
    return " ".join(filter(None, (device.tag, device.get("type", ""), device.get("index", ""))))


def _behind_root_ports(places: Mapping[str, Place]) -> dict[str, Place]:
    """Return the places that this driver gives; others may have put a bridge behind a port, and devices on it."""
    return {key: place for key, place in places.items() if not place.slot and not key.startswith("controller pci")}


def _keep_places(devices: Iterable[Element], places: Mapping[str, Place]) -> Iterator[Element]:
    for device in devices:
        place = places.get(place_key(device))
        if place is not None:
            device.append(build_address(place))
        yield device


def _controllers(plan: DomainPlan, machine: Machine, last_bus: int) -> Iterator[Element]:
    yield element("controller", type="usb", model="none")
    yield element("controller", type="virtio-serial", index="0")
    if machine.disc_bus == "scsi":
        yield element("controller", type="scsi", index="0", model="virtio-scsi")
    # A port each for disks, NICs, the agent's channel, the balloon, the random numbers, and what else a machine needs.
    fixed = 3 + (1 if machine.disc_bus == "scsi" else 0) + (1 if machine.video == "virtio" else 0)
    yield element("controller", type="pci", index="0", model="pcie-root")
    for index in range(max(len(plan.disks) + len(plan.nics) + fixed + SPARE_PORTS, last_bus)):
        yield element("controller", type="pci", index=str(index + 1), model="pcie-root-port")


def build_disk(plan: DiskPlan, chain: tuple[Source, ...], index: int) -> Element:
    """Return a disk, the `index`th of its domain, with all that backs it."""
    serial = re.sub(r"[^A-Za-z0-9_-]", "-", plan.id)[:SERIAL_LENGTH]
    return element(
        "disk",
        element("driver", name="qemu", type=plan.format, discard="unmap"),
        _source(chain[0]),
        _backing(chain[1:]),
        element("target", dev=f"vd{_letters(index)}", bus="virtio"),
        element("serial", text=serial) if serial else None,
        element("boot", order=str(index + 1)),
        # A NIC may have the same id.
        _alias(plan.id and f"disk-{plan.id}"),
        type="block" if chain[0].is_block else "file",
        device="disk",
    )


def _source(source: Source) -> Element:
    return element("source", dev=source.path) if source.is_block else element("source", file=source.path)


def _backing(chain: tuple[Source, ...]) -> Element:
    """Return the chain below a disk, down to its end: QEMU is to look for nothing by itself."""
    if not chain:
        return element("backingStore")
    first, *rest = chain
    return element(
        "backingStore",
        element("format", type=first.format),
        _source(first),
        _backing(tuple(rest)),
        type="block" if first.is_block else "file",
    )


def _seed(source: Source, machine: Machine) -> Element:
    return element(
        "disk",
        element("driver", name="qemu", type="raw"),
        _source(source),
        element("backingStore"),
        element("target", dev="sda", bus=machine.disc_bus),
        element("readonly"),
        type="block" if source.is_block else "file",
        device="cdrom",
    )


def build_cdrom(arch: str, disc: Source | None) -> Element:
    """Return the CD-ROM drive of an architecture; a disc in it starts the guest where no disk does."""
    return element(
        "disk",
        element("driver", name="qemu", type="raw"),
        _source(disc) if disc is not None else None,
        element("backingStore") if disc is not None else None,
        element("target", dev="sdb", bus=MACHINES[arch].disc_bus),
        element("readonly"),
        # SeaBIOS waits five seconds for an empty drive that it may start from.
        element("boot", order=CDROM_ORDER) if disc is not None else None,
        element("alias", name=CDROM_ALIAS),
        type="block" if disc is not None and disc.is_block else "file",
        device="cdrom",
    )


def build_interface(plan: NicPlan) -> Element:
    """Return a NIC."""
    source = None
    kind = "user"
    if plan.bridge:
        kind, source = "bridge", element("source", bridge=plan.bridge)
    elif plan.network:
        kind, source = "network", element("source", network=plan.network)
    return element(
        "interface",
        element("mac", address=plan.mac),
        source,
        # libvirt would number it; one that is known beforehand can be guarded before it is there.
        element("target", dev=plan.tap) if plan.tap and source is not None else None,
        build_port(isolated=plan.isolated) if source is not None else None,
        element("model", type="virtio"),
        element("mtu", size=str(plan.mtu)) if plan.mtu and source is not None else None,
        _alias(plan.id),
        type=kind,
    )


def build_port(*, isolated: bool) -> Element | None:
    """Return what a NIC's port of its bridge is like, where it is not like any other."""
    return element("port", isolated="yes") if isolated else None


def build_address(place: Place) -> Element:
    """Return a place as libvirt has it."""
    bus, slot = f"0x{place.bus:02x}", f"0x{place.slot:02x}"
    return element("address", type="pci", domain="0x0000", bus=bus, slot=slot, function="0x0")


def _alias(name: str) -> Element | None:
    """Return the name under which the device is found again, in libvirt and in QEMU."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return element("alias", name=f"ua-{safe}") if safe else None


def _letters(index: int) -> str:
    """Return a disk's letters: a … z, aa, ab …."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, len(_LETTERS))
        letters = _LETTERS[rest] + letters
    return letters


def build_probe(name: str, source: Source, arch: str, accelerator: str, cpu_model: str = "") -> str:
    """Return a small guest that boots a raw disk without writing to it, to see whether it comes up at all."""
    plan = DomainPlan(
        uid="", name=name, version=0, owner="", owner_label="", metadata="", arch=arch, cpus=1, memory_mib=PROBE_MIB,
        firmware="bios", accelerator=accelerator, disks=(), nics=(), seed="", console_log="",
    )  # fmt: skip
    disk = build_disk(DiskPlan("probe", "", "raw"), (source,), 0)
    disk.append(element("readonly"))
    return render(
        element(
            "domain",
            element("name", text=name),
            element("memory", text=str(PROBE_MIB), unit="MiB"),
            element("vcpu", text="1"),
            build_system(plan),
            build_features(plan),
            build_cpu(plan, cpu_model),
            build_clock(plan),
            element(
                "devices",
                disk,
                element("controller", type="usb", model="none"),
                element("serial", element("target", port="0"), type="pty"),
                element("console", element("target", type="serial", port="0"), type="pty"),
                element("memballoon", model="none"),
            ),
            type=accelerator,
        )
    )
