"""Who acts in this thread: named in what is written, and in the audit trail.

Nothing needs to hand a subject down: a request sets it once, and threads that work for the request carry its context.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from backend.text import sanitise

_LONGEST_SUBJECT = 100


class Actor(NamedTuple):
    """Who asks: `subject` is a name, `request_id` joins what one request did, `via` is how it came (`tcp`, `ssh`…)."""

    subject: str
    request_id: str = ""
    via: str = "local"


_actor: ContextVar[Actor | None] = ContextVar("kc_actor", default=None)


def current_actor() -> Actor:
    """Return who acts; outside of any request that is the user of this process."""
    return _actor.get() or Actor(_name_user())


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Have what is called inside happen in somebody's name."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def _name_user() -> str:
    return sanitise(os.environ.get("KC_USER") or os.environ.get("USER") or _find_login(os.getuid()), _LONGEST_SUBJECT)


def _find_login(uid: int) -> str:
    import pwd  # noqa: PLC0415 - most environments say who it is

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as somebody whom its files do not know
        return f"uid:{uid}"
