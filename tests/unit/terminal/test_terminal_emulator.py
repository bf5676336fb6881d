"""The emulator on what guests ordinarily write."""

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kc_tui.terminal.emulator import Cursor, Emulator, row_text
from kc_tui.terminal.style import Style


def fed(data: bytes, columns: int = 20, rows: int = 4) -> Emulator:
    emulator = Emulator(columns, rows)
    emulator.feed(data)
    return emulator


def shown(data: bytes, columns: int = 20, rows: int = 4) -> str:
    return fed(data, columns, rows).text().rstrip("\n")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"one\r\ntwo", "one\ntwo"),
        (b"one\r\r\ntwo", "one\ntwo"),
        (b"one\ntwo", "one\n   two"),
        (b"12345678901234567890abc", "12345678901234567890\nabc"),
        (b"12345678901234567890\r\nabc", "12345678901234567890\nabc"),
        (b"\x1b[?7l12345678901234567890abc", "1234567890123456789c"),
        (b"progress 10 %\rprogress 90 %", "progress 90 %"),
        (b"abc\b\bX", "aXc"),
        (b"a\tb", "a       b"),
        (b"a\tb\x1b[Zc", "a       c"),
        (b"\x1b[3;5Hhere", "\n\n    here"),
        (b"abcdef\x1b[3G\x1b[K", "ab"),
        (b"abcdef\x1b[3G\x1b[1K", "   def"),
        (b"abcdef\x1b[3G\x1b[2P", "abef"),
        (b"abcdef\x1b[3G\x1b[2@", "ab  cdef"),
        (b"abcdef\x1b[3G\x1b[2X", "ab  ef"),
        (b"abc\x1b[1G\x1b[4hxy", "xyabc"),
        (b"a\r\nb\r\nc\x1b[2;1H\x1b[L", "a\n\nb\nc"),
        (b"a\r\nb\r\nc\x1b[2;1H\x1b[M", "a\nc"),
        (b"a\r\nb\r\nc\r\nd\x1b[2;3r\x1b[3;1H\nx", "a\nc\nx\nd"),
        (b"a\r\nb\r\nc\r\nd\x1b[H\x1bMz", "z\na\nb\nc"),
        (b"a\x1bEb\x1bDc", "a\nb\n c"),
        (b"ab\x1b[3b", "abbbb"),
        (b"a\r\nb\x1b[S", "b"),
        (b"a\r\nb\x1b[T", "\na\nb"),
        (b"\x1b(0lqk\x1b(B lqk", "┌─┐ lqk"),
        (b"\x1b)0\x0eqq\x0fqq", "──qq"),
        (b"ab\x1b7cd\x1b8X", "abXd"),
        (b"ab\x1b[scd\x1b[uX", "abXd"),
    ],
)
def test_text_ends_up_where_xterm_puts_it(data, text):
    assert shown(data) == text


@pytest.mark.parametrize(
    ("data", "style"),
    [
        (b"\x1b[31mx", Style(fg=1)),
        (b"\x1b[97;44mx", Style(fg=15, bg=4)),
        (b"\x1b[1;2;3;4;7;9mx", Style(None, None, *[True] * 6)),
        (b"\x1b[1;4m\x1b[22;24mx", Style()),
        (b"\x1b[1;31m\x1b[mx", Style()),
        (b"\x1b[31;0;32mx", Style(fg=2)),
        (b"\x1b[38;5;208mx", Style(fg=208)),
        (b"\x1b[38;5;9;1mx", Style(fg=9, bold=True)),
        (b"\x1b[48;2;1;2;3mx", Style(bg=(1, 2, 3))),
        (b"\x1b[38:2:1:2:3mx", Style(fg=(1, 2, 3))),
        (b"\x1b[38:2::1:2:3mx", Style(fg=(1, 2, 3))),
        (b"\x1b[38:5:77mx", Style(fg=77)),
        (b"\x1b[4:3mx", Style(underline=True)),
        (b"\x1b[4m\x1b[4:0mx", Style()),
        (b"\x1b[58;5;3;1mx", Style(bold=True)),
        (b"\x1b[31m\x1b[38;5;999mx", Style(fg=1)),
        (b"\x1b[31m\x1b[38;2;1mx", Style(fg=1)),
        (b"\x1b[31m\x1b[>4;2mx", Style(fg=1)),
        (b"\x1b[31;12345678mx", Style(fg=1)),
    ],
)
def test_sgr_sets_the_style_of_what_follows(data, style):
    assert fed(data).row(0) == (("x", style),)


