"""Two tenants on one KC: what is acme's, what is globex's, what is for all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from uuid import uuid4

from backend.actor import Actor
from backend.auth.guarded import GuardedService
from backend.auth.protocol import EVERYTHING, Decision, Scope
from backend.hypervisor.memory import MemoryDomain, MemoryHypervisor
from backend.local import LocalService
from backend.model.documents import format_time
from support.memory_kc import IMAGE_SPEC, furnish, make_service, settle, vm_document

ACME = (Scope(("*",), "tenant=acme"), Scope(("image.read", "network.read", "type.read"), "shared=true"))
STRANGER = "99999999-9999-4999-8999-999999999999"
SECRETS = ("globex", "db", "gnet", "gtype", "gimage", "lost", "stranger")
"""Words of which nothing that acme is told may have one."""


def guard(service: LocalService, scopes: tuple[Scope, ...] | None = ACME, subject: str = "alice") -> GuardedService:
    """Return a service as somebody with these scopes may use it."""
    decision = Decision("allow", subject=subject, scopes=scopes)
    return GuardedService(service, decision, Actor(subject, "request-1", "tcp"))


def unguarded(service: LocalService) -> GuardedService:
    return guard(service, EVERYTHING, "root")


def make_world(home: Path, host: MemoryHypervisor | None = None) -> LocalService:
    """Return a service with a running and a deleted VM, and an image, a network and a type, of each tenant."""
    host = host or MemoryHypervisor()
    service = make_service(home, host)
    furnish(service)
    for kind, name in (("Image", "starter"), ("Network", "default"), ("MachineType", "tiny")):
        change = service.update({"kind": kind, "name": name, "metadata": {"shared": True}})
        if change.operation:
            settle(service, change)
    for tenant, prefix in (("acme", "a"), ("globex", "g")):
        _add_things(service, prefix, {"tenant": tenant})
    add_vm(service, "web", "acme", network="default")
    add_vm(service, "db", "globex", network="default")
    for name, tenant in (("gone", "acme"), ("lost", "globex")):
        add_vm(service, name, tenant)
        settle(service, service.delete("VM", name))
    settle(service, service.act("db", "stop"))
    settle(service, service.act("web", "snapshot", {"snapshot": "first"}))
    host.domains[STRANGER] = MemoryDomain(STRANGER, "stranger", None, power="running")
    return service


def _add_things(service: LocalService, prefix: str, metadata: dict[str, Any]) -> None:
    network = {"uplink": "isolated", "ipv4": {"subnet": f"10.{ord(prefix)}.0.0/24", "mode": "dhcp"}}
    settle(service, service.create({"kind": "Network", "name": f"{prefix}net", "metadata": metadata, "spec": network}))
    tiny = copy.deepcopy(service.get("MachineType", "tiny")["spec"])
    service.create({"kind": "MachineType", "name": f"{prefix}type", "metadata": metadata, "spec": tiny})
    now = format_time()
    body = {
        "apiVersion": "kc/v1", "kind": "Image", "name": f"{prefix}image", "uid": str(uuid4()),
        "metadata": metadata, "spec": IMAGE_SPEC, "createdAt": now, "updatedAt": now, "updatedBy": "test",
    }  # fmt: skip
    service.accept(body, "", {}, expect=0)


def add_vm(service: LocalService, name: str, tenant: str, *, network: str = "") -> None:
    document = vm_document(name, metadata={"tenant": tenant})
    document["spec"]["nics"] = [{"network": network or f"{tenant[0]}net"}]
    settle(service, service.create(document))
