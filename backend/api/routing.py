"""From a path to its operation: by whole segments, each decoded once, so that no spelling reaches another operation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.responses import Response

from backend.api.problems import HttpError
from backend.errors import NotFoundError, UsageError
from backend.text import sanitise

if TYPE_CHECKING:
    from starlette.types import Scope

    from backend.api.rows import Row

_MAXIMUM_PATH = 2048
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Found(NamedTuple):
    """An operation, and what stood in its path."""

    row: Row
    path: Mapping[str, str]


class _Node:
    """One segment of paths: those that come after it, by their text; `wild` is one that has any."""

    __slots__ = ("children", "rows", "wild", "word")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.wild: _Node | None = None
        self.word = ""
        self.rows: dict[str, Row] = {}


_Place = tuple[_Node, dict[str, str]]


class Router:
    """All operations, as a tree of segments."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._root = _Node()
        self._methods = {row.method for row in rows} | {"HEAD", "OPTIONS"}
        for row in rows:
            node = self._root
            for segment in row.path.strip("/").split("/"):
                node = _descend(node, segment)
            method = "SOCKET" if row.socket else row.method
            if method in node.rows:
                msg = f"two operations for {row.method} {row.path}"
                raise ValueError(msg)
            node.rows[method] = row

    def knows(self, method: str) -> bool:
        """Return whether any operation has the method."""
        return method in self._methods

    def find(self, scope: Scope) -> Found | Response:
        """Return the operation, or the answer to OPTIONS; raise NotFoundError, HttpError (405, 426), UsageError.

        HEAD is GET without its body, which the server leaves out.
        """
        places = [place for place in self._walk(_split(scope)) if place[0].rows]
        if not places:
            raise NotFoundError("path", "there is nothing", "see /openapi.json")
        if scope["type"] == "websocket":
            found = _choose(places, "SOCKET")
            if found is None:
                raise NotFoundError("path", "there is no WebSocket", "see /openapi.json")
            return found
        method = scope["method"]
        found = _choose(places, method) or (_choose(places, "GET") if method == "HEAD" else None)
        if found is not None:
            return found
        if method in ("GET", "HEAD") and _choose(places, "SOCKET"):
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            raise HttpError(426, "request", "a WebSocket is spoken here", "upgrade the connection", headers)
        allowed = {"Allow": ", ".join(_list_methods(places[:1]))}
        if method == "OPTIONS":
            return Response(status_code=204, headers=allowed)
        raise HttpError(405, "request", f"no {sanitise(method, 20)} here", f"known are {allowed['Allow']}", allowed)

    def _walk(self, segments: Sequence[str]) -> list[_Place]:
        """Return where a path leads, the plainest first: an object may have the name of a word beside it."""
        places: list[_Place] = [(self._root, {})]
        for segment in segments:
            following: list[_Place] = []
            for node, path in places:
                if segment in node.children:
                    following.append((node.children[segment], path))
                if node.wild is not None and segment not in ("", ".", ".."):
                    following.append((node.wild, {**path, node.wild.word: segment}))
            places = following
        return places


def _choose(places: Sequence[_Place], method: str) -> Found | None:
    return next((Found(node.rows[method], path) for node, path in places if method in node.rows), None)


def _descend(node: _Node, segment: str) -> _Node:
    if not segment.startswith("{"):
        return node.children.setdefault(segment, _Node())
    node.wild = node.wild or _Node()
    node.wild.word = segment.strip("{}")
    return node.wild


def _list_methods(places: Sequence[_Place]) -> list[str]:
    methods = {"GET" if method == "SOCKET" else method for node, _ in places for method in node.rows} | {"OPTIONS"}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _split(scope: Scope) -> list[str]:
    """Return the segments of a path as it was sent, decoded after they were parted: %2F is no slash, %2E%2E no step.

    Raises UsageError for a path that is too long or not UTF-8 (RFC 3986).
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(raw) > _MAXIMUM_PATH:
        raise HttpError(414, "path", "it is too long", f"{_MAXIMUM_PATH} bytes at most")
    if b"%" not in raw and raw.isascii():
        return raw[1:].decode("ascii").split("/")
    try:
        segments = [unquote_to_bytes(segment).decode("utf-8") for segment in raw.decode("ascii")[1:].split("/")]
    except ValueError:
        segments = []
    if not segments or _BAD_ESCAPE.search(raw):
        raise UsageError("path", "it is no text in UTF-8", "see /openapi.json")
    return segments
