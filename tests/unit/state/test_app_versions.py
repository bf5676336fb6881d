"""A history as it is shown: what each version changed, in a line and at length."""

from __future__ import annotations

from typing import Any

import pytest

from backend.model.changes import compare
from backend.service import Version
from kc_tui.state.differences import draw_changes, shorten_changes, show_json
from kc_tui.state.glyphs import ASCII, UNICODE
from kc_tui.state.lines import Line
from kc_tui.state.roles import Role
from kc_tui.state.versions import Timeline, draw_difference

NOW = 1_767_366_245.0
TOLD = "2026-01-02T15:03:05.000Z"


def version(number: int, spec: dict[str, Any] | None, message: str = "", by: str = "ada", **metadata: Any) -> Version:
    document = None if spec is None else {"name": "web", "metadata": metadata, "spec": spec, "version": number}
    return Version(number, TOLD, by, message, document)


def text(lines: list[Line]) -> str:
    return "\n".join("".join(run.text for run in line) for line in lines)


def what(timeline: Timeline, at: int = 0) -> str:
    return "".join(run.text for run in timeline.build_row(at, NOW, UNICODE).cells[3].runs)


def shown(timeline: Timeline, number: int, width: int = 78) -> str:
    difference = timeline.compare(number)
    assert difference is not None
    return text(draw_difference(difference, width, UNICODE))


# --- the list


def test_the_newest_version_comes_first_with_its_time_its_author_and_what_it_changed():
    timeline = Timeline([version(1, {"cpus": 1}), version(2, {"cpus": 2}, by="grace", tenant="acme")])
    row = timeline.build_row(0, NOW, UNICODE)
    assert [cell.text for cell in row.cells[:3]] == ["2", "1 m", "grace"]
    assert what(timeline) == "+metadata.tenant ~cpus"
    assert what(timeline, 1) == "made"
    assert (timeline.newest, len(timeline), timeline.is_deleted) == (2, 2, False)


def test_a_message_comes_before_the_paths():
    timeline = Timeline([version(1, {"a": 1}), version(2, {"a": 2}, "more room"), version(3, {"a": 2}, "restored")])
    assert what(timeline, 1) == "more room  ~a"
    assert what(timeline) == "restored"


def test_many_paths_are_counted():
    changes = compare({}, {f"k{number}": number for number in range(9)})
    assert shorten_changes(changes) == "+k0 +k1 +k2 +k3 +k4 and 4 more"


def test_deletions_and_returns_are_told():
    timeline = Timeline([version(1, {"a": 1}), version(2, None, by="eve"), version(3, {"a": 1}, "restored")])
    assert what(timeline, 1) == "deleted"
    assert "It was deleted." in shown(timeline, 2)
    assert "It was brought back." in shown(timeline, 3)
    assert timeline.refuse_rollback(2) == "version 2 is its deletion: choose another"
    gone = Timeline([version(1, {"a": 1}), version(2, None, "no longer used")])
    assert gone.is_deleted
    assert what(gone) == "no longer used  deleted"
    assert gone.refuse_rollback(1) == "it is deleted: restore it from the trash first"


def test_a_history_without_its_beginning_says_so():
    timeline = Timeline([version(7, {"a": 1}), version(8, {"a": 2})])
    assert what(timeline, 1) == "the oldest that is kept"
    assert "Earlier versions are kept no longer" in shown(timeline, 7)
    assert "+ spec" in shown(timeline, 7)


def test_an_empty_history_has_nothing_to_show():
    timeline = Timeline()
    assert (len(timeline), timeline.newest, timeline.compare(0), timeline.build_rows(0, 9, NOW, UNICODE)) == (
        0, 0, None, [],
    )  # fmt: skip
    assert timeline.refuse_rollback(0) == "there is no version selected"


def test_the_newest_version_is_no_way_back():
    timeline = Timeline([version(1, {"a": 1}), version(2, {"a": 2})])
    assert timeline.refuse_rollback(2) == "version 2 is how it is now"
    assert timeline.refuse_rollback(1) == ""


