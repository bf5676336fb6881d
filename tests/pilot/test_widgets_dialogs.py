"""Dialogs ask, tell and let choose; Esc always leads out."""

from __future__ import annotations

import pytest
from support.gallery import Gallery, Vm
from support.waiting import wait_for
from textual.events import Key

from backend.errors import RefusedError
from kc_tui.dialogs.choose import Choice, ChooseDialog
from kc_tui.dialogs.confirm import ConfirmDialog, Question
from kc_tui.dialogs.message import MessageDialog, Report
from kc_tui.screens.help import HelpScreen
from kc_tui.widgets.choice_bar import ChoiceBar

SIZES = [(80, 24), (140, 40)]


def is_open(pilot, kind) -> bool:
    return isinstance(pilot.app.screen, kind)


async def type_text(pilot, text):
    await pilot.press(*({"-": "minus", " ": "space"}.get(sign, sign) for sign in text))


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (["y"], "stop True"),
        (["n"], "stop None"),
        (["enter"], "stop None"),
        (["escape"], "stop None"),
        (["left", "enter"], "stop True"),
        (["tab", "tab", "tab", "enter"], "stop True"),
    ],
)
async def test_a_question_is_answered_by_keys_and_no_is_the_default(keys, answer):
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("s")
        await wait_for(pilot, lambda: is_open(pilot, ConfirmDialog), "the question is asked")
        await pilot.press(*keys)
        await wait_for(pilot, lambda: pilot.app.list_screen.done, "the question is answered")
        assert pilot.app.list_screen.done == [answer]
        assert pilot.app.screen is pilot.app.list_screen


async def test_a_question_is_answered_by_the_mouse():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("s")
        bar = pilot.app.screen.query_one(ChoiceBar)
        await pilot.click(ChoiceBar, offset=(bar.render().plain.index("stop"), 0))
        await wait_for(pilot, lambda: pilot.app.list_screen.done, "the question is answered")
        await pilot.press("s")
        await pilot.click(offset=(1, 1))
        await wait_for(pilot, lambda: len(pilot.app.list_screen.done) == 2, "a click beside leaves")
        assert pilot.app.list_screen.done == ["stop True", "stop None"]


async def test_what_destroys_needs_its_name():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        await pilot.press("d", "enter", "y", "enter")
        assert is_open(pilot, ConfirmDialog)
        await pilot.press("backspace")
        await type_text(pilot, "web-")
        await pilot.press("enter")
        assert is_open(pilot, ConfirmDialog)
        assert not pilot.app.screen.query_one(ChoiceBar)._answers[0].enabled
        await pilot.press("1")
        await pilot.pause()
        assert pilot.app.screen.query_one(ChoiceBar)._answers[0].enabled
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.done, "the name was right")
        assert screen.done == ["delete True"]


async def test_several_need_their_number_and_are_named():
    vms = tuple(Vm(f"vm-{number}") for number in range(12))
    async with Gallery(vms).run_test(size=(80, 24)) as pilot:
        await pilot.press("asterisk", "d")
        await pilot.pause()
        svg = pilot.app.export_screenshot().replace("&#160;", " ")
        assert "Delete 12 VMs?" in svg
        assert "vm-0, vm-1, vm-2, vm-3, vm-4, vm-5, vm-6 and 5 more" in svg
        await pilot.press("1", "2", "enter")
        await wait_for(pilot, lambda: pilot.app.list_screen.done == ["delete True"], "all are deleted")


@pytest.mark.parametrize("size", SIZES)
async def test_the_longest_question_fits(size):
    names = tuple(f"a-name-as-long-as-names-can-be-{'x' * 30}-{number}" for number in range(40))
    question = Question("Delete 40 VMs?", "Their disks are destroyed. " * 4, "delete", names, danger=2)
    async with Gallery().run_test(size=size) as pilot:
        pilot.app.push_screen(ConfirmDialog(question))
        await pilot.pause()
        bar = pilot.app.screen.query_one(ChoiceBar)
        assert pilot.app.screen.region.contains_region(bar.region)
        assert bar.region.height == 1


async def test_an_error_says_what_why_and_what_next_and_is_copied():
    error = RefusedError(
        "image evil.qcow2", "it names a backing file", "flatten it first", backing="/etc/shadow\x1b[31m"
    )
    async with Gallery().run_test(size=(80, 24)) as pilot:
        pilot.app.push_screen(MessageDialog(Report.of(error)))
        await pilot.pause()
        svg = pilot.app.export_screenshot().replace("&#160;", " ")
        for text in ("image evil.qcow2", "It names a backing file.", "Flatten it first.", "/etc/shadow"):
            assert text in svg
        await pilot.press("y")
        await wait_for(pilot, lambda: pilot.app.clipboard, "the error is on the clipboard")
        assert pilot.app.clipboard.startswith("image evil.qcow2: it names a backing file\nflatten it first\n{")
        assert "\x1b" not in pilot.app.clipboard
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is pilot.app.list_screen, "Esc leads out")


