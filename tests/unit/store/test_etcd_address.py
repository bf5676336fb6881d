"""Addresses of stores in an etcd, and what is asked of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FailedError, RefusedError
from backend.store import etcd_requests as ask
from backend.store.etcd_address import parse_address
from backend.store.etcd_keys import Entry, Keys, make_pointer, read_entry, read_pointer
from backend.store.opening import open_store


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("etcd://a:1", "etcd://a:1/kc"),
        ("etcd://a", "etcd://a:2379/kc"),
        ("etcd://a:1/", "etcd://a:1/kc"),
        ("etcd://a:1,b:2/my/store", "etcd://a:1,b:2/my/store"),
        ("etcd://a:1,a:1,[::1]:3/x/", "etcd://a:1,[::1]:3/x"),
        ("etcds://10.0.0.1:2379/x", "etcds://10.0.0.1:2379/x"),
    ],
)
def test_an_address_is_understood_and_told_in_full(url: str, whole: str):
    assert str(parse_address(url)) == whole
    assert parse_address(whole) == parse_address(url)


@pytest.mark.parametrize(
    "url",
    ["etcd:", "etcd://", "etcd:///x", "etcd://a:0", "etcd://a:65536", "etcd://a:b", "etcd://a,,b", "etcd://a b",
     "etcd://a\x1b[31m", "etcd://a@b:1", "etcd://a/x y", "etcd://a/x//y", "etcd://a/\x1b", "etcd://a/kc/log",
     "etcd://::1:2379"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(RefusedError) as raised:
        open_store(url)
    assert str(raised.value).isprintable()
    assert raised.value.hint


@given(*[st.text(st.characters(exclude_categories=["Cs"]))] * 2)
def test_no_two_documents_share_a_key_and_none_lies_in_anothers_history(table: str, uid: str):
    keys = Keys(b"/kc/")
    assert keys.split(keys.version(table, uid, 7)) == ["version", table, uid, "0000000007"]
    assert keys.split(keys.head(table, uid)) == ["head", table, uid]
    assert keys.version(table, uid, 1).startswith(keys.history(table, uid))
    assert not keys.version(table, uid + "/1", 1).startswith(keys.history(table, uid))
    start, end = keys.history(table, uid), ask.find_end(keys.history(table, uid))
    assert start < keys.version(table, uid, 9_999_999_999) < end


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), st.sampled_from(["created", "deleted"]))
def test_an_entry_comes_back_as_it_was(name: str, payload: bytes, event: str):
    entry = Entry(12, 3, 1.5, event, name, payload)
    assert read_entry(entry.encode()) == entry
    pointer = make_pointer("VM", name, entry)
    assert read_pointer(Keys(b"/kc/").log(12), pointer.encode()) == pointer


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"[1,2]\n{}", b"nonsense\n", b"\xff\n"])
def test_a_damaged_entry_says_so(data: bytes):
    with pytest.raises(FailedError):
        read_entry(data)
    with pytest.raises(FailedError):
        read_pointer(b"/kc/log/0000000000000001", data)


@pytest.mark.parametrize("count", [1, 40, 41, 1600, 1601, 64_000])
def test_any_number_of_operations_stays_within_what_etcd_counts(count: int):
    request = ask.transaction([ask.delete(b"%d" % number) for number in range(count)])

    def look(operations: list[ask.Json]) -> tuple[int, int]:
        """Return the leaves, and the longest sum of lists on one path."""
        inner = [look(each["request_txn"]["success"]) for each in operations if "request_txn" in each]
        plain = sum("request_txn" not in each for each in operations)
        return plain + sum(leaves for leaves, _ in inner), len(operations) + max(
            (depth for _, depth in inner), default=0
        )

    leaves, longest = look(request["success"])
    assert leaves == count
    assert longest <= 128
