"""From a plan to a libvirt network, and from a libvirt network to what it serves."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from xml.etree.ElementTree import Element

from backend.errors import ConflictError, RefusedError
from backend.hypervisor.plan import NetworkPlan, ObservedNetwork
from backend.hypervisor.xml import attribute, child_text, element, parse, render
from backend.text import sanitise

LEASE_HOURS = 1
FIRST_SUBNET = IPv4Network("192.168.150.0/24")
LAST_SUBNET = IPv4Network("192.168.255.0/24")
FIRST_DHCPV6 = 0x100
# libvirt takes no range in which more than the last 16 bits change, or that is longer.
LARGEST_OFFSET = 0xFFFF
SMALLEST_DHCP_SUBNET = 4
_PRIVATE_IPV6 = IPv6Network("fc00::/7")


def build_network(plan: NetworkPlan) -> str:
    """Return the network's XML; raises RefusedError for an uplink or a subnet that cannot be."""
    what = f"network {plan.name}"
    if plan.uplink.startswith("bridge:"):
        bridge = element("bridge", name=plan.uplink.removeprefix("bridge:"))
        return render(_network(plan, element("forward", mode="bridge"), bridge))
    if plan.uplink not in ("nat", "isolated"):
        raise RefusedError(what, f"unknown uplink {plan.uplink}", "use nat, isolated or bridge:NAME")
    ipv4, ipv6 = _subnet(what, plan.ipv4_subnet, 4), _subnet(what, plan.ipv6_subnet, 6)
    return render(
        _network(
            plan,
            _forward(ipv6) if plan.uplink == "nat" else None,
            # Without a name libvirt takes the first virbrN that no device of the host has, ours or another's.
            element("bridge", name=plan.bridge, stp="off", delay="0"),
            element("mtu", size=str(plan.mtu)) if plan.mtu else None,
            element("dns", *(element("forwarder", addr=address) for address in plan.dns)) if plan.dns else None,
            _addresses(ipv4, with_dhcp=plan.ipv4_mode == "dhcp"),
            _addresses(ipv6, with_dhcp=plan.ipv6_mode == "dhcpv6"),
        )
    )


def read_network(xml: str, *, active: bool) -> ObservedNetwork:
    """Return what a libvirt network serves."""
    root = parse(xml)
    forward = root.find("forward")
    mode = forward.get("mode", "nat") if forward is not None else "isolated"
    bridge = sanitise(attribute(root, "bridge", "name"))
    found: dict[int, tuple[str, bool]] = {}
    for item in root.findall("ip"):
        subnet = _served(item)
        if subnet is not None and subnet.version not in found:
            found[subnet.version] = (str(subnet), item.find("dhcp/range") is not None)
    ipv4, has_dhcp = found.get(4, ("", False))
    ipv6, has_dhcpv6 = found.get(6, ("", False))
    return ObservedNetwork(
        name=sanitise(child_text(root, "name")),
        uid=child_text(root, "uuid"),
        active=active,
        bridge=bridge,
        uplink=f"bridge:{bridge}" if mode == "bridge" else sanitise(mode),
        ipv4_subnet=ipv4,
        ipv6_subnet=ipv6,
        ipv4_mode="dhcp" if has_dhcp else "static" if ipv4 else "none",
        ipv6_mode="dhcpv6" if has_dhcpv6 else "slaac" if ipv6 else "none",
    )


def read_gateways(xml: str) -> list[tuple[str, str]]:
    """Return the host's own addresses in a libvirt network, each with the subnet that it is in."""
    gateways = []
    for item in parse(xml).findall("ip"):
        subnet = _served(item)
        if subnet is not None:
            gateways.append((item.get("address", ""), str(subnet)))
    return gateways


def propose_subnet(used: Iterable[str]) -> str:
    """Return the first free /24 from 192.168.150.0 upward, given the subnets (CIDR) in use.

    Raises ConflictError where none is free.
    """
    taken = [network for network in (_parse_subnet(text) for text in used) if isinstance(network, IPv4Network)]
    for number in range(int(FIRST_SUBNET.network_address), int(LAST_SUBNET.network_address) + 1, 256):
        candidate = IPv4Network((number, 24))
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    raise ConflictError("network", f"no /24 is free from {FIRST_SUBNET} upward", "give a subnet with --ipv4")


def find_clash(plan: NetworkPlan, others: Iterable[ObservedNetwork]) -> str:
    """Return which other libvirt network has a subnet of the plan, as `NAME (SUBNET)`; empty where none has."""
    for other in others:
        if other.name == plan.name:
            continue
        for mine, theirs in ((plan.ipv4_subnet, other.ipv4_subnet), (plan.ipv6_subnet, other.ipv6_subnet)):
            first, second = _parse_subnet(mine), _parse_subnet(theirs)
            if isinstance(first, IPv4Network) and isinstance(second, IPv4Network) and first.overlaps(second):
                return f"{other.name} ({second})"
            if isinstance(first, IPv6Network) and isinstance(second, IPv6Network) and first.overlaps(second):
                return f"{other.name} ({second})"
    return ""


def _network(plan: NetworkPlan, *children: Element | None) -> Element:
    return element("network", element("name", text=plan.name), element("uuid", text=plan.uid), *children)


def _forward(ipv6: IPv4Network | IPv6Network | None) -> Element:
    # Nobody routes private IPv6 addresses; they need NAT as those of IPv4 do.
    is_private = isinstance(ipv6, IPv6Network) and ipv6.subnet_of(_PRIVATE_IPV6)
    return element("forward", element("nat", ipv6="yes") if is_private else None, mode="nat")


def _addresses(subnet: IPv4Network | IPv6Network | None, *, with_dhcp: bool) -> Element | None:
    """Return the host's address in a subnet (its first), and the range of a DHCP server."""
    if subnet is None:
        return None
    dhcp = None
    if with_dhcp:
        if isinstance(subnet, IPv4Network):
            first, last = 2, min(subnet.num_addresses - 2, LARGEST_OFFSET)
        else:
            first = min(FIRST_DHCPV6, subnet.num_addresses // 2)
            last = min(subnet.num_addresses - 1, LARGEST_OFFSET)
        lease = element("lease", expiry=str(LEASE_HOURS), unit="hours")
        dhcp = element("dhcp", element("range", lease, start=str(subnet[first]), end=str(subnet[last])))
    family = "ipv6" if subnet.version == 6 else ""  # noqa: PLR2004 - the version of the protocol
    return element("ip", dhcp, family=family, address=str(subnet[1]), prefix=str(subnet.prefixlen))


def _subnet(what: str, text: str, version: int) -> IPv4Network | IPv6Network | None:
    if not text:
        return None
    subnet = _parse_subnet(text)
    if subnet is None or subnet.version != version or subnet.num_addresses < SMALLEST_DHCP_SUBNET:
        raise RefusedError(
            what, f"{sanitise(text)} is no subnet of IPv{version} with room for guests", "write A.B.C.0/24"
        )
    return subnet


def _parse_subnet(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _served(item: Element) -> IPv4Network | IPv6Network | None:
    """Return the subnet of an `<ip>`, whose size stands as a prefix or as a netmask."""
    default = "64" if item.get("family") == "ipv6" else "24"
    size = item.get("prefix") or item.get("netmask") or default
    try:
        return ip_interface(f"{item.get('address', '')}/{size}").network
    except ValueError:
        return None
