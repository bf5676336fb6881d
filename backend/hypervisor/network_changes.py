"""What lies between a libvirt network and a changed plan: nothing, its DHCP ranges, or the whole of it."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.network_xml import build_network
from backend.hypervisor.plan import NetworkPlan
from backend.hypervisor.xml import attribute, parse, render


class RangeChange(NamedTuple):
    """A DHCP range to `add` or to `delete`, in the `<ip>` of that position."""

    verb: str
    position: int
    xml: str


class _Shape(NamedTuple):
    """A network but for its DHCP ranges."""

    uplink: str
    nat_ipv6: str
    bridge: str
    mtu: str
    forwarders: tuple[str, ...]
    addresses: tuple[str, ...]


def compare_network(xml: str, plan: NetworkPlan) -> list[RangeChange] | None:
    """Return the changes of DHCP ranges that make a network the plan's, in order; None where more differs."""
    found = parse(xml)
    wanted = parse(build_network(keep_bridge(xml, plan)))
    if _shape(found) != _shape(wanted):
        return None
    changes: list[RangeChange] = []
    for position, (old, new) in enumerate(zip(found.findall("ip"), wanted.findall("ip"), strict=True)):
        before, after = _ranges(old), _ranges(new)
        changes.extend(RangeChange("delete", position, xml) for key, xml in before.items() if key not in after)
        changes.extend(RangeChange("add", position, xml) for key, xml in after.items() if key not in before)
    return changes


def keep_bridge(xml: str, plan: NetworkPlan) -> NetworkPlan:
    """Return the plan with the bridge that the network has, where the plan leaves its name to libvirt."""
    found = parse(xml)
    if plan.bridge or plan.uplink.startswith("bridge:") or _mode(found) == "bridge":
        return plan
    return plan._replace(bridge=attribute(found, "bridge", "name"))


def _shape(root: Element) -> _Shape:
    return _Shape(
        uplink=_mode(root),
        nat_ipv6=attribute(root, "forward/nat", "ipv6"),
        bridge=attribute(root, "bridge", "name"),
        mtu=attribute(root, "mtu", "size"),
        forwarders=tuple(item.get("addr", "") for item in root.findall("dns/forwarder")),
        addresses=tuple(_address(item) for item in root.findall("ip")),
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


def _ranges(item: Element) -> dict[tuple[str, str], str]:
    return {(entry.get("start", ""), entry.get("end", "")): render(entry) for entry in item.findall("dhcp/range")}
