"""`kc network`: layer-2 segments that VMs are joined to."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from typing import Any

from backend.errors import UsageError
from backend.model.documents import Document
from backend.model.kinds import NETWORK
from kc_tui.cli.arguments import Parser, add_metadata, add_timeout, build_tree, parse_count
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import delete_command, kept_commands, list_command, show_command

_SLAAC_PREFIX = "/64"


def _add_create_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", help="its name: lower-case letters, digits and hyphens")
    parser.add(
        "--uplink",
        metavar="UPLINK",
        default="nat",
        help="nat (the default), isolated, or bridge:BR, a bridge of the host",
    )
    parser.add("--ipv4", metavar="CIDR", default="", help="its IPv4 addresses, such as 10.0.0.0/24")
    parser.add("--ipv4-mode", choices=("dhcp", "static", "none"), help="how VMs get one (default with --ipv4: dhcp)")
    parser.add("--ipv6", metavar="CIDR", default="", help="its IPv6 addresses, such as fd00:1::/64")
    parser.add(
        "--ipv6-mode", choices=("slaac", "dhcpv6", "static", "none"),
        help="how VMs get one (default with --ipv6: slaac for a /64, else dhcpv6)",
    )  # fmt: skip
    parser.add("--gateway", metavar="GATEWAY", default="host", help="host (the default), none, or an address")
    parser.add("--dns", metavar="IP", action="append", default=[], help="a DNS server for its VMs; may be repeated")
    parser.add("--mtu", metavar="N", type=parse_count, help="the largest packet, in bytes")
    parser.add("--description", metavar="TEXT", default="", help="a line for people")
    parser.add("--libvirt-network", metavar="NAME", default="", help="an existing libvirt network that is to be used")
    parser.add("--vxlan", help=SUPPRESS)
    add_metadata(parser)
    add_timeout(parser)


def build_document(arguments: Namespace) -> Document:
    """Return the document that the flags ask for; raise UsageError for what this version cannot do."""
    what = "kc network create"
    if arguments.vxlan is not None:
        raise UsageError(what, "this version makes no VXLAN", "leave --vxlan out, or join a bridge with --uplink")
    if arguments.gateway.startswith(("vm:", "router:")):
        raise UsageError(what, "in this version no VM can be a gateway", "use host, none or an address")
    spec: dict[str, Any] = {
        "uplink": arguments.uplink,
        "ipv4": _build_side(arguments.ipv4, arguments.ipv4_mode, "dhcp"),
        "ipv6": _build_side(
            arguments.ipv6, arguments.ipv6_mode, "slaac" if arguments.ipv6.endswith(_SLAAC_PREFIX) else "dhcpv6"
        ),
        "gateway": arguments.gateway,
        "dns": arguments.dns,
        "description": arguments.description,
    }
    if arguments.mtu is not None:
        spec["mtu"] = arguments.mtu
    if arguments.libvirt_network:
        spec["libvirtNetwork"] = arguments.libvirt_network
    metadata = build_tree(arguments.meta, "--meta")
    return {"kind": NETWORK.name, "name": arguments.name, "metadata": metadata, "spec": spec}


def _build_side(subnet: str, mode: str | None, default: str) -> Document:
    return {"subnet": subnet, "mode": mode or (default if subnet else "none")}


def create_object(session: Session, document: Document, timeout: float | None) -> int:
    """Make an object from its document, wait for it, print it and return the exit code."""
    from backend.model.kinds import find_kind  # noqa: PLC0415 - lists make nothing
    from kc_tui.cli.changing import finish  # noqa: PLC0415
    from kc_tui.cli.following import Follower  # noqa: PLC0415

    follower = Follower(session, timeout=timeout)
    accepted = session.service.create(document)
    return finish(session, find_kind(document["kind"]), follower, [accepted])


def _create(session: Session, arguments: Namespace) -> int:
    return create_object(session, build_document(arguments), arguments.timeout)


COMMANDS = {
    "create": Command(
        "make a network",
        _add_create_arguments,
        _create,
        "Make a network. Without --ipv4 and --ipv6 KC gives its VMs no addresses.",
        (
            "kc network create lab --ipv4 10.20.0.0/24 --ipv6 fd00:20::/64",
            "kc network create office --uplink bridge:br0",
        ),
    ),
    "list": list_command(NETWORK, "kc init, or kc network create NAME --ipv4 CIDR"),
    "show": show_command(NETWORK),
    **kept_commands(NETWORK),
    "delete": delete_command(NETWORK),
}
