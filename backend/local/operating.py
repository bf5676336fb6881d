"""Operations from outside: waited for, ended, and taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable

from backend.errors import FailedError, KCError, TimedOutError, from_problem
from backend.local.home import Home
from backend.model.documents import Document, format_time
from backend.model.kinds import OPERATION, TRASH, VM
from backend.service import Progress

POLL_SECONDS = 0.5


class OperatingHome(Home):
    """The service's operations."""

    def wait(self, operation: str, *, timeout: float | None = None, progress: Progress | None = None) -> Document:
        """Return an operation once it ended; see the protocol."""
        from backend.operations import journal  # noqa: PLC0415 - as above

        deadline = None if timeout is None else time.monotonic() + timeout
        since = self.store.revision()
        seen: Document | None = None
        while True:
            document = self.get(OPERATION.name, operation)
            if document != seen:
                seen = document
                if progress is not None:
                    progress(document)
            status = document["status"]
            if status["state"] in journal.ENDED:
                # Its thread still holds the store for a moment; who was told of the end may close it.
                self.runner.join(document["uid"], 5.0)
                return document
            if status.get("parked") and not self.runner.is_running(document["uid"]):
                raise from_problem(status["error"])
            fault = self.runner.fault_of(document["uid"])
            if fault is not None:
                raise fault
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOutError(
                    f"operation {operation}",
                    f"not ended after {timeout:.0f} s",
                    f"it goes on; see kc op show {operation}",
                )
            if self.operate and not self.runner.is_running(document["uid"]):
                self.runner.take_up()
            changes = self.store.changes(since, (OPERATION.name,), wait=POLL_SECONDS)
            since = changes[-1].revision if changes else since

    def wait_until(self, name: str, state: str, *, timeout: float, progress: Progress | None = None) -> Document:
        """Return a VM once it is running or ready; see the protocol."""
        deadline = time.monotonic() + timeout
        while True:
            document = self.get(VM.name, name)
            if progress is not None:
                progress(document)
            power = document["status"]["power"]
            if power == "running" and (state == "running" or self.observer.is_ready(document)):
                return document
            if power in ("stopped", "crashed", "absent") and "operation" not in document["status"]:
                raise FailedError(f"VM {name}", f"it is {power}", f"see kc vm console {name} --log")
            if time.monotonic() >= deadline:
                raise TimedOutError(f"VM {name}", f"not {state} after {timeout:.0f} s: {self.observer.why(document)}",
                                    f"see kc vm console {name} --log")  # fmt: skip
            time.sleep(POLL_SECONDS)

    def cancel(self, operation: str) -> Document:
        """Ask an operation to end and undo itself."""
        from backend.operations import journal  # noqa: PLC0415 - as above

        document = journal.request_cancel(self.store, operation, lambda found: self.audit_change(found, "op.cancel"))
        self.runner.cancel(document["uid"])
        if self.operate:
            self.runner.take_up()
        return document

    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:
        """Take up what an earlier process left unfinished, and return how many operations that were.

        Waits until they ended, or until the hypervisor turns out not to answer. A process that does not wait stays: it
        goes on to take up what others leave.
        """
        expired = self._expire_trash()
        uids = self.runner.take_up(at_once=True) if self.store.leases() else []
        uids = list(dict.fromkeys([*expired, *uids]))
        if self.operate and not wait:
            self.runner.attend()
        for uid in uids:
            document = self.store.get(OPERATION.name, uid)
            if document is None:
                continue
            if report is not None:
                target = document["spec"]["target"]
                why = "whose grace time has passed" if uid in expired else "which was interrupted"
                report(f"finishing {document['spec']['type']} of {target['name']}, {why}")
            if wait:
                try:
                    self.wait(document["name"], timeout=600)
                except KCError as error:
                    if report is not None:
                        report(f"{document['name']} goes on later: {error}")
        return len(uids)

    def _expire_trash(self) -> list[str]:
        # Two cheap looks, the second by the store's index; the rest is imported where there is something to do.
        if not self.operate or not self.store.list_documents(TRASH.name, limit=1).items:
            return []
        from backend.model.selectors import parse  # noqa: PLC0415 - the trash is often empty

        over = self.store.list_documents(TRASH.name, where=parse(f"spec.until<{format_time()}")).items
        if not over:
            return []
        from backend.local.deleting import expire  # noqa: PLC0415 - pydantic

        return expire(self, over)
