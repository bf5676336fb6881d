"""A hypervisor that is only in memory: the same protocol at once and without a host.

Screens are driven by it in tests and pictures, and lists of ten thousand VMs measured. It proves nothing about
libvirt; the conformance suite holds it to what the real one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.errors import ConflictError, KCError, NotFoundError
from backend.hypervisor.domain_xml import check_plan
from backend.hypervisor.memory_guest import FOLDER, MemoryConsole, MemoryDomain, as_started
from backend.hypervisor.memory_life import MemoryLife
from backend.hypervisor.plan import (
    Address,
    DomainOwner,
    DomainPlan,
    HostFacts,
    ObservedDomain,
    Volume,
)
from backend.hypervisor.protocol import Hint
from backend.model.samples import Sample

__all__ = ["MemoryConsole", "MemoryDomain", "MemoryHypervisor", "fail_with"]


class MemoryHypervisor(MemoryLife):
    """One host in memory.

    `fail` may be set to a function that is called with each call's name and raises what is to go wrong. `boot_text` is
    what a started guest says on its console; `boots` says whether a started guest gets its addresses and its agent, and
    hears the power button; its agent is away for `reboot_seconds` when it boots again. `domains`, `networks` and
    `volumes` may be changed from outside, and a definition with `tamper`.
    """

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        super().__init__(capacity_bytes)
        self.uri = "memory:///"
        self.boot_text = b"KC starter: up\r\n# "
        self.boots = True
        self.reboot_seconds = 0.05

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
        return self._domain(uid).owner()

    def ensure_defined(self, plan: DomainPlan) -> None:
        """Define the domain."""
        self._enter("ensure_defined")
        if not plan.adopted:
            check_plan(plan)
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
                if plan.adopted:
                    raise NotFoundError(f"VM {plan.name}", "the host has its domain no more", "KC did not make it")
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
            self._check_volumes(plan)
            domain.check_owner(plan.owner)
            self._check_networks(domain.now() or plan, plan)
            waiting = domain.apply(plan)
            for disk in plan.disks:
                self._grow(disk.volume, disk.capacity_bytes)
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
                domain.live, domain.name = as_started(domain.plan), domain.plan.name
                self._boot(domain, domain.plan)
        self._tell("domain", uid)

    def _boot(self, domain: MemoryDomain, plan: DomainPlan | None) -> None:
        self.say(domain.uid, self.boot_text)
        domain.agent, domain.addresses, domain.answers_at = self.boots, [], 0.0
        for nic in plan.nics if self.boots and plan is not None else ():
            domain.addresses.append(self._give_address(nic.mac))

    def ensure_paused(self, uid: str) -> None:
        """Have a domain that is on stand still."""
        self._enter("ensure_paused")
        with self._guard:
            domain = self._domain(uid)
            self._check_on(domain, "it is off")
            domain.power, domain.reason = "paused", ""
        self._tell("domain", uid)

    def restart_host(self) -> None:
        """Have all domains off, and those on again that are to start with the host."""
        with self._guard:
            for domain in self.domains.values():
                self.set_power(domain.uid, "stopped")
                if domain.plan is not None and domain.plan.autostart:
                    self.ensure_running(domain.uid)

    def say(self, uid: str, text: bytes) -> None:
        """Have a guest say something on its console."""
        with self._guard:
            domain = self._domain(uid)
            if domain.plan is not None and domain.plan.console_log:
                name = domain.plan.console_log
                text_before = self.volumes[name][1] if name in self.volumes else b""
                size = len(text_before) + len(text)
                self.volumes[name] = (Volume(name, f"{FOLDER}{name}", "raw", size, size), text_before + text)
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
            if not domain.is_on:
                domain.agent, domain.addresses, domain.live = False, [], None
                domain.end_streams()
        self._tell("domain", uid)

    def reboot(self, uid: str, *, force: bool) -> None:
        """Reboot a running domain; a guest that has not booted hears only force, and the agent is away for a moment."""
        self._enter("reboot")
        with self._guard:
            domain = self._domain(uid)
            if domain.power != "running":
                raise ConflictError(f"VM {domain.name}", "it does not run", "start it instead")
            if domain.agent or force:
                self._boot(domain, domain.now())
                domain.answers_at = time.monotonic() + self.reboot_seconds
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
            self._check_on(domain, "it is off and has no console")
            if domain.console is not None:
                domain.console.close()
            domain.console = MemoryConsole(typed=lambda data: self.say(uid, data.replace(b"\r", b"\r\n# ")))
            return domain.console

    def agent_answers(self, uid: str) -> bool:
        """Return whether the guest has booted and runs."""
        self._enter("agent_answers")
        return self._domain(uid).agent_answers

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
            return [domain.sample(now) for domain in self.domains.values()]


def fail_with(error: KCError, *calls: str) -> Callable[[str], None]:
    """Return a `fail` that raises `error` in the named calls, or in all where none is named."""

    def fail(call: str) -> None:
        if not calls or call in calls:
            raise error

    return fail
