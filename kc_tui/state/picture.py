"""A small picture of a VM's screen: from a PNG to a few pixels; a hostile one cannot exhaust it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

Pixel = tuple[int, int, int]
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_LARGEST_FILE: Final = 64 << 20
_MOST_PIXELS: Final = 8192 * 4320
_CHANNELS: Final = 3
_RGB_8_BITS: Final = (8, 2, 0, 0, 0)
"""Depth, colour type, compression, filter method, interlace: what KC itself writes."""
_LINES_A_BLOCK: Final = 8
"""Lines that are looked at for one line of blocks: more makes it no better, only later."""
_NO_FILTER: Final = 0
_UP: Final = 2


class Picture(NamedTuple):
    """Lines of pixels, each red, green and blue from 0 to 255."""

    width: int
    lines: tuple[tuple[Pixel, ...], ...]


def shrink_png(data: bytes, width: int, height: int) -> Picture:
    """Return an RGB PNG as a picture of at most `width` times `height` square pixels, its proportions kept.

    Raises ValueError for what is no such PNG, or is larger than any screen.
    """
    columns, rows, packed = _read(data)
    share = min(width / columns, height / rows, 1.0)
    size = max(1, round(columns * share)), max(1, round(rows * share))
    return _average(_unpack(packed, columns, rows), (columns, rows), size)


def _read(data: bytes) -> tuple[int, int, bytes]:
    """Return the width, the height and the packed pixels of a PNG."""
    if not data.startswith(_SIGNATURE) or len(data) > _LARGEST_FILE:
        raise ValueError("not a PNG")
    at, header, packed = len(_SIGNATURE), b"", []
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed.append(body)
        at += 12 + length
    if len(header) != struct.calcsize(">IIBBBBB"):
        raise ValueError("a PNG without a header")
    columns, rows, *kind_of_pixels = struct.unpack(">IIBBBBB", header)
    if tuple(kind_of_pixels) != _RGB_8_BITS:
        raise ValueError("a PNG of another kind than KC writes")
    if not 0 < columns * rows <= _MOST_PIXELS:
        raise ValueError("a PNG larger than any screen")
    return columns, rows, b"".join(packed)


def _unpack(packed: bytes, columns: int, rows: int) -> list[bytes]:
    """Return the lines of pixels; never more bytes than the header says."""
    length = columns * _CHANNELS + 1
    try:
        raw = zlib.decompressobj().decompress(packed, length * rows)
    except zlib.error as error:
        raise ValueError(f"a broken PNG: {error}") from error
    if len(raw) < length * rows:
        raise ValueError("a PNG that ends too early")
    lines: list[bytes] = []
    before = bytes(length - 1)
    for start in range(0, length * rows, length):
        before = _restore(raw[start], raw[start + 1 : start + length], before)
        lines.append(before)
    return lines


def _restore(kind: int, line: bytes, above: bytes) -> bytes:
    """Return a line as it was before it was filtered (PNG specification, section 9)."""
    if kind == _NO_FILTER:
        return line
    if kind == _UP:
        return bytes([(value + up) & 0xFF for value, up in zip(line, above, strict=True)])
    if kind not in _PREDICTORS:
        raise ValueError("a PNG with an unknown filter")
    predict = _PREDICTORS[kind]
    # Nothing stands left of the first pixel.
    done = bytearray(_CHANNELS)
    over = bytes(_CHANNELS) + above
    for at, value in enumerate(line):
        done.append((value + predict(done[at], over[at + _CHANNELS], over[at])) & 0xFF)
    return bytes(done[_CHANNELS:])


def _predict_paeth(left: int, up: int, corner: int) -> int:
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner


_PREDICTORS: Final[dict[int, Callable[[int, int, int], int]]] = {
    1: lambda left, _up, _corner: left,
    3: lambda left, up, _corner: (left + up) // 2,
    4: _predict_paeth,
}


def _average(lines: list[bytes], size: tuple[int, int], wanted: tuple[int, int]) -> Picture:
    (columns, rows), (width, height) = size, wanted
    edges = [column * columns // width for column in range(width + 1)]
    drawn = []
    for row in range(height):
        top, end = row * rows // height, (row + 1) * rows // height
        seen = lines[top : end : max(1, (end - top) // _LINES_A_BLOCK)]
        drawn.append(tuple(_mix(seen, left, right) for left, right in pairwise(edges)))
    return Picture(width, tuple(drawn))


def _mix(lines: list[bytes], left: int, right: int) -> Pixel:
    count = (right - left) * len(lines)
    red, green, blue = (
        sum(sum(line[left * _CHANNELS + channel : right * _CHANNELS : _CHANNELS]) for line in lines) // count
        for channel in range(_CHANNELS)
    )
    return red, green, blue


def brightness(pixel: Pixel) -> float:
    """Return how bright a pixel is to the eye, from 0 to 1 (ITU-R BT.601)."""
    red, green, blue = pixel
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255
