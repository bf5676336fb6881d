"""The trash: what was deleted and can be brought back, as a document until its grace time has passed."""

from __future__ import annotations

import uuid

from backend.images.volumes import image_volume
from backend.model.documents import API_VERSION, Document, format_time
from backend.model.kinds import IMAGE, TRASH, VM, find_kind
from backend.operations.domain_plan import disk_volume
from backend.operations.images import is_shared
from backend.operations.steps import Context, Step
from backend.store.protocol import Transaction

# A name is a DNS label: what is put around an object's own may not make it too long.
_LONGEST_NAME = 45


def discard(transaction: Transaction, document: Document, *, by: str, message: str, until: str) -> None:
    """Delete a live document; with `until` (RFC 3339) it goes to the trash, to be brought back until then."""
    kind = find_kind(document["kind"])
    if until:
        transaction.put(_describe(transaction, document, by, until), expect=0)
    transaction.delete(kind.name, document["uid"], by=by, message=message)


def discard_disk(transaction: Transaction, document: Document, disk: str, *, by: str, until: str) -> None:
    """Put a disk into the trash that a VM has no more; `document` is the VM as it had it."""
    transaction.put(_describe(transaction, document, by, until, disk), expect=0)


def _describe(transaction: Transaction, document: Document, by: str, until: str, disk: str = "") -> Document:
    kind = find_kind(document["kind"])
    uid = str(uuid.uuid4())
    stem = f"{'disk' if disk else kind.command}-{document['name'][:_LONGEST_NAME]}"
    name = f"{stem}-{uid[:4]}"
    if transaction.find(TRASH.name, name) is not None:
        name = f"{stem}-{uid[:8]}"
    now = format_time()
    return {
        "apiVersion": API_VERSION,
        "kind": TRASH.name,
        "name": name,
        "uid": uid,
        "metadata": document["metadata"],
        "spec": {
            "target": {key: document[key] for key in ("kind", "name", "uid", "version")},
            "document": {key: value for key, value in document.items() if key != "status"},
            "until": until,
            "disk": disk,
        },
        "createdAt": now,
        "updatedAt": now,
        "updatedBy": by,
    }


def purge(context: Context) -> None:
    """Delete what a deleted object still has on the host; what somebody else needs by now stays."""
    target, disk = context.target["spec"]["target"], context.target["spec"].get("disk", "")
    live = context.store.get(target["kind"], target["uid"])
    if disk:
        if live is None or all(other["id"] != disk for other in live["spec"]["disks"]):
            context.hypervisor.ensure_volume_gone(disk_volume(target["uid"], disk))
        return
    if live is not None:
        return
    if target["kind"] == VM.name:
        for volume in context.hypervisor.list_volumes(f"kc-{target['uid']}-"):
            context.hypervisor.ensure_volume_gone(volume.name)
    elif target["kind"] == IMAGE.name:
        _purge_image(context, context.target["spec"]["document"]["spec"])


def _purge_image(context: Context, spec: Document) -> None:
    volume = image_volume(spec)
    if is_shared(context.store, spec["digest"], context.target["uid"]) or context.hypervisor.volume_users(volume):
        return
    context.hypervisor.ensure_volume_gone(volume)


PURGED = (Step("purge", "deleting what it left on the host", purge),)
