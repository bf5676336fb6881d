"""A hypervisor that is only in memory: the same protocol at once and without a host.

Screens are driven by it in tests and pictures, and lists of ten thousand VMs measured. It proves nothing about
libvirt; the conformance suite holds it to what the real one does.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from backend.errors import ConflictError, KCError, NotFoundError
from backend.hypervisor.plan import (
    Address,
    DomainOwner,
    DomainPlan,
    HostFacts,
    NetworkPlan,
    ObservedDomain,
    ObservedNetwork,
    Sample,
    Volume,
)
from backend.hypervisor.protocol import Hint

CHUNK_BYTES = 1 << 20


@dataclass
class MemoryDomain:
    """A domain: what it was defined as (None for a foreign one), and how it is."""

    uid: str
    name: str
    plan: DomainPlan | None
    power: str = "stopped"
    reason: str = ""
    addresses: list[Address] = field(default_factory=list)
    agent: bool = False


class MemoryConsole:
    """A console that says its script, then echoes what is typed."""

    def __init__(self, script: bytes) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue()
        self._open = True
        if script:
            self._queue.put(script)

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes; see `backend.service.ConsoleStream`."""
        if not self._open and self._queue.empty():
            return b""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def write(self, data: bytes) -> None:
        """Echo keys, a carriage return as a new line."""
        self._queue.put(data.replace(b"\r", b"\r\n# "))

    def close(self) -> None:
        """End the stream."""
        self._open = False
        self._queue.put(b"")


