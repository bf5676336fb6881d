"""All about one VM, as the detail pane beside the list and the VM's own screen show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backend.model.documents import Document, name_of
from kc_tui.state.create_vm import describe_addressing, describe_hardware
from kc_tui.state.draft import Nic
from kc_tui.state.formatting import MIB, draw_sparkline, format_age, format_memory, format_percent
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line, draw_tree, heading, join_parts, labelled, labelled_all
from kc_tui.state.operations import describe_progress, read_time
from kc_tui.state.roles import Role
from kc_tui.state.samples import HISTORY, Usage
from kc_tui.state.table import Run
from kc_tui.state.vms import Condition, addresses_of, hardware_of, is_on, judge, name_source

_SPARKLINE: Final = 20


def describe_state(condition: Condition, glyphs: Glyphs) -> Line:
    """Return a VM's state as glyph and word, and that it is old where it is."""
    runs = [Run(f"{condition.glyph} {condition.word}", condition.role)]
    if condition.is_stale:
        runs.append(Run(f"  {glyphs.stale} as it was known last", Role.WARN))
    if condition.needs_restart:
        runs.append(Run(f"  {glyphs.restart} restart pending", Role.WARN))
    return tuple(runs)


def describe(
    document: Document, operation: Mapping[str, Any] | None, usage: Usage | None, now: float, glyphs: Glyphs
) -> list[Line]:
    """Return the overview of a VM; `operation` is in short form."""
    condition = judge(document, operation, glyphs)
    top: list[Line] = [(Run(str(document.get("name", "")), Role.STRONG),), describe_state(condition, glyphs)]
    if condition.note:
        top.append((Run(condition.note, Role.WARN),))
    if condition.group == "foreign":
        about = "A domain of this host that KC does not manage. It is shown, never touched."
        return join_parts((top, [(Run(about, Role.MUTED),)]))
    parts = [top]
    if operation is not None:
        parts.append(_describe_operation(operation, glyphs))
    parts += [
        _describe_usage(document, usage, glyphs),
        _describe_addresses(document, glyphs),
        _describe_nature(document, now, glyphs),
        describe_metadata(document, glyphs, is_short=True),
    ]
    return join_parts(parts)


def _describe_operation(operation: Mapping[str, Any], glyphs: Glyphs) -> list[Line]:
    progress = describe_progress(operation)
    share = "" if progress.fraction is None else f"  {format_percent(progress.fraction, glyphs)}"
    return [(Run(progress.text, progress.role), Run(share, Role.MUTED))]


def _describe_usage(document: Document, usage: Usage | None, glyphs: Glyphs) -> list[Line]:
    hardware = hardware_of(document)
    if not hardware:
        return []
    lines: list[Line] = []
    cpus = str(hardware.get("cpus", glyphs.dash))
    if usage is not None and usage.cpu is not None and is_on(document):
        bars = draw_sparkline(usage.cpu_history, min(_SPARKLINE, HISTORY), glyphs).strip()
        lines.append(labelled("CPU", Run(bars, Role.ACCENT), f" {format_percent(usage.cpu, glyphs)}"))
    lines.append(labelled("CPUs", cpus))
    memory = hardware.get("memoryMiB")
    used = usage.memory_bytes if usage is not None and is_on(document) else None
    lines.append(labelled("memory", format_memory(used, memory * MIB if isinstance(memory, int) else None, glyphs)))
    if "diskGiB" in hardware:
        lines.append(labelled("disk", f"{hardware['diskGiB']} GiB"))
    return lines


