"""The one seam between the screens and the service.

The service blocks; the screens must not. So every call runs in one of a few daemon threads, whose results come back to
the event loop as awaitables; the feed of changes and each console have a thread of their own. Daemon threads, because
a call that hangs in a dead connection must never keep KC from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from textual.message import Message

from backend.errors import ConflictError, FailedError, KCError, UnreachableError
from backend.model.documents import Document, is_readable
from backend.model.kinds import find_kind
from backend.service import FILTERED, Accepted, Adoption, DocumentPage, Event, Preview, Service
from backend.text import sanitise
from kc_tui.cleaning import clean, clean_changes
from kc_tui.console_link import ConsoleLink
from kc_tui.messages import DocumentsChanged, FeedChanged, Link
from kc_tui.state.formatting import pluralise
from kc_tui.state.samples import Counters

if TYPE_CHECKING:
    from backend.model.changes import Change
    from kc_tui.state.versions import Timeline

Result = TypeVar("Result")
Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]

LANES: Final = {"store": 2, "host": 4}
"""Threads by what they wait for: a host that hangs must not keep the store's answers waiting."""
POST_INTERVAL: Final = 0.1
"""Seconds between two messages of changes; more often no person sees."""
_RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
CLOSE_SECONDS: Final = 6.0
"""How long the end waits for the service: a step of an operation may be under way, and is better ended than cut."""

_log = logging.getLogger(__name__)


def describe_failure(error: Exception) -> KCError:
    """Return what a person is told of any exception: KC's own as they are, others as a fault of KC."""
    if isinstance(error, KCError):
        return error
    _log.error("unexpected error behind the gateway", exc_info=error)
    why = sanitise(f"{type(error).__name__}: {error}", 300)
    return FailedError("KC", f"unexpected error: {why}", "this is a fault of KC; its log has the details")


class _Feed:
    """Where the feed of changes stands: the revision that was seen last, and how often it broke in a row."""

    def __init__(self, since: int | None) -> None:
        self.since = since
        self._failures = 0
        self._live = False

    def works(self) -> bool:
        """Note that the feed brings something; return whether that is news."""
        was_live, self._live = self._live, True
        self._failures = 0
        return not was_live

    def breaks(self) -> float:
        """Note that the feed broke; return the seconds to wait before the next try."""
        self._live = False
        self._failures += 1
        return _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1]