class MemoryHypervisor:
    """One host in memory.

    `fail` may be set to a function that is called with each call's name and raises what is to go wrong. `boot_text` is
    what a started guest says on its console; `boots` says whether a started guest gets its addresses and its agent.
    """

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self.uri = "memory:///"
        self.domains: dict[str, MemoryDomain] = {}
        self.networks: dict[str, ObservedNetwork] = {}
        self.volumes: dict[str, tuple[Volume, bytes]] = {}
        self.capacity_bytes = capacity_bytes
        self.fail: Callable[[str], None] = lambda _call: None
        self.boot_text = b"KC starter: up\r\n# "
        self.boots = True
        self._hints: list[Hint] = []
        self._guard = threading.RLock()

    def _enter(self, call: str) -> None:
        self.fail(call)

    def _tell(self, kind: str, uid: str) -> None:
        for hint in list(self._hints):
            hint(kind, uid)

    def _domain(self, uid: str) -> MemoryDomain:
        try:
            return self.domains[uid]
        except KeyError:
            raise NotFoundError(f"domain {uid}", "no such domain") from None

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
            return [_observe(domain) for domain in self.domains.values()]

    def observe(self, uid: str) -> ObservedDomain | None:
        """Return one domain, or None."""
        self._enter("observe")
        domain = self.domains.get(uid)
        return None if domain is None else _observe(domain)

    def find_domain(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""
        self._enter("find_domain")
        with self._guard:
            return next((_observe(domain) for domain in self.domains.values() if domain.name == name), None)

    def owner_of(self, uid: str) -> DomainOwner:
        """Return who made a domain."""
        self._enter("owner_of")
        plan = self._domain(uid).plan
        return DomainOwner() if plan is None else DomainOwner(plan.owner, plan.owner_label, plan.version)

    def ensure_defined(self, plan: DomainPlan) -> None:
        """Define the domain."""
        self._enter("ensure_defined")
        with self._guard:
            other = self.find_domain(plan.name)
            if other is not None and other.uid != plan.uid:
                label = self.owner_of(other.uid).label or "no KC"
                raise ConflictError(f"domain {plan.name}", f"the name belongs to a domain of {label}")
            domain = self.domains.get(plan.uid)
            if domain is None:
                self.domains[plan.uid] = MemoryDomain(plan.uid, plan.name, plan)
            elif domain.plan is None or domain.plan.owner != plan.owner:
                raise ConflictError(f"domain {plan.name}", "it belongs to another KC")
            else:
                domain.plan, domain.name = plan, plan.name
        self._tell("domain", plan.uid)

    def ensure_running(self, uid: str) -> None:
        """Start the domain; with `boots`, it has its addresses and its agent at once."""
        self._enter("ensure_running")
        with self._guard:
            domain = self._domain(uid)
            if domain.power == "running":
                return
            domain.power = "running"
            if domain.plan is not None:
                name = domain.plan.console_log
                self.volumes[name] = (Volume(name, f"/memory/{name}", "raw", 0, 0), self.boot_text)
                if self.boots:
                    domain.agent = True
                    domain.addresses = [
                        Address(f"192.168.150.{2 + len(self.domains) % 250}", 24, "ipv4", nic.mac, "lease")
                        for nic in domain.plan.nics
                    ]
        self._tell("domain", uid)

    def ensure_stopped(self, uid: str, *, grace_seconds: float, force: bool) -> bool:
        """Stop the domain; a guest that has booted obeys at once."""
        self._enter("ensure_stopped")
        del grace_seconds
        domain = self.domains.get(uid)
        if domain is None or domain.power == "stopped":
            return True
        if not force and not domain.agent:
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
        self._tell("domain", uid)

    def reboot(self, uid: str, *, force: bool) -> None:
        """Reboot a running domain."""
        self._enter("reboot")
        del force
        if self._domain(uid).power != "running":
            raise ConflictError(f"domain {uid}", "it does not run")
        self._tell("domain", uid)

    def ensure_undefined(self, uid: str, owner: str) -> None:
        """Remove the domain."""
        self._enter("ensure_undefined")
        with self._guard:
            domain = self.domains.get(uid)
            if domain is None:
                return
            if domain.plan is None or domain.plan.owner != owner:
                raise ConflictError(f"domain {domain.name}", "it belongs to another KC, or to none")
            del self.domains[uid]
        self._tell("domain", uid)

    def console(self, uid: str) -> MemoryConsole:
        """Open the console; what was said before is in the log."""
        self._enter("console")
        if self._domain(uid).power != "running":
            raise ConflictError(f"domain {uid}", "it does not run")
        return MemoryConsole(b"")

    def agent_answers(self, uid: str) -> bool:
        """Return whether the guest has booted."""
        self._enter("agent_answers")
        domain = self.domains.get(uid)
        return domain is not None and domain.agent

    def addresses(self, uid: str) -> list[Address]:
        """Return a guest's addresses."""
        self._enter("addresses")
        domain = self.domains.get(uid)
        return [] if domain is None else list(domain.addresses)

    def leases(self, networks: list[str]) -> list[Address]:
        """Return the addresses of every guest."""
        self._enter("leases")
        del networks
        with self._guard:
            return [address for domain in self.domains.values() for address in domain.addresses]

    def samples(self) -> list[Sample]:
        """Return counters that grow with time."""
        self._enter("samples")
        now = time.monotonic()
        with self._guard:
            return [
                Sample(
                    uid=domain.uid, at=now, power=domain.power, cpus=domain.plan.cpus if domain.plan else 1,
                    cpu_time_ns=int(now * 1e8), memory_bytes=(domain.plan.memory_mib if domain.plan else 512) << 20,
                    memory_used_bytes=128 << 20,
                )
                for domain in self.domains.values()
            ]  # fmt: skip

    # --- networks
    def list_networks(self) -> list[ObservedNetwork]:
        """Return every network."""
        self._enter("list_networks")
        return list(self.networks.values())

    def ensure_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Define and start the network."""
        self._enter("ensure_network")
        found = self.networks.get(plan.name)
        if found is None:
            found = ObservedNetwork(
                plan.name, plan.uid, active=True, bridge=plan.bridge or plan.name[:15], uplink=plan.uplink,
                ipv4_subnet=plan.ipv4_subnet, ipv6_subnet=plan.ipv6_subnet, ipv4_mode=plan.ipv4_mode,
                ipv6_mode=plan.ipv6_mode,
            )  # fmt: skip
        self.networks[plan.name] = found._replace(active=True)
        self._tell("network", plan.name)
        return self.networks[plan.name]

    def ensure_network_started(self, name: str) -> ObservedNetwork:
        """Start an existing network."""
        self._enter("ensure_network_started")
        if name not in self.networks:
            raise NotFoundError(f"network {name}", "no such network")
        self.networks[name] = self.networks[name]._replace(active=True)
        return self.networks[name]

    def ensure_network_gone(self, name: str, uid: str) -> None:
        """Remove a network that no domain uses."""
        self._enter("ensure_network_gone")
        found = self.networks.get(name)
        if found is None or found.uid != uid:
            return
        users = [
            domain.name
            for domain in self.domains.values()
            if domain.plan is not None and any(nic.network == name for nic in domain.plan.nics)
        ]
        if users:
            raise ConflictError(f"network {name}", f"in use by {', '.join(users)}")
        del self.networks[name]
        self._tell("network", name)

    def release_lease(self, network: str, mac: str) -> None:
        """Do nothing: leases go with their guests."""
        self._enter("release_lease")
        del network, mac

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
        return None if found is None else found[0]

    def list_volumes(self, prefix: str = "") -> list[Volume]:
        """Return the volumes whose names begin with `prefix`."""
        self._enter("list_volumes")
        with self._guard:
            return [volume for name, (volume, _) in self.volumes.items() if name.startswith(prefix)]

    def ensure_overlay(self, name: str, *, base: str, base_format: str, capacity_bytes: int) -> Volume:
        """Make a volume over another."""
        self._enter("ensure_overlay")
        del base_format
        if base not in self.volumes:
            raise NotFoundError(f"volume {base}", "no such volume")
        if name not in self.volumes:
            self.volumes[name] = (Volume(name, f"/memory/{name}", "qcow2", capacity_bytes, 196608), b"")
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
        data = io.BytesIO()
        while chunk := source.read(CHUNK_BYTES):
            data.write(chunk)
            if report is not None:
                report(data.tell())
        volume = Volume(name, f"/memory/{name}", volume_format, size_bytes, size_bytes)
        self.volumes[name] = (volume, data.getvalue())
        return volume

    def read_volume(self, name: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a volume."""
        self._enter("read_volume")
        if name not in self.volumes:
            return b""
        data = self.volumes[name][1]
        start = max(0, len(data) + offset) if offset < 0 else offset
        return data[start : start + length] if length else data[start:]

    def ensure_volume_gone(self, name: str) -> None:
        """Delete a volume that no domain uses."""
        self._enter("ensure_volume_gone")
        users = self.volume_users(name)
        if users:
            raise ConflictError(f"volume {name}", f"in use by {', '.join(users)}")
        self.volumes.pop(name, None)

    def volume_users(self, name: str) -> list[str]:
        """Return the names of the domains that use a volume."""
        self._enter("volume_users")
        with self._guard:
            return [
                domain.name
                for domain in self.domains.values()
                if domain.plan is not None
                and name
                in [domain.plan.seed, *(v for disk in domain.plan.disks for v in (disk.volume, disk.base_volume))]
            ]


def fail_with(error: KCError, *calls: str) -> Callable[[str], None]:
    """Return a `fail` that raises `error` in the named calls, or in all where none is named."""

    def fail(call: str) -> None:
        if not calls or call in calls:
            raise error

    return fail


def _observe(domain: MemoryDomain) -> ObservedDomain:
    return ObservedDomain(domain.uid, domain.name, domain.power, domain.reason)
