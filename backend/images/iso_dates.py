"""The dates in an ISO 9660 image, all made the same, so that equal content is equal bytes.

Source: ECMA-119 §8.4 and §9.1, Joliet's equal descriptors, and Rock Ridge's `TF` entries (IEEE P1282 §4.1.6).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SECTOR_BYTES = 2048
_FIRST_DESCRIPTOR = 16
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_ROOT_RECORD = 156
_DESCRIPTOR_DATES = (813, 830, 864)  # created, modified, effective
_DIRECTORY = 2

# 2000-01-01 00:00:00 UTC, as descriptors and as records write it.
_LONG_DATE = b"2000010100000000\x00"
_SHORT_DATE = bytes([100, 1, 1, 0, 0, 0, 0])


def settle_dates(image: bytearray | memoryview) -> bytes:
    """Return the image with each date set to the first day of the year 2000; its directories lie in the root."""
    data = bytearray(image)
    for descriptor in _find_descriptors(data):
        for offset in _DESCRIPTOR_DATES:
            data[descriptor + offset : descriptor + offset + len(_LONG_DATE)] = _LONG_DATE
        root = descriptor + _ROOT_RECORD
        _settle_record(data, root)
        for record in _find_records(data, root):
            _settle_record(data, record)
    return bytes(data)


def _find_descriptors(data: bytearray) -> Iterator[int]:
    """Yield the offsets of the primary and supplementary volume descriptors."""
    for offset in range(_FIRST_DESCRIPTOR * _SECTOR_BYTES, len(data), _SECTOR_BYTES):
        if data[offset] == _TERMINATOR:
            return
        if data[offset] in (_PRIMARY, _SUPPLEMENTARY):
            yield offset


def _find_records(data: bytearray, directory: int) -> Iterator[int]:
    """Yield the offsets of the records in the directory whose own record is at `directory`."""
    (extent,) = struct.unpack_from("<I", data, directory + 2)
    (length,) = struct.unpack_from("<I", data, directory + 10)
    start = extent * _SECTOR_BYTES
    offset = start
    while offset < start + length:
        if data[offset]:
            yield offset
            offset += data[offset]
        else:
            # No record crosses the end of a sector: the rest of this one is empty.
            offset += _SECTOR_BYTES - offset % _SECTOR_BYTES


def _settle_record(data: bytearray, record: int) -> None:
    data[record + 18 : record + 18 + len(_SHORT_DATE)] = _SHORT_DATE
    name_length = data[record + 32]
    area = record + 33 + name_length + (name_length % 2 == 0)
    _settle_system_use(data, area, record + data[record])


def _settle_system_use(data: bytearray, offset: int, end: int) -> None:
    """Settle the time stamps in a system use area and in its continuation."""
    while offset + 4 <= end and (length := data[offset + 2]) >= 4:  # noqa: PLR2004 - the size of an entry's head
        kind = data[offset : offset + 2]
        if kind == b"TF":
            for stamp in range(offset + 5, offset + length, len(_SHORT_DATE)):
                data[stamp : stamp + len(_SHORT_DATE)] = _SHORT_DATE
        elif kind == b"CE":
            sector, start, size = (struct.unpack_from("<I", data, offset + at)[0] for at in (4, 12, 20))
            continuation = sector * _SECTOR_BYTES + start
            _settle_system_use(data, continuation, continuation + size)
        offset += length
