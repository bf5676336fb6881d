"""What the list of networks and its detail pane show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backend.model.documents import Document
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.images import list_metadata, list_users
from kc_tui.state.lines import Line, join_parts, labelled
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.operations import describe_busy, describe_progress
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Row, Run

COLUMNS: Final = (
    Column("name", "NAME", 12, weight=2, widest=30, lasting=True),
    Column("uplink", "UPLINK", 10, weight=1, widest=24),
    Column("ipv4", "IPV4", 21, weight=1, widest=28),
    Column("ipv6", "IPV6", 19, weight=1, widest=40, rank=2),
    Column("vms", "VMS", 3, align=Align.RIGHT, rank=1),
    Column("gateway", "GATEWAY", 8, weight=1, widest=24, rank=3),
)


def build_entry(network: Document, operation: Mapping[str, Any] | None, users: int, glyphs: Glyphs) -> Entry:
    """Return one network as the list shows it."""
    spec = network.get("spec", {})
    name, uid = str(network.get("name", "")), str(network.get("uid", ""))
    uplink, gateway = str(spec.get("uplink", "")), str(spec.get("gateway", ""))
    cells = (
        Cell(name),
        Cell(uplink, Role.MUTED),
        _draw_family(spec.get("ipv4", {}), glyphs),
        _draw_family(spec.get("ipv6", {}), glyphs),
        Cell(f"{users}" if users else glyphs.dash, Role.TEXT if users else Role.MUTED),
        Cell(gateway, Role.MUTED),
    )
    progress = describe_progress(operation) if operation is not None else None
    glyph = Cell(glyphs.changing, Role.ACCENT) if progress else Cell(glyphs.live, Role.OK)
    subnets = [str(spec.get(family, {}).get("subnet", "")) for family in ("ipv4", "ipv6")]
    return Entry(
        uid=uid,
        name=name,
        row=Row(uid, (cells, progress), cells, glyph, progress),
        search="\n".join((name, uplink, gateway, *subnets)).casefold(),
        sort_keys={
            "name": natural_key(name),
            "uplink": uplink,
            "ipv4": subnets[0],
            "ipv6": subnets[1],
            "vms": -users,
            "gateway": gateway,
        },
        state="ready",
        busy=describe_busy(operation) if operation is not None else "",
    )


def _draw_family(plan: Mapping[str, Any], glyphs: Glyphs) -> Cell:
    subnet, mode = str(plan.get("subnet", "")), str(plan.get("mode", "none"))
    if not subnet:
        return Cell(glyphs.dash, Role.MUTED)
    return Cell(subnet, Role.TEXT, (Run(f" {mode}", Role.MUTED),) if mode != "none" else ())


def describe(network: Document, users: list[str] | None, glyphs: Glyphs) -> list[Line]:
    """Return all about a network; without `users` nothing is said about them."""
    spec = network.get("spec", {})
    top: list[Line] = [(Run(str(network.get("name", "")), Role.STRONG),)]
    description = str(spec.get("description", ""))
    if description:
        top.append((Run(description, Role.MUTED),))
    facts = [labelled("uplink", str(spec.get("uplink", "")))]
    for family, title in (("ipv4", "IPv4"), ("ipv6", "IPv6")):
        plan = spec.get(family, {})
        subnet = str(plan.get("subnet", "")) or glyphs.dash
        facts.append(labelled(title, subnet, Run(f"  {plan.get('mode', 'none')}", Role.MUTED)))
    facts.append(labelled("gateway", str(spec.get("gateway", "")) or glyphs.dash))
    if spec.get("dns"):
        facts.append(labelled("dns", ", ".join(str(server) for server in spec["dns"])))
    if spec.get("mtu"):
        facts.append(labelled("mtu", str(spec["mtu"])))
    if spec.get("libvirtNetwork"):
        facts.append(labelled("libvirt", Run(str(spec["libvirtNetwork"]), Role.MUTED)))
    return join_parts((top, facts, [] if users is None else list_users(users), list_metadata(network, glyphs)))
