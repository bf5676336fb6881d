"""What is done to a VM: its power, its snapshots, its copies, its name."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, NotFoundError, RefusedError, UsageError
from backend.local.changing import prepare_update
from backend.local.creation import current_user, prepare
from backend.local.drift import find_drift
from backend.model.addressing import FAMILIES
from backend.model.documents import Document, format_time
from backend.model.kinds import VM
from backend.model.schemas import check_name
from backend.operations.vm_disks import check_disks, describe_snapshots
from backend.service import Accepted

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.local.home import Home

_WANTED = {"start": "running", "stop": "stopped", "pause": "paused", "resume": "running"}


def act(service: Home, name: str, action: str, parameters: dict[str, Any], key: str) -> Accepted:
    """Do something to a VM; see the service's `act`."""
    if action not in _ACTIONS:
        raise UsageError(f"VM {name}", f"no such action: {action}", f"known are {', '.join(_ACTIONS)}")
    document = service.find_own(VM, name)
    return _ACTIONS[action](service, document, action, parameters, key)


def _power_of(service: Home, document: Document) -> str:
    observed = service.hypervisor.observe(document["uid"])
    return observed.power if observed is not None else "absent"


def _set_power(service: Home, document: Document, action: str, parameters: dict[str, Any], key: str) -> Accepted:
    name, wanted, power = document["name"], _WANTED[action], _power_of(service, document)
    if action in ("pause", "resume") and power not in ("running", "paused"):
        raise ConflictError(f"VM {name}", f"it is {power}", f"kc vm start {name}")
    already = power == wanted or (wanted == "stopped" and power == "absent")
    if already and document["spec"]["power"] == wanted:
        return Accepted(service.observer.show(document), None)
    body = _next_version(document, {**document["spec"], "power": wanted}, action)
    return service.accept(body, f"vm.{action}", parameters, expect=document["version"], key=key)


def _reboot(service: Home, document: Document, _action: str, parameters: dict[str, Any], key: str) -> Accepted:
    name, power = document["name"], _power_of(service, document)
    if power != "running":
        hint = f"kc vm resume {name}" if power == "paused" else f"kc vm start {name}"
        raise ConflictError(f"VM {name}", f"it is {power}", hint)
    # What waits for a restart needs a new start of QEMU, which a reboot inside of it is not.
    waits = document.get("status", {}).get("pendingRestart") and not parameters.get("force")
    return service.operate_on(document, "vm.restart" if waits else "vm.reboot", parameters, key=key)


def _reconcile(service: Home, document: Document, _action: str, parameters: dict[str, Any], key: str) -> Accepted:
    # A host that does not answer has no drift that anybody could know of.
    service.hypervisor.observe(document["uid"])
    shown = service.observer.show(document)
    if not find_drift(service.store, service.hypervisor, shown):
        return Accepted(shown, None)
    return service.operate_on(document, "vm.reconcile", parameters, key=key)


def _next_version(document: Document, spec: Document, message: str) -> Document:
    """Return the body of a VM's next version."""
    body = {field: value for field, value in document.items() if field not in ("status", "version", "message")}
    return {**body, "spec": spec, "updatedAt": format_time(), "updatedBy": current_user(), "message": message}


# --- snapshots


def _snapshot(service: Home, document: Document, _action: str, parameters: dict[str, Any], key: str) -> Accepted:
    name = str(parameters.get("snapshot") or time.strftime("s-%Y%m%d-%H%M%S", time.gmtime()))
    _check_snapshot_name(document, name)
    if name in {record["name"] for record in describe_snapshots(service.hypervisor, document)}:
        raise ConflictError(f"VM {document['name']}", f"it has a snapshot {name} already", "choose another name")
    description = str(parameters.get("description", ""))[:2000]
    asked = {"snapshot": name, "description": description}
    return service.operate_on(document, "vm.snapshot", asked, expect=document["version"], key=key)


def _check_snapshot_name(document: Document, name: str) -> None:
    try:
        check_name(name, VM)
    except RefusedError as error:
        raise RefusedError(f"VM {document['name']}", f"snapshot {name[:80]!r} is no valid name", error.hint) from error


