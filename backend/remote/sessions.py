"""Logging in and out: a credential is tried before it is kept, and may be changed for a session of a few hours."""

from __future__ import annotations

import base64
from typing import NamedTuple

from backend.remote import shapes
from backend.remote.options import RemoteOptions
from backend.remote.service import RemoteService
from backend.service import Access

SESSION_PREFIX = "Bearer kcs_"


class Grant(NamedTuple):
    """A session: the header's value that carries it, and when it ends (RFC 3339)."""

    value: str
    expires_at: str

    def __repr__(self) -> str:
        """Say when it ends, and nothing that is secret."""
        return f"Grant({self.expires_at!r})"


def make_basic(user: str, password: str) -> str:
    """Return the header's value for a user and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def make_bearer(token: str) -> str:
    """Return the header's value for a token (RFC 6750)."""
    return f"Bearer {token}"


def look_at_session(options: RemoteOptions, value: str) -> Access:
    """Return who a credential makes one; raise DeniedError for one that does not hold."""
    service = RemoteService(options._replace(find_credential=lambda: value))
    try:
        return service.access()
    finally:
        service.close()


def open_session(options: RemoteOptions, value: str) -> Grant:
    """Change a credential for a session's token; raise DeniedError for one that does not hold."""
    service = RemoteService(options._replace(find_credential=lambda: value))
    try:
        answer = service.ask(dict, "/v1/session", method="POST", body={})
    finally:
        service.close()
    token = shapes.read(str, answer.get("token"))
    return Grant(make_bearer(token), str(answer.get("expiresAt") or ""))


def end_session(options: RemoteOptions, value: str) -> None:
    """Have a session's token hold no more."""
    service = RemoteService(options._replace(find_credential=lambda: value))
    try:
        service.transport.call("DELETE", "/v1/session")
    finally:
        service.close()
