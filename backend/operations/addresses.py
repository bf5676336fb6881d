"""Which addresses a network's documents give to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backend.model.addressing import FAMILIES, Family, given_address
from backend.model.documents import Document, is_readable
from backend.model.kinds import VM

if TYPE_CHECKING:
    from backend.store.protocol import Store


class Given(NamedTuple):
    """An address (CIDR) that a document gives to a VM's NIC, static or kept by DHCP."""

    family: Family
    address: str
    vm_uid: str
    vm: str
    nic: str
    mac: str


def list_given(store: Store, network: Document) -> list[Given]:
    """Return the addresses that the NICs on a network are given, in the order of the VMs' names."""
    from backend.model.selectors import parse  # noqa: PLC0415 - the list of VMs needs none

    found: dict[str, Document] = {}
    for family in FAMILIES:
        # The store's index finds those few of many VMs that have an address.
        where = parse(f"spec.nics.network.uid={network['uid']},spec.nics.{family}.address~?*")
        for vm in store.list_documents(VM.name, where=where).items:
            if is_readable(vm):
                found[vm["uid"]] = vm
    return [given for vm in sorted(found.values(), key=lambda vm: str(vm["name"])) for given in given_to(vm, network)]


def given_to(vm: Document, network: Document) -> list[Given]:
    """Return the addresses that one VM's NICs are given on a network."""
    return [
        Given(family, address, vm["uid"], vm["name"], nic["id"], nic["mac"])
        for nic in vm["spec"]["nics"]
        if nic["network"]["uid"] == network["uid"]
        for family in FAMILIES
        if (address := given_address(nic, network, family))
    ]
