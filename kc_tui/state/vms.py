"""What the VM list shows of each VM: one word and one glyph for its state, its figures, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from backend.model.documents import Document, name_of
from kc_tui.state.formatting import MIB, draw_sparkline, format_memory, format_percent, join_words
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.operations import describe_busy, describe_progress
from kc_tui.state.roles import Role
from kc_tui.state.samples import Usage
from kc_tui.state.table import Align, Cell, Column, Row, Run

SPARKLINE_WIDTH: Final = 4

COLUMNS: Final = (
    Column("name", "NAME", 14, weight=3, widest=34, lasting=True),
    Column("state", "STATE", 9, lasting=True),
    Column("cpu", "CPU", 9, align=Align.RIGHT, rank=4),
    Column("memory", "MEMORY", 9, align=Align.RIGHT, rank=3),
    Column("address", "ADDRESS", 19, weight=2, widest=44, rank=1),
    Column("type", "TYPE", 6, weight=1, widest=16, rank=2),
)
METADATA_WIDTH: Final = 12
METADATA_PREFIX: Final = "metadata."

POWERS: Final = frozenset({"running", "paused", "stopped"})
_STATE_ORDER: Final = {"attention": 0, "busy": 1, "running": 2, "paused": 3, "stopped": 4, "foreign": 5}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a VM is: the `word` and `glyph` of its state in a role, what is being done to it, and why it needs a person.

    `group` is one of attention, busy, running, paused, stopped and foreign.
    """

    word: str
    glyph: str
    role: Role
    group: str
    busy: str = ""
    note: str = ""
    is_stale: bool = False
    needs_restart: bool = False


@dataclass(frozen=True, slots=True)
class VMEntry(Entry):
    """One VM as the list knows it; `address` is the first of its addresses."""

    group: str = ""
    is_on: bool = False
    address: str = ""


def judge(
    document: Document, operation: Mapping[str, Any] | None, glyphs: Glyphs, *, is_connecting: bool = False
) -> Condition:
    """Return how a VM is, from its document and the operation (in short form) that works on it.

    While KC is still connecting every stored state is old; that is no news about any VM, so none is marked.
    """
    status = document.get("status", {})
    power = str(status.get("power", "unknown"))
    is_stale = bool(status.get("stale")) and not is_connecting
    if status.get("foreign"):
        word, glyph = _power_word(power), glyphs.foreign
        return Condition(word, glyph, Role.MUTED, "foreign", note="", is_stale=is_stale)
    if operation is not None:
        return Condition(describe_busy(operation), glyphs.changing, Role.ACCENT, "busy", describe_busy(operation))
    note = _find_trouble(document, power)
    if not note and not is_stale and not is_connecting:
        note = find_drift(document)
    if note:
        role = Role.DANGER if power in ("crashed", "absent") else Role.WARN
        return Condition(_power_word(power), glyphs.attention, role, "attention", note=note, is_stale=is_stale)
    needs_restart = _needs_restart(document, power)
    note = f"restart needed for: {needs_restart}" if needs_restart else ""
    group, glyph, role = {
        "running": ("running", glyphs.running, Role.OK),
        "paused": ("paused", glyphs.paused, Role.WARN),
    }.get(power, ("stopped", glyphs.stopped, Role.MUTED))
    if is_stale:
        glyph, role = glyphs.stale, Role.MUTED
    return Condition(
        _power_word(power), glyph, role, group, note=note, is_stale=is_stale, needs_restart=bool(needs_restart)
    )


def _power_word(power: str) -> str:
    return {"absent": "missing"}.get(power, power)


def _find_trouble(document: Document, power: str) -> str:
    """Return why a person should look at a VM that nothing is being done to; empty where all is well."""
    status = document.get("status", {})
    reason = str(status.get("reason", ""))
    if power == "crashed":
        return f"it crashed{f': {reason}' if reason else ''}"
    if power == "absent":
        return "the host has no domain of it any more; start makes it anew"
    problem = status.get("problem")
    return str(problem) if problem else ""


def find_drift(document: Document) -> str:
    """Return how the host differs from a VM's document, which nobody told KC of; empty where it does not."""
    status = document.get("status", {})
    wanted, found = document.get("spec", {}).get("power"), status.get("power")
    if wanted != found and wanted in POWERS and found in POWERS:
        return f"it is to be {wanted}, and it is {found}"
    drift = status.get("drift")
    if not isinstance(drift, list) or not drift:
        return ""
    paths = [str(entry.get("path", "")) for entry in drift if isinstance(entry, dict)]
    return f"somebody else changed {join_words(paths, 3)}"


