"""Storage pools and volumes as XML, both ways."""

from __future__ import annotations

from typing import NamedTuple

from backend.hypervisor.plan import Volume
from backend.hypervisor.xml import attribute, child_text, element, parse, render
from backend.text import sanitise

# Others may pass through, as QEMU's user must, but not look around.
POOL_MODE = "0711"
QCOW2_COMPAT = "1.1"
# Pools whose volumes are files, so that a console's log can lie among them.
FILE_POOLS = frozenset({"dir", "fs", "netfs"})


class VolumeDetails(NamedTuple):
    """A volume, its kind (`file`, `block`, `network` …), and the path of what backs it (or "") with its format."""

    volume: Volume
    kind: str
    backing_path: str
    backing_format: str


class PoolDetails(NamedTuple):
    """A pool: its type and its folder."""

    type: str
    path: str


def build_pool(name: str, path: str) -> str:
    """Return the XML of a pool that is a folder."""
    target = element("target", element("path", text=path), element("permissions", element("mode", text=POOL_MODE)))
    return render(element("pool", element("name", text=name), target, type="dir"))


def build_raw(name: str, size_bytes: int) -> str:
    """Return the XML of a raw volume that takes no room yet."""
    return _volume(name, size_bytes, "raw", "", "")


def build_overlay(name: str, size_bytes: int, base_path: str, base_format: str) -> str:
    """Return the XML of a qcow2 volume over another one."""
    return _volume(name, size_bytes, "qcow2", base_path, base_format)


def build_blank(name: str, size_bytes: int) -> str:
    """Return the XML of an empty qcow2 volume."""
    return _volume(name, size_bytes, "qcow2", "", "")


def _volume(name: str, size_bytes: int, volume_format: str, base_path: str, base_format: str) -> str:
    backing = None
    if base_path:
        backing = element("backingStore", element("path", text=base_path), element("format", type=base_format))
    # libvirt's own choice is the qcow2 of 2008, which does not grow once it has a snapshot.
    compat = element("compat", text=QCOW2_COMPAT) if volume_format == "qcow2" else None
    return render(
        element(
            "volume",
            element("name", text=name),
            element("capacity", text=str(size_bytes), unit="bytes"),
            element("allocation", text="0", unit="bytes"),
            element("target", element("format", type=volume_format), compat),
            backing,
        )
    )


def read_pool(xml: str) -> PoolDetails:
    """Return what kind of pool it is, and where."""
    root = parse(xml)
    return PoolDetails(root.get("type", ""), child_text(root, "target/path"))


def read_volume(xml: str) -> VolumeDetails:
    """Return a volume and what backs it."""
    root = parse(xml)
    volume = Volume(
        name=sanitise(child_text(root, "name")),
        path=child_text(root, "target/path"),
        format=attribute(root, "target/format", "type") or "raw",
        capacity_bytes=int(child_text(root, "capacity") or 0),
        allocation_bytes=int(child_text(root, "allocation") or 0),
    )
    return VolumeDetails(
        volume=volume,
        kind=root.get("type", "file"),
        backing_path=child_text(root, "backingStore/path"),
        backing_format=attribute(root, "backingStore/format", "type"),
    )


def read_changed_at(xml: str) -> float:
    """Return when a volume was written to last, in seconds since the epoch; 0 where its pool does not tell."""
    text = child_text(parse(xml), "target/timestamps/mtime")
    try:
        return float(text)
    except ValueError:
        return 0.0
