"""Bytes on their way into the pool."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

import libvirt

from backend.errors import FailedError, KCError
from backend.hypervisor.claims import Claim
from backend.hypervisor.link import Channel, Link
from backend.hypervisor.plan import Volume
from backend.hypervisor.pools import find_volume, require_pool
from backend.hypervisor.volume_xml import build_raw

CHUNK_BYTES = 1 << 20
STALL_SECONDS = 15.0

Report = Callable[[int], None]


def upload_volume(
    link: Link, pool: str, name: str, source: BinaryIO, size_bytes: int, volume_format: str, report: Report | None
) -> Volume:
    """Write a volume whole; what another process uploads meanwhile, of the same name and size, is taken for it."""
    tell = report or _ignore
    with link.open_channel(f"volume {name}") as channel:
        made = Claim(channel, pool, name, STALL_SECONDS).make(
            lambda: build_raw(name, size_bytes),
            lambda: _Upload(channel, pool, name, size_bytes, tell).send(source),
            lambda done: tell(min(done, size_bytes)),
            replace=lambda volume: volume is None or volume.capacity_bytes != size_bytes,
        )
    return made._replace(format=volume_format)


def _ignore(_done: int) -> None:
    pass


class _Upload:
    """The bytes of one volume."""

    def __init__(self, channel: Channel, pool: str, name: str, size_bytes: int, report: Report) -> None:
        self._channel = channel
        self._pool_name = pool
        self._name = name
        self._what = f"volume {name}"
        self._size = size_bytes
        self._report = report

    def send(self, source: BinaryIO) -> None:
        """Send the source, its holes as holes."""
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
