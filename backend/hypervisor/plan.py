"""What the hypervisor is asked to make, and what it is seen to have; plain values, no libvirt."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DiskPlan:
    """A disk: a volume of the pool, its format, and the volume that backs it (name and format), if any."""

    id: str
    volume: str
    format: str = "qcow2"
    base_volume: str = ""
    base_format: str = ""


@dataclass(frozen=True)
class NicPlan:
    """A NIC: `network` is the libvirt network's name, or `bridge` an existing bridge of the host.

    With neither it is QEMU's own user-mode network, all that an unprivileged libvirt has.
    """

    id: str
    mac: str
    network: str = ""
    bridge: str = ""
    mtu: int = 0


@dataclass(frozen=True)
class DomainPlan:
    """A whole domain; its uuid is the VM's uid.

    `owner` identifies the KC store that manages it (`backend.store`'s identity), `owner_label` says so to a person,
    `version` is the document's, `metadata` the customer's metadata as JSON text. `seed` and `console_log` are volume
    names in the pool. `accelerator` is `kvm` or `qemu`.
    """

    uid: str
    name: str
    version: int
    owner: str
    owner_label: str
    metadata: str
    arch: str
    cpus: int
    memory_mib: int
    firmware: str
    accelerator: str
    disks: tuple[DiskPlan, ...]
    nics: tuple[NicPlan, ...]
    seed: str
    console_log: str
    description: str = ""


@dataclass(frozen=True)
class NetworkPlan:
    """A libvirt network: `uplink` is `nat`, `isolated` or `bridge:NAME`; addresses in CIDR form or empty."""

    name: str
    uid: str
    uplink: str
    bridge: str = ""
    ipv4_subnet: str = ""
    ipv4_mode: str = "none"
    ipv6_subnet: str = ""
    ipv6_mode: str = "none"
    mtu: int = 0
    dns: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObservedNetwork:
    """A libvirt network as it is: `bridge` and the subnets (CIDR) that libvirt serves, `uplink` as in a plan."""

    name: str
    uid: str
    active: bool
    bridge: str
    uplink: str
    ipv4_subnet: str = ""
    ipv6_subnet: str = ""
    ipv4_mode: str = "none"
    ipv6_mode: str = "none"


@dataclass(frozen=True)
class Volume:
    """A volume of the pool; sizes in bytes. One that is not `whole` is being uploaded, or never was to its end."""

    name: str
    path: str
    format: str
    capacity_bytes: int
    allocation_bytes: int
    whole: bool = True


@dataclass(frozen=True)
class ObservedDomain:
    """A domain as the host reports it; `power` is running, paused, stopped, crashed or unknown."""

    uid: str
    name: str
    power: str
    reason: str = ""


@dataclass(frozen=True)
class DomainOwner:
    """Who made a domain, from its `<metadata>`; all empty for one that no KC made."""

    owner: str = ""
    label: str = ""
    version: int = 0


@dataclass(frozen=True)
class Address:
    """An address of a guest, and where it was learned: `agent`, `lease` or `arp`."""

    address: str
    prefix: int
    family: str  # "ipv4" or "ipv6"
    mac: str
    source: str


@dataclass(frozen=True)
class Sample:
    """Counters of one domain at `at` (seconds, monotonic clock, taken before the call); bytes and nanoseconds."""

    uid: str
    at: float
    power: str
    cpus: int = 0
    cpu_time_ns: int = 0
    memory_used_bytes: int = 0
    memory_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True)
class HostFacts:
    """A host: versions as text, memory in MiB, what can be emulated, whether KVM is usable (None: not known)."""

    uri: str
    hostname: str
    libvirt_version: str
    qemu_version: str
    memory_mib: int
    cpus: int
    arch: str
    guest_archs: tuple[str, ...] = field(default=())
    kvm_listed: bool = False
    kvm_usable: bool | None = None
    kvm_reason: str = ""
