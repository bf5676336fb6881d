"""Pictures of a screen: what QEMU writes, looked at with suspicion, as PNG."""

from __future__ import annotations

import re
import struct
import zlib

LARGEST_SIDE = 8192
LARGEST_BYTES = 64 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = re.compile(re.escape(_PNG) + rb"\0\0\0\x0dIHDR(.{4})(.{4})", re.DOTALL)
_PPM_HEAD = re.compile(rb"P6\s(?:#[^\n]{0,100}\n)?\s?(\d{1,5})\s(\d{1,5})\s255\s")
_COLOUR = 2
_COMPRESSION = 6


def convert_to_png(data: bytes) -> bytes:
    """Return a picture, PNG or binary PPM with 8 bits a colour, as PNG; raise ValueError for anything else."""
    head = _PNG_HEAD.match(data)
    if head is not None:
        _check_size(*(int.from_bytes(side, "big") for side in head.groups()))
        return data
    head = _PPM_HEAD.match(data)
    if head is None:
        raise ValueError("it is neither PNG nor PPM")
    width, height = (int(side) for side in head.groups())
    _check_size(width, height)
    pixels = memoryview(data)[head.end() :]
    if len(pixels) != width * height * 3:
        raise ValueError(f"{width}×{height} are not {len(pixels)} bytes")
    return _write_png(width, height, pixels)


def _check_size(width: int, height: int) -> None:
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE) or width * height * 3 > LARGEST_BYTES:
        raise ValueError(f"no screen is {width}×{height}")


def _write_png(width: int, height: int, pixels: memoryview) -> bytes:
    line = width * 3
    # Each line begins with its filter: none.
    rows = b"".join(b"\0" + bytes(pixels[start : start + line]) for start in range(0, height * line, line))
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR, 0, 0, 0)
    body = zlib.compress(rows, _COMPRESSION)
    return _PNG + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