def _describe_addresses(document: Document, glyphs: Glyphs) -> list[Line]:
    found = addresses_of(document)
    if found:
        values = [(Run(str(entry.get("address", ""))), Run(f"  {name_source(entry)}", Role.MUTED)) for entry in found]
        lines = labelled_all("address", values)
    else:
        why = "none yet" if is_on(document) else glyphs.dash
        lines = [labelled("address", Run(why, Role.MUTED))]
    nics = document.get("spec", {}).get("nics", [])
    values = [
        (Run(name_of(nic.get("network"))), Run(f"  {nic.get('mac', '')}", Role.MUTED))
        for nic in nics
        if isinstance(nic, dict)
    ]
    return [*lines, *labelled_all("network", values)]


def _describe_nature(document: Document, now: float, glyphs: Glyphs) -> list[Line]:
    spec, status = document.get("spec", {}), document.get("status", {})
    created = read_time(document.get("createdAt"))
    hardware = hardware_of(document)
    lines = [
        labelled("type", name_of(spec.get("type")), Run(f"  {hardware.get('arch', '')}", Role.MUTED)),
        labelled("image", name_of(spec.get("image"))),
    ]
    if status.get("accelerator") == "tcg":
        lines.append(labelled("runs", Run("emulated, slow: no usable KVM here", Role.WARN)))
    elif status.get("accelerator"):
        lines.append(labelled("runs", Run(str(status["accelerator"]).upper(), Role.MUTED)))
    age = format_age(None if created is None else max(0.0, now - created), glyphs)
    lines.append(labelled("age", age, Run(f"  by {document.get('updatedBy', '')}", Role.MUTED)))
    lines.append(labelled("version", str(document.get("version", ""))))
    return lines


def describe_metadata(document: Document, glyphs: Glyphs, *, is_short: bool = False) -> list[Line]:
    """Return the customer's metadata as a tree; in full there is a word where there is none."""
    metadata = document.get("metadata")
    if metadata:
        tree = draw_tree(metadata, glyphs, 1 if is_short else 0)
        return [heading("Metadata"), *tree] if is_short else tree
    if is_short:
        return []
    hint = f"kc vm set {document.get('name', '')} --meta KEY=VALUE gives it some"
    return [(Run("This VM has no metadata."),), (Run(hint, Role.MUTED),)]


def describe_wiring(document: Document, networks: Mapping[str, Document], glyphs: Glyphs) -> list[Line]:
    """Return NICs, disk and keys of a VM; `networks` are the known ones by name."""
    spec = document.get("spec", {})
    hardware = hardware_of(document)
    lines: list[Line] = [heading("Network")]
    for nic in spec.get("nics", []):
        name = name_of(nic.get("network"))
        choice = Nic(name, _choice(nic.get("ipv4", {})), _choice(nic.get("ipv6", {})))
        addressing = describe_addressing(choice, networks.get(name))
        lines.append(labelled(f"  {nic.get('id', '')}", name, Run(f"  {addressing}  {nic.get('mac', '')}", Role.MUTED)))
    if not spec.get("nics"):
        lines.append((Run("  none", Role.MUTED),))
    size = f"{hardware['diskGiB']} GiB" if "diskGiB" in hardware else glyphs.dash
    lines += [BLANK, heading("Disk"), labelled("  root", size, Run(f"  over {name_of(spec.get('image'))}", Role.MUTED))]
    lines += [BLANK, heading("Machine"), labelled("  size", describe_hardware(hardware) or glyphs.dash)]
    for name, value in spec.get("parameters", {}).items():
        lines.append(labelled(f"  {name}", str(value), Run("  chosen", Role.MUTED), width=14))
    keys = spec.get("sshKeys", [])
    lines += [BLANK, heading("SSH keys")]
    lines += [(Run(f"  {_shorten_key(str(key))}", Role.MUTED),) for key in keys] or [(Run("  none", Role.MUTED),)]
    return lines


def _choice(plan: Mapping[str, Any]) -> str:
    return str(plan.get("address") or plan.get("mode", "network"))


def _shorten_key(key: str) -> str:
    kind, _, rest = key.partition(" ")
    body, _, comment = rest.partition(" ")
    return f"{kind} …{body[-8:]} {comment}".rstrip()
