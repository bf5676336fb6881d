"""The steps that make a host match a VM's document, whether it is new, changed, stopped or gone."""

from __future__ import annotations

import json

from backend.errors import FailedError, NotFoundError, RefusedError
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.images.volumes import image_volume
from backend.model.documents import Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK
from backend.model.networks import libvirt_name
from backend.model.parameters import resolve_hardware
from backend.operations.networks import ensure_network, seed_nic
from backend.operations.steps import Context, Step

GIB = 1 << 30
STOP_GRACE_SECONDS = 60.0
_PATHS = {
    "cpus": "spec.parameters.cpus", "memory": "spec.parameters.memoryMiB", "firmware": "spec.type",
    "disk:root": "spec.parameters.diskGiB",
}  # fmt: skip
"""Where a document says what a driver calls by these words; the rest are NICs."""


def disk_volume(uid: str, disk: str) -> str:
    """Return the name of a VM's disk volume."""
    return f"kc-{uid}-{disk}"


def seed_volume(uid: str) -> str:
    """Return the name of a VM's cloud-init seed."""
    return f"kc-{uid}-seed"


def console_volume(uid: str) -> str:
    """Return the name of the file that collects what a VM's serial console says."""
    return f"kc-{uid}-console.log"


def _pinned(context: Context, kind: str, reference: Document) -> Document:
    """Return the document that a reference is pinned to, at its pinned version where that is still kept."""
    uid, name = reference["uid"], reference["name"]
    document = context.store.get(kind, uid)
    version = reference.get("version", 0)
    if version and (document is None or document["version"] != version):
        kept = [entry.document for entry in context.store.history(kind, uid) if entry.version == version]
        document = kept[0] if kept and kept[0] is not None else document
    if document is None:
        raise NotFoundError(f"{kind} {name}", "it was deleted", "name another one")
    return document


def _hardware(context: Context) -> Document:
    spec = context.target["spec"]
    machine_type = _pinned(context, MACHINE_TYPE.name, spec["type"])["spec"]
    hardware = resolve_hardware(machine_type, spec["parameters"])
    return {**hardware, "arch": machine_type["arch"], "firmware": machine_type["firmware"]}


def _network_documents(context: Context) -> list[Document]:
    return [_pinned(context, NETWORK.name, nic["network"]) for nic in context.target["spec"]["nics"]]


def _wants_power(context: Context) -> bool:
    return bool(context.target["spec"]["power"] == "running")


def ensure_networks(context: Context) -> None:
    """Have every network of the VM up; a VM that stays off needs none."""
    if _wants_power(context):
        for network in {document["uid"]: document for document in _network_documents(context)}.values():
            ensure_network(context.hypervisor, network)


def check_image(context: Context) -> None:
    """Make sure that the image's bytes are in the pool."""
    image = _pinned(context, IMAGE.name, context.target["spec"]["image"])
    if context.hypervisor.find_volume(image_volume(image["spec"])) is None:
        raise FailedError(
            f"image {image['name']}", "its bytes are not in the pool", f"upload it again, or delete {image['name']}"
        )


def ensure_disk(context: Context) -> None:
    """Make the VM's disk over its image."""
    image = _pinned(context, IMAGE.name, context.target["spec"]["image"])["spec"]
    context.hypervisor.ensure_overlay(
        disk_volume(context.target["uid"], "root"),
        base=image_volume(image),
        base_format=image["format"],
        capacity_bytes=max(_hardware(context)["diskGiB"] * GIB, image["virtualSizeBytes"]),
    )


def ensure_seed(context: Context) -> None:
    """Write the cloud-init seed, unless the very same one is there."""
    import io  # noqa: PLC0415 - only operations write seeds

    from backend.images.seed import build_seed  # noqa: PLC0415 - pulls in pycdlib and PyYAML

    spec, uid = context.target["spec"], context.target["uid"]
    networks = _network_documents(context)
    seed = build_seed(
        hostname=context.target["name"],
        instance_id=uid,
        ssh_keys=spec["sshKeys"],
        user_data=spec["userData"],
        nics=[seed_nic(nic, network) for nic, network in zip(spec["nics"], networks, strict=True)],
    )
    name = seed_volume(uid)
    if context.hypervisor.find_volume(name) is None or context.hypervisor.read_volume(name) != seed:
        context.hypervisor.upload(name, io.BytesIO(seed), len(seed))


def define_domain(context: Context) -> None:
    """Define the domain as the document wants it."""
    context.hypervisor.ensure_defined(plan_domain(context))


def plan_domain(context: Context) -> DomainPlan:
    """Return the domain that the document wants."""
    document, spec, uid = context.target, context.target["spec"], context.target["uid"]
    image = _pinned(context, IMAGE.name, spec["image"])["spec"]
    hardware = _hardware(context)
    starter = image_volume(image) if image["source"].startswith("starter:") else ""
    accelerator = context.hypervisor.accelerator(hardware["arch"], starter)
    networks = _network_documents(context)
    context.status["hardware"] = hardware
    context.status["accelerator"] = "kvm" if accelerator == "kvm" else "tcg"
    return DomainPlan(
        uid=uid,
        name=document["name"],
        version=document["version"],
        owner=context.store.identity,
        owner_label=context.owner_label,
        metadata=json.dumps(document["metadata"], ensure_ascii=False, sort_keys=True),
        arch=hardware["arch"],
        cpus=hardware["cpus"],
        memory_mib=hardware["memoryMiB"],
        firmware=hardware["firmware"],
        accelerator=accelerator,
        disks=(DiskPlan("root", disk_volume(uid, "root"), "qcow2", image_volume(image), image["format"]),),
        nics=tuple(
            _plan_nic(nic, network) for nic, network in zip(spec["nics"], networks, strict=True)
        ),
        seed=seed_volume(uid),
        console_log=console_volume(uid),
        description=spec["description"],
    )  # fmt: skip


