"""Waiting on conditions, never on time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot


async def wait_for(pilot: Pilot[object], condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Let the app run until `condition` holds; fail with `what` when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        try:
            while not condition():
                await pilot.pause()
        except asyncio.CancelledError:
            raise AssertionError(f"never came true: {what}") from None
