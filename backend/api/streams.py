"""What goes on for as long as somebody listens, as server-sent events: changes, and waiting for an end."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio
from starlette.responses import Response

from backend.api.feed import Feed, Moved, Predicate, choose, frame_event
from backend.api.sse import END, HEARTBEAT, HEARTBEAT_SECONDS, EventStream, Put, encode_event
from backend.api.streaming import Streams, find_streams, hold_events
from backend.auth.hiding import hide_in_document, may_tell
from backend.errors import ConflictError, KCError, TimedOutError, UsageError
from backend.model.kinds import OPERATION, VM, find_kind
from backend.model.selectors import parse

if TYPE_CHECKING:
    from backend.api.exchange import Exchange
    from backend.model.documents import Document
    from backend.service import Progress

BATCH_EVENTS: Final = 64
SLICE_SECONDS: Final = 0.5
VM_SECONDS: Final = 600.0
_REVISION = re.compile(r"[0-9]{1,18}")


# --- changes
async def watch(exchange: Exchange) -> Response:
    """Answer with changes of the documents that somebody may see, after a revision or from now on.

    `Last-Event-ID` is the revision where a client resumes by itself; it goes before `since`. Raises ConflictError as
    410 for a revision that is too old, or was never written.
    """
    query = exchange.query
    kinds = [find_kind(word.strip()).name for word in str(query.get("kinds", "")).split(",") if word.strip()]
    accepts = parse(str(query.get("selector", "")))
    since = _read_revision(exchange.header("last-event-id"), query.get("since"))
    streams = find_streams(exchange)
    await streams.feed.open()
    place = await _find_place(streams, since)

    watcher = _Watcher(exchange, streams, kinds, accepts)
    return EventStream(lambda put: _follow(streams, place, watcher.pick, put), lambda: hold_events(exchange))


class _Watcher:
    """Picks from the feed what one watcher may see and has asked for."""

    def __init__(self, exchange: Exchange, streams: Streams, kinds: list[str], accepts: Predicate) -> None:
        self._exchange = exchange
        self._streams = streams
        self._kinds = kinds
        self._accepts = accepts

    async def pick(self, batch: list[Moved]) -> bytes:
        """Return the frames of what moved."""
        service = self._exchange.service
        frames: list[bytes] = []
        for moved in batch:
            event = choose(moved, self._kinds, self._accepts, service.sees)
            if event is None:
                continue
            if not service.may_everything and may_tell(event.document):
                # It is asked which of the names in it may be seen.
                document = await self._exchange.call_within(
                    self._streams.wait_threads, hide_in_document, service, event.document
                )
                event = event._replace(document=document)
            frames.append(moved.frame if event is moved.event else frame_event(event))
        return b"".join(frames)


class _Place:
    """Where a watcher stands: what it has still to be told from the past, then a position in the feed."""

    def __init__(self, since: int, position: int, past: Iterator[Moved], told: list[Moved]) -> None:
        self.since = since
        self.position = position
        self.past = past
        self.told = told


async def _find_place(streams: Streams, since: int | None) -> _Place:
    feed = streams.feed
    if since is None:
        return _Place(feed.revision, feed.position, iter(()), [])
    # A client may have listed a moment that the feed has not come to yet.
    newest = feed.revision
    if since > newest:
        newest = await streams.run(streams.wait_threads, feed.read_revision)
    if since > newest:
        raise ConflictError(
            "watch", f"revision {since} was never written here", "list again, and go on from the revision of that list",
            compacted=True, status=410,
        )  # fmt: skip
    position = feed.locate(since)
    if position is not None:
        return _Place(since, position, iter(()), [])
    position, past = feed.position, feed.catch_up(since, feed.revision)
    try:
        told = await _read_past(streams, past)
    except ConflictError as error:
        if error.details.get("compacted"):
            error.details["status"] = 410
        raise
    return _Place(since, position, past, told)


async def _read_past(streams: Streams, past: Iterator[Moved]) -> list[Moved]:
    return await streams.run(streams.wait_threads, lambda: list(islice(past, BATCH_EVENTS)))


Pick = Callable[[list[Moved]], Awaitable[bytes]]


async def _follow(streams: Streams, place: _Place, pick: Pick, put: Put) -> bytes:
    """Put what a watcher is to be told; return the frame that ends it."""
    try:
        while place.told:
            await put(await pick(place.told) or HEARTBEAT)
            place.told = await _read_past(streams, place.past)
        await _follow_feed(streams.feed, place, pick, put)
    except KCError as error:
        return encode_event("error", error.problem())
    return END


async def _follow_feed(feed: Feed, place: _Place, pick: Pick, put: Put) -> None:
    due = time.monotonic() + HEARTBEAT_SECONDS
    while True:
        batch = feed.read(place.position, BATCH_EVENTS)
        place.position += len(batch)
        frames = await pick([moved for moved in batch if _is_new(moved, place.since)])
        if frames or time.monotonic() >= due:
            await put(frames or HEARTBEAT)
            due = time.monotonic() + HEARTBEAT_SECONDS
        if batch:
            await anyio.lowlevel.checkpoint()  # others have their turn, however much there is
        else:
            await feed.wait(place.position, max(due - time.monotonic(), 0.0))


def _is_new(moved: Moved, since: int) -> bool:
    return moved.event.revision > since or moved.event.type == "status"


def _read_revision(last_event: str, since: int | None) -> int | None:
    if not last_event:
        return since
    if not _REVISION.fullmatch(last_event):
        raise UsageError("watch", "Last-Event-ID is no revision", "send the id of the last event, or none")
    return int(last_event)


# --- waiting
async def wait_operation(exchange: Exchange) -> Response:
    """Answer with `progress` events of an operation until it ends, then `end` with its document."""
    name = exchange.name
    await exchange.call(exchange.service.get, OPERATION.name, name)

    def ask(seconds: float, progress: Progress) -> Document:
        return exchange.service.wait(name, timeout=seconds, progress=progress)

    return _wait(exchange, ask, exchange.query.get("timeout"))


async def wait_vm(exchange: Exchange) -> Response:
    """Answer with `progress` events of a VM until it is `running` or `ready`, then `end` with its document."""
    name, state = exchange.name, str(exchange.query.get("state", "ready"))
    if state not in ("running", "ready"):
        raise UsageError("wait", "state is neither running nor ready", "wait for one of them")
    await exchange.call(exchange.service.get, VM.name, name, observe=False)

    def ask(seconds: float, progress: Progress) -> Document:
        return exchange.service.wait_until(name, state, timeout=seconds, progress=progress)

    return _wait(exchange, ask, float(exchange.query.get("timeout", VM_SECONDS)))


def _wait(exchange: Exchange, ask: Callable[[float, Progress], Document], limit: float | None) -> Response:
    return EventStream(lambda put: _tell_progress(exchange, ask, limit, put), lambda: hold_events(exchange))


async def _tell_progress(
    exchange: Exchange, ask: Callable[[float, Progress], Document], limit: float | None, put: Put
) -> bytes:
    """Wait a little at a time: so many may wait on few threads, and one whose client has gone ends."""
    streams = find_streams(exchange)
    ends = None if limit is None else time.monotonic() + limit
    shown: Document | None = None
    while True:
        seconds = SLICE_SECONDS if ends is None else min(SLICE_SECONDS, max(ends - time.monotonic(), 0.0))
        moved: list[Document] = []
        try:
            document = await exchange.call_within(streams.wait_threads, ask, seconds, moved.append)
        except TimedOutError as error:
            if ends is not None and time.monotonic() >= ends:
                return encode_event("error", _reword(error, limit or 0.0).problem())
            document = None
        except KCError as error:
            return encode_event("error", error.problem())
        frames = b""
        for each in moved:
            if each != shown:
                frames += encode_event("progress", each)
                shown = each
        if document is not None:
            return frames + encode_event("end", document)
        await put(frames or HEARTBEAT)


def _reword(error: TimedOutError, limit: float) -> TimedOutError:
    """Return the error of the whole wait from that of its last slice."""
    state, _, lacks = error.why.partition(": ")
    why = f"{state.partition(' after ')[0]} after {limit:g} s"
    return TimedOutError(error.what, f"{why}: {lacks}" if lacks else why, error.hint)
