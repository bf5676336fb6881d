"""The steps about a VM's disks: made, grown, copied, kept at one moment by snapshots, and deleted."""

from __future__ import annotations

from typing import Any

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.protocol import Hypervisor
from backend.images.volumes import image_volume
from backend.model.documents import Document, format_time
from backend.model.kinds import IMAGE, TRASH, VM
from backend.model.selectors import parse
from backend.operations.domain_plan import ROOT, disk_sizes, disk_volume, find_pinned
from backend.operations.steps import Context, Step
from backend.store.protocol import Store


def ensure_disks(context: Context) -> None:
    """Make the disks that are not there, the first over the image; grow those of a VM that is off.

    What runs has its disks grown with everything else that is changed live.
    """
    sizes = disk_sizes(context.store, context.target)
    observed = context.hypervisor.observe(context.target["uid"]) if sizes else None
    is_off = observed is None or observed.power in ("stopped", "crashed")
    for name, size in sizes.items():
        volume = disk_volume(context.target["uid"], name)
        if name == ROOT:
            image = find_pinned(context.store, IMAGE, context.target["spec"]["image"])["spec"]
            context.hypervisor.ensure_overlay(
                volume, base=image_volume(image), base_format=image["format"], capacity_bytes=size
            )
        else:
            context.hypervisor.ensure_blank(volume, size)
        if is_off:
            context.hypervisor.ensure_capacity(volume, size)


def copy_disks(context: Context) -> None:
    """Copy the disks of the VM that this one is a clone of; its disks are the same when this is done."""
    uid = context.parameters["source"]
    source = context.store.get(VM.name, uid)
    if source is None:
        raise NotFoundError(f"VM {context.target['name']}", "the VM that it is a clone of was deleted", "")
    for name in disk_sizes(context.store, context.target):
        context.hypervisor.ensure_copy(
            disk_volume(context.target["uid"], name), disk_volume(uid, name), report=context.report
        )


COPY = Step("copy", "copying the disks", copy_disks)


def disks_in_trash(store: Store, uid: str) -> dict[str, Document]:
    """Return the entries of the trash for disks that were taken from a VM, by the disks' ids."""
    entries = store.list_documents(TRASH.name, where=parse(f'spec.target.uid="{uid}"')).items
    return {entry["spec"]["disk"]: entry for entry in entries if entry["spec"].get("disk")}


def delete_volumes(context: Context) -> None:
    """Delete the VM's seed and console log, and its disks unless they are to be kept or go to the trash with it."""
    uid, spec = context.target["uid"], context.target["spec"]
    removed = disks_in_trash(context.store, uid)
    kept: set[str] = set()
    if context.parameters.get("keepDisks") or context.parameters.get("until"):
        kept = {disk_volume(uid, name) for name in (ROOT, *(disk["id"] for disk in spec["disks"]), *removed)}
    for volume in context.hypervisor.list_volumes(f"kc-{uid}-"):
        if volume.name not in kept:
            context.hypervisor.ensure_volume_gone(volume.name)
    if removed and not kept:
        with context.store.transaction() as transaction:
            for entry in removed.values():
                if transaction.get(TRASH.name, entry["uid"]) is not None:
                    transaction.delete(TRASH.name, entry["uid"], by=context.operation.get("updatedBy", ""))


# --- snapshots


def describe_snapshots(hypervisor: Hypervisor, document: Document) -> list[dict[str, Any]]:
    """Return a VM's snapshots as its status shows them; one that KC did not take has version 0."""
    known = {record["name"]: record for record in document.get("status", {}).get("snapshots", [])}
    shown = []
    for snapshot in hypervisor.list_snapshots(document["uid"]):
        record = known.get(snapshot.name, {})
        shown.append(
            {
                "name": snapshot.name,
                "at": format_time(snapshot.at),
                "version": record.get("version", 0),
                "hasMemory": snapshot.has_memory,
                "method": snapshot.method,
                "description": record.get("description", ""),
            }
        )
    return shown


def take_snapshot(context: Context) -> None:
    """Take a snapshot, and note which version of the document it belongs to."""
    name, description = context.parameters["snapshot"], context.parameters.get("description", "")
    context.hypervisor.take_snapshot(context.target["uid"], name, description)
    record = {"name": name, "version": context.target["version"], "description": description}
    _note_snapshots(context, [record])


def _note_snapshots(context: Context, new: list[dict[str, Any]]) -> None:
    status = context.target.get("status", {})
    known = {**status, "snapshots": [*status.get("snapshots", []), *new]}
    context.status["snapshots"] = describe_snapshots(context.hypervisor, {**context.target, "status": known})


def restore_snapshot(context: Context) -> None:
    """Bring the disks, and the memory that is in it, back to a snapshot."""
    uid, name = context.target["uid"], context.parameters["snapshot"]
    found = next((snapshot for snapshot in context.hypervisor.list_snapshots(uid) if snapshot.name == name), None)
    if found is None:
        raise NotFoundError(f"VM {context.target['name']}", f"it has no snapshot {name}", "see kc vm snapshot list")
    if found.method == "copy":
        # What runs now is given up with its disks; nothing of it is to be saved.
        context.hypervisor.ensure_stopped(uid, grace_seconds=0.0, force=True)
    context.hypervisor.restore_snapshot(uid, name)


def delete_snapshot(context: Context) -> None:
    """Remove a snapshot."""
    context.hypervisor.ensure_snapshot_gone(context.target["uid"], context.parameters["snapshot"])
    _note_snapshots(context, [])


def drop_snapshots(context: Context) -> None:
    """Remove all snapshots of a VM that is to go: without its domain nothing would know of them."""
    if context.hypervisor.observe(context.target["uid"]) is None:
        return
    for snapshot in context.hypervisor.list_snapshots(context.target["uid"]):
        context.hypervisor.ensure_snapshot_gone(context.target["uid"], snapshot.name)


def check_disks(document: Document, other: Document, snapshot: str) -> None:
    """Raise ConflictError where a snapshot was taken with other disks than the VM has now."""
    has, had = ({disk["id"] for disk in each["spec"]["disks"]} for each in (document, other))
    if has != had:
        names = ", ".join(sorted(has ^ had))
        why = f"snapshot {snapshot} was taken with other disks: {names}"
        raise ConflictError(f"VM {document['name']}", why, "undo the change of the disks first")


SNAPSHOT_TAKEN = (Step("snapshot", "taking the snapshot", take_snapshot),)
SNAPSHOT_DELETED = (Step("snapshot", "removing the snapshot", delete_snapshot),)
REVERT = Step("revert", "bringing the disks back", restore_snapshot)
