"""What `kc network create` takes: from flags to a network's document."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from backend.errors import UsageError
from backend.model.documents import Document
from backend.model.kinds import NETWORK
from kc_tui.cli.arguments import Parser, add_metadata, add_timeout, build_tree, parse_count
from kc_tui.state.network_values import parse_duration, parse_rate

_WHAT = "kc network create"
_SLAAC_PREFIX = "/64"
_FAMILIES = {4: "ipv4", 6: "ipv6"}
_OCTETS = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})+")
_MAC_LENGTH = len("00:00:00:00:00:00")
_GATEWAY_BY_NAME = re.compile(r"(vm:[^/]+(/[^/]+)?|router:[^/]+)")
_VXLAN_FORM = "vni=N,local=IP,peer=IP or group=IP,port=P,dev=D"
_VXLAN_NUMBERS = ("vni", "port")

Part = tuple[str, Any]
"""The family of a flag's value (`ipv4` or `ipv6`), and what stands in the document for it."""


class Repeated(NamedTuple):
    """A flag that adds an entry to a list of one family: where its values are, and the field of the document."""

    flag: str
    values: str
    field: str


_REPEATED = (
    Repeated("--range", "ranges", "ranges"),
    Repeated("--reserve", "reservations", "reservations"),
    Repeated("--route", "routes", "routes"),
    Repeated("--ntp", "ntp", "ntp"),
)


def add_arguments(parser: Parser) -> None:
    """Add what `kc network create` takes."""
    parser.add("name", metavar="NAME", help="its name: lower-case letters, digits and hyphens")
    parser.add(
        "--uplink", metavar="UPLINK", type=_parse_uplink, default="nat",
        help="how it reaches the outside: nat (the default), routed, isolated, or bridge:BR, a bridge of the host",
    )  # fmt: skip
    parser.add("--ipv4", metavar="CIDR", default="", help="its IPv4 addresses, such as 10.0.0.0/24")
    parser.add("--ipv4-mode", choices=("dhcp", "static", "none"), help="how VMs get one (default with --ipv4: dhcp)")
    parser.add("--ipv6", metavar="CIDR", default="", help="its IPv6 addresses, such as fd00:1::/64")
    parser.add(
        "--ipv6-mode", choices=("slaac", "stateless", "dhcpv6", "static", "none"),
        help="how VMs get one (default with --ipv6: slaac for a /64, else dhcpv6); stateless is SLAAC with DNS and NTP "
        "by DHCPv6",
    )  # fmt: skip
    parser.add(
        "--gateway", metavar="GATEWAY", type=_parse_gateway, default="host",
        help="who routes for its VMs: host (the default), none, ADDRESS[,ADDRESS6], vm:NAME[/NIC] or router:NAME",
    )  # fmt: skip
    parser.add(
        "--vxlan", metavar="vni=N,local=IP,…", type=_parse_vxlan,
        help="join it to the same network elsewhere: local=IP is this host's address, peer=IP (again for more) or "
        "group=IP (multicast) the others'; port=P (4789), dev=D; without vni=N KC chooses",
    )  # fmt: skip
    parser.add("--dns", metavar="IP", action="append", default=[], help="a DNS server for its VMs; may be repeated")
    parser.add("--search", metavar="DOMAIN", default="", help="the domain that short names are looked up in")
    parser.add("--mtu", metavar="N", type=parse_count, help="the largest packet in bytes; with --vxlan KC finds it")
    _add_dhcp(parser)
    _add_safety(parser)
    parser.add("--description", metavar="TEXT", default="", help="a line for people")
    parser.add("--libvirt-network", metavar="NAME", default="", help="an existing libvirt network that is to be used")
    add_metadata(parser)
    add_timeout(parser)


