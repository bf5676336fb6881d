"""KC's application in a test: opened on a lab, and waited for."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from snapshots.picture import read_text
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from backend.service import Service
from kc_tui.application import KCApp, Setting
from kc_tui.command_app import Looks
from kc_tui.commands import build_keymap
from kc_tui.messages import Link
from kc_tui.state.inventory import WATCHED
from kc_tui.state.remembered import Remembered
from support.memory_kc import make_service
from support.world import NOW, Lab

KEYMAP = build_keymap()


def make_app(
    lab: Lab, *, remembered: Remembered | None = None, factory: Callable[[], Service] | None = None, **looks: Any
) -> KCApp:
    """Return the application on a lab, with the lab's clock and, unless `factory` opens one, a service of its own."""
    setting = Setting("lab", lab.home / "data", lab.home / "user")
    chosen = Looks(keymap=KEYMAP, **looks)
    return KCApp(factory or (lambda: make_service(lab.home, lab.host)), setting, chosen, remembered, clock=lambda: NOW)


@asynccontextmanager
async def running(app: KCApp, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    """Run an application until everything is known and shown; end it in order."""
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: is_ready(app), "everything is known")
        await settle(pilot)
        yield pilot
    assert app.session.gateway.join()


def is_ready(app: KCApp) -> bool:
    """Return whether the store and the host have told all."""
    session = app.session
    return session.inventory.loaded == set(WATCHED) and session.link_state.link is not Link.CONNECTING


async def settle(pilot: Pilot[None]) -> None:
    """Wait until nothing is under way."""
    app = pilot.app
    assert isinstance(app, KCApp)
    await pilot.pause()
    await app.session.gateway.idle()
    await pilot.pause()


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys, each after what the one before it did has settled; `=text` is typed in one go."""
    driver = pilot.app._driver
    assert driver is not None
    for key in keys:
        if key.startswith("=") and len(key) > 1:
            for sign in key[1:]:
                driver.send_message(events.Key(_character_to_key(sign), sign))
        else:
            driver.send_message(events.Key(key, _character_of(key)))
        await settle(pilot)


def _character_of(key: str) -> str | None:
    """Return the character that a key types; None where it types none."""
    named = {
        "space": " ",
        "enter": "\r",
        "tab": "\t",
        "colon": ":",
        "slash": "/",
        "question_mark": "?",
        "asterisk": "*",
    }
    return key if len(key) == 1 else named.get(key)


async def until(pilot: Pilot[None], condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Let the app run until `condition` holds; fail with `what` and the screen when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"never came true: {what}\n{read_text(pilot.app)}")
        await pilot.pause()


async def see(pilot: Pilot[None], pattern: str) -> None:
    """Wait until the screen shows what a pattern matches."""
    await until(pilot, lambda: re.search(pattern, read_text(pilot.app)), f"{pattern!r} on the screen")
