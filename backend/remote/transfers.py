"""A whole store over HTTP, one record a line, and preparations that tell how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from backend.model.documents import Document
from backend.remote.answers import LineLostError, decode, make_error
from backend.remote.events import read_events, split_lines
from backend.remote.transport import LONG_SECONDS, Transport
from backend.text import sanitise

NDJSON = "application/x-ndjson"


def export(transport: Transport) -> Iterator[Document]:
    """Yield the records of a store as they come."""
    headers = {"Accept": NDJSON, "Accept-Encoding": "identity"}
    with transport.stream("GET", "/v1/export", headers=headers, seconds=LONG_SECONDS) as response:
        for line in split_lines(response.iter_raw()):
            if line:
                yield decode(line)


def load(transport: Transport, records: Iterable[Document]) -> int:
    """Send the records of a store as they come, and return how many entries were taken."""
    import msgspec  # noqa: PLC0415 - few commands send a store

    encode = msgspec.json.Encoder().encode
    lines = (encode(record) + b"\n" for record in records)
    answer = transport.call(
        "POST", "/v1/import", content=lines, headers={"Content-Type": NDJSON}, seconds=LONG_SECONDS
    )  # fmt: skip
    return int(answer.value["entries"])


def initialise(transport: Transport, report: Callable[[str], None]) -> list[str]:
    """Have the server make what a newcomer needs; return what it made."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
    with transport.stream("POST", "/v1/init", headers=headers, seconds=LONG_SECONDS) as response:
        for told in read_events(response.iter_raw()):
            if told is None:
                continue
            value: Any = told.value
            if told.type == "error":
                raise make_error(value)
            if told.type == "end":
                return [sanitise(entry, 200) for entry in value]
            report(sanitise(value, 400))
    raise LineLostError(transport.options.address.label, "it ended before it was done", "kc init again goes on")
