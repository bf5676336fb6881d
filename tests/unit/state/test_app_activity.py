"""What is told of operations: in a word, as progress, step by step, and of errors with what to do next."""

from typing import Any

import pytest

from kc_tui.state.glyphs import UNICODE
from kc_tui.state.operations import (
    Notice,
    as_sentence,
    build_entry,
    build_notice,
    describe_busy,
    describe_notice,
    describe_operation,
    describe_progress,
    describe_verb,
    shorten,
)
from kc_tui.state.roles import Role

STEPS = [
    {"id": "a", "title": "making the disk", "state": "done",
     "startedAt": "2026-01-01T00:00:00.000Z", "endedAt": "2026-01-01T00:00:02.000Z"},
    {"id": "b", "title": "sending it", "state": "running", "progress": {"done": 1 << 20, "total": 4 << 20}},
    {"id": "c", "title": "starting", "state": "pending"},
]  # fmt: skip


def operation(state: str = "running", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Operation", "name": "op-1", "uid": "o", "updatedBy": "root", "createdAt": "2026-01-01T00:00:00.000Z",
        "spec": {"type": "vm.create", "target": {"kind": "VM", "name": "web", "uid": "u"}},
        "status": {"state": state, "percent": 40, "steps": STEPS, "startedAt": "2026-01-01T00:00:00.000Z", **status},
    }  # fmt: skip


def text(lines) -> str:
    return "\n".join("".join(run.text for run in line) for line in lines)


def test_the_short_form_is_what_a_vms_status_has():
    assert shorten(operation()) == {
        "name": "op-1", "type": "vm.create", "state": "running", "step": 2, "steps": 3, "title": "sending it",
        "percent": 40, "parked": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        ("vm.create", "creating"),
        ("vm.stop", "stopping"),
        ("network.delete", "deleting"),
        ("vm.resize", "resizing"),
        ("", "changing"),
    ],
)
def test_each_operation_has_a_word_for_what_it_does(kind: str, verb: str):
    assert describe_verb(kind) == verb


def test_undoing_and_waiting_have_words_of_their_own():
    undoing = shorten(operation("undoing", undo=STEPS))
    assert describe_busy(undoing) == "undoing"
    assert describe_progress(undoing).text == "undoing, step 2 of 3: sending it"
    parked = shorten(operation("queued", parked=True))
    assert describe_busy(parked) == "waiting"
    assert describe_progress(parked).text == "waiting for the host to answer"
    assert describe_progress(shorten(operation("queued", steps=[]))).text == "waiting for its turn"


def test_a_line_of_the_list_tells_when_what_how_long_and_why():
    error = {"detail": "no space left", "hint": "free some"}
    failed = operation("failed", endedAt="2026-01-01T00:00:05.000Z", error=error)
    entry = build_entry(failed, 1_767_225_605.0, UNICODE)
    assert [cell.text for cell in entry.row.cells] == ["5 s", "creating", "web", "failed", "5.0 s", "no space left"]
    assert entry.row.glyph.role is Role.DANGER
    assert entry.row.progress is None
    running = build_entry(operation(), 1_767_225_605.0, UNICODE)
    assert running.row.progress is not None
    assert running.state == "running"


def test_the_page_tells_the_error_first_and_each_step_with_its_time():
    error = {"detail": "no space left", "hint": "free some"}
    told = text(describe_operation(operation("failed", error=error, undo=STEPS[:1]), UNICODE))
    assert told.index("No space left.") < told.index("Free some.") < told.index("making the disk  2.0 s")
    assert "1 MiB of 4 MiB" in told
    assert "Undone again" in told


def test_what_was_no_operation_stands_among_them():
    notice = Notice(3, 1_767_225_600.0, "VM web", "the name is taken", "choose another")
    entry = build_notice(notice, 1_767_225_660.0, UNICODE)
    assert [cell.text for cell in entry.row.cells] == ["1 m", "error", "VM web", "failed", "–", "the name is taken"]
    assert text(describe_notice(notice)) == "VM web\n\nThe name is taken.\n\nChoose another."


def test_a_text_becomes_a_sentence_once():
    assert [as_sentence(words) for words in ("it is off", "It is off.", "", "really?")] == [
        "It is off.",
        "It is off.",
        "",
        "Really?",
    ]


@pytest.mark.parametrize("status", [{}, {"steps": None, "state": None}, {"error": "text", "steps": [{}]}])
def test_a_journal_of_another_version_is_no_crash(status: dict):
    strange = operation() | {"status": status, "createdAt": "yesterday"}
    build_entry(strange, 0.0, UNICODE)
    describe_operation(strange, UNICODE)
