"""What a network tells its guests and libvirt's XML has no word for: options that go to its dnsmasq as they are.

Each is a line of dnsmasq's configuration, so nothing gets into one that is no address, subnet or domain name. Sources:
dnsmasq(8); libvirt's "Network XML format", "Network namespaces".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from xml.etree.ElementTree import Element, SubElement, register_namespace

from backend.errors import RefusedError
from backend.network.plan import NetworkPlan, Side
from backend.text import sanitise

NAMESPACE = "http://libvirt.org/schemas/network/dnsmasq/1.0"
register_namespace("dnsmasq", NAMESPACE)
NO_ADVERTISEMENTS = "no-dhcpv6-interface=*"
"""Neither DHCPv6 nor the advertisements that libvirt has dnsmasq send for any IPv6 subnet: addresses are static."""
STATELESS = ",ra-stateless"
"""How the range of a subnet ends whose advertisements send guests to DHCPv6 for all but their addresses."""
_NO_ROUTER = "ra-param=*,0,0"  # on every interface, as often as ever, for 0 seconds
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def list_options(plan: NetworkPlan) -> list[str]:
    """Return the options of a plan; raises RefusedError for what is no address or name."""
    what = f"network {plan.name}"
    if plan.search_domain and not _DOMAIN.fullmatch(plan.search_domain):
        raise RefusedError(what, f"{sanitise(plan.search_domain, 100)} is no domain name")
    try:
        return [
            *(_list_ipv4(plan, plan.ipv4) if plan.ipv4.host else ()),
            *(_list_ipv6(plan, plan.ipv6) if plan.ipv6.host else ()),
        ]
    except ValueError as error:
        raise RefusedError(what, sanitise(str(error), 200)) from None


def write_options(root: Element, options: Iterable[str]) -> None:
    """Add the options to a network's element."""
    values = list(options)
    if values:
        group = SubElement(root, f"{{{NAMESPACE}}}options")
        for value in values:
            SubElement(group, f"{{{NAMESPACE}}}option", value=value)


def read_options(root: Element) -> tuple[str, ...]:
    """Return the options of a network's element."""
    return tuple(item.get("value", "") for item in root.findall(f"{{{NAMESPACE}}}options/{{{NAMESPACE}}}option"))


def _list_ipv4(plan: NetworkPlan, side: Side) -> list[str]:
    gateway = _gateway(plan, side)
    options = []
    if gateway != side.host and not (plan.uplink == "isolated" and not gateway):
        # libvirt itself says so on an isolated network. An option of no value keeps dnsmasq from naming the host.
        options.append(_option("option:router", [str(ip_address(gateway))] if gateway else []))
    if side.routes:
        # Clients that know of these leave the router's option aside (RFC 3442).
        routes = [(str(ip_network(route.to)), str(ip_address(route.via))) for route in side.routes]
        routes += [("0.0.0.0/0", str(ip_address(gateway)))] if gateway else []
        options.append(_option("option:classless-static-route", [part for route in routes for part in route]))
    if plan.dns:
        options.append(_option("option:dns-server", _of_version(plan.dns, 4)))
    if side.ntp:
        options.append(_option("option:ntp-server", _of_version(side.ntp, 4)))
    if plan.search_domain:
        options.append(_option("option:domain-search", [plan.search_domain]))
    return options


def _list_ipv6(plan: NetworkPlan, side: Side) -> list[str]:
    serves_addresses = side.mode == "dhcpv6" and (side.ranges or side.hosts)
    if not serves_addresses and side.mode not in ("slaac", "stateless"):
        return [NO_ADVERTISEMENTS]
    options = []
    if side.mode == "stateless":
        options.append(f"dhcp-range={ip_network(side.subnet).network_address}{STATELESS}")
    if _gateway(plan, side) != side.host:
        # An advertisement can name nobody but its sender.
        options.append(_NO_ROUTER)
    if plan.dns:
        options.append(_option("option6:dns-server", _of_version(plan.dns, 6)))
    if side.ntp:
        # Some clients ask for the one, some for the other.
        servers = _of_version(side.ntp, 6)
        options += [_option("option6:ntp-server", servers), _option("option6:sntp-server", servers)]
    if plan.search_domain:
        options.append(_option("option6:domain-search", [plan.search_domain]))
    return options


def _gateway(plan: NetworkPlan, side: Side) -> str:
    """Return what guests are to route by; the host of an isolated segment leads nowhere."""
    return "" if plan.uplink == "isolated" and side.gateway == side.host else side.gateway


def _of_version(texts: Iterable[str], version: int) -> list[str]:
    addresses = [ip_address(text) for text in texts]
    wanted = [str(address) for address in addresses if address.version == version]
    return [f"[{address}]" for address in wanted] if version == 6 else wanted  # noqa: PLR2004 - IPv6


def _option(name: str, values: list[str]) -> str:
    """Return a DHCP option; one without values keeps dnsmasq from sending what it would by itself."""
    return ",".join([f"dhcp-option={name}", *values])
