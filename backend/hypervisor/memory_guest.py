"""The guests of the hypervisor in memory, and their consoles."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from backend.errors import ConflictError
from backend.hypervisor.plan import Address, DomainPlan, ObservedDomain


class MemoryConsole:
    """A console that says what its guest says and hands over what is typed."""

    def __init__(self, script: bytes = b"", typed: Callable[[bytes], None] | None = None) -> None:
        self._said: deque[bytes] = deque([script] if script else [])
        self._typed = typed or self.say
        self._has_ended = False
        self._changed = threading.Condition()

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes; see `backend.service.ConsoleStream`."""
        with self._changed:
            self._changed.wait_for(lambda: self._said or self._has_ended, timeout)
            if not self._said:
                return b"" if self._has_ended else None
            data = b"".join(self._said)
            self._said.clear()
            return data

    def write(self, data: bytes) -> None:
        """Type keys; raise ConflictError once the console has ended."""
        if self._has_ended:
            raise ConflictError("console", "it has ended", "open it again")
        self._typed(data)

    def say(self, data: bytes) -> None:
        """Have the guest say something."""
        with self._changed:
            self._said.append(data)
            self._changed.notify_all()

    def close(self) -> None:
        """End the stream."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()


@dataclass
class MemoryDomain:
    """A domain: what it is defined as (None for a foreign one), what it is while it is on (`live`), and how it is."""

    uid: str
    name: str
    plan: DomainPlan | None
    power: str = "stopped"
    reason: str = ""
    addresses: list[Address] = field(default_factory=list)
    agent: bool = False
    console: MemoryConsole | None = None
    live: DomainPlan | None = None

    @property
    def is_on(self) -> bool:
        """Whether it has a guest, running or paused."""
        return self.power in ("running", "paused")

    def now(self) -> DomainPlan | None:
        """Return what it is at this moment, not what it will be when it is started next."""
        return self.live or self.plan if self.is_on else self.plan

    def define(self, plan: DomainPlan) -> None:
        """Take a new definition; one that is on stays as it is, its name too."""
        if self.is_on:
            self.live = self.now()
        else:
            self.name = plan.name
        self.plan = plan

    def observe(self) -> ObservedDomain:
        """Return how it is seen."""
        return ObservedDomain(self.uid, self.name, self.power, self.reason)

    def volumes(self) -> set[str]:
        """Return the names of the volumes that it has as disks, now or when it is started next."""
        plans = [plan for plan in (self.plan, self.now()) if plan is not None]
        return {name for plan in plans for name in (plan.seed, *(disk.volume for disk in plan.disks))} - {""}

    def networks(self, *, now: bool = False) -> set[str]:
        """Return the libvirt networks that it has NICs on, now or (unless `now`) when it is started next."""
        plans = [plan for plan in (self.now(), None if now else self.plan) if plan is not None]
        return {nic.network for plan in plans for nic in plan.nics if nic.network}

    def apply(self, plan: DomainPlan) -> tuple[str, ...]:
        """Become what can be had without a start, and return what waits for one; only a guest that is up lets go."""
        before = self.now() or plan
        wanted = {nic.mac: nic for nic in plan.nics}
        held = () if self.agent else tuple(nic for nic in before.nics if nic.mac not in wanted)
        differences = {
            "cpus": before.cpus != plan.cpus,
            "memory": before.memory_mib != plan.memory_mib,
            "firmware": before.firmware != plan.firmware,
            "name": self.name != plan.name,
        }
        volumes = [{disk.id: disk.volume for disk in side.disks} for side in (before, plan)]
        disks = sorted({name for name, _ in volumes[0].items() ^ volumes[1].items()})
        self.live = before._replace(
            version=plan.version, metadata=plan.metadata, description=plan.description, nics=(*plan.nics, *held)
        )
        return (
            *(word for word, differs in differences.items() if differs),
            *(f"nic:{nic.id}" for nic in held),
            *(f"disk:{name}" for name in disks),
        )

    def describe_owner(self) -> str:
        """Return who made it, as an error says it."""
        return "was made by no KC" if self.plan is None else f"belongs to {self.plan.owner_label or self.plan.owner}"

    def check_owner(self, owner: str) -> None:
        """Raise ConflictError unless `owner` made it."""
        if self.plan is None or self.plan.owner != owner:
            raise ConflictError(
                f"VM {self.name}", f"its domain {self.describe_owner()}", "it is not touched; manage it there"
            )

    def end_console(self) -> None:
        """Let a reader of the console know that there is nothing more."""
        if self.console is not None:
            self.console.close()
            self.console = None
