"""What a close look at one VM tells beyond its state: drift, disks, snapshots, its screen, a newer machine type."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from backend.errors import KCError
from backend.local.drift import find_drift
from backend.model.documents import Document, is_readable
from backend.model.kinds import MACHINE_TYPE
from backend.operations.domain_plan import disk_sizes, disk_volume
from backend.operations.guards import plan_guards
from backend.operations.vm_disks import describe_snapshots

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
    from backend.store.protocol import Store


def inspect(store: Store, hypervisor: Hypervisor, shown: Document) -> Document:
    """Return a shown VM with what a close look tells; what the host does not tell is left out."""
    if not is_readable(shown) or shown["version"] == 0:
        return shown
    status: dict[str, Any] = dict(shown["status"])
    machine_type = store.get(MACHINE_TYPE.name, shown["spec"]["type"]["uid"])
    if machine_type is not None and machine_type["version"] > shown["spec"]["type"]["version"]:
        status["newerType"] = machine_type["version"]
    if not status.get("stale"):
        for field, look in (("drift", find_drift), ("disks", _list_disks), ("snapshots", _list_snapshots)):
            with suppress(KCError):
                status[field] = look(store, hypervisor, shown)
        status["guards"] = _list_guards(store, hypervisor, shown)
        with suppress(KCError):
            status["display"] = hypervisor.display_address(shown["uid"]) if status["power"] != "absent" else ""
    return {**shown, "status": status}


def _list_snapshots(_store: Store, hypervisor: Hypervisor, shown: Document) -> list[dict[str, Any]]:
    return describe_snapshots(hypervisor, shown)


def _list_disks(store: Store, hypervisor: Hypervisor, shown: Document) -> list[dict[str, Any]]:
    """Return the VM's own disks, with what the guest may have and what that takes in the pool."""
    volumes = {volume.name: volume for volume in hypervisor.list_volumes(f"kc-{shown['uid']}-")}
    names = {name: disk_volume(shown["uid"], name) for name in disk_sizes(store, shown)}
    return [
        {"id": name, "sizeBytes": volumes[volume].capacity_bytes, "usedBytes": volumes[volume].allocation_bytes}
        for name, volume in names.items()
        if volume in volumes
    ]


def _list_guards(store: Store, hypervisor: Hypervisor, shown: Document) -> list[dict[str, Any]]:
    """Return what each NIC may not do, whether the host sees to it (`active`), and what was dropped for it."""
    try:
        found = {each.tap: each for each in hypervisor.guard_drops(store.identity, shown["uid"])}
    except KCError:
        found = {}
    is_on = shown["status"]["power"] in ("running", "paused")
    guards = []
    for nic, guard in plan_guards(store, shown):
        entry = {
            "nic": nic,
            "antiSpoof": "off" if not guard.mac_only else "mac" if guard.ipv4 is guard.ipv6 is None else "address",
            "dhcpGuard": guard.no_dhcp_server,
            "raGuard": guard.no_router,
            "isolated": guard.isolated,
            "receiveBytesPerSecond": guard.receive_rate,
            "sendBytesPerSecond": guard.send_rate,
        }
        drops = found.get(guard.tap)
        # One that began before its port had a name of ours has a guard that nothing passes.
        entry["active"] = drops is not None and (drops.present or not is_on)
        guards.append({**entry, "drops": dict(drops.drops) if drops is not None else {}})
    return guards
