"""What the wizard for a new VM offers on its pages: rows to choose from, and why some cannot be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.model.documents import Document
from kc_tui.state.create_vm import describe_addressing, describe_image
from kc_tui.state.draft import Nic
from kc_tui.state.formatting import format_mebibytes
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.listing import natural_key
from kc_tui.state.machine_types import hardware_of
from kc_tui.state.operations import describe_busy
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Progress, Row

NEW: Final = "+new"
"""The key of the row that tells how to make a new thing to choose."""

IMAGE_COLUMNS: Final = (Column("name", "", 14, weight=2, widest=30), Column("what", "", 18, weight=1))
NETWORK_COLUMNS: Final = (
    Column("name", "", 12, weight=2, widest=24),
    Column("addresses", "", 14, weight=2, rank=1),
    Column("subnet", "", 18, weight=1, rank=2),
)
TYPE_COLUMNS: Final = (
    Column("name", "", 10, weight=2, widest=24),
    Column("cpus", "", 7, align=Align.RIGHT),
    Column("memory", "", 8, align=Align.RIGHT),
    Column("disk", "", 8, align=Align.RIGHT, rank=1),
)


@dataclass(frozen=True, slots=True)
class Option:
    """One thing to choose: `refusal` is why it cannot be chosen, `search` what typing looks through."""

    name: str
    row: Row
    search: str
    refusal: str = ""


def _make(name: str, cells: Sequence[Cell], refusal: str, mark: str = "") -> Option:
    shown = tuple(Cell(cell.text, Role.MUTED, cell.more) for cell in cells) if refusal else tuple(cells)
    glyph = Cell(mark, Role.ACCENT)
    row = Row(name, (shown, mark), shown, glyph)
    return Option(name, row, " ".join(cell.text for cell in cells), refusal)


def new_row(noun: str) -> Option:
    """Return the row that tells how to make a new thing."""
    # As progress it has the whole line, where a cell would be cut to its column.
    return Option(NEW, Row(NEW, noun, (), progress=Progress(f"+ new {noun}…")), "")


def _in_order(documents: Sequence[Document]) -> list[Document]:
    return sorted(documents, key=lambda document: natural_key(str(document.get("name", ""))))


def list_images(images: Sequence[Document], operations: Mapping[str, Mapping[str, Any]]) -> list[Option]:
    """Return the images; `operations` are those at work on them, by uid."""
    options = []
    for image in _in_order(images):
        operation = operations.get(str(image.get("uid", "")))
        name = str(image.get("name", ""))
        refusal = f"{name} is not ready: {describe_busy(operation)}" if operation is not None else ""
        options.append(_make(name, (Cell(name), Cell(describe_image(image), Role.MUTED)), refusal))
    return options


def list_networks(
    networks: Sequence[Document],
    operations: Mapping[str, Mapping[str, Any]],
    nics: Sequence[Nic],
    addressed: Mapping[str, Nic],
    glyphs: Glyphs,
) -> list[Option]:
    """Return the networks with the addressing that each would have; marked ones carry the number of their NIC.

    `addressed` are the NICs whose addressing was changed, by network, whether they are marked or not.
    """
    chosen = {nic.network: index for index, nic in enumerate(nics, start=1)}
    options = []
    for network in _in_order(networks):
        name, spec = str(network.get("name", "")), network.get("spec", {})
        nic = nics[chosen[name] - 1] if name in chosen else addressed.get(name, Nic(name))
        addressing = describe_addressing(nic, network)
        is_own = nic != Nic(name)
        subnets = [str(spec.get(family, {}).get("subnet", "")) for family in ("ipv4", "ipv6")]
        cells = (
            Cell(name),
            Cell(addressing, Role.ACCENT if is_own else Role.MUTED),
            Cell(next((subnet for subnet in subnets if subnet), glyphs.dash), Role.MUTED),
        )
        operation = operations.get(str(network.get("uid", "")))
        refusal = ""
        if operation is not None and describe_busy(operation) == "deleting":
            refusal = f"{name} is being deleted"
        # One digit fits; a tenth network is marked without its number.
        mark = (f"{chosen[name]}" if chosen[name] < 10 else glyphs.mark) if name in chosen else ""  # noqa: PLR2004
        options.append(_make(name, cells, refusal, mark))
    return options


def _size_of(machine_type: Document) -> tuple[int, int, int]:
    hardware = hardware_of(machine_type)
    return hardware.get("memoryMiB", 0), hardware.get("cpus", 0), hardware.get("diskGiB", 0)


def list_types(machine_types: Sequence[Document], image: Document | None) -> list[Option]:
    """Return the machine types; those for another architecture than the image's cannot be chosen, and stand last."""
    arch = str(image.get("spec", {}).get("arch", "")) if image is not None else ""
    options = []

    def rank_type(machine_type: Document) -> tuple[bool, Any]:
        own = machine_type.get("spec", {}).get("arch", "")
        return bool(arch) and own != arch, _size_of(machine_type)

    for machine_type in sorted(_in_order(machine_types), key=rank_type):
        name, hardware = str(machine_type.get("name", "")), hardware_of(machine_type)
        own = str(machine_type.get("spec", {}).get("arch", ""))
        cpus = hardware.get("cpus", 0)
        cells = (
            Cell(name),
            Cell(f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs", Role.MUTED),
            Cell(format_mebibytes(hardware.get("memoryMiB")), Role.MUTED),
            Cell(f"{hardware.get('diskGiB', 0)} GiB", Role.MUTED),
        )
        fits = not arch or own == arch
        options.append(_make(name, cells, "" if fits else f"{name} is for {own}; the image is for {arch}"))
    return sorted(options, key=lambda option: bool(option.refusal))
