"""Several works of which the first to end ends all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

Result = TypeVar("Result")


async def race(*works: Callable[[], Awaitable[Result]]) -> Result:
    """Return what the first of several gives, or raise what it raises; the others are cancelled, and waited for."""
    results: list[Result] = []
    errors: list[BaseException] = []

    async def run(work: Callable[[], Awaitable[Result]]) -> None:
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 - raised below, without the group around it
            errors.append(error)
        else:
            results.append(result)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for work in works:
            group.start_soon(run, work)
    if errors:
        raise errors[0]
    return results[0]
