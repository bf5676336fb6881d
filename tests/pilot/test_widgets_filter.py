"""The filter: live, wrong with a caret, kept with enter, gone with Esc."""

from __future__ import annotations

from support.gallery import Gallery
from support.waiting import wait_for
from textual.events import Key


def drawn(widget) -> str:
    return str(widget.render()).rstrip()


async def type_text(pilot, text):
    names = {"-": "minus", " ": "space", "(": "left_parenthesis", "=": "equals_sign"}
    await pilot.press(*(names.get(sign, sign) for sign in text))


async def test_the_list_follows_while_one_types_and_the_count_says_how_many():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        assert not screen.filter.display
        await pilot.press("slash")
        await type_text(pilot, "web")
        await wait_for(pilot, lambda: len(screen.table.rows) == 2, "two VMs match")
        assert drawn(screen.filter._count) == "2 of 14"
        await pilot.press("enter")
        assert screen.table.has_focus
        assert screen.filter.display
        assert screen.filter.text == "web"


async def test_esc_takes_the_filter_away():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        await pilot.press("slash")
        await type_text(pilot, "web")
        await pilot.press("escape")
        await wait_for(pilot, lambda: len(screen.table.rows) == 14, "all VMs are back")
        assert not screen.filter.display
        assert screen.table.has_focus


async def test_down_goes_to_the_list_and_an_empty_filter_hides():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        await pilot.press("slash", "down")
        await wait_for(pilot, lambda: screen.table.has_focus, "the list has the focus")
        assert not screen.filter.display


async def test_what_is_wrong_stands_under_its_character():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        bar = pilot.app.list_screen.filter
        await pilot.press("slash")
        await type_text(pilot, "a in (")
        await wait_for(pilot, lambda: bar.error, "the error is shown")
        await pilot.pause()
        caret = drawn(bar._error).index("▲")
        assert bar._error.content_region.x + caret == bar._input.content_region.x + 6
        assert drawn(bar._error).endswith("▲ a value is missing")
        assert drawn(bar._count) == ""
        await pilot.press("backspace")
        await wait_for(pilot, lambda: not bar.error, "the error goes when it is mended")
        assert not bar._error.display


async def test_the_message_goes_where_it_has_room():
    async with Gallery().run_test(size=(60, 24)) as pilot:
        bar = pilot.app.list_screen.filter
        bar.open()
        bar.show_error("this is quite a long message", 50)
        await pilot.pause()
        assert drawn(bar._error).endswith("this is quite a long message ▲")
        assert drawn(bar._error).index("▲") == 50
        bar.show_error("this message is far longer than any room on either side of it", 30)
        await pilot.pause()
        assert "▲" not in drawn(bar._error)


async def test_letters_are_text_and_no_commands():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        await pilot.press("slash", "q", "d", "s", "1")
        assert pilot.app.list_screen.filter.text == "qds1"
        assert pilot.app.screen is pilot.app.list_screen


async def test_keys_typed_ahead_are_text_of_the_filter_and_no_commands():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        screen = pilot.app.list_screen
        for key, character in (("slash", "/"), ("d", "d"), ("b", "b"), ("enter", "\r")):
            pilot.app.post_message(Key(key, character))
        await wait_for(pilot, lambda: len(screen.table.rows) == 1, "the filter applies")
        await wait_for(pilot, lambda: screen.table.has_focus, "the list has the focus again")
        assert screen.filter.text == "db"
        assert pilot.app.screen is screen


async def test_a_bar_that_was_never_opened_can_be_told_things():
    async with Gallery().run_test(size=(80, 24)) as pilot:
        bar = pilot.app.list_screen.filter
        bar.show_matches(3, 4)
        bar.show_error("wrong", 2)
        assert not bar.clear()
        await pilot.pause()
        assert not bar.display
        bar.open()
        bar.show_matches(3, 4)
        await wait_for(pilot, lambda: drawn(bar._count) == "3 of 4", "the count is shown")
