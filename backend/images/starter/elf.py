"""Which shared libraries an ELF file asks for, read from the file itself, so that nothing foreign is run."""

from __future__ import annotations

import struct
from typing import NamedTuple

_LOAD, _DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
_PROGRAM_HEADERS_AT, _PROGRAM_HEADER_SIZES_AT = 32, 54


class _Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    alignment: int


def needed(content: bytes) -> list[str]:
    """Return the names of the libraries that a 64-bit little-endian ELF file needs; empty for any other content.

    The layout is that of the System V ABI, chapters 4 and 5. Raises `ValueError` where a header points outside.
    """
    if not content.startswith(b"\x7fELF\x02\x01"):
        return []
    try:
        return _needed(content)
    except (struct.error, StopIteration, OverflowError) as error:
        msg = "broken ELF file"
        raise ValueError(msg) from error


def _needed(content: bytes) -> list[str]:
    (start,) = struct.unpack_from("<Q", content, _PROGRAM_HEADERS_AT)
    size, count = struct.unpack_from("<HH", content, _PROGRAM_HEADER_SIZES_AT)
    segments = [_Segment._make(struct.unpack_from("<IIQQQQQQ", content, start + size * n)) for n in range(count)]
    entries: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _DYNAMIC:
            dynamic = content[segment.offset : segment.offset + segment.file_size]
            entries = list(struct.iter_unpack("<qQ", dynamic[: len(dynamic) // 16 * 16]))
    tags = [tag for tag, _ in entries]
    if _DT_NULL in tags:
        entries = entries[: tags.index(_DT_NULL)]
    names = [value for tag, value in entries if tag == _DT_NEEDED]
    if not names:
        return []
    address = next(value for tag, value in entries if tag == _DT_STRTAB)
    strings = next(
        address - segment.address + segment.offset
        for segment in segments
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.file_size
    )
    return [_string(content, strings + name) for name in names]


def _string(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode("ascii")
