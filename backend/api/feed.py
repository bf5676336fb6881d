"""One feed of changes for all who watch: read once from the service, kept for a while, and chosen from by each.

A watcher is no more than a position in the feed. One that falls behind what is kept has lost its place, and is told so:
however slow its client is, nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import anyio.to_thread

from backend.api.sse import encode_event
from backend.errors import ConflictError, KCError, NotFoundError
from backend.service import Event

if TYPE_CHECKING:
    from backend.model.documents import Document
    from backend.service import Service

KEPT_EVENTS: Final = 4096
KEPT_BYTES: Final = 16 << 20
KNOWN_DOCUMENTS: Final = 4096
RETRY_SECONDS: Final = 1.0
_OPENING_SECONDS: Final = 30.0

_log = logging.getLogger("kc.api")
Predicate = Callable[["Document"], bool]


class Moved(NamedTuple):
    """An event, its document as it was before (None where there was none, or nobody knows), and its frame."""

    event: Event
    before: Document | None
    frame: bytes


def frame_event(event: Event) -> bytes:
    """Return an event as the feed sends it."""
    data = {"revision": event.revision, "type": event.type, "document": event.document}
    return encode_event(event.type, data, str(event.revision))


def choose(moved: Moved, kinds: Sequence[str], accepts: Predicate, sees: Predicate) -> Event | None:
    """Return the event that a watcher is to hear of what moved, None for none.

    `accepts` is what it asked for, `sees` what it may see. A document that it has no more is told as `left`, as it was
    while it was the watcher's to see.
    """
    event, before, _ = moved
    document = event.document
    if kinds and document["kind"] not in kinds:
        return None
    is_seen = sees(document)
    if is_seen and accepts(document):
        return event
    if before is None or event.type == "deleted" or not (sees(before) and accepts(before)):
        return None
    return Event(event.revision, "left", document if is_seen else before)


class Feed:
    """The service's feed, followed by one thread from the first watcher on.

    Everything but that thread's work happens on the loop. `position` counts all that has come; `revision` is that of
    the newest.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: OrderedDict[str, Document] = OrderedDict()
        self._kept: deque[Moved] = deque()
        self._size = 0
        self.position = 0
        self.revision = 0
        self._floor = 0
        self._fault: KCError | None = None
        self._news = asyncio.Event()
        self._is_open = asyncio.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Return once the feed runs; raise what stands against it."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._follow, args=(loop,), name="kc-feed", daemon=True)
            self._thread.start()
        with anyio.fail_after(_OPENING_SECONDS):
            await self._is_open.wait()
        if self._fault is not None:
            raise self._fault

    async def close(self) -> None:
        """End the thread; it hears of it within a second."""
        self._is_closed = True
        if self._thread is not None:
            # It may be handing something to this loop, which must not stand still meanwhile.
            await anyio.to_thread.run_sync(self._thread.join, _OPENING_SECONDS)

    def locate(self, since: int) -> int | None:
        """Return the position after a revision, or None where what is kept begins later.

        The states that were seen at that very revision come again: who followed may not have had all of them.
        """
        if since < self._floor:
            return None
        start = self.position - len(self._kept)
        for index, (event, _, _) in enumerate(self._kept):
            if event.revision > since or (event.revision == since and event.type == "status"):
                return start + index
        return self.position

    def read(self, position: int, limit: int) -> list[Moved]:
        """Return what came after a position; raise ConflictError where that is kept no longer, and the feed's fault."""
        behind = self.position - position
        if behind > len(self._kept):
            raise ConflictError(
                "watch", "you are too slow: what comes next is kept no longer", "go on from the last event's revision"
            )
        if not behind and self._fault is not None:
            raise self._fault
        start = len(self._kept) - behind
        return list(islice(self._kept, start, start + limit))

    async def wait(self, position: int, seconds: float) -> None:
        """Return once there is more after a position, or the time is over."""
        news = self._news
        if self.position == position and self._fault is None:
            with anyio.move_on_after(seconds):
                await news.wait()

    def catch_up(self, since: int, until: int) -> Iterator[Moved]:
        """Yield what changed after a revision up to another one, from the service itself; blocks.

        Raises ConflictError (detail `compacted`) where `since` is too old.
        """
        for event in self._service.watch((), since=since):
            if event is None or event.revision > until:
                return
            yield Moved(event, self._find_before(event), frame_event(event))
            if event.revision == until and event.type != "status":
                return

    def read_revision(self) -> int:
        """Return the store's newest revision; blocks."""
        return self._service.list_documents("Operation", limit=1, observe=False).revision

    # --- the thread
    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._is_closed:
            try:
                revision = self.read_revision()
                events = self._service.watch((), since=revision)
                loop.call_soon_threadsafe(self._begin, revision)
                for event in events:
                    if self._is_closed:
                        return
                    if event is not None:
                        moved = Moved(event, self._recall(event), frame_event(event))
                        loop.call_soon_threadsafe(self._add, moved)
            except KCError as error:
                _log.warning("the feed of changes stands still: %s", error)
                loop.call_soon_threadsafe(self._fail, error)
            ends = time.monotonic() + RETRY_SECONDS
            while time.monotonic() < ends and not self._is_closed:
                time.sleep(0.05)

    def _recall(self, event: Event) -> Document | None:
        """Return the document of an event as the feed knew it before, and keep the new one in mind."""
        uid = event.document["uid"]
        before = self._known.pop(uid, None)
        if before is None:
            before = self._find_before(event)
        if event.type != "deleted":
            self._known[uid] = event.document
            if len(self._known) > KNOWN_DOCUMENTS:
                self._known.popitem(last=False)
        return before

    def _find_before(self, event: Event) -> Document | None:
        """Return the version before the one that was written; its history has it."""
        document = event.document
        if event.type != "updated" or document["version"] < 2:  # noqa: PLR2004 - the first has none before it
            return None
        try:
            found = self._service.get(document["kind"], document["name"], version=document["version"] - 1)
        except NotFoundError:  # deleted since, or kept no longer
            return None
        return found if found["uid"] == document["uid"] else None

    # --- on the loop
    def _begin(self, revision: int) -> None:
        """Begin anew: what was kept before is not joined to what comes now without a gap."""
        self._kept.clear()
        self._size = 0
        if self._fault is not None:
            self.position += 1  # whoever read before the fault has lost its place
        self._fault = None
        self.revision = self._floor = revision
        self._is_open.set()

    def _add(self, moved: Moved) -> None:
        self._kept.append(moved)
        self._size += len(moved.frame)
        self.position += 1
        self.revision = max(self.revision, moved.event.revision)
        while len(self._kept) > KEPT_EVENTS or (self._size > KEPT_BYTES and len(self._kept) > 1):
            gone = self._kept.popleft()
            self._size -= len(gone.frame)
            self._floor = gone.event.revision
        self._spread_news()

    def _fail(self, error: KCError) -> None:
        self._fault = error
        self._is_open.set()
        self._spread_news()

    def _spread_news(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
