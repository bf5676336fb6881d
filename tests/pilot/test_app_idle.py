"""A session in which nobody presses a key: it says so, and ends with everything kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.app import KEYMAP, press, running, see, until
from support.memory_kc import make_service
from support.world import NOW, Lab
from textual import events

from kc_tui.application import KCApp, Setting
from kc_tui.command_app import Looks
from kc_tui.ending import AWAY_CODE
from kc_tui.idleness import Idleness, Presence, describe_span

LIMIT = 1800.0


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_idle_app(lab: Lab, clock: Clock) -> KCApp:
    setting = Setting(
        "lab", lab.home / "data", lab.home / "user", is_confined=True, idleness=Idleness(LIMIT, clock)
    )  # fmt: skip
    return KCApp(lambda: make_service(lab.home, lab.host), setting, Looks(keymap=KEYMAP), clock=lambda: NOW)


def pass_time(app: KCApp, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    app._look()


async def test_it_warns_a_minute_before_and_ends_with_the_draft_kept(home: Path):
    clock = Clock()
    lab = Lab(home)
    app = make_idle_app(lab, clock)
    async with running(app) as pilot:
        await press(pilot, "n")
        await see(pilot, " Image")
        await press(pilot, "enter", "enter", "enter", "=half-way")
        pass_time(app, clock, LIMIT - 61)
        assert not list(app._notifications)
        pass_time(app, clock, 2)
        await see(pilot, "this session ends in 1 minute")
        pass_time(app, clock, 60)
        await until(pilot, lambda: app._exit, "it ends")
    assert app.return_code == AWAY_CODE
    assert app.end_reason == "no key was pressed for 30 minutes"
    assert '"name": "half-way"' in (home / "data" / "tui.json").read_text()


@pytest.mark.parametrize("sign", ["key", "paste", "wheel"])
async def test_any_sign_of_life_counts_and_takes_the_warning_away(home: Path, sign: str):
    clock = Clock()
    app = make_idle_app(Lab(home), clock)
    signs: dict[str, Any] = {
        "key": lambda: events.Key("j", "j"),
        "paste": lambda: events.Paste("x"),
        "wheel": lambda: events.MouseScrollDown(None, 5, 5, 0, 1, 0, shift=False, meta=False, ctrl=False),
    }
    async with running(app) as pilot:
        pass_time(app, clock, LIMIT - 30)
        await see(pilot, "this session ends in")
        driver = app._driver
        assert driver is not None
        driver.send_message(signs[sign]())
        await until(pilot, lambda: not list(app._notifications), "the warning goes")
        pass_time(app, clock, LIMIT - 61)
        assert not app._exit
        assert app._idleness is not None
        assert app._idleness.look() is Presence.HERE


async def test_without_a_limit_nobody_is_shown_out(home: Path):
    setting = Setting("lab", home / "data", home / "user", idleness=Idleness(0))
    lab = Lab(home)
    app = KCApp(lambda: make_service(home, lab.host), setting, Looks(keymap=KEYMAP), clock=lambda: NOW)
    async with running(app):
        assert app._idleness is not None
        assert app._idleness.until_next() == 0
        app._look()
        assert not app._exit


def test_idleness_counts_from_the_last_key():
    clock = Clock()
    idleness = Idleness(100, clock)
    assert (idleness.warning, idleness.until_next(), idleness.look()) == (50, 50, Presence.HERE)
    clock.now = 50
    assert (idleness.until_next(), idleness.look()) == (50, Presence.WARNED)
    clock.now = 99
    idleness.touch()
    assert (idleness.until_next(), idleness.look()) == (50, Presence.HERE)
    clock.now = 199
    assert (idleness.until_next(), idleness.look()) == (0, Presence.AWAY)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1800, "30 minutes"), (60, "1 minute"), (90, "90 seconds"), (1, "1 second")],
    ids=["minutes", "minute", "between", "second"],
)
def test_a_time_is_said_in_words(seconds: float, said: str):
    assert describe_span(seconds) == said
