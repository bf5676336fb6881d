"""The real hypervisor: libvirt's parts put together behind the protocol."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from backend.errors import FailedError
from backend.hypervisor.host_networks import HostNetworks
from backend.hypervisor.host_parts import Part
from backend.hypervisor.plan import (
    Address,
    Difference,
    DomainOwner,
    DomainPlan,
    FoundDomain,
    HostFacts,
    ObservedDomain,
    Snapshot,
    Volume,
)
from backend.hypervisor.protocol import Hint, Hypervisor
from backend.model.samples import Sample
from backend.service import ConsoleStream

if TYPE_CHECKING:
    from backend.hypervisor.accelerator import Accelerators
    from backend.hypervisor.domains import Domains
    from backend.hypervisor.facts import HostCache
    from backend.hypervisor.snapshots import Snapshots
    from backend.hypervisor.subscription import Subscriptions
    from backend.hypervisor.volumes import Volumes

# ruff: noqa: PLC0415 - a list of VMs needs few of the parts, and each is imported by who needs it first


def open_hypervisor(uri: str, pool: str, cache: Path) -> Hypervisor:
    """Return the hypervisor at a libvirt URI; empty: `qemu:///system` where it can be opened, else `qemu:///session`.

    Nothing is asked of libvirt before the first call. Raises FailedError where libvirt's Python bindings are missing.
    """
    if find_spec("libvirt") is None:
        raise FailedError(
            "libvirt", "its Python bindings are not installed", "`pip install 'kc-tui[libvirt]'`, or use a remote KC"
        )
    return LibvirtHost(uri, pool, cache)


class LibvirtHost(HostNetworks):
    """One libvirt host; each method is as the protocol says."""

    @Part
    def _domains(self) -> Domains:
        from backend.hypervisor.domains import Domains

        return Domains(self._link)

    @Part
    def _volumes(self) -> Volumes:
        from backend.hypervisor.volumes import Volumes

        return Volumes(self._link, self._pool)

    @Part
    def _subscriptions(self) -> Subscriptions:
        from backend.hypervisor.subscription import Subscriptions

        return Subscriptions(self._link)

    @Part
    def _cache(self) -> HostCache:
        from backend.hypervisor.facts import HostCache

        return HostCache(self._cache_folder)

    @Part
    def _accelerators(self) -> Accelerators:
        from backend.hypervisor.accelerator import Accelerators

        return Accelerators(self._link, self._cache)

    # --- host
    @property
    def uri(self) -> str:
        """The libvirt URI in use; before the first call, the one that will be tried first."""
        return self._link.uri

    def facts(self) -> HostFacts:
        """Return versions, size and abilities."""
        from backend.hypervisor.domain_xml import ARCHITECTURES
        from backend.hypervisor.facts import format_version, read_capabilities

        found = read_capabilities(self._link, self._cache)
        verdict = self._accelerators.look(found.arch)
        return HostFacts(
            uri=self.uri,
            hostname=found.hostname,
            libvirt_version=format_version(found.libvirt_version),
            qemu_version=format_version(found.qemu_version),
            memory_mib=found.memory_mib,
            cpus=found.cpus,
            arch=found.arch,
            guest_archs=tuple(arch for arch in found.guest_archs if arch in ARCHITECTURES),
            kvm_listed=found.arch in found.kvm_archs,
            kvm_usable=None if verdict is None else verdict.accelerator == "kvm",
            kvm_reason="" if verdict is None else verdict.reason,
        )

    def accelerator(self, arch: str, probe_volume: str = "") -> str:
        """Return `kvm` where it is proven to work, else `qemu`."""
        find_source = (lambda: self._volumes.find_source(probe_volume)) if probe_volume else None
        return self._accelerators.choose(arch, find_source).accelerator

    def subscribe(self, hint: Hint) -> Callable[[], None]:
        """Call `hint` for each event until the returned function is called."""
        return self._subscriptions.add(hint)

    def close(self) -> None:
        """Let go of the connections."""
        if "_subscriptions" in self.parts:
            self._subscriptions.close()
        if "_link" in self.parts:
            self._link.close()

    # --- domains
    def inventory(self) -> list[ObservedDomain]:
        """Return every domain of the host."""
        from backend.hypervisor.states import list_domains

        return list_domains(self._link)

    def samples(self) -> list[Sample]:
        """Return the counters of all domains."""
        from backend.hypervisor.states import take_samples

        return take_samples(self._link)

    def observe(self, uid: str) -> ObservedDomain | None:
        """Return one domain, or None."""
        return self._domains.observe(uid)

    def find_domain(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""
        return self._domains.find_by_name(name)

    def owner_of(self, uid: str) -> DomainOwner:
        """Return who made a domain."""
        return self._domains.owner_of(uid)

    def ensure_defined(self, plan: DomainPlan) -> None:
        """Define the domain."""
        if plan.adopted:
            from backend.hypervisor.adoption import redefine

            redefine(self._link, self._domains, plan)
            return
        self._domains.ensure_defined(plan, self._volumes.place(plan), self._accelerators.choose_cpu(plan))

    def apply_live(self, plan: DomainPlan) -> tuple[str, ...]:
        """Bring a domain that is on near to the plan; return what waits for its next start."""
        observed = self._domains.observe(plan.uid)
        if observed is None or observed.power in ("stopped", "crashed"):
            return ()
        from backend.hypervisor.live import LiveChange

        return LiveChange(self._link, self._domains, plan, self._volumes.place(plan)).apply()

    def differences(self, plan: DomainPlan) -> tuple[Difference, ...]:
        """Return where the persistent definition is not what a plan says."""
        from backend.hypervisor.drift import find_drift

        return find_drift(self._link, self._domains, plan, self._volumes.place(plan))

    def find_adoptable(self, name: str) -> FoundDomain | None:
        """Return what KC could manage of a domain."""
        from backend.hypervisor.adoption import find_adoptable

        return find_adoptable(self._link, name)

    def adopt(self, uid: str, plan: DomainPlan) -> None:
        """Put KC's label on a domain that has none."""
        from backend.hypervisor.adoption import adopt

        adopt(self._link, self._domains, uid, plan)

    def disown(self, uid: str, owner: str) -> None:
        """Take KC's label off a domain."""
        from backend.hypervisor.adoption import disown

        disown(self._link, self._domains, uid, owner)

    def ensure_running(self, uid: str) -> None:
        """Start the domain unless it runs."""
        self._domains.ensure_running(uid)

    def ensure_paused(self, uid: str) -> None:
        """Have a domain that is on stand still."""
        self._domains.ensure_paused(uid)

    def ensure_stopped(self, uid: str, *, grace_seconds: float, force: bool) -> bool:
        """Stop the domain; True when it is off."""
        return self._domains.ensure_stopped(uid, grace_seconds=grace_seconds, force=force)

    def reboot(self, uid: str, *, force: bool) -> None:
        """Reboot a running domain."""
        self._domains.reboot(uid, force=force)

    def ensure_undefined(self, uid: str, owner: str) -> None:
        """Remove the domain."""
        self._domains.ensure_undefined(uid, owner)

    def console(self, uid: str) -> ConsoleStream:
        """Open the serial console."""
        from backend.hypervisor.console import open_console

        return open_console(self._link, self._domains, uid)

    def display(self, uid: str) -> ConsoleStream:
        """Open a domain's screen."""
        from backend.hypervisor.display import open_display

        return open_display(self._link, self._domains, uid)

    def display_address(self, uid: str) -> str:
        """Return where a domain's screen is."""
        from backend.hypervisor.display import find_address

        return find_address(self._link, self._domains, uid)

    def screenshot(self, uid: str) -> bytes:
        """Return a picture of a domain's screen as PNG."""
        from backend.hypervisor.display import take_picture

        return take_picture(self._link, self._domains, uid)

    def agent_answers(self, uid: str) -> bool:
        """Return whether the guest agent answers."""
        from backend.hypervisor.guest import answers

        return answers(self._link, self._domains, uid)

    def addresses(self, uid: str) -> list[Address]:
        """Return a guest's addresses."""
        from backend.hypervisor.guest import find_addresses

        return find_addresses(self._link, self._domains, uid)

    # --- snapshots
    @Part
    def _snapshots(self) -> Snapshots:
        from backend.hypervisor.snapshots import Snapshots

        return Snapshots(self._link, self._domains, self._volumes)

    def list_snapshots(self, uid: str) -> list[Snapshot]:
        """Return a domain's snapshots."""
        return self._snapshots.list_all(uid)

    def take_snapshot(self, uid: str, name: str, description: str = "") -> Snapshot:
        """Take a snapshot of a domain."""
        return self._snapshots.take(uid, name, description)

    def restore_snapshot(self, uid: str, name: str) -> None:
        """Bring a domain back to a snapshot."""
        self._snapshots.restore(uid, name)

    def ensure_snapshot_gone(self, uid: str, name: str) -> None:
        """Remove a snapshot."""
        self._snapshots.ensure_gone(uid, name)

    # --- volumes
    def ensure_pool(self) -> None:
        """Make and start the pool."""
        from backend.hypervisor.pools import ensure_pool

        ensure_pool(self._link, self._pool)

    def free_bytes(self) -> int:
        """Return what is free in the pool."""
        return self._volumes.free_bytes()

    def find_volume(self, name: str) -> Volume | None:
        """Return one volume, or None."""
        return self._volumes.find(name)

    def list_volumes(self, prefix: str = "") -> list[Volume]:
        """Return the pool's volumes."""
        return self._volumes.list_all(prefix)

    def ensure_overlay(self, name: str, *, base: str, base_format: str, capacity_bytes: int) -> Volume:
        """Make a qcow2 volume over another."""
        return self._volumes.ensure_overlay(name, base=base, base_format=base_format, capacity_bytes=capacity_bytes)

    def ensure_blank(self, name: str, capacity_bytes: int) -> Volume:
        """Make an empty qcow2 volume."""
        return self._volumes.ensure_blank(name, capacity_bytes)

    def ensure_capacity(self, name: str, capacity_bytes: int) -> Volume:
        """Grow a volume that no running domain has open."""
        return self._volumes.ensure_capacity(name, capacity_bytes)

    def ensure_copy(self, name: str, source: str, *, report: Callable[[int, int], None] | None = None) -> Volume:
        """Copy a volume, also one that a running domain has open."""
        from backend.hypervisor.copying import copy_volume

        return copy_volume(self._link, self._domains, self._volumes, name, source, report)

    def upload(
        self,
        name: str,
        source: BinaryIO,
        size_bytes: int,
        *,
        volume_format: str = "raw",
        report: Callable[[int], None] | None = None,
    ) -> Volume:
        """Write a volume whole."""
        from backend.hypervisor.upload import upload_volume

        return upload_volume(self._link, self._pool, name, source, size_bytes, volume_format, report)

    def read_volume(self, name: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a volume."""
        return self._volumes.read(name, offset, length)

    def read_log(self, name: str, limit_bytes: int) -> bytes:
        """Return the last bytes of a console's log."""
        return self._volumes.read_log(name, limit_bytes)

    def ensure_volume_gone(self, name: str) -> None:
        """Delete a volume."""
        self._volumes.ensure_gone(name)

    def volume_users(self, name: str) -> list[str]:
        """Return who uses a volume."""
        return self._volumes.users(name)
