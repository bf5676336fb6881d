"""From a VM's document to the domain that it asks for: its references looked up, its volumes named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backend.errors import NotFoundError
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.images.volumes import image_volume
from backend.model.documents import Document, complete
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, Kind
from backend.model.networks import is_own, libvirt_name
from backend.model.parameters import resolve_hardware
from backend.operations.guards import plan_guard

if TYPE_CHECKING:
    from backend.store.protocol import Store

GIB = 1 << 30
ROOT = "root"
"""The id of a VM's first disk, which is made over its image."""


def disk_volume(uid: str, disk: str) -> str:
    """Return the name of a VM's disk volume."""
    return f"kc-{uid}-{disk}"


def seed_volume(uid: str) -> str:
    """Return the name of a VM's cloud-init seed."""
    return f"kc-{uid}-seed"


def console_volume(uid: str) -> str:
    """Return the name of the file that collects what a VM's serial console says."""
    return f"kc-{uid}-console.log"


def find_pinned(store: Store, kind: Kind, reference: Document) -> Document:
    """Return the document that a reference is pinned to, at its pinned version where that is still kept."""
    uid, name = reference["uid"], reference["name"]
    document = store.get(kind.name, uid)
    version = reference.get("version", 0)
    if version and (document is None or document["version"] != version):
        kept = [entry.document for entry in store.history(kind.name, uid) if entry.version == version]
        document = kept[0] if kept and kept[0] is not None else document
    if document is None:
        hint = f"kc {kind.command} restore {name} brings it back"
        raise NotFoundError(f"{kind.title} {name}", "it was deleted", hint)
    return document


def hardware_of(store: Store, vm: Document) -> dict[str, Any]:
    """Return the hardware that a VM's document asks for, with its architecture."""
    machine_type = find_pinned(store, MACHINE_TYPE, vm["spec"]["type"])["spec"]
    hardware = resolve_hardware(machine_type, vm["spec"]["parameters"])
    return {**hardware, "arch": machine_type["arch"]}


def networks_of(store: Store, vm: Document) -> list[Document]:
    """Return the networks of a VM's NICs, in their order."""
    return [complete(find_pinned(store, NETWORK, nic["network"])) for nic in vm["spec"]["nics"]]


def disk_sizes(store: Store, vm: Document) -> dict[str, int]:
    """Return how large each disk of a VM is to be, in bytes, by its id; the first one first."""
    spec = vm["spec"]
    if spec["image"] is None:
        return {}
    image = find_pinned(store, IMAGE, spec["image"])["spec"]
    root = max(hardware_of(store, vm)["diskGiB"] * GIB, image["virtualSizeBytes"])
    return {ROOT: root, **{disk["id"]: disk["sizeGiB"] * GIB for disk in spec["disks"]}}


def plan_domain(store: Store, vm: Document, *, owner_label: str, accelerator: str) -> DomainPlan:
    """Return the domain that a VM's document wants."""
    spec, uid = vm["spec"], vm["uid"]
    hardware = hardware_of(store, vm)
    networks = networks_of(store, vm)
    nics = tuple(_plan_nic(nic, vm, network) for nic, network in zip(spec["nics"], networks, strict=True))
    plan = DomainPlan(
        uid=uid,
        name=vm["name"],
        version=vm["version"],
        owner=store.identity,
        owner_label=owner_label,
        metadata=json.dumps(vm["metadata"], ensure_ascii=False, sort_keys=True),
        arch=hardware["arch"],
        cpus=hardware["cpus"],
        memory_mib=hardware["memoryMiB"],
        firmware=hardware["firmware"],
        accelerator=accelerator,
        disks=(),
        nics=nics,
        seed="",
        console_log="",
        description=spec["description"],
        max_cpus=hardware["maxCpus"],
        max_memory_mib=hardware["maxMemoryMiB"],
        secure_boot=hardware["secureBoot"],
        cpu_models=tuple(hardware["cpuModels"]),
        on_crash=spec["onCrash"],
        autostart=spec["autostart"] and spec["power"] == "running",
        adopted=spec["adopted"],
    )
    if spec["adopted"]:
        return plan
    disc = find_pinned(store, IMAGE, spec["cdrom"])["spec"] if spec["cdrom"] is not None else None
    return plan._replace(
        disks=_plan_disks(store, vm),
        seed=seed_volume(uid),
        console_log=console_volume(uid),
        cdrom=image_volume(disc) if disc is not None else "",
    )


def _plan_disks(store: Store, vm: Document) -> tuple[DiskPlan, ...]:
    image = find_pinned(store, IMAGE, vm["spec"]["image"])["spec"]
    base = {"base_volume": image_volume(image), "base_format": image["format"]}
    return tuple(
        DiskPlan(name, disk_volume(vm["uid"], name), capacity_bytes=size, **(base if name == ROOT else {}))
        for name, size in disk_sizes(store, vm).items()
    )


def _plan_nic(nic: Document, vm: Document, network: Document) -> NicPlan:
    spec = network["spec"]
    plan = NicPlan(nic["id"], nic["mac"], mtu=spec["mtu"] or 0)
    if is_own(network):
        plan = plan._replace(network=libvirt_name(network))
    else:
        plan = plan._replace(bridge=spec["uplink"].removeprefix("bridge:"))
    if vm["spec"]["adopted"]:
        return plan
    guard = plan_guard(nic, vm, network)
    return plan._replace(tap=guard.tap, isolated=guard.isolated)
