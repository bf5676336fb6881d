"""Deleting objects, bringing them back, and removing them for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from backend.errors import ConflictError, NotFoundError, UsageError
from backend.images.volumes import image_volume
from backend.local.creation import check_mac_free, current_user, find_users
from backend.local.segments import check_no_gateway
from backend.local.views import check_readable, check_version
from backend.model.documents import Document, complete, format_time, parse_time
from backend.model.kinds import IMAGE, KEPT_KINDS, MACHINE_TYPE, NETWORK, OPERATION, TOKEN, TRASH, VM, Kind
from backend.operations import journal
from backend.operations.domain_plan import ROOT, disk_volume
from backend.operations.images import is_shared
from backend.operations.trash import discard
from backend.service import Accepted
from backend.store.protocol import Transaction

if TYPE_CHECKING:
    from backend.local.home import Home

_OPERATED = (VM, NETWORK)
"""Kinds whose deletion has work to do on the host, whether or not they go to the trash."""


class Wish(NamedTuple):
    """How an object is to be deleted; see the service's `delete`."""

    if_version: int | None
    keep_disks: bool
    now: bool
    message: str
    key: str


def delete(service: Home, kind: Kind, name: str, wish: Wish) -> Accepted:
    """Delete an object; see the service's `delete`."""
    if_version, message = wish.if_version, wish.message
    if kind is OPERATION:
        raise UsageError(f"operation {name}", "operations are kept, not deleted", f"kc op cancel {name}")
    document = service.find_own(kind, name)
    check_version(document, if_version)
    if kind is TRASH:
        return _purge(service, document)
    _check_unused(service, kind, document)
    # A token that could be brought back would not be revoked.
    grace = 0.0 if wish.now or wish.keep_disks or kind is TOKEN else service.settings.grace_hours * 3600
    until = format_time(time.time() + grace) if grace else ""
    parameters = {"keepDisks": wish.keep_disks, "until": until, "message": message}
    if kind in _OPERATED or (kind is IMAGE and not until):
        verb = "disown" if kind is VM and document["spec"]["adopted"] else "delete"
        return service.operate_on(document, f"{kind.command}.{verb}", parameters, expect=if_version, key=wish.key)
    with service.store.transaction() as transaction:
        journal.check_idle(transaction, service.store, document)
        live = transaction.get(kind.name, document["uid"])
        if live is None:
            raise NotFoundError(f"{kind.title} {name}", f"no such {kind.title}", f"see kc {kind.command} list")
        check_version(live, if_version)
        discard(transaction, live, by=current_user(), message=message, until=until)
        service.audit_change({**live, "message": message}, f"{kind.command}.delete")
    return Accepted(document, None)


def _check_unused(service: Home, kind: Kind, document: Document) -> None:
    what, hint = f"{kind.title} {document['name']}", "delete what uses it first"
    if kind is VM:
        check_no_gateway(service.store, document)
    users = find_users(service.store, kind, document["uid"])
    if users:
        raise ConflictError(what, f"in use by VM {', '.join(users)}", hint)
    if kind is not IMAGE or is_shared(service.store, document["spec"]["digest"], document["uid"]):
        return
    domains = service.hypervisor.volume_users(image_volume(document["spec"]))

    def needs_it(target: Document) -> bool:
        return bool((target.get("spec", {}).get("image") or {}).get("uid") == document["uid"])

    kept = _find_in_trash(service, needs_it)
    if kept:
        names = ", ".join(kept[:3])
        raise ConflictError(what, f"deleted VMs still need it: {names}", f"kc trash empty {kept[0]}, or wait")
    if domains:
        raise ConflictError(what, f"in use by domain {', '.join(domains[:3])}", hint)


def _find_in_trash(service: Home, accepts: Callable[[Document], bool]) -> list[str]:
    """Return the names of the entries of the trash whose object `accepts` takes."""
    found = service.store.list_documents(
        TRASH.name, where=lambda entry: not entry["spec"].get("disk") and accepts(entry["spec"]["document"])
    )
    return [entry["name"] for entry in found.items]


def _purge(service: Home, entry: Document) -> Accepted:
    # Whoever may see the object may follow what becomes of it.
    target = entry["spec"]["target"]
    return service.operate_on(entry, "trash.purge", {"kind": target["kind"], "name": target["name"]})


def empty(service: Home, names: Sequence[str] | None) -> list[Accepted]:
    """Remove deleted objects for good; see the service's `empty_trash`."""
    if names is None:
        entries = service.store.list_documents(TRASH.name).items
    else:
        entries = [service.find_own(TRASH, name) for name in names]
    return [_purge(service, entry) for entry in entries]


def expire(service: Home, entries: Sequence[Document]) -> list[str]:
    """Begin to remove entries of the trash whose grace time has passed; return the operations' uids."""
    begun: list[str] = []
    for entry in entries:
        with suppress(ConflictError, NotFoundError):  # another process is at it, or has done it
            operation = _purge(service, entry).operation
            begun += [operation["uid"]] if operation is not None else []
    return begun


