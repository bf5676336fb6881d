"""The guests of the hypervisor in memory, their consoles and their screens."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from backend.errors import ConflictError
from backend.hypervisor.machine_xml import MACHINES, maximum_memory
from backend.hypervisor.plan import (
    Address,
    DiskPlan,
    DomainOwner,
    DomainPlan,
    FoundDomain,
    FoundNic,
    NicPlan,
    ObservedDomain,
    Snapshot,
    Volume,
)
from backend.model.samples import Sample

FOLDER = "/memory/"
SCREEN_BLOCKS = (16, 10)
BLOCK_PIXELS = 20


class MemoryConsole:
    """A stream that says what its guest says and hands over what is typed."""

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


class MemorySnapshot(NamedTuple):
    """What a snapshot brings back: the volumes, the definition, and the guest where it was on (`live`)."""

    snapshot: Snapshot
    volumes: dict[str, tuple[Volume, bytes]]
    plan: DomainPlan
    live: DomainPlan | None
    power: str
    agent: bool
    addresses: list[Address]


@dataclass
class MemoryDomain:
    """A domain: what it is defined as (None for a foreign one), what it is while it is on (`live`), and how it is.

    `agent` says that its guest is up: it has drivers, lets go of devices and hears the power button. `answers_at` is
    when the agent of a guest that boots again answers (monotonic clock). `found` describes a foreign one.
    """

    uid: str
    name: str
    plan: DomainPlan | None
    power: str = "stopped"
    reason: str = ""
    addresses: list[Address] = field(default_factory=list)
    agent: bool = False
    console: MemoryConsole | None = None
    live: DomainPlan | None = None
    found: FoundDomain | None = None
    answers_at: float = 0.0
    displays: list[MemoryConsole] = field(default_factory=list)
    snapshots: dict[str, MemorySnapshot] = field(default_factory=dict)

    @property
    def is_on(self) -> bool:
        """Whether it has a guest, running or paused."""
        return self.power in ("running", "paused")

    @property
    def agent_answers(self) -> bool:
        """Whether its guest answers at this moment."""
        return self.agent and self.power == "running" and time.monotonic() >= self.answers_at

    def now(self) -> DomainPlan | None:
        """Return what it is at this moment, not what it will be when it is started next."""
        return self.live or self.plan if self.is_on else self.plan

    def define(self, plan: DomainPlan) -> None:
        """Take a new definition; one that is on stays as it is, its name too."""
        if self.is_on:
            self.live = self.now()
        else:
            self.name = plan.name
        if self.plan is not None and plan.adopted:
            plan = self.plan._replace(**{name: getattr(plan, name) for name in ADOPTED_FIELDS})
        self.plan = plan

    def observe(self) -> ObservedDomain:
        """Return how it is seen."""
        return ObservedDomain(self.uid, self.name, self.power, self.reason)

    def volumes(self, *, now: bool = False) -> set[str]:
        """Return the names of the volumes in its drives, now or (unless `now`) when it is started next."""
        if self.plan is None:
            paths = self.describe().disks
            return {path.removeprefix(FOLDER) for path in paths if path.startswith(FOLDER)}
        plans = [plan for plan in (self.now(), None if now else self.plan) if plan is not None]
        names = {name for plan in plans for name in (plan.seed, plan.cdrom, *(disk.volume for disk in plan.disks))}
        return names - {""}

    def networks(self, *, now: bool = False) -> set[str]:
        """Return the libvirt networks that it has NICs on, now or (unless `now`) when it is started next."""
        if self.plan is None:
            return {nic.source for nic in self.describe().nics if nic.kind == "network"}
        plans = [plan for plan in (self.now(), None if now else self.plan) if plan is not None]
        return {nic.network for plan in plans for nic in plan.nics if nic.network}

    def apply(self, plan: DomainPlan) -> tuple[str, ...]:
        """Become what can be had without a start, and return what waits for one; only a guest that is up lets go."""
        before = as_started(self.now() or plan)
        nics, held_nics = _apply_nics(before.nics, plan.nics, lets_go=self.agent)
        live = before._replace(
            version=plan.version, metadata=plan.metadata, description=plan.description, nics=nics,
            cpus=_approach(before.cpus, plan.cpus, before.max_cpus, gives_back=self.agent and _takes_cpus(before)),
            memory_mib=min(plan.memory_mib, before.max_memory_mib) if self.agent else before.memory_mib,
        )  # fmt: skip
        held_disks: list[str] = []
        if not plan.adopted:
            disks, held_disks = _apply_disks(before.disks, plan.disks, lets_go=self.agent)
            live = live._replace(disks=disks, cdrom=plan.cdrom)
        self.live = live
        firmware = [(one.firmware, one.secure_boot) for one in (live, plan)]
        # A guest that is not up yet hears of its memory when it is.
        hears_later = not self.agent and live.max_memory_mib == maximum_memory(plan)
        differs = {
            "cpus": live.cpus != plan.cpus,
            "memory": live.memory_mib != plan.memory_mib and not hears_later,
            "firmware": not plan.adopted and firmware[0] != firmware[1],
            "name": self.name != plan.name,
        }
        return (*(word for word, is_other in differs.items() if is_other), *held_nics, *held_disks)

    def owner(self) -> DomainOwner:
        """Return who made it."""
        plan = self.now()
        return DomainOwner() if plan is None else DomainOwner(plan.owner, plan.owner_label, plan.version)

    def describe(self) -> FoundDomain:
        """Return what KC could manage of it."""
        plan = self.now()
        if plan is None:
            found = self.found or FoundDomain(
                self.uid, self.name, DomainOwner(), self.power, "x86_64", "bios", 1, 512, "", autostart=False, nics=(),
                disks=(), untouched=(),
            )  # fmt: skip
            return found._replace(uid=self.uid, name=self.name, power=self.power)
        models = {nic.mac: nic.model for nic in self.found.nics} if self.found is not None else {}
        return FoundDomain(
            uid=self.uid, name=self.name, owner=self.owner(), power=self.power, arch=plan.arch, firmware=plan.firmware,
            cpus=plan.cpus, memory_mib=plan.memory_mib, description=plan.description, autostart=plan.autostart,
            nics=tuple(_found_nic(nic, models.get(nic.mac, "virtio")) for nic in plan.nics),
            disks=tuple(f"{FOLDER}{disk.volume}" for disk in plan.disks) or (self.found.disks if self.found else ()),
            untouched=self.found.untouched if self.found is not None else (),
        )  # fmt: skip

    def adopt(self, plan: DomainPlan) -> None:
        """Bear the plan's label, and be otherwise what it was."""
        label = {name: getattr(plan, name) for name in ("owner", "owner_label", "version", "metadata")}
        self.plan = (self.plan or self.as_plan(plan))._replace(**label)
        if self.live is not None:
            self.live = self.live._replace(**label)

    def as_plan(self, plan: DomainPlan) -> DomainPlan:
        """Return an adopted plan as it would be for what a foreign domain is now; the NICs keep the plan's ids."""
        found = self.describe()
        ids = {nic.mac: nic.id for nic in plan.nics}
        return plan._replace(
            name=found.name, arch=found.arch, firmware=found.firmware, cpus=found.cpus, memory_mib=found.memory_mib,
            max_cpus=0, max_memory_mib=0, description=found.description, autostart=found.autostart,
            nics=tuple(_nic_plan(ids.get(nic.mac, f"nic{index}"), nic) for index, nic in enumerate(found.nics)),
        )  # fmt: skip

    def disown(self) -> None:
        """Bear no label any more, and be otherwise what it was."""
        self.found = self.describe()._replace(owner=DomainOwner())
        self.plan = self.live = None

    def sample(self, at: float) -> Sample:
        """Return counters that grow as long as it runs."""
        plan = self.now()
        memory = (plan.memory_mib if plan is not None else self.describe().memory_mib) << 20
        cpus = plan.cpus if plan is not None else self.describe().cpus
        rate = int(at) if self.power == "running" else 0
        return Sample(
            uid=self.uid, at=at, power=self.power, cpus=cpus, cpu_time_ns=int(at * 1e8) if rate else 0,
            memory_bytes=memory, memory_used_bytes=memory // 4 if rate else 0, disk_read_bytes=rate * 40_960,
            disk_written_bytes=rate * 16_384, received_bytes=rate * 6_000, sent_bytes=rate * 2_000,
        )  # fmt: skip

    def describe_owner(self) -> str:
        """Return who made it, as an error says it."""
        owner = self.owner()
        return f"belongs to {owner.label or owner.owner}" if owner.owner else "was made by no KC"

    def check_owner(self, owner: str) -> None:
        """Raise ConflictError unless `owner` made it."""
        if self.owner().owner != owner:
            raise ConflictError(
                f"VM {self.name}", f"its domain {self.describe_owner()}", "it is not touched; manage it there"
            )

    def end_streams(self) -> None:
        """Let the readers of its console and its screen know that there is nothing more."""
        for stream in (*self.displays, *([self.console] if self.console is not None else [])):
            stream.close()
        self.console = None
        self.displays.clear()


