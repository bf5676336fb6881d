"""A visitor's right to be here: decided at the beginning, again while it lasts, and the end of the session with it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from backend.errors import DeniedError, KCError, UnreachableError
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.auth.chain import Chain
    from backend.auth.protocol import AuthRequest, Decision

WHAT: Final = "SSH console"
LOOK_SECONDS: Final = 1.0
"""How often it is looked whether the line is still there."""
LEAST_SECONDS: Final = 5.0
MOST_SECONDS: Final = 30.0
"""Between these a decision is made again, however long it says that it holds."""
END_SECONDS: Final = 10.0
"""How long a session may take to end in order."""
_ANSWER_SECONDS: Final = 20.0


class Lease:
    """Asks a chain from a thread of its own, whose event loop is the chain's; made by `begin`.

    `reason` says why it was taken away, empty while it holds. It ends the process by SIGTERM, as an operator would, so
    that whatever runs has its own way to end in order; and by force where that takes too long.
    """

    def __init__(self, open_chain: Callable[[], Chain], request: AuthRequest) -> None:
        """Begin the thread; `open_chain` is called in it."""
        self.reason = ""
        self.request_id = request.request_id
        self._open = open_chain
        self._request = request
        self._loop = asyncio.new_event_loop()
        self._ending = threading.Event()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kc-lease", daemon=True)
        self._thread.start()
        self._chain: Chain | None = None

    def begin(self) -> Decision:
        """Return the decision that lets somebody in; raise DeniedError, or UnreachableError where it cannot be told."""
        decision = self._ask(self._request)
        refusal = find_refusal(decision)
        if refusal is not None:
            raise refusal
        return decision

    def hold(self, decision: Decision, renewed: Callable[[Decision], object], line: int | None) -> None:
        """Decide again from now on, and tell each new decision to `renewed`.

        `line` is the file descriptor of a line without a terminal, of which nothing else tells when it drops.
        """
        holder = _Holder(self, decision, renewed, line)
        threading.Thread(target=holder.run, args=(self._ending,), name="kc-lease-holder", daemon=True).start()

    def renew(self) -> Decision:
        """Return what is decided now of one who was let in before; never raises."""
        from backend.auth.protocol import fail  # noqa: PLC0415 - imported by then

        try:
            return self._ask(replace(self._request, phase="renew"))
        except KCError as error:
            return fail(str(error))

    def end(self, reason: str, number: int = signal.SIGTERM) -> None:
        """End this process, in order if it can."""
        self.reason = reason
        os.kill(os.getpid(), number)
        if not self._ending.wait(END_SECONDS):
            os._exit(DeniedError.exit_code)

    def close(self) -> None:
        """Ask no more; a second call does nothing."""
        with self._closing:
            if self._ending.is_set():
                return
            self._ending.set()
        if self._chain is not None:
            with suppress(TimeoutError):  # the process ends, and what hangs with it
                asyncio.run_coroutine_threadsafe(self._chain.close(), self._loop).result(_ANSWER_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def _ask(self, request: AuthRequest) -> Decision:
        async def ask() -> Decision:
            if self._chain is None:
                self._chain = self._open()
            return await self._chain.decide(request)

        try:
            return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(_ANSWER_SECONDS)
        except TimeoutError as error:
            raise UnreachableError(WHAT, "nobody answers whether you may come in", "try again") from error


class _Holder:
    """Looks after one lease, in a thread."""

    def __init__(
        self, lease: Lease, decision: Decision, renewed: Callable[[Decision], object], line: int | None
    ) -> None:
        self._lease = lease
        self._decision = decision
        self._renewed = renewed
        self._line = line
        self._due = time.monotonic() + find_pause(decision)

    def run(self, ending: threading.Event) -> None:
        """Look until the session ends, which it does where nobody looks any more."""
        try:
            self._look(ending)
        except BaseException:
            if ending.is_set():  # what it looks at is being closed
                return
            self._lease.end("it cannot be told whether you may stay")
            raise

    def _look(self, ending: threading.Event) -> None:
        while not ending.wait(LOOK_SECONDS):
            if self._line is not None and has_dropped(self._line):
                self._lease.end("the line is gone", signal.SIGHUP)
                return
            if time.monotonic() >= self._due and not self._renew():
                return

    def _renew(self) -> bool:
        decision = self._lease.renew()
        refusal = find_refusal(decision)
        if refusal is not None or decision.subject != self._decision.subject:
            self._lease.end(refusal.why if refusal is not None else "the key is somebody else's by now")
            return False
        self._renewed(decision)
        self._due = time.monotonic() + find_pause(decision)
        return True


def find_pause(decision: Decision) -> float:
    """Return the seconds after which a decision is made again."""
    pause = min(max(decision.revalidate_after, LEAST_SECONDS), MOST_SECONDS)
    return min(pause, max(decision.expires_at - time.time(), 0.0)) if decision.expires_at else pause


def find_refusal(decision: Decision) -> KCError | None:
    """Return what somebody is told who may not come in, None for who may; more is in the audit trail."""
    hint = "ask whoever runs this KC"
    reason = sanitise(decision.reason, 200)
    if decision.outcome == "error":
        return UnreachableError(WHAT, reason or "it cannot be decided now", "try again in a moment")
    if not decision.allowed:
        return DeniedError(WHAT, reason or "you may not come in", hint)
    if not decision.scopes:
        return DeniedError(WHAT, f"{sanitise(decision.subject, 100)} may do nothing here", hint)
    return None


def has_dropped(descriptor: int) -> bool:
    """Return whether nobody is at the other end of a pipe or socket any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _descriptor, event in poll.poll(0))
