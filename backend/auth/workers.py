"""Calls that block or cost much, made on a few threads: the loop goes on, and what hangs is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from backend.errors import TimedOutError

T = TypeVar("T")


class Workers:
    """A few threads and a short queue.

    A call that was given up runs on until it ends by itself, and counts until then: those that never return take the
    places of others, and no more threads.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        """Have `threads` at most, and `waiting` calls more that are not turned away at once."""
        self._name = name
        self._most = threads + waiting
        self._count = 0
        self._guard = threading.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[[], T], seconds: float) -> T:
        """Return what `call` returns or raise what it raises; TimedOutError where it cannot begin or end in time."""
        with self._guard:
            if self._count >= self._most:
                raise TimedOutError(self._name, "it is asked too much at once", "try again in a moment")
            self._count += 1
        try:
            future = self._executor.submit(call)
        except RuntimeError as error:  # it was closed meanwhile
            self._end()
            raise TimedOutError(self._name, "it is being shut down") from error
        future.add_done_callback(self._end)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise TimedOutError(
                self._name, f"it did not answer within {seconds:g} s", "try again in a moment"
            ) from error

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _end(self, _future: Future[Any] | None = None) -> None:
        with self._guard:
            self._count -= 1
