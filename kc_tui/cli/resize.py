"""`kc vm resize`: more or less CPU, memory and disk for a VM."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from backend.errors import UsageError
from backend.model.documents import Document
from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser, parse_assignment, parse_count, parse_gibibytes, parse_mebibytes
from kc_tui.cli.changing import add_change_arguments, change_all
from kc_tui.cli.parts import get_vm
from kc_tui.cli.quantities import has_quantities, read_quantities
from kc_tui.cli.session import Session

_OPTIONS = {"cpus": "--cpus", "memoryMiB": "--memory", "diskGiB": "--disk"}


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm resize` takes."""
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("--cpus", metavar="N", type=parse_count, help="CPUs")
    parser.add("--memory", metavar="MIB", type=parse_mebibytes, help="memory in MiB")
    parser.add("--disk", metavar="GIB", type=parse_gibibytes, help="the first disk in GiB; it can only grow")
    parser.add(
        "--set", metavar="PARAM=V", dest="parameters", action="append", default=[], type=parse_assignment,
        help="a parameter of its machine type, such as cpus=2; see kc type show T",
    )  # fmt: skip
    add_change_arguments(parser, VM)


def run(session: Session, arguments: Namespace) -> int:
    """Change the VM's parameters, wait, print it and return the exit code."""
    what, hint = "usage of kc vm resize", "see kc vm resize --help"
    given = {"cpus": arguments.cpus, "memoryMiB": arguments.memory, "diskGiB": arguments.disk}
    wanted = {name: value for name, value in given.items() if value is not None}
    for name, _value in arguments.parameters:
        if name in wanted:
            raise UsageError(what, f"{_OPTIONS[name]} and --set {name}=… say the same", hint)
    if not wanted and not arguments.parameters:
        raise UsageError(what, "give --cpus, --memory, --disk or --set", hint)
    wanted |= _read_parameters(session, arguments)

    def edit(document: Document) -> None:
        document["spec"]["parameters"] = {**document["spec"].get("parameters", {}), **wanted}

    return change_all(session, VM, [arguments.name], edit, arguments)


def _read_parameters(session: Session, arguments: Namespace) -> dict[str, Any]:
    if not has_quantities(arguments.parameters):
        return dict(arguments.parameters)
    reference = get_vm(session, arguments.name, observe=False)["spec"]["type"]
    return read_quantities(session, reference["name"], reference.get("version") or None, arguments.parameters)
