"""All about one network: what is wrong with it, what it is to be, and who is on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from backend.model.documents import Document
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.images import list_metadata, list_users
from kc_tui.state.lines import Line, heading, join_parts, labelled
from kc_tui.state.network_facts import describe_facts
from kc_tui.state.networks import judge, list_problems
from kc_tui.state.roles import Role
from kc_tui.state.table import Run

_LABEL: Final = 15
_MOST: Final = 200
"""Addresses and leases that are listed; a /16 can have more than anybody reads."""
_MANY: Final = 1_000_000


def describe(
    network: Document, users: list[str] | None, glyphs: Glyphs, operation: Mapping[str, Any] | None = None
) -> list[Line]:
    """Return all about a network; without `users` nothing is said about them.

    What the host told last and does not tell now is grey.
    """
    condition = judge(network, glyphs)
    status = network.get("status") or {}
    told = [_list_facts(network, status), _list_addresses(status), _list_leases(status), _list_free(status)]
    if condition.is_stale:
        told = [[_grey(line) for line in part] for part in told]
    return join_parts(
        (
            _list_top(network, glyphs, operation),
            _list_problems(network, glyphs),
            *told,
            [] if users is None else list_users(users),
            list_metadata(network, glyphs),
        )
    )


def _list_top(network: Document, glyphs: Glyphs, operation: Mapping[str, Any] | None) -> list[Line]:
    from kc_tui.state.operations import describe_busy  # noqa: PLC0415 - most networks are at rest

    condition = judge(network, glyphs)
    # Before a host has told anything, nothing is said of how it is.
    is_told = bool((network.get("status") or {}).get("state"))
    state = [Run(f"{condition.glyph} {condition.word}", condition.role)] if is_told else []
    if condition.is_stale:
        state.append(Run("  as it was known last", Role.WARN))
    if operation is not None:
        state.append(Run(f"  {glyphs.changing} {describe_busy(operation)}", Role.ACCENT))
    lines: list[Line] = [(Run(str(network.get("name", "")), Role.STRONG),), *([tuple(state)] if state else [])]
    description = str(network.get("spec", {}).get("description", ""))
    return [*lines, (Run(description, Role.MUTED),)] if description else lines


def _list_problems(network: Document, glyphs: Glyphs) -> list[Line]:
    lines: list[Line] = []
    for message, hint in list_problems(network):
        lines.append((Run(f"{glyphs.attention} ", Role.WARN), Run(message)))
        if hint:
            lines.append((Run(f"  {glyphs.arrow} ", Role.MUTED), Run(hint, Role.ACCENT)))
    return lines


def _list_facts(network: Document, status: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = []
    for label, text in describe_facts({**network, "status": status}):
        lines += [
            labelled(label if number == 0 else "", _judge_fact(label, part, status), width=_LABEL)
            for number, part in enumerate(text.split("\n"))
        ]
    return lines


def _judge_fact(label: str, text: str, status: Mapping[str, Any]) -> Run:
    is_silent = label == "gateway" and (status.get("gateway") or {}).get("state") == "silent"
    return Run(text, Role.WARN if is_silent or (label == "mtu" and "wanted" in text) else Role.TEXT)


def _entries(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = status.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _list_addresses(status: Mapping[str, Any]) -> list[Line]:
    rows = [
        [str(entry.get(key) or "") for key in ("address", "owner", "source")] for entry in _some(status, "addresses")
    ]
    return _draw_table("Addresses in use", rows, len(_entries(status, "addresses")))


def _list_leases(status: Mapping[str, Any]) -> list[Line]:
    rows = []
    for entry in _some(status, "leases"):
        whom = "/".join(str(entry[key]) for key in ("vm", "nic") if entry.get(key))
        name = str(entry.get("hostname") or "")
        rows.append([str(entry.get("address") or ""), whom or name, str(entry.get("mac") or "")])
    return _draw_table("Leases", rows, len(_entries(status, "leases")))


def _some(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return _entries(status, name)[:_MOST]


def _draw_table(title: str, rows: Sequence[Sequence[str]], count: int) -> list[Line]:
    """Return rows of an address, whom it belongs to, and a remark, below each other."""
    if not rows:
        return []
    widths = [max(len(row[index]) for row in rows) for index in (0, 1)]
    lines = [heading(f"{title}  {count:,}")]
    for address, owner, remark in rows:
        runs = Run(f"  {address:<{widths[0]}}  "), Run(f"{owner:<{widths[1]}}  "), Run(remark, Role.MUTED)
        lines.append(runs)
    return lines if count <= len(rows) else [*lines, (Run(f"  and {count - len(rows):,} more", Role.MUTED),)]


def _list_free(status: Mapping[str, Any]) -> list[Line]:
    free = status.get("free") or {}
    counts = [_count(free[family], title) for family, title in (("ipv4", "IPv4"), ("ipv6", "IPv6")) if family in free]
    return [labelled("free", ", ".join(counts), width=_LABEL)] if counts else []


def _count(number: object, title: str) -> str:
    shown = f"{number:,}" if isinstance(number, int) and number < _MANY else f"over {_MANY:,}"
    return f"{shown} {title}"


def _grey(line: Iterable[Run]) -> Line:
    return tuple(Run(run.text, Role.MUTED) for run in line)
