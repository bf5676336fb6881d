"""A document as text and back: what comes back is what was there, and what it looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.text import sanitise_lines
from kc_tui.state.document_text import read_text, write_text

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(st.dictionaries(st.text(), VALUES))
def test_what_is_written_is_read_as_it_was_and_plays_no_tricks_on_a_terminal(metadata):
    text = write_text({"version": 3, "metadata": metadata, "spec": {}}, "VM web")
    assert sanitise_lines(text) == text
    assert read_text(text, "VM web") == (3, "", {"metadata": metadata, "spec": {}})


@pytest.mark.parametrize("value", ["no", "52:54:00:12:34:56", "2026-01-01", "1e3x", "~x", "yes", "1_000", "on"])
def test_a_plain_word_is_a_text_whatever_yaml_thought_of_it_once(value):
    assert read_text(f"metadata:\n  a: {value}\n", "x").parts == {"metadata": {"a": value}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("metadata: {a: 1, a: 2}", "line 1: the key 'a' is there twice"),
        ("metadata:\n  b: *x", "refers to nothing before it"),
        ("spec: {a: .inf}", ".inf is no JSON number"),
        ("spec: {1: 2}", "a key must be a text"),
        ("spec: !!python/object:os.system {}", "is not taken"),
        ("colour: red", "colour: unknown field"),
        ("- 1", "no YAML object"),
        ("", "no YAML object"),
        ("metadata: 3", "metadata is no object"),
        ("spec: {", "line 2"),
        ("spec: " + "[" * 5000, "nested in more than 100 levels"),
        ("x" * (3 << 20), "longer than 2 MiB"),
        ("spec: \x00", "line 1"),
        ("spec: {a: 0755}", "some take for octal"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(text, why):
    with pytest.raises(RefusedError, match=r".*") as raised:
        read_text(text, "VM web")
    assert why in raised.value.why
    assert raised.value.what == "VM web"


def test_what_is_left_out_is_left_to_the_service():
    assert read_text("spec: {power: stopped}", "x") == (0, "", {"spec": {"power": "stopped"}})
    assert read_text("metadata:\nspec: {}\nmessage: why", "x") == (0, "why", {"spec": {}})