def _needs_restart(document: Document, power: str) -> str:
    """Return what waits for a restart, as paths or as the version that is not applied; empty where nothing does."""
    status = document.get("status", {})
    pending = status.get("pendingRestart")
    if isinstance(pending, list) and pending:
        return ", ".join(str(path) for path in pending)
    return "its changes" if pending is True and power in ("running", "paused") else ""


def is_on(document: Document) -> bool:
    """Return whether a VM has a guest that runs or is paused."""
    return document.get("status", {}).get("power") in ("running", "paused")


def hardware_of(document: Document) -> Mapping[str, Any]:
    """Return `cpus`, `memoryMiB`, `diskGiB` and the rest as far as they are known."""
    hardware = document.get("status", {}).get("hardware")
    return hardware if isinstance(hardware, dict) else {}


def addresses_of(document: Document) -> list[Mapping[str, Any]]:
    """Return a VM's addresses, the most useful first: IPv4 before IPv6, link-local ones last."""
    found = document.get("status", {}).get("addresses")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def use(entry: Mapping[str, Any]) -> tuple[bool, bool]:
        address = str(entry.get("address", ""))
        return address.startswith(("fe80:", "169.254.")), entry.get("family") == "ipv6"

    return sorted(entries, key=use)


def name_source(address: Mapping[str, Any]) -> str:
    """Return where an address was learned, in the word that people have for it."""
    source = str(address.get("source", ""))
    return "dhcp" if source == "lease" else source


def build_entry(
    document: Document,
    operation: Mapping[str, Any] | None,
    usage: Usage | None,
    glyphs: Glyphs,
    *,
    metadata_columns: Sequence[str] = (),
    is_connecting: bool = False,
) -> VMEntry:
    """Return what the list shows of one VM."""
    condition = judge(document, operation, glyphs, is_connecting=is_connecting)
    name = str(document.get("name", ""))
    kind = name_of(document.get("spec", {}).get("type"))
    addresses = addresses_of(document)
    address = str(addresses[0].get("address", "")) if addresses else ""
    metadata = {path: read_metadata(document, path) for path in metadata_columns}
    keys = {
        "name": natural_key(name),
        "state": (_STATE_ORDER[condition.group], condition.word),
        "cpu": -usage.cpu if usage is not None and usage.cpu is not None else 1.0,
        "memory": -hardware_of(document).get("memoryMiB", 0),
        "address": _address_key(address),
        "type": kind,
    }
    cells = (
        *_draw_cells(document, condition, usage, addresses, glyphs),
        *(Cell(value, Role.TEXT if condition.group != "foreign" else Role.MUTED) for value in metadata.values()),
    )
    return VMEntry(
        uid=str(document.get("uid", "")),
        name=name,
        row=_make_row(document, condition, operation, cells),
        search=_make_search(document, condition, kind, addresses),
        sort_keys=keys | {METADATA_PREFIX + path: (not value, value) for path, value in metadata.items()},
        state="stopped" if condition.word == "missing" else condition.word,
        busy=condition.busy,
        is_foreign=condition.group == "foreign",
        group=condition.group,
        is_on=is_on(document),
        address=address,
    )


def _draw_cells(
    document: Document,
    condition: Condition,
    usage: Usage | None,
    addresses: Sequence[Mapping[str, Any]],
    glyphs: Glyphs,
) -> tuple[Cell, ...]:
    is_foreign = condition.group == "foreign"
    kind = name_of(document.get("spec", {}).get("type"))
    return (
        Cell(str(document.get("name", "")), Role.MUTED if is_foreign else Role.TEXT),
        _draw_state(condition, glyphs),
        _draw_cpu(usage, document, glyphs),
        _draw_memory(usage, document, glyphs),
        Cell("foreign, not KC's", Role.MUTED) if is_foreign else _draw_address(addresses, glyphs),
        Cell(kind or glyphs.dash, Role.MUTED),
    )


def _make_row(
    document: Document, condition: Condition, operation: Mapping[str, Any] | None, cells: tuple[Cell, ...]
) -> Row:
    progress = describe_progress(operation) if operation is not None else None
    glyph = Cell(condition.glyph, condition.role)
    return Row(
        key=str(document.get("uid", "")),
        version=(cells, glyph, condition.note, progress),
        cells=cells,
        glyph=glyph,
        progress=progress,
        note=condition.note,
        note_role=Role.DANGER if condition.role is Role.DANGER else Role.WARN,
    )