def restore(service: Home, kind: Kind, name: str, *, uid: str, new_disks: bool) -> Accepted:
    """Bring a deleted object back; see the service's `restore`."""
    if kind not in KEPT_KINDS:
        raise UsageError(f"{kind.title} {name}", "it cannot be brought back", "")
    what = f"{kind.title} {name}"
    live = service.store.find(kind.name, name)
    if live is not None:
        if live["uid"] == uid or not uid:
            hint = f"see kc {kind.command} history {name}, and kc {kind.command} undo {name}"
            raise ConflictError(what, "it is there, not deleted", hint)
        raise ConflictError(
            what, "another one has the name by now", f"delete that one first: kc {kind.command} show {name}"
        )
    entry = _find_entry(service, kind, name, uid)
    uid = uid or (entry["spec"]["target"]["uid"] if entry else service.store.find_deleted(kind.name, name))
    body, tombstone = _find_last(service, kind, name, uid, entry)
    if body["name"] != name:
        raise NotFoundError(
            what, f"{uid} is {kind.title} {body['name']}", f"name that: kc {kind.command} restore {body['name']}"
        )
    _check_restorable(service, kind, body, new_disks=new_disks)
    body |= {"updatedAt": format_time(), "updatedBy": current_user(), "message": "restored"}

    def leave_trash(transaction: Transaction) -> None:
        if entry is None or transaction.get(TRASH.name, entry["uid"]) is None:
            return
        journal.check_idle(transaction, service.store, entry)
        transaction.delete(TRASH.name, entry["uid"], by=body["updatedBy"], message="restored")

    verb = "adopt" if kind is VM and body["spec"]["adopted"] else "restore"
    operation_type = f"{kind.command}.{verb}" if kind in _OPERATED else ""
    action = f"{kind.command}.restore"
    return service.accept(body, operation_type, {}, expect=tombstone, also=leave_trash, action=action)


def _find_entry(service: Home, kind: Kind, name: str, uid: str) -> Document | None:
    """Return the entry of the trash that is meant; of several the newest."""

    def is_it(entry: Document) -> bool:
        target = entry["spec"]["target"]
        if entry["spec"].get("disk"):
            return False
        return bool(target["kind"] == kind.name and (target["uid"] == uid if uid else target["name"] == name))

    found = service.store.list_documents(TRASH.name, where=is_it).items
    return max(found, key=lambda entry: parse_time(entry["createdAt"]), default=None)


def _find_last(
    service: Home, kind: Kind, name: str, uid: str, entry: Document | None
) -> tuple[Document, int]:  # fmt: skip
    """Return the body that a deleted object had last, and the version that tells of its deletion."""
    history = service.store.history(kind.name, uid) if uid else []
    if history and history[-1].document is not None:
        raise ConflictError(f"{kind.title} {name}", f"{uid} is there, not deleted", f"see kc {kind.command} list")
    kept = [version.document for version in history if version.document is not None]
    document: dict[str, Any] | None = kept[-1] if kept else (entry["spec"]["document"] if entry else None)
    if document is None:
        raise NotFoundError(
            f"{kind.title} {name}", f"no deleted {kind.title} of that name is kept", "see kc trash list"
        )
    check_readable(document)
    whole = complete(document)
    body = {key: value for key, value in whole.items() if key not in ("version", "status", "message")}
    return body, history[-1].version if history else 0


def _check_restorable(service: Home, kind: Kind, body: Document, *, new_disks: bool) -> None:
    """Raise KCErrors where what the object needs is gone."""
    what = f"{kind.title} {body['name']}"
    if kind is IMAGE and service.hypervisor.find_volume(image_volume(body["spec"])) is None:
        raise ConflictError(what, "its bytes are gone: the grace time has passed", "upload it again", reason="bytes")
    if kind is not VM:
        return
    spec = body["spec"]
    needed = [
        *((IMAGE, image) for image in (spec["image"], spec["cdrom"]) if image is not None),
        (MACHINE_TYPE, spec["type"]),
        *((NETWORK, nic["network"]) for nic in spec["nics"]),
    ]
    for other, reference in needed:
        if service.store.get(other.name, reference["uid"]) is None:
            hint = f"kc {other.command} restore {reference['name']} brings it back"
            raise ConflictError(what, f"its {other.title} {reference['name']} was deleted", hint)
    for nic in spec["nics"]:
        check_mac_free(service.store, nic, body["uid"], what)
    if spec["adopted"]:
        return
    service.check_domain_name(body["name"])
    disks = [disk_volume(body["uid"], name) for name in (ROOT, *(disk["id"] for disk in spec["disks"]))]
    if not new_disks and any(service.hypervisor.find_volume(disk) is None for disk in disks):
        hint = f"kc vm restore {body['name']} --new-disks makes it anew from image {spec['image']['name']}"
        raise ConflictError(what, "its disks are gone: the grace time has passed", hint, reason="disks")
