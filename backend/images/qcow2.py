"""What stands in the header of a qcow2 file, and which of it makes the file unfit to be an image.

Source: `docs/interop/qcow2.txt` of QEMU. An image of ours stands alone: whatever would have QEMU open a second file,
ask for a key, or guess at a feature is a fault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"QFI\xfb"

# The size of the refcount table, the snapshots and the compatible features are left to qemu-img.
_HEADER = struct.Struct(">4xIQIIQIIQQ16x")
_HEADER_3 = struct.Struct(">Q8xQII")
_EXTENSION = struct.Struct(">II")
_SECTOR_BYTES = 512
_CLUSTER_BITS = range(9, 22)
_REFCOUNT_ORDERS = range(7)
_MAXIMUM_L1_BYTES = 32 << 20
_COMPRESSION_TYPES = (0, 1)  # zlib, zstd
_RAW_EXTERNAL_DATA = 1 << 1  # an autoclear feature

_EXTENSION_END = 0
_FORBIDDEN_EXTENSIONS = {
    0x44415441: "it keeps its data in another file",
    0x0537BE77: "it is encrypted",
}
_REPAIR = "repair it with qemu-img check -r all"
_FLATTEN = "make it stand alone with qemu-img convert -O qcow2"


class Fault(NamedTuple):
    """Why a header is refused, and what to do about it."""

    why: str
    hint: str


class Header(NamedTuple):
    """The fields of a header (sizes in bytes, offsets in the file); those of version 3 have their defaults in 2."""

    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    virtual_size: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    incompatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = 72
    compression: int = 0


# Bit of the incompatible features -> its fault; 3 is the compression type, whose value is looked at on its own.
_INCOMPATIBLE = {
    0: Fault("it was not closed cleanly", _REPAIR),
    1: Fault("it is marked as corrupt", _REPAIR),
    2: Fault("it keeps its data in another file", _FLATTEN),
    4: Fault("it uses extended L2 entries", _FLATTEN),
}
_COMPRESSION_BIT = 3


def read_header(head: bytes) -> Header | Fault:
    """Return the header that the first bytes of a file with the magic hold, or why there is none."""
    truncated = Fault("it is a qcow2 image that is cut off in its header", "fetch it again")
    if len(head) < _HEADER.size:
        return truncated
    common = _HEADER.unpack_from(head)
    version = common[0]
    if version not in (2, 3):
        return Fault(f"it is a qcow image of version {version}", _FLATTEN)
    if version == 2:  # noqa: PLR2004 - the version, compared where it is named
        return Header._make((*common, *Header._field_defaults.values()))
    if len(head) < _HEADER.size + _HEADER_3.size:
        return truncated
    incompatible, autoclear, order, length = _HEADER_3.unpack_from(head, _HEADER.size)
    at_compression = _HEADER.size + _HEADER_3.size
    compression = head[at_compression] if length > at_compression < len(head) else 0
    return Header._make((*common, incompatible, autoclear, order, length, compression))


def find_fault(head: bytes, file_bytes: int) -> Fault | None:
    """Return why a qcow2 file of `file_bytes` that begins with `head` is refused, or None."""
    header = read_header(head)
    if isinstance(header, Fault):
        return header
    checks = (_find_damage, _find_references, _find_features)
    return next((fault for check in checks for fault in check(header, head, file_bytes)), None)


def _find_references(header: Header, head: bytes, _file_bytes: int) -> Iterator[Fault]:
    """Yield what would have QEMU open another file or ask for a key."""
    if header.backing_offset or header.backing_size:
        yield Fault("it is an overlay: it has a backing file", _FLATTEN)
    if header.encryption:
        yield Fault("it is encrypted", "decrypt it with qemu-img convert")
    if header.autoclear & _RAW_EXTERNAL_DATA:
        yield Fault("it keeps its data in another file", _FLATTEN)
    yield from _find_extensions(header, head)


def _find_extensions(header: Header, head: bytes) -> Iterator[Fault]:
    """Yield forbidden header extensions, and a list of extensions that runs out of its cluster."""
    damaged = Fault("its header extensions are damaged", _REPAIR)
    end = min(len(head), 1 << header.cluster_bits) if header.cluster_bits in _CLUSTER_BITS else 0
    offset = header.length
    while offset + _EXTENSION.size <= end:
        kind, size = _EXTENSION.unpack_from(head, offset)
        if kind == _EXTENSION_END:
            return
        if kind in _FORBIDDEN_EXTENSIONS:
            yield Fault(_FORBIDDEN_EXTENSIONS[kind], _FLATTEN)
        offset += _EXTENSION.size + (size + 7 & ~7)
    if offset > end:
        yield damaged


def _find_features(header: Header, _head: bytes, _file_bytes: int) -> Iterator[Fault]:
    """Yield the incompatible features that are set, except the compression type."""
    for bit, fault in _INCOMPATIBLE.items():
        if header.incompatible >> bit & 1:
            yield fault
    unknown = header.incompatible & ~sum(1 << bit for bit in (*_INCOMPATIBLE, _COMPRESSION_BIT))
    if unknown:
        yield Fault(f"it uses qcow2 features that are not known here ({unknown:#x})", _FLATTEN)
    if header.compression not in _COMPRESSION_TYPES:
        yield Fault(f"it uses the unknown compression {header.compression}", _FLATTEN)


def _find_damage(header: Header, _head: bytes, file_bytes: int) -> Iterator[Fault]:
    """Yield values that no sound image has."""
    if header.cluster_bits not in _CLUSTER_BITS or header.refcount_order not in _REFCOUNT_ORDERS:
        yield Fault("its header is damaged", "fetch it again")
        return
    if header.virtual_size == 0 or header.virtual_size % _SECTOR_BYTES:
        yield Fault(f"its disk of {header.virtual_size} bytes is no whole number of sectors", "make it again")
    if header.l1_entries * 8 > _MAXIMUM_L1_BYTES:
        yield Fault("its table of clusters is too large", "make it again with larger clusters")
    l1_end = header.l1_offset + header.l1_entries * 8
    if max(l1_end, header.refcount_offset + (1 << header.cluster_bits)) > file_bytes:
        yield Fault("it is cut off: its tables lie behind the end of the file", "fetch it again")
