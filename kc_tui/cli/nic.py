"""`kc vm nic`: the network interfaces of one VM."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from backend.errors import NotFoundError, RefusedError, UsageError
from backend.model.documents import Document, is_readable, name_of
from backend.model.kinds import VM
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.changing import Edit, add_change_arguments, change_all
from kc_tui.cli.columns import DASH, describe_plan, sort_addresses
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Column, Value, print_table
from kc_tui.cli.vm_create import parse_nic

ACTIONS = ("list", "add", "remove")
_COLUMNS = (
    Column("NIC"), Column("NETWORK"), Column("MAC"), Column("IPV4"), Column("IPV6"), Column("ADDRESS"),
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm nic` takes."""
    parser.add("action", metavar="list|add|remove", choices=ACTIONS, help="list NAME, add NAME or remove NAME NIC")
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("nics", metavar="NIC", nargs="*", complete="vm:nics", help="which NIC is to go: its id, or its MAC")
    parser.add(
        "--network", metavar="N[,…]", action="append", default=[], type=parse_nic, complete="network",
        help="the network that a new NIC joins, with ipv4=, ipv6= and mac= as at kc vm create; again for more",
    )  # fmt: skip
    add_change_arguments(parser, VM)


def run(session: Session, arguments: Namespace) -> int:
    """List, add or remove NICs, and return the exit code."""
    action = arguments.action
    what, hint = f"usage of kc vm nic {action}", "see kc vm nic --help"
    if bool(arguments.network) != (action == "add"):
        raise UsageError(what, "give --network" if action == "add" else "--network goes with add", hint)
    if bool(arguments.nics) != (action == "remove"):
        raise UsageError(what, "a NIC is missing" if action == "remove" else "it takes one name", hint)
    if action == "list":
        return _list(session, arguments.name)
    edit = _adding(arguments.network) if action == "add" else _removing(arguments.nics)
    return change_all(session, VM, [arguments.name], edit, arguments)


def _list(session: Session, name: str) -> int:
    document = session.service.get(VM.name, name)
    if not is_readable(document):
        raise RefusedError(f"VM {name}", "a newer KC wrote it", f"see kc vm show {name} -o json")
    addresses = sort_addresses(document)
    items = [
        {**nic, "addresses": [entry for entry in addresses if entry.get("nic") == nic.get("id")]}
        for nic in document.get("spec", {}).get("nics", [])
    ]
    if session.output in ("json", "yaml"):
        print_data(session, {"items": items})
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(nic['id'])}\n" for nic in items))
    elif items:
        print_table(_COLUMNS, [_show(nic) for nic in items])
    else:
        session.note(f"VM {name} has no NIC; kc vm nic add {name} --network N gives it one")
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
