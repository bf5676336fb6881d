"""Addresses of guests, as agents, DHCP servers and neighbours tell them."""

from __future__ import annotations

from ipaddress import ip_address

from backend.hypervisor.plan import Address
from backend.text import sanitise


def read_address(text: object, prefix: object, mac: object, source: str) -> list[Address]:
    """Return an address as a list of one; [] for loopback, link-local, multicast and what is no address."""
    try:
        address = ip_address(str(text))
    except ValueError:
        return []
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return []
    family = "ipv4" if address.version == 4 else "ipv6"  # noqa: PLR2004 - the version of the protocol
    length = prefix if isinstance(prefix, int) else address.max_prefixlen
    return [Address(str(address), length, family, sanitise(mac or "").lower(), source)]
