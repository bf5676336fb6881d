"""What one types finds what one means."""

from __future__ import annotations

from kc_tui.state.matching import rank

TEXTS = ["stop", "start", "restart web", "network: web-net", "vm web-1"]


def found(query):
    return [TEXTS[index] for index in rank(query, TEXTS)]


def test_nothing_typed_finds_all_in_order():
    assert found("  ") == TEXTS


def test_the_beginning_beats_a_word_beats_the_inside():
    assert found("sta") == ["start", "restart web"]
    assert found("web") == ["restart web", "network: web-net", "vm web-1"]


def test_all_words_must_occur_in_any_case():
    assert found("WEB re") == ["restart web"]


def test_letters_in_order_find_when_nothing_else_does():
    assert found("vw1") == ["vm web-1"]
    assert found("stp") == ["stop"]


def test_what_is_nowhere_finds_nothing():
    assert found("zzz") == []
