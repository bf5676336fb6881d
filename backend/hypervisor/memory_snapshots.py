"""Snapshots of the domains in memory: within the disks, or copies of them as volumes of the pool."""

from __future__ import annotations

import re
import time
from operator import attrgetter

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.hypervisor.memory_guest import FOLDER, MemoryDomain, MemorySnapshot
from backend.hypervisor.memory_volumes import MemoryVolumes
from backend.hypervisor.plan import DomainPlan, Snapshot

_COPY = re.compile(r"(?P<volume>.+)\.(?P<snapshot>[a-z0-9-]+)\.snapshot")
# What is not in a definition that a snapshot brings back.
_KEPT = ("name", "owner", "owner_label", "version", "metadata", "autostart")


class MemorySnapshots(MemoryVolumes):
    """The snapshots of the host's domains; copies are `VOLUME.SNAPSHOT.snapshot` and outlive their domain."""

    def __init__(self, capacity_bytes: int) -> None:
        super().__init__(capacity_bytes)
        self._copied_at: dict[str, float] = {}

    def list_snapshots(self, uid: str) -> list[Snapshot]:
        """Return a domain's snapshots, the oldest first."""
        self._enter("list_snapshots")
        with self._guard:
            domain = self.domains.get(uid)
            if domain is None:
                return []
            kept = [one.snapshot for one in domain.snapshots.values()]
            copies = self._find_copies(domain)
            made = [Snapshot(name, self._copied_at.get(name, 0.0), False, "copy") for name in copies]  # noqa: FBT003
            return sorted([*kept, *made], key=attrgetter("at"))

    def _find_copies(self, domain: MemoryDomain) -> dict[str, dict[str, str]]:
        """Return the copies of a domain's disks by snapshot and volume."""
        own = set(_disks(domain.plan)) if domain.plan is not None else set()
        found: dict[str, dict[str, str]] = {}
        for name in self.volumes:
            match = _COPY.fullmatch(name)
            if match is not None and (match["volume"] in own or match["volume"].startswith(f"kc-{domain.uid}-")):
                found.setdefault(match["snapshot"], {})[match["volume"]] = name
        return found

    def _find_snapshot(self, uid: str, name: str) -> Snapshot | None:
        return next((one for one in self.list_snapshots(uid) if one.name == name), None)

    def take_snapshot(self, uid: str, name: str, description: str = "") -> Snapshot:
        """Keep what a domain's volumes are, and its guest where it is on."""
        self._enter("take_snapshot")
        del description
        with self._guard:
            domain = self._domain(uid)
            existing = self._find_snapshot(uid, name)
            if existing is not None:
                return existing
            plan = _require_plan(domain)
            if plan.firmware == "uefi" or plan.arch != "x86_64" or any(disk.format == "raw" for disk in plan.disks):
                return self._copy_all(domain, plan, name)
            volumes = {volume: self.volumes[volume] for volume in _disks(plan) if volume in self.volumes}
            snapshot = Snapshot(name, time.time(), domain.is_on, "internal")
            live = domain.now() if domain.is_on else None
            domain.snapshots[name] = MemorySnapshot(
                snapshot, volumes, plan, live, domain.power, domain.agent, list(domain.addresses)
            )
            return snapshot

    def _copy_all(self, domain: MemoryDomain, plan: DomainPlan, name: str) -> Snapshot:
        what = f"VM {domain.name}"
        if domain.is_on:
            raise RefusedError(what, "its disks can only be copied while it is off", "stop it first")
        if self._free() < sum(len(self.volumes[volume][1]) for volume in _disks(plan)):
            raise FailedError(what, "no room in the pool", "make room")
        for volume in _disks(plan):
            self._duplicate(volume, f"{volume}.{name}.snapshot")
        self._copied_at[name] = time.time()
        return Snapshot(name, self._copied_at[name], has_memory=False, method="copy")

    def _duplicate(self, source: str, name: str) -> None:
        volume, data = self.volumes[source]
        self.volumes[name] = (volume._replace(name=name, path=f"{FOLDER}{name}"), data)
        if source in self._bases:
            self._bases[name] = self._bases[source]

    def restore_snapshot(self, uid: str, name: str) -> None:
        """Bring a domain's volumes back, and its guest where it was on."""
        self._enter("restore_snapshot")
        with self._guard:
            domain = self._domain(uid)
            kept, copies = domain.snapshots.get(name), self._find_copies(domain).get(name)
            sizes = {volume: self.volumes[volume][0].capacity_bytes for volume in _disks(_require_plan(domain))}
            if kept is not None:
                self._revert(domain, kept)
            elif copies is not None:
                self._copy_back(domain, copies)
            else:
                raise NotFoundError(f"VM {domain.name}", f"it has no snapshot {name}", "list its snapshots")
            # A disk that has grown since stays as large, but where the guest's memory says how large it is.
            for volume, size in {} if domain.is_on else sizes.items():
                self._grow(volume, size)
        self._tell("domain", uid)

    def _revert(self, domain: MemoryDomain, kept: MemorySnapshot) -> None:
        plan = _require_plan(domain)
        for one in (plan, domain.now() or plan):
            _check_disks(domain, set(_disks(kept.plan)), one)
        self.volumes |= kept.volumes
        domain.plan = kept.plan._replace(**{name: getattr(plan, name) for name in _KEPT})
        domain.live, domain.power, domain.reason = kept.live, kept.power, ""
        domain.agent, domain.addresses = kept.agent, list(kept.addresses)
        domain.end_streams()

    def _copy_back(self, domain: MemoryDomain, copies: dict[str, str]) -> None:
        if domain.is_on:
            raise ConflictError(f"VM {domain.name}", "it still runs", "stop it first")
        _check_disks(domain, set(copies), _require_plan(domain))
        for volume, copy in copies.items():
            self._duplicate(copy, volume)

    def ensure_snapshot_gone(self, uid: str, name: str) -> None:
        """Forget a snapshot, and remove its copies."""
        self._enter("ensure_snapshot_gone")
        with self._guard:
            domain = self.domains.get(uid)
            if domain is None:
                return
            domain.snapshots.pop(name, None)
            for copy in self._find_copies(domain).get(name, {}).values():
                self._remove(copy)


def _require_plan(domain: MemoryDomain) -> DomainPlan:
    if domain.plan is None:
        raise ConflictError(f"VM {domain.name}", "it was made by no KC", "adopt it first")
    return domain.plan


def _disks(plan: DomainPlan) -> tuple[str, ...]:
    return tuple(disk.volume for disk in plan.disks)


def _check_disks(domain: MemoryDomain, then: set[str], plan: DomainPlan) -> None:
    changes = ", ".join(sorted(then ^ set(_disks(plan))))
    if changes:
        raise ConflictError(
            f"VM {domain.name}", f"it had other disks then: {changes}", "give it the disks that it had, then restore"
        )
