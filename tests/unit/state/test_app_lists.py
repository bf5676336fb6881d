"""Lists as values: order, filter, and what has to be drawn again after a change."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import RefusedError
from kc_tui.state.filtering import compile_filter, is_selector
from kc_tui.state.listing import Entry, Listing, accept_words, natural_key
from kc_tui.state.table import Row


def entry(name: str, **keys: Any) -> Entry:
    return Entry(name, name, Row(name, 0, ()), f"{name} {keys}", {"name": natural_key(name), **keys})


def shown(listing: Listing[Entry]) -> list[str]:
    return [item.name for item in listing.shown]


def filled(*entries: Entry) -> Listing[Entry]:
    listing: Listing[Entry] = Listing()
    listing.fill(entries)
    return listing


def test_figures_in_names_sort_as_figures():
    assert shown(filled(entry("web-10"), entry("web-2"), entry("db"))) == ["db", "web-2", "web-10"]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_names_can_be_sorted(names: list[str]):
    assert len(sorted(map(natural_key, names))) == len(names)


def test_a_number_too_long_to_be_one_costs_nothing():
    assert natural_key("9" * 100_000) > natural_key("8" * 100_000)


def test_equal_entries_of_a_column_stand_in_the_order_of_their_names():
    listing = filled(entry("b", cpu=1), entry("c", cpu=0), entry("a", cpu=1))
    listing.sort("cpu")
    assert shown(listing) == ["c", "a", "b"]
    listing.sort("cpu", reverse=True)
    assert shown(listing) == ["a", "b", "c"]


def test_a_column_that_is_gone_leaves_the_order_of_names():
    listing = filled(entry("b"), entry("a"))
    listing.sort("metadata.tenant")
    assert shown(listing) == ["a", "b"]


def test_a_change_that_moves_nothing_gives_the_rows_to_draw_again():
    listing = filled(entry("a", cpu=1), entry("b", cpu=2))
    row = Row("a", 1, ())
    assert listing.update([replace(entry("a", cpu=9), row=row)]) == [row]
    assert listing.rows[0] is row


@pytest.mark.parametrize(
    ("changed", "gone"),
    [([entry("c", cpu=0)], []), ([], ["a"]), ([entry("a", cpu=3)], [])],
    ids=("new", "gone", "moved"),
)
def test_a_change_that_moves_something_has_the_list_shown_anew(changed: list[Entry], gone: list[str]):
    listing = filled(entry("a", cpu=1), entry("b", cpu=2))
    listing.sort("cpu")
    assert listing.update(changed, gone) is None
    assert shown(listing) == sorted(shown(listing), key=lambda name: listing.get(name).sort_keys["cpu"])


def test_a_change_can_bring_an_entry_into_the_filter():
    listing = filled(entry("a"), entry("b"))
    listing.filter(accept_words("hot"))
    assert shown(listing) == []
    assert listing.update([replace(entry("b"), search="b hot")]) is None
    assert shown(listing) == ["b"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("web", ["web-1", "web-2"]), ("web !2", ["web-1"]), ("WEB 2", ["web-2"]), ("!web", ["db"]), ("", None)],
)
def test_words_find_entries_that_have_them_all(text: str, found: list[str] | None):
    accepts = accept_words(text)
    if found is None:
        assert accepts is None
        return
    listing = filled(entry("web-1"), entry("web-2"), entry("db"))
    listing.filter(accepts)
    assert sorted(shown(listing)) == found


@pytest.mark.parametrize("text", ["tenant=acme", "tier>2", "name~web*", "tenant in (a,b)", "status.power", "a=1,b=2"])
def test_what_reads_as_a_selector_is_one(text: str):
    assert is_selector(text)


@pytest.mark.parametrize("text", ["web", "web !db", "10.0.0.17", "in", "running"])
def test_words_are_no_selector(text: str):
    assert not is_selector(text)


def test_a_selector_speaks_of_documents():
    documents = {"a": {"name": "a", "metadata": {"tenant": "acme"}}, "b": {"name": "b", "metadata": {}}}
    listing = filled(entry("a"), entry("b"), entry("gone"))
    listing.filter(compile_filter("tenant=acme", documents.get))
    assert shown(listing) == ["a"]


def test_a_wrong_selector_says_where_it_is_wrong():
    with pytest.raises(RefusedError) as raised:
        compile_filter("tenant in (a", {}.get)
    assert isinstance(raised.value.details["position"], int)
