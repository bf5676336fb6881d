"""Images that are uploaded in pieces: tus 1.0 (https://tus.io/protocols/resumable-upload), with what KC needs of it.

Extensions: creation, creation-with-upload, expiration, checksum, termination. Upload-Metadata has the image's `name`
and, where wanted, `metadata` (a JSON object), `format`, `arch`, `sha256` and `title`; whatever else stands there is
left alone. When the last byte has come the image is inspected and accepted: the answer names the operation that stores
it (`KC-Operation`), as does that of HEAD from then on. Where it is refused, the upload is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from email.utils import formatdate
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

import anyio
from starlette.responses import Response

from backend.api import tus
from backend.api.problems import HttpError, answer_problem
from backend.api.racing import race
from backend.api.staging import LARGEST_BYTES, Upload
from backend.api.streaming import Streams, find_streams, hold
from backend.errors import ConflictError, KCError, NotFoundError, RefusedError, UnreachableError
from backend.model.kinds import IMAGE

if TYPE_CHECKING:
    from backend.api.exchange import Exchange
    from backend.api.writing import Writer

TOO_LARGE: Final = 413
CLOSE: Final = {"Connection": "close"}
PIECE_BYTES: Final = 1 << 20
IDLE_SECONDS: Final = 30.0

Handler = Callable[["Exchange"], Awaitable[Response]]


def _speaking_tus(handler: Handler) -> Handler:
    """Have a handler refuse another version of the protocol, and say its own in every answer."""

    @wraps(handler)
    async def handle(exchange: Exchange) -> Response:
        try:
            tus.check_version(exchange)
            response = await handler(exchange)
        except KCError as error:
            response = answer_problem(error, exchange.request_id)
        response.headers["Tus-Resumable"] = tus.VERSION
        response.headers["Cache-Control"] = "no-store"
        return response

    return handle


async def options(exchange: Exchange) -> Response:  # noqa: ARG001 - everybody is told the same
    """Say what of tus is spoken here."""
    return Response(status_code=204, headers=tus.CAPABILITIES | {"Tus-Max-Size": str(LARGEST_BYTES)})


@_speaking_tus
async def create(exchange: Exchange) -> Response:
    """Begin an upload, with its first bytes where they come along."""
    streams = find_streams(exchange)
    wanted = tus.read_creation(exchange)
    sketch = {"kind": IMAGE.name, "name": wanted.name, "metadata": wanted.metadata}
    exchange.service.check_allowed("upload", sketch)
    await exchange.call(_check_free, exchange, wanted.name)
    upload = await exchange.call_within(streams.file_threads, streams.staging.create, wanted)
    headers = {"Location": f"/v1/uploads/{upload.identity}"}
    if exchange.header("content-type") == tus.MEDIA:
        upload = await _append(exchange, upload.identity, 0)
    return Response(status_code=201, headers=headers | await _tell(exchange, upload))


@_speaking_tus
async def head(exchange: Exchange) -> Response:
    """Say how far an upload has come."""
    streams = find_streams(exchange)

    def find() -> Upload:
        found = streams.staging.find(exchange.name, exchange.decision.subject)
        return streams.staging.refresh(found)

    upload = await exchange.call_within(streams.file_threads, find)
    headers = {"Upload-Length": str(upload.length)} | await _tell(exchange, upload)
    if upload.told:
        headers["Upload-Metadata"] = upload.told
    return Response(status_code=200, headers=headers)


@_speaking_tus
async def patch(exchange: Exchange) -> Response:
    """Take the next bytes of an upload; with the last of them the image is accepted, or refused."""
    if exchange.header("content-type") != tus.MEDIA:
        raise HttpError(415, "upload", "its type is not that of a piece", f"Content-Type: {tus.MEDIA}")
    upload = await _append(exchange, exchange.name, tus.read_figure(exchange, "upload-offset"))
    return Response(status_code=204, headers=await _tell(exchange, upload))


@_speaking_tus
async def terminate(exchange: Exchange) -> Response:
    """Give an upload up."""
    streams = find_streams(exchange)

    def remove() -> None:
        found = streams.staging.find(exchange.name, exchange.decision.subject)
        streams.staging.remove(streams.staging.refresh(found))

    await exchange.call_within(streams.file_threads, remove)
    return Response(status_code=204)


def _check_free(exchange: Exchange, name: str) -> None:
    """Raise ConflictError for a name that is taken: better now than after all the bytes."""
    try:
        exchange.service.get(IMAGE.name, name, observe=False)
    except NotFoundError:
        return
    raise ConflictError(f"image {name}", "the name is taken", "choose another; images never change")


async def _tell(exchange: Exchange, upload: Upload) -> dict[str, str]:
    """Return what every answer says of an upload."""
    streams = find_streams(exchange)
    staging = streams.staging

    def look() -> tuple[int, float]:
        return staging.measure(upload), staging.expires(upload)

    offset, expires = await streams.run(streams.file_threads, look)
    headers = {"Upload-Offset": str(offset), "Upload-Expires": formatdate(expires, usegmt=True)}
    return headers | ({"KC-Operation": f"/v1/operations/{upload.operation}"} if upload.operation else {})


# --- taking bytes
async def _append(exchange: Exchange, identity: str, offset: int) -> Upload:
    """Take a request's body as the bytes at an offset, and return the upload as it then is."""
    streams = find_streams(exchange)
    staging = streams.staging
    checksum = tus.read_checksum(exchange)
    with ExitStack() as stack:
        lock = staging.writing(identity, exchange.decision.subject)
        found: tuple[Upload, Writer] = await streams.run(streams.file_threads, stack.enter_context, lock)
        upload, writer = found
        at = staging.measure(upload)
        if offset != at:
            headers = {"Upload-Offset": str(at)}
            raise HttpError(409, "upload", f"it goes on at {at}, not at {offset}", "ask with HEAD", headers)
        tus.check_room(exchange, upload.length - offset)
        if upload.operation:
            return upload
        writer.rewind(offset)
        if checksum is not None:
            upload = await streams.run(streams.file_threads, partial(staging.mark, upload, unverified=offset))
        await _Piece(exchange, streams, writer, upload.length - offset, checksum).take()
        upload = await streams.run(streams.file_threads, partial(staging.mark, upload, unverified=-1))
        return await _finish(exchange, streams, upload) if writer.position == upload.length else upload