def _add_dhcp(parser: Parser) -> None:
    parser.add(
        "--range", metavar="FIRST-LAST", dest="ranges", action="append", default=[], type=_parse_range,
        help="what DHCP or DHCPv6 may give (default: the upper three quarters); may be repeated",
    )  # fmt: skip
    parser.add(
        "--reserve", metavar="ADDRESS=WHO", dest="reservations", action="append", default=[], type=_parse_reservation,
        help="an address kept for one client, known by its MAC (IPv4), or by its DUID or host name (IPv6); may be "
        "repeated",
    )  # fmt: skip
    parser.add(
        "--lease", metavar="TIME", type=parse_duration, help="how long DHCP lends an address, such as 600 or 12h"
    )  # fmt: skip
    parser.add(
        "--route", metavar="TO,via=ADDR", dest="routes", action="append", default=[], type=_parse_route,
        help="a route that VMs are told; may be repeated",
    )  # fmt: skip
    parser.add("--ntp", metavar="IP", action="append", default=[], type=_parse_ntp, help="a time server for its VMs")


def _add_safety(parser: Parser) -> None:
    parser.add(
        "--anti-spoof", choices=("auto", "off", "mac", "address"),
        help="which senders VMs may claim to be: their own mac, their own address; auto: what breaks nothing",
    )  # fmt: skip
    for flag, what in (("--dhcp-guard", "serve DHCP"), ("--ra-guard", "announce themselves as routers")):
        parser.add(flag, choices=("auto", "on", "off"), help=f"stop VMs that {what} (default: auto)")
    parser.add("--isolate-vms", action="store_true", help="VMs reach the gateway, and not one another")
    for flag, what in (("--rate-receive", "receive"), ("--rate-send", "send")):
        parser.add(
            flag, metavar="RATE", type=parse_rate,
            help=f"the most that each NIC may {what} in a second, such as 10MB, 8MiB or 100Mbit",
        )  # fmt: skip


# --- the forms of values


def _refuse(text: str, why: str) -> ArgumentTypeError:
    return ArgumentTypeError(f"{text!r} {why}")


def _family(text: str) -> str:
    """Return the family of an address or a subnet; raise ValueError for another text."""
    from ipaddress import ip_interface  # noqa: PLC0415 - help needs none

    return _FAMILIES[ip_interface(text).version]


def _parse_uplink(text: str) -> str:
    if text not in ("nat", "isolated", "routed") and not re.fullmatch("bridge:.+", text):
        raise _refuse(text, "is none of nat, isolated, routed, bridge:BR")
    return text


def _parse_gateway(text: str) -> str:
    if text in ("host", "none") or _GATEWAY_BY_NAME.fullmatch(text):
        return text
    try:
        if "/" not in text and len({_family(part) for part in text.split(",")}) == len(text.split(",")):
            return text
    except ValueError:
        pass
    raise _refuse(text, "is none of host, none, ADDRESS, ADDRESS,ADDRESS6, vm:NAME, vm:NAME/NIC, router:NAME")


def _parse_range(text: str) -> Part:
    first, _, last = text.partition("-")
    try:
        family = _family(first)
        if "/" not in text and family == _family(last):
            return family, {"start": first, "end": last}
    except ValueError:
        pass
    raise _refuse(text, "is not FIRST-LAST, such as 10.0.0.100-10.0.0.199")


def _parse_reservation(text: str) -> Part:
    address, _, who = text.partition("=")
    try:
        family = "" if "/" in address else _family(address)
    except ValueError:
        family = ""
    if not family or not who:
        raise _refuse(text, "is not ADDRESS=MAC (IPv4), nor ADDRESS=DUID or ADDRESS=HOSTNAME (IPv6)")
    if not _OCTETS.fullmatch(who):
        if family == "ipv4":
            raise _refuse(text, "names no MAC, by which DHCP knows a client: write 10.0.0.9=52:54:00:00:00:09")
        return family, {"address": address, "hostname": who}
    if family == "ipv4":
        return family, {"address": address, "mac": who.lower()}
    if len(who) == _MAC_LENGTH:
        raise _refuse(text, "names a MAC, which DHCPv6 does not know: give the DUID or the host name")
    return family, {"address": address, "duid": who.lower()}


def _parse_route(text: str) -> Part:
    to, _, via = text.partition(",via=")
    try:
        family = _family(to)
        if "/" not in via and family == _family(via):
            return family, {"to": to, "via": via}
    except ValueError:
        pass
    raise _refuse(text, "is not TO,via=ADDR, such as 10.9.0.0/16,via=10.0.0.2")


