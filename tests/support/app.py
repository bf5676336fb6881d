"""KC's application in a test: opened on a lab, and waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from backend.service import Service
from kc_tui.application import KCApp, Setting
from kc_tui.command_app import Looks
from kc_tui.commands import build_keymap
from kc_tui.extra_commands import FULL_REGISTRY
from kc_tui.messages import Link
from kc_tui.state.inventory import WATCHED
from kc_tui.state.remembered import Remembered
from support.waiting import wait_for
from support.world import NOW, Lab

KEYMAP = build_keymap({}, FULL_REGISTRY)


def make_app(
    lab: Lab, *, remembered: Remembered | None = None, factory: Callable[[], Service] | None = None, **looks: Any
) -> KCApp:
    """Return the application on a lab, with the lab's clock."""
    setting = Setting("lab", lab.home / "data", lab.home / "user")
    chosen = Looks(keymap=KEYMAP, **looks)
    return KCApp(factory or (lambda: lab.service), setting, chosen, remembered, clock=lambda: NOW)


@asynccontextmanager
async def running(app: KCApp, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    """Run an application until everything is known and shown; end it in order."""
    async with app.run_test(size=size, notifications=True) as pilot:
        await wait_for(pilot, lambda: is_ready(app), "everything is known")
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
    """Press keys, each after what the one before it did has settled."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)
