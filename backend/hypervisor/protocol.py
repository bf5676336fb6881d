"""What KC asks of a hypervisor; `backend.hypervisor.host` is the real one, `.memory` one without a host.

Every call has a deadline, blocks its caller at most that long, and may be made from any thread. Errors: NotFoundError,
ConflictError (exists, in use), RefusedError (invalid, unsupported), UnreachableError (daemon or host does not answer),
TimedOutError (one domain is stuck), FailedError. `ensure_*` may be repeated after a crash at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol

from backend.hypervisor.plan import (
    Address,
    Difference,
    DomainOwner,
    DomainPlan,
    FoundDomain,
    HostFacts,
    ObservedDomain,
    ObservedNetwork,
    Snapshot,
    Volume,
)
from backend.model.samples import Sample
from backend.service import ConsoleStream

if TYPE_CHECKING:
    from backend.network.plan import NetworkPlan, NetworkState, Obstacle, PortDrops, PortGuard

Hint = Callable[[str, str], None]
"""Called with (kind, uid): ("domain", uuid), ("network", name) or ("connection", "lost"|"back"); it must only queue."""


class Hypervisor(Protocol):
    """One libvirt host."""

    @property
    def uri(self) -> str:
        """The libvirt URI in use."""

    # --- host
    def facts(self) -> HostFacts:
        """Return versions, size and abilities; can take 20 s on a cold daemon, cached by host and versions."""

    def accelerator(self, arch: str, probe_volume: str = "") -> str:
        """Return `kvm` where it is proven to work for this host and QEMU version, else `qemu` (TCG).

        Without vmx or svm it is TCG at once; else `probe_volume` (a raw starter image) is booted once, bounded, and the
        answer is kept in the cache folder by host, kernel or boot, and QEMU version.
        """

    def subscribe(self, hint: Hint) -> Callable[[], None]:
        """Call `hint` for each domain, network and connection event until the returned function is called.

        Never raises and takes at most two seconds: a host that does not answer gets ("connection", "lost") at once,
        and is tried in the background until ("connection", "back").
        """

    def close(self) -> None:
        """Let go of the connections."""

    # --- domains
    def inventory(self) -> list[ObservedDomain]:
        """Return every domain of the host, managed or not, by one bulk call."""

    def observe(self, uid: str) -> ObservedDomain | None:
        """Return one domain, or None."""

    def find_domain(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""

    def owner_of(self, uid: str) -> DomainOwner:
        """Return who made a domain."""

    def ensure_defined(self, plan: DomainPlan) -> None:
        """Define the domain; one of the same uuid and owner is redefined, another owner's raises ConflictError.

        A domain that is on stays as it is, its name too, and is as the plan says when it is started next; what of the
        plan it can have before is `apply_live`'s. A NIC or disk that stays keeps its place on the guest's PCI bus.
        """

    def apply_live(self, plan: DomainPlan) -> tuple[str, ...]:
        """Bring a domain that is on as near to the plan as can be; return what waits for its next start.

        The words: `cpus`, `memory`, `firmware`, `name`, `nic:ID`, `disk:ID`, `cdrom`. NICs and disks but the first come
        and go live; one that the guest does not let go is asked for a while and then waits, and so does another MTU. A
        NIC moves, a disk grows, a disc is put into the drive or taken out of it. CPUs come within what the domain was
        started with, and go where the guest lets them; with an agent the guest is told to use those that came. Memory
        goes and comes up to the maximum that the domain was started with, where the guest has a driver for it. What is
        off or absent: (), and nothing is done.
        The persistent definition is `ensure_defined`'s. Another owner's domain raises ConflictError; a network that is
        not there or not active raises NotFoundError or ConflictError, with the changes before it done.
        """

    def differences(self, plan: DomainPlan) -> tuple[Difference, ...]:
        """Return where the persistent definition is not what a plan says, in the words of `apply_live`.

        More words: `definition` for a domain that is absent or not persistent, `owner`, `autostart`, `description`,
        `metadata`, `on-crash`. It is what somebody else did to the domain; nothing is changed.
        """

    def find_adoptable(self, name: str) -> FoundDomain | None:
        """Return what KC could manage of the domain of that name or uuid; None where there is none."""

    def adopt(self, uid: str, plan: DomainPlan) -> None:
        """Put KC's label on a domain that has none, so that it is the plan's; raise ConflictError for another's.

        Nothing else is changed; the plan is an `adopted` one. May be repeated.
        """

    def disown(self, uid: str, owner: str) -> None:
        """Take KC's label off a domain, and leave it as it is; absent is fine, another owner's raises ConflictError."""

    def ensure_running(self, uid: str) -> None:
        """Start the domain unless it runs; resume it if it is paused."""

    def ensure_paused(self, uid: str) -> None:
        """Have a domain that is on stand still; raise ConflictError for one that is off."""

    def ensure_stopped(self, uid: str, *, grace_seconds: float, force: bool) -> bool:
        """Stop the domain: ACPI first, wait `grace_seconds`, then, where `force`, at once; True when it is off."""

    def reboot(self, uid: str, *, force: bool) -> None:
        """Reboot a running domain: by agent or ACPI, or with `force` by a reset.

        An agent that answered before has stopped answering when this returns, or some seconds have passed.
        """

    def ensure_undefined(self, uid: str, owner: str) -> None:
        """Remove the domain and its firmware state; absent is fine, another owner's raises ConflictError."""

    def console(self, uid: str) -> ConsoleStream:
        """Open the serial console on a connection of its own, taking it over from an earlier reader."""

    def display(self, uid: str) -> ConsoleStream:
        """Open a domain's screen: the bytes of the VNC protocol (RFC 6143), one viewer a stream, several at once.

        Raises ConflictError for a domain that is off or has no screen, RefusedError where the host is another machine.
        """

    def display_address(self, uid: str) -> str:
        """Return where a domain's screen is, `vnc+unix:///…` or `vnc://HOST:PORT`; empty where it has none."""

    def screenshot(self, uid: str) -> bytes:
        """Return a picture of a domain's screen as PNG; raise ConflictError for one that is off or has no screen."""

    def agent_answers(self, uid: str) -> bool:
        """Return whether the guest agent answers a ping within 2 s."""

    def addresses(self, uid: str) -> list[Address]:
        """Return a guest's addresses from agent, lease and ARP, each once with its best source; empty when off."""

    def leases(self, networks: list[str]) -> list[Address]:
        """Return the DHCP leases of libvirt networks, those that are not there left out."""

    def samples(self) -> list[Sample]:
        """Return the counters of all domains by one bulk call that waits for no stuck one."""

    # --- snapshots, by names that are unique in a domain
    def list_snapshots(self, uid: str) -> list[Snapshot]:
        """Return a domain's snapshots, the oldest first; absent gives []."""

    def take_snapshot(self, uid: str, name: str, description: str = "") -> Snapshot:
        """Take a snapshot of a domain, with its memory where it is on; one of that name is returned.

        Where libvirt takes none of a domain with UEFI (before 10.9), its disks are copied whole while it is off,
        and RefusedError says so while it is on.
        """

    def restore_snapshot(self, uid: str, name: str) -> None:
        """Bring a domain's disks back to a snapshot, its memory too if that is in it; else it is off after that.

        Raises NotFoundError. A snapshot that is a copy wants the domain to be off (ConflictError). May be repeated.
        """

    def ensure_snapshot_gone(self, uid: str, name: str) -> None:
        """Remove a snapshot; absent is fine."""

    # --- networks
    def list_networks(self) -> list[ObservedNetwork]:
        """Return every libvirt network."""

    def ensure_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Have the network up: define (persistent, autostart) and start it, with its VXLAN device.

        One of that name is started and stays as it is, but for what DHCP keeps for clients and the VXLAN's peers, which
        are brought to the plan. A bridge of the host's own is looked for, and NotFoundError says that it is not there.
        """

    def replace_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Make the network match a changed plan, and start it; one that is absent is made.

        DHCP ranges, what DHCP keeps, and the VXLAN's peers are changed under running guests. For anything else the
        network is made anew: the guests on it stay on, and have no line meanwhile (`would_cut` tells who). Where they
        cannot be put back onto it, ConflictError names them and nothing is changed; so does a network of that name and
        another uuid, and a subnet that is another's. Where the new network does not start, the old one is put back.
        """

    def would_cut(self, plan: NetworkPlan) -> tuple[str, ...]:
        """Return the names of the running domains that `replace_network` would leave without a line for a moment."""

    def ensure_network_started(self, name: str) -> ObservedNetwork:
        """Start an existing network unless it is active; raise NotFoundError."""

    def ensure_network_gone(self, plan: NetworkPlan) -> None:
        """Remove the network of that name and uuid, and its VXLAN device; absent is fine.

        One in use by a domain raises ConflictError. A bridge of the host's own stays as it is.
        """

    def network_states(self, plans: Sequence[NetworkPlan], *, thorough: bool = False) -> list[NetworkState]:
        """Return what the kernel says of segments, in their order, by one look; a `thorough` one asks the gateways.

        Of a host whose kernel cannot be asked (no right to, no ssh), UnreachableError says why.
        """

    def network_obstacles(self, plans: Sequence[NetworkPlan]) -> list[Obstacle]:
        """Return what stands in the way of networks on the host: forwarding, firewalls, modules, programs."""

    def underlay_mtu(self, local: str, device: str = "") -> int:
        """Return the MTU of a device, by its name or the address that it has; RefusedError where there is none."""

    def ensure_guards(self, owner: str, uid: str, guards: Sequence[PortGuard]) -> None:
        """Have the guards of a VM's NICs be these and no others, whether or not their devices are there yet.

        `owner` is the store's identity, whose guards alone are looked at; () removes what there is. What a host cannot
        do raises FailedError with a hint.
        """

    def guard_drops(self, owner: str, uid: str) -> list[PortDrops]:
        """Return what the guards of a VM's NICs have dropped; a NIC that has none is left out."""

    def ensure_no_guards(self, owner: str, keep: Sequence[str]) -> None:
        """Remove the guards of an owner's VMs but of those with the uids in `keep`."""

    def release_lease(self, network: str, mac: str) -> None:
        """Have the DHCP server forget the leases of `mac`, as far as the host allows; want of means is no error."""

    # --- volumes, all in the pool that the hypervisor was opened with
    def ensure_pool(self) -> None:
        """Make and start the pool; a `dir` pool where there is none of that name."""

    def free_bytes(self) -> int:
        """Return what is free in the pool."""

    def find_volume(self, name: str) -> Volume | None:
        """Return one volume, or None; one that is not whole is as good as none."""

    def list_volumes(self, prefix: str = "") -> list[Volume]:
        """Return the pool's volumes whose names begin with `prefix`, after a refresh; those too that are not whole."""

    def ensure_overlay(self, name: str, *, base: str, base_format: str, capacity_bytes: int) -> Volume:
        """Make a qcow2 volume over another volume; an existing one of that name is returned."""

    def ensure_blank(self, name: str, capacity_bytes: int) -> Volume:
        """Make an empty qcow2 volume; an existing one of that name is returned."""

    def ensure_capacity(self, name: str, capacity_bytes: int) -> Volume:
        """Grow a volume that no running domain has open (else ConflictError); a larger one stays as it is."""

    def ensure_copy(self, name: str, source: str, *, report: Callable[[int, int], None] | None = None) -> Volume:
        """Copy a volume, with the same volume below it; one of that name that is whole is returned.

        The source may be a disk of a domain that runs: then it is as a power cut at one moment would leave it, with
        the guest's file systems frozen for that moment where its agent answers. `report` gets (done, total) in bytes
        and may raise to give up, which removes the copy again. No room: FailedError.
        """

    def upload(
        self,
        name: str,
        source: BinaryIO,
        size_bytes: int,
        *,
        volume_format: str = "raw",
        report: Callable[[int], None] | None = None,
    ) -> Volume:
        """Write a volume whole from `source` (seekable; holes stay holes), replacing one of that name.

        `report` gets the bytes done and may raise to give up, which removes the volume again. No room: FailedError.
        Where another process uploads the same name, this one waits, and takes its volume if the size is the same.
        """

    def read_volume(self, name: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a volume (negative `offset`: from the end; `length` 0: to the end); absent gives b""."""

    def read_log(self, name: str, limit_bytes: int) -> bytes:
        """Return the last bytes of a plan's console log, across the files that it has been rotated into."""

    def ensure_volume_gone(self, name: str) -> None:
        """Delete a volume; absent is fine; one that `volume_users` has users of raises ConflictError."""

    def volume_users(self, name: str) -> list[str]:
        """Return the names of the host's domains that use a volume, also as the base of their disk.

        An overlay of it that no domain has (one that is just being made, or was kept) is told as `volume NAME`.
        """
