"""Themes hold roles, can be read, and fall back."""

from __future__ import annotations

from itertools import combinations

import pytest

from backend.errors import RefusedError
from kc_tui.theming import ROLES, contrast, load_themes, make_textual_theme, make_variables, parse_theme

BUILT_IN = load_themes()
COLOURED = [theme for theme in BUILT_IN.by_name.values() if not theme.is_ansi]
GOOD = """
name = "mine"
description = "my own"
dark = true
background = "#101010"
surface = "#202020"
text = "#eeeeee"
muted = "#a0a0a0"
accent = "#ffcc00"
ok = "#00ff00"
warn = "#ff8800"
danger = "#ff5050"
selection = "#303060"
"""

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def test_the_built_in_themes_are_those_of_the_design():
    assert set(BUILT_IN.by_name) == {"crown", "bird", "crowd", "kraut", "ansi"}
    assert not BUILT_IN.problems
    assert [theme.name for theme in BUILT_IN.by_name.values() if not theme.dark] == ["bird"]
    assert BUILT_IN.choose("no such").name == "crown"


@pytest.mark.parametrize("theme", COLOURED, ids=lambda theme: theme.name)
@pytest.mark.parametrize("ground", ["background", "surface", "selection"])
@pytest.mark.parametrize("role", ["text", "muted", "accent", "ok", "warn", "danger"])
def test_every_text_can_be_read_on_every_ground(theme, ground, role):
    least = 7.0 if role == "text" else 4.5
    assert contrast(getattr(theme, role), getattr(theme, ground)) >= least


def test_crowd_has_high_contrast():
    crowd = BUILT_IN.by_name["crowd"]
    assert all(contrast(getattr(crowd, role), crowd.background) >= 7 for role in ROLES[2:8])


@pytest.mark.parametrize("theme", COLOURED, ids=lambda theme: theme.name)
def test_the_selection_can_be_told_from_the_background(theme):
    assert contrast(theme.selection, theme.background) >= 1.15


def lab(color, matrix=None):
    """Return CIE L*a*b* (D65) of a colour as somebody sees it."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    if matrix:
        linear = [min(1, max(0, sum(m * c for m, c in zip(row, linear, strict=True)))) for row in matrix]
    r, g, b = linear
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("kind", [*BLINDNESS])
@pytest.mark.parametrize("pair", [*combinations(("ok", "warn", "danger"), 2)], ids="-".join)
def test_krauts_states_stay_apart_for_the_colour_blind(kind, pair):
    kraut = BUILT_IN.by_name["kraut"]
    one, other = (lab(getattr(kraut, role), BLINDNESS[kind]) for role in pair)
    assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 >= 20


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)
    assert contrast("ansi_red", "#ffffff") is None


def test_a_file_is_read_as_it_is_written():
    theme = parse_theme(GOOD, "mine.toml")
    assert (theme.name, theme.accent, theme.roles["selection"]) == ("mine", "#ffcc00", "#303060")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('"#ff8800"', '"orange"'), "warn is no colour: 'orange'"),
        (('"#ff8800"', "12"), "warn is no colour: 12"),
        (('muted = "#a0a0a0"\n', ""), "no muted"),
        (('muted = "#a0a0a0"', 'muted = "#a0a0a0"\nborder = "#000000"'), "unknown border"),
        (('name = "mine"', 'name = "../mine"'), "no proper name"),
        (("dark = true", 'dark = "yes"'), "description is a text and dark is true or false"),
        (('text = "#eeeeee"', 'text = "#181818"'), "text can hardly be read on background"),
        (("dark = true", "dark = = true"), "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_one_clear_reason(change, why):
    with pytest.raises(RefusedError) as caught:
        parse_theme(GOOD.replace(*change), "mine.toml")
    assert caught.value.what == "theme mine.toml"
    assert why in caught.value.why
    assert "\n" not in str(caught.value)


def test_users_themes_join_the_built_in_and_wrong_ones_are_told(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD)
    (tmp_path / "crown.toml").write_text("name =")
    (tmp_path / "bird.toml").write_text(GOOD.replace("mine", "bird"))
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "notes.txt").write_text("no theme")
    themes = load_themes(tmp_path)
    assert themes.choose("mine").accent == "#ffcc00"
    assert themes.choose("bird").accent == "#ffcc00"
    assert themes.choose("crown") == BUILT_IN.choose("crown")
    assert [problem.what for problem in themes.problems] == [
        "theme crown.toml",
        "theme folder.toml",
        "theme latin.toml",
    ]


def test_a_folder_that_is_not_there_is_no_problem(tmp_path):
    assert load_themes(tmp_path / "none") == BUILT_IN


@pytest.mark.parametrize("theme", [*BUILT_IN.by_name.values()], ids=lambda theme: theme.name)
def test_every_role_becomes_a_style_variable(theme):
    variables = make_textual_theme(theme).to_color_system().generate() | make_variables(theme)
    assert {role: variables[role] for role in ROLES} == theme.roles


def test_a_theme_without_a_colour_for_its_selection_shows_it_reversed():
    assert make_variables(BUILT_IN.by_name["ansi"])["selection-style"] == "reverse"
    assert make_variables(BUILT_IN.by_name["crown"])["selection-style"] == "not reverse"
