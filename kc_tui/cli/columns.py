"""What the list of each kind shows, in columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from backend.model.documents import Document, is_readable, name_of, parse_time
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TOKEN, TRASH, VM, Kind, find_kind
from kc_tui.cli.table import Cell, Column, Value, print_table

DASH = "–"
_POWER_TONES = {"running": "ok", "paused": "warn", "crashed": "bad", "missing": "bad", "unknown": "warn"}
_NETWORK_TONES = {"up": "ok", "degraded": "warn", "down": "bad", "unknown": "dim"}
_ENDED_TONES = {"succeeded": "ok", "failed": "bad", "cancelled": "warn"}


class _Layout(NamedTuple):
    columns: tuple[Column, ...]
    row: Callable[[Document], Sequence[Value]]


def describe_state(document: Document) -> Cell:
    """Return a VM's state in a word or two: what is being done to it, else its power."""
    status = document.get("status", {})
    operation = status.get("operation")
    if operation:
        from kc_tui.state.operations import describe_busy  # noqa: PLC0415 - most VMs are at rest

        return Cell(f"{describe_busy(operation)} {operation.get('percent', 0)} %", "warn")
    power = str(status.get("power", "unknown"))
    word = "missing" if power == "absent" else power
    if status.get("foreign"):
        return Cell(f"{word}, foreign", "dim")
    if status.get("stale"):
        return Cell(f"{word}, stale", "dim")
    if status.get("pendingRestart"):
        return Cell(f"{word} ↻", "warn")
    return Cell(word, _POWER_TONES.get(word, ""))


def sort_addresses(document: Document) -> list[dict[str, Any]]:
    """Return a VM's addresses, the most useful first: IPv4 before IPv6, link-local ones last."""
    return sorted(
        document.get("status", {}).get("addresses") or [],
        key=lambda entry: (
            str(entry.get("address", "")).startswith(("fe80:", "169.254.")),
            entry.get("family") == "ipv6",
        ),
    )


def hardware_of(document: Document) -> dict[str, Any]:
    """Return a VM's hardware as far as it is known; before it was made, what its own parameters say."""
    return document.get("status", {}).get("hardware") or document.get("spec", {}).get("parameters") or {}


def show_age(document: Document) -> str:
    """Return how long ago a document was made."""
    created = document.get("createdAt")
    if not created:
        return DASH
    from kc_tui.state.formatting import format_age  # noqa: PLC0415 - the list of VMs shows no age

    return format_age(time.time() - parse_time(created))


def show_time(text: str) -> str:
    """Return a time of a document to the second: `2026-01-02 03:04:05Z`."""
    return f"{text[:10]} {text[11:19]}Z" if text.endswith("Z") and text[10:11] == "T" else text


def describe_plan(plan: dict[str, Any]) -> str:
    """Return how a NIC gets its address of one family: a static address, or a mode, with what DHCP keeps for it."""
    mode, address = str(plan.get("mode") or "network"), str(plan.get("address") or "")
    if address:
        return f"{mode} {address}" if mode in ("dhcp", "dhcpv6") else address
    return "as the network" if mode == "network" else mode


def _mebibytes(count: object) -> str:
    # Its own, though kc_tui.state has one: the list of VMs is held to three times virsh's, imports and all.
    if not isinstance(count, (int, float)):
        return DASH
    return f"{count / 1024:g} GiB" if count >= 1024 and count % 256 == 0 else f"{count:g} MiB"  # noqa: PLR2004 - units


def _bytes(count: object) -> str:
    from kc_tui.state.formatting import format_bytes  # noqa: PLC0415 - the list of VMs shows none

    return format_bytes(count) if isinstance(count, (int, float)) else DASH


def _show_vm(document: Document) -> Sequence[Value]:
    spec, hardware = document.get("spec", {}), hardware_of(document)
    addresses = sort_addresses(document)
    address, source = (addresses[0].get("address", ""), addresses[0].get("source", "")) if addresses else (DASH, "")
    more = f" +{len(addresses) - 1}" if len(addresses) > 1 else ""
    return (
        str(document["name"]),
        describe_state(document),
        str(hardware.get("cpus", DASH)),
        _mebibytes(hardware.get("memoryMiB")),
        f"{address}{more}",
        str(source),
        name_of(spec.get("type")) or DASH,
        name_of(spec.get("image")) or DASH,
    )


