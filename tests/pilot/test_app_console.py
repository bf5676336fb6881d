"""A VM's console inside KC."""

from __future__ import annotations

from pathlib import Path

import pytest
from snapshots.picture import read_text
from snapshots.scenes import fill
from support.app import make_app, press, running, see, until
from support.world import Lab

from backend.errors import UnreachableError
from backend.hypervisor.memory import fail_with
from kc_tui.screens.console import ConsoleScreen


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    fill(lab)
    return lab


async def test_the_console_shows_what_was_said_before_and_takes_keys(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "KC: web-1 is up")
        screen = app.screen
        assert isinstance(screen, ConsoleScreen)
        assert "web-1 · console" in read_text(app)
        await press(pilot, "=q1nd", "enter")
        await until(pilot, lambda: "q1nd" in screen.terminal.text, "the guest echoes")
        await press(pilot, "escape", "ctrl+c")
        assert app.screen is screen
        await press(pilot, "ctrl+right_square_bracket")
        assert len(app.screen_stack) == 1


async def test_a_console_that_ends_says_so_and_can_be_opened_again(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "KC: web-1 is up")
        screen = app.screen
        assert isinstance(screen, ConsoleScreen)
        assert screen.link is not None
        screen.link._stream.close()
        await see(pilot, "The guest has ended it.")
        assert "KC: web-1 is up" in read_text(app)
        await see(pilot, "enter open it again +esc back")
        await press(pilot, "enter")
        await until(pilot, lambda: not screen.end_reason and screen.terminal.has_focus, "it is open again")
        await press(pilot, "ctrl+right_square_bracket")


async def test_a_console_that_cannot_be_opened_says_why(lab: Lab):
    async with running(make_app(lab)) as pilot:
        lab.host.fail = fail_with(UnreachableError("host lab", "it does not answer"), "console")
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "Host lab: it does not answer.")
        await press(pilot, "escape")


async def test_pasting_several_lines_asks_first(lab: Lab):
    from textual import events

    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "KC: web-1 is up")
        screen = app.screen
        assert isinstance(screen, ConsoleScreen)
        screen.terminal.post_message(events.Paste("echo one\necho two\n"))
        await see(pilot, "The guest gets 2 lines at once")
        await press(pilot, "y")
        await until(pilot, lambda: "echo two" in screen.terminal.text, "the guest has it")
