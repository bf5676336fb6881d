"""The emulator on what no honest guest writes: nothing raises, nothing leaks, nothing grows without end."""

import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from kc_tui.terminal.emulator import SCROLLBACK_LINES, Emulator

PARAMETERS = ["", "0", "2", "3;4", "9999", "?1049", "?5"]
SEQUENCES = [
    *(f"\x1b[{numbers}{final}" for numbers in PARAMETERS for final in "@ABCDEFGHIJKLMPSTXZ`abcdefghlmnrsu"),
    *(f"\x1b{final}" for final in "78DEHMNOZc=>[]P^_X()#% \\"),
    *("\x1b[?6h", "\x1b[?6l", "\x1b[4h", "\x1b[4l", "\x1b[20h", "\x1b[?7l", "\x1b[?25l", "\x1b[!p"),
    *("\x1b[44m", "\x1b[m", "\x1b[38;2;1;2;3m", "\x1b[2;3r", "\x1b[r", "\x1b(0", "\x1b#8"),
    *("\x1b]0;t\x07", "\x1b[3", "\x1b[1;", "\x9b31m", "\x9d0;"),
    *("\r\n", "\n", "\r", "\b", "\t", "\x0e", "\x0f", "\x00", "\x7f", "\x18", "\x85", "\x8d"),
    *("abc", "x" * 30, "가나", "e\u0301", "\u0301", "\u202e", "\u200b", "\ufeff", "\ufe0f", "\u3000", "\ue0b0"),
    "\U0001f469\u200d\U0001f467",
]
PIECES = st.one_of(
    st.sampled_from(SEQUENCES).map(str.encode),
    st.binary(max_size=12),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace")),
)
STREAMS = st.lists(PIECES, max_size=40)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 6))
thorough = settings(max_examples=300, deadline=None)


def width(text: str) -> int:
    return sum(max(wcwidth(character), 0) for character in text)


@thorough
@given(SIZES, STREAMS, SIZES)
def test_any_bytes_give_printable_rows_that_fit(size, pieces, new_size):
    emulator = Emulator(*size)
    for piece in pieces:
        emulator.feed(piece)
        assert emulator.cursor.column < emulator.columns
        assert emulator.cursor.row < emulator.rows
    emulator.resize(*new_size)
    emulator.feed(b"".join(pieces))
    for row in emulator.lines():
        for text, _ in row:
            assert text
            assert text.isprintable()
            assert all(unicodedata.category(character)[0] != "C" for character in text)
    for number in range(emulator.rows):
        assert width("".join(text for text, _ in emulator.row(number))) <= emulator.columns
    assert emulator.take_replies().replace(b"\x1b[", b"").decode("ascii").isprintable()


@thorough
@given(SIZES, STREAMS, st.lists(st.integers(0, 400), max_size=12))
def test_it_does_not_matter_how_the_bytes_are_cut(size, pieces, cuts):
    data = b"".join(pieces)
    whole, cut = Emulator(*size), Emulator(*size)
    whole.feed(data)
    edges = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    for start, stop in pairwise(edges):
        cut.feed(data[start:stop])
    assert list(cut.lines()) == list(whole.lines())
    assert cut.cursor == whole.cursor
    assert cut.take_replies() == whole.take_replies()


@thorough
@given(SIZES, STREAMS, STREAMS)
def test_a_row_that_is_not_dirty_has_not_changed(size, before, pieces):
    emulator = Emulator(*size)
    emulator.feed(b"".join(before))
    for piece in pieces:
        emulator.take_dirty()
        old = [emulator.row(number) for number in range(emulator.rows)]
        emulator.feed(piece)
        changed = {number for number in range(emulator.rows) if emulator.row(number) != old[number]}
        assert changed <= emulator.take_dirty()


@pytest.mark.parametrize("before", ["", "\x1b[2;4r\x1b[3;3H", "\x1b[44m", "\x1b[4h\x1b[7l"])
def test_every_row_that_a_sequence_changes_is_dirty(before):
    for sequence in SEQUENCES:
        emulator = Emulator(10, 5)
        emulator.feed(b"aaa\r\nbbbbb\r\ncccccccccc\r\nd\r\neee\x1b[3;3H" + before.encode())
        emulator.take_dirty()
        old = [emulator.row(number) for number in range(5)]
        emulator.feed(sequence.encode())
        changed = {number for number in range(5) if emulator.row(number) != old[number]}
        assert changed <= emulator.take_dirty(), f"after {sequence!r}"


