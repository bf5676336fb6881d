"""Which signs are drawn where."""

from __future__ import annotations

from dataclasses import fields

import pytest
from rich.cells import cell_len

from kc_tui.state.glyphs import ASCII, UNICODE, Glyphs, choose_glyphs


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_every_sign_is_one_cell_wide(glyphs):
    signs = [getattr(glyphs, field.name) for field in fields(Glyphs) if field.name not in ("sparkline", "is_ascii")]
    assert {cell_len(sign) for sign in (*signs, *glyphs.sparkline)} == {1}


def test_the_ascii_set_is_ascii_and_tells_the_states_apart():
    states = [ASCII.running, ASCII.changing, ASCII.stopped, ASCII.paused, ASCII.attention, ASCII.failed, ASCII.foreign]
    assert all(getattr(ASCII, field.name).isascii() for field in fields(Glyphs) if field.name != "is_ascii")
    assert len(set(states)) == len(states)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, UNICODE),
        ({"LANG": "de_DE.UTF-8"}, UNICODE),
        ({"LANG": "C.utf8", "TERM": "xterm-256color"}, UNICODE),
        ({"LANG": "de_DE.UTF-8@euro"}, UNICODE),
        ({"LANG": "de_DE.ISO-8859-1"}, ASCII),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, ASCII),
        ({"LANG": "C", "LC_CTYPE": "en_GB.UTF-8"}, UNICODE),
        ({"LANG": "ja_JP.UTF-8"}, ASCII),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, ASCII),
    ],
)
def test_locale_and_terminal_decide(environment, expected):
    assert choose_glyphs(environment) is expected


def test_the_user_decides_over_both():
    assert choose_glyphs({"LANG": "C"}, "unicode") is UNICODE
    assert choose_glyphs({"LANG": "C.UTF-8"}, "ascii") is ASCII
