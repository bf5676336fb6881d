"""Keys run commands or say why not; the key bar tells which; nothing leaks."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.gallery import VMS, Gallery, GalleryScreen, Vm
from support.waiting import wait_for
from textual.events import Key

from kc_tui.command_app import CommandApp, Looks
from kc_tui.commands import build_keymap
from kc_tui.commands.dispatch import find_unhandled
from kc_tui.widgets import key_bar
from kc_tui.widgets.key_bar import KeyBar


def words(bar: KeyBar) -> str:
    return bar.render().plain


async def test_the_key_bar_shows_what_can_be_done_here():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        bar = pilot.app.list_screen.bar
        assert words(bar) == " enter open  n new  c console  s stop  d delete  space mark  : commands"
        await pilot.press("down", "down", "down", "down")
        await wait_for(pilot, lambda: "s start" in words(bar), "a stopped VM can be started")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 140])
async def test_the_key_bar_never_wraps_and_keeps_the_way_to_all_commands(width):
    async with Gallery().run_test(size=(width, 24)) as pilot:
        bar = pilot.app.list_screen.bar
        assert len(words(bar)) <= width
        assert ": commands" in words(bar)
        assert bar.region.size == (width, 1)


async def test_a_key_that_does_nothing_says_why_for_two_seconds(monkeypatch):
    monkeypatch.setattr(key_bar, "FLASH_SECONDS", 0.2)
    async with Gallery().run_test(size=(80, 24)) as pilot:
        bar = pilot.app.list_screen.bar
        await pilot.press("down", "down", "s")
        assert words(bar).strip() == "db-1 is busy: step 4 of 6: defining the domain"
        await pilot.press("c")
        assert bar.reason
        await wait_for(pilot, lambda: not bar.reason, "the reason goes away")
        assert "commands" in words(bar)
    assert key_bar.FLASH_SECONDS == 0.2


async def test_two_reasons_in_a_row_each_have_their_time(monkeypatch):
    monkeypatch.setattr(key_bar, "FLASH_SECONDS", 0.5)
    async with Gallery().run_test(size=(80, 24)) as pilot:
        bar = pilot.app.list_screen.bar
        bar.flash("first")
        await asyncio.sleep(0.3)
        started = time.monotonic()
        bar.flash("second")
        await wait_for(pilot, lambda: bar.reason != "second", "the second goes too")
        assert time.monotonic() - started >= 0.45


def test_the_time_of_a_reason_is_that_of_the_design():
    assert key_bar.FLASH_SECONDS == 2.0


async def test_a_key_of_another_section_says_where_it_works():
    class Elsewhere(GalleryScreen):
        SCOPES = frozenset()

    class ElsewhereApp(Gallery):
        def get_default_screen(self):
            return Elsewhere(VMS)

    async with ElsewhereApp().run_test(size=(80, 24)) as pilot:
        await pilot.press("d")
        assert pilot.app.list_screen.bar.reason == "delete works on VMs"


async def test_a_click_on_the_key_bar_runs_the_command():
    async with Gallery((Vm("old", "stopped"),)).run_test(size=(140, 24)) as pilot:
        text = words(pilot.app.list_screen.bar)
        await pilot.click(KeyBar, offset=(text.index("start") + 2, 0))
        await wait_for(pilot, lambda: pilot.app.list_screen.done, "the click was taken")
        assert pilot.app.list_screen.done == ["start old"]
        await pilot.click(KeyBar, offset=(0, 0))
        await pilot.click(KeyBar, offset=(text.index("filter") + 1, 0))
        assert pilot.app.list_screen.filter.display


async def test_the_users_keys_take_the_place_of_the_defaults():
    keymap = build_keymap({"move.down": ["n"], "vm.start": ["S"], "list.filter": ["ctrl+f"]})
    vms = (Vm("a", "stopped"), Vm("b", "stopped"))
    async with Gallery(vms, Looks(keymap=keymap)).run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        await pilot.press("n")
        assert screen.table.row.key == "b"
        await pilot.press("j")
        assert screen.table.row.key == "b"
        await pilot.press("S", "s", "ctrl+f")
        assert screen.done == ["start b"]
        assert screen.filter.display
        await wait_for(pilot, lambda: "S start" in words(screen.bar), "the key bar shows the user's key")


async def test_a_verb_acts_on_all_that_is_marked():
    vms = (Vm("a", "stopped"), Vm("b", "stopped"), Vm("c", "stopped"))
    async with Gallery(vms).run_test(size=(80, 24)) as pilot:
        await pilot.press("space", "j", "space", "s")
        assert pilot.app.list_screen.done == ["start a c"]


async def test_an_unknown_key_does_nothing():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("z", "f9")
        assert pilot.app.list_screen.bar.reason == ""


async def test_a_command_that_no_screen_has_says_so():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("y")
        assert pilot.app.list_screen.bar.reason == "copy does nothing on this screen"


def test_handlers_and_commands_are_compared():
    missing = find_unhandled(build_keymap(), Gallery, GalleryScreen)
    assert "list.copy" in missing
    assert not {"vm.start", "app.help", "app.back", "list.open"} & set(missing)
    extra = type("Extra", (CommandApp,), {"do_vm_fly": lambda self, context: None})
    assert "do_vm_fly" in find_unhandled(build_keymap(), extra)


async def test_a_thousand_changes_of_focus_make_no_widget():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        screen.filter.open()
        await pilot.pause()

        def count() -> int:
            return sum(1 for _ in screen.walk_children())

        before = count()
        for turn in range(1000):
            (screen.table if turn % 2 else screen.filter._input).focus()
            if turn % 50 == 0:
                await pilot.pause()
        await pilot.pause()
        assert count() == before
        assert before < 20


async def test_keys_typed_ahead_mean_what_they_meant_to_who_typed_them():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        for key, character in (("j", "j"), ("slash", "/"), ("s", "s"), ("y", "y")):
            pilot.app.post_message(Key(key, character))
        await wait_for(pilot, lambda: screen.filter.text == "sy", "what was typed is in the filter")
        assert screen.done == []
        assert pilot.app.screen is screen


async def test_an_answer_typed_ahead_is_taken_for_the_question():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        for key in ("s", "y", "j"):
            pilot.app.post_message(Key(key, key))
        await wait_for(pilot, lambda: screen.done == ["stop True"], "the question is answered")
        await wait_for(pilot, lambda: screen.table.row.key == "web-2", "and the list goes on")


async def test_a_screen_that_listens_to_keys_gets_them_before_the_commands():
    class Listening(GalleryScreen):
        def on_key(self, event: Key) -> None:
            if event.key in ("j", "d"):
                self.done.append(event.key)
                event.stop()

    class ListeningApp(Gallery):
        def get_default_screen(self):
            return Listening(VMS)

    async with ListeningApp().run_test(size=(80, 24)) as pilot:
        await pilot.press("j", "d", "k", "down")
        assert pilot.app.list_screen.done == ["j", "d"]
        assert pilot.app.list_screen.table.row.key == "web-2"
