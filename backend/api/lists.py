"""Lists served fast: what was rendered for one scope is kept until anything moves, and shown to that scope alone.

Three things end what is kept: a newer revision of the store, an event of the change feed (live states have no
revision), and any write that this server answered. What nobody tells of, such as leases on a network, is rendered anew
from time to time; while that goes on, and nothing is known to have moved, what there is is served.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, NamedTuple

from backend.errors import KCError

if TYPE_CHECKING:
    from backend.service import Service

GRACE_SECONDS = 1.0
MAXIMUM_BYTES = 64 << 20
MAXIMUM_ENTRIES = 512
RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class _Kept(NamedTuple):
    moment: tuple[int, int]
    until: float
    data: bytes


class Lists:
    """Rendered lists by (kind, query, scopes); to be used on one event loop, but for `move` and the follower."""

    def __init__(self, service: Service, revision: Callable[[], int] | None = None) -> None:
        """Take what tells the store's newest revision, where that costs next to nothing."""
        self._service = service
        self._revision = revision or (lambda: 0)
        self._generation = 0
        self._following = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._size = 0
        self._flights: dict[Hashable, asyncio.Task[bytes]] = {}
        self.hits = 0
        self.misses = 0

    def move(self) -> None:
        """Have everything rendered anew: something was written."""
        self._generation += 1

    async def find(self, key: Hashable, seconds: float, render: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return what is kept under `key`, which says what is asked and in which scopes, or what `render` makes.

        After `seconds` it is rendered anew.
        """
        moment = (self._generation, self._revision())
        kept = self._kept.get(key)
        now = time.monotonic()
        if kept is not None and kept.moment == moment and now < kept.until + GRACE_SECONDS:
            self.hits += 1
            self._kept.move_to_end(key)
            if now >= kept.until:
                self._launch(key, moment, seconds, render)
            return kept.data
        self.misses += 1
        # Whoever goes away leaves the others their answer.
        return await asyncio.shield(self._launch(key, moment, seconds, render))

    def _launch(
        self, key: Hashable, moment: tuple[int, int], seconds: float, render: Callable[[], Awaitable[bytes]]
    ) -> asyncio.Task[bytes]:
        """Return the one task that renders a key at a moment."""
        flight = self._flights.get((key, moment))
        if flight is None:
            flight = asyncio.ensure_future(self._render(key, moment, seconds, render))
            self._flights[key, moment] = flight
            flight.add_done_callback(lambda done: self._land((key, moment), done))
        return flight

    async def _render(
        self, key: Hashable, moment: tuple[int, int], seconds: float, render: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        until = time.monotonic() + seconds
        data = await render()
        # What moved while it was rendered has changed the moment, so that it is not served.
        if self._following and len(data) <= MAXIMUM_BYTES // 8:
            self._keep(key, _Kept(moment, until, data))
        return data

    def _land(self, flight: tuple[Hashable, tuple[int, int]], done: asyncio.Task[bytes]) -> None:
        self._flights.pop(flight, None)
        if not done.cancelled():
            done.exception()  # it is told to whoever waits; nobody may

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        before = self._kept.pop(key, None)
        self._size += len(kept.data) - (len(before.data) if before else 0)
        self._kept[key] = kept
        while self._size > MAXIMUM_BYTES or len(self._kept) > MAXIMUM_ENTRIES:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest.data)

    # --- following
    def start(self) -> None:
        """Begin to follow the change feed; nothing is kept before that."""
        self._thread = threading.Thread(target=self._follow, name="lists", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except KCError as error:
                self._following = False
                self.move()
                if not self._stop.is_set():
                    _log.warning("lists are not kept: %s", error)
                self._stop.wait(RETRY_SECONDS)

    def _watch(self) -> None:
        for event in self._service.watch():
            if self._stop.is_set():
                return
            if not self._following or event is not None:
                # What happened before the feed began is not told of.
                self.move()
                self._following = True

    def close(self) -> None:
        """End; whatever is still rendered is kept no more."""
        self._stop.set()
        self._following = False
        self._kept.clear()
        if self._thread is not None:
            self._thread.join(3.0)
