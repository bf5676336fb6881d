"""Whole volumes, or none: bytes on their way into the pool.

libvirt cannot rename a volume, so a marker beside it (`NAME.TOKEN.part`) says that it is not whole. The marker is made
before the volume and deleted after its last byte; one who is killed leaves it behind, and everybody knows. It is the
lock, too: who finds no other marker beside his own has the volume to himself, and who finds one waits for it. A marker
beside which nothing moves for a while is a dead one's; deleting it decides, because only one can, and its owner, should
he come back to life, sees at the end that it is gone, and begins again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

import libvirt

from backend.errors import FailedError, KCError
from backend.hypervisor.link import Channel, Link
from backend.hypervisor.plan import Volume
from backend.hypervisor.pools import (
    delete_volume,
    find_details,
    find_volume,
    list_names,
    marked_name,
    marker_name,
    require_pool,
)
from backend.hypervisor.volume_xml import build_raw

CHUNK_BYTES = 1 << 20
STALL_SECONDS = 15.0
POLL_SECONDS = 0.1
BACK_OFF_SECONDS = 0.2

T = TypeVar("T")
Report = Callable[[int], None]


def upload_volume(
    link: Link, pool: str, name: str, source: BinaryIO, size_bytes: int, volume_format: str, report: Report | None
) -> Volume:
    """Write a volume whole; what another process uploads meanwhile, of the same name and size, is taken for it."""
    with link.open_channel(f"volume {name}") as channel:
        upload = _Upload(channel, pool, name, size_bytes, report or _ignore)
        while True:
            volume = upload.await_others()
            if volume is None and upload.claim():
                upload.write(source)
                volume = upload.commit()
            if volume is not None:
                return volume._replace(format=volume_format)


def _ignore(_done: int) -> None:
    pass


class _Upload:
    """One process's way to a whole volume."""

    def __init__(self, channel: Channel, pool: str, name: str, size_bytes: int, report: Report) -> None:
        self._channel = channel
        self._pool_name = pool
        self._name = name
        self._what = f"volume {name}"
        self._size = size_bytes
        self._report = report
        self._marker = marker_name(name, os.urandom(4).hex())

    def await_others(self) -> Volume | None:
        """Wait while others upload, and bury the dead; return what another one finished meanwhile."""
        seen: _Progress | None = None
        moved_at = time.monotonic()
        while (progress := self._call(self._look)).markers:
            if progress != seen:
                seen, moved_at = progress, time.monotonic()
            elif time.monotonic() - moved_at > STALL_SECONDS:
                self._call(lambda pool: [delete_volume(pool, marker) for marker in progress.markers])
                return None
            self._report(min(progress.allocation_bytes, self._size))
            time.sleep(POLL_SECONDS)
        if seen is None or progress.volume is None or progress.volume.capacity_bytes != self._size:
            return None
        return progress.volume

    def claim(self) -> bool:
        """Make an empty volume that is this one's alone; False where another one is at it."""
        try:
            is_mine = self._call(self._make_empty)
        except BaseException:
            self._give_up()
            raise
        if not is_mine:
            time.sleep(random.uniform(0, BACK_OFF_SECONDS))  # noqa: S311 - two that back off are not to meet again
        return is_mine

    def write(self, source: BinaryIO) -> None:
        """Send the bytes; on any failure nothing stays."""
        try:
            self._send(source)
        except BaseException:
            self._give_up()
            raise

    def commit(self) -> Volume | None:
        """Say that the volume is whole; None where this one had been taken for dead."""
        if not self._call(lambda pool: delete_volume(pool, self._marker)):
            return None
        details = self._call(lambda pool: find_details(pool, self._name))
        return details.volume if details is not None else None

    def _call(self, function: Callable[[libvirt.virStoragePool], T]) -> T:
        return self._channel.call(self._what, lambda raw: function(require_pool(raw, self._pool_name)))

    def _other_markers(self, pool: libvirt.virStoragePool) -> tuple[str, ...]:
        return tuple(
            sorted(name for name in list_names(pool) if name != self._marker and marked_name(name) == self._name)
        )

    def _look(self, pool: libvirt.virStoragePool) -> _Progress:
        markers = self._other_markers(pool)
        details = find_details(pool, self._name)
        volume = details.volume if details is not None else None
        return _Progress(markers, volume, volume.allocation_bytes if volume is not None else 0)

    def _make_empty(self, pool: libvirt.virStoragePool) -> bool:
        pool.createXML(build_raw(self._marker, 1))
        if self._other_markers(pool):
            delete_volume(pool, self._marker)
            return False
        delete_volume(pool, self._name)
        pool.createXML(build_raw(self._name, self._size))
        return True

    def _send(self, source: BinaryIO) -> None:
        stream = self._channel.call(self._what, self._begin)
        try:
            for start, length, is_hole in find_extents(source, self._size):
                if is_hole:
                    self._channel.call(self._what, lambda _, length=length: stream.sendHole(length))  # type: ignore[misc]
                else:
                    self._send_data(stream, source, start, length)
                self._report(start + length)
            self._channel.call(self._what, lambda _: stream.finish())
        except BaseException:
            with contextlib.suppress(KCError):
                self._channel.call(self._what, lambda _: stream.abort())
            raise

    def _begin(self, raw: libvirt.virConnect) -> libvirt.virStream:
        volume = find_volume(require_pool(raw, self._pool_name), self._name)
        if volume is None:
            raise FailedError(self._what, "it was deleted while it was uploaded", "upload it again")
        stream = raw.newStream()
        volume.upload(stream, 0, self._size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
        return stream

    def _send_data(self, stream: libvirt.virStream, source: BinaryIO, start: int, length: int) -> None:
        source.seek(start)
        end = start + length
        while start < end:
            chunk = source.read(min(CHUNK_BYTES, end - start))
            if not chunk:
                raise FailedError(self._what, "the source ended too early", "has it changed? try again")
            self._channel.call(self._what, lambda _, chunk=chunk: _send_whole(stream, chunk))  # type: ignore[misc]
            start += len(chunk)
            self._report(start)

    def _give_up(self) -> None:
        """Take everything back, unless another one has taken over; a lost connection leaves the marker to tell."""

        def undo(pool: libvirt.virStoragePool) -> None:
            if find_volume(pool, self._marker) is not None:
                delete_volume(pool, self._name)
                delete_volume(pool, self._marker)

        with contextlib.suppress(KCError):
            self._call(undo)


class _Progress(NamedTuple):
    """What others have of a volume: their markers, the volume itself, and how much of it there is."""

    markers: tuple[str, ...]
    volume: Volume | None
    allocation_bytes: int


def _send_whole(stream: libvirt.virStream, chunk: bytes) -> None:
    sent = 0
    while sent < len(chunk):
        sent += stream.send(chunk[sent:] if sent else chunk)


def find_extents(source: BinaryIO, size_bytes: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, length, is a hole) over the first `size_bytes` of a file; what cannot tell has no holes."""
    try:
        descriptor = source.fileno()
    except (io.UnsupportedOperation, AttributeError):
        descriptor = -1
    start = 0
    while start < size_bytes:
        data = _seek(descriptor, start, os.SEEK_DATA, start) if descriptor >= 0 else start
        data = size_bytes if data < 0 else min(data, size_bytes)
        if data > start:
            yield start, data - start, True
            start = data
            continue
        hole = _seek(descriptor, start, os.SEEK_HOLE, size_bytes) if descriptor >= 0 else size_bytes
        end = min(hole, size_bytes) if hole > start else size_bytes
        yield start, end - start, False
        start = end


def _seek(descriptor: int, offset: int, whence: int, otherwise: int) -> int:
    """Return where data or a hole begins; -1 past the last data, `otherwise` where the file cannot tell."""
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        return -1 if error.errno == errno.ENXIO else otherwise
