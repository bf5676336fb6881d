"""The runner: takes an operation's lease, does its steps, keeps its journal, undoes what failed.

It may be killed at any point: the next process that looks takes the lease over and repeats the step that was in doubt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from backend.errors import FailedError, KCError, RefusedError, UnreachableError
from backend.hypervisor.protocol import Hypervisor
from backend.model.documents import Document, complete, format_time
from backend.model.kinds import OPERATION
from backend.operations import journal
from backend.operations.planning import plan_operation
from backend.operations.retrying import PARKED_SECONDS, choose_delay
from backend.operations.run import Run, Yielded
from backend.operations.steps import Cancelled, Context, Plan
from backend.store.protocol import Store
from backend.text import sanitise

_log = logging.getLogger("kc.operations")
MAXIMUM_RUNNING = 4
RENEW_SECONDS = 5.0
RENEWED_AT_ONCE = 50
ATTEND_SECONDS = 5.0
TICK_SECONDS = 0.5
PRUNE_SECONDS = 60.0


class Runner:
    """Runs operations on threads of its own, at most four at a time, the others in the order in which they came."""

    def __init__(self, store: Store, hypervisor: Hypervisor, label: str, *, keep_days: float = 7.0) -> None:
        self.store = store
        self.hypervisor = hypervisor
        self.label = label
        self.keep_days = keep_days
        self.owner = journal.Owner()
        self.stopping = threading.Event()
        # Called with ("begun" | "worked" | "passed" | "waiting", step): before a step acts, after it, once the journal
        # has it, and before it is tried again.
        self.trace: Callable[[str, str], None] = lambda _point, _step: None
        self._queue: deque[str] = deque()
        self._mine: set[str] = set()
        self._workers: set[threading.Thread] = set()
        self._runs: dict[str, Run] = {}
        self._parked: dict[str, tuple[int, float]] = {}
        self._faults: dict[str, KCError] = {}
        self._changed = threading.Condition()
        self._caretaker: threading.Thread | None = None
        self._is_attending = False
        self._pruned = -PRUNE_SECONDS

    def start(self, uid: str) -> None:
        """Run an operation as soon as there is room, unless this process has it already."""
        with self._changed:
            if self.stopping.is_set() or uid in self._mine:
                return
            self._mine.add(uid)
            self._queue.append(uid)
            if len(self._workers) < MAXIMUM_RUNNING:
                worker = threading.Thread(target=self._work, name="operations", daemon=True)
                self._workers.add(worker)
                worker.start()
        self._start_caretaker()

    def is_running(self, uid: str) -> bool:
        """Return whether this process works on the operation, or is about to."""
        return uid in self._mine

    def attend(self) -> None:
        """Take up, for as long as this process lives, what others leave unfinished."""
        self._is_attending = True
        self._start_caretaker()

    def take_up(self, *, at_once: bool = False) -> list[str]:
        """Start every unfinished operation that nobody works on, and return their uids.

        What this process has parked has its time, unless all is to be taken up `at_once`.
        """
        now = time.monotonic()
        free = [
            uid
            for uid, lease in self.store.leases()
            if uid not in self._faults
            and not self.is_running(uid)
            and (at_once or self._parked.get(uid, (0, now))[1] <= now)
            and self.owner.may_take(lease)
        ]
        for uid in free:
            self.start(uid)
        return free

    def fault_of(self, uid: str) -> KCError | None:
        """Return why this process cannot go on with an operation: what its journal could not take, or a newer KC's."""
        return self._faults.get(uid)

    def cancel(self, uid: str) -> None:
        """Make a cancel known at once where the operation runs in this process."""
        run = self._runs.get(uid)
        if run is not None:
            run.cancel()

    def join(self, uid: str, timeout: float) -> None:
        """Wait until this process no longer works on the operation, `timeout` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: uid not in self._mine, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Let running steps end, `timeout` seconds at most, and leave the rest of their operations to others."""
        self.stopping.set()
        for run in list(self._runs.values()):
            run.woken.set()
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: not self._workers, timeout)
            caretaker = self._caretaker
        if caretaker is not None:
            caretaker.join(max(0.0, deadline - time.monotonic()))

    def _start_caretaker(self) -> None:
        with self._changed:
            if self._caretaker is None and not self.stopping.is_set():
                self._caretaker = threading.Thread(target=self._take_care, name="leases", daemon=True)
                self._caretaker.start()

    def _take_care(self) -> None:
        """Keep the leases, and take up again what was parked."""
        renewed = looked = time.monotonic()
        while not self.stopping.wait(TICK_SECONDS):
            now = time.monotonic()
            try:
                if now - renewed >= RENEW_SECONDS:
                    renewed = now
                    self._renew_leases()
                if self._is_attending and now - looked >= ATTEND_SECONDS:
                    looked = now
                    self.take_up()
            except KCError as error:
                _log.warning("leases: %s", error)
            for uid, (_, due) in list(self._parked.items()):
                if due <= now:
                    self.start(uid)

    def _renew_leases(self) -> None:
        fences: dict[str, int | None] = dict.fromkeys(self._mine.copy())
        fences |= {uid: run.fence for uid, run in self._runs.copy().items()}
        uids = list(fences)
        for first in range(0, len(uids), RENEWED_AT_ONCE):
            part = {uid: fences[uid] for uid in uids[first : first + RENEWED_AT_ONCE]}
            cancelled, lost = journal.renew(self.store, self.owner, part)
            for uid in cancelled:
                self.cancel(uid)
            for uid in lost:
                # It has ended in this moment, or another process holds it: the next write of the run tells which.
                run = self._runs.get(uid)
                if run is not None:
                    run.lose()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self.stopping.is_set() or not self._queue:
                    self._workers.discard(threading.current_thread())
                    self._changed.notify_all()
                    return
                uid = self._queue.popleft()
            try:
                self._run(uid)
                self._prune()
            finally:
                with self._changed:
                    self._mine.discard(uid)
                    self._changed.notify_all()

    def _prune(self) -> None:
        """Now and then, forget operations that ended long ago."""
        if time.monotonic() - self._pruned < PRUNE_SECONDS:
            return
        self._pruned = time.monotonic()
        try:
            journal.prune(self.store, self.keep_days)
        except KCError as error:
            _log.warning("old operations: %s", error)

    def _run(self, uid: str) -> None:
        operation = self.store.get(OPERATION.name, uid)
        if operation is None:
            return
        try:
            plan_operation(operation["spec"]["type"])
            lease = journal.take(self.store, self.owner, uid)
        except KCError as error:
            self._parked.pop(uid, None)
            if isinstance(error, RefusedError):
                self._faults[uid] = error
            return
        run = Run(self, operation, lease["fence"])
        if lease.get("cancel"):
            run.cancel()
        self._runs[uid] = run
        try:
            self._drive(run)
            self._parked.pop(uid, None)
        except Yielded:
            journal.release(self.store, self.owner, uid, run.fence)
        except KCError as error:
            # The journal itself could not be written: another process has it, or the store is out of reach.
            self._parked.pop(uid, None)
            _log.warning("operation %s left as it is: %s", operation["name"], error)
        except Exception as error:  # noqa: BLE001 - the boundary: a fault of KC's is told once, not met for ever
            _log.exception("operation %s", operation["name"])
            why = f"internal error: {sanitise(repr(error), 300)}"
            hint = f"it is left as it is; another KC may go on: kc op show {operation['name']}"
            self._parked.pop(uid, None)
            with suppress(KCError):
                journal.release(self.store, self.owner, uid, run.fence)
            # Who is told of it finds the lease free.
            self._faults[uid] = FailedError(f"operation {operation['name']}", why, hint)
        finally:
            self._runs.pop(uid, None)

    def _drive(self, run: Run) -> None:
        target = run.operation["spec"]["target"]
        document = self.store.get(target["kind"], target["uid"])
        if document is None:
            run.status.update(
                state="failed", error=FailedError(f"{target['kind']} {target['name']}", "it is gone").problem()
            )
            run.finish("failed", Plan(()), self._context(run, dict(target)), undone=False)
            return
        context = self._context(run, complete(document))
        plan = plan_operation(run.operation["spec"]["type"])
        undoing = run.status.get("state") == "undoing"
        if not undoing and self._attempt(run, plan, context):
            run.finish("succeeded", plan, context, undone=False)
            return
        if run.status.get("state") in ("undoing", "waiting"):
            self._undo(run, plan, context)

    def _context(self, run: Run, target: Document) -> Context:
        return Context(
            store=self.store,
            hypervisor=self.hypervisor,
            operation=run.operation,
            target=target,
            owner_label=self.label,
            report=lambda _done, _total: None,
            status=dict(run.status.get("found", {})),
        )

    def _attempt(self, run: Run, plan: Plan, context: Context) -> bool:
        """Do the steps; True when all are done. Otherwise the state says what comes next."""
        run.status.update(state="running", startedAt=run.status.get("startedAt") or format_time())
        run.status.pop("error", None)
        run.clear_parking()
        try:
            run.perform(plan.steps, "steps", context)
        except Cancelled:
            run.status["wanted"] = "cancelled"
        except UnreachableError as error:
            self._park(run, error)
        except KCError as error:
            self._note_failure(run, error)
        except Yielded:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: whatever a step raises ends in the journal
            _log.exception("operation %s", run.operation["name"])
            what = f"{context.target['kind']} {context.target['name']}"
            self._note_failure(run, FailedError(what, f"internal error: {sanitise(repr(error), 300)}"))
        else:
            return True
        run.status["state"] = "undoing"
        return False

    def _note_failure(self, run: Run, error: KCError) -> None:
        run.status["wanted"] = "failed"
        run.status["error"] = error.problem()
        for entry in run.status["steps"]:
            if entry["state"] == "running":
                entry.update(state="failed", endedAt=format_time())

    def _park(self, run: Run, error: UnreachableError) -> NoReturn:
        """Leave the operation for later: the host does not answer, so neither steps nor undo can go on."""
        parked = run.status.get("state")
        failures = self._parked.get(run.uid, (0, 0.0))[0] + 1
        delay = choose_delay(failures, PARKED_SECONDS)
        run.status.update(state="undoing" if parked == "undoing" else "queued", error=error.problem(), parked=True)
        run.status["retry"] = {"attempt": failures + 1, "at": format_time(time.time() + delay), "why": error.why}
        run.write()
        self._parked[run.uid] = (failures, time.monotonic() + delay)
        raise Yielded

    def _undo(self, run: Run, plan: Plan, context: Context) -> None:
        run.clear_parking()
        run.write()
        wanted = run.status.get("wanted", "failed")
        try:
            run.perform(plan.undo, "undo", context)
        except UnreachableError as error:
            self._park(run, error)
        except Yielded:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: an undo that fails is told, not hidden
            _log.exception("undo of %s", run.operation["name"])
            problem = error if isinstance(error, KCError) else FailedError("undo", sanitise(repr(error), 300))
            run.status["undoError"] = problem.problem()
            run.finish("failed", plan, context, undone=False)
            return
        run.finish(wanted, plan, context, undone=True)
