"""`kc type`: machine types, the templates for VMs."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any

from backend.errors import UsageError
from backend.model.documents import Document
from backend.model.kinds import MACHINE_TYPE
from kc_tui.cli.arguments import Parser, add_metadata, build_tree, parse_count, parse_value
from kc_tui.cli.commands import Command
from kc_tui.cli.network import create_object
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import delete_command, kept_commands, list_command, show_command

_TEXT = """Make a machine type: fixed settings, and parameters that a VM may choose with --set. A parameter is named
like the setting that it overrides (cpus, memoryMiB, diskGiB) and is a JSON Schema."""

_PARAMETER_EXAMPLE = (
    "kc type create any --cpus 1 --memory 1024 --disk 10 "
    """--parameter '{"cpus": {"type": "integer", "minimum": 1, "maximum": 8, "default": 1}}'"""
)


def _parse_parameters(text: str) -> dict[str, Any]:
    value = parse_value(text)
    if not isinstance(value, dict) or not all(isinstance(schema, dict) for schema in value.values()):
        msg = f"""{text!r} is not JSON such as {{"cpus": {{"type": "integer", "maximum": 4}}}}"""
        raise ArgumentTypeError(msg)
    return value


def _add_create_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", help="its name: lower-case letters, digits and hyphens")
    parser.add("--cpus", metavar="N", type=parse_count, required=True, help="CPUs")
    parser.add("--memory", metavar="MIB", type=parse_count, required=True, help="memory in MiB")
    parser.add("--disk", metavar="GIB", type=parse_count, required=True, help="disk in GiB")
    parser.add("--arch", choices=("x86_64", "aarch64"), default="x86_64", help="the processor (default: x86_64)")
    parser.add("--firmware", choices=("bios", "uefi"), default="bios", help="what boots the disk (default: bios)")
    parser.add("--target", metavar="vm", default="vm", help="what is made of it (default: vm)")
    parser.add(
        "--parameter", metavar="JSON", action="append", default=[], type=_parse_parameters,
        help="""what a VM may choose, such as {"cpus": {"type": "integer", "minimum": 1, "maximum": 4}}; repeatable""",
    )  # fmt: skip
    parser.add("--description", metavar="TEXT", default="", help="a line for people")
    add_metadata(parser)


def build_document(arguments: Namespace) -> Document:
    """Return the document that the flags ask for; raise UsageError for what this version cannot do."""
    if arguments.target != "vm":
        raise UsageError("kc type create", "this version makes VMs alone", "leave --target out")
    parameters: dict[str, Any] = {}
    for given in arguments.parameter:
        parameters |= given
    spec = {
        "target": arguments.target,
        "arch": arguments.arch,
        "firmware": arguments.firmware,
        "description": arguments.description,
        "hardware": {"cpus": arguments.cpus, "memoryMiB": arguments.memory, "diskGiB": arguments.disk},
        "parameters": parameters,
    }
    metadata = build_tree(arguments.meta, "--meta")
    return {"kind": MACHINE_TYPE.name, "name": arguments.name, "metadata": metadata, "spec": spec}


def _create(session: Session, arguments: Namespace) -> int:
    return create_object(session, build_document(arguments), None)


COMMANDS = {
    "create": Command(
        "make a machine type",
        _add_create_arguments,
        _create,
        _TEXT,
        (
            "kc type create web --cpus 2 --memory 2048 --disk 20",
            _PARAMETER_EXAMPLE,
        ),
    ),
    "list": list_command(MACHINE_TYPE, "kc init, or kc type create NAME --cpus N --memory MIB --disk GIB"),
    "show": show_command(MACHINE_TYPE),
    **kept_commands(MACHINE_TYPE),
    "delete": delete_command(MACHINE_TYPE),
}
