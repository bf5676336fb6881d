"""All about one VM, as the detail pane beside the list and the VM's own screen show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backend.model.documents import Document, name_of
from kc_tui.state.formatting import MIB, draw_sparkline, format_age, format_bytes, format_memory, format_percent
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line, draw_tree, heading, join_parts, labelled, labelled_all
from kc_tui.state.operations import describe_progress, read_time
from kc_tui.state.roles import Role
from kc_tui.state.samples import Usage
from kc_tui.state.table import Run
from kc_tui.state.vms import Condition, addresses_of, hardware_of, is_on, judge, name_source

_SPARKLINE: Final = 20
_HIGHEST_BAR: Final = 0.86
"""One level less than all, so that the bars of one line do not touch those of the line above."""
_RATE_WIDTH: Final = 10
_LEAST_RATE: Final = 1024.0
"""Bytes a second that fill a sparkline: less is no load, and is not to look like one."""


def describe_state(condition: Condition, glyphs: Glyphs) -> Line:
    """Return a VM's state as glyph and word, and that it is old where it is."""
    runs = [Run(f"{condition.glyph} {condition.word}", condition.role)]
    if condition.is_stale:
        runs.append(Run(f"  {glyphs.stale} as it was known last", Role.WARN))
    if condition.needs_restart:
        runs.append(Run(f"  {glyphs.restart} restart pending", Role.WARN))
    return tuple(runs)


def describe(
    document: Document,
    operation: Mapping[str, Any] | None,
    usage: Usage | None,
    now: float,
    glyphs: Glyphs,
    *,
    is_alone: bool = True,
) -> list[Line]:
    """Return the overview of a VM; `operation` is in short form.

    Where it does not stand alone, the addresses are left to `describe_wiring`.
    """
    condition = judge(document, operation, glyphs)
    top: list[Line] = [(Run(str(document.get("name", "")), Role.STRONG),), describe_state(condition, glyphs)]
    if condition.note:
        top.append((Run(condition.note, Role.WARN),))
    if condition.group == "foreign":
        about = "A domain of this host that KC does not manage: it is shown, never touched, unless you adopt it."
        return join_parts((top, [(Run(about, Role.MUTED),)]))
    parts = [top]
    if operation is not None:
        parts.append(_describe_operation(operation, glyphs))
    parts += [
        _describe_usage(document, usage, glyphs),
        _describe_addresses(document, glyphs) if is_alone else [],
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
    memory = hardware.get("memoryMiB")
    total = memory * MIB if isinstance(memory, int) else None
    used = usage.memory_bytes if usage is not None and is_on(document) else None
    lines = _describe_history(usage, total, glyphs) if usage is not None and is_on(document) else []
    if lines:
        lines.append(BLANK)
    lines += [
        labelled("CPUs", str(hardware.get("cpus", glyphs.dash))),
        labelled("memory", format_memory(used, total, glyphs)),
    ]
    if "diskGiB" in hardware:
        lines.append(labelled("disk", f"{hardware['diskGiB']} GiB"))
    return lines


def _describe_history(usage: Usage, memory: int | None, glyphs: Glyphs) -> list[Line]:
    """Return what was used in the last minute: CPU and memory of all there is, the rest of the most there was."""
    if usage.cpu is None:
        return []
    lines = [_draw_history("CPU", usage.cpu_history, 1.0, format_percent(usage.cpu, glyphs), glyphs)]
    if memory and usage.memory_bytes:
        share = format_percent(usage.memory_bytes / memory, glyphs)
        lines.append(_draw_history("memory", usage.memory_history, memory, share, glyphs))
    for label, rates in (
        ("read", usage.read),
        ("written", usage.written),
        ("received", usage.received),
        ("sent", usage.sent),
    ):
        if rates:
            text = f"{format_bytes(rates[-1], glyphs)}/s"
            lines.append(_draw_history(label, rates, max(*rates, _LEAST_RATE), text, glyphs))
    return lines


def _draw_history(label: str, values: Sequence[float], most: float, text: str, glyphs: Glyphs) -> Line:
    bars = draw_sparkline([value / most * _HIGHEST_BAR for value in values], _SPARKLINE, glyphs)
    return labelled(label, Run(bars, Role.ACCENT), f" {text.rjust(_RATE_WIDTH)}")


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
        labelled("image", name_of(spec.get("image")) or Run("none: it was adopted", Role.MUTED)),
    ]
    pinned, newest = spec.get("type", {}).get("version"), status.get("newerType")
    if newest:
        runs = Run(f"version {pinned}"), Run(f"  {glyphs.attention} there is version {newest}", Role.WARN)
        lines.insert(1, labelled("", *runs))
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
