"""Lines of a table as runs of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kc_tui.state.glyphs import ASCII
from kc_tui.state.roles import Role
from kc_tui.state.table import (
    MARGIN,
    Align,
    Cell,
    Column,
    Look,
    Progress,
    Row,
    Run,
    draw_header,
    draw_note,
    draw_progress,
    draw_row,
    fit,
    fit_runs,
    lay_out,
    measure,
)

COLUMNS = (
    Column("name", "NAME", 8, weight=1, widest=11, lasting=True),
    Column("state", "STATE", 8, lasting=True),
    Column("cpu", "CPU", 5, align=Align.RIGHT, rank=2),
    Column("type", "TYPE", 6, rank=1),
)
ROW = Row(
    "web-1",
    1,
    (Cell("web-1"), Cell("running", Role.OK), Cell("12 %"), Cell("small", Role.MUTED)),
    Cell("●", Role.OK),
)


def text_of(runs):
    return "".join(run.text for run in runs)


def test_a_row_has_its_glyph_and_cells_in_their_columns():
    places = lay_out(COLUMNS, 40)
    assert text_of(draw_header(places, 40)) == "    NAME         STATE       CPU  TYPE  "
    assert text_of(draw_row(ROW, places, 40)) == "  ● web-1        running    12 %  small "


def test_cursor_and_mark_stand_side_by_side():
    line = draw_row(ROW, lay_out(COLUMNS, 40), 40, Look(cursor=True, marked=True))
    assert text_of(line).startswith("▌✓● web-1")
    assert line[0] == Run("▌", Role.ACCENT)
    assert draw_row(ROW, lay_out(COLUMNS, 40), 40, Look(cursor=True, focused=False))[0] == Run("▌", Role.MUTED)


def test_columns_of_the_highest_rank_go_first_and_rank_0_stays():
    shown = {width: [place.column.id for place in lay_out(COLUMNS, width)] for width in (37, 36, 29, 22, 10)}
    assert shown == {
        37: ["name", "state", "cpu", "type"],
        36: ["name", "state", "type"],
        29: ["name", "state"],
        22: ["name", "state"],
        10: ["name", "state"],
    }


def test_what_is_left_over_goes_by_weight_up_to_the_widest():
    columns = (Column("a", "A", 4, weight=1, widest=6), Column("b", "B", 4, weight=3), Column("c", "C", 4))
    widths = [place.width for place in lay_out(columns, MARGIN + 4 + 2 + 4 + 2 + 4 + 20)]
    assert widths == [6, 22, 4]


def test_a_scroll_bar_takes_its_cell_from_the_last_column_alone():
    without, with_bar = lay_out(COLUMNS, 40), lay_out(COLUMNS, 40, 39)
    assert [place.start for place in without] == [place.start for place in with_bar]
    assert with_bar[-1].width == without[-1].width - 1


@given(st.integers(0, 200))
def test_the_layout_never_leaves_the_line(width):
    for place in lay_out(COLUMNS, width):
        assert place.width == 0 or place.start + place.width <= width


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


@given(TEXTS, TEXTS, st.integers(30, 120), st.booleans())
def test_a_line_is_exactly_as_wide_as_the_table_whatever_is_in_it(name, note, width, busy):
    progress = Progress(note, 0.5) if busy else None
    row = Row("key", 1, (Cell(name), Cell(note, more=(Run(name),))), Cell("●"), progress, note)
    places = lay_out(COLUMNS, width)
    assert measure(draw_row(row, places, width)) == width
    assert measure(draw_note(row, width)) == width
    assert measure(draw_header(places, width, "cpu")) == width


def test_progress_takes_the_place_of_the_figures():
    row = Row("db", 2, ROW.cells, Cell("◐"), Progress("step 4 of 6: defining the domain", 0.7))
    places = lay_out(COLUMNS, 90)
    line = text_of(draw_row(row, places, 90))
    assert line.endswith(f"step 4 of 6: defining the domain{' ' * 15}███████░░░  70 %")
    assert "12 %" not in line
    assert line[places[2].start :].startswith("step 4")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (48, "step 4 of 6: defining it        ███████░░░  70 %"),
        (38, "step 4 of 6: defining it  ████░░  70 %"),
        (24, "step 4 of 6: defi…  70 %"),
        (12, "step …  70 %"),
        (5, "step…"),
    ],
)
def test_the_bar_shrinks_and_goes_before_the_text(width, line):
    drawn = text_of(draw_progress(Progress("step 4 of 6: defining it", 0.7), width))
    assert cell_len(drawn) == width
    assert drawn == line


def test_progress_without_a_share_is_text_alone():
    assert text_of(draw_progress(Progress("waiting for the guest"), 30)) == "waiting for the guest".ljust(30)


def test_text_is_cut_with_an_ellipsis_by_cells():
    assert fit("web-1", 7) == "web-1  "
    assert fit("web-1", 7, Align.RIGHT) == "  web-1"
    assert fit("a-long-name", 6) == "a-lon…"
    assert fit("虚拟机器", 5) == "虚拟…"
    assert fit("虚拟机器", 4) == "虚 …"
    assert fit("a-long-name", 6, glyphs=ASCII) == "a-lon~"
    assert fit("x", 0) == ""


def test_runs_are_cut_where_they_meet():
    runs = (Run("10.0.0.17 "), Run("dhcp", Role.MUTED))
    assert fit_runs(runs, 16) == (*runs, Run("  "))
    assert fit_runs(runs, 16, Align.RIGHT) == (Run("  "), *runs)
    assert text_of(fit_runs(runs, 12)) == "10.0.0.17 d…"
    assert text_of(fit_runs(runs, 10)) == "10.0.0.17…"[:10]


def test_the_sorted_column_carries_an_arrow_and_stays_in_its_column():
    places = lay_out(COLUMNS, 40)
    plain, up = text_of(draw_header(places, 40)), text_of(draw_header(places, 40, "cpu"))
    assert "CPU ↑" in up
    assert len(plain) == len(up)
    assert "NAME ↓" in text_of(draw_header(places, 40, "name", reverse=True))


def test_a_note_stands_below_its_row():
    row = Row("edge", 1, (), note="restart needed for: spec.parameters.cpus")
    assert text_of(draw_note(row, 60)).rstrip() == "    └ restart needed for: spec.parameters.cpus"
