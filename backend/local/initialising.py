"""`kc init`: the default network, machine types and starter image, where they are missing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, from_problem
from backend.images.volumes import STARTER_SOURCE, image_volume, starter_prefix
from backend.local.creation import current_user
from backend.local.uploading import describe_image, prepare_image, source_of
from backend.model.documents import Document, format_time
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK

if TYPE_CHECKING:
    from backend.local.service import LocalService
    from backend.service import Accepted

DEFAULT_NETWORK = "default"
DEFAULT_LIBVIRT_NETWORK = "kc-default"
STARTER = "starter"
Report = Callable[[str], None]


def _machine_type(
    description: str, cpus: int, memory_mib: int, disk_gib: int, limits: tuple[int, int, int], **settings: Any
) -> Document:
    """Return a machine type's spec; a running VM can be given all CPUs that it may have, and twice its memory.

    A guest begins with the most memory that it can be given and hands the rest back, hence not more of it. QEMU plugs
    no CPU into a running aarch64 machine.
    """
    most_cpus, most_memory, most_disk = limits
    return {
        "description": description,
        **settings,
        "hardware": {
            "cpus": cpus, "memoryMiB": memory_mib, "diskGiB": disk_gib,
            "maxCpus": 0 if settings.get("arch") == "aarch64" else most_cpus, "maxMemoryMiB": 2 * memory_mib,
        },
        "parameters": {
            "cpus": {
                "type": "integer", "title": "CPUs", "minimum": 1, "maximum": most_cpus, "default": cpus,
            },
            "memoryMiB": {
                "type": "integer", "title": "Memory", "unit": "MiB", "minimum": 128, "maximum": most_memory,
                "default": memory_mib,
            },
            "diskGiB": {
                "type": "integer", "title": "Disk", "unit": "GiB", "minimum": 1, "maximum": most_disk,
                "default": disk_gib,
            },
        },
    }  # fmt: skip


_ARM: dict[str, Any] = {"arch": "aarch64", "firmware": "uefi", "cpuModels": ["cortex-a57"]}

MACHINE_TYPES: dict[str, dict[str, Any]] = {
    "tiny": _machine_type("for a router, a test or a small service", 1, 512, 2, (2, 1024, 20)),
    "small": _machine_type("for one service", 1, 2048, 10, (4, 8192, 100)),
    "medium": _machine_type("for a few services", 2, 4096, 20, (8, 16384, 500)),
    "large": _machine_type("for a database or a build", 4, 8192, 40, (16, 65536, 2000)),
    "arm-tiny": _machine_type("for a test on aarch64", 1, 512, 2, (2, 1024, 20), **_ARM),
}


def initialise(service: LocalService, report: Report) -> list[str]:
    """Make what is missing and return what was made, as `kind name`; safe to repeat, and beside another process."""
    made: list[str] = []
    for name, spec in MACHINE_TYPES.items():
        _make(service, made, {"kind": MACHINE_TYPE.name, "name": name, "spec": spec})
    service.hypervisor.ensure_pool()
    _make_network(service, made, report)
    _make_starter(service, made, report)
    return made


def _make(service: LocalService, made: list[str], document: Document) -> None:
    if service.store.find(document["kind"], document["name"]) is not None:
        return
    try:
        _settle(service, service.create(document))
    except ConflictError:
        # Another process was faster; the network or pool may also be in conflict for real, which is to be told.
        if service.store.find(document["kind"], document["name"]) is None:
            raise
        return
    made.append(f"{document['kind']} {document['name']}")


def _settle(service: LocalService, accepted: Accepted) -> None:
    """Wait for an operation and raise what it failed with."""
    if accepted.operation is None:
        return
    ended = service.wait(accepted.operation["name"], timeout=600)
    if ended["status"]["state"] != "succeeded":
        raise from_problem(ended["status"].get("error", {}))


def _make_network(service: LocalService, made: list[str], report: Report) -> None:
    if service.store.find(NETWORK.name, DEFAULT_NETWORK) is not None:
        service.hypervisor.ensure_network_started(DEFAULT_LIBVIRT_NETWORK)
        return
    existing = service.hypervisor.list_networks()
    shared = next((network for network in existing if network.name == DEFAULT_LIBVIRT_NETWORK), None)
    if shared is not None:
        report(f"taking up the libvirt network {shared.name} ({shared.ipv4_subnet})")
        subnet = shared.ipv4_subnet
    else:
        from backend.hypervisor.network_xml import propose_subnet  # noqa: PLC0415

        used = [network.ipv4_subnet for network in existing if network.ipv4_subnet]
        subnet = propose_subnet([*used, *_local_subnets()])
        report(f"making the network {DEFAULT_NETWORK} ({subnet})")
    spec = {
        "uplink": "nat",
        "ipv4": {"subnet": subnet, "mode": "dhcp"},
        "libvirtNetwork": DEFAULT_LIBVIRT_NETWORK,
        "description": "NAT to the outside, addresses by DHCP",
    }
    _make(service, made, {"kind": NETWORK.name, "name": DEFAULT_NETWORK, "spec": spec})


def _local_subnets() -> list[str]:
    """Return the IPv4 routes of this machine, as far as the kernel tells; the hypervisor may be elsewhere."""
    try:
        lines = Path("/proc/net/route").read_text("ascii").splitlines()[1:]
    except OSError:
        return []
    subnets = []
    for line in lines:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[index]), "little") for index in (1, 7))
        if destination:
            subnets.append(str(IPv4Network((destination, mask.bit_count()), strict=False)))
    return [str(ip_network(subnet)) for subnet in subnets]


def _make_starter(service: LocalService, made: list[str], report: Report) -> None:
    from backend.images.starter import RECIPE, build  # noqa: PLC0415

    known = service.store.find(IMAGE.name, STARTER)
    if known is not None:
        if service.hypervisor.find_volume(image_volume(known["spec"])) is not None:
            return
        report("the starter image's bytes are gone from the pool; making it anew")
    with tempfile.TemporaryDirectory(prefix="kc-starter-") as folder:
        path = Path(folder) / "starter.raw"
        if known is None and _take_up(service, RECIPE, path, report):
            pass
        else:
            report("building the starter image from Debian packages; this takes half a minute")
            build(path, report=report)
        _store_starter(service, path, f"{STARTER_SOURCE}{RECIPE}", known)
    made.append(f"{IMAGE.name} {STARTER}")


def _take_up(service: LocalService, recipe: str, path: Path, report: Report) -> bool:
    """Copy the starter image that another KC left in the pool; False where there is none."""
    for volume in service.hypervisor.list_volumes(starter_prefix(recipe)):
        if service.hypervisor.find_volume(volume.name) is None:
            continue
        report("taking up the starter image that is in the pool")
        path.write_bytes(service.hypervisor.read_volume(volume.name))
        return True
    return False


def _store_starter(service: LocalService, path: Path, source: str, known: Document | None) -> None:
    declared = {"format": "raw", "title": "KC starter: a small Linux for first steps, routers and tests"}
    if known is None:
        try:
            body = prepare_image(service.store, STARTER, path, {}, declared, source)
            _settle(service, service.accept(body, "image.create", source_of(path), expect=0))
        except ConflictError:
            if service.store.find(IMAGE.name, STARTER) is None:
                raise
        return
    body = {key: value for key, value in known.items() if key not in ("status", "version")}
    body |= {"spec": describe_image(path, declared, source), "updatedAt": format_time(), "updatedBy": current_user()}
    _settle(service, service.accept(body, "image.store", source_of(path), expect=known["version"]))
