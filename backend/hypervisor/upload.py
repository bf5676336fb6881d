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
from dataclasses import replace
from typing import BinaryIO

import libvirt

from backend.errors import FailedError
from backend.hypervisor.errors import is_code
from backend.hypervisor.link import Link
from backend.hypervisor.plan import Volume
from backend.hypervisor.pools import delete_volume, find_details, find_volume, marked_name, marker_name, require_pool
from backend.hypervisor.volume_xml import build_raw

CHUNK_BYTES = 1 << 20
STALL_SECONDS = 15.0
POLL_SECONDS = 0.1
BACK_OFF_SECONDS = 0.2

Report = Callable[[int], None]


def upload_volume(
    link: Link, pool: str, name: str, source: BinaryIO, size_bytes: int, volume_format: str, report: Report | None
) -> Volume:
    """Write a volume whole; what another process uploads meanwhile, of the same name and size, is taken for it."""
    with link.transfer(f"volume {name}") as connection:
        upload = _Upload(connection, require_pool(connection, pool), name, size_bytes, report or _ignore)
        while True:
            volume = upload.await_others()
            if volume is None and upload.claim():
                upload.write(source)
                volume = upload.commit()
            if volume is not None:
                return replace(volume, format=volume_format)


def _ignore(_done: int) -> None:
    pass


class _Upload:
    """One process's way to a whole volume."""

    def __init__(
        self, connection: libvirt.virConnect, pool: libvirt.virStoragePool, name: str, size_bytes: int, report: Report
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._name = name
        self._size = size_bytes
        self._report = report
        self._marker = marker_name(name, os.urandom(4).hex())

    def await_others(self) -> Volume | None:
        """Wait while others upload, and bury the dead; return what another one finished meanwhile."""
        waited = False
        seen: tuple[object, ...] = ()
        moved_at = time.monotonic()
        while markers := self._other_markers():
            waited = True
            now = (*markers, *self._progress())
            if now != seen:
                seen, moved_at = now, time.monotonic()
            elif time.monotonic() - moved_at > STALL_SECONDS:
                for marker in markers:
                    delete_volume(self._pool, marker)
                return None
            self._report(min(self._progress()[0], self._size))
            time.sleep(POLL_SECONDS)
        if not waited:
            return None
        details = find_details(self._pool, self._name)
        return details.volume if details is not None and details.volume.capacity_bytes == self._size else None

    def claim(self) -> bool:
        """Make an empty volume that is this one's alone; False where another one is at it."""
        self._pool.createXML(build_raw(self._marker, 1))
        try:
            if self._other_markers():
                delete_volume(self._pool, self._marker)
                time.sleep(random.uniform(0, BACK_OFF_SECONDS))  # noqa: S311 - two that back off are not to meet again
                return False
            delete_volume(self._pool, self._name)
            self._pool.createXML(build_raw(self._name, self._size))
        except BaseException:
            self._give_up()
            raise
        return True

    def write(self, source: BinaryIO) -> None:
        """Send the bytes; on any failure nothing stays."""
        try:
            self._send(source)
        except BaseException:
            self._give_up()
            raise

    def commit(self) -> Volume | None:
        """Say that the volume is whole; None where this one had been taken for dead."""
        if not delete_volume(self._pool, self._marker):
            return None
        details = find_details(self._pool, self._name)
        return details.volume if details is not None else None

    def _other_markers(self) -> list[str]:
        names = self._pool.listVolumes()
        return sorted(name for name in names if name != self._marker and marked_name(name) == self._name)

    def _progress(self) -> tuple[int, int]:
        """Return how many bytes of the volume there are, and how large it is."""
        volume = find_volume(self._pool, self._name)
        try:
            _, capacity, allocation = volume.info() if volume is not None else (0, 0, 0)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                raise
            return 0, 0
        return allocation, capacity

    def _send(self, source: BinaryIO) -> None:
        volume = find_volume(self._pool, self._name)
        if volume is None:
            raise FailedError(f"volume {self._name}", "it was deleted while it was uploaded", "upload it again")
        stream = self._connection.newStream()
        volume.upload(stream, 0, self._size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
        try:
            done = 0
            for start, length, is_hole in find_extents(source, self._size):
                if is_hole:
                    stream.sendHole(length)
                else:
                    self._send_data(stream, source, start, length)
                done = start + length
                self._report(done)
            stream.finish()
        except BaseException:
            with contextlib.suppress(libvirt.libvirtError):
                stream.abort()
            raise

    def _send_data(self, stream: libvirt.virStream, source: BinaryIO, start: int, length: int) -> None:
        source.seek(start)
        end = start + length
        while start < end:
            chunk = source.read(min(CHUNK_BYTES, end - start))
            if not chunk:
                raise FailedError(f"volume {self._name}", "the source ended too early", "has it changed? try again")
            sent = 0
            while sent < len(chunk):
                sent += stream.send(chunk[sent:] if sent else chunk)
            start += len(chunk)
            self._report(start)

    def _give_up(self) -> None:
        """Take everything back, unless another one has taken over; a lost connection leaves the marker to tell."""
        with contextlib.suppress(libvirt.libvirtError):
            if find_volume(self._pool, self._marker) is not None:
                delete_volume(self._pool, self._name)
                delete_volume(self._pool, self._marker)


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