def _parse_ntp(text: str) -> Part:
    try:
        if "/" not in text:
            return _family(text), text
    except ValueError:
        pass
    raise _refuse(text, "is no IP address")


def _parse_vxlan(text: str) -> Document:
    """Return the document of `vni=N,local=IP,(group=IP|peer=IP…)[,port=P][,dev=D]`."""
    vxlan: Document = {}
    peers: list[str] = []
    for option in text.split(","):
        key, _, value = option.partition("=")
        if key not in ("vni", "local", "group", "peer", "port", "dev") or not value:
            raise _refuse(option, f"is no part of {_VXLAN_FORM}")
        if key == "peer":
            peers.append(value)
            continue
        if key in vxlan:
            msg = f"{key} is there twice"
            raise ArgumentTypeError(msg)
        if key in _VXLAN_NUMBERS and not value.isdecimal():
            raise _refuse(option, "is no number")
        vxlan[key] = int(value) if key in _VXLAN_NUMBERS else value
    if "local" not in vxlan:
        raise _refuse(text, "does not say local=IP, this host's address on the network below")
    if bool(peers) == ("group" in vxlan):
        raise _refuse(text, f"names {'both peers and a group' if peers else 'neither peer=IP nor group=IP'}")
    return vxlan | ({"peers": peers} if peers else {})


# --- the document


def build_document(arguments: Namespace) -> Document:
    """Return the document that the flags ask for; raise UsageError for flags that do not go together."""
    spec: dict[str, Any] = {
        "uplink": arguments.uplink,
        "ipv4": _build_side(arguments, "ipv4", "dhcp"),
        "ipv6": _build_side(arguments, "ipv6", "slaac" if arguments.ipv6.endswith(_SLAAC_PREFIX) else "dhcpv6"),
        "gateway": arguments.gateway,
        "dns": arguments.dns,
        "description": arguments.description,
    }
    if arguments.lease is not None and not (arguments.ipv4 or arguments.ipv6):
        raise UsageError(_WHAT, "--lease: there is no address to lend", "give --ipv4 CIDR or --ipv6 CIDR")
    if arguments.rate_receive is not None or arguments.rate_send is not None:
        spec["rateLimit"] = {
            "receiveBytesPerSecond": arguments.rate_receive, "sendBytesPerSecond": arguments.rate_send,
        }  # fmt: skip
    guard = dict(_list_guards(arguments))
    given = {
        "guard": guard,
        "mtu": arguments.mtu,
        "vxlan": arguments.vxlan,
        "searchDomain": arguments.search,
        "libvirtNetwork": arguments.libvirt_network,
    }
    spec |= {field: value for field, value in given.items() if value}
    metadata = build_tree(arguments.meta, "--meta")
    return {"kind": NETWORK.name, "name": arguments.name, "metadata": metadata, "spec": spec}


def _build_side(arguments: Namespace, family: str, default: str) -> Document:
    subnet, mode = getattr(arguments, family), getattr(arguments, f"{family}_mode")
    if mode not in (None, "none") and not subnet:
        raise UsageError(_WHAT, f"--{family}-mode {mode} needs addresses", f"give --{family} CIDR")
    side: Document = {"subnet": subnet, "mode": mode or (default if subnet else "none")}
    for repeated in _REPEATED:
        entries = _pick(getattr(arguments, repeated.values), family)
        if entries and not subnet:
            why = f"{repeated.flag} is about {_title(family)}, and the network has no such addresses"
            raise UsageError(_WHAT, why, f"give --{family} CIDR")
        if entries:
            side[repeated.field] = entries
    if subnet and arguments.lease is not None:
        side["leaseSeconds"] = arguments.lease
    return side


def _pick(parts: Sequence[Part], family: str) -> list[Any]:
    return [entry for which, entry in parts if which == family]


def _title(family: str) -> str:
    return {"ipv4": "IPv4", "ipv6": "IPv6"}[family]


def _list_guards(arguments: Namespace) -> Iterator[tuple[str, Any]]:
    for field, value in (
        ("antiSpoof", arguments.anti_spoof),
        ("dhcpGuard", arguments.dhcp_guard),
        ("raGuard", arguments.ra_guard),
    ):
        if value is not None:
            yield field, value
    if arguments.isolate_vms:
        yield "isolated", True
