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
                 make_png(2, 2, lambda _x, _y: RED, line_filter=4)):  # fmt: skip
        with pytest.raises(ValueError, match="PNG"):
            shrink_png(data, 4, 4)


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
