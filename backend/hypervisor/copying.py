"""A volume copied beside itself, over the same base, whole or not at all; also while a guest writes to it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import libvirt

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError, TimedOutError
from backend.hypervisor.claims import Claim
from backend.hypervisor.domain_xml import Source
from backend.hypervisor.domains import Domains
from backend.hypervisor.errors import no_room
from backend.hypervisor.link import Channel, Link
from backend.hypervisor.mirroring import (
    HELPER_DISK,
    START_SECONDS,
    Mirror,
    Progress,
    Writer,
    find_format,
    find_writer,
    start_helper,
    stop_mirrors,
)
from backend.hypervisor.plan import Volume
from backend.hypervisor.pools import find_details, list_names, marked_name, marker_token, refresh, require_pool
from backend.hypervisor.usage import look_up
from backend.hypervisor.volume_xml import VolumeDetails, build_blank, build_overlay, build_raw
from backend.hypervisor.volumes import Volumes, follow_chain

# Who copies lets his marker grow each second; after this long without it he is dead.
DEAD_SECONDS = 10.0
# How long not a byte may move, and a copy that is nearly there may take to catch up with what the guest writes.
STALL_SECONDS = 60.0
POLL_SECONDS = 0.05
# A source that is started or stopped while it is copied is begun with again.
ATTEMPTS = 3

# A pool with less than this is taken for full.
FULL_BYTES = 16 << 20

T = TypeVar("T")
Report = Callable[[int, int], None]


def copy_volume(
    link: Link, domains: Domains, volumes: Volumes, name: str, source: str, report: Report | None = None
) -> Volume:
    """Copy a volume; see `Hypervisor.ensure_copy`."""
    with link.open_channel(f"volume {name}") as channel:
        return _Copy(channel, domains, volumes.pool, name, source, report or _ignore).make()


def copy_still(
    link: Link, domains: Domains, volumes: Volumes, name: str, source: str, volume_format: str, *, replace: bool = False
) -> Volume:
    """Copy a volume of a known format that no guest may write to meanwhile: ConflictError where one does.

    `replace`: a volume of that name is written anew, also one that is not whole, and keeps its name and place.
    """
    with link.open_channel(f"volume {name}") as channel:
        copy = _Copy(channel, domains, volumes.pool, name, source, _ignore, volume_format, is_still=True)
        return copy.make(replace=replace)


def _ignore(_done: int, _total: int) -> None:
    pass


class _Copy:
    """One copy of one volume."""

    def __init__(  # noqa: PLR0913 - what is copied, where to and how
        self,
        channel: Channel,
        domains: Domains,
        pool: str,
        name: str,
        source: str,
        report: Report,
        volume_format: str = "",
        *,
        is_still: bool = False,
    ) -> None:
        self._channel = channel
        self._domains = domains
        self._pool = pool
        self._name = name
        self._what = f"volume {name}"
        self._source = source
        self._report = report
        self._format = volume_format
        self._is_still = is_still
        self._total = 0
        self._left = 0
        self._claim = Claim(channel, pool, name, DEAD_SECONDS, self._stop_others)

    def make(self, *, replace: bool = False) -> Volume:
        """Return the whole copy."""
        return self._claim.make(
            lambda: self._call(self._build),
            self._fill,
            lambda done: self._report(min(done, self._total), self._total),
            replace=lambda made: replace and made is None,
        )

    def _call(self, function: Callable[[libvirt.virConnect], T]) -> T:
        return self._channel.call(self._what, function)

    def _stop_others(self, connection: libvirt.virConnect, markers: tuple[str, ...]) -> None:
        details = find_details(require_pool(connection, self._pool), self._name)
        path = details.volume.path if details is not None else ""
        stop_mirrors(connection, path, tuple(map(marker_token, markers)))

    def _find_source(self, connection: libvirt.virConnect) -> tuple[VolumeDetails, str]:
        """Return the source and its format: what its domain says, else libvirt."""
        pool = require_pool(connection, self._pool)
        details = find_details(pool, self._source)
        if details is None or any(marked_name(name) == self._source for name in list_names(pool)):
            raise NotFoundError(f"volume {self._source}", "it is not, or not wholly, in the pool", "was it deleted?")
        return details, self._format or find_format(connection, details.volume.path) or details.volume.format

    def _build(self, connection: libvirt.virConnect) -> str:
        """Return the XML of the copy."""
        details, volume_format = self._find_source(connection)
        capacity = details.volume.capacity_bytes
        if volume_format == "raw":
            pool = require_pool(connection, self._pool)
            physical = pool.storageVolLookupByName(self._source).infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)
            return build_raw(self._name, physical[2])
        if volume_format != "qcow2":
            raise RefusedError(self._what, f"no {volume_format} volumes are copied", "convert it to qcow2 first")
        if details.backing_path:
            return build_overlay(self._name, capacity, details.backing_path, details.backing_format or "raw")
        return build_blank(self._name, capacity)

    def _fill(self) -> None:
        for _ in range(ATTEMPTS):
            if self._fill_once():
                return
        raise ConflictError(self._what, f"the VM of {self._source} was started or stopped meanwhile", "try again")

    def _fill_once(self) -> bool:
        """Copy; False where the source's domain was started or went off under it."""
        writer = self._call(self._find_writer)
        if writer is None:
            return self._copy_resting()
        if self._is_still:
            raise ConflictError(self._what, f"{self._source} is open in a VM that is on", "stop the VM first")
        return self._copy_live(writer)

    def _find_writer(self, connection: libvirt.virConnect) -> Writer | None:
        return find_writer(connection, self._find_source(connection)[0].volume.path)

    def _find_chains(self, connection: libvirt.virConnect) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
        """Return the source and the copy, each with what backs it."""
        details, volume_format = self._find_source(connection)
        source = follow_chain(connection, details, volume_format)
        copy = find_details(require_pool(connection, self._pool), self._name)
        if copy is None:
            raise FailedError(self._what, "it was deleted while it was made", "try again")
        return source, (Source(copy.volume.path, volume_format, copy.kind == "block"), *source[1:])

    def _copy_resting(self) -> bool:
        source, target = self._call(self._find_chains)
        try:
            uid = self._channel.call(
                self._what, lambda connection: start_helper(connection, self._claim.token, source), START_SECONDS
            )
        except KCError:
            if self._call(self._find_writer) is None:
                raise
            return False
        mirror = Mirror(self._channel, self._what, uid, HELPER_DISK)
        try:
            return self._follow(mirror, target)
        finally:
            # Where the connection is lost, it goes with that.
            with contextlib.suppress(KCError):
                mirror.destroy()

    def _copy_live(self, writer: Writer) -> bool:
        mirror = Mirror(self._channel, self._domains.name(writer.uid), writer.uid, writer.disk)
        if self._claim.has_buried:
            mirror.thaw()
        _, target = self._call(self._find_chains)
        return self._follow(mirror, target, writer)

    def _follow(self, mirror: Mirror, target: tuple[Source, ...], writer: Writer | None = None) -> bool:
        """Have a copy made; False where the domain that makes it goes off."""
        try:
            while not mirror.start(target):
                self._await_turn(mirror)
            if not self._await_ready(mirror):
                if not mirror.is_on():
                    return False
                self._call(self._explain)
            if writer is None:
                mirror.finish()
            else:
                self._finish_frozen(mirror)
        except BaseException as error:
            with contextlib.suppress(KCError):
                # By its target: another one's copy of the same disk goes on.
                self._call(lambda connection: stop_mirrors(connection, target[0].path, ()))
                if isinstance(error, KCError) and not mirror.is_on():
                    return False
            raise
        return True

    def _finish_frozen(self, mirror: Mirror) -> None:
        try:
            mirror.freeze()
            mirror.finish()
        finally:
            mirror.thaw()

    def _await_ready(self, mirror: Mirror) -> bool:
        """Wait until the copy has caught up; False where it is no more."""
        seen: Progress | None = None
        moved_at = time.monotonic()
        while (progress := mirror.look()) is not None:
            self._left, self._total = progress.total - progress.done, progress.total
            self._report(progress.done, progress.total)
            if progress.is_ready:
                return True
            self._claim.beat()
            now = time.monotonic()
            if progress != seen:
                seen, moved_at = progress, now
            elif now - moved_at > STALL_SECONDS:
                raise TimedOutError(
                    self._what, f"not a byte was copied for {STALL_SECONDS:.0f} s", "is the host's storage stuck?"
                )
            time.sleep(POLL_SECONDS)
        return False

    def _await_turn(self, mirror: Mirror) -> None:
        """Wait while the disk is copied elsewhere, and end a copy whose maker is dead."""
        seen: list[VolumeDetails] = []
        moved_at = time.monotonic()
        while path := mirror.find_target():
            markers = self._call(lambda connection: self._find_markers(connection, path))
            self._report(0, self._total)
            self._claim.beat()
            if not markers and mirror.find_target() == path:
                raise ConflictError(
                    mirror.what, "its disk is being copied or merged by somebody else", "wait until that is done"
                )
            if markers != seen:
                seen, moved_at = markers, time.monotonic()
            elif time.monotonic() - moved_at > DEAD_SECONDS:
                self._call(lambda connection: stop_mirrors(connection, path, ()))
            time.sleep(POLL_SECONDS)

    def _find_markers(self, connection: libvirt.virConnect, path: str) -> list[VolumeDetails]:
        """Return the markers of the volume that another copy makes; they grow while its maker lives."""
        pool = require_pool(connection, self._pool)
        made = look_up(lambda: connection.storageVolLookupByPath(path))
        name = made.volume.name if made is not None else ""
        markers = [find_details(pool, other) for other in list_names(pool) if name and marked_name(other) == name]
        return [marker for marker in markers if marker is not None]

    def _explain(self, connection: libvirt.virConnect) -> None:
        """Raise FailedError with why QEMU gave a copy up, which it does not tell."""
        pool = require_pool(connection, self._pool)
        refresh(pool)
        free = pool.info()[3]
        if free < min(self._left, FULL_BYTES):
            raise no_room(self._what, f"{free >> 20} MiB are free, {self._left >> 20} MiB were still to come")
        raise FailedError(self._what, "QEMU broke the copy off", "its log on the host, or the kernel's, tells why")
