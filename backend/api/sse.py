"""Server-sent events (the WHATWG HTML standard, 9.2): what they look like, and the answer that sends them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.api.racing import race

HEARTBEAT: Final = b":\n\n"
END: Final = b": end\n\n"
HEARTBEAT_SECONDS: Final = 0.9
# A client that takes nothing for so long is gone, or will not come to the end.
STALL_SECONDS: Final = 30.0

Put = Callable[[bytes], Coroutine[Any, Any, None]]
"""Sends frames; waits while the client takes none."""


def encode_event(event: str, data: Any, identifier: str = "") -> bytes:
    """Return one event; JSON has no line ends, so its data is one line."""
    head = f"id: {identifier}\nevent: {event}\ndata: " if identifier else f"event: {event}\ndata: "
    return b"%b%b\n\n" % (head.encode(), msgspec.json.encode(data))


class Stream(Response):
    """An answer of what `produce` puts, for as long as `hold` lets it; each returns the last that is sent, or raises.

    It ends as well where the client has gone, or stands still. `first` is sent at once: with it go the headers, by
    which whoever asked learns that they are let in.
    """

    def __init__(
        self,
        produce: Callable[[Put], Awaitable[bytes]],
        hold: Callable[[], Awaitable[bytes]],
        media_type: str,
        first: bytes = b"",
    ) -> None:
        self.produce = produce
        self.hold = hold
        self.first = first
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        # nginx would keep events back until it has many (X-Accel-Buffering), and some proxies would change them.
        self.init_headers({"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        del scope

        async def put(data: bytes, *, more: bool = True) -> None:
            with anyio.fail_after(STALL_SECONDS):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await put(self.first)
            last = await race(lambda: self.produce(put), self.hold, listen)
            if last is not None:
                await put(last, more=False)
        except TimeoutError:
            return


class EventStream(Stream):
    """A stream of events."""

    def __init__(self, produce: Callable[[Put], Awaitable[bytes]], hold: Callable[[], Awaitable[bytes]]) -> None:
        super().__init__(produce, hold, "text/event-stream", HEARTBEAT)