@pytest.mark.parametrize(
    "secret",
    [
        b"\x1b]0;evil\x07",
        b"\x1b]2;evil\x1b\\",
        b"\x1b]52;c;ZXZpbA==\x07",
        b"\x1b]8;;https://evil/\x1b\\\x1b]8;;\x1b\\",
        b"\x1bPevil\x07evil\x1b\\",
        b"\x1b_evil\x1b\\",
        b"\x1b^evil\x1b\\",
        b"\x1bXevil\x1b\\",
        "\x9d0;evil\x9c".encode(),
        "\x90evil\x9c".encode(),
        b"\x1b]0;evil\x18",
        b"\x1b[?evil"[:3] + b"1049$p",
        b"\x1b[200~",
        b"\x1b[ q",
        b"\x1b[>0q",
        b"\x1b[<0;1;1M",
        b"\x1b%G",
        b"\x1b#3",
        b"\x1b=",
    ],
)
def test_what_is_meant_for_the_outer_terminal_vanishes(secret):
    emulator = Emulator(40, 3)
    emulator.feed(b"before" + secret + b"after")
    assert emulator.text().rstrip("\n") == "beforeafter"
    assert emulator.take_replies() == b""


def test_a_string_without_end_is_given_up_and_costs_no_memory():
    emulator = Emulator(20, 3)
    emulator.feed(b"\x1b]52;c;")
    for _ in range(40):
        emulator.feed(b"A" * 65536)
    emulator.feed(b"\r\nback")
    assert emulator.text().splitlines()[-1] == "back"
    assert emulator._parser._collected == ""


@pytest.mark.parametrize("body", [b"1" * 100_000, b"1;" * 100_000, b"?" * 100_000, b" " * 100_000, b":" * 100_000])
def test_a_sequence_without_end_is_bounded_and_not_obeyed(body):
    emulator = Emulator(20, 3)
    emulator.feed(b"\x1b[" + body)
    assert len(emulator._parser._collected) < 1000
    emulator.feed(b"Hok")
    assert emulator.text().rstrip("\n") == "ok"


def test_escapes_may_nest_without_end():
    emulator = Emulator(20, 3)
    emulator.feed(b"\x1b(" * 50_000 + b"\x1b" + b" " * 50_000)
    assert len(emulator._parser._collected) <= 2
    emulator.feed(b"\x1b[mok")
    assert emulator.text().rstrip("\n") == "ok"


def test_marks_pile_up_only_so_far():
    emulator = Emulator(20, 3)
    emulator.feed(b"a" + "\u0301\u0302".encode() * 10_000)
    assert len(emulator.row(0)[0][0]) <= 5


def test_questions_without_end_are_answered_only_so_far():
    emulator = Emulator()
    emulator.feed(b"\x1b[6n" * 100_000)
    assert len(emulator.take_replies()) <= 4096


def test_saved_cursors_do_not_pile_up():
    emulator = Emulator()
    emulator.feed(b"\x1b7" * 1000)
    assert emulator._screen.savepoints == []


def test_the_scrollback_is_bounded_in_lines():
    emulator = Emulator(20, 3)
    emulator.feed(b"".join(b"%d\r\n" % number for number in range(SCROLLBACK_LINES + 500)))
    assert emulator.scrollback_count == SCROLLBACK_LINES
    assert emulator.scrolled == SCROLLBACK_LINES + 500 - 2
    assert emulator.line(0)[0][0] == str(498)


def test_the_scrollback_is_bounded_in_memory_when_each_cell_has_its_own_style():
    emulator = Emulator(200, 3)
    line = b"".join(b"\x1b[38;5;%dmx" % (16 + number) for number in range(200)) + b"\r\n"
    for _ in range(800):
        emulator.feed(line)
    runs = sum(map(len, emulator._screen.scrollback))
    assert emulator.scrollback_count < 800
    assert runs <= 8_000_000 / 65
    assert sys.getsizeof(emulator.line(0)) * emulator.scrollback_count < 16 << 20
