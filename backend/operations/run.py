"""One operation in the hands of this process: its steps, its journal, its end."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, KCError
from backend.model.documents import Document, format_time
from backend.model.kinds import OPERATION
from backend.operations import journal
from backend.operations.retrying import Attempts
from backend.operations.steps import Cancelled, Context, Plan, Step
from backend.operations.trash import discard

if TYPE_CHECKING:
    from backend.operations.runner import Runner

REPORT_SECONDS = 0.25


class Yielded(Exception):  # noqa: N818 - no error: the operation is left for later
    """This process goes on with the operation no further for now; it, or another one, does so later."""


class Run:
    """An operation whose lease this process holds under `fence`."""

    def __init__(self, runner: Runner, operation: Document, fence: int) -> None:
        self.runner = runner
        self.store = runner.store
        self.uid: str = operation["uid"]
        self.fence = fence
        self.operation = operation
        self.status: dict[str, Any] = dict(operation.get("status", {}))
        self.cancelled = threading.Event()
        self.lost = threading.Event()
        # Set with any of them, and when the process is about to end: ends a wait between two attempts.
        self.woken = threading.Event()
        self._written = 0.0

    def cancel(self) -> None:
        """Have the operation end and undo itself."""
        self.cancelled.set()
        self.woken.set()

    def lose(self) -> None:
        """Note that another process may have the operation; the next write tells."""
        self.lost.set()
        self.woken.set()

    def write(self) -> None:
        """Write the journal; raise ConflictError where another process has taken the operation over."""
        with self.store.transaction() as transaction:
            journal.check_fence(transaction, self.runner.owner, self.uid, self.fence)
            transaction.put_status(OPERATION.name, self.uid, self.status)
        self._written = time.monotonic()

    def clear_parking(self) -> None:
        """Forget that the operation waited for its host."""
        self.status.pop("parked", None)
        self.status.pop("retry", None)

    def report(self, entry: dict[str, Any], done: int, total: int) -> None:
        """Take a step's progress in bytes; written at most four times a second."""
        if self.cancelled.is_set() and self.status["state"] == "running":
            raise Cancelled
        if self.lost.is_set():
            raise ConflictError("operation", "another process has taken it over")
        entry["progress"] = {"done": done, "total": total, "unit": "bytes"}
        if time.monotonic() - self._written >= REPORT_SECONDS:
            self.status["percent"] = self._percent()
            self.write()

    def _percent(self) -> int:
        steps = self.status.get("steps", [])
        total = 0.0
        for entry in steps:
            progress = entry.get("progress", {})
            if entry["state"] == "done":
                total += 1
            elif progress.get("total"):
                total += progress["done"] / progress["total"]
        return int(100 * total / len(steps)) if steps else 0

    def perform(self, steps: tuple[Step, ...], key: str, context: Context) -> None:
        """Do the steps that the journal under `key` does not have as done."""
        entries = {entry["id"]: entry for entry in self.status.get(key, [])}
        self.status[key] = [
            entries.get(step.id, {"id": step.id, "title": step.title, "state": "pending"}) for step in steps
        ]
        for step, entry in zip(steps, self.status[key], strict=True):
            if entry["state"] != "done":
                self._do(step, entry, key, context)

    def _do(self, step: Step, entry: dict[str, Any], key: str, context: Context) -> None:
        """Do one step, again and again while what it fails of is transient."""
        attempts = Attempts()
        context.report = partial(self.report, entry)
        while True:
            self._check_going(key)
            entry.update(state="running", attempt=entry.get("attempt", 0) + 1, startedAt=format_time())
            entry.pop("progress", None)
            self.status.pop("retry", None)
            self.status["percent"] = self._percent()
            self.write()
            self.runner.trace("begun", step.id)
            try:
                step.run(context)
                break
            except KCError as error:
                delay = attempts.next_delay(error)
                if delay is None:
                    raise
                self._wait(entry, delay, error)
        self.runner.trace("worked", step.id)
        entry.update(state="done", endedAt=format_time())
        entry.pop("progress", None)
        # Whoever goes on after this process does not do the step again, and needs what it found.
        self.status["found"] = context.status
        self.status["percent"] = self._percent()
        self.write()
        self.runner.trace("passed", step.id)

    def _check_going(self, key: str) -> None:
        if self.cancelled.is_set() and key == "steps":
            raise Cancelled
        if self.runner.stopping.is_set():
            raise Yielded

    def _wait(self, entry: dict[str, Any], delay: float, error: KCError) -> None:
        """Let some time pass before the next attempt, and have the journal tell why and until when."""
        self.status["retry"] = {
            "attempt": entry["attempt"] + 1,
            "at": format_time(time.time() + delay),
            "why": error.why,
        }
        self.write()
        self.runner.trace("waiting", entry["id"])
        self.woken.wait(delay)
        # A cancel ends this wait alone: the waits of the undoing that follows last as long as they are to.
        if not self.lost.is_set() and not self.runner.stopping.is_set():
            self.woken.clear()

    def finish(self, state: str, plan: Plan, context: Context, *, undone: bool) -> None:
        """Write the end: journal, the target's status or its deletion, and the lease's removal, all in one."""
        target = context.target
        self.status.update(state=state, endedAt=format_time())
        for passing in ("found", "retry"):
            self.status.pop(passing, None)
        delete = undone and bool(plan.undo) if state != "succeeded" else plan.outcome == "delete"
        with self.store.transaction() as transaction:
            journal.check_fence(transaction, self.runner.owner, self.uid, self.fence)
            live = transaction.get(target["kind"], target["uid"])
            if live is not None and delete:
                parameters, by = self.operation["spec"]["parameters"], self.operation.get("updatedBy", "")
                until = parameters.get("until", "") if plan.outcome == "delete" else ""
                discard(transaction, live, by=by, message=parameters.get("message", ""), until=until)
            elif live is not None:
                transaction.put_status(target["kind"], target["uid"], self._describe_target(live, state, context))
            transaction.put_status(OPERATION.name, self.uid, self.status)
            transaction.put_lease(self.uid, None)

    def _describe_target(self, live: Document, state: str, context: Context) -> dict[str, Any]:
        """Return the status that the end leaves the target with: what the steps found, or what a person should see."""
        status = {key: value for key, value in live.get("status", {}).items() if key != "problem"}
        if state == "succeeded":
            return {**status, **context.status}
        operation_type = self.operation["spec"]["type"]
        why = f"{operation_type} was cancelled" if state == "cancelled" else self.status["error"]["detail"]
        problem = f"{operation_type}: {why}" if state == "failed" else why
        return {**status, **context.status, "problem": problem}