def test_runs_split_where_the_style_changes_and_nowhere_else():
    row = fed(b"[\x1b[0;32m  OK  \x1b[0m] Started").row(0)
    assert row == (("[", Style()), ("  OK  ", Style(fg=2)), ("] Started", Style()))


def test_a_coloured_background_reaches_the_edge_when_erased():
    assert fed(b"\x1b[44mhi\x1b[K", columns=5).row(0) == (("hi   ", Style(bg=4)),)
    assert fed(b"\x1b[44m\x1b[2Jhi", columns=5).row(0) == (("hi   ", Style(bg=4)),)


def test_reverse_screen_mode_reverses_blanks_too():
    emulator = fed(b"hi\x1b[?5h", columns=5)
    assert emulator.row(0) == (("hi", Style(reverse=True)), ("   ", Style(reverse=True)))
    emulator.feed(b"\x1b[?5l")
    assert emulator.row(0) == (("hi", Style()),)


def test_a_character_may_come_in_pieces_and_invalid_bytes_are_replaced():
    emulator = Emulator(20, 2)
    for byte in "ä●가".encode():
        emulator.feed(bytes([byte]))
    emulator.feed(b"\xff")
    assert emulator.text().rstrip("\n") == "ä●가\ufffd"


def test_half_of_a_wide_character_leaves_a_space():
    assert shown("가나".encode() + b"\x1b[2Gx") == " x나"
    assert shown("가나".encode() + b"\x1b[1Gx") == "x 나"


def test_a_wide_character_does_not_straddle_the_edge():
    assert shown("abcd가".encode(), columns=5) == "abcd\n가"


def test_marks_join_the_character_before_them():
    assert shown("e\u0301 a\u0308\u0323".encode()) == "\u00e9 \u1ea1\u0308"


def test_what_leaves_the_top_is_kept_in_order():
    emulator = fed(b"\r\n".join(b"line %d" % number for number in range(10)))
    assert emulator.scrollback_count == emulator.scrolled == 6
    assert [row_text(row) for row in emulator.lines()] == [f"line {number}" for number in range(10)]
    assert row_text(emulator.line(5)) == "line 5"
    assert row_text(emulator.line(9)) == "line 9"
    assert emulator.text(scrollback=True).splitlines()[0] == "line 0"


def test_find_knows_the_lines_of_scrollback_and_screen_whatever_the_case():
    emulator = fed(b"\r\n".join([b"Kernel panic", b"a", b"b", b"c", b"d", b"kernel: ok"]))
    assert emulator.find("KERNEL") == [0, 5]
    assert emulator.find("nowhere") == []


@pytest.mark.parametrize("clearing", [b"\x1b[2J", b"\x1b[H\x1b[J", b"\x1bc"])
def test_a_cleared_screen_is_kept_so_that_a_panic_survives_the_reboot(clearing):
    emulator = fed(b"panic\r\nat 0\r\n" + clearing + b"\x1b[3J\x1b[HBIOS")
    assert emulator.text(scrollback=True).split() == ["panic", "at", "0", "BIOS"]
    assert emulator.text().split() == ["BIOS"]


def test_lines_scrolled_within_margins_below_the_top_are_not_kept():
    assert fed(b"\x1b[2;4r\x1b[4;1H" + b"x\r\n" * 9).scrollback_count == 0


def test_the_alternate_buffer_leaves_screen_scrollback_and_cursor_as_they_were():
    emulator = fed(b"shell\r\n$ vi\x1b[?1049h\x1b[H")
    emulator.feed(b"~\r\n" * 30)
    assert "shell" not in emulator.text()
    assert emulator.scrollback_count == 0
    emulator.feed(b"\x1b[?1049l")
    assert emulator.text().rstrip("\n") == "shell\n$ vi"
    assert emulator.cursor[:2] == (4, 1)


def test_the_guest_learns_where_the_cursor_is_and_what_this_terminal_is_once():
    emulator = fed(b"\x1b[3;7H\x1b[6n\x1b[5n\x1b[c\x1bZ")
    assert emulator.take_replies() == b"\x1b[3;7R\x1b[0n\x1b[?6c\x1b[?6c"
    assert emulator.take_replies() == b""


def test_the_resize_program_finds_the_size():
    assert fed(b"\x1b7\x1b[r\x1b[999;999H\x1b[6n\x1b8", 132, 43).take_replies() == b"\x1b[43;132R"


