"""One-time codes (TOTP, RFC 6238) as a Basic credential's password; with `all`, the second factor of another one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from backend.auth.basic import CHALLENGE, Basic, read_basic
from backend.auth.enrolment import DRIFT, Enrolments, is_code
from backend.auth.protocol import API_VERSION, AuthRequest, CacheScope, Decision, challenge, fail
from backend.auth.tables import COMMON_SETTINGS, Table
from backend.auth.workers import Workers
from backend.errors import KCError

if TYPE_CHECKING:
    from backend.auth.context import AuthContext

WRONG: Final = challenge(CHALLENGE, "wrong or used one-time code")
GUESSES: Final = 5
"""Wrong codes of one user's in a minute; the next one is not looked at, and were it right."""
ALL_GUESSES: Final = 100
"""The same of all users together."""
_MINUTE: Final = 60.0
_LONGEST_DRIFT: Final = 120.0
_THREADS: Final = 2
_WAITING: Final = 64
_PATIENCE: Final = 1.8


class Limiter:
    """Counts what went wrong within a minute, for each user and for all.

    In the memory of this process, of one event loop; what it holds is bounded by the number for all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guesses: deque[tuple[float, str]] = deque()

    def take(self, user: str) -> float:
        """Count a guess before it is looked at, and return 0; or the seconds after which there may be another one."""
        now = self._clock()
        while self._guesses and self._guesses[0][0] <= now - _MINUTE:
            self._guesses.popleft()
        own = [at for at, who in self._guesses if who == user]
        if len(own) >= GUESSES:
            return own[0] + _MINUTE - now
        if len(self._guesses) >= ALL_GUESSES:
            return self._guesses[0][0] + _MINUTE - now
        self._guesses.append((now, user))
        return 0.0

    def give_back(self, user: str) -> None:
        """Take a guess back that was none."""
        for index in range(len(self._guesses) - 1, -1, -1):
            if self._guesses[index][1] == user:
                del self._guesses[index]
                return


class Otp:
    """Setting: `drift`, the seconds that a clock may be off. Whom `kc auth otp enrol` has not enrolled has no code."""

    api_version: int = API_VERSION
    cache_scope: CacheScope = "none"
    challenges: tuple[str, ...] = (CHALLENGE,)

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Take the settings; raise RefusedError for bad ones."""
        table = Table(settings, f"auth.chain ({settings.get('name') or 'otp'})")
        table.check_keys(COMMON_SETTINGS | {"drift"})
        self.name = table.text("name") or "otp"
        self._drift = table.number("drift", DRIFT, 0, _LONGEST_DRIFT)
        self._enrolments = Enrolments(context.store, context.key)
        self._limiter = Limiter()
        self._workers = Workers(f"otp {self.name}", threads=_THREADS, waiting=_WAITING)
        self.clock: Callable[[], float] = time.time

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether the credential is a Basic one whose password is a code."""
        credential = read_basic(request)
        return credential is not None and is_code(credential.password)

    async def decide(self, request: AuthRequest) -> Decision:
        """Say who it is, once for each code; what cannot be written down is an error, and no wrong code."""
        credential = read_basic(request)
        if credential is None or not is_code(credential.password):
            return WRONG
        wait = self._limiter.take(credential.user)
        if wait:
            return Decision("deny", status=429, retry_after=wait, reason="too many wrong one-time codes")
        try:
            is_good = await self._workers.run(lambda: self._use(credential), _PATIENCE)
        except KCError as error:
            self._limiter.give_back(credential.user)
            return fail(str(error))
        if not is_good:
            return WRONG
        self._limiter.give_back(credential.user)
        return Decision("allow", subject=credential.user)

    async def check_health(self) -> str:
        """Return why enrolments cannot be read."""
        try:
            await self._workers.run(self._enrolments.check, _PATIENCE)
        except KCError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """Let go of the threads."""
        self._workers.close()

    def _use(self, credential: Basic) -> bool:
        code = credential.password.decode("ascii")
        return self._enrolments.use(credential.user, code, drift=self._drift, now=self.clock())
