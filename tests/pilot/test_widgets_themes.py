"""What reaches the terminal: themes, ASCII, and never a guest's control characters or markup."""

from __future__ import annotations

import os
import re

import pytest
from support.gallery import Gallery, Vm
from support.waiting import wait_for

from kc_tui.command_app import Looks
from kc_tui.dialogs.confirm import ConfirmDialog, Question
from kc_tui.dialogs.message import MessageDialog, Report
from kc_tui.state.glyphs import ASCII, UNICODE
from kc_tui.theming import load_themes

HOSTILE = "[@click=app.quit]x[/] [/b] \x1b]52;c;aGk=\x07 \x9b31m \u202eevil"
KEYS_OF_A_TOUR = ["colon", "escape", "question_mark", "escape", "slash", "w", "escape", "d", "escape", "s", "escape"]


def screen_text(app) -> str:
    return re.sub(r"<[^>]*>", "\n", app.export_screenshot()).replace("&#160;", " ")


@pytest.mark.parametrize("theme", [*load_themes().by_name])
async def test_every_theme_holds_on_every_screen(theme):
    async with Gallery(looks=Looks(theme=theme)).run_test(size=(80, 24)) as pilot:
        await pilot.press(*KEYS_OF_A_TOUR)
        assert pilot.app.theme == theme
        assert pilot.app.screen is pilot.app.list_screen


async def test_no_style_sheet_overflows_textuals_cache():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press(*KEYS_OF_A_TOUR)
        assert len(pilot.app.stylesheet.source) <= 48


async def test_plain_ascii_has_nothing_else_on_the_screen():
    async with Gallery(looks=Looks(glyphs=ASCII)).run_test(size=(80, 24)) as pilot:
        for key in KEYS_OF_A_TOUR:
            await pilot.press(key)
            drawn = "".join(segment.text for strip in pilot.app.screen._compositor.render_strips() for segment in strip)
            assert {sign for sign in drawn if not sign.isascii()} == set(), key


async def test_a_guests_text_is_text():
    vms = (Vm(HOSTILE, note=HOSTILE), Vm("web"))
    async with Gallery(vms).run_test(size=(140, 24), notifications=True) as pilot:
        app = pilot.app
        app.refuse(HOSTILE)
        app.notify(HOSTILE, markup=False)
        app.list_screen.filter.open()
        app.list_screen.filter.show_error(HOSTILE, 3)
        await pilot.pause()
        pictures = [app.screen]
        question = Question(HOSTILE, HOSTILE, "delete", (HOSTILE, HOSTILE + "2"))
        for dialog in (ConfirmDialog(question), MessageDialog(Report(HOSTILE, HOSTILE, HOSTILE, HOSTILE))):
            app.push_screen(dialog)
            await pilot.pause()
            pictures.append(dialog)
        for picture in pictures:
            text = "".join(segment.text for strip in picture._compositor.render_strips() for segment in strip)
            assert "[@click=app.quit]x[/]" in text
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", text)
            styles = [segment.style for strip in picture._compositor.render_strips() for segment in strip]
            assert not any(style and "@click" in style.meta for style in styles)


async def test_copying_says_so_and_too_much_is_refused():
    async with Gallery().run_test(size=(80, 24), notifications=True) as pilot:
        pilot.app.copy_text("10.0.0.17", "the address of web-1")
        assert pilot.app.clipboard == "10.0.0.17"
        await wait_for(pilot, lambda: "Copied the address of web-1" in screen_text(pilot.app), "it is said")
        pilot.app.copy_text("x" * 100_000, "the log")
        assert pilot.app.clipboard == "10.0.0.17"
        assert pilot.app.list_screen.bar.reason == "the log is longer than the 73 KiB that a terminal takes"


def test_without_colours_the_terminals_own_theme_is_taken():
    keymap = Looks().keymap
    plain = Looks.choose({"NO_COLOR": "1"}, themes=load_themes(), theme="bird", keymap=keymap, glyphs=UNICODE)
    assert plain.theme == "ansi"
    chosen = Looks.choose({}, themes=load_themes(), theme="bird", keymap=keymap, glyphs=UNICODE)
    assert chosen.theme == "bird"
    unknown = Looks.choose({}, themes=load_themes(), theme="no such", keymap=keymap, glyphs=UNICODE)
    assert unknown.theme == "crown"


async def test_without_colours_nothing_has_one_and_the_cursor_is_still_seen(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    looks = Looks.choose(os.environ, themes=load_themes(), theme="crown", keymap=Looks().keymap, glyphs=UNICODE)
    async with Gallery(looks=looks).run_test(size=(80, 24)) as pilot:
        strips = pilot.app.screen._compositor.render_strips()
        segments = [segment for strip in strips for segment in strip if segment.style]
        styles = [segment.style for segment in segments]
        colors = {color.name for style in styles for color in (style.color, style.bgcolor) if color is not None}
        assert colors == {"default"}
        assert any("web-1" in segment.text for segment in segments if segment.style.reverse)


async def test_what_is_wrong_in_the_users_files_is_told(tmp_path):
    (tmp_path / "bad.toml").write_text("name = 1")
    async with Gallery(looks=Looks(themes=load_themes(tmp_path), theme="bad")).run_test() as pilot:
        assert pilot.app.theme == "crown"
        assert [problem.partition(":")[0] for problem in pilot.app.problems] == ["theme bad.toml"]
