"""Drift: where the host has something else than a VM's document, because somebody else was at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.errors import NotFoundError
from backend.model.documents import Document
from backend.operations.domain_plan import plan_domain
from backend.operations.vms import path_of
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
    from backend.store.protocol import Store


def find_drift(store: Store, hypervisor: Hypervisor, shown: Document) -> list[dict[str, Any]]:
    """Return where a shown VM differs from its document: `path`, `wanted`, `found`; nothing while it is worked on."""
    status = shown["status"]
    if status.get("operation") or status.get("stale"):
        return []
    accelerator = "kvm" if status.get("accelerator") == "kvm" else "qemu"
    try:
        plan = plan_domain(store, shown, owner_label="", accelerator=accelerator)
        found = hypervisor.differences(plan)
    except NotFoundError as error:
        return [{"path": "spec", "wanted": sanitise(error.what), "found": sanitise(error.why)}]
    drift = [
        {"path": path_of(one.word), "wanted": sanitise(one.wanted, 200), "found": sanitise(one.found, 200)}
        for one in found
    ]
    wanted = shown["spec"]["power"]
    if status["power"] not in (wanted, "absent", "unknown"):
        drift.append({"path": "spec.power", "wanted": wanted, "found": status["power"]})
    return drift
