"""What a holder can do with a token alone, with neither service nor store: look at it, and narrow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.auth.caveats import build, read
from backend.auth.macaroon import attenuate, encode
from backend.auth.secrets import PREFIXES, has_checksum, read_macaroon, type_of, uid_of, uid_of_god
from backend.errors import RefusedError, UsageError

Entry = Sequence[Any]
"""A caveat: its tag and its values; see `backend.auth.caveats`."""
_RIGHTS = frozenset({"actions", "selector", "read-only"})


def check_caveat(tag: str, *values: Any) -> None:
    """Raise RefusedError for what is no caveat."""
    build(tag, *values)


def narrow_token(token: str, entries: Sequence[Entry]) -> str:
    """Return a token that holds only where these caveats hold too; raise RefusedError, UsageError."""
    kind = type_of(token)
    if kind == "god":
        raise UsageError("token", "a god token cannot be narrowed", "kc token create NAME --allow ACTION,…")
    found = read_macaroon(token)
    if found is None:
        raise RefusedError("token", "it is none, or not whole", "copy it whole; kc token create prints it")
    if kind == "session" and any(entry[0] in _RIGHTS for entry in entries):
        raise UsageError("token", "a session is not narrowed in what it may do", "make a token: kc token create")
    return PREFIXES[kind] + encode(attenuate(found, [build(*entry) for entry in entries]))


def inspect_token(token: str) -> dict[str, Any]:
    """Return a token's `type`, the `uid` of its document, and its `caveats`; raise RefusedError for what is none.

    A caveat that this KC does not know, and that makes the token worth nothing to it, is `["unknown", TEXT]`.
    """
    kind = type_of(token)
    if kind == "god":
        if not has_checksum(token):
            raise RefusedError("token", "its checksum is wrong", "it was not copied whole, or somebody changed it")
        return {"type": kind, "uid": uid_of_god(token), "caveats": []}
    found = read_macaroon(token)
    if found is None:
        raise RefusedError("token", "it is none, or not whole", "tokens begin with kcg_, kct_ or kcs_")
    return {"type": kind, "uid": uid_of(found), "caveats": [_read(caveat) for caveat in found.caveats]}


def _read(caveat: bytes) -> list[Any]:
    try:
        return list(read(caveat))
    except RefusedError:
        return ["unknown", caveat.decode("utf-8", "backslashreplace")]
