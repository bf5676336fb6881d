"""What a VM is connected to and made of: NICs, disks, CD, snapshots, and where the host differs from the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from backend.model.documents import Document, name_of
from kc_tui.state.create_vm import describe_addressing, describe_hardware
from kc_tui.state.formatting import format_bytes
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import Line, heading, join_parts, labelled
from kc_tui.state.network_facts import describe_guards
from kc_tui.state.nic_options import read_nic
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.state.vm_parts import describe_snapshot, drift_changes, entries_of, snapshots_of
from kc_tui.state.vm_wishes import ROOT, disk_sizes
from kc_tui.state.vms import addresses_of, hardware_of, name_source, show_value

_GIB: Final = 1 << 30
_LABEL: Final = 12


def describe_wiring(document: Document, networks: Mapping[str, Document], glyphs: Glyphs) -> list[Line]:
    """Return all that a VM has beside its state; `networks` are the known ones by name."""
    return join_parts(
        (
            _describe_difference(document, glyphs),
            _describe_nics(document, networks),
            _describe_disks(document, glyphs),
            _describe_snapshots(document),
            _describe_machine(document, glyphs),
            _describe_keys(document.get("spec", {}).get("sshKeys", [])),
        )
    )


def _describe_difference(document: Document, glyphs: Glyphs) -> list[Line]:
    """Return what somebody else changed on the host, and what waits for a restart."""
    lines: list[Line] = []
    drift = drift_changes(document)
    if drift:
        lines.append((Run("Changed by somebody else", Role.WARN),))
    for change in drift:
        found, wanted = show_value(change.old) or glyphs.dash, show_value(change.new) or glyphs.dash
        lines.append((Run(f"  {change.where} "), Run(found, Role.WARN), Run(f", wanted {wanted}", Role.MUTED)))
    pending = document.get("status", {}).get("pendingRestart")
    if isinstance(pending, list) and pending:
        lines.append((Run(f"{glyphs.restart} Waits for a restart", Role.WARN),))
        lines += [(Run(f"  {path}"),) for path in pending]
    return lines


def _describe_nics(document: Document, networks: Mapping[str, Document]) -> list[Line]:
    lines: list[Line] = [heading("Network")]
    addresses = addresses_of(document)
    guards = {label.removeprefix("guard "): text for label, text in describe_guards(document)}
    for nic in document.get("spec", {}).get("nics", []):
        name, nic_id = name_of(nic.get("network")), nic.get("id", "")
        addressing = describe_addressing(read_nic(nic), networks.get(name))
        lines.append(labelled(f"  {nic_id}", name, Run(f"  {addressing}  {nic.get('mac', '')}", Role.MUTED)))
        lines += [
            labelled("", str(found.get("address", "")), Run(f"  {name_source(found)}", Role.MUTED))
            for found in addresses
            if found.get("nic") == nic_id
        ]
        # As the host has set them up, with what they stopped.
        lines += [labelled("", Run(guards[nic_id], _judge_guard(guards[nic_id])))] if nic_id in guards else []
    return lines if len(lines) > 1 else [*lines, (Run("  none", Role.MUTED),)]


def _judge_guard(text: str) -> Role:
    is_odd = "not in force" in text or ("dropped" in text and "nothing dropped" not in text)
    return Role.WARN if is_odd else Role.MUTED


def _describe_disks(document: Document, glyphs: Glyphs) -> list[Line]:
    spec = document.get("spec", {})
    if spec.get("adopted"):
        return [heading("Disks"), (Run("  as they were: they are not KC's", Role.MUTED),)]
    told = {str(disk.get("id", "")): disk for disk in entries_of(document, "disks")}
    sizes = {disk: gib * _GIB for disk, gib in disk_sizes(spec, hardware_of(document)).items()}
    lines: list[Line] = [heading("Disks")]
    for disk in dict.fromkeys((*sizes, *told)):
        seen = told.get(disk, {})
        text = f"{format_bytes(seen.get('sizeBytes', sizes.get(disk)), glyphs):>8}"
        used = f"  {format_bytes(seen['usedBytes'], glyphs)} used" if "usedBytes" in seen else ""
        over = f"  over {name_of(spec.get('image'))}" if disk == ROOT else ""
        lines.append(labelled(f"  {disk}", text, Run(used + over, Role.MUTED)))
    disc = name_of(spec.get("cdrom"))
    lines.append(labelled("  CD", Run(disc) if disc else Run("empty", Role.MUTED)))
    return lines


def _describe_snapshots(document: Document) -> list[Line]:
    found = snapshots_of(document)
    width = max((len(str(item.get("name", ""))) for item in found), default=0) + 4
    rows = [
        labelled(f"  {item.get('name', '')}", Run(describe_snapshot(item), Role.MUTED), width=width) for item in found
    ]
    return [heading("Snapshots"), *rows] if rows else []


def _describe_machine(document: Document, glyphs: Glyphs) -> list[Line]:
    spec, status = document.get("spec", {}), document.get("status", {})
    lines = [heading("Machine"), labelled("  size", describe_hardware(hardware_of(document)) or glyphs.dash)]
    for name, value in spec.get("parameters", {}).items():
        lines.append(labelled(f"  {name}", str(value), Run("  chosen", Role.MUTED), width=_LABEL + 2))
    if status.get("display"):
        lines.append(labelled("  screen", str(status["display"])))
    return lines


def _describe_keys(keys: Sequence[object]) -> list[Line]:
    shown: list[Line] = [(Run(f"  {_shorten_key(str(key))}", Role.MUTED),) for key in keys]
    return [heading("SSH keys"), *(shown or [(Run("  none", Role.MUTED),)])]


def _shorten_key(key: str) -> str:
    kind, _, rest = key.partition(" ")
    body, _, comment = rest.partition(" ")
    return f"{kind} …{body[-8:]} {comment}".rstrip()
