"""The steps that make a host match a VM's document, whether it is new, changed, stopped or gone."""

from __future__ import annotations

from backend.errors import FailedError, RefusedError
from backend.hypervisor.plan import DomainPlan
from backend.images.volumes import STARTER_SOURCE, image_volume
from backend.model.kinds import IMAGE, NETWORK
from backend.model.networks import is_own
from backend.operations.domain_plan import find_pinned, hardware_of, networks_of, plan_domain, seed_volume
from backend.operations.gateways import networks_routed_by, resolve_gateway
from backend.operations.guards import drop_guards, ensure_guards
from backend.operations.networks import ensure_network, release_nic, replace_network, seed_nic
from backend.operations.steps import Context, Step
from backend.operations.vm_disks import COPY, REVERT, delete_volumes, drop_snapshots, ensure_disks

STOP_GRACE_SECONDS = 60.0
_PATHS = {
    "cpus": "spec.parameters.cpus", "memory": "spec.parameters.memoryMiB", "firmware": "spec.type", "name": "name",
    "disk:root": "spec.parameters.diskGiB", "cdrom": "spec.cdrom", "autostart": "spec.autostart",
    "on-crash": "spec.onCrash", "description": "spec.description", "metadata": "metadata",
}  # fmt: skip
_LISTS = {"nic": "spec.nics", "disk": "spec.disks"}


def path_of(word: str) -> str:
    """Return where a document says what a driver calls by this word; the word itself where no document says it."""
    kind, _, name = word.partition(":")
    return _PATHS.get(word) or (f"{_LISTS[kind]}.{name}" if kind in _LISTS else word)


def _wants_power(context: Context) -> bool:
    return context.target["spec"]["power"] in ("running", "paused")


def ensure_networks(context: Context) -> None:
    """Have every network of the VM up, and those whose gateway it is tell of it; a VM that stays off needs none."""
    networks = {document["uid"]: document for document in networks_of(context.store, context.target)}
    for network in networks_routed_by(context.store, context.target):
        networks.pop(network["uid"], None)
        replace_network(context.store, context.hypervisor, network)
    if _wants_power(context):
        for network in networks.values():
            ensure_network(context.store, context.hypervisor, network)


def check_images(context: Context) -> None:
    """Make sure that the bytes of the VM's image, and of the disc in its drive, are in the pool."""
    spec = context.target["spec"]
    for reference in (spec["image"], spec["cdrom"]):
        if reference is None:
            continue
        image = find_pinned(context.store, IMAGE, reference)
        if context.hypervisor.find_volume(image_volume(image["spec"])) is None:
            hint = f"upload it again, or delete {image['name']}"
            raise FailedError(f"image {image['name']}", "its bytes are not in the pool", hint)


def ensure_seed(context: Context) -> None:
    """Write the cloud-init seed, unless the very same one is there."""
    import io  # noqa: PLC0415 - only operations write seeds

    from backend.images.seed import build_seed  # noqa: PLC0415 - pulls in pycdlib and PyYAML

    spec, uid = context.target["spec"], context.target["uid"]
    if spec["adopted"]:
        return
    networks = networks_of(context.store, context.target)
    seed = build_seed(
        hostname=context.target["name"],
        instance_id=uid,
        ssh_keys=spec["sshKeys"],
        user_data=spec["userData"],
        password_hash=spec["passwordHash"],
        nics=[
            seed_nic(nic, network, resolve_gateway(context.store, network))
            for nic, network in zip(spec["nics"], networks, strict=True)
        ],
    )
    name = seed_volume(uid)
    if context.hypervisor.find_volume(name) is None or context.hypervisor.read_volume(name) != seed:
        context.hypervisor.upload(name, io.BytesIO(seed), len(seed))


def define_domain(context: Context) -> None:
    """Define the domain as the document wants it, with its ports guarded before they are there."""
    plan = _plan(context)
    ensure_guards(context.store, context.hypervisor, context.target)
    if plan.adopted:
        context.hypervisor.adopt(plan.uid, plan)
    context.hypervisor.ensure_defined(plan)


