"""Tokens as documents: made with a secret that is told once, only ever narrowed, and gone where they are deleted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backend.auth.keys import open_master_key
from backend.auth.scopes import covers
from backend.auth.secrets import digest_of, make_god_token, make_token, uid_of_god
from backend.auth.tokens import read_scopes
from backend.errors import RefusedError, UsageError
from backend.model.documents import Document, parse_time
from backend.model.kinds import TOKEN
from backend.service import Accepted

if TYPE_CHECKING:
    from backend.local.home import Home

_SHOWN_ONCE = "it was made before under this key, and its secret was shown then; delete it and make another one"


def check_new(body: Document) -> None:
    """Raise KCErrors where a token cannot be made from a document that is valid."""
    what, spec = f"{TOKEN.title} {body['name']}", body["spec"]
    if spec["type"] == "session":
        raise UsageError(what, "a session is made by logging in", "kc login PROFILE")
    if spec["digest"]:
        raise RefusedError(what, "spec.digest: KC makes the secret, and knows its digest", "leave it out")
    if spec["expiresAt"] is not None and parse_time(spec["expiresAt"]) <= time.time():
        raise RefusedError(what, "spec.expiresAt: it has passed", "name a later time, or null for ever")


def create(service: Home, body: Document, key: str) -> Accepted:
    """Write a new token; its document has the secret as `token`, this once, and nothing of it is kept."""
    if body["spec"]["type"] == "god":
        secret = make_god_token()
        body = {**body, "uid": uid_of_god(secret), "spec": {**body["spec"], "digest": digest_of(secret)}}
    else:
        secret = make_token(open_master_key(service.settings), "limited", body["uid"])
    accepted = service.accept(body, "", {}, expect=0, key=key)
    return accepted._replace(document={**accepted.document, "token": secret})


def explain_repeat(accepted: Accepted) -> Accepted:
    """Return what asking again under the same key gives: the token without its secret, and why."""
    document = accepted.document
    if document["kind"] != TOKEN.name or "token" in document:
        return accepted
    status = {**document.get("status", {}), "warnings": [_SHOWN_ONCE]}
    return accepted._replace(document={**document, "status": status})


def check_narrower(live: Document, body: Document) -> None:
    """Raise RefusedError where a token would get more than it has: whoever holds it was not given that."""
    what, hint = f"{TOKEN.title} {live['name']}", "make another token"
    before, after = read_scopes(live), read_scopes(body)
    if live["spec"]["type"] == "session":
        if body["spec"] != live["spec"]:
            raise RefusedError(what, "spec: a session stays as it is", f"kc token delete {live['name']} ends it")
    elif before is not None and not covers(before, after or ()):
        raise RefusedError(what, "spec.scopes: they would allow more than before; a token is only narrowed", hint)
