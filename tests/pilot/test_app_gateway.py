"""The seam: nothing behind it blocks or breaks what is before it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.message import Message

from backend.errors import ConflictError, FailedError, NotFoundError, UnreachableError
from backend.service import DocumentPage, Event
from kc_tui.gateway import LANES, Gateway
from kc_tui.messages import DocumentsChanged, FeedChanged, Link


class Script:
    """A service that does what a test has it do."""

    def __init__(self) -> None:
        self.feed: list[Event | Exception | None] = []
        self.since: list[int | None] = []
        self.closed = threading.Event()
        self.console_bytes: list[bytes] = []
        self.typed = b""
        self.gate = threading.Event()

    def watch(self, kinds: Any = (), *, since: int | None = None, selector: str = "") -> Iterator[Event | None]:
        self.since.append(since)
        while not self.closed.is_set():
            if not self.feed:
                time.sleep(0.005)
                continue
            told = self.feed.pop(0)
            if isinstance(told, Exception):
                raise told
            yield told

    def list_documents(self, kind: str, **_more: Any) -> DocumentPage:
        return DocumentPage([{"kind": kind, "name": "\x1b]0;owned\x07"}], "", 3, ["\x1b[2J down"])

    def console(self, name: str) -> Script:
        if name == "off":
            raise ConflictError("VM off", "it is stopped and has no console")
        return self

    def read(self, timeout: float) -> bytes | None:
        if self.console_bytes:
            return self.console_bytes.pop(0)
        self.closed.wait(0.005)
        return b"" if self.closed.is_set() else None

    def write(self, data: bytes) -> None:
        self.typed += data

    def close(self) -> None:
        self.closed.set()


@asynccontextmanager
async def opened(
    service: Any, factory: Callable[[], Any] | None = None
) -> AsyncIterator[tuple[Gateway, list[Message]]]:
    posted: list[Message] = []
    gateway = Gateway(factory or (lambda: service), posted.append)
    yield gateway, posted
    gateway.close()
    assert await asyncio.to_thread(gateway.join, 5.0)


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - threads make it true
            await asyncio.sleep(0.002)
    assert condition(), what


def event(name: str, kind: str = "status", revision: int = 1, **document: Any) -> Event:
    return Event(revision, kind, {"kind": "VM", "name": name, "uid": name, **document})


async def test_a_call_runs_beside_the_event_loop():
    async with opened(Script()) as (gateway, _):
        assert await gateway.call(lambda _service: threading.current_thread().name) == "kc-host-1"
        assert gateway.is_idle


async def test_the_service_is_opened_once_whatever_is_asked_at_the_same_time():
    made = []

    def factory() -> Script:
        time.sleep(0.02)
        made.append(Script())
        return made[-1]

    async with opened(None, factory) as (gateway, _):
        found = await asyncio.gather(*(gateway.call(lambda service: service) for _ in range(8)))
        assert len(set(map(id, found))) == len(made) == 1


async def test_a_service_that_cannot_be_opened_is_tried_again_at_the_next_call():
    tries = []

    def factory() -> Script:
        tries.append(1)
        if len(tries) == 1:
            raise UnreachableError("store", "it is locked")
        return Script()

    async with opened(None, factory) as (gateway, _):
        with pytest.raises(UnreachableError):
            await gateway.call(lambda service: service)
        await gateway.call(lambda service: service)


async def test_errors_of_kc_come_as_they_are_and_all_others_as_a_fault_of_kc():
    async with opened(Script()) as (gateway, _):
        with pytest.raises(NotFoundError, match="no such"):
            await gateway.call(lambda _service: (_ for _ in ()).throw(NotFoundError("VM x", "no such VM")))
        with pytest.raises(FailedError) as raised:
            await gateway.call(lambda _service: {}["\x1b[31m"])
        assert "KeyError" in raised.value.why
        assert "\x1b" not in raised.value.why


async def test_a_host_that_hangs_keeps_neither_the_store_nor_the_end_waiting():
    service = Script()
    async with opened(service) as (gateway, _):
        hanging = [asyncio.ensure_future(gateway.call(lambda s: s.gate.wait(30))) for _ in range(2 * LANES["host"])]
        async with asyncio.timeout(1):
            assert await gateway.call(lambda _service: "store", lane="store") == "store"
        assert not gateway.is_idle
        gateway.close()
        assert await asyncio.to_thread(gateway.join, 1.0)
        service.gate.set()
        for call in hanging:
            call.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_there_are_never_more_threads_than_a_lane_has():
    async with opened(Script()) as (gateway, _):
        running = []
        most = []

        def work(_service: Any) -> None:
            running.append(1)
            most.append(len(running))
            time.sleep(0.005)
            running.pop()

        await asyncio.gather(*(gateway.call(work) for _ in range(40)))
        assert max(most) <= LANES["host"]


async def test_what_comes_from_the_service_is_fit_for_a_terminal():
    async with opened(Script()) as (gateway, _):
        page = await gateway.list_documents("VM", observe=True)
        assert "\x1b" not in page.items[0]["name"] + page.warnings[0]


async def test_changes_come_together_and_not_more_often_than_ten_times_a_second():
    service = Script()
    async with opened(service) as (gateway, posted):
        service.feed = [event(f"vm-{number % 5}", revision=number) for number in range(200)]
        started = time.monotonic()
        gateway.watch(7)

        def told() -> list[Event]:
            return [told for message in posted if isinstance(message, DocumentsChanged) for told in message.events]

        await until(lambda: any(item.revision == 199 for item in told()), "the newest came")
        batches = [message for message in posted if isinstance(message, DocumentsChanged)]
        assert len(batches) <= 2 + (time.monotonic() - started) * 10
        assert all(len({item.document["uid"] for item in batch.events}) == len(batch.events) for batch in batches)
        assert service.since == [7]


async def test_a_document_that_was_made_and_changed_at_once_is_told_as_made():
    service = Script()
    async with opened(service) as (gateway, posted):
        service.feed = [event("a", "created", 1), event("a", "status", 2, status={"power": "running"})]
        gateway.watch(None)
        await until(lambda: any(isinstance(message, DocumentsChanged) for message in posted), "a change came")
        await gateway.idle()
        events = [told for message in posted if isinstance(message, DocumentsChanged) for told in message.events]
        assert events[0].type == "created"
        assert events[-1].document["status"] == {"power": "running"}


async def test_a_broken_feed_is_told_and_comes_back_where_it_was():
    service = Script()
    async with opened(service) as (gateway, posted):
        service.feed = [event("a", revision=41), UnreachableError("store", "it is gone"), None]
        gateway.watch(1)

        def links() -> list[Link]:
            return [message.link for message in posted if isinstance(message, FeedChanged)]

        await until(lambda: len(links()) == 3, "the feed came back")
        assert links() == [Link.LIVE, Link.STALE, Link.LIVE]
        assert service.since == [1, 41]


async def test_a_feed_that_is_too_far_behind_begins_anew():
    service = Script()
    async with opened(service) as (gateway, posted):
        service.feed = [ConflictError("feed", "too old", compacted=True), None]
        gateway.watch(1)
        await until(lambda: any(getattr(message, "link", None) is Link.LIVE for message in posted), "it is live")
        assert service.since == [1, None]


async def test_a_console_gives_its_bytes_in_order_and_takes_keys():
    service = Script()
    service.console_bytes = [b"one ", b"two ", b"three"]
    got: list[bytes] = []
    ends: list[object] = []
    async with opened(service) as (gateway, _):
        link = gateway.open_console("web", got.append, ends.append)
        await until(lambda: b"".join(got) == b"one two three", "all bytes came")
        link.send(b"ls\r")
        await until(lambda: service.typed == b"ls\r", "the keys arrived")
        link.close()
        service.closed.set()
        await asyncio.sleep(0.02)
        assert ends == []


async def test_a_console_that_ends_says_why_once():
    ends: list[object] = []
    service = Script()
    async with opened(service) as (gateway, _):
        gateway.open_console("off", lambda _data: None, ends.append)
        await until(lambda: ends, "it ended")
        service.closed.set()
        gateway.open_console("web", lambda _data: None, ends.append)
        await until(lambda: len(ends) == 2, "the other ended, too")
        assert isinstance(ends[0], ConflictError)
        assert ends[1] is None


async def test_a_console_that_is_not_shown_fast_enough_is_read_no_further():
    service = Script()
    service.console_bytes = [b"x" * 65536 for _ in range(100)]
    got: list[bytes] = []
    async with opened(service) as (gateway, _):
        link = gateway.open_console("web", got.append, lambda _error: None)
        link.pause()
        await asyncio.sleep(0.1)
        paused_at = len(service.console_bytes)
        assert paused_at > 80
        link.resume()
        await until(lambda: sum(map(len, got)) == 100 * 65536, "all came after all")


async def test_nothing_is_asked_after_the_end():
    async with opened(Script()) as (gateway, _):
        gateway.close()
        with pytest.raises(UnreachableError):
            await gateway.call(lambda service: service)
