"""Figures as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kc_tui.state.formatting import (
    GIB,
    MIB,
    TIB,
    draw_bar,
    draw_sparkline,
    format_age,
    format_bytes,
    format_duration,
    format_mebibytes,
    format_memory,
    format_percent,
    join_words,
    pluralise,
)
from kc_tui.state.glyphs import ASCII, UNICODE

ODD = [None, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (20 * MIB, "20 MiB"),
        (1023.9 * MIB, "1 GiB"),
        (9.96 * GIB, "10 GiB"),
        (123 * GIB, "123 GiB"),
        (3.2 * TIB, "3.2 TiB"),
        (2.0**90, "1073741824 EiB"),
        (-1, "–"),
    ],
)
def test_sizes_have_one_decimal_below_ten(count, text):
    assert format_bytes(count) == text


def test_a_memory_shares_the_unit_of_its_total():
    assert format_memory(1.2 * GIB, 2 * GIB) == "1.2/2.0 G"
    assert format_memory(200 * MIB, 512 * MIB) == "0.2/0.5 G"
    assert format_memory(96 * MIB, 128 * MIB) == "96/128 M"
    assert format_memory(None, GIB) == "–/1.0 G"
    assert format_memory(0.5 * TIB, 1.5 * TIB) == "0.5/1.5 T"
    assert format_memory(1, None) == format_memory(1, 0) == "–"
    assert format_memory(None, GIB, ASCII) == "-/1.0 G"


def test_mebibytes_become_gibibytes_when_they_are():
    assert [format_mebibytes(count) for count in (512, 2048, 1536, None)] == ["512 MiB", "2 GiB", "1.5 GiB", "–"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3599.6, "1 h 00 m"),
        (8040, "2 h 14 m"),
        (5 * 86400 + 3 * 3600, "5 d 03 h"),
        (-1, "–"),
    ],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "now"), (0, "now"), (12, "12 s"), (60, "1 m"), (7200, "2 h"), (8 * 86400, "8 d"), (63 * 86400, "9 w")],
)
def test_ages_have_one_unit(seconds, text):
    assert format_age(seconds) == text


def test_shares_are_whole_percents():
    assert [format_percent(share) for share in (0.0, 0.124, 1.0, 3.5, -0.1)] == ["0 %", "12 %", "100 %", "350 %", "–"]


@pytest.mark.parametrize("value", ODD)
def test_what_is_no_figure_is_a_dash(value):
    assert {format_bytes(value), format_percent(value), format_duration(value), format_age(value)} == {"–"}
    assert draw_bar(value or math.nan, 4) == "░░░░"


def test_counts_agree_with_their_nouns():
    assert [pluralise(1, "VM"), pluralise(14, "VM"), pluralise(10_000, "VM")] == ["1 VM", "14 VMs", "10,000 VMs"]
    assert pluralise(2, "copy", "copies") == "2 copies"


def test_long_enumerations_are_counted():
    assert [join_words(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert join_words([str(n) for n in range(10)], 3) == "0, 1 and 8 more"


def test_a_sparkline_shows_the_newest_values_and_blanks_for_unknown_ones():
    assert draw_sparkline([1.0, 0.0, None, 0.5, 1.0], 4) == "▁ ▅█"
    assert draw_sparkline([0.0], 3) == "  ▁"
    assert draw_sparkline([0.0, 1.0], 2, ASCII) == "_#"
    assert draw_sparkline([0.5], 0) == ""


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none(), max_size=20), st.integers(0, 12))
def test_a_sparkline_is_as_wide_as_asked(values, width):
    assert len(draw_sparkline(values, width)) == width


@given(st.floats(-0.5, 1.5), st.integers(2, 30))
def test_a_bar_is_full_only_at_the_end_and_empty_only_at_the_start(share, width):
    bar = draw_bar(share, width)
    assert len(bar) == width
    assert (bar == UNICODE.bar_full * width) is (share >= 1)
    assert (bar == UNICODE.bar_empty * width) is (share <= 0)