ADOPTED_FIELDS = (
    "name", "version", "owner", "owner_label", "metadata", "description", "cpus", "memory_mib", "max_cpus",
    "max_memory_mib", "nics", "autostart",
)  # fmt: skip
"""What of an adopted domain a plan decides."""


def as_started(plan: DomainPlan) -> DomainPlan:
    """Return a plan with the headroom that a domain gets when it is started with it."""
    most_cpus = max(plan.cpus, plan.max_cpus) if _takes_cpus(plan) else plan.cpus
    return plan._replace(max_cpus=most_cpus, max_memory_mib=maximum_memory(plan))


def _takes_cpus(plan: DomainPlan) -> bool:
    return plan.arch in MACHINES and MACHINES[plan.arch].takes_cpus


def draw_screen(uid: str) -> bytes:
    """Return a PNG, 320x200 in two greys, with a pattern that is the same for the same uid and symmetrical."""
    width, height = SCREEN_BLOCKS
    seed = zlib.crc32(uid.encode())
    rows = []
    for _ in range(height):
        seed = (seed * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        half = [seed >> (8 + column) & 1 for column in range(width // 2)]
        bits = [bit for bit in (*half, *reversed(half)) for _ in range(BLOCK_PIXELS)]
        packed = int("".join(map(str, bits)), 2).to_bytes(len(bits) // 8, "big")
        rows += [b"\0" + packed] * BLOCK_PIXELS
    header = struct.pack(">IIBBBBB", width * BLOCK_PIXELS, height * BLOCK_PIXELS, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _approach(now: int, wanted: int, most: int, *, gives_back: bool) -> int:
    return min(wanted, most) if gives_back or wanted > now else now


def _apply_nics(
    before: tuple[NicPlan, ...], wanted: tuple[NicPlan, ...], *, lets_go: bool
) -> tuple[tuple[NicPlan, ...], list[str]]:
    """Return the NICs that a guest has after a change, and the words of those that wait."""
    known = {nic.mac: nic for nic in before}
    macs = {nic.mac for nic in wanted}
    held = [] if lets_go else [nic for nic in before if nic.mac not in macs]
    nics = [nic._replace(mtu=known[nic.mac].mtu) if nic.mac in known else nic for nic in wanted]
    waiting = [f"nic:{nic.id}" for nic in wanted if nic.mac in known and known[nic.mac].mtu != nic.mtu]
    return (*nics, *held), [*waiting, *(f"nic:{nic.id}" for nic in held)]


def _apply_disks(
    before: tuple[DiskPlan, ...], wanted: tuple[DiskPlan, ...], *, lets_go: bool
) -> tuple[tuple[DiskPlan, ...], list[str]]:
    """Return the disks that a guest has after a change, and the words of those that wait; the first one stays."""
    ids = {disk.id: disk.volume for disk in wanted}
    kept = [disk for index, disk in enumerate(before) if index == 0 or not lets_go or disk.id in ids]
    taken = {disk.id for disk in kept}
    disks = (*kept, *(disk for disk in wanted if disk.id not in taken))
    volumes = {disk.id: disk.volume for disk in disks}
    return disks, [f"disk:{name}" for name in volumes if ids.get(name) != volumes[name]]


def _found_nic(nic: NicPlan, model: str) -> FoundNic:
    kind = "network" if nic.network else "bridge" if nic.bridge else "user"
    return FoundNic(nic.mac, kind, nic.network or nic.bridge, model)


def _nic_plan(name: str, nic: FoundNic) -> NicPlan:
    return NicPlan(
        name,
        nic.mac,
        network=nic.source if nic.kind == "network" else "",
        bridge=nic.source if nic.kind == "bridge" else "",
    )