def _show_image(document: Document) -> Sequence[Value]:
    spec = document["spec"]
    return (
        str(document["name"]),
        spec["arch"],
        spec["format"],
        _bytes(spec["virtualSizeBytes"]),
        _bytes(spec["sizeBytes"]),
        show_age(document),
        spec.get("title") or spec.get("source", ""),
    )


def describe_network_state(document: Document) -> Cell:
    """Return what a network's host says of it in a word: up, degraded, down or unknown; or what is being done to it."""
    status = document.get("status", {})
    operation = status.get("operation")
    if operation:
        from kc_tui.state.operations import describe_busy  # noqa: PLC0415 - most networks are at rest

        return Cell(f"{describe_busy(operation)} {operation.get('percent', 0)} %", "warn")
    state = str(status.get("state") or "unknown")
    return Cell(f"{state}, stale" if status.get("stale") else state, _NETWORK_TONES.get(state, ""))


def _show_subnet(side: dict[str, Any]) -> str:
    return f"{side.get('subnet')} {side.get('mode')}" if side.get("subnet") else DASH


def _show_network(document: Document) -> Sequence[Value]:
    from kc_tui.state.network_facts import describe_uplink  # noqa: PLC0415 - networks only

    spec, status = document["spec"], document.get("status", {})
    problems = status.get("problems") or ()
    remark = str(problems[0].get("message", "")) if problems else str(spec.get("description", ""))
    more = f" (+{len(problems) - 1})" if len(problems) > 1 else ""
    users = status.get("vms")
    return (
        str(document["name"]),
        describe_network_state(document),
        describe_uplink(spec),
        _show_subnet(spec["ipv4"]),
        _show_subnet(spec["ipv6"]),
        spec["gateway"],
        str(len(users)) if isinstance(users, list) else DASH,
        Cell(f"{remark}{more}", "warn" if problems else ""),
    )


def _show_type(document: Document) -> Sequence[Value]:
    from backend.model.parameters import describe_limits, resolve_hardware  # noqa: PLC0415 - types only

    spec = document["spec"]
    hardware = resolve_hardware(spec, {})
    parameters = [f"{name} {describe_limits(schema)}".strip() for name, schema in spec["parameters"].items()]
    return (
        str(document["name"]),
        spec["arch"],
        str(hardware.get("cpus", DASH)),
        _mebibytes(hardware.get("memoryMiB")),
        f"{hardware['diskGiB']} GiB" if "diskGiB" in hardware else DASH,
        ", ".join(parameters),
    )


def describe_work(document: Document) -> str:
    """Return what an operation does to what, such as `vm.create web`."""
    spec = document.get("spec", {})
    return f"{spec.get('type', '')} {spec.get('target', {}).get('name', '')}"


def describe_step(document: Document) -> str:
    """Return how far an operation is: its step, or why it failed."""
    from kc_tui.state.operations import shorten  # noqa: PLC0415 - operations only

    status = document.get("status", {})
    error = status.get("error")
    if error:
        return f"{error.get('title', '')}: {error.get('detail', '')}"
    if status.get("state") in _ENDED_TONES:
        return ""
    short = shorten(document)
    if not short["steps"]:
        return "waiting for its turn"
    retry = describe_retry(document)
    return f"{short['step']} of {short['steps']}: {short['title']}" + (f", {retry}" if retry else "")


def describe_retry(operation: Document) -> str:
    """Return when and why an operation tries its step again; empty where it does not."""
    retry = operation.get("status", {}).get("retry")
    if not isinstance(retry, dict):
        return ""
    return f"attempt {retry.get('attempt', '')} at {show_time(str(retry.get('at', '')))}: {retry.get('why', '')}"


def describe_amount(operation: Document) -> str:
    """Return how much of the step at work is done where that is counted in bytes: `12 MiB of 1 GiB`; else empty."""
    status = operation.get("status", {})
    for step in status.get("undo" if status.get("state") == "undoing" else "steps") or []:
        if step.get("state") == "running":
            return show_amount(step)
    return ""


