"""What `show` says of one object to a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from backend.model.documents import Document, is_readable, name_of
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TOKEN, TRASH, VM, Kind, find_kind
from backend.text import sanitise, sanitise_lines
from kc_tui.cli.columns import (
    describe_plan,
    describe_retry,
    describe_state,
    describe_work,
    hardware_of,
    show_amount,
    show_time,
    sort_addresses,
)  # fmt: skip
from kc_tui.cli.network_details import describe_network
from kc_tui.cli.output import format_json
from kc_tui.cli.parts import list_disks
from kc_tui.cli.token_details import describe_token
from kc_tui.cli.type_details import describe_type
from kc_tui.state.formatting import GIB, format_bytes, format_mebibytes, pluralise
from kc_tui.state.network_facts import describe_guards

Lines = Iterator[tuple[str, str]]


def print_details(kind: Kind, documents: Sequence[Document]) -> None:
    """Print documents for a person, an empty line between two."""
    texts = ["\n".join(_describe(kind, document)) for document in documents]
    if texts:
        sys.stdout.write("\n\n".join(texts) + "\n")


def _describe(kind: Kind, document: Document) -> Iterator[str]:
    describe = _DESCRIBERS[kind] if is_readable(document) else _describe_newer
    entries = [("name", str(document.get("name", ""))), *describe(document), *_describe_rest(document)]
    width = max(len(label) for label, _value in entries)
    for label, value in entries:
        first, *more = sanitise_lines(value).split("\n")
        yield f"{sanitise(label):<{width}}  {first}".rstrip()
        for line in more:
            yield f"{'':<{width}}  {line}".rstrip()


def _describe_newer(document: Document) -> Lines:
    yield "apiVersion", f"{document.get('apiVersion')}: a newer KC wrote it"
    yield "spec", format_json(document.get("spec"))


def _describe_rest(document: Document) -> Lines:
    """Yield what every document has."""
    metadata = document.get("metadata")
    if metadata:
        yield "metadata", format_json(metadata)
    if document.get("uid"):
        yield "uid", document["uid"]
    if document.get("version"):
        yield "version", str(document["version"])
    if document.get("message"):
        yield "message", document["message"]
    if document.get("createdAt"):
        yield "created", document["createdAt"]
    if document.get("updatedAt") != document.get("createdAt"):
        yield "updated", f"{document.get('updatedAt', '')} by {document.get('updatedBy', '')}"


def _describe_vm(document: Document) -> Lines:
    spec = document.get("spec", {})
    yield from _describe_state(document)
    yield from _describe_hardware(document)
    yield from _describe_origin(document)
    yield from _describe_disks(document)
    yield from _describe_nics(document)
    if document.get("status", {}).get("display"):
        yield "screen", str(document["status"]["display"])
    if "autostart" in spec:
        crash = "" if spec.get("onCrash", "restart") == "restart" else f"; after a crash: {spec['onCrash']}"
        yield "autostart", ("yes" if spec["autostart"] else "no") + crash
    if spec.get("description"):
        yield "description", spec["description"]
    if spec.get("sshKeys"):
        yield "ssh keys", "\n".join(spec["sshKeys"])


def _describe_state(document: Document) -> Lines:
    """Yield what a VM does, and what of it is not as its document says."""
    spec, status = document.get("spec", {}), document.get("status", {})
    reason = f" ({status['reason']})" if status.get("reason") else ""
    # An old version has no state.
    yield ("state", f"{describe_state(document).text}{reason}") if status else ("power", spec.get("power", ""))
    if status.get("pendingRestart"):
        yield "restart", f"needed for {', '.join(status['pendingRestart'])}"
    for entry in status.get("drift") or ():
        yield "changed", f"{entry.get('path', '')}: {entry.get('wanted', '')} → {entry.get('found', '')}"
    if status.get("drift"):
        yield "mend", f"somebody else changed it; kc vm reconcile {document.get('name', '')}"
    operation = status.get("operation")
    if operation:
        yield "operation", f"{operation.get('name', '')} {operation.get('type', '')}: {operation.get('title', '')}"


def _describe_hardware(document: Document) -> Lines:
    hardware = hardware_of(document)
    parts = [
        pluralise(hardware["cpus"], "CPU") if "cpus" in hardware else "",
        format_mebibytes(hardware["memoryMiB"]) + " memory" if "memoryMiB" in hardware else "",
        f"{hardware['diskGiB']} GiB disk" if "diskGiB" in hardware else "",
        str(hardware.get("arch", "")),
        "slow: emulated without KVM" if document.get("status", {}).get("accelerator") == "tcg" else "",
    ]
    if hardware:
        yield "hardware", ", ".join(part for part in parts if part)


def _describe_nics(document: Document) -> Lines:
    """Yield a VM's addresses, then its NICs."""
    for entry in sort_addresses(document):
        prefix = f"/{entry['prefix']}" if entry.get("prefix") else ""
        yield "address", f"{entry.get('address', '')}{prefix}  {entry.get('source', '')}, {entry.get('nic', '')}"
    for nic in document.get("spec", {}).get("nics", []):
        plans = [f"{family} {describe_plan(nic[family])}" for family in ("ipv4", "ipv6") if family in nic]
        yield f"nic {nic.get('id', '')}", "  ".join([name_of(nic["network"]), nic.get("mac", ""), *plans])
    yield from describe_guards(document)


