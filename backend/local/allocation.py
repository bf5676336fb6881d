"""The addresses of a VM's NICs: chosen where the document leaves it to KC, and nobody else's.

It is asked inside the transaction that writes the VM: transactions come one after another, so what is free here is free
when it is written, however many processes ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from backend.errors import ConflictError, RefusedError
from backend.model.addressing import (
    FAMILIES,
    Family,
    dynamic_ranges,
    gateway_addresses,
    given_address,
    host_address,
    mode_of,
    plain,
)
from backend.model.documents import Document, complete
from backend.model.kinds import NETWORK
from backend.operations.addresses import Given, given_to, list_given
from backend.operations.gateways import VM_PREFIX, is_gateway

if TYPE_CHECKING:
    from backend.store.protocol import Store


def settle_addresses(store: Store, vm: Document) -> None:
    """Fill the addresses into a VM's NICs that KC is to choose; raise ConflictError for one that is taken.

    Raises RefusedError for one that cannot be, and where a network has no subnet to choose from.
    """
    what = f"VM {vm['name']}"
    for index, nic in enumerate(vm["spec"]["nics"]):
        network = store.get(NETWORK.name, nic["network"]["uid"])
        if network is None:
            continue
        network = complete(network)
        for family in FAMILIES:
            path = f"spec.nics.{index}.{family}"
            if mode_of(nic, network, family) == "static" and not nic[family]["address"]:
                nic[family]["address"] = _choose(store, vm, nic, network, family, f"{what}: {path}")
            elif given_address(nic, network, family):
                _check(store, vm, nic, network, family, f"{what}: {path}.address")


def _choose(store: Store, vm: Document, nic: Document, network: Document, family: Family, what: str) -> str:
    """Return the lowest free address outside what DHCP may give, or within it where there is none outside."""
    spec = network["spec"]
    text = spec[family]["subnet"]
    if not text:
        why = f"network {network['name']} has no {family.replace('ip', 'IP')} subnet to choose an address from"
        raise RefusedError(what, why, "give one in CIDR form")
    subnet = ip_network(text)
    taken = {int(ip_address(address)) for address in _list_taken(store, vm, nic, network, family)}
    ranges = [(int(ip_address(first)), int(ip_address(last))) for first, last in dynamic_ranges(spec, family)]
    for closed in (ranges, []):
        number = find_free(subnet, taken, closed)
        if number is not None:
            return f"{type(subnet.network_address)(number)}/{subnet.prefixlen}"
    why = f"no address is free in {text} of network {network['name']}: {len(taken)} are in use"
    raise ConflictError(what, why, f"see kc network show {network['name']}, or give it a larger subnet")


def find_free(
    subnet: IPv4Network | IPv6Network, taken: set[int], closed: Iterable[tuple[int, int]]
) -> int | None:  # fmt: skip
    """Return the lowest address of a subnet that a machine can have, is not `taken` and in no `closed` range."""
    number = int(subnet.network_address) + 1
    # IPv4 keeps the last for broadcasts (RFC 919).
    last = int(subnet.network_address) + subnet.num_addresses - (2 if isinstance(subnet, IPv4Network) else 1)
    bounds = sorted(closed)
    while number <= last:
        beyond = next((end + 1 for start, end in bounds if start <= number <= end), None)
        if beyond is not None:
            number = beyond
        elif number in taken:
            number += 1
        else:
            return number
    return None


def _list_taken(store: Store, vm: Document, nic: Document, network: Document, family: Family) -> list[str]:
    """Return what nobody else may have on a network, plain."""
    spec = network["spec"]
    return [
        *(address for address in [host_address(spec, family)] if address),
        *(address for address in gateway_addresses(spec) if (":" in address) == (family == "ipv6")),
        # A gateway that has no address yet is likely to want the first.
        *([str(ip_network(spec[family]["subnet"])[1])] if spec["gateway"].startswith(VM_PREFIX) else []),
        *(each["address"] for each in spec[family]["reservations"]),
        *(plain(each.address) for each in _list_others(store, vm, nic, network, family)),
    ]


def _list_others(store: Store, vm: Document, nic: Document, network: Document, family: Family) -> list[Given]:
    """Return what the other NICs on a network are given, those of the same VM as it is about to be."""
    others = [each for each in list_given(store, network) if each.vm_uid != vm["uid"]]
    own = [each for each in given_to(vm, network) if each.nic != nic["id"]]
    return [each for each in others + own if each.family == family]


def _check(store: Store, vm: Document, nic: Document, network: Document, family: Family, what: str) -> None:
    spec, address = network["spec"], plain(nic[family]["address"])
    subnet = ip_network(spec[family]["subnet"]) if spec[family]["subnet"] else None
    if subnet is not None:
        wrong = address == str(subnet.network_address)
        if wrong or (isinstance(subnet, IPv4Network) and address == str(subnet.broadcast_address)):
            raise RefusedError(
                what, f"{address} is not an address that a machine can have in {subnet}", "choose another"
            )
    # From the gateway the host keeps away.
    if address == host_address(spec, family) and not is_gateway(nic, vm, network):
        hint = (
            f"kc network set {network['name']} spec.gateway={address} lets this VM have it"
            if spec["gateway"] == "host"
            else ""
        )
        raise ConflictError(what, f"{address} is the host's own on network {network['name']}", hint or "choose another")
    for each in spec[family]["reservations"]:
        if each["address"] == address and each["mac"] != nic["mac"]:
            who = each["hostname"] or each["mac"] or each["duid"]
            raise ConflictError(what, f"{address} is reserved for {who} on network {network['name']}", "choose another")
    for other in _list_others(store, vm, nic, network, family):
        if plain(other.address) == address:
            why = f"{address} belongs to {other.nic} of VM {other.vm}"
            raise ConflictError(what, why, "choose another, or write static and KC chooses")
