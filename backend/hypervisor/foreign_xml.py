"""A domain that KC did not make: what KC would leave as it is, in words for an operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

from backend.hypervisor.domain_xml import MANAGED_KINDS
from backend.hypervisor.xml import NAMESPACE, attribute, child_text
from backend.text import sanitise

_LINE_LENGTH = 300
_MANAGED = frozenset({"name", "uuid", "description", "memory", "currentMemory", "vcpu", "vcpus", "metadata", "devices"})
_SOURCE_NAMES = ("file", "dev", "dir", "volume", "name", "path", "bridge", "network", "address", "mode", "type")
# What every domain has, what nobody would miss in a list, or what KC uses.
_USUAL = frozenset({"emulator", "memballoon"})
_SETTINGS = {
    "title": "title",
    "genid": "generation id",
    "maxMemory": "slots for memory",
    "memoryBacking": "memory backing",
    "memtune": "memory limits",
    "numatune": "NUMA placement",
    "blkiotune": "disk limits",
    "cputune": "CPU placement and limits",
    "iothreads": "I/O threads",
    "iothreadids": "I/O threads",
    "sysinfo": "SMBIOS texts",
    "resource": "resource partition",
    "cpu": "CPU model",
    "features": "machine features",
    "clock": "clock",
    "pm": "sleep states",
    "perf": "performance events",
    "idmap": "user id mapping",
    "seclabel": "security label",
    "launchSecurity": "memory encryption",
    "keywrap": "key wrapping",
    "on_poweroff": "on power-off",
    "on_reboot": "on reboot",
    "on_crash": "crash policy",
    "on_lockfailure": "on a lost lock",
}


def describe_untouched(root: Element) -> list[str]:
    """Return a line for each thing of a domain that KC would not manage."""
    lines = [*_describe_system(root.find("os")), *_describe_devices(root), *_describe_rest(root)]
    return [sanitise(line, _LINE_LENGTH) for line in lines]


def _describe_system(system: Element | None) -> Iterator[str]:
    if system is None:
        return
    loader, nvram = child_text(system, "loader"), child_text(system, "nvram")
    is_uefi = system.get("firmware") == "efi" or attribute(system, "loader", "type") == "pflash"
    files = ", ".join(filter(None, (loader, f"variables in {nvram}" if nvram else "")))
    yield f"firmware: {'UEFI' if is_uefi else 'BIOS'}{f' ({files})' if files else ''}"
    yield f"machine: {attribute(system, 'type', 'machine')}"
    if system.find("kernel") is not None:
        yield f"kernel: {child_text(system, 'kernel')} {child_text(system, 'cmdline')}".rstrip()
    boot = [item.get("dev", "") for item in system.findall("boot")]
    if boot:
        yield f"boot order: {', '.join(boot)}"


def _describe_devices(root: Element) -> Iterator[str]:
    devices = root.find("devices")
    if devices is None:
        return
    controllers = Counter(item.get("type", "") for item in devices.findall("controller"))
    seen: Counter[str] = Counter()
    for item in devices:
        describe = _DEVICES.get(item.tag)
        seen[item.tag] += 1
        if item.tag in _USUAL or item.tag == "controller":
            continue
        if item.tag == "interface" and item.get("type") in MANAGED_KINDS:
            continue
        # KC shows the first one.
        if item.tag in ("serial", "console") and seen[item.tag] == 1:
            continue
        yield describe(item) if describe is not None else f"device <{item.tag}>, not known to KC"
    if controllers:
        yield "controllers: " + ", ".join(f"{count} × {name}" for name, count in sorted(controllers.items()))


def _describe_rest(root: Element) -> Iterator[str]:
    settings: list[str] = []
    for item in root:
        tag = item.tag
        if tag in _SETTINGS:
            settings.append(_SETTINGS[tag])
        elif tag.startswith("{"):
            space, _, name = tag[1:].partition("}")
            words = [word for child in item for word in child.attrib.values()]
            yield f"{name} of {space}{': ' if words else ''}{' '.join(words)}"
        elif tag not in _MANAGED and tag != "os":
            yield f"setting <{tag}>, not known to KC"
    if settings:
        yield f"settings: {', '.join(dict.fromkeys(settings))}"
    for item in root.findall("metadata/*"):
        space = item.tag[1:].partition("}")[0] if item.tag.startswith("{") else item.tag
        if space != NAMESPACE:
            yield f"metadata of {space}"


def _source(item: Element) -> str:
    """Return where a device has its data from, by whatever libvirt calls that."""
    source = item.find("source")
    if source is None:
        return ""
    found = next((source.get(name, "") for name in _SOURCE_NAMES if source.get(name)), "")
    before = source.get("pool") or source.get("protocol") or ""
    return f"{before}:{found}" if before and found else found


def _disk(item: Element) -> str:
    words = {"cdrom": "CD-ROM drive", "floppy": "floppy drive", "lun": "SCSI disk"}
    name = f"{words.get(item.get('device', 'disk'), 'disk')} {attribute(item, 'target', 'dev')}"
    return f"{name}: {_source(item) or 'empty'}"


def _host_device(item: Element) -> str:
    address = item.find("source/address")
    vendor, product = attribute(item, "source/vendor", "id"), attribute(item, "source/product", "id")
    where = ":".join(address.attrib.values()) if address is not None else ":".join(filter(None, (vendor, product)))
    return f"device of the host: {item.get('type', '')} {where or _source(item)}".rstrip()


def _shared_folder(item: Element) -> str:
    return f"shared folder {attribute(item, 'target', 'dir')}: {_source(item)}"


def _graphics(item: Element) -> str:
    port = item.get("port", "")
    where = item.get("listen") or item.get("socket") or attribute(item, "listen", "address")
    return f"screen: {item.get('type', '')} {where}{f' port {port}' if port not in ('', '-1') else ''}".rstrip()


def _tpm(item: Element) -> str:
    return f"TPM: {attribute(item, 'backend', 'type')} {attribute(item, 'backend', 'version')}".rstrip()


def _nic(item: Element) -> str:
    what = f"NIC {attribute(item, 'mac', 'address')}, of the kind {item.get('type', '')}"
    source = _source(item)
    return f"{what}: {source}" if source else what


def _named(name: str, *paths: str) -> Callable[[Element], str]:
    """Return what describes a device by a word, and the attributes (`path@name`) that tell more."""

    def describe(item: Element) -> str:
        values = []
        for path in paths:
            where, _, what = path.rpartition("@")
            values.append(attribute(item, where, what) if where else item.get(what, ""))
        more = " ".join(filter(None, values))
        return f"{name}: {more}" if more else name

    return describe


_DEVICES: dict[str, Callable[[Element], str]] = {
    "disk": _disk,
    "interface": _nic,
    "hostdev": _host_device,
    "filesystem": _shared_folder,
    "graphics": _graphics,
    "tpm": _tpm,
    "video": _named("video", "model@type"),
    "sound": _named("sound", "@model"),
    "audio": _named("audio", "@type"),
    "input": _named("input", "@type", "@bus"),
    "serial": _named("further serial port", "@type"),
    "console": _named("further console", "@type", "target@type"),
    "parallel": _named("parallel port", "@type"),
    "channel": _named("channel", "@type", "target@name"),
    "redirdev": _named("redirected USB", "@type"),
    "smartcard": _named("smart card", "@mode"),
    "watchdog": _named("watchdog", "@model", "@action"),
    "panic": _named("panic device", "@model"),
    "rng": _named("random numbers", "@model", "backend@model"),
    "hub": _named("hub", "@type"),
    "iommu": _named("IOMMU", "@model"),
    "vsock": _named("vsock", "cid@address"),
    "shmem": _named("shared memory", "@name"),
    "memory": _named("memory device", "@model"),
    "nvram": _named("NVRAM device"),
    "lease": _named("lease"),
    "crypto": _named("crypto device", "@model"),
}