def _plan(context: Context) -> DomainPlan:
    hardware = hardware_of(context.store, context.target)
    image = context.target["spec"]["image"]
    starter = ""
    if image is not None:
        spec = find_pinned(context.store, IMAGE, image)["spec"]
        starter = image_volume(spec) if spec["source"].startswith(STARTER_SOURCE) else ""
    accelerator = context.hypervisor.accelerator(hardware["arch"], starter)
    context.status["hardware"] = hardware
    context.status["accelerator"] = "kvm" if accelerator == "kvm" else "tcg"
    return plan_domain(context.store, context.target, owner_label=context.owner_label, accelerator=accelerator)


def settle_power(context: Context) -> None:
    """Start the domain where the document wants it on, and change what already ran as far as that can be done."""
    uid = context.target["uid"]
    if _wants_power(context):
        if context.target["spec"]["power"] == "running":
            context.hypervisor.ensure_running(uid)
        else:
            observed = context.hypervisor.observe(uid)
            if observed is None or observed.power != "paused":
                context.hypervisor.ensure_running(uid)
                context.hypervisor.ensure_paused(uid)
        waiting = context.hypervisor.apply_live(_plan(context))
        context.status["pendingRestart"] = [path_of(word) for word in waiting]
    _note_power(context)


def reach_power(context: Context) -> None:
    """Start or change the domain, or shut its guest down, as the document wants it."""
    if _wants_power(context):
        settle_power(context)
    else:
        stop_domain(context)


def pause_domain(context: Context) -> None:
    """Have the guest stand still."""
    context.hypervisor.ensure_paused(context.target["uid"])
    _note_power(context)


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
    if context.hypervisor.observe(context.target["uid"]) is None:
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
    """Remove the domain and the guards of its ports."""
    drop_guards(context.store, context.hypervisor, context.target)
    context.hypervisor.ensure_undefined(context.target["uid"], context.store.identity)


def disown_domain(context: Context) -> None:
    """Leave an adopted domain to libvirt, as it is."""
    context.hypervisor.disown(context.target["uid"], context.store.identity)


def release_leases(context: Context) -> None:
    """Have the networks' DHCP servers forget the VM."""
    for nic in context.target["spec"]["nics"]:
        network = context.store.get(NETWORK.name, nic["network"]["uid"])
        if network is not None and is_own(network):
            release_nic(context, network, nic["mac"])


_NETWORKS = Step("networks", "bringing the networks up", ensure_networks)
_IMAGE = Step("image", "finding the image", check_images)
_DISKS = Step("disk", "making the disks", ensure_disks)
_SEED = Step("seed", "writing the cloud-init seed", ensure_seed)
_DEFINE = Step("define", "defining the domain", define_domain)
_POWER = Step("power", "starting the domain", settle_power)
_REACH = Step("power", "changing what runs", reach_power)
_STOP = Step("stop", "shutting the guest down", stop_domain)
_DEFINED = (_NETWORKS, _IMAGE, _DISKS, _SEED, _DEFINE)

PRESENT = (*_DEFINED, _POWER)
CLONED = (_NETWORKS, _IMAGE, COPY, _DISKS, _SEED, _DEFINE, _POWER)
ADOPTED = (_DEFINE, Step("power", "looking how it is", settle_power))
SNAPSHOT_RESTORED = (_NETWORKS, REVERT, _DEFINE, _REACH)
DISOWNED = (Step("disown", "leaving the domain to libvirt", disown_domain),)
STOPPED = (_STOP, _DEFINE)
PAUSED = (Step("pause", "pausing the guest", pause_domain), _DEFINE)
CHANGED = (*_DEFINED, _REACH)
RESTARTED = (_STOP, *_DEFINED, _POWER)
REBOOTED = (Step("reboot", "rebooting the guest", reboot_domain),)
ABSENT = (
    Step("power-off", "cutting the power", power_off),
    Step("snapshots", "removing its snapshots", drop_snapshots),
    Step("undefine", "removing the domain", undefine_domain),
    Step("leases", "releasing its addresses", release_leases),
    Step("volumes", "clearing up its volumes", delete_volumes),
)
