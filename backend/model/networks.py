"""Which libvirt network stands behind a network's document."""

from __future__ import annotations

from backend.model.documents import Document

# The uuid of a libvirt network that several KCs share follows from its name, so that each knows it for KC's.
_SHARED = "5a0c8f5e-7f0e-5d0a-9a5e-6b632d6e6574"


def libvirt_name(network: Document) -> str:
    """Return the name of the libvirt network behind a network's document."""
    shared: str = network["spec"]["libvirtNetwork"]
    return shared or f"kc-{network['uid'].replace('-', '')[:10]}"


def libvirt_uid(network: Document) -> str:
    """Return the uuid that KC gives to the libvirt network behind a document."""
    import uuid  # noqa: PLC0415 - lists ask for names alone

    shared: str = network["spec"]["libvirtNetwork"]
    return str(uuid.uuid5(uuid.UUID(_SHARED), shared)) if shared else str(network["uid"])
