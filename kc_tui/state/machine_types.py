"""What the list of machine types and its detail pane show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backend.model.documents import Document
from backend.model.parameters import HEADROOM, describe_constraint, resolve_hardware
from kc_tui.state.fields import Field, make_fields
from kc_tui.state.formatting import format_mebibytes, pluralise
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.images import list_metadata, list_users
from kc_tui.state.lines import Line, heading, join_parts, labelled
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Row, Run

COLUMNS: Final = (
    Column("name", "NAME", 12, weight=2, widest=30, lasting=True),
    Column("cpus", "CPUS", 5, align=Align.RIGHT),
    Column("memory", "MEMORY", 8, align=Align.RIGHT),
    Column("disk", "DISK", 8, align=Align.RIGHT),
    Column("arch", "ARCH", 8, rank=2),
    Column("vms", "VMS", 4, align=Align.RIGHT, rank=1),
    Column("parameters", "MAY CHANGE", 18, weight=3, rank=3),
)


def hardware_of(machine_type: Document) -> Mapping[str, Any]:
    """Return the hardware that a machine type makes where nothing is chosen."""
    return resolve_hardware(machine_type.get("spec", {}), {})


def build_entry(machine_type: Document, users: int, glyphs: Glyphs) -> Entry:
    """Return one machine type as the list shows it."""
    spec, hardware = machine_type.get("spec", {}), hardware_of(machine_type)
    name, uid = str(machine_type.get("name", "")), str(machine_type.get("uid", ""))
    parameters = ", ".join(field.title.lower() for field in make_fields(spec))
    arch = str(spec.get("arch", ""))
    cells = (
        Cell(name),
        Cell(str(hardware.get("cpus", glyphs.dash))),
        Cell(format_mebibytes(hardware.get("memoryMiB"), glyphs)),
        Cell(f"{hardware['diskGiB']} GiB" if "diskGiB" in hardware else glyphs.dash),
        Cell(arch, Role.MUTED),
        Cell(f"{users}" if users else glyphs.dash, Role.TEXT if users else Role.MUTED),
        Cell(parameters or glyphs.dash, Role.MUTED),
    )
    return Entry(
        uid=uid,
        name=name,
        row=Row(uid, cells, cells, Cell(glyphs.live, Role.OK)),
        search="\n".join((name, arch, str(spec.get("description", "")))).casefold(),
        sort_keys={
            "name": natural_key(name),
            "cpus": hardware.get("cpus", 0),
            "memory": hardware.get("memoryMiB", 0),
            "disk": hardware.get("diskGiB", 0),
            "arch": arch,
            "vms": -users,
            "parameters": parameters,
        },
        state="ready",
    )


def describe_limits(field: Field) -> str:
    """Return what a parameter may be."""
    return " ".join(field.options) if field.options else field.limits or field.kind.value


def describe(machine_type: Document, users: list[str] | None, glyphs: Glyphs) -> list[Line]:
    """Return all about a machine type; without `users` nothing is said about them."""
    spec = machine_type.get("spec", {})
    top: list[Line] = [(Run(str(machine_type.get("name", "")), Role.STRONG),)]
    description = str(spec.get("description", ""))
    if description:
        top.append((Run(description, Role.MUTED),))
    fields = make_fields(spec)
    parameters: list[Line] = []
    if fields:
        parameters = [heading(f"{pluralise(len(fields), 'parameter')}")]
        parameters += [
            labelled(f"  {field.title}", Run(describe_limits(field), Role.MUTED), width=14) for field in fields
        ]
    rules: list[Line] = []
    if spec.get("constraints"):
        rules = [heading("together")]
        rules += [(Run(f"  {describe_constraint(constraint)}", Role.MUTED),) for constraint in spec["constraints"]]
    parts = [top, _describe_hardware(spec, hardware_of(machine_type), glyphs), parameters, rules]
    if users is not None:
        parts += [list_users(users), list_metadata(machine_type, glyphs)]
    return join_parts(parts)


def _describe_hardware(spec: Mapping[str, Any], hardware: Mapping[str, Any], glyphs: Glyphs) -> list[Line]:
    """Return what a VM of this type is made of, and how far it can grow while it runs."""
    cpus, memory = hardware.get("cpus", glyphs.dash), format_mebibytes(hardware.get("memoryMiB"), glyphs)
    most_cpus, most_memory = (
        hardware[most] if hardware.get(most, 0) > hardware.get(wanted, 0) else None for most, wanted in HEADROOM.items()
    )
    firmware = f"{hardware.get('firmware', '')}{', secure boot' if hardware.get('secureBoot') else ''}"
    lines = [
        labelled("CPUs", str(cpus), _grow(str(most_cpus) if most_cpus else "")),
        labelled("memory", memory, _grow(format_mebibytes(most_memory, glyphs) if most_memory else "")),
        labelled("disk", f"{hardware.get('diskGiB', glyphs.dash)} GiB"),
        labelled("arch", str(spec.get("arch", "")), Run(f"  {firmware}", Role.MUTED)),
    ]
    models = hardware.get("cpuModels")
    return [*lines, labelled("CPU model", ", else ".join(models))] if models else lines


def _grow(most: str) -> Run:
    return Run(f"  up to {most} while it runs" if most else "", Role.MUTED)
