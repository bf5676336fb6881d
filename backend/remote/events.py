"""Server-sent events, as the HTML standard has them (section 9.2.6): fields in lines, events between empty lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from backend.errors import FailedError
from backend.remote.answers import decode

MAXIMUM_BYTES = 16 << 20
"""What one event, or one line of an export, may have; a document has far less."""


class ServerEvent(NamedTuple):
    """One event; `id` is the last that the stream has given."""

    type: str
    data: bytes
    id: str

    @property
    def value(self) -> Any:
        """The JSON value of the data."""
        return decode(self.data)


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream without their ends; raise FailedError for one that does not end."""
    held = b""
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n") if b"\n" in piece else (held + piece,)
        for line in lines:
            yield line.removesuffix(b"\r")
        if len(held) > MAXIMUM_BYTES:
            raise FailedError("answer", "a line of it does not end", "see that KC answers there")
    if held:
        yield held


def read_events(pieces: Iterable[bytes]) -> Iterator[ServerEvent | None]:
    """Yield the events of a stream, and None for each comment: a sign that the line holds."""
    event_type, last_id = "", ""
    data: list[bytes] = []
    for line in split_lines(pieces):
        if not line:
            if data:
                yield ServerEvent(event_type or "message", b"\n".join(data), last_id)
            event_type, data = "", []
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            yield None
        elif name == b"event":
            event_type = value.decode("utf-8", "replace")
        elif name == b"data":
            data.append(value)
        elif name == b"id":
            last_id = value.decode("utf-8", "replace")
