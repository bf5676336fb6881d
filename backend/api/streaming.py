"""What all streams of one server share: the feed, the threads, and the eye on decisions that may hold no more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from backend.api.feed import Feed
from backend.api.sse import END, encode_event
from backend.api.staging import Staging
from backend.errors import DeniedError, KCError, UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from backend.api.exchange import Exchange
    from backend.auth.chain import Chain
    from backend.auth.protocol import Decision
    from backend.service import Service

_log = logging.getLogger("kc.api")
Result = TypeVar("Result")

LOOK_SECONDS: Final = 0.5
TIDY_SECONDS: Final = 5.0
MAXIMUM_LINES: Final = 128
MAXIMUM_LINES_EACH: Final = 32
WAIT_THREADS: Final = 32
FILE_THREADS: Final = 16
INSPECTION_THREADS: Final = 4
TRANSFER_THREADS: Final = 4


class Streams:
    """One for a server, as `app.state.streams`; `open` and `close` it on the loop, and `end` it first when stopping.

    `service` is the one behind every guard; `uploads` the folder in which uploads are staged.
    """

    def __init__(self, service: Service, chain: Chain, uploads: Path) -> None:
        self.service = service
        self.chain = chain
        self.feed = Feed(service)
        self.staging = Staging(uploads, service)
        self.ending = asyncio.Event()
        # A line reads and writes at the same time, and may be opened while others are closed.
        self.line_threads = CapacityLimiter(2 * MAXIMUM_LINES)
        self.wait_threads = CapacityLimiter(WAIT_THREADS)
        self.file_threads = CapacityLimiter(FILE_THREADS)
        self.inspection_threads = CapacityLimiter(INSPECTION_THREADS)
        self.transfer_threads = CapacityLimiter(TRANSFER_THREADS)
        self._lines: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin to look after the streams, and after the uploads that an earlier server has left."""
        looking = asyncio.create_task(self._look())
        looking.add_done_callback(self._notice)
        self._tasks = [looking, asyncio.create_task(self._tidy())]

    def end(self) -> None:
        """Have every stream come to its end, soon; called on the loop."""
        self.ending.set()
        self._spread_news()

    async def close(self) -> None:
        """Let go of everything."""
        self.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.feed.close()

    async def wait_for_news(self, generation: int, seconds: float) -> None:
        """Return when decisions may have changed since a generation, the server ends, or the time is over."""
        if self.ending.is_set() or self.chain.generation != generation:
            return
        news = self._news
        with anyio.move_on_after(seconds):
            await news.wait()

    async def _look(self) -> None:
        generation = self.chain.generation
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.chain.refresh()
            if self.chain.generation != generation:
                generation = self.chain.generation
                self._spread_news()

    def _notice(self, task: asyncio.Task[None]) -> None:
        """End every stream where nobody looks after their decisions any more."""
        if not task.cancelled():
            _log.error("streams end: it cannot be told whether they may go on", exc_info=task.exception())
            self.end()

    def _spread_news(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _tidy(self) -> None:
        while True:
            await self.run(self.file_threads, self.staging.tidy)
            await asyncio.sleep(TIDY_SECONDS)

    @contextmanager
    def take_line(self, subject: str) -> Iterator[None]:
        """Count a console or screen; raise UnreachableError where there are too many, or too many of one's own."""
        if self._lines.total() >= MAXIMUM_LINES or self._lines[subject] >= MAXIMUM_LINES_EACH:
            raise UnreachableError("console", "too many are open", "close one", transient=True)
        self._lines[subject] += 1
        try:
            yield
        finally:
            self._lines[subject] -= 1
            self._lines += Counter()  # forgets those that have none

    @staticmethod
    async def run(limiter: CapacityLimiter, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what a blocking call gives, made in a thread of one of the limiters."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)


def find_streams(exchange: Exchange) -> Streams:
    """Return the streams of the server that answers."""
    streams: Streams = exchange.connection.app.state.streams
    return streams


async def hold(exchange: Exchange, check: Callable[[], None] | None = None) -> KCError | None:
    """Return once a stream is to end: why, or None where it is the server that ends.

    What `check` raises, in a thread, ends it as well: it is called after each new decision.
    """
    streams = find_streams(exchange)
    while True:
        decision = exchange.decision
        seconds = decision.revalidate_after
        if decision.expires_at:
            seconds = min(seconds, max(decision.expires_at - time.time(), 0.0))
        await streams.wait_for_news(exchange.generation, seconds)
        if streams.ending.is_set():
            return None
        if decision.expires_at and time.time() >= decision.expires_at:
            return DeniedError("credential", "it has expired", "ask for another one", status=401)
        if not await exchange.renew():
            return explain_refusal(exchange.decision)
        try:
            if check is not None:
                await exchange.call(check)
        except KCError as error:
            return error


async def hold_events(exchange: Exchange) -> bytes:
    """Return the last frame of a stream of events, once it is to end."""
    error = await hold(exchange)
    return END if error is None else encode_event("error", error.problem())


def explain_refusal(decision: Decision) -> KCError:
    """Return the error of a stream that was let in and is not any more."""
    reason = decision.reason or "it is not allowed any more"
    if decision.outcome == "error":
        return UnreachableError("authentication", reason, "connect again in a moment", transient=True)
    status = 403 if decision.outcome == "deny" and decision.status != 401 else 401  # noqa: PLR2004 - HTTP's own
    return DeniedError("stream", reason, "connect again with a credential that holds", status=status)
