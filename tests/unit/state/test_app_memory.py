"""What is kept for the next time, and the lines at the top."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kc_tui.state.draft import Draft, Nic
from kc_tui.state.glyphs import UNICODE
from kc_tui.state.masthead import Masthead, draw_sections, draw_summary, place_sections
from kc_tui.state.remembered import Order, Remembered, dump, load
from kc_tui.state.table import measure


def test_everything_survives_the_file():
    kept = Remembered(
        theme="bird", orders={"vms": Order("cpu", reverse=True)}, columns=("tenant",), image="i", networks=("a", "b"),
        type="t", draft=Draft(name="web", nics=(Nic("a"),)),
    )  # fmt: skip
    assert load(dump(kept)) == kept
    assert kept.order("vms") == Order("cpu", reverse=True)
    assert kept.order("images") == Order()


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_a_file_that_cannot_be_read_is_as_if_it_had_never_been(content: bytes):
    assert load(content) == Remembered()


@pytest.mark.parametrize(
    "broken", [{"orders": 3}, {"orders": {"vms": ["name"]}}, {"networks": "x"}, {"draft": []}, {"theme": 1}]
)
def test_a_part_that_cannot_be_read_takes_nothing_else_with_it(broken: dict):
    value = {"version": 1, "image": "starter", **broken}
    assert load(json.dumps(value).encode()).image == "starter"


def test_a_finished_draft_becomes_the_latest_choices():
    kept = Remembered(theme="bird").choose(Draft("review", "i", (Nic("a"), Nic("b")), "t", "web"))
    assert (kept.image, kept.networks, kept.type, kept.theme) == ("i", ("a", "b"), "t", "bird")
    assert kept.draft.is_empty


FULL = Masthead("lab", "vms", 1234, 900, 12, 3, "live")


@pytest.mark.parametrize("width", [60, 70, 80, 100, 140])
@pytest.mark.parametrize("host", ["lab", "a-host-with-a-long-name.example.org" * 2])
def test_the_first_line_fits_and_always_says_where_and_whether_it_is_live(width: int, host: str):
    runs = draw_summary(Masthead(host, "vms", 1234, 900, 12, 3, "live"), width, UNICODE)
    assert measure(runs) == width
    said = "".join(run.text for run in runs)
    assert said.startswith(" KC · ")
    assert said.endswith("live ")


def test_the_first_line_counts_what_there_is():
    said = "".join(run.text for run in draw_summary(FULL, 100, UNICODE))
    assert "1,234 VMs  900 running  12 changing  3 need you   ● live" in said


def test_it_says_since_when_what_is_shown_is_old():
    masthead = Masthead("lab", link="stale", since=0.0)
    said = "".join(run.text for run in draw_summary(masthead, 80, UNICODE))
    assert f"? stale since {time.strftime('%H:%M', time.localtime(0))}" in said


def test_sections_can_be_found_by_the_mouse_where_they_are_drawn():
    said = "".join(run.text for run in draw_sections(FULL, 80))
    for tab in place_sections():
        assert said[tab.start : tab.end] == f"{tab.section.key} {tab.section.title}"
    assert said.endswith("? help ")
