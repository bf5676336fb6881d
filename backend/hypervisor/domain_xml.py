"""From a plan to a libvirt domain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.errors import RefusedError
from backend.hypervisor.plan import DiskPlan, DomainOwner, DomainPlan, NicPlan
from backend.hypervisor.xml import NAMESPACE, attribute, clean, element, escape_json, parse, render
from backend.text import sanitise

# Root ports that stay free, so that NICs and disks can be added to a running guest.
SPARE_PORTS = 8
BALLOON_SECONDS = 10
SERIAL_LENGTH = 20
GIC3_CPUS = 8
PROBE_MIB = 384
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Source(NamedTuple):
    """Where a volume is: a file, or a block device."""

    path: str
    format: str
    is_block: bool = False


class Placement(NamedTuple):
    """Where the volumes of a plan are: each disk with all that back it, the seed, the console's log (or "")."""

    disks: tuple[tuple[Source, ...], ...]
    seed: Source | None
    console_log: str


class Place(NamedTuple):
    """Where a device is on the guest's PCI bus: what its guest names it after."""

    bus: int
    slot: int = 0


class _Machine(NamedTuple):
    """What differs between the architectures."""

    machine: str
    emulated_cpu: str
    video: str
    seed_bus: str
    has_bios: bool


_MACHINES = {
    "x86_64": _Machine("q35", "", "vga", "scsi", has_bios=True),
    # This CPU is four times faster under emulation than `maximum`.
    "aarch64": _Machine("virt", "cortex-a57", "virtio", "scsi", has_bios=False),
}

ARCHITECTURES = tuple(_MACHINES)


def build_domain(
    plan: DomainPlan, placement: Placement, cpu_model: str = "", places: Mapping[str, Place] | None = None
) -> str:
    """Return the domain's XML; `cpu_model` replaces the host's own model under KVM where that does not start.

    `places` are where devices stay, by `place_key`; libvirt finds a place for the others.
    Raises RefusedError for an architecture or firmware that this driver does not know.
    """
    machine = _MACHINES.get(plan.arch)
    if machine is None:
        raise RefusedError(f"VM {plan.name}", f"unknown architecture {plan.arch}", f"use {' or '.join(_MACHINES)}")
    if plan.firmware not in ("bios", "uefi"):
        raise RefusedError(f"VM {plan.name}", f"unknown firmware {plan.firmware}", "use bios or uefi")
    memory = str(plan.memory_mib)
    return render(
        element(
            "domain",
            element("name", text=plan.name),
            element("uuid", text=plan.uid),
            element("description", text=sanitise(plan.description)) if plan.description else None,
            element("metadata", build_label(plan)),
            element("memory", text=memory, unit="MiB"),
            element("currentMemory", text=memory, unit="MiB"),
            _vcpu(plan),
            _system(plan, machine),
            _features(plan),
            _cpu(plan, machine, cpu_model),
            _clock(plan),
            element("on_poweroff", text="destroy"),
            element("on_reboot", text="restart"),
            element("on_crash", text="destroy"),
            _suspending(plan),
            element("devices", *_keep_places(_devices(plan, placement, machine, places or {}), places or {})),
            type=plan.accelerator,
        )
    )


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


def _system(plan: DomainPlan, machine: _Machine) -> Element:
    kind = element("type", text="hvm", arch=plan.arch, machine=machine.machine)
    if plan.firmware == "bios" and machine.has_bios:
        return element("os", kind)
    # libvirt chooses the firmware file and makes the guest's own variables.
    features = element("firmware", element("feature", enabled="no", name="secure-boot"))
    return element("os", kind, features, firmware="efi")


def _maximum_cpus(plan: DomainPlan) -> int:
    # The machine of the other architecture takes no CPUs while it runs.
    return max(plan.cpus, plan.max_cpus) if plan.arch == "x86_64" else plan.cpus


def _vcpu(plan: DomainPlan) -> Element:
    maximum = _maximum_cpus(plan)
    current = str(plan.cpus) if maximum > plan.cpus else ""
    return element("vcpu", text=str(maximum), placement="static", current=current)


def _features(plan: DomainPlan) -> Element:
    if plan.arch == "x86_64":
        return element("features", element("acpi"), element("apic"))
    # The second version of the interrupt controller, QEMU's choice under emulation, serves eight CPUs.
    return element("features", element("acpi"), element("gic", version="3") if plan.cpus > GIC3_CPUS else None)


