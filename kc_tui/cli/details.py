"""What `show` says of one object to a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from backend.model.documents import Document, is_readable, name_of
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TRASH, VM, Kind, find_kind
from backend.text import sanitise, sanitise_lines
from kc_tui.cli.columns import describe_plan, describe_state, describe_work, hardware_of, show_time, sort_addresses
from kc_tui.cli.output import format_json
from kc_tui.state.formatting import format_bytes, format_mebibytes, pluralise

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
    spec, status = document.get("spec", {}), document.get("status", {})
    reason = f" ({status['reason']})" if status.get("reason") else ""
    # An old version has no state.
    yield ("state", f"{describe_state(document).text}{reason}") if status else ("power", spec.get("power", ""))
    if status.get("pendingRestart"):
        yield "restart", f"needed for {', '.join(status['pendingRestart'])}"
    operation = status.get("operation")
    if operation:
        yield "operation", f"{operation.get('name', '')} {operation.get('type', '')}: {operation.get('title', '')}"
    hardware = hardware_of(document)
    if hardware:
        parts = [
            pluralise(hardware["cpus"], "CPU") if "cpus" in hardware else "",
            format_mebibytes(hardware["memoryMiB"]) + " memory" if "memoryMiB" in hardware else "",
            f"{hardware['diskGiB']} GiB disk" if "diskGiB" in hardware else "",
            str(hardware.get("arch", "")),
            "slow: emulated without KVM" if status.get("accelerator") == "tcg" else "",
        ]
        yield "hardware", ", ".join(part for part in parts if part)
    for label, field in (("type", "type"), ("image", "image")):
        if field in spec:
            yield label, name_of(spec[field])
    for entry in sort_addresses(document):
        prefix = f"/{entry['prefix']}" if entry.get("prefix") else ""
        yield "address", f"{entry.get('address', '')}{prefix}  {entry.get('source', '')}, {entry.get('nic', '')}"
    for nic in spec.get("nics", []):
        plans = [f"{family} {describe_plan(nic[family])}" for family in ("ipv4", "ipv6") if family in nic]
        yield f"nic {nic.get('id', '')}", "  ".join([name_of(nic["network"]), nic.get("mac", ""), *plans])
    if spec.get("description"):
        yield "description", spec["description"]
    if spec.get("sshKeys"):
        yield "ssh keys", "\n".join(spec["sshKeys"])


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


def _describe_network(document: Document) -> Lines:
    spec = document["spec"]
    yield "uplink", spec["uplink"]
    for family in ("ipv4", "ipv6"):
        side = spec[family]
        yield family, f"{side['subnet']}, {side['mode']}" if side.get("subnet") else "none"
    yield "gateway", spec["gateway"]
    if spec.get("dns"):
        yield "dns", ", ".join(spec["dns"])
    if spec.get("mtu"):
        yield "mtu", str(spec["mtu"])
    if spec.get("libvirtNetwork"):
        yield "libvirt network", spec["libvirtNetwork"]
    if spec.get("description"):
        yield "description", spec["description"]


def _describe_type(document: Document) -> Lines:
    from backend.model.parameters import describe_limits, resolve_hardware  # noqa: PLC0415 - types only

    spec = document["spec"]
    hardware = resolve_hardware(spec, {})
    if spec.get("description"):
        yield "description", spec["description"]
    yield "arch", f"{spec['arch']}, {spec['firmware'].upper()}"
    for name, value in hardware.items():
        schema = spec["parameters"].get(name)
        limits = f", {describe_limits(schema) or 'free'}: --set {name}=…" if schema is not None else ", fixed"
        yield name, f"{value}{limits}"


def _describe_operation(document: Document) -> Lines:
    status = document.get("status", {})
    yield "work", describe_work(document)
    yield "state", f"{status.get('state', 'queued')}, {status.get('percent', 0)} %"
    for key, label in (("steps", "step"), ("undo", "undo")):
        for step in status.get(key) or []:
            yield label, f"{step.get('state', ''):<8} {step.get('title', '')}"
    for key, label in (("error", "error"), ("undoError", "undo error")):
        if status.get(key):
            problem = status[key]
            hint = f". {problem['hint']}" if problem.get("hint") else ""
            yield label, f"{problem.get('title', '')}: {problem.get('detail', '')}{hint}"
    for key, label in (("queuedAt", "queued"), ("startedAt", "started"), ("endedAt", "ended")):
        if status.get(key):
            yield label, status[key]


def _describe_trash(document: Document) -> Lines:
    spec, target = document["spec"], document["spec"]["target"]
    kind = find_kind(target["kind"])
    yield "object", f"{kind.title} {target['name']}, version {target['version']}"
    yield "deleted", f"{document.get('createdAt', '')} by {document.get('updatedBy', '')}"
    yield "until", show_time(spec["until"])
    yield "bring back", f"kc {kind.command} restore {target['name']} --uid {target['uid']}"
    body = spec["document"]
    yield from ((label, value) for label, value in _DESCRIBERS[kind](body) if label not in ("state", "power"))


_DESCRIBERS: dict[Kind, Callable[[Document], Lines]] = {
    VM: _describe_vm,
    IMAGE: _describe_image,
    NETWORK: _describe_network,
    MACHINE_TYPE: _describe_type,
    OPERATION: _describe_operation,
    TRASH: _describe_trash,
}
