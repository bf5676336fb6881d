"""What the list of networks shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from backend.model.addressing import FAMILIES
from backend.model.documents import Document
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.network_facts import describe_uplink
from kc_tui.state.operations import describe_busy, describe_progress
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Row, Run

COLUMNS: Final = (
    Column("name", "NAME", 10, weight=2, widest=30, lasting=True),
    Column("state", "STATE", 8, lasting=True),
    Column("uplink", "UPLINK", 9, weight=1, widest=20),
    Column("subnets", "SUBNETS", 22, weight=5, widest=64),
    Column("gateway", "GATEWAY", 8, weight=1, widest=24),
    Column("vms", "VMS", 4, align=Align.RIGHT, rank=1),
)


class Condition(NamedTuple):
    """How a network is: its word with its sign, the first thing that is wrong, whether all that is an old story."""

    word: str
    glyph: str
    role: Role
    problem: str
    is_stale: bool


def judge(network: Mapping[str, Any], glyphs: Glyphs) -> Condition:
    """Return how a network is, as its host has told last."""
    status = network.get("status") or {}
    word = str(status.get("state") or "unknown")
    glyph, role = {
        "up": (glyphs.live, Role.OK),
        "degraded": (glyphs.attention, Role.WARN),
        "down": (glyphs.failed, Role.DANGER),
    }.get(word, (glyphs.stale, Role.MUTED))
    is_stale = bool(status.get("stale"))
    problems = list_problems(network)
    if is_stale:
        glyph, role = glyphs.stale, Role.MUTED
    return Condition(word, glyph, role, problems[0][0] if problems else "", is_stale)


def list_problems(network: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with a network, and what to do about each."""
    found = (network.get("status") or {}).get("problems")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return [(str(entry.get("message", "")), str(entry.get("hint", ""))) for entry in entries]


def build_entry(network: Document, operation: Mapping[str, Any] | None, users: int, glyphs: Glyphs) -> Entry:
    """Return one network as the list shows it."""
    spec = network.get("spec", {})
    name, uid = str(network.get("name", "")), str(network.get("uid", ""))
    uplink, gateway = describe_uplink(spec), str(spec.get("gateway", ""))
    condition = judge(network, glyphs)
    subnets = _draw_subnets(spec, glyphs)
    text = Role.MUTED if condition.is_stale else Role.TEXT
    cells = (
        Cell(name, text),
        Cell(condition.word, condition.role),
        Cell(uplink, Role.MUTED),
        Cell(subnets.text, Role.MUTED, subnets.more) if condition.is_stale else subnets,
        Cell(gateway, Role.ACCENT if gateway.startswith(("vm:", "router:")) else Role.MUTED),
        Cell(f"{users}" if users else glyphs.dash, text if users else Role.MUTED),
    )
    progress = describe_progress(operation) if operation is not None else None
    glyph = Cell(glyphs.changing, Role.ACCENT) if progress else Cell(condition.glyph, condition.role)
    first = next((str(spec.get(family, {}).get("subnet", "")) for family in FAMILIES if spec.get(family)), "")
    return Entry(
        uid=uid,
        name=name,
        row=Row(uid, (cells, progress, condition.problem), cells, glyph, progress, condition.problem),
        search="\n".join((name, condition.word, uplink, gateway, *(run.text for run in subnets.runs))).casefold(),
        sort_keys={
            "name": natural_key(name),
            "state": _rank(condition),
            "uplink": uplink,
            "subnets": first,
            "vms": -users,
            "gateway": gateway,
        },
        state=condition.word,
        busy=describe_busy(operation) if operation is not None else "",
    )


def _rank(condition: Condition) -> int:
    """Return the place of a state: what needs a person comes first."""
    order = ("down", "degraded", "unknown", "up")
    return order.index(condition.word) if condition.word in order else len(order)


def _draw_subnets(spec: Mapping[str, Any], glyphs: Glyphs) -> Cell:
    runs: list[Run] = []
    for family in FAMILIES:
        side = spec.get(family, {})
        subnet, mode = str(side.get("subnet", "")), str(side.get("mode", "none"))
        if subnet:
            runs += [Run("  ")] if runs else []
            runs += [Run(subnet), *([Run(f" {mode}", Role.MUTED)] if mode != "none" else [])]
    return Cell(runs[0].text, Role.TEXT, tuple(runs[1:])) if runs else Cell(glyphs.dash, Role.MUTED)
