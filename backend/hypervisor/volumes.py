"""The pool's volumes: made, found, read, deleted, all through libvirt's storage API, so that the host may be remote."""

from __future__ import annotations

import time
from collections.abc import Callable

import libvirt

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.hypervisor.domain_xml import Placement, Source
from backend.hypervisor.errors import is_code
from backend.hypervisor.link import Channel, Link
from backend.hypervisor.mirroring import find_writer, stop_mirrors
from backend.hypervisor.plan import DiskPlan, DomainPlan, Volume
from backend.hypervisor.pools import (
    delete_volume,
    find_details,
    find_pool,
    find_volume,
    list_names,
    marked_name,
    marker_token,
    refresh,
    require_pool,
)
from backend.hypervisor.usage import LONGEST_CHAIN, look_up, volume_users
from backend.hypervisor.volume_xml import FILE_POOLS, VolumeDetails, build_blank, build_overlay, read_pool

CHANGE_SECONDS = 60.0
SEARCH_SECONDS = 30.0
CHUNK_BYTES = 256 * 1024
# What backs a volume does not change while it exists; a new one of the same name is seen this soon.
KNOWN_SECONDS = 10.0
# virtlogd keeps three full logs beside the current one by default: NAME.0 is the newest of them.
OLDER_LOGS = 9


