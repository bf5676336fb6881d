"""Of what a guest says, control strings never reach the user's terminal, however they are cut or nested."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kc_tui.cli.console_filter import StringFilter, clean_log

CLIPBOARD = b"\x1b]52;c;ZXZpbA==\x07"


def feed(*pieces: bytes) -> bytes:
    passing = StringFilter()
    return b"".join(passing.feed(piece) for piece in pieces)


@pytest.mark.parametrize(
    "data",
    [
        b"plain\r\n",
        b"\x1b[31mred\x1b[0m",
        b"\x1b[2J\x1b[H",
        "Grünkohl 日本 🥬".encode(),
        b"\x1b(B",
        b"\x1bM",
        b"\x1b7\x1b8",
        b"\xff\xfe",
        "\u00a0\u00bf".encode(),
        b"\x1b[?25l",
        b"\t\b\x07",
    ],
)
def test_what_a_terminal_is_for_passes(data):
    assert feed(data) == data
    assert feed(*(bytes([byte]) for byte in data)) == data


@pytest.mark.parametrize(
    ("data", "rest"),
    [
        (b"a" + CLIPBOARD + b"b", b"ab"),
        (b"\x1b]0;title\x1b\\x", b"x"),
        (b"\x1bPq#0\x1b\\x", b"x"),
        (b"\x1b_k\x1b\\x", b"x"),
        (b"\x1b^p\x1b\\x", b"x"),
        (b"\x1bXs\x1b\\x", b"x"),
        (b"\x1bktitle\x1b\\x", b"x"),
        (b"\xc2\x9d52;c;x\x07y", b"y"),
        (b"\xc2\x90q\x1b\\y", b"y"),
        (b"\x1b]52;c;never ended\r\nlogin:", b"\r\nlogin:"),
        (b"\x1b]0;x\x18y", b"y"),
        (b"\x1b]0;x\x1b[31my", b"\x1b[31my"),
        (b"\x1b]0;x\x1b]0;y\x07z", b"z"),
        (b"\x1b%@z", b"z"),
    ],
)
def test_control_strings_are_taken_out(data, rest):
    assert feed(data) == rest
    assert feed(*(bytes([byte]) for byte in data)) == rest


@pytest.mark.parametrize(
    "data",
    [
        b"\x1b\x1b]x\x07]52;c;ZXZpbA==\x07",
        b"\x1b\x1bPx\x1b\\]52;c;ZXZpbA==\x07",
        b"\xc2\xc2\x9dx\x07\x9d52;c;ZXZpbA==\x07",
        b"\xc2\x1b]x\x07\x9d52;c;ZXZpbA==\x07",
        b"\x1b%\x1b]52;c;ZXZpbA==\x07",
        b"\x1b\xc2\x9d52;c;ZXZpbA==\x07",
    ],
)
def test_taking_a_string_out_makes_no_new_one(data):
    once = feed(data)
    assert feed(once) == once
    assert b"\x1b]" not in once
    assert b"\xc2\x9d" not in once


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            [b"\x1b", b"]", b"P", b"\\", b"\x07", b"\xc2", b"\x9d", b"\x90", b"%", b"[", b"m", b"x", b"\r\n", b"\x18"]
        ),
        max_size=40,
    )
)
def test_no_opener_ever_passes_and_cuts_make_no_difference(parts):
    data = b"".join(parts)
    whole = feed(data)
    assert feed(*parts) == whole
    assert not any(opener in whole for opener in (b"\x1b]", b"\x1bP", b"\xc2\x9d", b"\xc2\x90", b"\x1b%"))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_the_log_has_no_controls_but_line_ends(data):
    text = clean_log(data, coloured=False)
    assert not set(text) & set(map(chr, [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_the_coloured_log_has_no_sequence_but_colours(data):
    import re

    text = clean_log(data, coloured=True)
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;:]*m", "", text)


def test_the_log_reads_as_a_terminal_would_show_it():
    log = b"\x1b[0;32mbooting\x1b[0m\r\r\n 10 %\r 20 %\r\n\x08\x08done\tok\r\n"
    assert clean_log(log, coloured=False) == "booting\n 10 %\n 20 %\ndone\tok\n"
    assert clean_log(log, coloured=True).startswith("\x1b[0;32mbooting\x1b[0m\n")
    assert clean_log(b"", coloured=True) == ""
    assert clean_log("halb\u00a0ü".encode()[:-1], coloured=False) == "halb\u00a0\ufffd\n"


def test_a_terminal_keeps_its_title_and_shows_the_text():
    screen = pyte.Screen(40, 3)
    titles: list[str] = []
    screen.set_title = titles.append  # type: ignore[method-assign]
    stream = pyte.ByteStream(screen)
    stream.feed(feed(b"\x1b]0;owned\x07login: \x1b[1mroot\x1b[0m"))
    assert titles == []
    assert screen.display[0].rstrip() == "login: root"