def _plan_nic(nic: Document, network: Document) -> NicPlan:
    uplink = network["spec"]["uplink"]
    mtu = network["spec"]["mtu"] or 0
    if uplink.startswith("bridge:"):
        return NicPlan(nic["id"], nic["mac"], bridge=uplink.removeprefix("bridge:"), mtu=mtu)
    return NicPlan(nic["id"], nic["mac"], network=libvirt_name(network), mtu=mtu)


def settle_power(context: Context) -> None:
    """Start the domain where the document wants it running, and change what already ran as far as that can be done."""
    if _wants_power(context):
        context.hypervisor.ensure_running(context.target["uid"])
        waiting = context.hypervisor.apply_live(plan_domain(context))
        context.status["pendingRestart"] = [
            _PATHS.get(word, f"spec.nics.{word.removeprefix('nic:')}") for word in waiting
        ]
    _note_power(context)


def reach_power(context: Context) -> None:
    """Start or change the domain, or shut its guest down, as the document wants it."""
    if _wants_power(context):
        settle_power(context)
    else:
        stop_domain(context)


def _note_power(context: Context) -> None:
    observed = context.hypervisor.observe(context.target["uid"])
    context.status["power"] = observed.power if observed is not None else "absent"
    context.status["appliedVersion"] = context.target["version"]


def stop_domain(context: Context) -> None:
    """Shut the guest down by ACPI within its grace time, or at once where that was asked for."""
    force = bool(context.parameters.get("force"))
    grace = 0.0 if force else float(context.parameters.get("graceSeconds", STOP_GRACE_SECONDS))
    if not context.hypervisor.ensure_stopped(context.target["uid"], grace_seconds=grace, force=force):
        name = context.target["name"]
        raise FailedError(
            f"VM {name}", f"the guest did not power off within {grace:.0f} s", f"kc vm stop {name} --force"
        )
    _note_power(context)


def reboot_domain(context: Context) -> None:
    """Reboot the guest."""
    context.hypervisor.reboot(context.target["uid"], force=bool(context.parameters.get("force")))
    _note_power(context)


def power_off(context: Context) -> None:
    """Cut the power of a VM that is to go, once the domain is known to be ours."""
    observed = context.hypervisor.observe(context.target["uid"])
    if observed is None:
        return
    owner = context.hypervisor.owner_of(context.target["uid"])
    if owner.owner != context.store.identity:
        raise RefusedError(
            f"VM {context.target['name']}",
            f"its domain belongs to {owner.label or 'no KC'}",
            "it is not touched; delete it there",
        )
    context.hypervisor.ensure_stopped(context.target["uid"], grace_seconds=0.0, force=True)


def undefine_domain(context: Context) -> None:
    """Remove the domain."""
    context.hypervisor.ensure_undefined(context.target["uid"], context.store.identity)


def release_leases(context: Context) -> None:
    """Have the networks' DHCP servers forget the VM."""
    for nic in context.target["spec"]["nics"]:
        network = context.store.get(NETWORK.name, nic["network"]["uid"])
        if network is not None and not network["spec"]["uplink"].startswith("bridge:"):
            context.hypervisor.release_lease(libvirt_name(network), nic["mac"])


def delete_volumes(context: Context) -> None:
    """Delete the VM's seed and console log, and its disks unless they are to be kept or go to the trash with it."""
    keep = bool(context.parameters.get("keepDisks") or context.parameters.get("until"))
    kept = disk_volume(context.target["uid"], "root")
    for volume in context.hypervisor.list_volumes(f"kc-{context.target['uid']}-"):
        if not (keep and volume.name == kept):
            context.hypervisor.ensure_volume_gone(volume.name)


PRESENT = (
    Step("networks", "bringing the networks up", ensure_networks),
    Step("image", "finding the image", check_image),
    Step("disk", "making the disk", ensure_disk),
    Step("seed", "writing the cloud-init seed", ensure_seed),
    Step("define", "defining the domain", define_domain),
    Step("power", "starting the domain", settle_power),
)
STOPPED = (
    Step("stop", "shutting the guest down", stop_domain),
    Step("define", "defining the domain", define_domain),
)
_DEFINED, _POWERED = PRESENT[:-1], PRESENT[-1]
CHANGED = (*_DEFINED, Step("power", "changing what runs", reach_power))
RESTARTED = (Step("stop", "shutting the guest down", stop_domain), *_DEFINED, _POWERED)
REBOOTED = (Step("reboot", "rebooting the guest", reboot_domain),)
ABSENT = (
    Step("power-off", "cutting the power", power_off),
    Step("undefine", "removing the domain", undefine_domain),
    Step("leases", "releasing its addresses", release_leases),
    Step("volumes", "clearing up its volumes", delete_volumes),
)
