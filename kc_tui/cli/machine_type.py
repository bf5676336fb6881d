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
like the setting that it overrides (cpus, memoryMiB, diskGiB, maxCpus, maxMemoryMiB, firmware, secureBoot, cpuModels)
and is a JSON Schema; a constraint is one for all of them together."""

_PARAMETER_EXAMPLE = (
    "kc type create any --cpus 1 --memory 1024 --disk 10 "
    """--parameter '{"cpus": {"type": "integer", "minimum": 1, "maximum": 8, "default": 1}}'"""
)
_CONSTRAINT_EXAMPLE = (
    "kc type create big --cpus 4 --memory 8192 --disk 40 --max-cpus 8 --max-memory 16384 --firmware uefi "
    """--constraint '{"title": "4 CPUs want 4 GiB", "if": {"properties": {"cpus": {"minimum": 4}}}, """
    """"then": {"properties": {"memoryMiB": {"minimum": 4096}}}}'"""
)


def _parse_parameters(text: str) -> dict[str, Any]:
    value = parse_value(text)
    if not isinstance(value, dict) or not all(isinstance(schema, dict) for schema in value.values()):
        msg = f"""{text!r} is not JSON such as {{"cpus": {{"type": "integer", "maximum": 4}}}}"""
        raise ArgumentTypeError(msg)
    return value


def _parse_constraint(text: str) -> dict[str, Any]:
    value = parse_value(text)
    if not isinstance(value, dict):
        msg = f"""{text!r} is not JSON such as {{"if": {{"properties": {{…}}}}, "then": {{"properties": {{…}}}}}}"""
        raise ArgumentTypeError(msg)
    return value


def _add_create_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", help="its name: lower-case letters, digits and hyphens")
    parser.add("--cpus", metavar="N", type=parse_count, required=True, help="CPUs")
    parser.add("--memory", metavar="MIB", type=parse_count, required=True, help="memory in MiB")
    parser.add("--disk", metavar="GIB", type=parse_count, required=True, help="disk in GiB")
    parser.add("--arch", choices=("x86_64", "aarch64"), default="x86_64", help="the processor (default: x86_64)")
    parser.add("--firmware", choices=("bios", "uefi"), help="what boots the disk (default: bios; uefi for aarch64)")
    parser.add("--secure-boot", action="store_true", help="boot only what is signed; with --firmware uefi")
    parser.add(
        "--cpu-model", metavar="M", action="append", default=[],
        help="a CPU model of libvirt, such as Skylake-Server or host-model; again for what to take where it is missing",
    )  # fmt: skip
    parser.add("--max-cpus", metavar="N", type=parse_count, help="the most CPUs that a running VM can be given")
    parser.add("--max-memory", metavar="MIB", type=parse_count, help="the most memory that a running VM can be given")
    parser.add("--target", metavar="vm", default="vm", help="what is made of it (default: vm)")
    parser.add(
        "--parameter", metavar="JSON", action="append", default=[], type=_parse_parameters,
        help="""what a VM may choose, such as {"cpus": {"type": "integer", "minimum": 1, "maximum": 4}}; repeatable""",
    )  # fmt: skip
    parser.add(
        "--constraint", metavar="JSON", action="append", default=[], type=_parse_constraint,
        help="a JSON Schema that all values together must fit; its title says what it is for; repeatable",
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
    hardware = {"cpus": arguments.cpus, "memoryMiB": arguments.memory, "diskGiB": arguments.disk}
    spec = {
        "target": arguments.target,
        "arch": arguments.arch,
        # No aarch64 machine has a BIOS.
        "firmware": arguments.firmware or ("uefi" if arguments.arch == "aarch64" else "bios"),
        "description": arguments.description,
        "hardware": hardware | _only_given({"maxCpus": arguments.max_cpus, "maxMemoryMiB": arguments.max_memory}),
        "parameters": parameters,
        **_only_given(
            {
                "secureBoot": arguments.secure_boot,
                "cpuModels": arguments.cpu_model,
                "constraints": arguments.constraint,
            }
        ),
    }
    metadata = build_tree(arguments.meta, "--meta")
    return {"kind": MACHINE_TYPE.name, "name": arguments.name, "metadata": metadata, "spec": spec}


def _only_given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value}


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
            _CONSTRAINT_EXAMPLE,
        ),
    ),
    "list": list_command(MACHINE_TYPE, "kc init, or kc type create NAME --cpus N --memory MIB --disk GIB"),
    "show": show_command(MACHINE_TYPE),
    **kept_commands(MACHINE_TYPE),
    "delete": delete_command(MACHINE_TYPE),
}
