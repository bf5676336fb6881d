"""One element of the chain: an authenticator within its limits, whose every failure is an answer of `error`."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Final, NamedTuple, Self

from backend.auth.cache import DecisionCache
from backend.auth.grants import NO_GRANTS, Grants
from backend.auth.protocol import Authenticator, AuthRequest, Decision, fail
from backend.text import sanitise

DEFAULT_TIMEOUT: Final = 2.0
MAXIMUM_TIMEOUT: Final = 10.0
DEFAULT_CONCURRENCY: Final = 16
_QUEUE_FACTOR = 8
"""How many more than run at once may wait for their turn; later ones are told at once that it is too much."""
_OUTCOMES = frozenset({"allow", "deny", "challenge", "abstain", "error"})
_log = logging.getLogger("kc.auth")


class Origin(NamedTuple):
    """Which program an authenticator is: its `type` in the settings, and the distribution that brought it."""

    type: str
    distribution: str = ""
    version: str = ""


class Link:
    """An authenticator in its place in the chain; `timeout` in seconds, `concurrency` the questions at one time."""

    def __init__(
        self,
        authenticator: Authenticator,
        name: str,
        origin: Origin,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> None:
        self.authenticator = authenticator
        self.name = name
        self.origin = origin
        self.timeout = timeout
        self.health = ""
        """Why it could not answer when it was asked last, empty where it could."""
        self._gate = asyncio.Semaphore(concurrency)
        self._most = concurrency * (1 + _QUEUE_FACTOR)
        self._asked = 0

    @property
    def challenges(self) -> tuple[str, ...]:
        """What asks for a credential of its kind; an authenticator may have `challenges`, and need not."""
        return tuple(getattr(self.authenticator, "challenges", ()))

    async def ask(self, request: AuthRequest, header: str, cache: DecisionCache | None) -> Decision | None:
        """Return its answer, kept in the cache if there is one; None where it does not claim the credential.

        Never raises. `header` is the name of the credential's header.
        """
        try:
            if not self.authenticator.accepts(request):
                return None
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises decides against the request
            return self._fail(_describe(error))
        scope = self.authenticator.cache_scope
        if cache is None or scope not in ("credential", "request"):
            return await self._ask(request)
        if not request.credential:
            # It was let in for something else of the request's, which others do not share.
            scope = "request"
        key = cache.make_key(self.name, header, scope, request)
        return await cache.find_or_ask(key, lambda: self._ask(request))

    async def check_health(self) -> str:
        """Return, and keep, why it cannot answer now; empty where it can."""
        try:
            async with asyncio.timeout(self.timeout):
                self.health = sanitise(await self.authenticator.check_health(), 300)
        except TimeoutError:
            self.health = f"no answer in {self.timeout:g} s"
        except Exception as error:  # noqa: BLE001 - as above
            self.health = _describe(error)
        return self.health

    async def close(self) -> None:
        """Let go of the authenticator."""
        try:
            async with asyncio.timeout(self.timeout):
                await self.authenticator.close()
        except Exception as error:  # noqa: BLE001 - as above; the others are to be closed all the same
            _log.warning("authenticator %s does not close: %s", self.name, _describe(error))

    async def _ask(self, request: AuthRequest) -> Decision:
        if self._asked >= self._most:
            return self._fail("too many are waiting for its answer")
        self._asked += 1
        try:
            async with asyncio.timeout(self.timeout), self._gate:
                answer: object = await self.authenticator.decide(request)
        except TimeoutError:
            return self._fail(f"no answer in {self.timeout:g} s")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._fail("it gave up by itself")
        except Exception as error:  # noqa: BLE001 - as above
            return self._fail(_describe(error))
        finally:
            self._asked -= 1
        if not isinstance(answer, Decision) or answer.outcome not in _OUTCOMES:
            return self._fail("its answer is no decision")
        self.health = sanitise(answer.detail or answer.reason, 300) if answer.outcome == "error" else ""
        return answer

    def _fail(self, detail: str) -> Decision:
        self.health = detail
        _log.warning("authenticator %s failed: %s", self.name, detail)
        return fail(detail)


class Lineup:
    """The links of one reading of the settings with the grants; closed when the last who asks it has its answer."""

    def __init__(self, links: tuple[Link, ...], grants: Grants = NO_GRANTS, header: str = "authorization") -> None:
        self.links = links
        self.grants = grants
        self.header = header
        self._users = 0
        self._retired = False

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1

    @property
    def is_done(self) -> bool:
        """Whether nobody asks it any more, and nobody will."""
        return self._retired and self._users == 0

    def retire(self) -> None:
        """Say that another one has taken its place."""
        self._retired = True

    async def close(self) -> None:
        """Close all authenticators."""
        for link in self.links:
            await link.close()


def _describe(error: Exception) -> str:
    """Return what was raised and where, but not its text: that may quote the credential."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return sanitise(f"{type(error).__name__}{place}", 300)