async def test_a_long_error_scrolls_and_fits():
    report = Report("vm web", "why " * 60, "hint " * 30, "\n".join(f"line {number}" for number in range(100)))
    async with Gallery().run_test(size=(80, 24)) as pilot:
        pilot.app.push_screen(MessageDialog(report))
        await pilot.pause()
        details = pilot.app.screen.query_one(".dialog-details")
        assert pilot.app.screen.region.contains_region(pilot.app.screen.query_one(ChoiceBar).region)
        await pilot.press("j", "j")
        await wait_for(pilot, lambda: details.scroll_y == 2, "the details scroll")
        await pilot.press("enter")
        await wait_for(pilot, lambda: pilot.app.screen is pilot.app.list_screen, "enter closes")


CHOICES = [Choice(f"n{number}", f"network {number}", "nat" if number % 2 else "bridge") for number in range(50)]


async def choose(pilot, **options):
    chosen: list[str | None] = []
    pilot.app.push_screen(ChooseDialog("Network", CHOICES, **options), chosen.append)
    await pilot.pause()
    return chosen


async def test_one_of_many_is_chosen_by_typing():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        chosen = await choose(pilot, current="n7")
        assert pilot.app.screen._table.row.key == "n7"
        await type_text(pilot, "work 4 nat")
        assert [row.key for row in pilot.app.screen._table.rows] == ["n41", "n43", "n45", "n47", "n49"]
        await pilot.press("down", "down", "up", "enter")
        await wait_for(pilot, lambda: chosen, "one is chosen")
        assert chosen == ["n43"]


async def test_one_of_many_is_chosen_by_the_mouse_and_left_with_esc():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        chosen = await choose(pilot)
        await pilot.double_click("ChooseDialog VirtualTable", offset=(8, 2))
        await wait_for(pilot, lambda: chosen, "one is chosen")
        chosen += await choose(pilot)
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is pilot.app.list_screen, "Esc leads out")
        assert chosen[0] == "n2"


async def test_nothing_found_chooses_nothing():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        chosen = await choose(pilot)
        await type_text(pilot, "zzz")
        await pilot.press("enter")
        assert not chosen
        assert is_open(pilot, ChooseDialog)


async def test_the_palette_runs_commands_on_what_is_selected():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("colon")
        await type_text(pilot, "invert")
        await pilot.press("enter")
        await wait_for(pilot, lambda: len(pilot.app.list_screen.table.marked) == 14, "a widget's command ran")
        await pilot.press("escape", "ctrl+p")
        await type_text(pilot, "filt")
        await pilot.press("enter")
        await wait_for(pilot, lambda: pilot.app.list_screen.filter.display, "a screen's command ran")


async def test_the_palette_says_why_a_command_cannot_run():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("colon")
        await type_text(pilot, "vm.start")
        await pilot.press("enter")
        assert is_open(pilot, ChooseDialog)
        assert str(pilot.app.screen._help.render()) == "web-1 is running already"


async def test_the_help_is_searched_and_run():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await wait_for(pilot, lambda: is_open(pilot, HelpScreen), "the help is open")
        await type_text(pilot, "to the bottom")
        await pilot.press("enter")
        await wait_for(pilot, lambda: pilot.app.list_screen.table.row.key == "node-8", "the command ran")


@pytest.mark.parametrize("size", SIZES)
async def test_the_help_and_the_palette_fit(size):
    async with Gallery().run_test(size=size) as pilot:
        for key in ("question_mark", "colon"):
            await pilot.press(key)
            panel = pilot.app.screen.query_one(".dialog")
            assert pilot.app.screen.region.contains_region(panel.region)
            await pilot.press("escape")


@pytest.mark.parametrize(("key", "after"), [("enter", "kraut"), ("escape", "crown")])
async def test_a_theme_shows_while_it_is_chosen_and_esc_takes_it_back(key, after):
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.app.run_command("app.theme")
        await pilot.pause()
        await pilot.press("down")
        await wait_for(pilot, lambda: pilot.app.theme == "kraut", "the theme under the cursor shows")
        await pilot.press(key)
        await wait_for(pilot, lambda: pilot.app.screen is pilot.app.list_screen, "the dialog is left")
        assert pilot.app.theme == after


async def test_a_second_press_does_not_ask_twice():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("d", "d", "question_mark")
        assert len(pilot.app.screen_stack) == 2
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is pilot.app.list_screen, "one Esc leads out")


async def test_a_name_typed_ahead_never_answers_or_leaks_to_the_list():
    async with Gallery((Vm("node"), Vm("yak"))).run_test(size=(80, 24)) as pilot:
        for sign in "dno":
            pilot.app.post_message(Key(sign, sign))
        await wait_for(pilot, lambda: is_open(pilot, ConfirmDialog), "the name is asked for")
        await pilot.pause()
        assert is_open(pilot, ConfirmDialog)
        assert pilot.app.list_screen.bar.reason == ""
        assert len(pilot.app.screen_stack) == 2
