"""The runner: takes an operation's lease, does its steps, keeps its journal, undoes what failed.

It may be killed at any point: the next process that looks takes the lease over and repeats the step that was in doubt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from backend.errors import ConflictError, FailedError, KCError, UnreachableError
from backend.hypervisor.protocol import Hypervisor
from backend.model.documents import Document, format_time
from backend.model.kinds import OPERATION
from backend.operations import journal
from backend.operations.planning import plan_operation
from backend.operations.steps import Cancelled, Context, Plan, Step
from backend.operations.trash import discard
from backend.store.protocol import Store
from backend.text import sanitise

_log = logging.getLogger("kc.operations")
MAXIMUM_RUNNING = 4
RENEW_SECONDS = 5.0
REPORT_SECONDS = 0.25


class _Run:
    """One operation in the hands of this process."""

    def __init__(self, runner: Runner, operation: Document, fence: int) -> None:
        self.runner = runner
        self.store = runner.store
        self.uid: str = operation["uid"]
        self.fence = fence
        self.operation = operation
        self.status: dict[str, Any] = dict(operation.get("status", {}))
        self.cancelled = threading.Event()
        self.lost = threading.Event()
        self._written = 0.0

    def write(self) -> None:
        """Write the journal; raise ConflictError where another process has taken the operation over."""
        with self.store.transaction() as transaction:
            journal.check_fence(transaction, self.runner.owner, self.uid, self.fence)
            transaction.put_status(OPERATION.name, self.uid, self.status)
        self._written = time.monotonic()

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
            if entry["state"] == "done":
                continue
            if self.cancelled.is_set() and key == "steps":
                raise Cancelled
            if self.runner.stopping.is_set():
                raise _Yield
            entry.update(state="running", attempt=entry.get("attempt", 0) + 1, startedAt=format_time())
            self.status["percent"] = self._percent()
            self.write()
            context.report = partial(self.report, entry)
            self.runner.trace("begun", step.id)
            step.run(context)
            self.runner.trace("worked", step.id)
            entry.update(state="done", endedAt=format_time())
            entry.pop("progress", None)
            # Whoever goes on after this process does not do the step again, and needs what it found.
            self.status["found"] = context.status
            self.status["percent"] = self._percent()
            self.write()
            self.runner.trace("passed", step.id)

    def finish(self, state: str, plan: Plan, context: Context, *, undone: bool) -> None:
        """Write the end: journal, the target's status or its deletion, and the lease's removal, all in one."""
        target = context.target
        self.status.update(state=state, endedAt=format_time())
        self.status.pop("found", None)
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


class _Yield(Exception):  # noqa: N818 - no error: the process is about to leave
    """This process ends; another one goes on with the operation."""


class Runner:
    """Runs operations on threads of its own, at most four at a time."""

    def __init__(self, store: Store, hypervisor: Hypervisor, label: str) -> None:
        self.store = store
        self.hypervisor = hypervisor
        self.label = label
        self.owner = journal.Owner()
        self.stopping = threading.Event()
        # Called with ("begun" | "worked" | "passed", step): before a step acts, after it, and once the journal has it.
        self.trace: Callable[[str, str], None] = lambda _point, _step: None
        self._slots = threading.BoundedSemaphore(MAXIMUM_RUNNING)
        self._threads: dict[str, threading.Thread] = {}
        self._runs: dict[str, _Run] = {}
        self._faults: dict[str, FailedError] = {}
        self._guard = threading.Lock()
        self._renewer: threading.Thread | None = None

    def start(self, uid: str) -> None:
        """Run an operation on a thread of its own, unless it is running here already."""
        with self._guard:
            running = self._threads.get(uid)
            if self.stopping.is_set() or (running is not None and running.is_alive()):
                return
            thread = threading.Thread(target=self._work, args=(uid,), name=f"operation-{uid[:8]}", daemon=True)
            self._threads[uid] = thread
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew_leases, name="leases", daemon=True)
                self._renewer.start()
        thread.start()

    def is_running(self, uid: str) -> bool:
        """Return whether this process works on the operation."""
        with self._guard:
            thread = self._threads.get(uid)
            return thread is not None and thread.is_alive()

    def take_up(self) -> list[str]:
        """Start every unfinished operation that nobody works on, and return their uids."""
        free = [
            uid
            for uid, lease in self.store.leases()
            if uid not in self._faults and self.owner.may_take(lease) and not self.is_running(uid)
        ]
        for uid in free:
            self.start(uid)
        return free

    def fault_of(self, uid: str) -> FailedError | None:
        """Return why this process cannot go on with an operation: an error that its journal could not take."""
        return self._faults.get(uid)

    def cancel(self, uid: str) -> None:
        """Make a cancel known at once where the operation runs in this process."""
        run = self._runs.get(uid)
        if run is not None:
            run.cancelled.set()

    def join(self, uid: str, timeout: float) -> None:
        """Wait until this process no longer works on the operation, `timeout` seconds at most."""
        with self._guard:
            thread = self._threads.get(uid)
        if thread is not None:
            thread.join(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Let running steps end, `timeout` seconds at most, and leave the rest of their operations to others."""
        self.stopping.set()
        deadline = time.monotonic() + timeout
        with self._guard:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _renew_leases(self) -> None:
        while not self.stopping.wait(RENEW_SECONDS):
            for uid, run in list(self._runs.items()):
                try:
                    if journal.renew(self.store, self.owner, uid, run.fence):
                        run.cancelled.set()
                except ConflictError:
                    # It has ended in this moment, or another process holds it: the next write of the run tells which.
                    run.lost.set()
                except KCError as error:
                    _log.warning("lease of %s: %s", uid, error)

    def _work(self, uid: str) -> None:
        with self._slots:
            try:
                fence = journal.take(self.store, self.owner, uid)
            except KCError:
                return
            operation = self.store.get(OPERATION.name, uid)
            if operation is None:
                return
            run = _Run(self, operation, fence)
            lease = dict(self.store.leases()).get(uid, {})
            if lease.get("cancel"):
                run.cancelled.set()
            self._runs[uid] = run
            try:
                self._drive(run)
            except _Yield:
                journal.release(self.store, self.owner, uid, fence)
            except KCError as error:
                # The journal itself could not be written: another process has it, or the store is out of reach.
                _log.warning("operation %s left as it is: %s", operation["name"], error)
            except Exception as error:  # noqa: BLE001 - the boundary: a fault of KC's is told once, not met for ever
                _log.exception("operation %s", operation["name"])
                why = f"internal error: {sanitise(repr(error), 300)}"
                hint = f"it is left as it is; another KC may go on: kc op show {operation['name']}"
                self._faults[uid] = FailedError(f"operation {operation['name']}", why, hint)
                with suppress(KCError):
                    journal.release(self.store, self.owner, uid, fence)
            finally:
                self._runs.pop(uid, None)

    def _drive(self, run: _Run) -> None:
        target = run.operation["spec"]["target"]
        document = self.store.get(target["kind"], target["uid"])
        if document is None:
            run.status.update(
                state="failed", error=FailedError(f"{target['kind']} {target['name']}", "it is gone").problem()
            )
            run.finish("failed", Plan(()), self._context(run, dict(target)), undone=False)
            return
        context = self._context(run, document)
        plan = plan_operation(run.operation["spec"]["type"])
        undoing = run.status.get("state") == "undoing"
        if not undoing and self._attempt(run, plan, context):
            run.finish("succeeded", plan, context, undone=False)
            return
        if run.status.get("state") in ("undoing", "waiting"):
            self._undo(run, plan, context)

    def _context(self, run: _Run, target: Document) -> Context:
        return Context(
            store=self.store,
            hypervisor=self.hypervisor,
            operation=run.operation,
            target=target,
            owner_label=self.label,
            report=lambda _done, _total: None,
            status=dict(run.status.get("found", {})),
        )

    def _attempt(self, run: _Run, plan: Plan, context: Context) -> bool:
        """Do the steps; True when all are done. Otherwise the state says what comes next."""
        run.status.update(state="running", startedAt=run.status.get("startedAt") or format_time())
        run.status.pop("error", None)
        run.status.pop("parked", None)
        try:
            run.perform(plan.steps, "steps", context)
        except Cancelled:
            run.status["wanted"] = "cancelled"
        except UnreachableError as error:
            self._park(run, error)
        except KCError as error:
            self._note_failure(run, error)
        except _Yield:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a step raises ends in the journal
            _log.exception("operation %s", run.operation["name"])
            what = f"{context.target['kind']} {context.target['name']}"
            self._note_failure(run, FailedError(what, f"internal error: {sanitise(repr(error), 300)}"))
        else:
            return True
        run.status["state"] = "undoing"
        return False

    def _note_failure(self, run: _Run, error: KCError) -> None:
        run.status["wanted"] = "failed"
        run.status["error"] = error.problem()
        for entry in run.status["steps"]:
            if entry["state"] == "running":
                entry.update(state="failed", endedAt=format_time())

    def _park(self, run: _Run, error: UnreachableError) -> NoReturn:
        """Leave the operation for later: the host does not answer, so neither steps nor undo can go on."""
        parked = run.status.get("state")
        run.status.update(state="undoing" if parked == "undoing" else "queued", error=error.problem(), parked=True)
        run.write()
        raise _Yield

    def _undo(self, run: _Run, plan: Plan, context: Context) -> None:
        run.write()
        wanted = run.status.get("wanted", "failed")
        try:
            run.perform(plan.undo, "undo", context)
        except UnreachableError as error:
            self._park(run, error)
        except _Yield:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: an undo that fails is told, not hidden
            _log.exception("undo of %s", run.operation["name"])
            problem = error if isinstance(error, KCError) else FailedError("undo", sanitise(repr(error), 300))
            run.status["undoError"] = problem.problem()
            run.finish("failed", plan, context, undone=False)
            return
        run.finish(wanted, plan, context, undone=True)
