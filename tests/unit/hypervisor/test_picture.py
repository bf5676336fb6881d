"""Pictures of a screen: what is none is refused, what is one becomes PNG."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.hypervisor.picture import convert_to_png


def ppm(width: int, height: int, pixels: bytes) -> bytes:
    return b"P6\n%d %d\n255\n" % (width, height) + pixels


def read_png(data: bytes) -> tuple[int, int, bytes]:
    """Return what a PNG of one IDAT chunk and without filters holds."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    width, height = struct.unpack(">II", data[16:24])
    (length,) = struct.unpack(">I", data[33:37])
    assert data[37:41] == b"IDAT"
    assert struct.unpack(">I", data[41 + length : 45 + length])[0] == zlib.crc32(data[37 : 41 + length])
    rows = zlib.decompress(data[41 : 41 + length])
    line = width * 3 + 1
    assert len(rows) == line * height
    assert not any(rows[start] for start in range(0, len(rows), line))
    return width, height, b"".join(rows[start + 1 : start + line] for start in range(0, len(rows), line))


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_ppm_becomes_a_png_of_the_same_pixels(width: int, height: int, data: st.DataObject) -> None:
    size = width * height * 3
    pixels = data.draw(st.binary(min_size=size, max_size=size))
    assert read_png(convert_to_png(ppm(width, height, pixels))) == (width, height, pixels)


def test_a_png_stays_as_it_is() -> None:
    made = convert_to_png(ppm(2, 1, b"abcdef"))
    assert convert_to_png(made) == made


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P6",
        b"P6\n2 1\n255\nabcde",
        b"P6\n2 1\n255\nabcdefg",
        b"P6\n0 1\n255\n",
        b"P6\n99999 99999\n255\n",
        b"P6\n8192 8192\n255\n",
        b"P6\n123456 1\n255\n",
        b"P6\n-1 1\n255\nabc",
        b"P6\n1 1\n65535\nabcdef",
        b"P5\n1 1\n255\na",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\xff\xff\xff\xff\0\0\0\1",
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\0\0\0\0\1",
    ],
    ids=range(14),
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"neither|are not|no screen"):
        convert_to_png(data)


@given(st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    for made in (data, b"P6\n" + data, b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + data):
        try:
            assert convert_to_png(made).startswith(b"\x89PNG")
        except ValueError:
            continue
