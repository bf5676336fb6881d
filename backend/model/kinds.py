"""The kinds of object that KC knows, and what each is called where."""

from __future__ import annotations

from typing import NamedTuple

from backend.errors import NotFoundError


class Kind(NamedTuple):
    """One kind: `name` in a document, `command` on the command line, `collection` in an HTTP path."""

    name: str
    command: str
    collection: str
    title: str


VM = Kind("VM", "vm", "vms", "VM")
IMAGE = Kind("Image", "image", "images", "image")
NETWORK = Kind("Network", "network", "networks", "network")
MACHINE_TYPE = Kind("MachineType", "type", "machine-types", "machine type")
OPERATION = Kind("Operation", "op", "operations", "operation")
TRASH = Kind("Trash", "trash", "trash", "deleted object")
TOKEN = Kind("Token", "token", "tokens", "token")

KINDS: tuple[Kind, ...] = (VM, IMAGE, NETWORK, MACHINE_TYPE, OPERATION, TRASH, TOKEN)
KEPT_KINDS: tuple[Kind, ...] = (VM, IMAGE, NETWORK, MACHINE_TYPE)
"""What a customer makes, changes, deletes and brings back."""
WRITTEN_KINDS: tuple[Kind, ...] = (*KEPT_KINDS, TOKEN)
"""What a customer makes, changes and deletes; a token that was deleted is revoked, and never comes back."""

ENROLMENT = "Enrolment"
"""What the store keeps besides, and no list, feed or command knows: who has which one-time codes."""


def find_kind(word: str) -> Kind:
    """Return the kind whose name, command or collection is `word`; raise NotFoundError where there is none."""
    for kind in KINDS:
        if word in (kind.name, kind.command, kind.collection):
            return kind
    raise NotFoundError(f"kind {word!r}", "no such kind", f"known are {', '.join(kind.command for kind in KINDS)}")
