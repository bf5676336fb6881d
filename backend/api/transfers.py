"""The store as a whole over HTTP, as lines of JSON, and what makes a new KC ready, as events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.from_thread
import msgspec
from starlette.responses import Response

from backend.api.bodies import check_media
from backend.api.problems import HttpError, encode
from backend.api.racing import race
from backend.api.rows import NDJSON
from backend.api.sse import EventStream, Put, Stream, encode_event
from backend.api.streaming import find_streams, hold, hold_events
from backend.errors import KCError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from backend.api.exchange import Exchange
    from backend.model.documents import Document

SENT_BYTES: Final = 256 << 10
LARGEST_IMPORT: Final = 4 << 30
LONGEST_LINE: Final = 4 << 20
IDLE_SECONDS: Final = 30.0


async def export_store(exchange: Exchange) -> Response:
    """Answer with the whole store, a JSON object a line; one that has no last line `end` was cut."""
    streams = find_streams(exchange)
    # What stands against it is said before the answer begins.
    records = await exchange.call_within(streams.transfer_threads, exchange.service.export)

    async def produce(put: Put) -> bytes:
        return await exchange.call_within(streams.transfer_threads, _send_records, records, put)

    async def end() -> bytes:
        raise await hold(exchange) or UnreachableError("export", "the server ends", "ask again", transient=True)

    return Stream(produce, end, NDJSON)


def _send_records(records: Iterator[Document], put: Put) -> bytes:
    """Put records from a thread, which waits while the client takes none; return the last of them."""
    encoder, lines = msgspec.json.Encoder(), bytearray()
    for record in records:
        lines += encoder.encode(record)
        lines += b"\n"
        if len(lines) >= SENT_BYTES:
            anyio.from_thread.run(put, bytes(lines))
            lines.clear()
    return bytes(lines)


async def import_store(exchange: Exchange) -> Response:
    """Take an export into an empty store, all of it or nothing."""
    check_media(exchange.header("content-type"), (NDJSON,))
    streams = find_streams(exchange)
    chunks = _receive_chunks(exchange.connection)

    async def load() -> int:
        return await exchange.call_within(
            streams.transfer_threads, lambda: exchange.service.load(_read_records(chunks))
        )  # fmt: skip

    async def end() -> int:
        raise await hold(exchange) or UnreachableError("import", "the server ends", "send it again", transient=True)

    return Response(encode({"entries": await race(load, end)}), media_type="application/json")


async def _receive_chunks(connection: Any) -> AsyncIterator[bytes]:
    """Yield a body as it comes, no piece of it empty; raise HttpError where it is too large, cut, or nothing comes."""
    room, more = LARGEST_IMPORT, True
    while more:
        try:
            with anyio.fail_after(IDLE_SECONDS):
                message = await connection.receive()
        except TimeoutError:
            raise HttpError(408, "import", f"nothing came for {IDLE_SECONDS:.0f} s", "send it again") from None
        if message["type"] == "http.disconnect":
            raise HttpError(400, "import", "the connection was cut", "send it again")
        chunk = message.get("body", b"")
        room -= len(chunk)
        if room < 0:
            raise HttpError(413, "import", f"more than {LARGEST_IMPORT >> 30} GiB", "run kc import on the host")
        if chunk:
            yield chunk
        more = message.get("more_body", False)


def _read_records(chunks: AsyncIterator[bytes]) -> Iterator[Document]:
    """Yield the objects of a body's lines, in a thread; raise RefusedError for a line that is none."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(_split_lines(chunks), 1):
        if line.strip():
            yield _read_line(decoder, line, number)


def _split_lines(chunks: AsyncIterator[bytes]) -> Iterator[bytes]:
    async def pull() -> bytes:
        return await anext(chunks, b"")

    rest = b""
    while chunk := anyio.from_thread.run(pull):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise RefusedError("import", "a line is too long", "send what kc export wrote")
        yield from lines
    yield rest


def _read_line(decoder: msgspec.json.Decoder[dict[str, Any]], line: bytes, number: int) -> Document:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RefusedError("import", f"line {number} is no JSON object", "send what kc export wrote") from None


async def initialise(exchange: Exchange) -> Response:
    """Answer with a `line` event for each thing that is made, then `end` with all of them.

    It goes on to its end whether or not somebody still listens.
    """
    streams = find_streams(exchange)
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def report(line: str | None) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def make() -> bytes:
        try:
            return encode_event("end", exchange.service.initialise(report))
        except KCError as error:
            return encode_event("error", error.problem())
        finally:
            report(None)

    async def tell(put: Put) -> None:
        while (line := await lines.get()) is not None:
            await put(encode_event("line", line))

    async def produce(put: Put) -> bytes:
        async with anyio.create_task_group() as group:
            group.start_soon(tell, put)
            with anyio.CancelScope(shield=True):
                last = await exchange.call_within(streams.transfer_threads, make)
        return last

    return EventStream(produce, lambda: hold_events(exchange))
