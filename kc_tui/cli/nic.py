"""`kc vm nic`: the network interfaces of one VM."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence

from backend.errors import NotFoundError, UsageError
from backend.model.documents import Document, name_of
from backend.model.kinds import VM
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.changing import Edit, add_change_arguments, change_all
from kc_tui.cli.columns import DASH, describe_plan, sort_addresses
from kc_tui.cli.commands import Command
from kc_tui.cli.nic_options import NIC_OPTIONS, apply_options, parse_nic, parse_options
from kc_tui.cli.parts import get_vm, print_parts
from kc_tui.cli.session import Session
from kc_tui.cli.table import Column, Value

_COLUMNS = (
    Column("NIC"), Column("NETWORK"), Column("MAC"), Column("IPV4"), Column("IPV6"), Column("ADDRESS"),
)  # fmt: skip


def _add_list_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")


def _add_add_arguments(parser: Parser) -> None:
    _add_list_arguments(parser)
    parser.add(
        "--network", metavar="N[,…]", dest="nics", action="append", required=True, type=parse_nic, complete="network",
        help=f"the network that a new NIC joins, and after commas {' '.join(NIC_OPTIONS.split())}; again for more",
    )  # fmt: skip
    add_change_arguments(parser, VM)


def _add_remove_arguments(parser: Parser) -> None:
    _add_list_arguments(parser)
    parser.add("nics", metavar="NIC", nargs="+", complete="vm:nics", help="which NIC is to go: its id, or its MAC")
    add_change_arguments(parser, VM)


def _add_set_arguments(parser: Parser) -> None:
    _add_list_arguments(parser)
    parser.add("nic", metavar="NIC", complete="vm:nics", help="which NIC: its id, or its MAC")
    parser.add("options", metavar="OPTION", nargs="+", help=" ".join(NIC_OPTIONS.split()))
    add_change_arguments(parser, VM)


def _add(session: Session, arguments: Namespace) -> int:
    return change_all(session, VM, [arguments.name], _adding(arguments.nics), arguments)


def _remove(session: Session, arguments: Namespace) -> int:
    return change_all(session, VM, [arguments.name], _removing(arguments.nics), arguments)


def _set(session: Session, arguments: Namespace) -> int:
    words = [word for option in arguments.options for word in option.split(",")]
    try:
        options = parse_options(words)
    except ArgumentTypeError as error:
        raise UsageError("usage of kc vm nic set", str(error), "see kc vm nic set --help") from error

    def edit(document: Document) -> None:
        apply_options(_find(document["name"], document["spec"].get("nics", []), arguments.nic), options)

    return change_all(session, VM, [arguments.name], edit, arguments)


def _list(session: Session, arguments: Namespace) -> int:
    name = arguments.name
    document = get_vm(session, name)
    addresses = sort_addresses(document)
    items = [
        {**nic, "addresses": [entry for entry in addresses if entry.get("nic") == nic.get("id")]}
        for nic in document.get("spec", {}).get("nics", [])
    ]
    hint = f"VM {name} has no NIC; kc vm nic add {name} --network N gives it one"
    print_parts(session, _COLUMNS, items, [_show(nic) for nic in items], hint, named="id")
    return 0


def _show(nic: Document) -> Sequence[Value]:
    addresses = [str(entry.get("address", "")) for entry in nic["addresses"]]
    more = f" +{len(addresses) - 1}" if len(addresses) > 1 else ""
    return (
        nic.get("id", ""),
        name_of(nic.get("network")),
        nic.get("mac", ""),
        describe_plan(nic.get("ipv4", {})),
        describe_plan(nic.get("ipv6", {})),
        f"{addresses[0]}{more}" if addresses else DASH,
    )


def _adding(nics: Sequence[Document]) -> Edit:
    def edit(document: Document) -> None:
        document["spec"]["nics"] = [*document["spec"].get("nics", []), *nics]

    return edit


def _removing(wanted: Sequence[str]) -> Edit:
    def edit(document: Document) -> None:
        nics = document["spec"].get("nics", [])
        gone = [_find(document["name"], nics, word) for word in dict.fromkeys(wanted)]
        document["spec"]["nics"] = [nic for nic in nics if nic not in gone]

    return edit


def _find(name: str, nics: Sequence[Document], word: str) -> Document:
    for nic in nics:
        if word in (nic.get("id"), nic.get("mac")):
            return nic
    known = ", ".join(f"{nic.get('id', '')} on {name_of(nic.get('network'))}" for nic in nics)
    hint = f"there is {known}" if known else "it has none"
    raise NotFoundError(f"VM {name}", f"no NIC {sanitise(word, 40)}", hint)


COMMANDS = {
    "list": Command(
        "list the NICs of a VM",
        _add_list_arguments,
        _list,
        "List the NICs of a VM, with the addresses that they have.",
        ("kc vm nic list web",),
    ),
    "add": Command(
        "give a VM more NICs",
        _add_add_arguments,
        _add,
        "Give a VM more NICs, while it runs or not.",
        (
            "kc vm nic add web --network lab,ipv4=10.20.0.5/24",
            "kc vm nic add web --network lab,reserve=10.20.0.9/24,isolated=yes",
        ),
    ),
    "set": Command(
        "change a NIC of a VM",
        _add_set_arguments,
        _set,
        "Change how one NIC of a VM gets its addresses, what it may do and how much it may move; what is not named "
        "stays as it is. A rate of its own stands in the place of both of the network's.",
        (
            "kc vm nic set web nic0 reserve=10.20.0.9/24",
            "kc vm nic set web nic0 antispoof=address dhcp-guard=on rate-send=100Mbit",
            "kc vm nic set web nic0 ipv4=network rate=network",
        ),
    ),
    "remove": Command(
        "take NICs from a VM",
        _add_remove_arguments,
        _remove,
        "Take NICs from a VM, while it runs or not; a guest that runs must let go of them.",
        ("kc vm nic remove web nic1",),
    ),
}
