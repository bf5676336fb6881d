"""Pictures as KC's driver gives them: PNG, 8 bits of red, green and blue."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

Paint = Callable[[int, int], tuple[int, int, int]]


def make_png(width: int, height: int, paint: Paint, *, line_filter: int = 0, kind: int = 2) -> bytes:
    """Return a picture whose pixel at (x, y) is `paint(x, y)`."""
    raw = bytearray()
    for y in range(height):
        raw.append(line_filter)
        for x in range(width):
            raw += bytes(paint(x, y))
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(raw))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def paint_desktop(x: int, y: int) -> tuple[int, int, int]:
    """Return the pixels of a made-up screen of 320 times 200: a sky, a hill, a panel, and a window with some text."""
    if y >= 188:
        return (24, 28, 40)
    if 150 < x < 300 and 26 < y < 120:
        if y < 38:
            return (74, 84, 112)
        return (214, 217, 224) if (y - 44) % 12 < 5 and 160 < x < 170 + (y * 37) % 110 else (18, 20, 28)
    if y > 150 - (x - 60) * (x - 60) // 260 and y > 96:
        return (46, 92 + y // 4, 70)
    return (40 + y // 3, 70 + y // 2, 130 + y // 3)
