"""The addresses of one network: leases, who uses which and how that is known, and how many are free."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from backend.errors import KCError
from backend.model.addressing import FAMILIES, SERVED_MODES, given_address, host_address, mode_of, plain
from backend.model.documents import Document, is_readable
from backend.model.kinds import VM
from backend.model.networks import is_own, libvirt_name
from backend.operations.gateways import resolve_gateway
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.hypervisor.plan import Address
    from backend.hypervisor.protocol import Hypervisor
    from backend.store.protocol import Store

ASKED_VMS = 20
ASKING_SECONDS = 2.0
"""How many guests are asked for addresses that nothing else tells, and how long at most; one may take 2 s to say no."""


class _Port(NamedTuple):
    """A NIC on the network."""

    vm: Document
    nic: Document

    @property
    def owner(self) -> str:
        return f"VM {self.vm['name']}/{self.nic['id']}"


class _Use(NamedTuple):
    """An address in use."""

    address: IPv4Address | IPv6Address
    owner: str
    source: str


def inspect_addresses(store: Store, hypervisor: Hypervisor, network: Document) -> Document:
    """Return `leases`, `addresses`, `free` and `vms` of a network's status; what the host does not tell is left out.

    `free` counts a family's usable addresses that are nobody's, 0 without a subnet. One pass over the network's VMs.
    """
    from backend.model.selectors import parse  # noqa: PLC0415 - lists of networks need none

    # The store's index finds those that are on the network.
    where = parse(f"spec.nics.network.uid={network['uid']}")
    ports = [
        _Port(vm, nic)
        for vm in filter(is_readable, store.list_documents(VM.name, where=where).items)
        for nic in vm["spec"]["nics"]
        if nic["network"]["uid"] == network["uid"]
    ]
    by_mac = {port.nic["mac"]: port for port in ports}
    leases = _read_leases(hypervisor, network)
    uses: dict[IPv4Address | IPv6Address, _Use] = {}
    for use in [*_documented(store, network, ports), *_leased(leases, by_mac)]:
        uses.setdefault(use.address, use)
    for use in _observed(hypervisor, network, ports, uses.values()):
        uses.setdefault(use.address, use)
    ordered = sorted(uses.values(), key=lambda use: (use.address.version, int(use.address)))
    return {
        "leases": [_show_lease(lease, network, by_mac) for lease in leases],
        "addresses": [{"address": str(use.address), "owner": use.owner, "source": use.source} for use in ordered],
        "free": {family: _count_free(network["spec"][family]["subnet"], uses) for family in FAMILIES},
        "vms": sorted({str(port.vm["name"]) for port in ports}),
    }


def _read_leases(hypervisor: Hypervisor, network: Document) -> list[Address]:
    if not is_own(network):
        return []
    try:
        return hypervisor.leases([libvirt_name(network)])
    except KCError:
        return []


def _show_lease(lease: Address, network: Document, by_mac: dict[str, _Port]) -> Document:
    mac = lease.mac.lower()
    shown: dict[str, Any] = {"mac": sanitise(mac, 20), "address": sanitise(lease.address, 64)}
    port = by_mac.get(mac)
    if port is not None:
        return {**shown, "vm": port.vm["name"], "nic": port.nic["id"]}
    for family in FAMILIES:
        for kept in network["spec"][family]["reservations"]:
            if kept["hostname"] and mac == kept["mac"]:
                shown["hostname"] = kept["hostname"]
    return shown


def _documented(store: Store, network: Document, ports: Iterable[_Port]) -> Iterator[_Use]:
    """Yield what documents say: the host, what NICs are given, the gateway, reservations."""
    spec = network["spec"]
    for family in FAMILIES:
        host = host_address(spec, family)
        if host:
            yield _Use(ip_address(host), "host", "host")
    for port in ports:
        for family in FAMILIES:
            given = plain(given_address(port.nic, network, family))
            if given:
                is_static = mode_of(port.nic, network, family) == "static"
                yield _Use(ip_address(given), port.owner, "static" if is_static else "reserved")
    for gateway in resolve_gateway(store, network).values():
        if gateway:
            yield _Use(ip_address(gateway), "gateway", "gateway")
    for family in FAMILIES:
        for kept in spec[family]["reservations"]:
            owner = f"reservation {kept['hostname'] or kept['mac'] or kept['duid']}"
            yield _Use(ip_address(kept["address"]), owner, "reserved")


def _leased(leases: Iterable[Address], by_mac: dict[str, _Port]) -> Iterator[_Use]:
    for lease in leases:
        address, mac = _parse(lease.address), lease.mac.lower()
        if address is not None:
            owner = by_mac[mac].owner if mac in by_mac else f"lease {sanitise(mac, 20)}"
            yield _Use(address, owner, "lease")


def _observed(
    hypervisor: Hypervisor, network: Document, ports: Iterable[_Port], known: Iterable[_Use]
) -> Iterator[_Use]:
    """Yield what guests say, or the host's neighbours of them, where an address that they are to have is not known."""
    have = {(use.owner, use.address.version) for use in known}
    waiting = [
        port
        for port in ports
        for version, family in ((4, FAMILIES[0]), (6, FAMILIES[1]))
        if mode_of(port.nic, network, family) in SERVED_MODES and (port.owner, version) not in have
    ]
    ends = time.monotonic() + ASKING_SECONDS
    try:
        running = {domain.uid for domain in hypervisor.inventory() if domain.power == "running"} if waiting else set()
        asked = list({port.vm["uid"]: port for port in waiting if port.vm["uid"] in running}.values())
        for port in asked[:ASKED_VMS]:
            if time.monotonic() > ends:
                return
            macs = {nic["mac"]: nic for nic in port.vm["spec"]["nics"] if nic["network"]["uid"] == network["uid"]}
            for found in hypervisor.addresses(port.vm["uid"]):
                address = _parse(found.address)
                if address is not None and not address.is_link_local and found.mac.lower() in macs:
                    yield _Use(address, _Port(port.vm, macs[found.mac.lower()]).owner, found.source)
    except KCError:
        return


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _count_free(text: str, used: Iterable[IPv4Address | IPv6Address]) -> int:
    """Return how many of a subnet's usable addresses are nobody's."""
    if not text:
        return 0
    subnet = ip_network(text)
    # IPv4 keeps its first and last address for itself, IPv6 its first (RFC 4291, 2.6.1).
    kept = {subnet[0], subnet[-1]} if subnet.version == 4 else {subnet[0]}  # noqa: PLR2004 - the version of the protocol
    taken = {address for address in used if address.version == subnet.version and address in subnet}
    return subnet.num_addresses - len(kept | taken)
