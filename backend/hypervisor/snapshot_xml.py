"""Snapshots and the disks of domains, as libvirt writes them."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.plan import Snapshot
from backend.hypervisor.xml import attribute, child_text, element, parse, render
from backend.text import sanitise

_ON = frozenset({"running", "paused", "blocked", "pmsuspended"})
NAME_LIMIT = 200


class Disk(NamedTuple):
    """A disk that a guest may write to: its name in libvirt, where it is, and its format."""

    target: str
    path: str
    format: str


def build_snapshot(name: str, description: str) -> str:
    """Return the XML of a snapshot within a domain's disks, of all that it may write to."""
    return render(
        element(
            "domainsnapshot",
            element("name", text=name),
            element("description", text=sanitise(description)) if description else None,
        )
    )


def read_snapshot(xml: str) -> Snapshot:
    """Return a snapshot of libvirt's; `method` is `external` for one that is in files beside the disks."""
    root = parse(xml)
    memory = attribute(root, "memory", "snapshot")
    kinds = {disk.get("snapshot", "") for disk in root.iterfind("disks/disk")} | {memory}
    at = child_text(root, "creationTime")
    return Snapshot(
        name=sanitise(child_text(root, "name"), NAME_LIMIT),
        at=float(at) if at.isdecimal() else 0.0,
        # Those of libvirt before 1.0 do not tell.
        has_memory=memory != "no" and (bool(memory) or child_text(root, "state") in _ON),
        method="external" if "external" in kinds else "internal",
    )


def read_snapshot_disks(xml: str) -> list[Disk] | None:
    """Return the disks that the domain had when it was taken; None where libvirt did not keep it."""
    domain = parse(xml).find("domain")
    return None if domain is None else _find_disks(domain)


def read_disks(xml: str) -> list[Disk]:
    """Return the disks of a domain that its guest may write to."""
    return _find_disks(parse(xml))


def has_added_cpus(xml: str) -> bool:
    """Return whether a domain has CPUs that it was not started with."""
    cpus = parse(xml).findall("vcpus/vcpu")
    return any(cpu.get("enabled") == "yes" and cpu.get("hotpluggable") == "yes" for cpu in cpus)


def has_pflash(xml: str) -> bool:
    """Return whether a domain has its firmware, UEFI, in flash memory."""
    root = parse(xml)
    system = root.find("os")
    return system is not None and (system.get("firmware") == "efi" or attribute(system, "loader", "type") == "pflash")


def _find_disks(domain: Element) -> list[Disk]:
    found = []
    for disk in domain.iterfind("devices/disk"):
        if disk.find("readonly") is not None or disk.get("device", "disk") != "disk":
            continue
        source = disk.find("source")
        path = (source.get("file") or source.get("dev") or "") if source is not None else ""
        found.append(Disk(attribute(disk, "target", "dev"), path, attribute(disk, "driver", "type")))
    return found
