"""`kc network`: layer-2 segments that VMs are joined to."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from backend.model.documents import Document, is_readable, name_of
from backend.model.kinds import NETWORK, VM
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command, late_command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import delete_command, kept_commands, list_command, show_command

_CREATE_TEXT = """Make a network: a layer-2 segment, how its VMs get their addresses, who routes for it, and what joins
it to the outside. Without --ipv4 and --ipv6 KC gives its VMs no addresses. A NIC may say otherwise than its network:
see kc vm nic set --help."""

_CREATE_EXAMPLES = (
    "kc network create lab --ipv4 10.20.0.0/24 --ipv6 fd00:20::/64",
    "kc network create dhcp --ipv4 10.21.0.0/24 --range 10.21.0.100-10.21.0.199 --reserve 10.21.0.9=52:54:00:00:00:09",
    "kc network create fixed --ipv4 10.22.0.0/24 --ipv4-mode static --dns 10.22.0.1 --search lab.example",
    "kc network create six --ipv6 fd00:23::/64 --ipv6-mode stateless --ntp fd00:23::1",
    "kc network create leased --ipv6 fd00:24::/64 --ipv6-mode dhcpv6 --range fd00:24::1000-fd00:24::1fff",
    "kc network create inside --uplink isolated --ipv4 10.25.0.0/24 --gateway vm:fw/nic1",
    "kc network create wide --uplink isolated --vxlan vni=100,local=192.0.2.1,peer=192.0.2.2,peer=192.0.2.3",
    "kc network create cast --uplink isolated --vxlan local=192.0.2.1,group=239.1.1.1,dev=eth0",
    "kc network create shy --ipv4 10.27.0.0/24 --isolate-vms --anti-spoof address --rate-send 100Mbit",
    "kc network create office --uplink bridge:br0",
)


def create_object(session: Session, document: Document, timeout: float | None) -> int:
    """Make an object from its document, wait for it, print it and return the exit code."""
    from backend.model.kinds import find_kind  # noqa: PLC0415 - lists make nothing
    from kc_tui.cli.changing import finish, tell_warnings  # noqa: PLC0415
    from kc_tui.cli.following import Follower  # noqa: PLC0415

    follower = Follower(session, timeout=timeout)
    accepted = session.service.create(document)
    tell_warnings(session, [accepted])
    return finish(session, find_kind(document["kind"]), follower, [accepted])


def _add_create_arguments(parser: Parser) -> None:
    from kc_tui.cli.network_flags import add_arguments  # noqa: PLC0415 - only the chosen parser is built

    add_arguments(parser)


def _create(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.network_flags import build_document  # noqa: PLC0415 - lists make nothing

    return create_object(session, build_document(arguments), arguments.timeout)


def _count_users(session: Session, networks: Sequence[Document]) -> list[Document]:
    """Return networks with the names of their VMs in `status.vms`, where it does not say them already."""
    if all("vms" in network.get("status", {}) for network in networks):
        return list(networks)
    users: dict[str, list[str]] = {}
    for vm in session.service.list_documents(VM.name, everything=True, observe=False).items:
        nics = vm.get("spec", {}).get("nics", []) if is_readable(vm) else []
        for network in dict.fromkeys(name_of(nic.get("network")) for nic in nics):
            users.setdefault(network, []).append(str(vm["name"]))
    return [
        {**network, "status": {"vms": users.get(str(network["name"]), []), **network.get("status", {})}}
        for network in networks
    ]


def _add_reconcile_arguments(parser: Parser) -> None:
    from kc_tui.cli.reconcile import add_network_arguments  # noqa: PLC0415 - only the chosen parser is built

    add_network_arguments(parser)


def _reconcile(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.reconcile import run_network  # noqa: PLC0415 - lists mend nothing

    return run_network(session, arguments)


COMMANDS = {
    "create": Command("make a network", _add_create_arguments, _create, _CREATE_TEXT, _CREATE_EXAMPLES),
    "list": list_command(NETWORK, "kc init, or kc network create NAME --ipv4 CIDR", _count_users),
    "show": show_command(NETWORK),
    "topology": late_command(
        "topology",
        "draw what is joined to what",
        "Draw the networks, the VMs on them with their addresses, who routes for them, and what joins them to the "
        "outside. With -o json: nodes and edges; with --dot: a graph for Graphviz.",
        ("kc network topology", "kc network topology --dot | dot -Tsvg > topology.svg"),
    ),
    "reconcile": Command(
        "mend what is gone or different on the host",
        _add_reconcile_arguments,
        _reconcile,
        "Show what of networks is not as their documents say, such as a bridge that is gone or a DHCP server that was "
        "killed, and make it so again.",
        ("kc network reconcile lab", "kc network reconcile -l tenant=acme"),
    ),
    **kept_commands(NETWORK),
    "delete": delete_command(NETWORK),
}
