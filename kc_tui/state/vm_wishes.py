"""What a VM's document would be after a verb: each takes the spec as it is and gives the one that is wished for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backend.model.documents import name_of
from kc_tui.state.create_vm import complain_about_name
from kc_tui.state.draft import Nic
from kc_tui.state.nic_options import GUARDS, build_nic

Spec = dict[str, Any]


def complain_about_size(text: str, least: int = 1) -> str:
    """Return what is wrong with the size of a disk in GiB."""
    try:
        size = int(text)
    except ValueError:
        return "a whole number is wanted"
    return "" if size >= least else f"at least {least}"


def complain_about_snapshot(name: str) -> str:
    """Return what is wrong with the name of a snapshot; an empty one is given by KC."""
    return complain_about_name(name, frozenset()) if name else ""


def add_nic(spec: Spec, nic: Nic) -> Spec:
    """Wish for one more NIC."""
    return spec | {"nics": [*spec.get("nics", []), build_nic(nic)]}


def change_nic(spec: Spec, nic_id: str, nic: Nic) -> Spec:
    """Wish for other addresses, guards and rates of a NIC; its network and its MAC stay."""
    wished = build_nic(nic)
    guard = {field: getattr(nic, name) for name, (field, _, _) in GUARDS.items()}
    more = {"guard": guard, "rateLimit": wished.get("rateLimit"), "ipv4": wished["ipv4"], "ipv6": wished["ipv6"]}
    return spec | {"nics": [item | more if item.get("id") == nic_id else item for item in spec.get("nics", [])]}


def remove_nic(spec: Spec, nic_id: str) -> Spec:
    """Wish for all NICs but one."""
    return spec | {"nics": [nic for nic in spec.get("nics", []) if nic.get("id") != nic_id]}


def add_disk(spec: Spec, size_gib: int) -> Spec:
    """Wish for one more disk."""
    return spec | {"disks": [*spec.get("disks", []), {"sizeGiB": size_gib}]}


def remove_disk(spec: Spec, disk_id: str) -> Spec:
    """Wish for all disks but one."""
    return spec | {"disks": [disk for disk in spec.get("disks", []) if disk.get("id") != disk_id]}


def grow_disk(spec: Spec, disk_id: str, size_gib: int) -> Spec:
    """Wish for a larger disk; the first one's size is a parameter of the machine type."""
    if disk_id == ROOT:
        return set_parameters(spec, {"diskGiB": size_gib})
    disks = [disk | {"sizeGiB": size_gib} if disk.get("id") == disk_id else disk for disk in spec.get("disks", [])]
    return spec | {"disks": disks}


def insert_disc(spec: Spec, image: str | None) -> Spec:
    """Wish for an image in the CD-ROM drive, or for none."""
    return spec | {"cdrom": None if image is None else {"name": image}}


def set_parameters(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """Wish for other values of the machine type's parameters; those that are not named stay."""
    return spec | {"parameters": {**spec.get("parameters", {}), **values}}


def move_to_type(spec: Spec, machine_type: Mapping[str, Any]) -> Spec:
    """Wish for a machine type (a document) in its newest version; parameters that it has not are left out."""
    known = machine_type.get("spec", {}).get("parameters", {})
    reference = {key: machine_type[key] for key in ("name", "uid", "version")}
    kept = {name: value for name, value in spec.get("parameters", {}).items() if name in known}
    return spec | {"type": reference, "parameters": kept}


ROOT: Final = "root"
"""The id of the first disk, which is the image's."""


def name_nics(spec: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the id, the network and the MAC of each NIC."""
    return [(str(nic.get("id", "")), name_of(nic.get("network")), str(nic.get("mac", ""))) for nic in spec["nics"]]


def disk_sizes(spec: Mapping[str, Any], hardware: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of a VM's disks in GiB by their ids, the first disk's among them where it is KC's."""
    sizes = {str(disk.get("id", "")): int(disk.get("sizeGiB", 0)) for disk in spec.get("disks", [])}
    first = hardware.get("diskGiB")
    return ({ROOT: first} if isinstance(first, int) and not spec.get("adopted") else {}) | sizes
