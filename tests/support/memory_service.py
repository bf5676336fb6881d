"""A service in memory for tests of what speaks to one: documents in a dict, operations on real threads.

It does what the Service protocol says of documents, operations, waiting and cancelling; there is no host behind it. A
test steers it: `gate` lets operations go on, `failures` names those that are to fail, `add` puts in what it wants.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from backend.errors import ConflictError, KCError, NotFoundError, TimedOutError
from backend.model.documents import Document, format_time
from backend.model.kinds import IMAGE, NETWORK, OPERATION, VM, find_kind
from backend.service import Accepted, Access, DocumentPage, Event, Finding, Progress

STEPS = ("making the disk", "defining the domain", "starting the domain")
ENDED = ("succeeded", "failed", "cancelled")
MADE = "2026-01-02T03:04:05.000Z"


class MemoryConsole:
    """A console that says `said` and echoes what is typed; `end` ends it, as a guest's power-off does."""

    def __init__(self, said: bytes) -> None:
        self._output = [said] if said else []
        self._changed = threading.Condition()
        self._ended = False
        self.typed = b""

    def read(self, timeout: float) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._output or self._ended, timeout)
            if self._output:
                return self._output.pop(0)
            return b"" if self._ended else None

    def write(self, data: bytes) -> None:
        with self._changed:
            self.typed += data
            self._output.append(b"<" + data + b">")
            self._ended = self._ended or b"\x04" in data
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class MemoryService:
    """See the module."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], Document] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.failures: dict[str, KCError] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.warnings: list[str] = []
        self.findings: list[Finding] = []
        self.log = b""
        self.entries: list[Document] = []
        self.interrupted: list[str] = []
        self.closed = False
        self.moves: dict[str, list[Document]] = {}
        self.revision = 0
        self._cancelled: set[str] = set()
        self._changed = threading.Condition()

    # --- what tests put in
    def add(self, kind: str, name: str, *, spec: Document | None = None, status: Document | None = None,
            metadata: Document | None = None) -> Document:  # fmt: skip
        document = {
            "apiVersion": "kc/v1", "kind": kind, "name": name, "uid": str(uuid.uuid4()), "version": 1,
            "metadata": metadata or {}, "spec": spec or {}, "status": status or {},
            "createdAt": MADE, "updatedAt": MADE, "updatedBy": "test",
        }  # fmt: skip
        self._put(document)
        return document

    def add_vm(self, name: str, power: str = "running", **more: Any) -> Document:
        status = {"power": power, "addresses": [], "hardware": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}}
        spec = {"image": {"name": "starter"}, "type": {"name": "tiny"}, "nics": [], "power": "running"}
        return self.add(VM.name, name, spec=spec, status=status | more.pop("status", {}), **more)

    def _put(self, document: Document) -> None:
        with self._changed:
            self.revision += 1
            self.documents[document["kind"], document["name"]] = document
            self._changed.notify_all()

    # --- reading
    def list_documents(self, kind: str, *, selector: str = "", limit: int | None = None, after: str = "",
                       everything: bool = False, observe: bool = True) -> DocumentPage:  # fmt: skip
        self.calls.append(("list", kind, selector, limit, after, everything, observe))
        items = [item for (which, _name), item in sorted(self.documents.items()) if which == find_kind(kind).name]
        if selector:
            key, _, value = selector.partition("=")
            items = [item for item in items if str(item["metadata"].get(key)) == value]
        items = [item for item in items if not after or item["name"] > after]
        page = items if limit is None else items[:limit]
        following = page[-1]["name"] if len(page) < len(items) else ""
        return DocumentPage(page, following, self.revision, self.warnings)

    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        which = find_kind(kind)
        if (which.name, name) not in self.documents:
            raise NotFoundError(f"{which.title} {name}", f"no such {which.title}", f"see kc {which.command} list")
        return self.documents[which.name, name]

    def schema(self, kind: str) -> dict[str, Any]:
        return {"$id": f"urn:kc:schema:v1:{find_kind(kind).name}", "type": "object"}

    # --- changing
    def check(self, document: Document) -> Document:
        kind = find_kind(document["kind"])
        if (kind.name, document["name"]) in self.documents:
            raise ConflictError(f"{kind.title} {document['name']}", "the name is taken", "choose another")
        return document

    def create(self, document: Document, *, key: str = "") -> Accepted:
        self.calls.append(("create", document))
        self.check(document)
        written = self.add(document["kind"], document["name"], spec=document["spec"], metadata=document["metadata"],
                           status={"power": "absent", "addresses": []})  # fmt: skip
        kind = find_kind(document["kind"])
        if kind not in (VM, NETWORK):
            return Accepted(written, None)

        def finish() -> None:
            self._put({**written, "status": {"power": document["spec"].get("power", "running"), "addresses": []}})

        return Accepted(written, self._operate(f"{kind.command}.create", written, finish))

    def delete(self, kind: str, name: str, *, if_version: int | None = None, keep_disks: bool = False,
               now: bool = False, message: str = "", key: str = "") -> Accepted:  # fmt: skip
        self.calls.append(("delete", kind, name, keep_disks))
        document = self.get(kind, name)

        def finish() -> None:
            with self._changed:
                del self.documents[document["kind"], name]

        return Accepted(document, self._operate(f"{find_kind(kind).command}.delete", document, finish))

    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None, *, key: str = "") -> Accepted:
        self.calls.append(("act", name, action, parameters))
        document = self.get(VM.name, name)
        wanted = "stopped" if action == "stop" else "running"
        if action != "reboot" and document["status"]["power"] == wanted:
            return Accepted(document, None)

        def finish() -> None:
            self._put({**document, "status": {**document["status"], "power": wanted}})

        return Accepted(document, self._operate(f"vm.{action}", document, finish))

    def upload_image(self, name: str, path: Path, *, metadata: Document, declared: dict[str, str],
                     sent: Callable[[int, int], None] | None = None) -> Accepted:  # fmt: skip
        if sent is not None:
            sent(1, 1)
        self.calls.append(("upload", name, path, metadata, declared))
        spec = {"arch": "x86_64", "format": "raw", "digest": "sha256:0", "sizeBytes": 1, "virtualSizeBytes": 1,
                "title": "", "source": ""}  # fmt: skip
        document = self.add(IMAGE.name, name, spec=spec, metadata=metadata)
        return Accepted(document, self._operate("image.create", document, lambda: None))

    # --- operations
    def _operate(self, operation_type: str, target: Document, finish: Callable[[], None]) -> Document:
        spec = {"type": operation_type, "target": {"kind": target["kind"], "name": target["name"]}, "parameters": {}}
        name = f"op-{len([kind for kind, _name in self.documents if kind == OPERATION.name]) + 1}"
        operation = self.add(OPERATION.name, name, spec=spec, status={"state": "queued", "percent": 0, "steps": []})
        threading.Thread(target=self._work, args=(operation, target, finish), daemon=True).start()
        return operation

    def _tell(self, operation: Document, **status: Any) -> None:
        current = self.documents[OPERATION.name, operation["name"]]
        moved = {**current, "status": {**current["status"], **status}}
        self._put(moved)
        self.moves.setdefault(operation["name"], []).append(moved)

    def _work(self, operation: Document, target: Document, finish: Callable[[], None]) -> None:
        name = operation["name"]
        failure = self.failures.get(target["name"])
        for done in range(len(STEPS)):
            steps = [
                {"id": title, "title": title, "state": "done" if index < done else "pending"}
                for index, title in enumerate(STEPS)
            ]
            self._tell(operation, state="running", steps=steps, percent=100 * done // len(STEPS))
            while not self.gate.wait(0.01) and name not in self._cancelled:
                pass
            if name in self._cancelled or (failure is not None and done == 1):
                self._tell(operation, state="undoing", undo=steps)
                if operation["spec"]["type"].endswith(".create"):
                    with self._changed:
                        del self.documents[target["kind"], target["name"]]
                ended = {"state": "failed", "error": failure.problem()} if failure else {"state": "cancelled"}
                self._tell(operation, **ended)
                return
        finish()
        self._tell(operation, state="succeeded", percent=100, steps=[{**step, "state": "done"} for step in steps])

    def wait(self, operation: str, *, timeout: float | None = None, progress: Progress | None = None) -> Document:
        self.calls.append(("wait", operation))
        deadline = None if timeout is None else time.monotonic() + timeout
        told = 0
        while True:
            document = self.get(OPERATION.name, operation)
            moves = self.moves.get(operation, [])
            for document in moves[told:]:
                if progress is not None:
                    progress(document)
            told = len(moves)
            if document["status"]["state"] in ENDED:
                return document
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOutError(f"operation {operation}", "not ended", f"see kc op show {operation}")
            with self._changed:
                self._changed.wait(0.05)

    def wait_until(self, name: str, state: str, *, timeout: float, progress: Progress | None = None) -> Document:
        self.calls.append(("wait_until", name, state, timeout))
        document = self.get(VM.name, name)
        if progress is not None:
            progress(document)
        address = {"address": "10.0.0.7", "prefix": 24, "family": "ipv4", "source": "lease", "nic": "nic0"}
        document = {**document, "status": {**document["status"], "addresses": [address]}}
        self._put(document)
        return document

    def cancel(self, operation: str) -> Document:
        self.calls.append(("cancel", operation))
        document = self.get(OPERATION.name, operation)
        if document["status"]["state"] in ENDED:
            raise ConflictError(f"operation {operation}", f"it has {document['status']['state']} already")
        self._cancelled.add(operation)
        return document

    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:
        self.calls.append(("resume", wait))
        found, self.interrupted = self.interrupted, []
        for text in found:
            if report is not None:
                report(text)
        return len(found)

    # --- the rest
    def watch(self, kinds: Sequence[str] = (), *, since: int | None = None) -> Iterator[Event | None]:
        yield None

    def console(self, name: str) -> MemoryConsole:
        self.get(VM.name, name)
        return MemoryConsole(self.log)

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        self.get(VM.name, name)
        return self.log[-limit_bytes:]

    def display(self, name: str) -> MemoryConsole:
        self.get(VM.name, name)
        self.calls.append(("display", name))
        return MemoryConsole(b"RFB 003.008\n")

    def initialise(self, report: Callable[[str], None]) -> list[str]:
        report("making the network default")
        self.add(NETWORK.name, "default", metadata={"madeAt": format_time()})
        return ["Network default", "MachineType tiny"]

    def diagnose(self) -> list[Finding]:
        return self.findings

    def access(self) -> Access:
        return Access("test", (), ((("*",), ""),))

    def list_audit(self, *, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        self.calls.append(("audit", selector, limit, after))
        return DocumentPage(self.entries[:limit], "", 0, [])

    def close(self) -> None:
        self.closed = True