def _cpu(plan: DomainPlan, machine: _Machine, model: str) -> Element:
    topology = element("topology", sockets="1", dies="1", cores=str(_maximum_cpus(plan)), threads="1")
    if plan.accelerator == "kvm":
        if model:
            return _named_cpu(model, topology)
        if plan.arch != "x86_64":
            return element("cpu", topology, mode="host-passthrough")
        return element("cpu", element("model", fallback="allow"), topology, mode="host-model", check="partial")
    if machine.emulated_cpu:
        return _named_cpu(machine.emulated_cpu, topology)
    return element("cpu", topology, mode="maximum")


def _named_cpu(model: str, topology: Element) -> Element:
    return element("cpu", element("model", text=model), topology, mode="custom", match="exact", check="none")


def _clock(plan: DomainPlan) -> Element:
    if plan.arch != "x86_64":
        return element("clock", offset="utc")
    return element(
        "clock",
        element("timer", name="rtc", tickpolicy="catchup"),
        element("timer", name="pit", tickpolicy="delay"),
        element("timer", name="hpet", present="no"),
        offset="utc",
    )


def _suspending(plan: DomainPlan) -> Element | None:
    """Return that a guest cannot put itself to sleep, where its machine knows sleep at all."""
    if plan.arch != "x86_64":
        return None
    return element("pm", element("suspend-to-mem", enabled="no"), element("suspend-to-disk", enabled="no"))


def _devices(
    plan: DomainPlan, placement: Placement, machine: _Machine, places: Mapping[str, Place]
) -> Iterator[Element]:
    for index, (disk, chain) in enumerate(zip(plan.disks, placement.disks, strict=True)):
        yield _disk(disk, chain, index)
    if placement.seed is not None:
        yield _seed(placement.seed, machine)
    yield from _controllers(plan, machine, max((place.bus for place in places.values()), default=0))
    for nic in plan.nics:
        yield build_interface(nic)
    log = element("log", file=placement.console_log, append="on") if placement.console_log else None
    yield element("serial", log, element("target", port="0"), type="pty")
    yield element("console", element("target", type="serial", port="0"), type="pty")
    yield element("channel", element("target", type="virtio", name="org.qemu.guest_agent.0"), type="unix")
    # A socket that only QEMU's user and root can open: a port would show the screen to every user of the host.
    yield element("graphics", element("listen", type="socket"), type="vnc")
    video = {"vram": "16384"} if machine.video == "vga" else {}
    yield element("video", element("model", type=machine.video, heads="1", primary="yes", **video))
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


def _keep_places(devices: Iterable[Element], places: Mapping[str, Place]) -> Iterator[Element]:
    for device in devices:
        place = places.get(place_key(device))
        if place is not None:
            device.append(build_address(place))
        yield device


def _controllers(plan: DomainPlan, machine: _Machine, last_bus: int) -> Iterator[Element]:
    yield element("controller", type="usb", model="none")
    yield element("controller", type="virtio-serial", index="0")
    if machine.seed_bus == "scsi" and plan.seed:
        yield element("controller", type="scsi", index="0", model="virtio-scsi")
    # A port each for disks, NICs, the agent's channel, the balloon, the random numbers, and what else a machine needs.
    fixed = 3 + (1 if plan.seed else 0) + (1 if machine.video == "virtio" else 0)
    yield element("controller", type="pci", index="0", model="pcie-root")
    for index in range(max(len(plan.disks) + len(plan.nics) + fixed + SPARE_PORTS, last_bus)):
        yield element("controller", type="pci", index=str(index + 1), model="pcie-root-port")


def _disk(plan: DiskPlan, chain: tuple[Source, ...], index: int) -> Element:
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


def _seed(source: Source, machine: _Machine) -> Element:
    return element(
        "disk",
        element("driver", name="qemu", type="raw"),
        _source(source),
        element("backingStore"),
        element("target", dev="sda", bus=machine.seed_bus),
        element("readonly"),
        type="block" if source.is_block else "file",
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
        element("model", type="virtio"),
        element("mtu", size=str(plan.mtu)) if plan.mtu and source is not None else None,
        _alias(plan.id),
        type=kind,
    )


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
    machine = _MACHINES[arch]
    plan = DomainPlan(
        uid="", name=name, version=0, owner="", owner_label="", metadata="", arch=arch, cpus=1, memory_mib=PROBE_MIB,
        firmware="bios", accelerator=accelerator, disks=(), nics=(), seed="", console_log="",
    )  # fmt: skip
    disk = _disk(DiskPlan("probe", "", "raw"), (source,), 0)
    disk.append(element("readonly"))
    return render(
        element(
            "domain",
            element("name", text=name),
            element("memory", text=str(PROBE_MIB), unit="MiB"),
            element("vcpu", text="1"),
            _system(plan, machine),
            _features(plan),
            _cpu(plan, machine, cpu_model),
            _clock(plan),
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
