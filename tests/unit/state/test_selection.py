"""The cursor stays with its object; marks never outlive theirs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kc_tui.state.selection import Selection
from kc_tui.state.table import Cell, Row


def rows(names, version=0, notes=""):
    return [Row(name, version, (Cell(name),), note="look" if name in notes else "") for name in names]


def selection(names, **options):
    made = Selection()
    made.show(rows(names, **options))
    return made


def test_the_cursor_follows_its_row():
    made = selection("abc")
    made.move(1)
    made.show(rows("xyabc"))
    assert (made.cursor, made.row.key) == (3, "b")


def test_the_cursor_stays_in_place_when_its_row_is_gone():
    made = selection("abcd")
    made.move(1)
    made.show(rows("acd"))
    assert made.row.key == "c"
    made.move(2)
    made.show(rows("a"))
    assert made.row.key == "a"
    made.show([])
    assert made.row is None
    made.show(rows("xy"))
    assert made.row.key == "x"


def test_two_rows_of_one_key_are_refused():
    with pytest.raises(ValueError, match="same key"):
        selection("aa")


def test_changed_rows_take_the_place_of_their_like():
    made = selection("abc")
    assert made.replace([*rows("c", version=1), *rows("z")]) == [2]
    assert [row.version for row in made.rows] == [0, 0, 1]


def test_marks_leave_with_their_rows():
    made = selection("abc")
    made.toggle_mark()
    assert made.marked == {"a"}
    made.show(rows("bc"))
    made.show(rows("abc"))
    assert made.marked == set()


def test_a_range_marks_what_lies_between_its_ends():
    made = selection("abcdef")
    made.move(4)
    made.toggle_range()
    made.move(2)
    assert made.marked == {"c", "d", "e"}
    made.move(3)
    assert made.marked == {"d", "e"}
    made.toggle_range()
    made.move(0)
    assert made.marked == {"d", "e"}
    assert not made.in_range


def test_a_mark_closes_an_open_range():
    made = selection("abc")
    made.toggle_range()
    made.move(1)
    made.toggle_mark()
    assert made.marked == {"a", "b"}


def test_marks_are_turned_round():
    made = selection("abc")
    made.toggle_mark()
    made.invert_marks()
    assert made.marked == {"b", "c"}
    assert made.clear_marks()
    assert not made.clear_marks()


def test_the_note_of_the_cursors_row_moves_what_is_below():
    made = selection("abc", notes="b")
    assert [made.locate(line) for line in range(4)] == [(0, False), (1, False), (2, False), (None, False)]
    made.move(1)
    assert [made.locate(line) for line in range(5)] == [
        (0, False),
        (1, False),
        (1, True),
        (2, False),
        (None, False),
    ]


NAMES = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(NAMES, NAMES, st.integers(-3, 12))
def test_the_cursor_is_always_on_a_row_that_exists(before, after, index):
    made = selection(before)
    made.move(index)
    key = made.row.key if made.row else None
    made.show(rows(after))
    assert (made.row is None) is (not after)
    if key in after:
        assert made.row.key == key
    assert made.marked <= set(after)
