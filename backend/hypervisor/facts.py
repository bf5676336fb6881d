"""What a host is and can do."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import libvirt

from backend.errors import KCError
from backend.hypervisor.errors import is_lost
from backend.hypervisor.link import Link
from backend.hypervisor.machine_xml import MACHINES
from backend.hypervisor.xml import attribute, child_text, parse
from backend.paths import write_atomically
from backend.text import sanitise

# A daemon that has not yet probed its QEMUs does so now.
CAPABILITIES_SECONDS = 60.0
KVM_DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CPU_INFO = Path("/proc/cpuinfo")


class Capabilities(NamedTuple):
    """What the daemon says of its host; architectures by libvirt's names."""

    hostname: str
    libvirt_version: int
    qemu_version: int
    memory_mib: int
    cpus: int
    arch: str
    guest_archs: tuple[str, ...]
    kvm_archs: tuple[str, ...]
    has_virtualisation: bool


class CpuChoice(NamedTuple):
    """What CPUs guests of an architecture can have under an accelerator: modes and models by libvirt's names."""

    modes: frozenset[str]
    models: frozenset[str]


class HostCache:
    """Small JSON files about hosts in KC's cache folder, each good for one state of a host only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "hypervisor"

    def load(self, name: str, key: list[object]) -> Any:
        """Return what was stored under the name for this very state of the host, or None."""
        try:
            stored = json.loads(self._path(name).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return stored.get("value") if isinstance(stored, dict) and stored.get("key") == key else None

    def store(self, name: str, key: list[object], value: object) -> None:
        """Keep a value for this state of the host; a cache that cannot be written is done without."""
        try:
            write_atomically(self._path(name), json.dumps({"key": key, "value": value}).encode())
        except (OSError, KCError):
            return

    def _path(self, name: str) -> Path:
        return self._folder / f"{sha256(name.encode()).hexdigest()[:16]}.json"


def read_capabilities(link: Link, cache: HostCache) -> Capabilities:
    """Return what the host can do; asks the daemon at length only where host or versions have changed."""

    def greet(connection: libvirt.virConnect) -> tuple[str, int, int, int, int]:
        size = connection.getInfo()
        return (
            sanitise(connection.getHostname(), 255),
            connection.getLibVersion(),
            connection.getVersion(),
            _read_memory(connection) or int(size[1]),
            int(size[2]),
        )

    what = f"libvirt {link.uri}"
    hostname, libvirt_version, qemu_version, memory_mib, cpus = link.observe(what, greet, CAPABILITIES_SECONDS)
    key = _make_key(link, hostname, libvirt_version, qemu_version)
    name = f"capabilities {link.uri}"
    stored = cache.load(name, key)
    if not isinstance(stored, dict):
        xml = link.observe(what, lambda connection: connection.getCapabilities(), CAPABILITIES_SECONDS)
        stored = _read_capabilities(xml)
        cache.store(name, key, stored)
    return Capabilities(
        hostname=hostname,
        libvirt_version=libvirt_version,
        qemu_version=qemu_version,
        memory_mib=memory_mib,
        cpus=cpus,
        arch=str(stored.get("arch", "")),
        guest_archs=tuple(stored.get("guestArchs", ())),
        kvm_archs=tuple(stored.get("kvmArchs", ())),
        has_virtualisation=bool(stored.get("hasVirtualisation")),
    )


def read_cpu_choice(link: Link, cache: HostCache, arch: str, accelerator: str) -> CpuChoice:
    """Return what CPUs guests can have; asks the daemon only where host or versions have changed."""

    def greet(connection: libvirt.virConnect) -> tuple[str, int, int]:
        return sanitise(connection.getHostname(), 255), connection.getLibVersion(), connection.getVersion()

    def ask(connection: libvirt.virConnect) -> str:
        return connection.getDomainCapabilities(None, arch, MACHINES[arch].machine, accelerator)

    what = f"libvirt {link.uri}"
    key = _make_key(link, *link.observe(what, greet, CAPABILITIES_SECONDS))
    name = f"cpus {arch} {accelerator} {link.uri}"
    stored = cache.load(name, key)
    if not isinstance(stored, dict):
        stored = _read_cpu_choice(link.observe(what, ask, CAPABILITIES_SECONDS))
        cache.store(name, key, stored)
    return CpuChoice(frozenset(stored.get("modes", ())), frozenset(stored.get("models", ())))


def _make_key(link: Link, hostname: str, libvirt_version: int, qemu_version: int) -> list[object]:
    return [hostname, libvirt_version, qemu_version, *machine_state(link)]


def machine_state(link: Link) -> list[object]:
    """Return what may change on this machine without any version changing: its boot, and its KVM device."""
    if not link.is_local:
        return []
    try:
        boot = BOOT_ID.read_text("ascii").strip()
    except OSError:
        boot = ""
    try:
        device: list[int] = [KVM_DEVICE.stat().st_mode, KVM_DEVICE.stat().st_gid]
    except OSError:
        device = []
    return [os.uname().release, boot, device]


def has_virtualisation_flag() -> bool:
    """Return whether this machine's CPU has the instructions that KVM needs on x86."""
    try:
        words = CPU_INFO.read_text("ascii", errors="replace").split()
    except OSError:
        return False
    return "vmx" in words or "svm" in words


def format_version(number: int) -> str:
    """Return a version as libvirt counts it (1000000 · major + 1000 · minor + release) as text."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _read_memory(connection: libvirt.virConnect) -> int:
    """Return the host's memory in MiB; 0 where it is not told. The sum over NUMA cells leaves out what was added."""
    try:
        return int(connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS).get("total", 0)) // 1024
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        return 0


def _read_capabilities(xml: str) -> dict[str, Any]:
    root = parse(xml)
    guests: dict[str, list[str]] = {}
    for guest in root.findall("guest"):
        if child_text(guest, "os_type") == "hvm":
            kinds = [domain.get("type", "") for domain in guest.findall("arch/domain")]
            guests.setdefault(sanitise(attribute(guest, "arch", "name")), []).extend(kinds)
    features = {feature.get("name") for feature in root.findall("host/cpu/feature")}
    return {
        "arch": sanitise(child_text(root, "host/cpu/arch")),
        "guestArchs": sorted(guests),
        "kvmArchs": sorted(arch for arch, kinds in guests.items() if "kvm" in kinds),
        "hasVirtualisation": bool(features & {"vmx", "svm"}),
    }


def _read_cpu_choice(xml: str) -> dict[str, list[str]]:
    cpu = parse(xml).find("cpu")
    modes = cpu.findall("mode[@supported='yes']") if cpu is not None else []
    models = cpu.findall("mode[@name='custom'][@supported='yes']/model") if cpu is not None else []
    return {
        "modes": sorted(mode.get("name", "") for mode in modes),
        # Of emulated CPUs of other architectures it is not known beforehand.
        "models": sorted((model.text or "").strip() for model in models if model.get("usable") != "no"),
    }
