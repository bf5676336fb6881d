"""How addresses come to be on a network, and what a NIC may do there, as its document says; pure.

Which address the host has, what DHCP may give, what a NIC is given, what guards it.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Literal

from backend.model.documents import Document
from backend.model.networks import is_own

Family = Literal["ipv4", "ipv6"]
FAMILIES: tuple[Family, Family] = ("ipv4", "ipv6")
SERVED_MODES = ("dhcp", "slaac", "stateless", "dhcpv6")
"""Ways of addressing for which somebody on the segment answers."""

VXLAN_OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN puts around a frame's payload, by the version of IP below it (RFC 7348, section 5)."""
_FIRST_DHCPV6 = 0x100
# libvirt takes no range in which more than the last 16 bits change, or that is longer.
_LARGEST_OFFSET = 0xFFFF
_QUARTERED = 16
"""From so many addresses on, the lower quarter of a subnet is kept from DHCP by default, for static addresses."""


def gateway_addresses(spec: Document) -> list[str]:
    """Return the addresses that a network's document itself names as its gateway, plain."""
    gateway: str = spec["gateway"]
    return [] if gateway in ("host", "none") or gateway.startswith(("vm:", "router:")) else gateway.split(",")


def mode_of(nic: Document, network: Document, family: Family) -> str:
    """Return how a NIC gets its address: its own wish first, the network's mode otherwise."""
    wish = str(nic[family]["mode"])
    return str(network["spec"][family]["mode"]) if wish == "network" else wish


def host_address(spec: Document, family: Family) -> str:
    """Return the host's own address on a segment that KC makes, plain; empty where it has none there.

    The first of the subnet where the host is the gateway; else the last (IPv6: the second, as its last ones have
    meanings of their own, RFC 2526), so that a gateway can have the first; or the first where the gateway has that.
    """
    text = spec[family]["subnet"]
    if not text or spec["uplink"].startswith("bridge:"):
        return ""
    subnet = ip_network(text)
    first, other = str(subnet[1]), str(subnet[-2] if subnet.version == 4 else subnet[2])  # noqa: PLR2004 - IP's version
    if spec["gateway"] == "host":
        return first
    reference = spec.get("gatewayReference") or {}
    return first if other in (*gateway_addresses(spec), *reference.get("addresses", ())) else other


def dynamic_ranges(spec: Document, family: Family, excluded: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
    """Return the (first, last) of what DHCP may give on a network; () where it gives none.

    By default the upper three quarters of a subnet (IPv6: from ::100), without the host's address. `excluded`
    addresses are cut out.
    """
    side = spec[family]
    if side["mode"] not in ("dhcp", "dhcpv6") or not side["subnet"]:
        return ()
    ranges = [(int(ip_address(each["start"])), int(ip_address(each["end"]))) for each in side.get("ranges", ())]
    subnet = ip_network(side["subnet"])
    ranges = ranges or [_default_range(subnet)]
    host = host_address(spec, family)
    for text in {*excluded, *([host] if host else [])}:
        ranges = _cut(ranges, int(ip_address(text)))
    make = type(subnet.network_address)
    return tuple((str(make(first)), str(make(last))) for first, last in ranges)


def _default_range(subnet: IPv4Network | IPv6Network) -> tuple[int, int]:
    base, size = int(subnet.network_address), subnet.num_addresses
    if isinstance(subnet, IPv4Network):
        first = max(2, size // 4) if size >= _QUARTERED else 1
        # What libvirt takes for one range lies within the same upper 16 bits.
        return base + min(first, _LARGEST_OFFSET // 4), base + min(size - 2, _LARGEST_OFFSET)
    return base + min(_FIRST_DHCPV6, size // 2), base + min(size - 1, _LARGEST_OFFSET)


def _cut(ranges: list[tuple[int, int]], hole: int) -> list[tuple[int, int]]:
    """Return ranges without one address."""
    kept = []
    for first, last in ranges:
        if not first <= hole <= last:
            kept.append((first, last))
            continue
        kept += [(first, hole - 1)] if first < hole else []
        kept += [(hole + 1, last)] if hole < last else []
    return kept


def plain(address: str) -> str:
    """Return an address without its prefix."""
    return str(ip_interface(address).ip) if address else ""


def given_address(nic: Document, network: Document, family: Family) -> str:
    """Return the address (CIDR) that the document gives to a NIC, static or kept by DHCP; empty where there is none."""
    address: str = nic[family]["address"]
    return address if mode_of(nic, network, family) in ("static", "dhcp", "dhcpv6") else ""


def effective_guard(nic: Document, network: Document, *, is_gateway: bool) -> dict[str, Any]:
    """Return what a NIC may not do, every `network` and `auto` resolved.

    `{"antiSpoof": "off"|"mac"|"address", "ipv4": [address, …]|None, "ipv6": …, "strict": bool, "dhcpGuard": bool,
    "raGuard": bool, "isolated": bool}`: the addresses are all that the NIC may use, None stands for any. `auto` checks
    the MAC, and the addresses of a family where KC gives them; a gateway forwards what others sent, so its MAC alone.
    Servers are stopped where KC itself sees to addresses of that family, but not the gateway's advertisements.
    `strict`: somebody asked for `address`, so that link-local IPv6 is checked too.
    """
    default, own = network["spec"].get("guard", {}), nic.get("guard", {})

    def pick(field: str) -> str:
        wish = own.get(field, "network")
        return str(default.get(field, "auto")) if wish == "network" else str(wish)

    spoof = pick("antiSpoof")
    allowed = {family: _allowed(nic, network, family, spoof, is_gateway=is_gateway) for family in FAMILIES}
    serves = {family: is_own(network) and network["spec"][family]["mode"] != "none" for family in FAMILIES}
    dhcp, router, isolated = pick("dhcpGuard"), pick("raGuard"), own.get("isolated", "network")
    knows = any(addresses is not None for addresses in allowed.values())
    return {
        "antiSpoof": "off" if spoof == "off" else "address" if knows else "mac",
        "ipv4": allowed["ipv4"],
        "ipv6": allowed["ipv6"],
        "strict": spoof == "address",
        "dhcpGuard": dhcp == "on" or (dhcp == "auto" and any(serves.values())),
        "raGuard": router == "on" or (router == "auto" and serves["ipv6"] and not is_gateway),
        "isolated": bool(default.get("isolated", False)) if isolated == "network" else isolated == "on",
    }


def _allowed(nic: Document, network: Document, family: Family, spoof: str, *, is_gateway: bool) -> list[str] | None:
    if spoof in ("off", "mac") or (spoof == "auto" and is_gateway):
        return None
    address = given_address(nic, network, family)
    if address:
        return [plain(address)]
    return [] if spoof == "address" and mode_of(nic, network, family) == "none" else None


def effective_rates(nic: Document, network: Document) -> tuple[int, int]:
    """Return how many bytes a second a NIC may receive and send; 0: no limit."""
    limit = nic.get("rateLimit") or network["spec"].get("rateLimit", {})
    return limit.get("receiveBytesPerSecond") or 0, limit.get("sendBytesPerSecond") or 0
