"""The Basic scheme (RFC 7617): user and password, out of a header's bytes and into them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from backend.auth.claims import is_own_token
from backend.auth.protocol import AuthRequest, Decision, challenge
from backend.text import sanitise

CHALLENGE: Final = 'Basic realm="KC", charset="UTF-8"'
WRONG: Final = challenge(CHALLENGE, "wrong user or password")
"""The one answer to an unknown user, a wrong password, and what is no credential at all."""
UNKNOWN_USER: Final = Decision("abstain", challenges=WRONG.challenges, reason=WRONG.reason)
"""Leaves a user that is not known here to the next authenticator; without one it ends as `WRONG`."""
_LONGEST_USER: Final = 256
_LONGEST_PASSWORD: Final = 1024


@dataclass(frozen=True, slots=True)
class Basic:
    """A user, as text that is safe to show, and a password of at least one byte, none of them NUL."""

    user: str
    password: bytes = field(repr=False)


def is_basic(request: AuthRequest) -> bool:
    """Return whether a credential is a Basic one, and for others than KC's own tokens to see."""
    return request.scheme == "basic" and not is_own_token(request)


def read_basic(request: AuthRequest) -> Basic | None:
    """Return the user and password of a request; None where there is nothing that could be right."""
    if request.scheme != "basic":
        return None
    try:
        pair = base64.b64decode(request.parameters, validate=True)
        name, colon, password = pair.partition(b":")
        user = name.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not (colon and user and password) or b"\0" in pair:
        return None
    if len(name) > _LONGEST_USER or len(password) > _LONGEST_PASSWORD or sanitise(user) != user:
        return None
    return Basic(user, password)


def write_basic(user: str, password: bytes) -> bytes:
    """Return the value of the header for a user and a password."""
    return b"Basic " + base64.b64encode(user.encode() + b":" + password)