def _find_snapshot(service: Home, document: Document, parameters: dict[str, Any]) -> dict[str, Any]:
    name = str(parameters.get("snapshot", ""))
    records = describe_snapshots(service.hypervisor, document)
    found = next((record for record in records if record["name"] == name), None)
    if found is None:
        there = ", ".join(record["name"] for record in records[-5:])
        hint = f"there are {there}" if there else f"kc vm snapshot create {document['name']}"
        raise NotFoundError(f"VM {document['name']}", f"it has no snapshot {name}", hint)
    return found


def _restore_snapshot(
    service: Home, document: Document, _action: str, parameters: dict[str, Any], key: str
) -> Accepted:
    snapshot = _find_snapshot(service, document, parameters)
    kept = [entry for entry in service.store.history(VM.name, document["uid"]) if entry.version == snapshot["version"]]
    spec = copy.deepcopy(document["spec"])
    if kept and kept[0].document is not None:
        old = service.find_version(VM, document["name"], snapshot["version"])
        check_disks(document, old, snapshot["name"])
        spec = copy.deepcopy(old["spec"])
    if not snapshot["hasMemory"]:
        spec["power"] = "stopped"
    elif spec["power"] != "paused":
        spec["power"] = "running"
    asked = {"snapshot": snapshot["name"]}
    if spec == document["spec"]:
        return service.operate_on(document, "vm.restore-snapshot", asked, expect=document["version"], key=key)
    body = _next_version(document, spec, f"restored snapshot {snapshot['name']}")
    return service.accept(body, "vm.restore-snapshot", asked, expect=document["version"], key=key)


def _delete_snapshot(service: Home, document: Document, _action: str, parameters: dict[str, Any], key: str) -> Accepted:
    snapshot = _find_snapshot(service, document, parameters)
    return service.operate_on(document, "vm.delete-snapshot", {"snapshot": snapshot["name"]}, key=key)


_ACTIONS: dict[str, Callable[[Home, Document, str, dict[str, Any], str], Accepted]] = {
    **dict.fromkeys(_WANTED, _set_power),
    "reboot": _reboot,
    "reconcile": _reconcile,
    "snapshot": _snapshot,
    "restore-snapshot": _restore_snapshot,
    "delete-snapshot": _delete_snapshot,
}


# --- copies and names


def clone(service: Home, name: str, new_name: str, *, metadata: Document | None, start: bool, key: str) -> Accepted:
    """Make a VM like another; see the service's `clone`."""
    source = service.find_own(VM, name)
    what = f"VM {new_name}"
    if source["spec"]["adopted"]:
        raise RefusedError(what, f"{name} was adopted: its disks are not KC's to copy", "clone it with virt-clone")
    spec = copy.deepcopy(source["spec"])
    spec |= {"power": "running" if start else "stopped", "hidden": False}
    for nic in spec["nics"]:
        nic["mac"] = ""
        # Two guests cannot have one address: KC chooses another.
        for family in FAMILIES:
            nic[family]["address"] = ""
    wanted = source["metadata"] if metadata is None else metadata
    wish = {"kind": VM.name, "name": new_name, "metadata": copy.deepcopy(wanted), "spec": spec}
    pinned = spec["type"]["version"]
    body = prepare(service.store, wish)
    # It is like the other, whatever has become of its type.
    body["spec"]["type"]["version"] = pinned
    service.check_domain_name(new_name)
    return service.accept(body, "vm.clone", {"source": source["uid"]}, expect=0, key=key)


def rename(service: Home, name: str, new_name: str, *, if_version: int | None) -> Accepted:
    """Give a VM another name; see the service's `rename`."""
    live = service.find_own(VM, name)
    expected = live["version"] if if_version is None else if_version
    if new_name == name:
        return Accepted(service.observer.show(live), None)
    check_name(new_name, VM)
    if service.store.find(VM.name, new_name) is not None:
        raise ConflictError(f"VM {new_name}", "the name is taken", "choose another")
    service.check_domain_name(new_name)
    body = prepare_update(service.store, live, live, f"renamed from {name}")
    return service.accept({**body, "name": new_name}, "vm.rename", {}, expect=expected)
