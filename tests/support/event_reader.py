"""Server-sent events as a client reads them, each wait with an end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx


class Told(NamedTuple):
    """One event; a comment has the event `:`."""

    event: str
    data: Any
    identifier: str


class EventReader:
    """Reads the events of an answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()
        self.comments: list[str] = []

    def next(self, seconds: float = 10.0) -> Told:
        """Return the next event or comment; comments come each second, so that no wait is long."""
        ends = time.monotonic() + seconds
        fields: dict[str, str] = {}
        while time.monotonic() < ends:
            line = next(self._lines)
            if line.startswith(":"):
                return Told(":", line[1:].strip(), "")
            if not line and fields:
                return Told(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
        raise AssertionError("nothing came in time")

    def find(self, matches: Callable[[Told], bool], seconds: float = 10.0) -> Told:
        """Return the next event that matches."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            told = self.next(seconds)
            if told.event != ":" and matches(told):
                return told
        raise AssertionError("it never came")

    def gather_until(self, matches: Callable[[Told], bool], seconds: float = 10.0) -> list[Told]:
        """Return all events up to the one that matches, that one included."""
        gathered: list[Told] = []

        def keep(told: Told) -> bool:
            gathered.append(told)
            return matches(told)

        self.find(keep, seconds)
        return gathered


@contextmanager
def read_events(url: str, headers: dict[str, str], method: str = "GET", **more: Any) -> Iterator[EventReader]:
    """Open a stream of events."""
    with httpx.Client(timeout=10) as client, client.stream(method, url, headers=headers, **more) as response:
        if response.status_code != 200:
            response.read()
        yield EventReader(response)
