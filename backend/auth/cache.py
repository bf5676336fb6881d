"""Decisions kept for a moment, so that a password's costly hash, or a far server, is not asked for each request.

What is kept is an `allow`, never a refusal and never a credential: the key is a hash of it that only this process can
make. Whatever revokes (a token deleted, a file changed, settings read again) raises the generation, and no decision
of an earlier one counts any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from backend.auth.protocol import AuthRequest, CacheScope, Decision

MAXIMUM_TTL: Final = 60.0
MAXIMUM_ENTRIES: Final = 10_000
_KEY_BYTES = 32


class _Entry(NamedTuple):
    decision: Decision
    ends: float


class DecisionCache:
    """A bounded memory of decisions, the least used going first; concurrent first requests ask once.

    Of one event loop: nothing here is locked.
    """

    def __init__(self, limit: int = MAXIMUM_ENTRIES, clock: Callable[[], float] = time.monotonic) -> None:
        self.generation = 1
        """Rises with everything that is revoked."""
        self._limit = limit
        self._clock = clock
        self._secret = os.urandom(_KEY_BYTES)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._flights: dict[tuple[bytes, int], asyncio.Task[Decision]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def make_key(self, authenticator: str, header: str, scope: CacheScope, request: AuthRequest) -> bytes:
        """Return the key of a request for one authenticator: of the credential, or of all that was asked."""
        parts = [authenticator.encode(), header.encode(), request.credential]
        if scope == "request":
            parts += _list_fields(request)
        digest = hashlib.blake2b(key=self._secret, digest_size=32, person=scope.encode())
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

    async def find_or_ask(self, key: bytes, ask: Callable[[], Awaitable[Decision]]) -> Decision:
        """Return the kept decision, or what `ask` gives, which is then kept if it may be.

        Of callers with one key at one time the first one asks and all get its answer, be it what it may; that one's
        leaving does not end the question.
        """
        if (kept := self._find(key)) is not None:
            return kept
        name = key, self.generation
        flight = self._flights.get(name)
        if flight is None:
            flight = asyncio.ensure_future(self._ask(key, self.generation, ask))
            self._flights[name] = flight
            flight.add_done_callback(lambda _: self._flights.pop(name, None))
        return await asyncio.shield(flight)

    def invalidate(self) -> None:
        """Have nothing count any more that was decided, or is being decided, before now."""
        self.generation += 1
        self._entries.clear()

    async def close(self) -> None:
        """Forget everything, and end what is being asked."""
        self._entries.clear()
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _ask(self, key: bytes, before: int, ask: Callable[[], Awaitable[Decision]]) -> Decision:
        decision = await ask()
        seconds = _ttl(decision)
        # What was revoked while it was asked may have been asked too early.
        if seconds > 0 and before == self.generation:
            self._entries[key] = _Entry(decision, self._clock() + seconds)
            self._entries.move_to_end(key)
            if len(self._entries) > self._limit:
                self._entries.popitem(last=False)
        return decision

    def _find(self, key: bytes) -> Decision | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.ends <= self._clock() or _has_expired(entry.decision):
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry.decision


def _ttl(decision: Decision) -> float:
    """Return for how many seconds a decision may be kept."""
    if not decision.allowed:
        return 0.0
    seconds = min(decision.ttl, MAXIMUM_TTL)
    return min(seconds, decision.expires_at - time.time()) if decision.expires_at else seconds


def _has_expired(decision: Decision) -> bool:
    return bool(decision.expires_at) and decision.expires_at <= time.time()


def _list_fields(request: AuthRequest) -> Iterable[bytes]:
    """Return all of a request that an authenticator may decide by, but for its id."""
    resource = request.resource
    fields = [
        request.action, request.method, request.path, request.query, request.host, request.phase, list(request.client),
        None if resource is None else list(resource),
    ]  # fmt: skip
    return [json.dumps(field, sort_keys=True, default=str).encode() for field in fields]
