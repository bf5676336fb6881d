"""What lies between a libvirt network and a changed plan: nothing, what its DHCP gives, or the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.network_options import read_options
from backend.hypervisor.network_xml import build_network
from backend.hypervisor.xml import attribute, parse, render
from backend.network.plan import NetworkPlan

_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}


_Ranges = dict[tuple[str, str, int], str]


class Update(NamedTuple):
    """A `range` or a `host` of DHCP to `add` or to `delete`, in the `<ip>` of that position."""

    verb: Literal["add", "delete"]
    section: Literal["range", "host"]
    position: int
    xml: str


class _Shape(NamedTuple):
    """A network but for what its DHCP gives."""

    uplink: str
    nat_ipv6: str
    bridge: str
    mtu: str
    domain: tuple[str, str]
    dns: str
    forwarders: tuple[str, ...]
    addresses: tuple[str, ...]
    options: tuple[str, ...]


def compare_network(xml: str, plan: NetworkPlan) -> list[Update] | None:
    """Return the updates that make a network the plan's, in order; None where more differs than those can change."""
    found = parse(xml)
    wanted = parse(build_network(keep_bridge(xml, plan)))
    if _shape(found) != _shape(wanted):
        return None
    updates: list[Update] = []
    for position, (old, new) in enumerate(zip(found.findall("ip"), wanted.findall("ip"), strict=True)):
        updates += _compare(old, new, position, _ranges, shared=plan.shared)
    return updates


def compare_hosts(xml: str, plan: NetworkPlan) -> list[Update]:
    """Return the updates that make what DHCP keeps for clients the plan's, whatever else differs.

    A side whose subnet is not the plan's, or where nobody serves addresses, is left as it is.
    """
    found, wanted = parse(xml).findall("ip"), parse(build_network(plan)).findall("ip")
    updates: list[Update] = []
    for new in wanted:
        for position, old in enumerate(found):
            if _subnet(old) == _subnet(new) and new.find("dhcp") is not None and old.find("dhcp") is not None:
                updates += _compare(old, new, position, _single_addresses, shared=plan.shared)
    return updates


def is_same_subnets(xml: str, plan: NetworkPlan) -> bool:
    """Return whether a network's subnets are the plan's, so that what its DHCP server knows of leases still holds."""
    return {_subnet(item) for item in parse(xml).findall("ip")} == {
        _subnet(item) for item in parse(build_network(plan)).findall("ip")
    }


def rebuild_network(xml: str, plan: NetworkPlan) -> str:
    """Return the XML of a plan for the network that is there: its bridge keeps its name and MAC, which guests know."""
    made = parse(build_network(keep_bridge(xml, plan)))
    mac = parse(xml).find("mac")
    if mac is not None:
        made.append(mac)
    return render(made)


def keep_bridge(xml: str, plan: NetworkPlan) -> NetworkPlan:
    """Return the plan with the bridge that the network has, where the plan leaves its name to libvirt."""
    found = parse(xml)
    if plan.bridge or _mode(found) == "bridge":
        return plan
    return plan._replace(bridge=attribute(found, "bridge", "name"))


def _compare(
    old: Element, new: Element, position: int, read: Callable[[Element], _Ranges], *, shared: bool
) -> Iterator[Update]:
    """Yield the updates of ranges, as far as `read` reads them, and of hosts.

    An address that is kept for a client is at no time in a range before it is kept.
    """
    before, after = read(old), read(new)
    hosts = list(_compare_hosts(old, new, position, shared=shared))
    if not (shared and read is _single_addresses):
        yield from (Update("delete", "range", position, xml) for key, xml in before.items() if key not in after)
    yield from hosts
    yield from (Update("add", "range", position, xml) for key, xml in after.items() if key not in before)


def _compare_hosts(old: Element, new: Element, position: int, *, shared: bool) -> Iterator[Update]:
    """Yield what removes hosts that are not wanted, then what adds those that are missing.

    Of a shared network only those go that stand for a client of ours.
    """
    before, after = _hosts(old), _hosts(new)
    ours = {client for client, *_ in after}
    gone = {key: xml for key, xml in before.items() if key not in after and (not shared or key[0] in ours)}
    kept = [key for key in before if key not in gone]
    yield from (Update("delete", "host", position, xml) for xml in gone.values())
    for key, xml in after.items():
        # Two of one address or name are more than libvirt takes; who has it keeps it.
        is_taken = shared and any(key[2] == other[2] or (key[1] and key[1] == other[1]) for other in kept)
        if key not in before and not is_taken:
            yield Update("add", "host", position, xml)


def _shape(root: Element) -> _Shape:
    return _Shape(
        uplink=_mode(root),
        nat_ipv6=attribute(root, "forward/nat", "ipv6"),
        bridge=attribute(root, "bridge", "name"),
        mtu=attribute(root, "mtu", "size"),
        domain=(attribute(root, "domain", "name"), attribute(root, "domain", "localOnly") or "no"),
        dns=attribute(root, "dns", "enable") or "yes",
        forwarders=tuple(item.get("addr", "") for item in root.findall("dns/forwarder")),
        addresses=tuple(_address(item) for item in root.findall("ip")),
        options=read_options(root),
    )


def _mode(root: Element) -> str:
    forward = root.find("forward")
    return "" if forward is None else forward.get("mode", "nat")


def _address(item: Element) -> str:
    """Return the host's address with its prefix, however either is written."""
    default = "64" if item.get("family") == "ipv6" else "24"
    try:
        return str(ip_interface(f"{item.get('address', '')}/{item.get('prefix') or item.get('netmask') or default}"))
    except ValueError:
        return ""


def _subnet(item: Element) -> str:
    address = _address(item)
    return str(ip_interface(address).network) if address else ""


def _single_addresses(item: Element) -> _Ranges:
    """Return the ranges that make room for a lease of what is kept for a client."""
    return {key: xml for key, xml in _ranges(item).items() if key[0] == key[1]}


def _ranges(item: Element) -> _Ranges:
    """Return the ranges by their ends and the time of their leases, in seconds."""
    return {
        (entry.get("start", ""), entry.get("end", ""), _lease(entry)): render(entry)
        for entry in item.findall("dhcp/range")
    }


def _hosts(item: Element) -> dict[tuple[str, str, str, int], str]:
    """Return what is kept, by (MAC or DUID or else the name), name, address, and the time of its lease."""
    found = {}
    for entry in item.findall("dhcp/host"):
        name = entry.get("name", "")
        client = (entry.get("mac") or entry.get("id") or name).lower()
        found[client, name, entry.get("ip", ""), _lease(entry)] = render(entry)
    return found


def _lease(entry: Element) -> int:
    """Return how long a lease is, in seconds; 0 where it is left to dnsmasq."""
    return int(attribute(entry, "lease", "expiry") or 0) * _SECONDS.get(
        attribute(entry, "lease", "unit") or "minutes", 60
    )
