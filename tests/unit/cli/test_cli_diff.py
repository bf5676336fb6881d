"""Differences between versions: a sign, a path and the values, at a glance and without harm to the terminal."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.model.changes import compare
from backend.text import sanitise
from kc_tui.cli.diff import print_changes, render_changes, summarise_changes
from kc_tui.cli.table import measure

COLOUR = re.compile(r"\x1b\[\d+m")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def render(old: Any, new: Any, limit: int = 80) -> list[str]:
    return render_changes(compare(old, new), limit=limit)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({}, {"a": 1}, ["+ a: 1"]),
        ({"a": 1}, {}, ["- a: 1"]),
        ({"a": 1}, {"a": 2}, ["~ a: 1 → 2"]),
        ({"a": 1}, {"a": "1"}, ['~ a: 1 → "1"']),
        ({"a": {"b": True}}, {"a": {"b": 1}}, ["~ a.b: true → 1"]),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}, ["- a.1: 2"]),
        ({"a": {}}, {"a": {"x": {"y": None}}}, ['+ a.x: {"y": null}']),
        ({"a": "x"}, {"a": {"b": []}}, ['~ a: "x" → {"b": []}']),
        ({"a.b": 1}, {"a.b": 2}, ['~ "a.b": 1 → 2']),
        ({"a": 1}, {"a": 1}, []),
    ],
)
def test_a_change_is_a_line(old, new, lines):
    assert render(old, new) == lines


def test_an_object_that_is_too_long_for_a_line_comes_part_by_part():
    nic = {"id": "nic1", "network": {"name": "lab"}, "mac": "52:54:00:00:00:01", "ipv4": {"mode": "dhcp"}}
    assert render({"nics": []}, {"nics": [nic]}, 40) == [
        '+ nics.0.id: "nic1"',
        '+ nics.0.network: {"name": "lab"}',
        '+ nics.0.mac: "52:54:00:00:00:01"',
        '+ nics.0.ipv4: {"mode": "dhcp"}',
    ]


def test_long_values_are_cut_but_not_where_they_differ():
    key = "ssh-ed25519 " + "A" * 300
    lines = render({"key": f"{key}old me@home"}, {"key": f"{key}new me@home"}, 40)
    assert lines == ["~ key:", '    - …AAAAAAAAAAAAold me@home"', '    + …AAAAAAAAAAAAnew me@home"']
    assert render({"a": 1}, {"a": "x" * 500}, 20) == ["~ a:", "    - 1", '    + "xxxxxxxxxxxx…']


def test_texts_of_several_lines_are_compared_line_by_line():
    old = "#cloud-config\n" + "".join(f"line: {number}\n" for number in range(20)) + "end: 1\n"
    new = old.replace("line: 10\n", "line: ten\n\tmore\n").replace("end: 1", "end: 2")
    assert render({"userData": old}, {"userData": new}) == [
        "~ userData:",
        "      line: 9",
        "    - line: 10",
        "    + line: ten",
        "    +         more",
        "      line: 11",
        "      …",
        "      line: 19",
        "    - end: 1",
        "    + end: 2",
        "      ",
    ]
    assert render({}, {"userData": "a\nb"}) == ["+ userData:", "    + a", "    + b"]
    assert render({"userData": "a\nb\n"}, {"userData": ""}) == ["~ userData:", "    - a", "    - b", "      "]
    many = render({}, {"userData": "\n".join(map(str, range(100)))})
    assert many[-2:] == ["    + 39", "      … and 60 lines more"]


def test_effects_have_a_sign_of_their_own():
    assert render_changes([], ["nic1 is plugged in\x1b[2J"]) == ["! nic1 is plugged in�[2J"]


@settings(deadline=None, max_examples=100)
@given(JSON, JSON, st.integers(20, 120))
def test_every_line_fits_has_a_sign_and_can_steer_no_terminal(old, new, limit):
    old, new = {"metadata": old}, {"metadata": new}
    lines = render(old, new, limit)
    assert all(measure(line) <= limit for line in lines)
    assert all(sanitise(line) == line for line in lines)
    assert bool(lines) == bool(compare(old, new))
    assert not lines or lines[0][0] in "+-~"


def test_colours_repeat_what_the_signs_say():
    changes = compare({"a": 1, "b": 1, "t": "x\ny"}, {"a": 2, "c": 1, "t": "x\nz"})
    plain, coloured = render_changes(changes, limit=80), render_changes(changes, limit=80, coloured=True)
    assert [COLOUR.sub("", line) for line in coloured] == plain
    tones = {"+": "32", "-": "31", "~": "33"}
    for line, bare in zip(coloured, plain, strict=True):
        sign = bare.strip()[:1]
        assert line.startswith(f"\x1b[{tones[sign]}m") if sign in tones else line == bare


def test_only_a_terminal_gets_colours():
    stream = io.StringIO()
    print_changes(compare({"a": 1}, {"a": 2}), stream=stream)
    assert stream.getvalue() == "~ a: 1 → 2\n"


def test_a_summary_is_the_change_itself_or_the_paths():
    assert summarise_changes(compare({"a": 1}, {"a": 2})) == "~ a: 1 → 2"
    five = dict.fromkeys("abcde", 1)
    assert summarise_changes(compare({}, five)) == "a, b and 3 more"
    assert summarise_changes([]) == ""


# --- the command


@pytest.fixture
def changed(kept):
    """A VM at version 3, of which each version was written by another change."""
    kept.add_vm("web", metadata={"tenant": "acme"})
    kept.set_memory("web", 640)
    kept.set_memory("web", 768)
    return kept


def test_the_last_change_is_what_a_name_alone_asks_for(changed):
    result = changed("vm", "diff", "web")
    assert (result.code, result.out) == (0, "~ spec.parameters.memoryMiB: 640 → 768\n")
    assert result.err == "kc: VM web, version 2 to 3:\n"


def test_from_a_version_to_another_or_to_what_is_there(changed):
    assert changed("vm", "diff", "web", "1").out == "+ spec.parameters.memoryMiB: 768\n"
    assert changed("vm", "diff", "web", "1", "2").out == "+ spec.parameters.memoryMiB: 640\n"
    assert changed("vm", "diff", "web", "2", "1", "-q").out == "- spec.parameters.memoryMiB: 640\n"
    assert changed("vm", "diff", "web", "1", "-o", "name").out == "spec.parameters.memoryMiB\n"


def test_for_programs_it_is_a_json_patch(changed):
    result = changed("vm", "diff", "web", "2", "3", "-o", "json")
    assert result.json() == [{"op": "replace", "path": "/spec/parameters/memoryMiB", "value": 768}]
    assert result.err == ""
    assert yaml.safe_load(changed("vm", "diff", "web", "2", "3", "-o", "yaml").out) == result.json()
    assert changed("vm", "diff", "web", "3", "3", "-o", "json").json() == []


def test_no_difference_is_said_on_stderr_and_no_error(changed):
    result = changed("vm", "diff", "web", "2", "2")
    assert (result.code, result.out) == (0, "")
    assert result.err == "kc: VM web: no difference from version 2 to 2\n"
    only = changed("type", "diff", "tiny")
    assert (only.code, only.out) == (0, "")
    assert only.err == "kc: machine type tiny: version 1 is the only one that is kept\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("gone",), 3),
        (("gone", "1"), 3),
        (("web", "9"), 3),
        (("web", "1", "9"), 3),
        (("web", "x"), 2),
        (("web", "0"), 2),
    ],
)
def test_what_is_not_there_has_no_difference(changed, arguments, code):
    result = changed("vm", "diff", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1


def test_a_deleted_object_has_its_differences_still(changed):
    assert changed("vm", "delete", "web", "--yes").code == 0
    assert changed("vm", "diff", "web", "-q").out == "~ spec.parameters.memoryMiB: 640 → 768\n"
    assert changed("vm", "diff", "web", "1", "-q").out == "+ spec.parameters.memoryMiB: 768\n"


def test_comparing_changes_nothing_that_is_compared():
    old, new = {"a": [1, {"b": 2}]}, {"a": [{"b": 3}]}
    copies = copy.deepcopy((old, new))
    render(old, new)
    assert (old, new) == copies
