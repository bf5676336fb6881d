"""KC's own tokens as an authenticator, and sessions.

    Authorization: Bearer kcg_… | kct_… | kcs_…         without the scheme too, and as user or password of Basic

Each use looks the document up, so a token that is deleted, by whichever process, is worth nothing from then on. That is
one read of the store; nothing is written. Whatever is wrong with a token that KC did not make, the answer is the same.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from backend.auth.caveats import Limits, apply, narrow
from backend.auth.claims import OWN_PREFIXES, is_own_token
from backend.auth.macaroon import Macaroon, is_genuine
from backend.auth.protocol import API_VERSION, EVERYTHING, AuthRequest, CacheScope, Decision, Scope, challenge, fail
from backend.auth.secrets import digest_of, find_root_key, make_token, read_macaroon, type_of, uid_of, uid_of_god
from backend.auth.tables import COMMON_SETTINGS, Table
from backend.errors import DeniedError, KCError, RefusedError
from backend.model.actions import PATTERNS
from backend.model.documents import API_VERSION as DOCUMENT_VERSION
from backend.model.documents import Document, format_time, is_readable, parse_time
from backend.model.kinds import TOKEN

if TYPE_CHECKING:
    from backend.auth.context import AuthContext
    from backend.auth.keys import MasterKey
    from backend.store.protocol import Store

SESSION_SECONDS: Final = 8 * 3600.0
CHALLENGE: Final = 'Bearer realm="KC"'
REVALIDATE_SECONDS: Final = 5.0
"""How long a stream may outlive the token that it was opened with."""
_INVALID: Final = f'{CHALLENGE}, error="invalid_token"'
_UNKNOWN: Final = "the token is not known, or was revoked"
_SWEPT_AT_ONCE: Final = 50
_parse_time = lru_cache(maxsize=1024)(parse_time)


class Tokens:
    """Answers for tokens that this KC has made; see the module."""

    api_version: ClassVar[int] = API_VERSION
    cache_scope: CacheScope = "none"
    challenges: ClassVar[tuple[str, ...]] = (CHALLENGE,)

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        table = Table(settings, "tokens")
        table.check_keys(COMMON_SETTINGS)
        self.name = table.text("name") or "tokens"
        self._store = context.store
        self._key = context.key
        # A file is read in a tenth of a millisecond, less than it takes to hand it to a thread; a cluster may hang.
        self._blocks = context.store.url.startswith("etcd:")

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether the credential begins as a token does."""
        return request.scheme in ("", "bearer", "basic") and is_own_token(request)

    async def decide(self, request: AuthRequest) -> Decision:
        """Return what the token may do, or a challenge."""
        try:
            if self._blocks:
                return await asyncio.to_thread(self._decide, request)
            return self._decide(request)
        except KCError as error:
            return fail(str(error))

    async def check_health(self) -> str:
        """Return why tokens cannot be looked up or verified."""
        try:
            await asyncio.to_thread(lambda: (self._store.revision(), self._key.derive("health", "")))
        except KCError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """Do nothing: store and key are others'."""

    def _decide(self, request: AuthRequest) -> Decision:
        token = _extract(request)
        if type_of(token) == "god":
            return self._decide_god(token)
        macaroon = read_macaroon(token)
        if macaroon is None:
            return challenge(_INVALID, _UNKNOWN, "it is written as no token")
        uid = uid_of(macaroon)
        document = self._find(uid)
        # As much work for a uid that there is not.
        genuine = is_genuine(macaroon, find_root_key(self._key, uid))
        if not genuine or document is None or document["spec"]["type"] != type_of(token):
            return challenge(_INVALID, _UNKNOWN, f"uid {uid}")
        return self._allow(request, document, macaroon)

    def _decide_god(self, token: str) -> Decision:
        # The checksum is a part of what the digest is of: one that is wrong is as unknown as any other.
        digest = digest_of(token)
        document = self._find(uid_of_god(token))
        kept = document["spec"]["digest"] if document is not None and document["spec"]["type"] == "god" else ""
        if document is None or not hmac.compare_digest(kept, digest):
            return challenge(_INVALID, _UNKNOWN, "no such god token")
        end = _find_end(document)
        if end and time.time() >= end:
            return _refuse(document, "it has expired")
        return _describe(document, EVERYTHING, end)

    def _allow(self, request: AuthRequest, document: Document, macaroon: Macaroon) -> Decision:
        """Return what a token that is ours is good for, here and now."""
        now, end = time.time(), _find_end(document)
        try:
            limits = apply(macaroon.caveats, request.client, now)
            scopes = _narrow(read_scopes(document), limits)
        except RefusedError as error:
            return _refuse(document, error.why)
        if end and now >= end:
            return _refuse(document, "it has expired")
        end = min(end or limits.expires_at, limits.expires_at or end)
        return replace(_describe(document, scopes, end), narrowed=bool(macaroon.caveats))

    def _find(self, uid: str) -> Document | None:
        document = self._store.get(TOKEN.name, uid)
        return document if document is not None and is_readable(document) else None


