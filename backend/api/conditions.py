"""Preconditions (RFC 9110, 13): versions of documents as entity tags, and what a request makes of them."""

from __future__ import annotations

import re
from typing import NamedTuple

from backend.api.problems import HttpError
from backend.errors import ConflictError, KCError, UsageError

_TAG = re.compile(r'(W/)?"([^"\x00-\x20\x7f]*)"')
_LIST = re.compile(r'\s*(?:W/)?"[^"\x00-\x20\x7f]*"\s*(?:,\s*(?:W/)?"[^"\x00-\x20\x7f]*"\s*)*')
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
PRECONDITION_FAILED = 412


class Tags(NamedTuple):
    """What a header lists: `anything` is `*`; `strong` the versions, `weak` those of weak tags."""

    anything: bool = False
    strong: frozenset[int] = frozenset()
    weak: frozenset[int] = frozenset()

    def has(self, version: int) -> bool:
        """Return whether a version is listed, weakly or not (RFC 9110, 8.8.3.2)."""
        return self.anything or version in self.strong or version in self.weak


def read_tags(name: str, text: str) -> Tags | None:
    """Return what a header lists, None where there is none; raise UsageError for no such list.

    A tag that is no version of KC's is listed all the same: it is that of nothing.
    """
    if not text:
        return None
    if text.strip() == "*":
        return Tags(anything=True)
    if not _LIST.fullmatch(text):
        raise UsageError(name, "it is no list of entity tags", 'write it like "3"')
    strong: set[int] = set()
    weak: set[int] = set()
    for prefix, tag in _TAG.findall(text):
        if _VERSION.fullmatch(tag):
            (weak if prefix else strong).add(int(tag))
    return Tags(strong=frozenset(strong), weak=frozenset(weak))


def tag(version: int) -> str:
    """Return a version as an entity tag."""
    return f'"{version}"'


def fail(what: str, why: str) -> HttpError:
    """Return the error of a precondition that does not hold."""
    return HttpError(PRECONDITION_FAILED, what, why, "look at what there is now, and repeat the change")


def as_conditional(error: KCError, *, conditional: bool) -> KCError:
    """Return what is to be answered: a stale version is 412 where the request named one, else 409."""
    if conditional and isinstance(error, ConflictError) and error.details.get("reason") in ("version", "name"):
        error.details["status"] = PRECONDITION_FAILED
    return error
