"""The chain of authenticators: who is asked in which order, and what their answers come to.

Each is asked whether the credential is of its kind, and sees it only if so. `allow`, `deny` and `challenge` end the
chain, `abstain` goes on, and where all did the answer is a challenge. Whatever fails, or takes too long, is an `error`
that ends it too: nobody gets in because somebody else did not answer.

An answer that refuses a credential comes no sooner than `FAILURE_SECONDS` after the question, at no cost of CPU, and
says no more than that it was refused: unknown users, wrong passwords and wrong codes look alike, whatever was asked
to find out. KC's own tokens are exempt, of which there are too many (2^256) to try, and so is a missing credential.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from backend.auth.cache import DecisionCache
from backend.auth.claims import MAXIMUM_CREDENTIAL, is_own_token
from backend.auth.links import Lineup
from backend.auth.protocol import AuthRequest, Decision, fail
from backend.auth.verdicts import settle
from backend.errors import KCError
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.audit import AuditTrail

CHAIN_SECONDS: Final = 5.0
FAILURE_SECONDS: Final = 0.5
"""More than bcrypt of cost 12 takes (0.28 s), with room for a machine that is busy."""
REFRESH_SECONDS: Final = 0.5
"""How seldom it is looked whether something was revoked or changed."""
_LOOK_SECONDS = 1.0
_STALE_SECONDS = 5.0
"""How long ago that may have been for a kept decision to count."""
_THREADS = 4
_REFUSED = "the credential is not accepted"
_log = logging.getLogger("kc.auth")
Result = TypeVar("Result")


class Look(NamedTuple):
    """What has happened since the last look: other settings, or something that was let in before is so no more."""

    settings: bool = False
    revoked: bool = False


class Source(Protocol):
    """Where the authenticators come from, and where it is seen that they are to be others; its calls block."""

    def look(self) -> Look:
        """Return what has happened; raise KCError where it cannot be told."""

    def build(self) -> Lineup:
        """Return the authenticators that the settings ask for now; raise KCError for bad settings."""


class Entry(NamedTuple):
    """One authenticator, as `kc auth list` shows it; `health` is empty where it answers."""

    name: str
    type: str
    distribution: str
    version: str
    health: str


class Answer(NamedTuple):
    """What one authenticator said; `decision` is None where the credential was not of its kind."""

    name: str
    type: str
    decision: Decision | None


class Explanation(NamedTuple):
    """A decision and how it came about; authenticators after the one that ended the chain have no answer."""

    decision: Decision
    answers: tuple[Answer, ...]


class Chain:
    """Decides requests; of one event loop, but for the properties and `invalidate`'s effect, which any may read."""

    def __init__(
        self,
        lineup: Lineup,
        *,
        audit: AuditTrail | None = None,
        source: Source | None = None,
        failure_seconds: float = FAILURE_SECONDS,
    ) -> None:
        self.fault = ""
        """What is wrong with settings that were changed, while those before them are still in force."""
        self._lineup = lineup
        self._audit = audit
        self._source = source
        self._failure_seconds = failure_seconds
        self._cache = DecisionCache()
        self._pool = ThreadPoolExecutor(_THREADS, "kc-auth")
        self._looking: asyncio.Task[None] | None = None
        self._look_began = -_STALE_SECONDS
        self._look_ended = -_STALE_SECONDS

    @property
    def generation(self) -> int:
        """A number that rises whenever a decision made before may not hold any more."""
        return self._cache.generation

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The authenticators in their order, with the health that was seen last."""
        return tuple(Entry(link.name, *link.origin, link.health) for link in self._lineup.links)

    async def decide(self, request: AuthRequest) -> Decision:
        """Return the final decision on a request, audited; on `allow` it has scopes, on all else a status."""
        return (await self._judge(request, "decision")).decision

    async def explain(self, request: AuthRequest) -> Explanation:
        """Return the decision on a request, and what each authenticator said; as true, late and audited as another."""
        return await self._judge(request, "explanation")

    async def refresh(self) -> int:
        """Take up what was changed or revoked elsewhere, and return the generation; cheap enough for every second."""
        if self._source is None:
            return self.generation
        now = time.monotonic()
        if (self._looking is None or self._looking.done()) and now - self._look_began >= REFRESH_SECONDS:
            self._look_began = now
            self._looking = asyncio.ensure_future(self._look(self._source))
        if self._looking is not None and not self._looking.done():
            # A store that hangs must not hold up every request for as long.
            await asyncio.wait({self._looking}, timeout=max(0.0, self._look_began + _LOOK_SECONDS - now))
        return self.generation

    def invalidate(self) -> None:
        """Have no earlier decision count any more; for whoever revokes something in this process."""
        self._cache.invalidate()

    async def check_health(self) -> tuple[Entry, ...]:
        """Return the entries with the health of this moment."""
        with self._lineup as lineup:
            await asyncio.gather(*(link.check_health() for link in lineup.links))
        return self.entries

    async def close(self) -> None:
        """Let go of everything; a second call does nothing."""
        if self._looking is not None:
            self._looking.cancel()
        await self._cache.close()
        await self._lineup.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _judge(self, request: AuthRequest, event: str) -> Explanation:
        began = time.monotonic()
        await self.refresh()
        answers: list[Answer] = []
        lineup = self._lineup
        with lineup:
            decision = settle(await self._walk(lineup, request, answers), lineup.grants)
        if self._audit is not None:
            # Before it is padded: who leaves early has been seen all the same. Nothing waits for the disk here: what is
            # changed by way of a decision is on it before it happens (`backend.audit`).
            self._audit.record(_describe(request, decision, event), durable=False)
        if lineup.is_done:
            await lineup.close()
        if not decision.allowed and request.credential and not is_own_token(request):
            if decision.outcome == "challenge":
                decision = replace(decision, reason=_REFUSED)
            await asyncio.sleep(began + self._failure_seconds - time.monotonic())
        return Explanation(decision, tuple(answers))

    async def _walk(self, lineup: Lineup, request: AuthRequest, answers: list[Answer]) -> Decision:
        if len(request.credential) > MAXIMUM_CREDENTIAL:
            reason = f"the credential is longer than {MAXIMUM_CREDENTIAL} bytes"
            return Decision("challenge", challenges=_list_challenges(lineup), reason=reason)
        is_fresh = self._source is None or time.monotonic() - self._look_ended < _STALE_SECONDS
        cache = self._cache if is_fresh else None
        offered: list[str] = list(_list_challenges(lineup))
        try:
            async with asyncio.timeout(max(CHAIN_SECONDS, *(link.timeout for link in lineup.links), 0.0)):
                for link in lineup.links:
                    decision = await link.ask(request, lineup.header, cache)
                    answers.append(Answer(link.name, link.origin.type, decision))
                    if decision is None:
                        continue
                    offered += decision.challenges
                    if decision.outcome != "abstain":
                        return replace(decision, authenticator=link.name, challenges=tuple(offered))
        except TimeoutError:
            return fail("the chain took too long")
        reason = "no authenticator knows the credential" if request.credential else "a credential is needed"
        return Decision("challenge", challenges=tuple(offered), reason=reason)

    async def _look(self, source: Source) -> None:
        try:
            seen = await self._run(source.look)
        except KCError as error:
            _log.warning("it cannot be told what was revoked: %s", sanitise(error))
            return
        if seen.settings:
            await self._reload(source)
        if seen.revoked:
            # Also where the settings are not taken: it is told this once.
            self.invalidate()
        self._look_ended = time.monotonic()

    async def _reload(self, source: Source) -> None:
        try:
            lineup = await self._run(source.build)
        except KCError as error:
            self.fault = sanitise(error)
            _log.error("the settings were changed, and are not taken: %s", self.fault)
            return
        before, self._lineup, self.fault = self._lineup, lineup, ""
        self.invalidate()
        before.retire()
        if before.is_done:
            await before.close()
        _log.info("settings of authenticators read again: %s", ", ".join(link.name for link in lineup.links))

    async def _run(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)


def _list_challenges(lineup: Lineup) -> tuple[str, ...]:
    return tuple(challenge for link in lineup.links for challenge in link.challenges)


def _describe(request: AuthRequest, decision: Decision, event: str) -> dict[str, str]:
    """Return the entry of the audit trail, which adds the time, and bounds and sanitises what is in it."""
    client, resource = request.client, request.resource
    entry = {
        "event": event,
        "requestId": request.request_id,
        "subject": decision.subject,
        "authenticator": decision.authenticator,
        "outcome": decision.outcome,
        "action": request.action,
        "kind": resource.kind if resource else "",
        "name": resource.name if resource else "",
        "uid": resource.uid if resource else "",
        "transport": client.transport,
        "client": client.address or (f"uid:{client.peer.uid}" if client.peer else ""),
        "reason": decision.reason,
    }
    more = {
        "fingerprint": client.ssh_fingerprint or client.tls_fingerprint,
        "token": decision.token,
        "detail": decision.detail,
    }
    return entry | {key: value for key, value in more.items() if value}
