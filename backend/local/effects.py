"""What a change would do to an object on the host, told before it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.errors import KCError
from backend.local.creation import find_users
from backend.local.segments import list_static_users
from backend.model.addressing import FAMILIES
from backend.model.changes import compare_documents
from backend.model.documents import Document, complete
from backend.model.kinds import MACHINE_TYPE, NETWORK, VM, find_kind
from backend.model.networks import is_own
from backend.operations.domain_plan import hardware_of
from backend.operations.gateways import resolve_gateway
from backend.operations.networks import plan_network
from backend.service import Preview

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
    from backend.store.protocol import Store

_ON = ("running", "paused")
_SERVED = {"dhcp": "DHCP", "slaac": "SLAAC", "stateless": "SLAAC and DHCPv6", "dhcpv6": "DHCPv6"}


def build_preview(store: Store, hypervisor: Hypervisor, live: Document, body: Document) -> Preview:
    """Return what writing `body` over `live` would do."""
    after = {**body, "version": live["version"] + 1, "status": live.get("status", {})}
    changes = compare_documents(live, body)
    if not changes:
        return Preview(live, live, [], [])
    cuts = _find_cuts(store, hypervisor, live, body) if live["kind"] == NETWORK.name else ()
    effects = describe_effects(store, hypervisor, live, body)
    if cuts:
        effects.append(f"the segment is made anew: VM {', '.join(cuts)} is without a line for a moment")
    return Preview(live, after, changes, effects, cuts)


def describe_making(body: Document) -> list[str]:
    """Return what making an object does to the host, in lines for a person."""
    spec = body["spec"]
    if body["kind"] == VM.name:
        return ["the VM is made" + (" and started" if spec["power"] == "running" else "")]
    if body["kind"] != NETWORK.name:
        return []
    if not is_own(body):
        return [f"nothing is made: {spec['uplink'].removeprefix('bridge:')} is the host's own bridge"]
    served = [
        f"{family.replace('ip', 'IP')} by {_SERVED[mode]}"
        for family in FAMILIES
        if (mode := spec[family]["mode"]) in _SERVED
    ]
    lines = [f"a bridge is made, with a server for {' and '.join(served)}" if served else "a bridge is made"]
    if spec["vxlan"] is not None:
        lines.append(f"VXLAN {spec['vxlan']['vni']} joins it to {', '.join(spec['vxlan']['peers']) or 'its group'}")
    return lines


def _find_cuts(store: Store, hypervisor: Hypervisor, live: Document, body: Document) -> tuple[str, ...]:
    """Return which running VMs a change of their network cuts off for a moment; () where the host does not say."""
    if live["spec"] == body["spec"]:
        return ()
    try:
        return hypervisor.would_cut(plan_network(store, {**live, "spec": body["spec"]}))
    except KCError:
        return ()


def describe_effects(store: Store, hypervisor: Hypervisor, live: Document, body: Document) -> list[str]:
    """Return what becomes of an object on the host, in lines for a person; without a host, what is known without it."""
    if live["kind"] == VM.name:
        return _describe_vm_effects(store, _find_power(hypervisor, live["uid"]), live, body)
    users = find_users(store, find_kind(live["kind"]), live["uid"])
    if not users or live["spec"] == body["spec"]:
        return []
    who = f"VM {', '.join(users)}"
    if live["kind"] == MACHINE_TYPE.name:
        return [f"{who} stays at version {live['version']} of it until it is moved"]
    return _describe_network_effects(store, live, body) if live["kind"] == NETWORK.name else []


def _describe_network_effects(store: Store, live: Document, body: Document) -> list[str]:
    """Return what a changed network means to the VMs on it, beyond their line."""
    before, after = complete(live), {**body, "uid": live["uid"]}
    effects = []
    static = list_static_users(store, before)
    old, new = (resolve_gateway(store, network) for network in (before, after))
    if static and (old != new or any(before["spec"][field] != after["spec"][field] for field in ("dns", "mtu"))):
        effects.append(
            f"VM {', '.join(static)} was configured statically when it first booted: what is new is to be set inside it"
        )
    if before["spec"]["mtu"] != after["spec"]["mtu"]:
        effects.append("running VMs have the new MTU at their next start")
    if any(before["spec"][field] != after["spec"][field] for field in ("guard", "rateLimit")):
        effects.append("the guards of its ports are changed at once; isolation at each VM's next change or start")
    return effects


def _find_power(hypervisor: Hypervisor, uid: str) -> str:
    try:
        observed = hypervisor.observe(uid)
    except KCError:
        return "unknown"
    return observed.power if observed is not None else "absent"


def _describe_vm_effects(store: Store, power: str, live: Document, body: Document) -> list[str]:
    is_on = power in _ON
    before, after = live["spec"], body["spec"]
    effects = []
    if live["name"] != body["name"]:
        effects.append(f"the domain is renamed{': at the next start' if is_on else ''}")
    effects += [
        *_describe_hardware(hardware_of(store, live), hardware_of(store, body), is_on=is_on),
        *_describe_nics(before, after, is_on=is_on),
        *_describe_disks(before, after, is_on=is_on),
    ]
    if any(before[field] != after[field] for field in ("sshKeys", "userData", "passwordHash")):
        effects.append("the cloud-init seed is written anew; a guest reads it when it first boots")
    wanted = after["power"]
    if wanted == "running" and power != "running":
        effects.append("the guest goes on" if power == "paused" else "the VM is started")
    elif wanted == "paused" and power != "paused":
        effects.append("the guest is paused" if is_on else "the VM is started, and paused")
    elif wanted == "stopped" and is_on:
        effects.append("the guest is shut down")
    return effects


def _describe_hardware(old: dict[str, Any], new: dict[str, Any], *, is_on: bool) -> list[str]:
    """Return a line for each setting; what is within the headroom that the domain has is changed while it runs."""
    live = {
        "cpus": new["cpus"] <= max(old.get("maxCpus", 0), old["cpus"]),
        "memoryMiB": new["memoryMiB"] <= max(old.get("maxMemoryMiB", 0), old["memoryMiB"]),
        "diskGiB": True,
    }
    effects = []
    for field, value in new.items():
        if value == old.get(field):
            continue
        when = "while it runs" if live.get(field) else "at the next restart"
        effects.append(f"{field} {old.get(field)} → {value}: {when if is_on else 'at the next start'}")
    return effects


def _describe_nics(before: Document, after: Document, *, is_on: bool) -> list[str]:
    old_nics, new_nics = ({nic["id"]: nic for nic in spec["nics"]} for spec in (before, after))
    effects = []
    for name, nic in new_nics.items():
        known = old_nics.get(name)
        if known is None or known["mac"] != nic["mac"]:
            effects.append(f"{name} on {nic['network']['name']} is {'plugged in' if is_on else 'added'}")
        elif known["network"]["uid"] != nic["network"]["uid"]:
            effects.append(f"{name} moves from {known['network']['name']} to {nic['network']['name']}")
        elif any(known[family] != nic[family] for family in FAMILIES):
            effects.append(f"{name} is addressed anew: a guest that booted already is to be told inside")
        if known is not None and (known["guard"], known["rateLimit"]) != (nic["guard"], nic["rateLimit"]):
            effects.append(f"the guard of {name} is changed at once")
    effects += [
        f"{name} on {nic['network']['name']} is {'unplugged' if is_on else 'removed'}"
        for name, nic in old_nics.items()
        if name not in new_nics
    ]
    return effects


def _describe_disks(before: Document, after: Document, *, is_on: bool) -> list[str]:
    old, new = ({disk["id"]: disk["sizeGiB"] for disk in spec["disks"]} for spec in (before, after))
    effects = []
    for name, size in new.items():
        if name not in old:
            effects.append(f"{name}, {size} GiB, is {'plugged in' if is_on else 'added'}")
        elif size != old[name]:
            effects.append(f"{name} grows from {old[name]} to {size} GiB")
    effects += [
        f"{name} is {'unplugged' if is_on else 'removed'}; it is in the trash until its grace time has passed"
        for name in old
        if name not in new
    ]
    discs = [each["cdrom"]["name"] if each["cdrom"] is not None else "" for each in (before, after)]
    if discs[0] != discs[1]:
        effects.append(f"{discs[1]} is put into the CD-ROM drive" if discs[1] else f"{discs[0]} is ejected")
    return effects