def refresh_usage(entry: VMEntry, document: Document, usage: Usage | None, glyphs: Glyphs) -> VMEntry:
    """Return the entry with other figures of CPU and memory, and all else as it was."""
    cells = (
        *entry.row.cells[:2], _draw_cpu(usage, document, glyphs), _draw_memory(usage, document, glyphs),
        *entry.row.cells[4:],
    )  # fmt: skip
    row = replace(entry.row, cells=cells, version=(cells, entry.row.glyph, entry.row.note, entry.row.progress))
    cpu = -usage.cpu if usage is not None and usage.cpu is not None else 1.0
    return replace(entry, row=row, sort_keys={**entry.sort_keys, "cpu": cpu})


def _draw_state(condition: Condition, glyphs: Glyphs) -> Cell:
    role = condition.role if condition.group in ("attention", "busy") else Role.TEXT
    if condition.group in ("foreign", "stopped") or condition.is_stale:
        role = Role.MUTED
    sign = glyphs.restart if condition.needs_restart else glyphs.stale if condition.is_stale else ""
    return Cell(condition.word, role, (Run(f" {sign}", Role.WARN),) if sign else ())


def _draw_cpu(usage: Usage | None, document: Document, glyphs: Glyphs) -> Cell:
    if usage is None or usage.cpu is None or not is_on(document):
        return Cell(glyphs.dash, Role.MUTED)
    bars = draw_sparkline(usage.cpu_history, SPARKLINE_WIDTH, glyphs)
    return Cell(bars, Role.MUTED, (Run(format_percent(usage.cpu, glyphs).rjust(5)),))


def _draw_memory(usage: Usage | None, document: Document, glyphs: Glyphs) -> Cell:
    total = hardware_of(document).get("memoryMiB")
    if not isinstance(total, int):
        return Cell(glyphs.dash, Role.MUTED)
    used = usage.memory_bytes if usage is not None and is_on(document) else None
    text = format_memory(used, total * MIB, glyphs)
    return Cell(text, Role.TEXT if used is not None else Role.MUTED)


def _draw_address(addresses: Sequence[Mapping[str, Any]], glyphs: Glyphs) -> Cell:
    if not addresses:
        return Cell(glyphs.dash, Role.MUTED)
    source = name_source(addresses[0])
    return Cell(str(addresses[0].get("address", "")), Role.TEXT, (Run(f" {source}", Role.MUTED),))


def _address_key(address: str) -> tuple[int, int]:
    """Sort addresses as numbers, IPv4 first, none last."""
    if not address:
        return (9, 0)
    from ipaddress import ip_address  # noqa: PLC0415 - the first picture mostly has none

    try:
        parsed = ip_address(address)
    except ValueError:
        return (9, 0)
    return (parsed.version, int(parsed))


def _make_search(document: Document, condition: Condition, kind: str, addresses: Sequence[Mapping[str, Any]]) -> str:
    spec = document.get("spec", {})
    parts = [
        str(document.get("name", "")),
        condition.word,
        "foreign" if condition.group == "foreign" else kind,
        name_of(spec.get("image")),
        *(str(entry.get("address", "")) for entry in addresses),
        *(name_of(nic.get("network")) for nic in spec.get("nics", []) if isinstance(nic, dict)),
        *(f"{path}={value}" for path, value in flatten(document.get("metadata", {}))),
    ]
    return "\n".join(parts).casefold()


def flatten(value: Any, path: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """Return the scalar values in metadata with their paths (`owner.mail`)."""
    if isinstance(value, dict) and depth < 8:  # noqa: PLR2004 - deeper than anyone reads; a bound against a bomb
        found: list[tuple[str, str]] = []
        for key, item in value.items():
            found.extend(flatten(item, f"{path}.{key}" if path else str(key), depth + 1))
        return found
    return [(path, show_value(value))] if path else []


def show_value(value: Any) -> str:
    """Return a JSON value as it is shown in one cell."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value)
    return "{…}" if isinstance(value, dict) else str(value)


def read_metadata(document: Document, path: str) -> str:
    """Return the value at a path of the metadata as it is shown; empty where there is none."""
    value: Any = document.get("metadata", {})
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    return show_value(value)


def metadata_column(path: str) -> Column:
    """Return the column of a metadata path."""
    title = path.rpartition(".")[2].upper()
    return Column(METADATA_PREFIX + path, title, METADATA_WIDTH, weight=1, widest=24, rank=5)
