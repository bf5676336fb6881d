"""Images on their way to a server: tus 1.0 (https://tus.io/protocols/resumable-upload), resumed where they were cut.

Where an upload stands is asked of the server; here is remembered only which one it was, so that the same file goes on
after this process was killed, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError, UsageError
from backend.model.documents import Document
from backend.model.kinds import IMAGE, OPERATION
from backend.paths import write_atomically
from backend.remote.answers import LineLostError
from backend.remote.transport import LONG_SECONDS, Answer, Transport, quote_name
from backend.service import Accepted
from backend.text import sanitise

VERSION = "1.0.0"
PART_BYTES = 64 << 20
"""How much goes in one request; the server keeps what it has of one that was cut."""
PATIENCE_SECONDS = 60.0
"""How long an upload goes on trying without getting a byte further."""
_PIECE_BYTES = 256 << 10
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_HEADERS = {"Tus-Resumable": VERSION}
# A request that took too long, another offset, an upload that is still being written to, a damaged piece.
_GOING_ON = (408, 409, 423, 460)
Sent = Callable[[int, int], None]


class Upload:
    """One file on its way; `metadata` and `declared` are what the image is said to be."""

    def __init__(
        self, transport: Transport, name: str, path: Path, *, metadata: Document, declared: dict[str, str], sent: Sent
    ) -> None:
        self._transport = transport
        self._name = name
        self._path = path
        self._fields = {"name": name, "metadata": json.dumps(metadata, ensure_ascii=False), **declared}
        self._sent = sent
        self._size = 0
        self._mark = ""
        self._note = path

    def run(self) -> Accepted:
        """Send what the server does not have yet, and return what it makes of the whole."""
        what = f"image file {sanitise(self._path, 200)}"
        try:
            file = self._path.open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(what, "no such file") from error
        except (OSError, ValueError) as error:
            why = f"cannot be read: {str(getattr(error, 'strerror', None) or error).lower()}"
            raise RefusedError(what, why) from error
        with file:
            if not self._path.is_file():
                raise RefusedError(what, "it is no regular file")
            status = os.fstat(file.fileno())
            self._size = status.st_size
            self._mark = f"{status.st_size} {status.st_mtime_ns}"
            self._note = self._find_note()
            return self._send_all(file, what)

    # --- which upload it is

    def _find_note(self) -> Path:
        """Return the file that remembers the upload of this very file, under this name, to this server."""
        asked = [self._transport.options.address.url, str(self._path.absolute()), self._mark, self._fields]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
        return self._transport.options.cache / "uploads" / digest[:32]

    def _find_upload(self) -> tuple[str, int]:
        """Return the path of the upload on the server, and how much of the file that has; begin one where none is."""
        with suppress(OSError, UnicodeDecodeError, NotFoundError):
            place = self._note.read_text("ascii").strip()
            return place, self._ask_offset(place)
        return self._begin(), 0

    def _begin(self) -> str:
        pairs = [
            f"{key} {base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}"
            for key, value in self._fields.items()
        ]
        headers = {**_HEADERS, "Upload-Length": str(self._size), "Upload-Metadata": ",".join(pairs)}
        answer = self._transport.call("POST", "/v1/uploads", headers=headers, content=b"")
        place = self._read_place(answer)
        write_atomically(self._note, place.encode("ascii"))
        return place

    def _read_place(self, answer: Answer) -> str:
        """Return where the upload is, as a path: whatever host the answer names, the bytes go to the one we asked."""
        path = urlsplit(answer.headers.get("location", "")).path
        prefix = self._transport.options.address.path
        path = path.removeprefix(prefix)
        if not path.startswith("/v1/uploads/") or not path.isascii():
            raise FailedError("upload", "the server does not say where it is", "see its log")
        return path

    def _ask_offset(self, place: str) -> int:
        try:
            answer = self._transport.call("HEAD", place, headers=_HEADERS)
        except ConflictError as error:
            raise NotFoundError("upload", "it is not there any more") from error
        return self._read_offset(answer)

    def _read_offset(self, answer: Answer) -> int:
        text = answer.headers.get("upload-offset", "")
        if not text.isdecimal() or int(text) > self._size:
            raise FailedError("upload", "the server does not say how much it has", "see its log")
        return int(text)

    # --- sending

    def _send_all(self, file: BinaryIO, what: str) -> Accepted:
        place, offset = self._find_upload()
        failures, furthest, moved_at = 0, offset, time.monotonic()
        self._sent(offset, self._size)
        while True:
            try:
                answer = self._send_part(file, place, offset, what)
                offset = self._read_offset(answer)
                if offset == self._size:
                    self._sent(offset, self._size)
                    return self._finish(answer)
            except KCError as error:
                if not _can_go_on(error):
                    self._forget()
                    raise
                if time.monotonic() - moved_at > PATIENCE_SECONDS:
                    raise
                time.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
                with suppress(LineLostError):
                    offset = self._ask_offset(place)
            if offset > furthest:
                failures, furthest, moved_at = 0, offset, time.monotonic()
            self._sent(offset, self._size)

    def _send_part(self, file: BinaryIO, place: str, offset: int, what: str) -> Answer:
        end = min(self._size, offset + PART_BYTES)
        headers = {
            **_HEADERS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(end - offset),
            "Upload-Offset": str(offset),
        }
        pieces = self._read_pieces(file, offset, end, what)
        return self._transport.call("PATCH", place, headers=headers, content=pieces, seconds=LONG_SECONDS)

    def _read_pieces(self, file: BinaryIO, offset: int, end: int, what: str) -> Iterator[bytes]:
        file.seek(offset)
        while offset < end:
            piece = file.read(min(_PIECE_BYTES, end - offset))
            status = os.fstat(file.fileno())
            if not piece or f"{status.st_size} {status.st_mtime_ns}" != self._mark:
                raise RefusedError(what, "it changes while it is read", "try again once nobody writes to it")
            offset += len(piece)
            yield piece
            self._sent(offset, self._size)

    def _finish(self, answer: Answer) -> Accepted:
        path = answer.headers.get("kc-operation", "")
        self._forget()
        operation = path.rpartition("/")[2]
        if not operation:
            raise FailedError("upload", "the server does not say what becomes of it", "see kc op list")
        document: Document = self._transport.call("GET", f"/v1/{IMAGE.collection}/{quote_name(self._name)}").value
        begun: Document = self._transport.call("GET", f"/v1/{OPERATION.collection}/{quote_name(operation)}").value
        return Accepted(document, begun)

    def _forget(self) -> None:
        self._note.unlink(missing_ok=True)


def _can_go_on(error: KCError) -> bool:
    """Return whether an upload may go on after an error: a cut, another place than was thought, another hand at it."""
    return error.is_transient or (isinstance(error, UsageError) and error.details.get("status") in _GOING_ON)


def upload_image(
    transport: Transport,
    name: str,
    path: Path,
    metadata: Document,
    declared: dict[str, str],
    sent: Callable[[int, int], Any] | None,
) -> Accepted:
    """Send an image to a server and return what it made of it; see the protocol."""
    tell: Sent = sent or (lambda _done, _whole: None)
    return Upload(transport, name, path, metadata=metadata, declared=declared, sent=tell).run()
