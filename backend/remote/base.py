"""What every part of the remote service stands on: requests about documents, and writes that may be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backend.errors import NotFoundError, RefusedError
from backend.model.kinds import NETWORK, VM, Kind, find_kind
from backend.remote import shapes
from backend.remote.options import RemoteOptions
from backend.remote.transport import ANSWER_SECONDS, Answer, Query, Transport, quote_name
from backend.service import Accepted
from backend.text import sanitise

Shape = TypeVar("Shape")
_LONGEST_KEY = 200
# What the interface takes in a header; of a longer key, or one with other signs, the digest goes.
_LONGEST_HEADER = 100
_OPERATED = (VM, NETWORK)
"""Kinds whose changes are operations; a key of what makes none would leave an entry among the operations."""


def path_of(kind: Kind, name: str = "", *rest: str) -> str:
    """Return the path of a kind, of an object of it, or of something of the object."""
    if not name and rest:
        raise NotFoundError(f"{kind.title} ''", f"no such {kind.title}", f"see kc {kind.command} list")
    parts = [quote_name(name), *rest] if name else list(rest)
    return "/".join(["", "v1", kind.collection, *parts])


class RemoteBase:
    """A connection to one remote KC."""

    def __init__(self, options: RemoteOptions) -> None:
        """Open nothing before it is needed."""
        self.transport = Transport(options)

    def ask(
        self,
        shape: Callable[[Any], Shape],
        path: str,
        query: Query | None = None,
        *,
        method: str = "GET",
        body: Any = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Shape:
        """Return what a shape makes of an answer."""
        answer = self.transport.call(method, path, query=query, body=body, seconds=seconds)
        return shapes.read(shape, answer.value)

    def write(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        if_version: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Accepted:
        """Make a change and return what it made."""
        given = dict(headers or {})
        if if_version is not None:
            given["If-Match"] = f'"{if_version}"'
        answer = self.transport.call(method, path, query=query, body=body, headers=given)
        return self.read_accepted(answer)

    @staticmethod
    def read_accepted(answer: Answer) -> Accepted:
        """Return what a change made."""
        return shapes.read(shapes.read_accepted, answer.value)

    @staticmethod
    def key_header(key: str, kind: Kind | None = None) -> dict[str, str]:
        """Return the header of an idempotency key, for what makes an operation on a `kind` one of our own if need be.

        A request with a key can be sent again where the connection broke before the answer.
        """
        if not key and kind in _OPERATED:
            import uuid  # noqa: PLC0415 - lists write nothing

            key = str(uuid.uuid4())
        return {"Idempotency-Key": _fit_key(key)} if key else {}

    def close(self) -> None:
        """End every connection; operations go on where they are."""
        self.transport.close()


def _fit_key(key: str) -> str:
    """Return a key as a header can carry it; raise RefusedError for one that no KC takes."""
    if not key.isprintable() or len(key) > _LONGEST_KEY:
        shown, why = sanitise(key, 40), f"it is not 1 to {_LONGEST_KEY} printable characters"
        raise RefusedError(f"idempotency key {shown!r}", why, "take a uuid")
    if key.isascii() and " " not in key and len(key) <= _LONGEST_HEADER:
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def kind_of(word: str, name: str) -> Kind:
    """Return a kind; raise NotFoundError for an unknown one, or for no name."""
    kind = find_kind(word)
    if not name:
        raise NotFoundError(f"{kind.title} ''", f"no such {kind.title}", f"see kc {kind.command} list")
    return kind