def _describe_origin(document: Document) -> Lines:
    """Yield what a VM is made from: the version of its machine type, its image, or that it was adopted."""
    spec, name = document.get("spec", {}), document.get("name", "")
    reference = spec.get("type")
    if reference is not None:
        pinned = f", version {reference['version']}" if isinstance(reference, dict) and reference.get("version") else ""
        yield "type", f"{name_of(reference)}{pinned}"
        newer = document.get("status", {}).get("newerType")
        if newer:
            yield "newer type", f"version {newer} exists: kc vm set {name} --type {name_of(reference)}"
    if spec.get("adopted"):
        yield "adopted", "somebody else made the domain; its disks and devices are not KC's"
    elif spec.get("image") is not None:
        yield "image", name_of(spec["image"])


def _describe_disks(document: Document) -> Lines:
    """Yield a VM's disks, its CD-ROM drive and its snapshots."""
    for disk in list_disks(document):
        known = disk["sizeBytes"] is not None
        size = f"{disk['sizeGiB']} GiB" if disk["sizeGiB"] else format_bytes(disk["sizeBytes"])
        if known and disk["sizeGiB"] and disk["sizeBytes"] != disk["sizeGiB"] * GIB:
            size = f"{size}, now {format_bytes(disk['sizeBytes'])}"
        yield f"disk {disk['id']}", size + (f", {format_bytes(disk['usedBytes'])} used" if known else "")
    disc = name_of(document.get("spec", {}).get("cdrom"))
    if disc:
        yield "cd", disc
    for snapshot in document.get("status", {}).get("snapshots") or ():
        parts = [
            str(snapshot.get("name", "")),
            show_time(str(snapshot.get("at", ""))),
            f"version {snapshot['version']}" if snapshot.get("version") else "",
            "with memory" if snapshot.get("hasMemory") else "",
            str(snapshot.get("description", "")),
        ]
        yield "snapshot", ", ".join(part for part in parts if part)


def _describe_image(document: Document) -> Lines:
    spec = document["spec"]
    if spec.get("title"):
        yield "title", spec["title"]
    yield "arch", spec["arch"]
    yield "format", spec["format"]
    yield "disk", format_bytes(spec["virtualSizeBytes"])
    yield "stored", format_bytes(spec["sizeBytes"])
    yield "digest", spec["digest"]
    yield "source", spec.get("source", "")


def _describe_operation(document: Document) -> Lines:
    status = document.get("status", {})
    yield "work", describe_work(document)
    yield "state", f"{status.get('state', 'queued')}, {status.get('percent', 0)} %"
    for key, label in (("steps", "step"), ("undo", "undo")):
        for step in status.get(key) or []:
            parts = [str(step.get("title", "")), show_amount(step)]
            if isinstance(step.get("attempt"), int) and step["attempt"] > 1:
                parts.append(f"attempt {step['attempt']}")
            yield label, f"{step.get('state', ''):<8} {', '.join(part for part in parts if part)}"
    retry = describe_retry(document)
    if retry:
        yield "again", retry
    for key, label in (("error", "error"), ("undoError", "undo error")):
        if status.get(key):
            problem = status[key]
            hint = f". {problem['hint']}" if problem.get("hint") else ""
            yield label, f"{problem.get('title', '')}: {problem.get('detail', '')}{hint}"
    if document.get("spec", {}).get("idempotencyKey"):
        yield "key", document["spec"]["idempotencyKey"]
    for key, label in (("queuedAt", "queued"), ("startedAt", "started"), ("endedAt", "ended")):
        if status.get(key):
            yield label, status[key]


def _describe_trash(document: Document) -> Lines:
    spec, target = document["spec"], document["spec"]["target"]
    kind, disk = find_kind(target["kind"]), spec.get("disk", "")
    whole = f"{kind.title} {target['name']}"
    yield "object", f"disk {disk} of {whole}" if disk else f"{whole}, version {target['version']}"
    yield "deleted", f"{document.get('createdAt', '')} by {document.get('updatedBy', '')}"
    yield "until", show_time(spec["until"])
    if disk:
        yield "bring back", f"kc {kind.command} rollback {target['name']} --to {target['version']}"
        return
    yield "bring back", f"kc {kind.command} restore {target['name']} --uid {target['uid']}"
    body = spec["document"]
    yield from ((label, value) for label, value in _DESCRIBERS[kind](body) if label not in ("state", "power"))


_DESCRIBERS: dict[Kind, Callable[[Document], Lines]] = {
    VM: _describe_vm,
    IMAGE: _describe_image,
    NETWORK: describe_network,
    MACHINE_TYPE: describe_type,
    OPERATION: _describe_operation,
    TRASH: _describe_trash,
    TOKEN: describe_token,
}
