"""What the hypervisor is asked to make, and what it is seen to have; plain values, no libvirt.

Named tuples, as the list of VMs is on the way of every command and `dataclasses` would cost it a third of its time.
"""

from __future__ import annotations

from typing import NamedTuple


class DiskPlan(NamedTuple):
    """A disk: a volume of the pool, its format, and the volume that backs it (name and format), if any.

    `capacity_bytes` is what the guest is to see; 0: as much as the volume has.
    """

    id: str
    volume: str
    format: str = "qcow2"
    base_volume: str = ""
    base_format: str = ""
    capacity_bytes: int = 0


class NicPlan(NamedTuple):
    """A NIC: `network` is the libvirt network's name, or `bridge` an existing bridge of the host.

    With neither it is QEMU's own user-mode network, all that an unprivileged libvirt has. `tap` is what its device on
    the host is to be called (empty: libvirt chooses); an `isolated` one reaches no other isolated one on its bridge.
    """

    id: str
    mac: str
    network: str = ""
    bridge: str = ""
    mtu: int = 0
    tap: str = ""
    isolated: bool = False


class DomainPlan(NamedTuple):
    """A whole domain; its uuid is the VM's uid.

    `owner` identifies the KC store that manages it (`backend.store`'s identity), `owner_label` says so to a person,
    `version` is the document's, `metadata` the customer's metadata as JSON text. `seed` and `console_log` are volume
    names in the pool. `accelerator` is `kvm` or `qemu`. A running domain can be given up to `max_cpus` CPUs and
    `max_memory_mib` of memory (0: no more than it is started with). `cdrom` is the volume in its CD-ROM drive, which
    every domain has; empty: no disc. `cpu_models` are CPU models of libvirt or `host-passthrough`, `host-model`,
    `maximum`; the first that the host can do is taken, and where there is none, the driver's choice.
    `on_crash` is `restart`, `stop` or `preserve`. `autostart`: libvirt starts it with the host. An `adopted` domain was
    made by somebody else: of it the driver changes what the plan names (name, description, metadata, CPUs, memory,
    the NICs, autostart) and leaves the rest, disks and firmware too, word for word as it is.
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
    max_cpus: int = 0
    max_memory_mib: int = 0
    cdrom: str = ""
    secure_boot: bool = False
    cpu_models: tuple[str, ...] = ()
    on_crash: str = "restart"
    autostart: bool = False
    adopted: bool = False


class DomainOwner(NamedTuple):
    """Who made a domain, from its `<metadata>`; all empty for one that no KC made."""

    owner: str = ""
    label: str = ""
    version: int = 0


class Difference(NamedTuple):
    """Where a domain is not what its plan says: a word of `Hypervisor.apply_live` or another field, and both values."""

    word: str
    wanted: str
    found: str


class Snapshot(NamedTuple):
    """A snapshot of a domain: when (seconds since the epoch), whether the guest's memory is in it, how it is kept.

    `method` is `internal` (in the qcow2 files, by libvirt) or `copy` (whole volumes beside the disks).
    """

    name: str
    at: float
    has_memory: bool
    method: str


class FoundNic(NamedTuple):
    """A NIC of a domain that KC did not make: `kind` is libvirt's interface type, `source` its network or bridge."""

    mac: str
    kind: str
    source: str
    model: str = ""


class FoundDomain(NamedTuple):
    """A domain that could be adopted: what KC would manage, and `untouched`, a line for each thing that it would not.

    Memory in MiB; `disks` are the paths of its disks.
    """

    uid: str
    name: str
    owner: DomainOwner
    power: str
    arch: str
    firmware: str
    cpus: int
    memory_mib: int
    description: str
    autostart: bool
    nics: tuple[FoundNic, ...]
    disks: tuple[str, ...]
    untouched: tuple[str, ...]


class ObservedNetwork(NamedTuple):
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


class Volume(NamedTuple):
    """A volume of the pool; sizes in bytes. One that is not `whole` is being uploaded, or never was to its end."""

    name: str
    path: str
    format: str
    capacity_bytes: int
    allocation_bytes: int
    whole: bool = True


class ObservedDomain(NamedTuple):
    """A domain as the host reports it; `power` is running, paused, stopped, crashed or unknown."""

    uid: str
    name: str
    power: str
    reason: str = ""


class Address(NamedTuple):
    """An address of a guest, and where it was learned: `agent`, `lease` or `arp`; a lease may say the guest's name."""

    address: str
    prefix: int
    family: str  # "ipv4" or "ipv6"
    mac: str
    source: str
    hostname: str = ""


class HostFacts(NamedTuple):
    """A host: versions as text, memory in MiB, what can be emulated, whether KVM is usable (None: not known)."""

    uri: str
    hostname: str
    libvirt_version: str
    qemu_version: str
    memory_mib: int
    cpus: int
    arch: str
    guest_archs: tuple[str, ...] = ()
    kvm_listed: bool = False
    kvm_usable: bool | None = None
    kvm_reason: str = ""