@pytest.mark.parametrize("query", [b"\x1b[>c", b"\x1b[=c", b"\x1b[21t", b"\x1b[?15n", b"\x1bP$qm\x1b\\", b"\x05"])
def test_no_other_question_is_answered(query):
    assert fed(query).take_replies() == b""


def test_the_cursor_has_a_place_a_width_and_a_visibility():
    assert fed(b"ab").cursor == Cursor(2, 0, 1, visible=True)
    assert fed("가\r".encode()).cursor == Cursor(0, 0, 2, visible=True)
    assert fed(b"\x1b[?25l").cursor == Cursor(0, 0, 1, visible=False)
    assert fed(b"x" * 20).cursor == Cursor(19, 0, 1, visible=True)


def test_modes_that_matter_to_the_keyboard_are_told():
    emulator = Emulator()
    assert (emulator.application_cursor, emulator.bracketed_paste) == (False, False)
    emulator.feed(b"\x1b[?1;2004h")
    assert (emulator.application_cursor, emulator.bracketed_paste) == (True, True)
    emulator.feed(b"\x1b[!p")
    assert (emulator.application_cursor, emulator.bracketed_paste) == (False, False)


def test_only_changed_rows_are_dirty():
    emulator = fed(b"a\r\nb\r\nc")
    assert emulator.take_dirty() == {0, 1, 2, 3}
    emulator.feed(b"\x1b[2;1Hx\x1b[4;4Hy")
    assert emulator.take_dirty() == {1, 3}
    emulator.feed(b"\x1b[1;1H\x1b[31m\x1b]0;title\x07")
    assert emulator.take_dirty() == set()


def test_shrinking_keeps_the_cursor_in_view_and_growing_adds_room_below():
    emulator = fed(b"a\r\nb\r\nc\r\nd")
    emulator.resize(20, 2)
    assert emulator.text() == "c\nd"
    assert [row_text(emulator.line(number)) for number in range(4)] == ["a", "b", "c", "d"]
    emulator.resize(30, 3)
    assert emulator.text() == "c\nd\n"
    emulator.feed(b"\r\n" + b"\t" * 3 + b"x")
    assert emulator.text().endswith(" " * 24 + "x")


def test_narrowing_cuts_lines_whatever_they_are_kept_as():
    emulator = fed("0123456789\r\n가나다라마\r\nab\rc".encode())
    emulator.resize(5, 4)
    assert emulator.text().rstrip("\n") == "01234\n가나\ncb"


def test_the_guest_cannot_resize_the_screen():
    emulator = fed(b"\x1b[?3h\x1b[8;50;200t\x1b[?40h\x1b[?3h")
    assert (emulator.columns, emulator.rows) == (20, 4)


@pytest.mark.parametrize("size", [(0, 0), (-5, 3), (1, 1), (10**9, 10**9)])
def test_any_size_is_made_a_possible_one(size):
    emulator = Emulator()
    emulator.resize(*size)
    emulator.feed("x가\r\ny".encode() * 3)
    assert 1 <= emulator.columns <= 1000
    assert 1 <= emulator.rows <= 1000


# Without wide characters and ICH: there pyte straddles the edge, and keeps a cell beyond it.
PLAIN_PIECES = [
    *(b"hello world", b"x", "naïve".encode(), b"\r\n", b"\r", b"\n", b"\b", b"\t", b"\x1b[31m", b"\x1b[0m"),
    *(b"\x1b[K", b"\x1b[1K", b"\x1b[2K", b"\x1b[J", b"\x1b[1J", b"\x1b[2J", b"\x1b[A", b"\x1b[B", b"\x1b[2C"),
    *(b"\x1b[3D", b"\x1b[2;3H", b"\x1b[4;9H", b"\x1b[5G", b"\x1b[2d", b"\x1b[P", b"\x1b[3P", b"\x1b[2X"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PLAIN_PIECES), max_size=20))
def test_the_fast_path_agrees_with_pyte_where_pyte_is_right(pieces):
    emulator, reference = Emulator(12, 4), pyte.Screen(12, 4)
    emulator.feed(b"".join(pieces))
    pyte.ByteStream(reference).feed(b"".join(pieces))
    assert emulator.text().split("\n") == [line.rstrip(" ") for line in reference.display]
    assert emulator.cursor[:2] == (min(reference.cursor.x, 11), reference.cursor.y)
