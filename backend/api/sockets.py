"""A VM's console and screen over a WebSocket: bytes both ways in binary frames, as far as the slower side goes.

A connection that is not to be had (the VM is off, too many are open) is refused with a problem before the WebSocket is
accepted. Afterwards it ends with one of these codes (RFC 6455, 7.4):

    1000  the console has ended: the guest is off
    1009  a message of more than 64 KiB came
    1011  the console failed; the reason says how
    1012  the server ends; connect again
    1013  it cannot be decided now whether it is still allowed; connect again
    4401  the credential has ended or was revoked
    4403  it is not allowed any more
    4408  the client takes nothing
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from backend.api.problems import answer_problem
from backend.api.racing import race
from backend.api.sse import STALL_SECONDS
from backend.api.streaming import Streams, find_streams, hold
from backend.errors import KCError, TimedOutError
from backend.model.kinds import VM

if TYPE_CHECKING:
    from backend.api.exchange import Exchange
    from backend.service import ConsoleStream

READ_SECONDS: Final = 0.5
LARGEST_MESSAGE: Final = 64 << 10
# A person types less, a paste of theirs is let through at once, and what is more waits.
INPUT_BYTES_A_SECOND: Final = 256 << 10
INPUT_BURST: Final = 128 << 10
_LONGEST_REASON: Final = 120  # a close frame has 125 bytes, two of them the code


class Ending(NamedTuple):
    """How a WebSocket ends: its code and a reason; the code is 0 where the client has gone already."""

    code: int
    reason: str = ""


async def console(exchange: Exchange, socket: WebSocket) -> None:
    """Join a VM's serial console with a WebSocket."""
    await _join(exchange, socket, "console", exchange.service.console)


async def display(exchange: Exchange, socket: WebSocket) -> None:
    """Join a VM's screen, which speaks VNC (RFC 6143), with a WebSocket."""
    await _join(exchange, socket, "display", exchange.service.display)


async def _join(exchange: Exchange, socket: WebSocket, verb: str, open_stream: Callable[[str], ConsoleStream]) -> None:
    streams, name = find_streams(exchange), exchange.name

    def check() -> None:
        """See that the VM of that name is still one that this is allowed on."""
        exchange.service.demand(VM, name, verb)

    with ExitStack() as stack:
        try:
            stack.enter_context(streams.take_line(exchange.decision.subject))
            stream = await exchange.call_within(streams.line_threads, open_stream, name)
        except KCError as error:
            await socket.send_denial_response(answer_problem(error, exchange.request_id))
            return
        try:
            await socket.accept()
            ending = await race(
                lambda: _show(streams, stream, socket),
                lambda: _type(streams, stream, socket),
                lambda: _hold(exchange, check),
            )
        finally:
            with anyio.CancelScope(shield=True):
                await streams.run(streams.line_threads, stream.close)
    if ending.code:
        with anyio.move_on_after(STALL_SECONDS):
            await socket.close(ending.code, ending.reason)


async def _show(streams: Streams, stream: ConsoleStream, socket: WebSocket) -> Ending:
    """Send what the guest says; while the client takes nothing, nothing more is read."""
    while True:
        try:
            data = await streams.run(streams.line_threads, stream.read, READ_SECONDS)
        except KCError as error:
            return _fail(error)
        if data is None:
            continue
        if not data:
            return Ending(1000, "the console has ended")
        try:
            with anyio.fail_after(STALL_SECONDS):
                await socket.send_bytes(data)
        except TimeoutError:
            return Ending(4408, "you take nothing")
        except WebSocketDisconnect:
            return Ending(0)


async def _type(streams: Streams, stream: ConsoleStream, socket: WebSocket) -> Ending:
    """Hand keys to the guest, as fast as it takes them and no faster than a rate."""
    allowance, looked = float(INPUT_BURST), time.monotonic()
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return Ending(0)
        # Clients that know text alone send what was typed as such.
        data = message.get("bytes") or (message.get("text") or "").encode()
        if len(data) > LARGEST_MESSAGE:
            return Ending(1009, f"more than {LARGEST_MESSAGE} bytes in a message")
        now = time.monotonic()
        allowance = min(allowance + (now - looked) * INPUT_BYTES_A_SECOND, INPUT_BURST) - len(data)
        looked = now
        if allowance < 0:
            await anyio.sleep(-allowance / INPUT_BYTES_A_SECOND)
        try:
            await streams.run(streams.line_threads, stream.write, data)
        except TimedOutError:
            continue  # a guest that takes no keys loses them, as on any serial line, and is looked at all the same
        except KCError as error:
            return _fail(error)


async def _hold(exchange: Exchange, check: Callable[[], None]) -> Ending:
    error = await hold(exchange, check)
    if error is None:
        return Ending(1012, "the server ends")
    status = int(error.problem()["status"])
    code = {401: 4401, 503: 1013}.get(status, 4403)
    return Ending(code, _shorten(error.why))


def _fail(error: KCError) -> Ending:
    # What has ended says so by an error where something is typed into it.
    return Ending(1000 if error.code == "conflict" else 1011, _shorten(f"{error.what}: {error.why}"))


def _shorten(text: str) -> str:
    return text.encode()[:_LONGEST_REASON].decode(errors="ignore")