class Gateway:
    """Carries calls to a service out of the event loop's thread, and its changes back as messages.

    Made and used on the event loop's thread; `factory` opens the service and may block, `post` takes a message from
    this thread.
    """

    def __init__(self, factory: Callable[[], Service], post: Callable[[Message], object]) -> None:
        self._factory = factory
        self._post = post
        self._loop = asyncio.get_running_loop()
        # Widgets look for their app in the context, which a callback from a thread would not have.
        self._context = contextvars.copy_context()
        self._opening = threading.Lock()
        self._service: Service | None = None
        self._closed = threading.Event()
        self._ended = threading.Event()
        self._queues: dict[str, SimpleQueue[Job | None]] = {name: SimpleQueue() for name in LANES}
        self._threads: dict[str, int] = dict.fromkeys(LANES, 0)
        self._outstanding = 0
        self._pending: dict[tuple[str, str], Event] = {}
        self._guard = threading.Lock()
        self._flush_due = False
        self._posted_at = 0.0
        self._consoles: list[ConsoleLink] = []

    # --- calls

    async def call(self, work: Callable[[Service], Result], *, lane: str = "host") -> Result:
        """Return what `work` makes of the service; raise KCError, whatever went wrong."""
        return await self.run(lambda: work(self._open()), lane=lane)

    async def list_documents(self, kind: str, *, observe: bool, limit: int | None = None) -> DocumentPage:
        """Return documents of a kind, fit for a terminal; with `observe` the host is asked for the live states."""

        def work(service: Service) -> DocumentPage:
            page = service.list_documents(kind, observe=observe, limit=limit)
            # What a newer KC wrote has a shape that no screen knows.
            known = [document for document in page.items if is_readable(document)]
            left_out = len(page.items) - len(known)
            # Whoever sees less than all is told by the masthead; it is no reason to doubt what they see.
            warnings = [sanitise(warning, 400) for warning in page.warnings if warning != FILTERED]
            if left_out:
                title = pluralise(left_out, find_kind(kind).title)
                warnings.append(f"{title} not shown: a newer KC wrote it; see kc {find_kind(kind).command} list")
            return page._replace(items=[clean(document) for document in known], warnings=warnings)

        return await self.call(work, lane="host" if observe else "store")

    async def change(self, work: Callable[[Service], Accepted]) -> Accepted:
        """Return what a change made, fit for a terminal."""
        accepted = await self.call(work)
        return Accepted(clean(accepted.document), clean(accepted.operation))

    async def change_all(self, work: Callable[[Service], list[Accepted]]) -> list[Accepted]:
        """Return what several changes made, fit for a terminal."""
        return [Accepted(clean(made.document), clean(made.operation)) for made in await self.call(work)]

    async def history(self, kind: str, name: str) -> Timeline:
        """Return the history of an object; it gives out nothing that is not fit for a terminal."""
        from kc_tui.state.versions import Timeline  # noqa: PLC0415 - not for the first picture

        return await self.call(lambda service: Timeline(service.history(kind, name)), lane="store")

    async def preview(self, work: Callable[[Service], Preview]) -> Preview:
        """Return what a change would do, fit for a terminal."""

        def look(service: Service) -> Preview:
            preview = work(service)
            return Preview(
                clean(preview.before),
                clean(preview.after),
                clean_changes(preview.changes),
                [sanitise(effect, 400) for effect in preview.effects],
                tuple(sanitise(name, 100) for name in preview.cuts),
            )

        return await self.call(look)

    async def look_at(self, kind: str, name: str) -> Document:
        """Return an object with all that the host tells of it, fit for a terminal."""
        return clean(await self.call(lambda service: service.get(kind, name)))

    async def compare(self, kind: str, name: str, version: Any) -> list[Change]:
        """Return how an object's spec would change by becoming what it was in a version, fit for a terminal."""

        def look(service: Service) -> list[Change]:
            from backend.model.changes import compare_documents  # noqa: PLC0415 - not for the first picture

            current = service.get(kind, name, observe=False)
            old = service.get(kind, name, version=version) if isinstance(version, int) and version else current
            return clean_changes(compare_documents(current, {**current, "spec": old["spec"]}))

        return await self.call(look, lane="store")

    async def preview_adoption(self, domain: str, name: str) -> Adoption:
        """Return what adopting a foreign domain would do, fit for a terminal."""
        adoption = await self.call(lambda service: service.preview_adoption(domain, name=name))
        managed, untouched = ([sanitise(line, 400) for line in lines] for lines in adoption[1:])
        return Adoption(clean(adoption.document), managed, untouched)

    async def cancel(self, operation: str) -> None:
        """Ask an operation to end and undo itself."""
        await self.call(lambda service: service.cancel(operation))

    async def resume(self) -> None:
        """Have the service take up operations that an earlier process left unfinished."""
        await self.call(lambda service: service.resume(wait=False), lane="store")

    async def sample(self) -> list[Counters] | None:
        """Return the counters of all VMs; None where the service cannot tell now."""
        try:
            return await self.call(lambda service: list(service.samples()))
        except KCError as error:
            # The figures are a courtesy; that the host does not answer is told by the feed.
            _log.info("samples: %s", error)
            return None

    async def run(self, work: Callable[[], Result], *, lane: str = "store") -> Result:
        """Return what a blocking function returns; raise KCError, whatever went wrong."""
        future: asyncio.Future[Result] = self._loop.create_future()
        if self._closed.is_set():
            raise UnreachableError("KC", "it is ending")
        self._outstanding += 1
        # One thread more than there are calls under way would never have work.
        if self._threads[lane] < min(LANES[lane], self._outstanding):
            self._threads[lane] += 1
            number = self._threads[lane]
            threading.Thread(target=self._serve, args=(lane,), name=f"kc-{lane}-{number}", daemon=True).start()
        self._queues[lane].put((work, future))
        try:
            return await future
        finally:
            self._outstanding -= 1

    def _open(self) -> Service:
        with self._opening:
            if self._closed.is_set():
                raise UnreachableError("KC", "it is ending")
            if self._service is None:
                self._service = self._factory()
            return self._service

    def _serve(self, lane: str) -> None:
        queue = self._queues[lane]
        while (job := queue.get()) is not None:
            work, future = job
            if future.cancelled():
                continue
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - one of the two boundaries: a thread's error is the screen's news
                self._settle(future, None, describe_failure(error))
            else:
                self._settle(future, result, None)

    def _settle(self, future: asyncio.Future[Any], result: Any, error: KCError | None) -> None:
        def settle() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._on_loop(settle)

    def _on_loop(self, work: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(work, context=self._context)
        except RuntimeError:
            # The loop is closed: KC has ended, and nobody waits for this any more.
            _log.debug("an answer came after the end")

    # --- the feed

    def watch(self, since: int | None) -> None:
        """Start to post the service's changes after revision `since`, until `close`."""
        threading.Thread(target=self._watch, args=(since,), name="kc-feed", daemon=True).start()

    def _watch(self, since: int | None) -> None:
        feed = _Feed(since)
        while not self._closed.is_set():
            try:
                for event in self._open().watch(since=feed.since):
                    if self._closed.is_set():
                        return
                    if feed.works():
                        self._tell(Link.LIVE)
                    if event is not None:
                        feed.since = event.revision or feed.since
                        self._collect(event)
                error: KCError = UnreachableError("feed of changes", "it ended")
            except Exception as caught:  # noqa: BLE001 - one of the two boundaries: the feed comes back by itself
                if self._closed.is_set():
                    return
                error = describe_failure(caught)
            if isinstance(error, ConflictError):
                # Too old a revision: the lists are asked for anew once the feed is back.
                feed.since = None
            self._tell(Link.STALE, f"{error.what}: {error.why}")
            self._closed.wait(feed.breaks())

    def _tell(self, link: Link, why: str = "") -> None:
        self._on_loop(lambda: self._post(FeedChanged(link, why)))

    def _collect(self, event: Event) -> None:
        if not is_readable(event.document):
            return
        event = event._replace(document=clean(event.document))
        key = (str(event.document.get("kind", "")), str(event.document.get("uid", "")))
        with self._guard:
            earlier = self._pending.pop(key, None)
            if earlier is not None and earlier.type == "created" and event.type != "deleted":
                event = event._replace(type="created")
            self._pending[key] = event
            if self._flush_due:
                return
            self._flush_due = True
        self._on_loop(self._plan_flush)

    def _plan_flush(self) -> None:
        self._loop.call_later(max(0.0, self._posted_at + POST_INTERVAL - time.monotonic()), self._flush)

    def _flush(self) -> None:
        with self._guard:
            events = tuple(self._pending.values())
            self._pending.clear()
            self._flush_due = False
        self._posted_at = time.monotonic()
        if events and not self._closed.is_set():
            self._post(DocumentsChanged(events))

    # --- consoles

    def open_console(
        self, name: str, on_data: Callable[[bytes], object], on_end: Callable[[KCError | None], object]
    ) -> ConsoleLink:
        """Open a VM's serial console; the callbacks run on the event loop, `on_end` once, with the error if any."""
        link = ConsoleLink(lambda: self._open().console(name), self._on_loop, on_data, on_end)
        self._consoles = [known for known in self._consoles if not known.ended]
        self._consoles.append(link)
        link.start()
        return link

    # --- ends

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way and no change waits to be posted."""
        return self._outstanding == 0 and not self._flush_due

    async def idle(self) -> None:
        """Return once the gateway is idle."""
        while not self.is_idle:  # noqa: ASYNC110 - half of it happens in threads that no event loop sees
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """End the consoles and begin to let go of the service; nothing is posted any more."""
        if self._closed.is_set():
            return
        self._closed.set()
        for console in self._consoles:
            console.close()
        threading.Thread(target=self._end, name="kc-close", daemon=True).start()

    def join(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Wait until the service is let go of, `timeout` seconds at most; return whether it is."""
        return self._ended.wait(timeout)

    def _end(self) -> None:
        for lane, queue in self._queues.items():
            for _ in range(self._threads[lane]):
                queue.put(None)
        with self._opening:
            service, self._service = self._service, None
        if service is not None:
            try:
                service.close()
            except KCError as error:
                _log.warning("closing the service: %s", error)
        self._ended.set()
