"""The guests of the hypervisor in memory, and their consoles."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from backend.errors import ConflictError
from backend.hypervisor.plan import Address, DomainPlan, NicPlan, ObservedDomain


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
    """A domain: what it was defined as (None for a foreign one), and how it is."""

    uid: str
    name: str
    plan: DomainPlan | None
    power: str = "stopped"
    reason: str = ""
    addresses: list[Address] = field(default_factory=list)
    agent: bool = False
    console: MemoryConsole | None = None

    def observe(self) -> ObservedDomain:
        """Return how it is seen."""
        return ObservedDomain(self.uid, self.name, self.power, self.reason)

    def volumes(self) -> set[str]:
        """Return the names of the volumes that it has as disks."""
        if self.plan is None:
            return set()
        return {self.plan.seed, *(disk.volume for disk in self.plan.disks)} - {""}

    def networks(self) -> set[str]:
        """Return the names of the libvirt networks that it has NICs on."""
        nics = self.plan.nics if self.plan is not None else ()
        return {nic.network for nic in nics if isinstance(nic, NicPlan) and nic.network}

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