class Volumes:
    """The volumes of one pool of one host."""

    def __init__(self, link: Link, pool: str) -> None:
        self.pool = pool
        self._link = link
        self._known: dict[str, tuple[VolumeDetails, float]] = {}

    def free_bytes(self) -> int:
        """Return what is free in the pool."""

        def fetch(connection: libvirt.virConnect) -> int:
            pool = require_pool(connection, self.pool)
            refresh(pool)
            return pool.info()[3]

        return self._link.observe(f"storage pool {self.pool}", fetch)

    def find(self, name: str) -> Volume | None:
        """Return one volume, or None; one that is not whole is as good as none."""

        def fetch(connection: libvirt.virConnect) -> Volume | None:
            pool = find_pool(connection, self.pool)
            if pool is None:
                return None
            # One list shows both a volume and its marker, or neither.
            names = list_names(pool)
            if name not in names:
                refresh(pool)
                names = list_names(pool)
            if name not in names or any(marked_name(other) == name for other in names):
                return None
            details = find_details(pool, name)
            return None if details is None else details.volume

        return self._link.observe(f"volume {name}", fetch)

    def list_all(self, prefix: str) -> list[Volume]:
        """Return the volumes whose names begin with `prefix`, those too that are not whole."""

        def fetch(connection: libvirt.virConnect) -> list[Volume]:
            pool = find_pool(connection, self.pool)
            if pool is None:
                return []
            refresh(pool)
            return _list(pool, prefix)

        return self._link.observe(f"storage pool {self.pool}", fetch, SEARCH_SECONDS)

    def ensure_overlay(self, name: str, *, base: str, base_format: str, capacity_bytes: int) -> Volume:
        """Make a qcow2 volume over another; an existing one of that name is returned."""
        what = f"volume {name}"

        def build(pool: libvirt.virStoragePool) -> str:
            below = find_details(pool, base)
            if below is None or any(marked_name(other) == base for other in list_names(pool)):
                raise NotFoundError(f"volume {base}", "it is not, or not wholly, in the pool", "upload the image again")
            if base_format == "raw" and capacity_bytes < below.volume.capacity_bytes:
                raise RefusedError(what, "the disk is smaller than its image", "give it more room")
            return build_overlay(name, capacity_bytes, below.volume.path, base_format)

        return self._ensure(name, build)

    def ensure_blank(self, name: str, capacity_bytes: int) -> Volume:
        """Make an empty qcow2 volume; an existing one of that name is returned."""
        return self._ensure(name, lambda _: build_blank(name, capacity_bytes))

    def _ensure(self, name: str, build: Callable[[libvirt.virStoragePool], str]) -> Volume:
        what = f"volume {name}"

        def make(connection: libvirt.virConnect) -> Volume:
            pool = require_pool(connection, self.pool)
            # One list shows both a volume and its marker, or neither.
            names = list_names(pool)
            if any(marked_name(other) == name for other in names):
                raise ConflictError(what, "it is being written", "wait; or restore or copy it again")
            existing = find_details(pool, name) if name in names else None
            if existing is not None:
                return existing.volume
            try:
                pool.createXML(build(pool))
            except libvirt.libvirtError as error:
                # Another process may have been faster.
                if not is_code(error, libvirt.VIR_ERR_STORAGE_VOL_EXIST):
                    raise
            made = find_details(pool, name)
            if made is None:
                raise FailedError(what, "it was deleted while it was made", "try again")
            return made.volume

        return self._link.control(what, make, CHANGE_SECONDS)

    def ensure_capacity(self, name: str, capacity_bytes: int) -> Volume:
        """Grow a volume; raise ConflictError for one that a domain which is on has open; a larger one stays."""
        what = f"volume {name}"

        def grow(connection: libvirt.virConnect) -> Volume:
            pool = require_pool(connection, self.pool)
            details = _require(pool, name)
            if details.volume.capacity_bytes >= capacity_bytes:
                return details.volume
            writer = find_writer(connection, details.volume.path)
            if writer is not None:
                raise ConflictError(what, "a VM that is on has it open", "stop the VM, or grow the disk in it")
            try:
                pool.storageVolLookupByName(name).resize(capacity_bytes)
            except libvirt.libvirtError as error:
                if "v2 image which has snapshots" not in str(error):
                    raise
                raise ConflictError(
                    what, "its format is too old to grow while it has snapshots", "delete its snapshots first"
                ) from error
            return _require(pool, name).volume

        return self._link.control(what, grow, CHANGE_SECONDS)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return bytes of a volume's file (see the protocol); b"" where there is none."""
        with self._link.open_channel(f"volume {name}") as channel:
            return self._download(channel, name, offset, length)

    def read_log(self, name: str, limit_bytes: int) -> bytes:
        """Return the last bytes of a console's log, across the files that it has been rotated into."""
        parts: list[bytes] = []
        wanted = limit_bytes
        with self._link.open_channel(f"volume {name}") as channel:
            for file in (name, *(f"{name}.{index}" for index in range(OLDER_LOGS))):
                part = self._download(channel, file, -wanted, 0)
                parts.append(part)
                wanted -= len(part)
                if wanted <= 0 or (not part and file != name):
                    break
        return b"".join(reversed(parts))

    def ensure_gone(self, name: str) -> None:
        """Delete a volume and the markers of its uploads; raise ConflictError where it is used."""
        what = f"volume {name}"

        def remove(connection: libvirt.virConnect) -> None:
            pool = find_pool(connection, self.pool)
            if pool is None:
                return
            volume = find_volume(pool, name)
            if volume is None:
                refresh(pool)
            markers = [other for other in list_names(pool) if marked_name(other) == name]
            if markers:
                # A copy that was given up may still be going on.
                stop_mirrors(connection, volume.path() if volume else "", tuple(map(marker_token, markers)))
            users = self._find_users(connection, pool, name)
            if users:
                raise ConflictError(what, f"in use by {', '.join(users[:3])}", "delete what uses it first")
            for other in (name, *markers):
                delete_volume(pool, other)
            self._known.pop(name, None)

        self._link.control(what, remove, CHANGE_SECONDS)

    def users(self, name: str) -> list[str]:
        """Return who uses a volume: names of domains, and `volume NAME` for overlays that no domain has."""

        def fetch(connection: libvirt.virConnect) -> list[str]:
            pool = find_pool(connection, self.pool)
            return [] if pool is None else self._find_users(connection, pool, name)

        return self._link.observe(f"volume {name}", fetch, SEARCH_SECONDS)

    def place(self, plan: DomainPlan) -> Placement:
        """Return where a plan's volumes are; raise NotFoundError for one that is not there."""

        def fetch(connection: libvirt.virConnect) -> Placement:
            pool = require_pool(connection, self.pool)
            details = read_pool(pool.XMLDesc())
            log = f"{details.path}/{plan.console_log}" if plan.console_log and details.type in FILE_POOLS else ""
            return Placement(
                disks=tuple(_find_chain(connection, pool, disk) for disk in plan.disks),
                seed=_source(_require(pool, plan.seed), "raw") if plan.seed else None,
                console_log=log,
                cdrom=_source(_require(pool, plan.cdrom), "raw") if plan.cdrom else None,
            )

        return self._link.observe(f"VM {plan.name}", fetch)

    def find_source(self, name: str) -> Source:
        """Return where a raw volume is; raise NotFoundError."""
        return self._link.observe(
            f"volume {name}",
            lambda connection: _source(_require(require_pool(connection, self.pool), name), "raw"),
        )

    def _download(self, channel: Channel, name: str, offset: int, length: int) -> bytes:
        what = f"volume {name}"
        stream = channel.call(what, lambda raw: self._begin_download(raw, name, offset, length))
        if stream is None:
            return b""
        data = bytearray()
        while True:
            chunk = channel.call(what, lambda _: stream.recv(CHUNK_BYTES))
            if not chunk or isinstance(chunk, int):
                break
            data += chunk
        channel.call(what, lambda _: stream.finish())
        return bytes(data)

    def _begin_download(self, raw: libvirt.virConnect, name: str, offset: int, length: int) -> libvirt.virStream | None:
        pool = find_pool(raw, self.pool)
        if pool is None:
            return None
        volume = find_volume(pool, name)
        if volume is None:
            refresh(pool)
            volume = find_volume(pool, name)
        if volume is None:
            return None
        size = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]
        start = max(size + offset, 0) if offset < 0 else min(offset, size)
        wanted = min(length or size, size - start)
        if wanted <= 0:
            return None
        stream = raw.newStream()
        volume.download(stream, start, wanted)
        return stream

    def _find_users(self, connection: libvirt.virConnect, pool: libvirt.virStoragePool, name: str) -> list[str]:
        target = find_details(pool, name)
        if target is None:
            return []
        return volume_users(connection, target.volume.path, self._read_all(pool))

    def _read_all(self, pool: libvirt.virStoragePool) -> dict[str, VolumeDetails]:
        """Return the pool's volumes by path; what was read a moment ago is not read again."""
        now = time.monotonic()
        fresh: dict[str, tuple[VolumeDetails, float]] = {}
        for name in list_names(pool):
            known = self._known.get(name)
            if known is None or now - known[1] > KNOWN_SECONDS:
                details = find_details(pool, name)
                if details is None:
                    continue
                known = (details, now)
            fresh[name] = known
        self._known = fresh
        return {details.volume.path: details for details, _ in fresh.values()}