def read_scopes(document: Document) -> tuple[Scope, ...] | None:
    """Return what a token's document allows; None for a session whose subject's grants say it. Unknown actions go."""
    entries = document["spec"]["scopes"]
    if entries is None:
        return None
    scopes = [Scope(tuple(PATTERNS.intersection(entry["actions"])), entry["selector"]) for entry in entries]
    return tuple(scope for scope in scopes if scope.actions)


def mint_session(
    store: Store, key: MasterKey, decision: Decision, seconds: float = SESSION_SECONDS
) -> tuple[str, Document]:
    """Make a session for whom a decision allows, and return its secret and its document.

    Where KC's grants said what the subject may do, they say so again at each use; scopes that the authenticator gave
    are kept. It ends with the decision at the latest. Sessions that are over go. Raises DeniedError for whoever came
    with a token: a session would outlive its revocation.
    """
    if not decision.allowed or decision.token:
        raise DeniedError("session", "a token makes no session", "use the token itself, or log in with a password")
    scopes = None if decision.from_grants else decision.scopes
    now = time.time()
    end = min(now + seconds, decision.expires_at or now + seconds)
    uid = str(uuid.uuid4())
    at = format_time(now)
    body = {
        "apiVersion": DOCUMENT_VERSION, "kind": TOKEN.name, "name": f"session-{uid[:8]}{uid[9:13]}", "uid": uid,
        "metadata": {},
        "spec": {
            "type": "session",
            "scopes": None if scopes is None else [_to_json(scope) for scope in scopes],
            "expiresAt": format_time(end),
            "subject": decision.subject,
            "groups": list(decision.groups),
            "digest": "",
        },
        "createdAt": at, "updatedAt": at, "updatedBy": decision.subject,
    }  # fmt: skip
    secret = make_token(key, "session", uid)
    over = store.list_documents(TOKEN.name, where=_is_over(at), limit=_SWEPT_AT_ONCE).items
    with store.transaction() as transaction:
        for old in over:
            if transaction.get(TOKEN.name, old["uid"]) is not None:
                transaction.delete(TOKEN.name, old["uid"], by=decision.subject, message="expired")
        document = transaction.put(body, expect=0)
    return secret, document


def end_session(store: Store, uid: str, *, by: str) -> None:
    """Revoke a session, whose uid is `Decision.token`; one that has ended already stays so."""
    with store.transaction() as transaction:
        document = transaction.get(TOKEN.name, uid)
        if document is not None and document["spec"].get("type") == "session":
            transaction.delete(TOKEN.name, uid, by=by, message="logged out")


def _is_over(now: str) -> Any:
    from backend.model.selectors import parse  # noqa: PLC0415 - a token's use needs none

    return parse(f"spec.type=session,spec.expiresAt<{now}")


def _extract(request: AuthRequest) -> str:
    """Return the token in a credential that `accepts` takes, in whichever of the three places it is."""
    if request.scheme != "basic":
        return (request.parameters if request.scheme else request.credential).decode("latin-1")
    try:
        user, _, password = base64.b64decode(request.parameters, validate=True).partition(b":")
    except ValueError:
        return ""
    return (password if password.startswith(OWN_PREFIXES) else user).decode("latin-1")


def _narrow(scopes: tuple[Scope, ...] | None, limits: Limits) -> tuple[Scope, ...] | None:
    """Return what caveats leave of scopes; raise RefusedError for a session that is narrowed in what it may do."""
    if scopes is not None:
        return narrow(scopes, limits)
    if limits.actions is not None or limits.selectors:
        raise RefusedError("token", "a session is not narrowed in what it may do, only a token is")
    return None


def _refuse(document: Document, why: str) -> Decision:
    """Return what a token gets that is ours, and is not good for this."""
    return challenge(_INVALID, f"the token is refused: {why}", f"token {document['name']}")


def _to_json(scope: Scope) -> dict[str, Any]:
    return {"actions": list(scope.actions), "selector": scope.selector}


def _find_end(document: Document) -> float:
    """Return when a token ends, in Unix seconds; 0 for never."""
    text: str | None = document["spec"]["expiresAt"]
    return _parse_time(text) if text else 0.0


def _describe(document: Document, scopes: tuple[Scope, ...] | None, end: float) -> Decision:
    spec: dict[str, Any] = document["spec"]
    return Decision(
        "allow",
        subject=spec["subject"] if spec["type"] == "session" else f"token:{document['name']}",
        groups=tuple(spec["groups"]),
        scopes=scopes,
        expires_at=end,
        revalidate_after=REVALIDATE_SECONDS,
        detail=f"{spec['type']} token {document['name']}",
        token=document["uid"],
    )
