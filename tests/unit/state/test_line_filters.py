"""The second wall: no line brings a control character to the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from kc_tui.clipboard import SIZE_LIMIT, make_passthrough, prepare
from kc_tui.line_filters import PlainAscii, SafeText
from kc_tui.state.glyphs import UNICODE

BLACK = Color(0, 0, 0)


def through(line_filter, text):
    return "".join(segment.text for segment in line_filter.apply([Segment(text)], BLACK))


def test_sequences_lose_their_teeth():
    assert through(SafeText(), "a\x1b]52;c;aGk=\x07b") == "a]52;c;aGk=b"
    assert through(SafeText(), "a\x9b31mb\u202ec") == "a31mbc"


def test_what_is_printable_is_left_as_it_is():
    segments = [Segment("● web-1 ▂▃ 虚拟", Style(bold=True))]
    assert SafeText().apply(segments, BLACK)[0] is segments[0]


@given(st.text())
def test_nothing_unprintable_passes_and_no_line_grows(text):
    cleaned = through(SafeText(), text)
    assert not any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 or 0x202A <= ord(sign) <= 0x202E for sign in cleaned)
    assert cell_len(cleaned) <= cell_len(text)


def test_ascii_draws_lines_bars_and_signs_by_their_likes():
    assert through(PlainAscii(), "╭─ web ─╮ │ ███░░ ▁▄█ ● running ↻ …") == "+- web -+ | ###.. _-# * running @ ~"


@given(st.text())
def test_ascii_is_ascii_and_as_wide(text):
    drawn = through(PlainAscii(), text)
    assert drawn.isascii()
    assert len(drawn) == cell_len(text) or not text.isprintable()


def test_the_whole_unicode_set_has_its_like():
    assert "?" not in through(PlainAscii(), "".join((*"●◐○◌▲✕◇↻✓▌└─│–…·↑↓◉█░", UNICODE.sparkline)))


def test_a_copied_text_has_no_controls_and_a_size():
    assert prepare("ssh\x1b[31m web\r\nuptime\t1") == "ssh\ufffd[31m web\nuptime\t1"
    assert prepare("x" * SIZE_LIMIT) is not None
    assert prepare("x" * (SIZE_LIMIT + 1)) is None


def test_tmux_and_screen_are_passed_through_and_nothing_else_is():
    assert make_passthrough("hi", {}) == ""
    assert make_passthrough("hi", {"TMUX": "/tmp/x"}) == "\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\"
    long = make_passthrough("x" * 2000, {"STY": "1.pts"})
    assert max(len(part) for part in long.split("\x1b\\")) <= 768
    assert long.replace("\x1bP", "").replace("\x1b\\", "").startswith("\x1b]52;c;eHh4")
