"""What the list of images and its detail pane show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backend.model.documents import Document
from kc_tui.state.formatting import format_bytes, pluralise
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import Line, draw_tree, heading, join_parts, labelled
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.operations import describe_busy, describe_progress
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Row, Run

COLUMNS: Final = (
    Column("name", "NAME", 16, weight=2, widest=34, lasting=True),
    Column("arch", "ARCH", 8),
    Column("size", "DISK", 8, align=Align.RIGHT),
    Column("stored", "STORED", 8, align=Align.RIGHT, rank=3),
    Column("format", "FORMAT", 6, rank=4),
    Column("vms", "VMS", 4, align=Align.RIGHT, rank=1),
    Column("title", "WHAT IT IS", 20, weight=3, rank=2),
)


def build_entry(image: Document, operation: Mapping[str, Any] | None, users: int, glyphs: Glyphs) -> Entry:
    """Return one image as the list shows it."""
    spec = image.get("spec", {})
    name, uid = str(image.get("name", "")), str(image.get("uid", ""))
    size, stored = spec.get("virtualSizeBytes"), spec.get("sizeBytes")
    cells = (
        Cell(name),
        Cell(str(spec.get("arch", "")), Role.MUTED),
        Cell(format_bytes(size, glyphs)),
        Cell(format_bytes(stored, glyphs), Role.MUTED),
        Cell(str(spec.get("format", "")), Role.MUTED),
        Cell(f"{users}" if users else glyphs.dash, Role.TEXT if users else Role.MUTED),
        Cell(str(spec.get("title", "")), Role.MUTED),
    )
    progress = describe_progress(operation) if operation is not None else None
    glyph = Cell(glyphs.changing, Role.ACCENT) if progress else Cell(glyphs.live, Role.OK)
    return Entry(
        uid=uid,
        name=name,
        row=Row(uid, (cells, progress), cells, glyph, progress),
        search="\n".join((name, *(str(spec.get(key, "")) for key in ("arch", "format", "title", "source")))).casefold(),
        sort_keys={
            "name": natural_key(name),
            "arch": str(spec.get("arch", "")),
            "size": -(size or 0),
            "stored": -(stored or 0),
            "format": str(spec.get("format", "")),
            "vms": -users,
            "title": str(spec.get("title", "")),
        },
        state="ready",
        busy=describe_busy(operation) if operation is not None else "",
    )


def describe(image: Document, users: list[str] | None, glyphs: Glyphs) -> list[Line]:
    """Return all about an image; without `users` nothing is said about them."""
    spec = image.get("spec", {})
    title = str(spec.get("title", ""))
    top: list[Line] = [(Run(str(image.get("name", "")), Role.STRONG),)]
    if title:
        top.append((Run(title, Role.MUTED),))
    facts = [
        labelled("arch", str(spec.get("arch", ""))),
        labelled("disk", format_bytes(spec.get("virtualSizeBytes"), glyphs)),
        labelled(
            "stored", format_bytes(spec.get("sizeBytes"), glyphs), Run(f" as {spec.get('format', '')}", Role.MUTED)
        ),
        labelled("digest", Run(str(spec.get("digest", "")).removeprefix("sha256:")[:16], Role.MUTED)),
        labelled("from", Run(str(spec.get("source", "")) or glyphs.dash, Role.MUTED)),
    ]
    return join_parts((top, facts, [] if users is None else list_users(users), list_metadata(image, glyphs)))


def list_users(users: list[str], most: int = 12) -> list[Line]:
    """Return the VMs that use an object."""
    if not users:
        return [(Run("No VM uses it.", Role.MUTED),)]
    lines: list[Line] = [heading(f"Used by {pluralise(len(users), 'VM')}")]
    lines += [(Run(f"  {name}"),) for name in users[:most]]
    return lines if len(users) <= most else [*lines, (Run(f"  and {len(users) - most:,} more", Role.MUTED),)]


def list_metadata(document: Document, glyphs: Glyphs) -> list[Line]:
    """Return the customer's metadata as a tree; nothing where there is none."""
    metadata = document.get("metadata")
    return [heading("Metadata"), *draw_tree(metadata, glyphs, 1)] if metadata else []
