"""DHCP leases of libvirt's networks: read, and given back for a guest that is gone."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv4Address, ip_network
from typing import Any

import libvirt

from backend.hypervisor.addresses import read_address
from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.link import Link
from backend.hypervisor.plan import Address
from backend.text import sanitise

LONGEST_NAME = 63
RELEASE_SECONDS = 1.0
POLL_SECONDS = 0.05
SERVER_PORT = 67
_IPV4 = 0
_MAGIC = b"\x63\x82\x53\x63"
_SMALLEST_PACKET = 300


def list_leases(link: Link, names: list[str]) -> list[Address]:
    """Return the leases of networks; those that are not there, or not active, have none."""

    def fetch(connection: libvirt.virConnect) -> list[Address]:
        return [
            address._replace(hostname=sanitise(lease.get("hostname") or "", LONGEST_NAME))
            for name in names
            for lease in _read(connection, name)
            for address in read_address(lease.get("ipaddr"), lease.get("prefix"), lease.get("mac"), "lease")
        ]

    return link.observe("the host's leases", fetch) if names else []


def release_lease(link: Link, network: str, mac: str) -> None:
    """Have the DHCP server of a network forget a guest's leases, as the guest itself would ask for.

    Works on this machine only, whoever runs it; elsewhere the leases end by themselves.
    """
    if not link.is_local:
        return
    what = f"network {network}"
    leases, bridge, gateways = link.observe(what, lambda connection: _look(connection, network, mac))
    sent = [lease for lease in leases if _give_back(lease, bridge, gateways)]
    ends = time.monotonic() + RELEASE_SECONDS
    while sent and time.monotonic() < ends:
        # The server takes a moment; who looks next is to see it done.
        if not link.observe(what, lambda connection: _read(connection, network, mac)):
            return
        time.sleep(POLL_SECONDS)


def build_release(address: str, server: str, mac: str, client_id: str = "", transaction: int = 1) -> bytes:
    """Return a DHCPRELEASE (RFC 2131, 4.4.6); `client_id` is colon-separated hexadecimal, as libvirt has it."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s",
        1, 1, len(hardware), 0, transaction, 0, 0, IPv4Address(address).packed, b"", b"", b"", hardware, b"", b"",
    )  # fmt: skip
    options = _option(53, b"\x07") + _option(54, IPv4Address(server).packed)
    if client_id:
        options += _option(61, bytes.fromhex(client_id.replace(":", "")))
    return (head + _MAGIC + options + b"\xff").ljust(_SMALLEST_PACKET, b"\0")


def _option(code: int, value: bytes) -> bytes:
    return bytes([code, len(value)]) + value


def _read(connection: libvirt.virConnect, name: str, mac: str | None = None) -> list[dict[str, Any]]:
    try:
        return connection.networkLookupByName(name).DHCPLeases(mac)
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        return []


def _look(
    connection: libvirt.virConnect, name: str, mac: str
) -> tuple[list[dict[str, Any]], str, list[tuple[str, str]]]:
    """Return a guest's leases, the network's bridge, and the host's addresses on it."""
    from backend.hypervisor.network_xml import read_gateways  # noqa: PLC0415 - a list of leases needs no XML

    try:
        network = connection.networkLookupByName(name)
        if not network.isActive():
            return [], "", []
        return _read(connection, name, mac), network.bridgeName(), read_gateways(network.XMLDesc())
    except libvirt.libvirtError as error:
        if is_lost(error) or not is_code(error, libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_INTERNAL_ERROR):
            raise
        return [], "", []


def _give_back(lease: dict[str, Any], bridge: str, gateways: list[tuple[str, str]]) -> bool:
    if lease.get("type") == _IPV4:
        return _send_release(lease, bridge, gateways)
    from backend.hypervisor.leases_ipv6 import send_release  # noqa: PLC0415 - most leases are of IPv4

    return send_release(lease, bridge)


def _send_release(lease: dict[str, Any], bridge: str, gateways: list[tuple[str, str]]) -> bool:
    """Send the release as if it came from the bridge; False where that cannot be done."""
    try:
        address = IPv4Address(str(lease.get("ipaddr")))
        server = next(gateway for gateway, subnet in gateways if address in ip_network(subnet))
        transaction = int.from_bytes(os.urandom(4), "big")
        packet = build_release(str(address), server, str(lease["mac"]), str(lease.get("clientid") or ""), transaction)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
            channel.sendto(packet, (server, SERVER_PORT))
    except (OSError, ValueError, StopIteration):
        return False
    return True
