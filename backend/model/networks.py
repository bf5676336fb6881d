"""What stands behind a network's document on the host: libvirt's network, and devices by their names."""

from __future__ import annotations

from backend.model.documents import Document

# The uuid of a libvirt network that several KCs share follows from its name, so that each knows it for KC's.
_SHARED = "5a0c8f5e-7f0e-5d0a-9a5e-6b632d6e6574"


def libvirt_name(network: Document) -> str:
    """Return the name of the libvirt network behind a network's document."""
    shared: str = network["spec"]["libvirtNetwork"]
    return shared or f"kc-{_short(network['uid'])}"


def libvirt_uid(network: Document) -> str:
    """Return the uuid that KC gives to the libvirt network behind a document."""
    import uuid  # noqa: PLC0415 - lists ask for names alone

    shared: str = network["spec"]["libvirtNetwork"]
    return str(uuid.uuid5(uuid.UUID(_SHARED), shared)) if shared else str(network["uid"])


def vxlan_device(network: Document) -> str:
    """Return the name of a network's VXLAN device, which fits the kernel's 15 characters."""
    return f"kx{_short(network['uid'])}"


def tap_device(vm_uid: str, nic: str) -> str:
    """Return the name of the device behind a VM's NIC, which fits the kernel's 15 characters."""
    import hashlib  # noqa: PLC0415 - as above

    return f"kt{hashlib.sha256(f'{vm_uid}/{nic}'.encode()).hexdigest()[:10]}"


def _short(uid: str) -> str:
    return uid.replace("-", "")[:10]


def is_own(network: Document) -> bool:
    """Return whether KC makes the segment; a bridge of the host's own is the operator's affair."""
    return not str(network["spec"]["uplink"]).startswith("bridge:")
