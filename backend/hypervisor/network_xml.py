"""From a plan to a libvirt network, and from a libvirt network to what it serves."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from xml.etree.ElementTree import Element

from backend.errors import ConflictError, RefusedError
from backend.hypervisor.network_options import NO_ADVERTISEMENTS, STATELESS, list_options, read_options, write_options
from backend.hypervisor.plan import ObservedNetwork
from backend.hypervisor.xml import attribute, child_text, element, parse, render
from backend.network.plan import DhcpHost, NetworkPlan, Side
from backend.text import sanitise

FIRST_SUBNET = IPv4Network("192.168.150.0/24")
LAST_SUBNET = IPv4Network("192.168.255.0/24")
FORWARD_MODES = {"nat": "nat", "routed": "route", "isolated": ""}
"""libvirt's words for the uplinks of a segment that KC makes."""
_UPLINKS = {mode: uplink for uplink, mode in FORWARD_MODES.items() if mode}
_SMALLEST_SUBNET = 4
# libvirt takes no range in which more than the last 16 bits change.
_RANGE_BITS = 16
_MOST_PIECES = 256
_ROOMY = 2
_PRIVATE_IPV6 = IPv6Network("fc00::/7")
# The DUID that a client makes of its MAC alone (RFC 8415, section 11.4).
_DUID_OF_MAC = "00:03:00:01:"


def build_network(plan: NetworkPlan) -> str:
    """Return the network's XML; raises RefusedError for an uplink, an address or a name that cannot be."""
    what = f"network {plan.name}"
    if plan.uplink not in FORWARD_MODES:
        raise RefusedError(what, f"libvirt makes no network of the uplink {plan.uplink}", "use nat, routed or isolated")
    _check(what, plan.ipv4, 4)
    _check(what, plan.ipv6, 6)
    sides = [each for each in (plan.ipv4, plan.ipv6) if each.host]
    root = element(
        "network",
        element("name", text=plan.name),
        element("uuid", text=plan.uid),
        _forward(plan),
        # Without a name libvirt takes the first virbrN that no device of the host has, ours or another's.
        element("bridge", name=plan.bridge, stp="off", delay="0"),
        element("mtu", size=str(plan.mtu)) if plan.mtu else None,
        # Not `localOnly`: the domain may well be one that other servers know more of.
        element("domain", name=plan.search_domain) if plan.search_domain else None,
        element("dns", *(element("forwarder", addr=address) for address in plan.dns)) if plan.dns and sides else None,
        *(_addresses(what, side, is_crowded=_is_crowded(plan)) for side in sides),
    )
    write_options(root, list_options(plan))
    return render(root)


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
            has_dhcp = item.find("dhcp/range") is not None or item.find("dhcp/host") is not None
            found[subnet.version] = (str(subnet), has_dhcp)
    ipv4, has_dhcp = found.get(4, ("", False))
    ipv6, has_dhcpv6 = found.get(6, ("", False))
    return ObservedNetwork(
        name=sanitise(child_text(root, "name")),
        uid=child_text(root, "uuid"),
        active=active,
        bridge=bridge,
        uplink=f"bridge:{bridge}" if mode == "bridge" else _UPLINKS.get(mode, sanitise(mode)),
        ipv4_subnet=ipv4,
        ipv6_subnet=ipv6,
        ipv4_mode="dhcp" if has_dhcp else "static" if ipv4 else "none",
        ipv6_mode="dhcpv6" if has_dhcpv6 else _advertised(root) if ipv6 else "none",
    )


def _advertised(root: Element) -> str:
    """Return how guests come to IPv6 addresses where there is no DHCP for them."""
    options = read_options(root)
    if NO_ADVERTISEMENTS in options:
        return "static"
    return "stateless" if any(option.endswith(STATELESS) for option in options) else "slaac"


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
        for mine, theirs in ((plan.ipv4.subnet, other.ipv4_subnet), (plan.ipv6.subnet, other.ipv6_subnet)):
            first, second = _parse_subnet(mine), _parse_subnet(theirs)
            if isinstance(first, IPv4Network) and isinstance(second, IPv4Network) and first.overlaps(second):
                return f"{other.name} ({second})"
            if isinstance(first, IPv6Network) and isinstance(second, IPv6Network) and first.overlaps(second):
                return f"{other.name} ({second})"
    return ""


def _forward(plan: NetworkPlan) -> Element | None:
    mode = FORWARD_MODES[plan.uplink]
    if not mode:
        return None
    ipv6 = _parse_subnet(plan.ipv6.subnet)
    # Nobody routes private IPv6 addresses; they need NAT as those of IPv4 do.
    is_private = mode == "nat" and isinstance(ipv6, IPv6Network) and ipv6.subnet_of(_PRIVATE_IPV6)
    return element("forward", element("nat", ipv6="yes") if is_private else None, mode=mode)