def show_amount(step: dict[str, Any]) -> str:
    """Return how much of a step is done, in bytes; empty where nothing is counted."""
    progress = step.get("progress")
    if not isinstance(progress, dict) or not progress.get("total"):
        return ""
    return f"{_bytes(progress.get('done', 0))} of {_bytes(progress['total'])}"


def _show_operation(document: Document) -> Sequence[Value]:
    status = document.get("status", {})
    state = "waiting" if status.get("parked") else str(status.get("state", "queued"))
    return (
        str(document["name"]),
        describe_work(document),
        Cell(state, _ENDED_TONES.get(state, "warn")),
        f"{status.get('percent', 0)} %",
        show_age(document),
        describe_step(document),
    )


def _show_token(document: Document) -> Sequence[Value]:
    from kc_tui.cli.token_details import show_token  # noqa: PLC0415 - tokens only

    return show_token(document)


def _show_trash(document: Document) -> Sequence[Value]:
    from kc_tui.state.formatting import GIB  # noqa: PLC0415 - the list of VMs shows no bytes

    spec = document["spec"]
    target, body, part = spec["target"], spec["document"], spec.get("disk", "")
    sizes = {disk["id"]: disk["sizeGiB"] for disk in body.get("spec", {}).get("disks", [])}
    sizes |= {"": hardware_of(body).get("diskGiB")} if target["kind"] == VM.name else {}
    disk = sizes.get(part)
    size = body.get("spec", {}).get("sizeBytes") if disk is None else disk * GIB
    return (
        str(document["name"]),
        "disk" if part else find_kind(target["kind"]).command,
        f"{part} of {target['name']}" if part else str(target["name"]),
        show_age(document),
        str(document.get("updatedBy", "")),
        show_time(str(document["spec"]["until"])),
        _bytes(size),
    )


_LAYOUTS: dict[Kind, _Layout] = {
    VM: _Layout(
        (
            Column("NAME"), Column("STATE"), Column("CPUS", right=True), Column("MEMORY", right=True),
            Column("ADDRESS"), Column("FROM"), Column("TYPE"), Column("IMAGE"),
        ),
        _show_vm,
    ),
    IMAGE: _Layout(
        (
            Column("NAME"), Column("ARCH"), Column("FORMAT"), Column("DISK", right=True),
            Column("STORED", right=True), Column("AGE", right=True), Column("TITLE"),
        ),
        _show_image,
    ),
    NETWORK: _Layout(
        (
            Column("NAME"), Column("STATE"), Column("UPLINK"), Column("IPV4"), Column("IPV6"), Column("GATEWAY"),
            Column("VMS", right=True), Column("REMARK"),
        ),
        _show_network,
    ),
    MACHINE_TYPE: _Layout(
        (
            Column("NAME"), Column("ARCH"), Column("CPUS", right=True), Column("MEMORY", right=True),
            Column("DISK", right=True), Column("PARAMETERS"),
        ),
        _show_type,
    ),
    OPERATION: _Layout(
        (
            Column("ID"), Column("WORK"), Column("STATE"), Column("DONE", right=True), Column("AGE", right=True),
            Column("STEP"),
        ),
        _show_operation,
    ),
    TRASH: _Layout(
        (
            Column("NAME"), Column("KIND"), Column("OBJECT"), Column("DELETED", right=True), Column("BY"),
            Column("UNTIL"), Column("DISK", right=True),
        ),
        _show_trash,
    ),
    TOKEN: _Layout(
        (Column("NAME"), Column("TYPE"), Column("EXPIRES"), Column("MAY DO"), Column("WHOSE")),
        _show_token,
    ),
}  # fmt: skip


def _show(layout: _Layout, document: Document) -> Sequence[Value]:
    """Return the row of a document; of what a newer KC wrote, its name and by which version."""
    if is_readable(document):
        return layout.row(document)
    return (str(document["name"]), str(document.get("apiVersion")), *[DASH] * (len(layout.columns) - 2))


def print_documents(kind: Kind, documents: Sequence[Document]) -> None:
    """Print documents of one kind as a table; nothing where there are none."""
    if kind is OPERATION:
        # Their names say nothing; a person looks for the newest.
        documents = sorted(documents, key=lambda document: str(document.get("createdAt", "")), reverse=True)
    if documents:
        layout = _LAYOUTS[kind]
        print_table(layout.columns, [_show(layout, document) for document in documents])