def _list(pool: libvirt.virStoragePool, prefix: str) -> list[Volume]:
    names = set(list_names(pool))
    partial = {marked_name(name) for name in names} - {""}
    found = []
    for name in sorted(names | partial):
        if not name.startswith(prefix) or marked_name(name):
            continue
        details = find_details(pool, name)
        if details is not None:
            found.append(details.volume._replace(whole=name not in partial))
        elif name in partial:
            # Given up before its first byte; listed so that it is cleared away.
            found.append(Volume(name, "", "raw", 0, 0, whole=False))
    return found


def _require(pool: libvirt.virStoragePool, name: str) -> VolumeDetails:
    details = find_details(pool, name)
    if details is None:
        raise NotFoundError(f"volume {name}", "it is not in the pool", "was it deleted? make the VM anew")
    return details


def _source(details: VolumeDetails, volume_format: str) -> Source:
    if details.kind not in ("file", "block"):
        raise RefusedError(
            f"volume {details.volume.name}", f"this version uses no {details.kind} volumes", "name another pool"
        )
    return Source(details.volume.path, volume_format, details.kind == "block")


def _find_chain(connection: libvirt.virConnect, pool: libvirt.virStoragePool, disk: DiskPlan) -> tuple[Source, ...]:
    """Return a disk's volume and all that back it; raise FailedError where another one backs it than is planned."""
    top = _require(pool, disk.volume)
    if not disk.base_volume:
        return (_source(top, disk.format),)
    base = _require(pool, disk.base_volume)
    if top.backing_path != base.volume.path:
        raise FailedError(
            f"volume {disk.volume}", f"it is no overlay of {disk.base_volume}", "delete it, and it is made anew"
        )
    return (_source(top, disk.format), *follow_chain(connection, base, disk.base_format))


def follow_chain(connection: libvirt.virConnect, top: VolumeDetails, volume_format: str) -> tuple[Source, ...]:
    """Return where a volume of a known format is, and all that backs it."""
    chain = [_source(top, volume_format)]
    details: VolumeDetails | None = top
    # What a guest writes into a raw disk may look like a volume with another one below.
    while details is not None and details.backing_path and chain[-1].format != "raw" and len(chain) < LONGEST_CHAIN:
        path, backing_format = details.backing_path, details.backing_format or "raw"
        details = look_up(lambda path=path: connection.storageVolLookupByPath(path))  # type: ignore[misc]
        chain.append(Source(path, backing_format, details is not None and details.kind == "block"))
    return tuple(chain)
