"""A whole KC over a host in memory: real documents, store and operations; only libvirt is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.hypervisor.memory import MemoryHypervisor
from backend.hypervisor.plan import Volume
from backend.images.volumes import image_volume
from backend.local import LocalService
from backend.local.initialising import MACHINE_TYPES
from backend.model.documents import Document, format_time
from backend.settings import load_settings
from backend.store.opening import open_store

DIGEST = "sha256:" + "5" * 64
IMAGE_SPEC = {
    "title": "a small Linux", "arch": "x86_64", "format": "raw", "digest": DIGEST, "sizeBytes": 64 << 20,
    "virtualSizeBytes": 64 << 20, "source": "starter:0123456789ab",
}  # fmt: skip


_open: list[LocalService] = []


def make_service(home: Path, hypervisor: MemoryHypervisor | None = None, *, operate: bool = True) -> LocalService:
    """Return a service on a store in `home`, as empty as a new KC."""
    settings = load_settings(environment={"KC_HOME": str(home)})
    service = LocalService(open_store(settings.store_url), hypervisor or MemoryHypervisor(), settings, operate=operate)
    _open.append(service)
    return service


def close_services() -> None:
    """Close every service that a test has made; closing one again does nothing."""
    while _open:
        _open.pop().close()


def keep_open(service: LocalService) -> LocalService:
    """Leave it to a fixture of more than one test to close a service."""
    _open.remove(service)
    return service


def settle(service: LocalService, accepted: Any) -> Document:
    """Return the operation's document once it has ended."""
    return service.wait(accepted.operation["name"], timeout=30)


def furnish(service: LocalService) -> None:
    """Give a service what `kc init` gives: machine types, the default network and the starter image."""
    for name, spec in MACHINE_TYPES.items():
        service.create({"kind": "MachineType", "name": name, "spec": spec})
    network = {"uplink": "nat", "ipv4": {"subnet": "192.168.150.0/24", "mode": "dhcp"}, "libvirtNetwork": "kc-default"}
    settle(service, service.create({"kind": "Network", "name": "default", "spec": network}))
    volume = image_volume(IMAGE_SPEC)
    service.hypervisor.volumes[volume] = (Volume(volume, f"/memory/{volume}", "raw", 64 << 20, 45 << 20), b"")
    now = format_time()
    body = {
        "apiVersion": "kc/v1", "kind": "Image", "name": "starter", "uid": "11111111-1111-4111-8111-111111111111",
        "metadata": {}, "spec": IMAGE_SPEC, "createdAt": now, "updatedAt": now, "updatedBy": "test",
    }  # fmt: skip
    service.accept(body, "", {}, expect=0)


def vm_document(name: str, **spec: Any) -> Document:
    """Return what a caller asks for: a VM of the smallest type on the default network."""
    metadata = spec.pop("metadata", {})
    whole = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}], **spec}
    return {"kind": "VM", "name": name, "metadata": metadata, "spec": whole}