async def _finish(exchange: Exchange, streams: Streams, upload: Upload) -> Upload:
    """Have the image inspected and accepted; one that is refused can never be, and is removed."""

    def accept() -> Upload:
        staging = streams.staging
        try:
            accepted = exchange.service.upload_image(
                upload.name, staging.path(upload), metadata=upload.metadata, declared=upload.declared
            )
        except RefusedError:
            staging.forget(upload)
            raise
        return staging.mark(upload, operation=accepted.operation["name"] if accepted.operation else "")

    return await exchange.call_within(streams.inspection_threads, accept)


class _Piece:
    """A request's body on its way into a file, for which there is room for so many bytes."""

    def __init__(
        self, exchange: Exchange, streams: Streams, writer: Writer, room: int, checksum: tus.Checksum | None
    ) -> None:
        self._exchange = exchange
        self._streams = streams
        self._writer = writer
        self._room = room
        self._checksum = checksum
        self._hasher = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._held: list[bytes] = []
        self._held_bytes = 0

    async def take(self) -> None:
        """Take it all. What has come is kept where it is cut; not where it is too much, or has another checksum."""
        try:
            await race(self._receive, self._hold)
            if self._checksum and self._hasher and self._hasher.digest() != self._checksum.digest:
                raise HttpError(460, "upload", "the checksum of the piece is another one", "send the piece again")
        except KCError as error:
            if self._hasher is not None or error.details.get("status") == TOO_LARGE:
                await self._run(self._writer.cut)
            else:
                await self._flush()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._run(self._writer.sync)

    async def _receive(self) -> None:
        request: Any = self._exchange.connection
        more = True
        while more:
            try:
                with anyio.fail_after(IDLE_SECONDS):
                    message = await request.receive()
            except TimeoutError:
                raise HttpError(408, "upload", f"nothing came for {IDLE_SECONDS:.0f} s", "go on", CLOSE) from None
            if message["type"] == "http.disconnect":
                raise HttpError(400, "upload", "the connection was cut", "go on")
            self._held.append(message.get("body", b""))
            self._held_bytes += len(self._held[-1])
            more = message.get("more_body", False)
            if self._held_bytes >= PIECE_BYTES or not more:
                await self._flush()

    async def _flush(self) -> None:
        pieces, size = self._held, self._held_bytes
        self._held, self._held_bytes = [], 0
        self._room -= size
        if self._room < 0:
            raise HttpError(TOO_LARGE, "upload", "more bytes than its length", "stop at Upload-Length", CLOSE)
        if size:
            await self._run(self._writer.write, pieces, self._hasher)

    async def _hold(self) -> None:
        """Raise what ends the upload before its end; the bytes that are still on their way are not read."""
        error = await hold(self._exchange) or UnreachableError("upload", "the server ends", "go on", transient=True)
        error.headers = CLOSE  # type: ignore[attr-defined]
        raise error

    async def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        await self._streams.run(self._streams.file_threads, function, *arguments)
