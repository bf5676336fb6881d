"""A hypervisor that is only in memory: the same protocol at once and without a host.

Screens are driven by it in tests and pictures, and lists of ten thousand VMs measured. It proves nothing about
libvirt; the conformance suite holds it to what the real one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import BinaryIO

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError
from backend.hypervisor.memory_guest import MemoryConsole, MemoryDomain
from backend.hypervisor.memory_networks import MemoryNetworks
from backend.hypervisor.plan import (
    Address,
    DomainOwner,
    DomainPlan,
    HostFacts,
    ObservedDomain,
    Sample,
    Volume,
)
from backend.hypervisor.protocol import Hint

__all__ = ["MemoryConsole", "MemoryDomain", "MemoryHypervisor", "fail_with"]

CHUNK_BYTES = 1 << 20
OVERLAY_BYTES = 196_608


class MemoryHypervisor(MemoryNetworks):
    """One host in memory.

    `fail` may be set to a function that is called with each call's name and raises what is to go wrong. `boot_text` is
    what a started guest says on its console; `boots` says whether a started guest gets its addresses and its agent, and
    hears the power button. `domains`, `networks` and `volumes` may be changed from outside.
    """

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        super().__init__()
        self.uri = "memory:///"
        self.volumes: dict[str, tuple[Volume, bytes]] = {}
        self.capacity_bytes = capacity_bytes
        self.boot_text = b"KC starter: up\r\n# "
        self.boots = True
        self._bases: dict[str, str] = {}

    def _domain(self, uid: str) -> MemoryDomain:
        try:
            return self.domains[uid]
        except KeyError:
            raise NotFoundError(f"domain {uid}", "the host has no such domain") from None

    # --- host
    def facts(self) -> HostFacts:
        """Return made-up but constant facts."""
        self._enter("facts")
        return HostFacts(
            uri=self.uri, hostname="memory", libvirt_version="9.0.0", qemu_version="7.2.0", memory_mib=32768, cpus=8,
            arch="x86_64", guest_archs=("x86_64",), kvm_listed=False, kvm_usable=False, kvm_reason="it is in memory",
        )  # fmt: skip

    def accelerator(self, arch: str, probe_volume: str = "") -> str:
        """Return `qemu`."""
        self._enter("accelerator")
        del arch, probe_volume
        return "qemu"

    def subscribe(self, hint: Hint) -> Callable[[], None]:
        """Call `hint` for each event."""
        self._enter("subscribe")
        self._hints.append(hint)

        def unsubscribe() -> None:
            if hint in self._hints:
                self._hints.remove(hint)

        return unsubscribe

    def close(self) -> None:
        """Forget who listens; the host stays."""
        self._hints.clear()

    # --- domains
    def inventory(self) -> list[ObservedDomain]:
        """Return every domain."""
        self._enter("inventory")
        with self._guard:
            return [domain.observe() for domain in self.domains.values()]

    def observe(self, uid: str) -> ObservedDomain | None:
        """Return one domain, or None."""
        self._enter("observe")
        domain = self.domains.get(uid)
        return None if domain is None else domain.observe()

    def find_domain(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""
        self._enter("find_domain")
        with self._guard:
            return next((domain.observe() for domain in self.domains.values() if domain.name == name), None)

    def owner_of(self, uid: str) -> DomainOwner:
        """Return who made a domain."""
        self._enter("owner_of")
        plan = self._domain(uid).now()
        return DomainOwner() if plan is None else DomainOwner(plan.owner, plan.owner_label, plan.version)

    def ensure_defined(self, plan: DomainPlan) -> None:
        """Define the domain."""
        self._enter("ensure_defined")
        with self._guard:
            self._check_volumes(plan)
            domain = self.domains.get(plan.uid)
            if domain is not None:
                domain.check_owner(plan.owner)
            for other in self.domains.values():
                if other.name == plan.name and other.uid != plan.uid:
                    why = f"the name is taken by a domain of this host that {other.describe_owner()}"
                    raise ConflictError(f"VM {plan.name}", why, "choose another name")
            if domain is None:
                self.domains[plan.uid] = MemoryDomain(plan.uid, plan.name, plan)
            else:
                domain.define(plan)
        self._tell("domain", plan.uid)

    def apply_live(self, plan: DomainPlan) -> tuple[str, ...]:
        """Bring a domain that is on near to the plan; a guest that has booted has addresses on new NICs at once."""
        self._enter("apply_live")
        with self._guard:
            domain = self.domains.get(plan.uid)
            if domain is None or not domain.is_on:
                return ()
            domain.check_owner(plan.owner)
            present = {(nic.mac, nic.network) for nic in (domain.now() or plan).nics}
            for nic in plan.nics:
                if (nic.mac, nic.network) not in present and nic.network and nic.network not in self.networks:
                    raise NotFoundError(f"network {nic.network}", "the host has no such libvirt network")
            waiting = domain.apply(plan)
            if domain.agent:
                known = {address.mac: address for address in domain.addresses}
                domain.addresses = []
                for nic in plan.nics:
                    domain.addresses.append(known.get(nic.mac) or self._give_address(nic.mac))
        self._tell("domain", plan.uid)
        return waiting

    def _give_address(self, mac: str) -> Address:
        taken = {address.address for domain in self.domains.values() for address in domain.addresses}
        numbers = range(len(self.domains), len(self.domains) + 25_000)
        free = (f"192.168.{150 + number // 250 % 100}.{2 + number % 250}" for number in numbers)
        return Address(next(address for address in free if address not in taken), 24, "ipv4", mac, "lease")

    def _check_volumes(self, plan: DomainPlan) -> None:
        for name in (plan.seed, *(name for disk in plan.disks for name in (disk.volume, disk.base_volume))):
            if name and name not in self.volumes:
                raise NotFoundError(f"volume {name}", "it is not in the pool")
        for disk in plan.disks:
            if disk.base_volume and self._bases.get(disk.volume, disk.base_volume) != disk.base_volume:
                raise FailedError(f"volume {disk.volume}", f"it is no overlay of {disk.base_volume}")

    def ensure_running(self, uid: str) -> None:
        """Start the domain; with `boots`, it has its addresses and its agent at once."""
        self._enter("ensure_running")
        with self._guard:
            domain = self._domain(uid)
            if domain.power == "running":
                return
            was_paused = domain.power == "paused"
            domain.power, domain.reason = "running", ""
            if domain.plan is not None and not was_paused:
                domain.live, domain.name = domain.plan, domain.plan.name
                self._boot(domain, domain.plan)
        self._tell("domain", uid)

    def _boot(self, domain: MemoryDomain, plan: DomainPlan) -> None:
        self.say(domain.uid, self.boot_text)
        if self.boots:
            domain.agent, domain.addresses = True, []
            for nic in plan.nics:
                domain.addresses.append(self._give_address(nic.mac))

    def say(self, uid: str, text: bytes) -> None:
        """Have a guest say something on its console."""
        with self._guard:
            domain = self._domain(uid)
            if domain.plan is not None and domain.plan.console_log:
                name = domain.plan.console_log
                text_before = self.volumes[name][1] if name in self.volumes else b""
                size = len(text_before) + len(text)
                self.volumes[name] = (Volume(name, f"/memory/{name}", "raw", size, size), text_before + text)
            if domain.console is not None:
                domain.console.say(text)

    def ensure_stopped(self, uid: str, *, grace_seconds: float, force: bool) -> bool:
        """Stop the domain; a guest that has booted obeys at once."""
        self._enter("ensure_stopped")
        domain = self.domains.get(uid)
        if domain is None or domain.power == "stopped":
            return True
        if not force and (grace_seconds <= 0 or not domain.agent):
            return False
        self.set_power(uid, "stopped")
        return True

    def set_power(self, uid: str, power: str, reason: str = "") -> None:
        """Put a domain into a state, as its guest or another tool would."""
        with self._guard:
            domain = self._domain(uid)
            domain.power, domain.reason = power, reason
            if power != "running":
                domain.agent, domain.addresses = False, []
            if power in ("stopped", "crashed"):
                domain.live = None
                domain.end_console()
        self._tell("domain", uid)

    def reboot(self, uid: str, *, force: bool) -> None:
        """Reboot a running domain; a guest that has not booted hears only force."""
        self._enter("reboot")
        domain = self._domain(uid)
        if domain.power != "running":
            raise ConflictError(f"VM {domain.name}", "it does not run", "start it instead")
        if domain.agent or force:
            self.say(uid, self.boot_text)
        self._tell("domain", uid)

    def ensure_undefined(self, uid: str, owner: str) -> None:
        """Remove the domain."""
        self._enter("ensure_undefined")
        with self._guard:
            domain = self.domains.get(uid)
            if domain is None:
                return
            domain.check_owner(owner)
            if domain.power != "stopped":
                raise ConflictError(f"VM {domain.name}", "it still runs", "stop it first")
            del self.domains[uid]
        self._tell("domain", uid)

    def console(self, uid: str) -> MemoryConsole:
        """Open the console, which echoes; what was said before is in the log."""
        self._enter("console")
        with self._guard:
            domain = self._domain(uid)
            if domain.power not in ("running", "paused"):
                raise ConflictError(f"VM {domain.name}", "it is off and has no console", "start it first")
            domain.end_console()
            domain.console = MemoryConsole(typed=lambda data: self.say(uid, data.replace(b"\r", b"\r\n# ")))
            return domain.console

    def agent_answers(self, uid: str) -> bool:
        """Return whether the guest has booted."""
        self._enter("agent_answers")
        return self._domain(uid).agent

    def addresses(self, uid: str) -> list[Address]:
        """Return a guest's addresses."""
        self._enter("addresses")
        return list(self._domain(uid).addresses)

    def leases(self, networks: list[str]) -> list[Address]:
        """Return the addresses of the guests on these networks; a guest without NICs counts for all."""
        self._enter("leases")
        with self._guard:
            return [
                address
                for domain in self.domains.values()
                for address in domain.addresses
                if networks and (not domain.networks() or domain.networks() & set(networks))
            ]

    def samples(self) -> list[Sample]:
        """Return counters that grow with time."""
        self._enter("samples")
        now = time.monotonic()
        with self._guard:
            return [_sample(domain, now) for domain in self.domains.values()]

    # --- volumes
    def ensure_pool(self) -> None:
        """Do nothing: there is one pool."""
        self._enter("ensure_pool")

    def free_bytes(self) -> int:
        """Return what is left of the capacity."""
        self._enter("free_bytes")
        return self.capacity_bytes - sum(len(data) for _, data in self.volumes.values())

    def find_volume(self, name: str) -> Volume | None:
        """Return one volume, or None."""
        self._enter("find_volume")
        found = self.volumes.get(name)
        return found[0] if found is not None and found[0].whole else None

    def list_volumes(self, prefix: str = "") -> list[Volume]:
        """Return the volumes whose names begin with `prefix`."""
        self._enter("list_volumes")
        with self._guard:
            return [volume for name, (volume, _) in sorted(self.volumes.items()) if name.startswith(prefix)]

    def ensure_overlay(self, name: str, *, base: str, base_format: str, capacity_bytes: int) -> Volume:
        """Make a volume over another."""
        self._enter("ensure_overlay")
        with self._guard:
            if name not in self.volumes:
                if base not in self.volumes:
                    raise NotFoundError(f"volume {base}", "it is not in the pool", "upload the image again")
                if base_format == "raw" and capacity_bytes < self.volumes[base][0].capacity_bytes:
                    raise RefusedError(f"volume {name}", "the disk is smaller than its image", "give it more room")
                volume = Volume(name, f"/memory/{name}", "qcow2", capacity_bytes, OVERLAY_BYTES)
                self.volumes[name] = (volume, b"")
                self._bases[name] = base
            return self.volumes[name][0]

    def upload(
        self,
        name: str,
        source: BinaryIO,
        size_bytes: int,
        *,
        volume_format: str = "raw",
        report: Callable[[int], None] | None = None,
    ) -> Volume:
        """Keep the bytes."""
        self._enter("upload")
        self.volumes.pop(name, None)
        data = bytearray()
        source.seek(0)
        while len(data) < size_bytes:
            chunk = source.read(min(CHUNK_BYTES, size_bytes - len(data)))
            if not chunk:
                raise FailedError(f"volume {name}", "the source ended too early", "has it changed? try again")
            data += chunk
            if self.free_bytes() < len(data):
                raise FailedError(f"volume {name}", "no room in the pool", "make room")
            if report is not None:
                report(len(data))
        volume = Volume(name, f"/memory/{name}", volume_format, size_bytes, size_bytes)
        self.volumes[name] = (volume, bytes(data))
        return volume

    def read_volume(self, name: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a volume."""
        self._enter("read_volume")
        if name not in self.volumes:
            return b""
        data = self.volumes[name][1]
        start = max(0, len(data) + offset) if offset < 0 else offset
        return data[start : start + length] if length else data[start:]

    def read_log(self, name: str, limit_bytes: int) -> bytes:
        """Return the last bytes of a console's log, which is never rotated here."""
        self._enter("read_log")
        return self.volumes[name][1][-limit_bytes:] if name in self.volumes and limit_bytes > 0 else b""

    def ensure_volume_gone(self, name: str) -> None:
        """Delete a volume that nobody uses."""
        self._enter("ensure_volume_gone")
        with self._guard:
            users = self.volume_users(name)
            if users:
                raise ConflictError(f"volume {name}", f"in use by {', '.join(users)}", "delete what uses it first")
            self.volumes.pop(name, None)
            self._bases.pop(name, None)

    def volume_users(self, name: str) -> list[str]:
        """Return the domains that use a volume, and the overlays of it that no domain has."""
        self._enter("volume_users")
        with self._guard:
            users, served = [], set()
            for domain in self.domains.values():
                chains = {below for volume in domain.volumes() for below in self._chain(volume)}
                bases = {disk.base_volume for disk in domain.plan.disks} if domain.plan is not None else set()
                if name in chains | bases:
                    users.append(domain.name)
                    served |= chains
            overlays = [overlay for overlay, base in self._bases.items() if base == name and overlay not in served]
            return [*users, *(f"volume {overlay}" for overlay in overlays)]

    def _chain(self, volume: str) -> list[str]:
        chain = [volume]
        while chain[-1] in self._bases:
            chain.append(self._bases[chain[-1]])
        return chain


def fail_with(error: KCError, *calls: str) -> Callable[[str], None]:
    """Return a `fail` that raises `error` in the named calls, or in all where none is named."""

    def fail(call: str) -> None:
        if not calls or call in calls:
            raise error

    return fail


def _sample(domain: MemoryDomain, now: float) -> Sample:
    plan = domain.now()
    memory = (plan.memory_mib if plan is not None else 512) << 20
    is_on = domain.power == "running"
    return Sample(
        uid=domain.uid, at=now, power=domain.power, cpus=plan.cpus if plan is not None else 1,
        cpu_time_ns=int(now * 1e8) if is_on else 0, memory_bytes=memory, memory_used_bytes=memory // 4 if is_on else 0,
    )  # fmt: skip
