"""What a VM has beside its size: snapshots, disks, what somebody else changed; and what adopting one would do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backend.model.changes import Change
from backend.model.documents import Document
from kc_tui.state.differences import wrap
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line, heading
from kc_tui.state.operations import clock_time
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.state.vms import POWERS, is_on

_LONGEST: Final = 18
EFFECT_OF_RECONCILING: Final = (
    "what is different is put right now; what cannot be while the VM runs waits for its next restart"
)


def entries_of(document: Document, name: str) -> list[Mapping[str, Any]]:
    """Return a list of objects in a VM's status, such as `snapshots`, `disks` or `drift`."""
    found = document.get("status", {}).get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def snapshots_of(document: Document) -> list[Mapping[str, Any]]:
    """Return a VM's snapshots, the newest first."""
    return sorted(entries_of(document, "snapshots"), key=lambda item: str(item.get("at", "")), reverse=True)


def describe_snapshot(snapshot: Mapping[str, Any]) -> str:
    """Return when a snapshot was taken, and what is in it."""
    parts = [clock_time(snapshot.get("at"))[:16], "with memory" if snapshot.get("hasMemory") else "disks"]
    parts.append(str(snapshot.get("description") or ""))
    return "  ".join(part for part in parts if part)


def describe_restoring(document: Document, snapshot: Mapping[str, Any]) -> list[str]:
    """Return what becomes of a VM that is brought back to a snapshot, in lines for a person."""
    at = clock_time(snapshot.get("at"))[:16]
    lines = [f"its disks are as they were at {at}: what was written since is lost"]
    if snapshot.get("hasMemory"):
        lines.append("its memory is as it was, too: the guest goes on from that moment")
    elif is_on(document):
        lines.append("the guest's memory is not in it: the power is cut, and the VM is off")
    else:
        lines.append("the VM is off")
    return lines


def drift_changes(document: Document) -> list[Change]:
    """Return how the host differs from a VM's document, as changes from what is found to what is wanted."""
    changes = [
        Change(
            tuple(str(entry.get("path", "")).split(".")),
            "replace",
            *(_read(entry.get(side)) for side in ("found", "wanted")),
        )
        for entry in entries_of(document, "drift")
    ]
    wanted, found = document.get("spec", {}).get("power"), document.get("status", {}).get("power")
    is_told = any(change.where == "spec.power" for change in changes)
    if not is_told and wanted != found and wanted in POWERS and found in POWERS:
        changes.append(Change(("spec", "power"), "replace", found, wanted))
    return changes


def _read(text: Any) -> Any:
    """Return a figure as one: the text of one would stand in quotes."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < _LONGEST else text


def draw_adoption(managed: Sequence[str], untouched: Sequence[str], width: int, glyphs: Glyphs) -> list[Line]:
    """Return what KC would manage of a foreign domain, and what it would leave."""
    lines: list[Line] = []
    for title, items in (("KC manages", managed), ("Stays as it is, untouched", untouched)):
        if items:
            lines += [*([BLANK] if lines else []), heading(title)]
        for item in items:
            lines += wrap(f"{glyphs.dot} ", Role.MUTED, item, Role.TEXT, width)
    return lines or [(Run("There is nothing in it that KC knows.", Role.MUTED),)]


def suggest_name(domain: str) -> str:
    """Return a name that a VM may have, as near to a domain's as can be."""
    return re.sub(r"[^a-z0-9]+", "-", domain.lower())[:63].strip("-")
