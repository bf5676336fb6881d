"""Snapshots of a domain that is off as volumes of their own: `VOLUME.SNAPSHOT.snapshot` beside each disk's volume.

The first disk's copy is made last and deleted first: a snapshot is whole as long as that one is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import libvirt

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.hypervisor.copying import copy_still
from backend.hypervisor.domains import Domains, find
from backend.hypervisor.errors import is_code, no_room
from backend.hypervisor.link import Link
from backend.hypervisor.plan import Snapshot
from backend.hypervisor.pools import find_pool, find_volume, list_names, marked_name
from backend.hypervisor.snapshot_xml import Disk, read_disks
from backend.hypervisor.volume_xml import read_changed_at
from backend.hypervisor.volumes import SEARCH_SECONDS, Volumes
from backend.text import sanitise

_NAME = re.compile(r"(?P<volume>.+)\.(?P<snapshot>[a-z0-9]([a-z0-9-]*[a-z0-9])?)\.snapshot")


class _Copied(NamedTuple):
    """A domain's disks and their volumes in the pool ("": not there), and its copies by snapshot and volume."""

    is_active: bool
    disks: list[tuple[Disk, str]]
    copies: dict[str, dict[str, str]]
    at: dict[str, float]


class SnapshotCopies:
    """The snapshots that are copies."""

    def __init__(self, link: Link, domains: Domains, volumes: Volumes) -> None:
        self._link = link
        self._domains = domains
        self._volumes = volumes

    def list_all(self, uid: str) -> list[Snapshot]:
        """Return a domain's snapshots that are whole."""
        found = self._look(uid)
        return [Snapshot(name, at, has_memory=False, method="copy") for name, at in found.at.items()] if found else []

    def find_sizes(self, uid: str) -> dict[str, int]:
        """Return how large the domain's disks are, in bytes by volume, those that are not in the pool left out."""
        found = self._look(uid)
        volumes = [self._volumes.find(name) for _, name in found.disks if name] if found else []
        return {volume.name: volume.capacity_bytes for volume in volumes if volume is not None}

    def take(self, uid: str, name: str, reason: str) -> None:
        """Copy a domain's disks; raise RefusedError with the `reason` for it where the domain is on."""
        what = self._domains.name(uid)
        found = self._require(uid)
        if found.is_active:
            raise RefusedError(what, reason, f"stop it first: `kc vm stop {what.partition(' ')[2]}`")
        for disk, volume in found.disks:
            if not volume:
                raise RefusedError(
                    what, f"{reason}, and {sanitise(disk.path)} is not in KC's pool", "copy that disk by hand"
                )
        if not found.disks:
            raise RefusedError(what, "it has no disk to take a snapshot of", "add one first")
        for disk, volume in reversed(found.disks):
            copy_still(self._link, self._domains, self._volumes, _name(volume, name), volume, disk.format)

    def restore(self, uid: str, name: str) -> None:
        """Write a domain's disks anew from their copies; killed on the way, it is to be repeated."""
        what = self._domains.name(uid)
        found = self._require(uid)
        copies = found.copies.get(name, {})
        if found.is_active:
            raise ConflictError(what, "a snapshot that is a copy is restored while it is off", "stop it first")
        volumes = {volume or sanitise(disk.path) for disk, volume in found.disks}
        if volumes != set(copies):
            changes = ", ".join(sorted(volumes ^ set(copies))[:4])
            raise ConflictError(what, f"it had other disks then: {changes}", "give it the disks that it had")
        self._check_room(what, copies)
        for disk, volume in found.disks:
            copy = copies[volume]
            copy_still(self._link, self._domains, self._volumes, volume, copy, disk.format, replace=True)

    def ensure_gone(self, uid: str, name: str) -> None:
        """Delete a snapshot's copies, those too that never were whole."""
        found = self._look(uid)
        if found is None:
            return
        first = found.disks[0][1] if found.disks else ""
        for volume in sorted(found.copies.get(name, {}), key=lambda volume: volume != first):
            self._volumes.ensure_gone(_name(volume, name))

    def _check_room(self, what: str, copies: dict[str, str]) -> None:
        """Raise FailedError where the copies do not fit into the room of the disks that they replace."""
        pairs = [(self._volumes.find(volume), self._volumes.find(copy)) for volume, copy in copies.items()]
        needed = sum(copy.allocation_bytes - (disk.allocation_bytes if disk else 0) for disk, copy in pairs if copy)
        free = self._volumes.free_bytes()
        if needed > free:
            raise no_room(what, f"{free >> 20} MiB are free, {needed >> 20} MiB are needed")

    def _require(self, uid: str) -> _Copied:
        found = self._look(uid)
        if found is None:
            raise NotFoundError(self._domains.name(uid), "the host has no such domain", "`kc vm list` shows what is")
        return found

    def _look(self, uid: str) -> _Copied | None:
        return self._link.observe(
            self._domains.name(uid), lambda connection: _look(connection, self._volumes.pool, uid), SEARCH_SECONDS
        )


def _name(volume: str, snapshot: str) -> str:
    return f"{volume}.{snapshot}.snapshot"


def _look(connection: libvirt.virConnect, pool_name: str, uid: str) -> _Copied | None:
    domain = find(connection, uid)
    pool = find_pool(connection, pool_name)
    if domain is None or pool is None:
        return None
    names = set(list_names(pool))
    disks = read_disks(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    placed = [(disk, _find_name(pool, disk.path, names)) for disk in disks]
    own = {volume for _, volume in placed}
    copies: dict[str, dict[str, str]] = {}
    at: dict[str, float] = {}
    partial = {marked_name(name) for name in names} - {""}
    for name in names | partial:
        match = _NAME.fullmatch(name)
        if match is None or not (match["volume"] in own or match["volume"].startswith(f"kc-{uid}-")):
            continue
        copies.setdefault(match["snapshot"], {})[match["volume"]] = name
        if placed and match["volume"] == placed[0][1] and name not in partial:
            at[match["snapshot"]] = _changed_at(pool, name)
    return _Copied(domain.isActive() == 1, placed, copies, at)


def _find_name(pool: libvirt.virStoragePool, path: str, names: set[str]) -> str:
    """Return the name of the pool's volume at a path, also while its content is being replaced; else ""."""
    name = path.rpartition("/")[2]
    if name in names:
        volume = find_volume(pool, name)
        return name if volume is not None and volume.path() == path else ""
    return name if any(marked_name(other) == name for other in names) else ""


def _changed_at(pool: libvirt.virStoragePool, name: str) -> float:
    volume = find_volume(pool, name)
    try:
        return read_changed_at(volume.XMLDesc()) if volume is not None else 0.0
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return 0.0
        raise