def _addresses(what: str, side: Side, *, is_crowded: bool) -> Element:
    """Return the host's address in a subnet, and what a DHCP server has to give there."""
    subnet = ip_network(side.subnet)
    dhcp = None
    if _serves(side):
        lease, hosts = str(side.lease_seconds), _hosts(side, subnet)
        ranges = [piece for first, last in side.ranges for piece in _split(what, first, last)]
        if is_crowded:
            # What is kept for a client is given to nobody else, in a range or not.
            ranges += [(host.get("ip", ""),) * 2 for host in hosts if not _is_in(host.get("ip", ""), ranges)]
        times = (element("lease", expiry=lease, unit="seconds") for _ in ranges)
        pieces = (
            element("range", time, start=first, end=last) for time, (first, last) in zip(times, ranges, strict=True)
        )
        dhcp = element("dhcp", *pieces, *hosts)
    family = "ipv6" if subnet.version == 6 else ""  # noqa: PLR2004 - the version of the protocol
    shown = dhcp if dhcp is not None and len(dhcp) else None
    return element("ip", shown, family=family, address=side.host, prefix=str(subnet.prefixlen))


def _serves(side: Side) -> bool:
    return side.mode in ("dhcp", "dhcpv6")


def _is_crowded(plan: NetworkPlan) -> bool:
    """Return whether leases could run out: libvirt allows as many as ranges have addresses, whatever is kept."""
    sides = [side for side in (plan.ipv4, plan.ipv6) if _serves(side)]
    kept = sum(len(side.hosts) for side in sides)
    room = sum(int(ip_address(last)) - int(ip_address(first)) + 1 for side in sides for first, last in side.ranges)
    return 0 < room < _ROOMY * kept


def _is_in(address: str, ranges: Iterable[tuple[str, str]]) -> bool:
    number = int(ip_address(address))
    return any(int(ip_address(first)) <= number <= int(ip_address(last)) for first, last in ranges)


def _split(what: str, first: str, last: str) -> list[tuple[str, str]]:
    """Return a range in pieces that libvirt takes."""
    start, end = int(ip_address(first)), int(ip_address(last))
    if (end >> _RANGE_BITS) - (start >> _RANGE_BITS) >= _MOST_PIECES:
        raise RefusedError(what, f"the range from {first} to {last} is too large", "give a smaller one")
    make = type(ip_address(first))
    pieces = []
    while start <= end:
        stop = min(end, start | (1 << _RANGE_BITS) - 1)
        pieces.append((str(make(start)), str(make(stop))))
        start = stop + 1
    return pieces


def _hosts(side: Side, subnet: IPv4Network | IPv6Network) -> list[Element]:
    """Return what DHCP keeps for clients; of those that libvirt cannot tell apart, the first.

    A name may stand once: it makes no second entry's client known for IPv6, and is left out of it for IPv4. What is not
    in the subnet could not be given.
    """
    version = subnet.version
    made: list[Element] = []
    seen: set[str] = set()
    for host in side.hosts:
        name = host.hostname if host.hostname not in seen else ""
        known_by = _known_by(host, version)
        keys = {*known_by.values(), host.address}
        if not (known_by or (version == 6 and name)) or keys & seen:  # noqa: PLR2004 - the version of the protocol
            continue
        if not _is_of(host.address, subnet):
            continue
        seen |= keys | ({name} if name else set())
        lease = element("lease", expiry=str(side.lease_seconds), unit="seconds")
        made.append(element("host", lease, **known_by, name=name, ip=host.address))
    return made


def _known_by(host: DhcpHost, version: int) -> dict[str, str]:
    """Return the attributes by which the server knows a client without its name."""
    mac = host.mac.lower()
    if version == 4:  # noqa: PLR2004 - the version of the protocol
        return {"mac": mac} if mac else {}
    if host.duid:
        return {"id": host.duid.lower()}
    return {"id": _DUID_OF_MAC + mac} if mac and not host.hostname else {}


def _check(what: str, side: Side, version: int) -> None:
    """Raise RefusedError where a side is not one."""
    if not side.subnet:
        return
    subnet = _parse_subnet(side.subnet)
    if subnet is None or subnet.version != version or subnet.num_addresses < _SMALLEST_SUBNET:
        why = f"{sanitise(side.subnet)} is no subnet of IPv{version} with room for guests"
        raise RefusedError(what, why, "write A.B.C.0/24")
    if not side.host:
        if side.mode not in ("none", "static"):
            raise RefusedError(what, f"the host serves {side.mode} without an address of its own", "give it one")
        return
    for text in (side.host, *(end for span in side.ranges for end in span)):
        if not _is_of(text, subnet):
            raise RefusedError(what, f"the address {sanitise(text)} is not in {subnet}")


def _is_of(text: str, subnet: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(text) in subnet
    except ValueError:
        return False


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
