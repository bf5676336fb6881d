"""Waiting for operations: progress, time limits, ctrl-c, and what came of each."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

from backend.errors import ConflictError, FailedError, KCError, TimedOutError, from_problem
from backend.model.documents import Document
from backend.service import Accepted
from kc_tui.cli.progress import ProgressLine
from kc_tui.cli.session import Session

READY_SECONDS = 600.0


class Interrupted(KeyboardInterrupt):
    """The command is to end by a signal (`signal_number`); what it waits for goes on without it."""

    def __init__(self, signal_number: int) -> None:
        """Keep the signal's number."""
        super().__init__()
        self.signal_number = signal_number


class Outcome(NamedTuple):
    """What came of one change: the document as it was accepted, and the error that its operation ended with."""

    document: Document
    error: KCError | None


def _leave(signal_number: int, _frame: FrameType | None) -> None:
    raise Interrupted(signal_number)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Turn HUP and TERM into Interrupted inside the block, so that what must be put back is put back."""
    previous = {number: signal.signal(number, _leave) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def judge(operation: Document) -> KCError | None:
    """Return the error that an ended operation ended with, or None."""
    status = operation.get("status", {})
    state = status.get("state")
    target = operation.get("spec", {}).get("target", {})
    what = f"{target.get('kind', '')} {target.get('name', '')}"
    name = operation.get("name", "")
    if state == "succeeded":
        return None
    if state == "cancelled":
        return FailedError(what, "cancelled; what was done is undone", operation=name)
    if not status.get("error"):
        return FailedError(what, f"{name} ended as {state}", f"see kc op show {name}", operation=name)
    error = from_problem({**status["error"], "operation": name})
    if status.get("undoError"):
        undo = from_problem(status["undoError"])
        error.why = f"{error.why}; undoing it failed too: {undo.why}"
        error.hint = f"see kc op show {name}"
    return error


class Follower:
    """Waits for what a command began.

    The first ctrl-c cancels the operations and waits for their undo, the second leaves them to go on; HUP and TERM
    leave them at once. `timeout` (seconds) is for all of them together.
    """

    def __init__(self, session: Session, *, timeout: float | None = None) -> None:
        """Start the clock."""
        self.session = session
        self.progress = ProgressLine(quiet=session.quiet)
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._cancelled = False

    def remaining(self) -> float | None:
        """Return the seconds that are left, or None where there is no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def follow(self, accepted: Sequence[Accepted]) -> list[Outcome]:
        """Wait until every operation ended and return what came of each, in order.

        Raises TimedOutError, and KeyboardInterrupt after a ctrl-c once the undo has ended.
        """
        running = [entry.operation["name"] for entry in accepted if entry.operation is not None]
        if not self.session.waits:
            self.session.goes_on = bool(running)
            for name in running:
                self.session.note(f"{name} goes on; see kc op show {name}")
            return [Outcome(entry.document, None) for entry in accepted]
        # Whatever ends the wait but the operations themselves, and be it that nobody reads what is said of them.
        goes_on, self.session.goes_on = self.session.goes_on, True
        try:
            with leaving_on_signals():
                outcomes = [self._follow_one(entry, running) for entry in accepted]
        except TimedOutError as error:
            raise self._reword(error) from error
        finally:
            self.progress.clear()
        self.session.goes_on = goes_on
        if self._cancelled:
            self._tell_undone(outcomes)
            raise KeyboardInterrupt
        return outcomes

    def _follow_one(self, entry: Accepted, running: list[str]) -> Outcome:
        if entry.operation is None:
            return Outcome(entry.document, None)
        name: str = entry.operation["name"]
        while True:
            try:
                operation = self.session.service.wait(name, timeout=self.remaining(), progress=self.progress.show)
            except Interrupted:
                raise
            except KeyboardInterrupt:
                self._handle_ctrl_c(running)
            except RuntimeError as error:
                # A ctrl-c that meets a condition taking its lock back ends in a complaint about that lock.
                if type(error.__context__) is not KeyboardInterrupt:
                    raise
                self._handle_ctrl_c(running)
            except TimedOutError:
                raise
            except KCError as error:
                return Outcome(entry.document, error)
            else:
                running.remove(name)
                return Outcome(entry.document, judge(operation))

    def _handle_ctrl_c(self, running: Sequence[str]) -> None:
        """Cancel what still runs; at the second time leave it, by raising KeyboardInterrupt."""
        self.progress.clear()
        names = ", ".join(running)
        if self._cancelled:
            self.session.note(f"left; {names} goes on in the background, see kc op list")
            raise KeyboardInterrupt
        self._cancelled = True
        self.session.note(f"cancelling {names}; ctrl-c again leaves it to the background")
        for name in running:
            with suppress(ConflictError):  # it has ended by itself
                self.session.service.cancel(name)

    def _tell_undone(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            done = "done before it could be cancelled" if outcome.error is None else outcome.error.why
            self.session.note(f"{outcome.document['kind']} {outcome.document['name']}: {done}")

    def _reword(self, error: TimedOutError) -> TimedOutError:
        return TimedOutError(error.what, f"not ended after {self._timeout:g} s", error.hint, **error.details)

    def conclude(self, outcomes: Sequence[Outcome], state: str) -> tuple[list[Document], list[KCError]]:
        """Return VMs as they are at the end, waited for until they are `ready` where asked, and all that failed.

        Without waiting, they are as they were accepted.
        """
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        good = [outcome.document for outcome in outcomes if outcome.error is None]
        if not self.session.waits:
            return good, errors
        documents = []
        for document in good:
            try:
                documents.append(
                    self._wait_ready(document["name"])
                    if state == "ready"
                    else self.session.service.get(document["kind"], document["name"])
                )
            except KCError as error:
                errors.append(error)
        return documents, errors

    def _wait_ready(self, name: str) -> Document:
        left = self.remaining()
        try:
            with leaving_on_signals():
                return self.session.service.wait_until(
                    name, "ready", timeout=READY_SECONDS if left is None else left, progress=self.progress.show
                )
        except KeyboardInterrupt:
            self.progress.clear()
            self.session.note(f"VM {name} goes on without being waited for; see kc vm show {name}")
            raise
        finally:
            self.progress.clear()