def test_two_versions_are_compared_from_the_older_to_the_newer():
    timeline = Timeline([version(1, {"a": 1}), version(2, {"a": 2}), version(3, {"a": 3}), version(4, None)])
    difference = timeline.compare_two(3, 1)
    assert difference is not None
    assert "Version 1 → 3" in text(draw_difference(difference, 78, UNICODE))
    assert "~ spec.a  1 → 3" in text(draw_difference(difference, 78, UNICODE))
    deleted = timeline.compare_two(1, 4)
    assert deleted is not None
    assert "its deletion" in text(draw_difference(deleted, 78, UNICODE))


def test_strings_that_look_alike_once_they_are_safe_still_differ():
    timeline = Timeline([version(1, {"a": "x\x07"}), version(2, {"a": "x\x1b"}, "\x1b]0;evil\x07", by="\u202eeve")])
    whole = shown(timeline, 2) + what(timeline)
    assert "~ spec.a" in whole
    assert not {"\x1b", "\x07", "\u202e"} & set(whole)


# --- differences


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("acme", "acme"),
        ("", '""'),
        ("3", '"3"'),
        (3, "3"),
        ("true", '"true"'),
        (True, "true"),
        (None, "null"),
        (" x", '" x"'),
        ("10.0.0.1", "10.0.0.1"),
        ("über", "über"),
        ('"quoted"', '"\\"quoted\\""'),
    ],
)
def test_a_value_is_shown_so_that_it_cannot_be_taken_for_another(value: object, expected: str):
    assert show_json(value) == expected


def test_each_sort_of_change_has_a_sign_and_a_role():
    changes = compare({"a": 1, "gone": "x", "n": 1}, {"a": 2, "n": 1, "new": "y"})
    lines = draw_changes(changes, 60, UNICODE)
    assert text(lines).splitlines() == ["~ a     1 → 2", "- gone  x", "+ new   y"]
    assert [line[0].role for line in lines] == [Role.WARN, Role.DANGER, Role.OK]
    assert text(draw_changes(changes, 60, ASCII)).splitlines()[0] == "~ a     1 > 2"


def test_what_has_parts_is_shown_as_a_tree_with_the_sign_on_every_line():
    changes = compare({"nics": []}, {"nics": [{"id": "nic0", "network": {"name": "lan"}, "tags": ["a", {"b": 1}]}]})
    assert text(draw_changes(changes, 60, UNICODE)).splitlines() == [
        "+ nics.0",
        "+   id: nic0",
        "+   network:",
        "+     name: lan",
        "+   tags:",
        "+     a",
        "+     1:",
        "+       b: 1",
    ]


def test_texts_of_several_lines_are_compared_line_by_line_with_a_little_around():
    old = "\n".join(f"line {number}" for number in range(20))
    new = old.replace("line 9\n", "line nine\nand more\n")
    drawn = text(draw_changes(compare({"t": old}, {"t": new}), 60, UNICODE)).splitlines()
    assert drawn == [
        "~ t",
        "    …",
        "    line 7",
        "    line 8",
        "-   line 9",
        "+   line nine",
        "+   and more",
        "    line 10",
        "    line 11",
    ]


def test_a_long_text_is_not_compared_for_minutes():
    old, new = "\n".join(map(str, range(30_000))), "\n".join(map(str, range(7, 30_007)))
    assert len(draw_changes(compare({"t": old}, {"t": new}), 60, UNICODE)) == 20_001


@pytest.mark.parametrize("width", [20, 33, 78])
def test_no_line_is_wider_than_there_is_room_and_nothing_is_left_out(width: int):
    from rich.cells import cell_len

    word = "".join(chr(97 + number % 26) for number in range(300)) + "宽" * 30
    lines = draw_changes(compare({}, {"a": word, "b": {"c": word + " " + word}}), width, UNICODE)
    assert max(cell_len(text([line])) for line in lines) <= width
    joined = "".join(run.text for line in lines for run in line[1:] if run.text.strip())
    assert joined.replace(" ", "").count(word) == 3


def test_the_type_of_a_value_is_told_apart():
    assert text(draw_changes(compare({"a": 3}, {"a": "3"}), 60, UNICODE)) == '~ a  3 → "3"'
