"""What happens to the domains in memory beside power: drift, adoption, and their screens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from backend.errors import ConflictError
from backend.hypervisor.memory_guest import FOLDER, MemoryConsole, MemoryDomain, as_started, draw_screen
from backend.hypervisor.memory_snapshots import MemorySnapshots
from backend.hypervisor.plan import Difference, DomainPlan, FoundDomain, NicPlan

GREETING = b"RFB 003.008\n"
ABSENT = "absent"
ORDER = (
    "owner", "name", "metadata", "cpus", "memory", "nic", "firmware", "disk", "cdrom", "on-crash", "autostart",
    "description",
)  # fmt: skip


class MemoryLife(MemorySnapshots):
    """The domains of the host, as others change them, take them over, and bring them back."""

    def tamper(self, uid: str, **fields: Any) -> None:
        """Change what a domain is defined as (fields of its plan), as `virsh edit` would, without a word to KC."""
        with self._guard:
            domain = self._domain(uid)
            if domain.plan is not None:
                was = domain.now()
                domain.plan = domain.plan._replace(**fields)
                domain.live = was if domain.is_on else None
                domain.name = domain.name if domain.is_on else domain.plan.name
        self._tell("domain", uid)

    def differences(self, plan: DomainPlan) -> tuple[Difference, ...]:
        """Return where the definition is not what a plan says."""
        self._enter("differences")
        with self._guard:
            self._check_volumes(plan)
            domain = self.domains.get(plan.uid)
            if domain is None:
                return (Difference("definition", "defined", ABSENT),)
            found = domain.plan or domain.as_plan(plan)._replace(owner="", owner_label="")
            return tuple(_compare(plan, found))

    # --- adoption
    def find_adoptable(self, name: str) -> FoundDomain | None:
        """Return what KC could manage of a domain."""
        self._enter("find_adoptable")
        with self._guard:
            found = (domain for domain in self.domains.values() if name in (domain.uid, domain.name))
            return next((domain.describe() for domain in found), None)

    def adopt(self, uid: str, plan: DomainPlan) -> None:
        """Put KC's label on a domain that has none."""
        self._enter("adopt")
        with self._guard:
            domain = self._domain(uid)
            if domain.owner().owner:
                domain.check_owner(plan.owner)
            domain.adopt(plan)
        self._tell("domain", uid)

    def disown(self, uid: str, owner: str) -> None:
        """Take KC's label off a domain."""
        self._enter("disown")
        with self._guard:
            domain = self.domains.get(uid)
            if domain is None or not domain.owner().owner:
                return
            domain.check_owner(owner)
            domain.disown()
        self._tell("domain", uid)

    # --- screens
    def display(self, uid: str) -> MemoryConsole:
        """Open a domain's screen, which says what every VNC server says first."""
        self._enter("display")
        with self._guard:
            domain = self._domain(uid)
            self._check_on(domain, "it is off and has no screen")
            display = MemoryConsole(GREETING, typed=lambda _data: None)
            domain.displays.append(display)
            return display

    def display_address(self, uid: str) -> str:
        """Return where a domain's screen is; empty for one that is off."""
        self._enter("display_address")
        domain = self._domain(uid)
        return f"vnc+unix:///memory/{uid}.vnc" if domain.is_on else ""

    def screenshot(self, uid: str) -> bytes:
        """Return a picture that is the domain's own."""
        self._enter("screenshot")
        with self._guard:
            self._check_on(self._domain(uid), "it is off and has no screen")
        return draw_screen(uid)

    def _check_on(self, domain: MemoryDomain, why: str) -> None:
        if not domain.is_on:
            raise ConflictError(f"VM {domain.name}", why, "start it first")


def _compare(plan: DomainPlan, found: DomainPlan) -> Iterator[Difference]:
    """Yield where a definition is not the plan, in the order and the words of the real hypervisor."""
    if found.owner != plan.owner:
        yield Difference("owner", plan.owner_label or plan.owner, found.owner_label or found.owner or "nobody")
    if plan.adopted:
        # Whoever made it may have left it more room.
        most = (max(plan.max_cpus, found.max_cpus), max(plan.max_memory_mib, found.max_memory_mib))
        plan, found = (one._replace(max_cpus=most[0], max_memory_mib=most[1]) for one in (plan, found))
    wanted, is_now = _describe(plan), _describe(found)
    if plan.adopted:
        wanted, is_now = ({word: texts[word] for word in texts if _is_managed(word)} for texts in (wanted, is_now))
    for word in sorted({**wanted, **is_now}, key=_rank):
        pair = wanted.get(word, ABSENT), is_now.get(word, ABSENT)
        if pair[0] != pair[1]:
            yield Difference(word, *pair)


def _is_managed(word: str) -> bool:
    return word.partition(":")[0] not in ("firmware", "disk", "cdrom", "on-crash")


def _rank(word: str) -> int:
    return ORDER.index(word.partition(":")[0])


def _describe(plan: DomainPlan) -> dict[str, str]:
    """Return what a definition says, by word."""
    most = as_started(plan)
    firmware = "uefi" if plan.arch == "aarch64" else plan.firmware
    texts = {
        "name": plan.name,
        "metadata": json.dumps(json.loads(plan.metadata), ensure_ascii=False),
        "cpus": _room(plan.cpus, most.max_cpus),
        "memory": _room(plan.memory_mib, most.max_memory_mib, " MiB"),
        "firmware": f"{firmware} with secure boot" if plan.secure_boot else firmware,
        "cdrom": f"{FOLDER}{plan.cdrom}" if plan.cdrom else "no disc",
        "on-crash": plan.on_crash,
        "autostart": "yes" if plan.autostart else "no",
        "description": plan.description,
    }
    texts |= {f"nic:{nic.id or nic.mac}": _describe_nic(nic) for nic in plan.nics}
    return texts | {f"disk:{disk.id}": f"{FOLDER}{disk.volume}" for disk in plan.disks}


def _room(now: int, maximum: int, unit: str = "") -> str:
    return f"{now}{unit}" if now == maximum else f"{now}{unit}, up to {maximum}{unit}"


def _describe_nic(nic: NicPlan) -> str:
    source = f"bridge {nic.bridge}" if nic.bridge else f"network {nic.network}" if nic.network else "user"
    return ", ".join(filter(None, (source, nic.mac, f"MTU {nic.mtu}" if nic.mtu and source != "user" else "")))
