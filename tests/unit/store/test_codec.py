from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FailedError, RefusedError
from backend.store import codec

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_codec", codec._Codec())


def quick() -> codec._Codec:
    coder = codec._Codec()
    coder.quicken()
    return coder


def same(first: Any, second: Any) -> bool:
    return codec.is_same(first, second) and repr(first) == repr(second)


@given(values)
def test_both_coders_read_what_either_wrote(value: Any):
    plain, fast = codec._Codec(), quick()
    for writer in (plain, fast):
        data = writer.encode({"x": value})
        for reader in (plain, fast):
            assert same(reader.decode(data), {"x": value})


def test_a_process_with_much_to_code_changes_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(codec, "_DOCUMENTS_WORTH_AN_IMPORT", 10)
    coder = codec._Codec()
    plain = coder.decode
    results = [coder.decode(b'{"a":1}') for _ in range(20)]
    assert results == [{"a": 1}] * 20
    assert coder.decode is not plain


@pytest.mark.parametrize("data", [b"{", b"\xff", b"", b"[" * 5000 + b"]" * 5000])
def test_damaged_bytes_are_a_failure(data: bytes):
    for coder in (codec._Codec(), quick()):
        codec._codec = coder
        with pytest.raises(FailedError):
            codec.decode(data)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, (1,), {1: 1}, {1}, b"x", "\ud800", object()],
    ids=["nan", "infinity", "tuple", "number-key", "set", "bytes", "surrogate", "object"],
)
def test_what_would_not_come_back_the_same_is_refused(value: Any):
    for coder in (codec._Codec(), quick()):
        codec._codec = coder
        with pytest.raises(RefusedError):
            codec.encode({"x": value}, "VM", "web")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": [0]}, {"a": [False]}, False),
        ({"a": 0.0}, {"a": -0.0}, False),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": None}, False),
    ],
)
def test_sameness_is_that_of_json(first: Any, second: Any, expected: bool):
    assert codec.is_same(first, second) is expected


def test_depth():
    assert codec.measure_depth(1) == 0
    assert codec.measure_depth({}) == 1
    assert codec.measure_depth({"a": [1, {"b": 2}], "c": 1}) == 3
