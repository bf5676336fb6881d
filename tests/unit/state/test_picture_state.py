"""A screen becomes a few pixels, and what is no picture of ours becomes none."""

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.png import make_png

from kc_tui.state.picture import brightness, shrink_png

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_each_block_is_the_mean_of_its_pixels_and_proportions_are_kept():
    picture = shrink_png(make_png(40, 20, lambda x, _y: RED if x < 20 else BLUE), 4, 100)
    assert (picture.width, len(picture.lines)) == (4, 2)
    assert picture.lines[0] == (RED, RED, BLUE, BLUE)
    whole = shrink_png(make_png(8, 8, lambda x, y: (255, 255, 255) if (x + y) % 2 else (0, 0, 0)), 1, 1)
    assert whole.lines == (((127, 127, 127),),)


def test_a_small_picture_is_not_made_larger():
    picture = shrink_png(make_png(3, 2, lambda x, y: (x, y, 9)), 80, 60)
    assert picture.lines == (((0, 0, 9), (1, 0, 9), (2, 0, 9)), ((0, 1, 9), (1, 1, 9), (2, 1, 9)))


def test_bytes_that_are_left_out_or_of_another_kind_are_refused():
    good = make_png(4, 4, lambda _x, _y: RED)
    short = make_png(4, 4, lambda _x, _y: RED).replace(struct.pack(">II", 4, 4), struct.pack(">II", 4, 400))
    for data in (b"", b"GIF89a", good[:20], good[:40], short, make_png(2, 2, lambda _x, _y: RED, kind=6),
                 make_png(2, 2, lambda _x, _y: RED, line_filter=5)):  # fmt: skip
        with pytest.raises(ValueError, match="PNG"):
            shrink_png(data, 4, 4)


def filtered(lines: list[bytes], kinds: list[int]) -> bytes:
    """Return lines of RGB pixels as a PNG, each under a filter of its own (PNG specification, section 9)."""
    raw = bytearray()
    above = bytes(len(lines[0]))
    for kind, line in zip(kinds, lines, strict=True):
        raw.append(kind)
        for at, value in enumerate(line):
            left, corner = (line[at - 3], above[at - 3]) if at >= 3 else (0, 0)
            up = above[at]
            guess = min((left, up, corner), key=lambda near, p=left + up - corner: abs(p - near))
            raw.append((value - (0, left, up, (left + up) // 2, guess)[kind]) & 0xFF)
        above = line
    header = struct.pack(">IIBBBBB", len(lines[0]) // 3, len(lines), 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(raw))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + b"\0\0\0\0" for n, d in parts)


@given(st.lists(st.tuples(st.integers(0, 4), st.binary(min_size=15, max_size=15)), min_size=1, max_size=6))
def test_every_filter_of_png_is_undone(rows: list[tuple[int, bytes]]):
    lines = [line for _, line in rows]
    picture = shrink_png(filtered(lines, [kind for kind, _ in rows]), 50, 50)
    assert [bytes(value for pixel in line for value in pixel) for line in picture.lines] == lines


def test_a_bomb_is_not_unpacked():
    header = struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10 << 20), 9)
    chunks = b"".join(struct.pack(">I", len(d)) + n + d + b"\0\0\0\0" for n, d in ((b"IHDR", header), (b"IDAT", body)))
    with pytest.raises(ValueError, match="larger than any screen"):
        shrink_png(b"\x89PNG\r\n\x1a\n" + chunks, 4, 4)


@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_no_bytes_do_anything_but_raise_a_value_error(tail: bytes, seed: int):
    good = bytearray(make_png(5, 5, lambda x, y: (x, y, 0)))
    chance = random.Random(seed)
    for _ in range(3):
        good[chance.randrange(8, len(good))] = chance.randrange(256)
    for data in (b"\x89PNG\r\n\x1a\n" + tail, bytes(good)):
        try:
            picture = shrink_png(data, 4, 4)
        except ValueError:
            continue
        assert picture.width <= 4


def test_green_is_brighter_than_blue():
    assert brightness((0, 255, 0)) > brightness(BLUE)
    assert brightness((255, 255, 255)) == pytest.approx(1.0)
