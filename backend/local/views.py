"""From stored documents and observations to what is shown: a VM's status is put together here and nowhere else.

`status` of a VM: `power` (running, paused, stopped, crashed, absent, unknown), `reason`, `addresses`, `hardware`,
`accelerator`, `operation` (while one is at work), `stale` (the hypervisor did not answer, or was not asked), `foreign`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, RefusedError
from backend.hypervisor.plan import Address, ObservedDomain
from backend.model.documents import API_VERSION, Document, complete, is_readable
from backend.model.kinds import OPERATION, VM, find_kind
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.store.protocol import Store


def check_readable(document: Document) -> None:
    """Raise RefusedError for a document that a newer KC wrote."""
    if not is_readable(document):
        what = f"{find_kind(document['kind']).title} {document['name']}"
        why = f"a newer KC wrote it, as {sanitise(document.get('apiVersion'), 40)}"
        raise RefusedError(what, why, "use that KC to change it")


def check_version(document: Document, wanted: object) -> None:
    """Raise ConflictError (detail `current`) where somebody expects another version than the one there is."""
    if wanted is None or wanted == document["version"]:
        return
    raise ConflictError(
        f"{find_kind(document['kind']).title} {document['name']}",
        f"it is at version {document['version']}, not {wanted}",
        "look at what changed, and repeat the change",
        reason="version",
        current=document["version"],
    )


def describe_operation(operation: Document) -> dict[str, Any]:
    """Return the short form of an operation that its target's status shows."""
    status = operation.get("status", {})
    steps = status.get("undo") if status.get("state") == "undoing" else status.get("steps")
    steps = steps or []
    done = sum(1 for step in steps if step["state"] == "done")
    current = next((step for step in steps if step["state"] != "done"), None)
    return {
        "name": operation["name"],
        "type": operation["spec"]["type"],
        "state": status.get("state", "queued"),
        "step": min(done + 1, len(steps)) if steps else 0,
        "steps": len(steps),
        "title": current["title"] if current else "",
        "percent": status.get("percent", 0),
    }


def running_operations(store: Store) -> dict[str, dict[str, Any]]:
    """Return the unfinished operations in short form, by the uid of their targets."""
    running = {}
    for uid, lease in store.leases():
        operation = store.get(OPERATION.name, uid)
        if operation is not None:
            running[str(lease.get("target"))] = describe_operation(operation)
    return running


def show_vm(
    document: Document,
    *,
    observed: ObservedDomain | None,
    answered: bool,
    addresses: Iterable[Address] = (),
    operation: Mapping[str, Any] | None = None,
) -> Document:
    """Return a VM's document with its live status.

    `answered` says whether the hypervisor was asked and answered; without it the stored state stays, marked stale.
    """
    document = complete(document)
    status = dict(document.get("status", {}))
    if not is_readable(document):
        return {**document, "status": {**status, "power": observed.power if observed else "unknown", "addresses": []}}
    if not answered:
        status["stale"] = True
        status.setdefault("power", "unknown")
    elif observed is None:
        status["power"] = "absent"
    else:
        status["power"] = observed.power
        if observed.reason:
            status["reason"] = observed.reason
    if operation:
        status["operation"] = dict(operation)
    status["addresses"] = _show_addresses(document, addresses) if status["power"] == "running" else []
    return {**document, "status": status}


def _show_addresses(document: Document, addresses: Iterable[Address]) -> list[dict[str, Any]]:
    """Return addresses that belong to the VM's NICs, each with NIC, network and where it was learned."""
    nics = {nic["mac"]: nic for nic in document["spec"].get("nics", [])}
    shown = []
    for found in addresses:
        nic = nics.get(found.mac.lower())
        if nic is None:
            continue
        shown.append(
            {
                "address": sanitise(found.address, 64),
                "prefix": found.prefix,
                "family": found.family,
                "nic": nic["id"],
                "mac": nic["mac"],
                "network": nic["network"]["name"],
                "source": found.source,
            }
        )
    known = {entry["address"] for entry in shown}
    for nic in nics.values():
        for family in ("ipv4", "ipv6"):
            plan = nic[family]
            address, _, prefix = plan["address"].partition("/")
            if plan["mode"] == "static" and address not in known:
                shown.append(
                    {
                        "address": address,
                        "prefix": int(prefix or 0),
                        "family": family,
                        "nic": nic["id"],
                        "mac": nic["mac"],
                        "network": nic["network"]["name"],
                        "source": "static",
                    }
                )
    return shown


def show_foreign(observed: ObservedDomain) -> Document:
    """Return a domain that this KC does not manage, in the shape of a document; version 0 says that it is none."""
    return {
        "apiVersion": API_VERSION,
        "kind": VM.name,
        "name": sanitise(observed.name, 255),
        "uid": observed.uid,
        "version": 0,
        "metadata": {},
        "spec": {},
        "status": {"power": observed.power, "reason": observed.reason, "foreign": True, "addresses": []},
    }
