"""The feed of changes, and waiting: streams of events that tell soon when they are lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from backend.errors import ConflictError, FailedError, KCError, TimedOutError
from backend.model.documents import Document
from backend.model.kinds import OPERATION, VM, find_kind
from backend.remote.answers import LineLostError, make_error
from backend.remote.events import read_events
from backend.remote.transport import Transport, quote_name
from backend.service import Event, Progress

SILENCE_SECONDS = 5.0
"""A server says something each second; one that says nothing for so long is lost."""
PATIENCE_SECONDS = 60.0
"""How long a wait goes on without a server."""
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
_LONGEST_SECONDS = 86400.0
_EVENTS = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}


def watch(transport: Transport, kinds: Sequence[str], since: int | None, selector: str) -> Iterator[Event | None]:
    """Yield changes until the line is lost, which raises UnreachableError; see the protocol.

    Whoever wants more asks again, with the revision of the last event.
    """
    words = ",".join(find_kind(kind).command for kind in kinds)
    query = {"kinds": words or None, "since": since, "selector": selector or None}
    headers = _EVENTS if since is None else {**_EVENTS, "Last-Event-ID": str(since)}
    with transport.stream("GET", "/v1/watch", query=query, headers=headers, seconds=SILENCE_SECONDS) as response:
        for told in read_events(response.iter_raw()):
            if told is None:
                yield None
                continue
            value = told.value
            if told.type == "error":
                raise _describe_end(make_error(_expect_object(value)))
            yield Event(int(value["revision"]), str(value["type"]), value["document"])
    raise LineLostError(transport.options.address.label, "the feed of changes ended", transient=True)


def _describe_end(error: KCError) -> KCError:
    """Return the error that a feed ended with; one that was read too slowly goes on where it was."""
    if isinstance(error, ConflictError) and not error.details.get("compacted"):
        return LineLostError(error.what, error.why, error.hint, transient=True)
    return error


class Waiter:
    """Waits for one thing until `timeout` (seconds) has passed, over as many connections as it takes."""

    def __init__(self, transport: Transport, path: str, timeout: float | None, progress: Progress | None) -> None:
        self._transport = transport
        self._path = path
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._progress = progress
        self._seen: Document | None = None

    def show(self, document: Document) -> None:
        """Tell of a document, unless it is the one that was told last."""
        if document != self._seen:
            self._seen = document
            if self._progress is not None:
                self._progress(document)

    def wait(self, extra: dict[str, str], what: str, hint: str) -> Document:
        """Return the document that the server answers in the end; raise what it tells of, TimedOutError."""
        lost_at: float | None = None
        failures = 0
        while True:
            try:
                for document in self._listen(extra):
                    lost_at, failures = None, 0
                    if document is not None:
                        return document
            except LineLostError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE_SECONDS:
                    raise
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise TimedOutError(what, f"not ended after {self._timeout:.0f} s", hint)
            time.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
            failures += 1

    def _listen(self, extra: dict[str, str]) -> Iterator[Document | None]:
        """Yield None for each sign of life, and the document at the end."""
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        query = {**extra, "timeout": None if left is None else f"{min(left, _LONGEST_SECONDS):.3f}"}
        with self._transport.stream("GET", self._path, query=query, headers=_EVENTS, seconds=SILENCE_SECONDS) as stream:
            for told in read_events(stream.iter_raw()):
                if told is None:
                    yield None
                elif told.type == "error":
                    raise make_error(_expect_object(told.value))
                else:
                    document = _expect_object(told.value)
                    self.show(document)
                    yield document if told.type == "end" else None


def _expect_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FailedError("answer", "it is no object of JSON", "see that KC answers there")
    return value


def wait_for_operation(
    transport: Transport, name: str, timeout: float | None, progress: Progress | None
) -> Document:  # fmt: skip
    """Return an operation's document once it ended."""
    path = f"/v1/{OPERATION.collection}/{quote_name(name)}/wait"
    waiter = Waiter(transport, path, timeout, progress)
    return waiter.wait({}, f"operation {name}", f"it goes on; see kc op show {name}")


def wait_for_vm(transport: Transport, name: str, state: str, timeout: float, progress: Progress | None) -> Document:
    """Return a VM's document once it is in a state."""
    path = f"/v1/{VM.collection}/{quote_name(name)}/wait"
    waiter = Waiter(transport, path, timeout, progress)
    return waiter.wait({"state": state}, f"VM {name}", f"see kc vm show {name}")
