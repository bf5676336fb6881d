"""`LocalService`: the Service protocol in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, TimedOutError, UsageError, from_problem
from backend.local.observing import Observer
from backend.local.views import describe_operation, running_operations
from backend.model.documents import Document, format_time
from backend.model.kinds import IMAGE, NETWORK, OPERATION, VM, Kind, find_kind
from backend.service import Accepted, ConsoleStream, DocumentPage, Event, Finding, Progress
from backend.store.protocol import Store

if TYPE_CHECKING:
    from pathlib import Path

    from backend.hypervisor.plan import Sample
    from backend.hypervisor.protocol import Hypervisor
    from backend.operations.runner import Runner
    from backend.settings import Settings

POLL_SECONDS = 0.5
START_SECONDS = 60.0


class LocalService:
    """Documents in a store, operations on threads of this process, VMs on one libvirt host."""

    def __init__(self, store: Store, hypervisor: Hypervisor, settings: Settings, *, operate: bool = True) -> None:
        self.store = store
        self.hypervisor = hypervisor
        self.settings = settings
        self.operate = operate
        self.observer = Observer(store, hypervisor)
        self._guard = threading.Lock()
        self._runner: Runner | None = None

    @property
    def runner(self) -> Runner:
        """What runs operations; made when the first is met, since most commands meet none."""
        if self._runner is None:
            from backend.operations.runner import Runner  # noqa: PLC0415 - the list of VMs needs none

            with self._guard:
                self._runner = self._runner or Runner(self.store, self.hypervisor, _label(self.store))
        return self._runner

    # --- reading
    def list_documents(
        self,
        kind: str,
        *,
        selector: str = "",
        limit: int | None = None,
        after: str = "",
        everything: bool = False,
        observe: bool = True,
    ) -> DocumentPage:
        """Return documents of a kind; see the protocol."""
        which = find_kind(kind)
        accepts = _parse_selector(selector)
        if which is VM:
            return self.observer.list_vms(
                accepts, limit=limit, after=after, everything=everything, observe=observe
            )  # fmt: skip
        page = self.store.list_documents(which.name, where=accepts, limit=limit, after=after)
        return DocumentPage(page.items, page.next, page.revision, [])

    def get(self, kind: str, name: str, *, observe: bool = True) -> Document:
        """Return one document; see the protocol."""
        which = find_kind(kind)
        document = self.store.find(which.name, name)
        if document is not None:
            return self.observer.show(document, thorough=observe) if which is VM else document
        if which is VM and observe:
            foreign = self.observer.find_foreign(name)
            if foreign is not None:
                return foreign
        raise NotFoundError(f"{which.title} {name}", f"no such {which.title}", f"see kc {which.command} list")

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a kind's documents."""
        from backend.model.schemas import document_schema  # noqa: PLC0415 - pydantic

        return document_schema(find_kind(kind))

    # --- changing
    def check(self, document: Document) -> Document:
        """Return the document that `create` would accept."""
        from backend.local.creation import prepare  # noqa: PLC0415 - pydantic

        return prepare(self.store, document)

    def create(self, document: Document) -> Accepted:
        """Accept a new document; see the protocol."""
        body = self.check(document)
        kind = find_kind(body["kind"])
        if kind in (IMAGE, OPERATION):
            raise UsageError(f"{kind.title} {body['name']}", "it is not made from a document", "kc image upload")
        if kind is VM:
            self._check_domain_name(body["name"])
        operation_type = f"{kind.command}.create" if kind in (VM, NETWORK) else ""
        return self.accept(body, operation_type, {}, expect=0)

    def _check_domain_name(self, name: str) -> None:
        domain = self.hypervisor.find_domain(name)
        if domain is None:
            return
        owner = self.hypervisor.owner_of(domain.uid)
        who = f"a VM of {owner.label}" if owner.label else "a domain that no KC made"
        raise ConflictError(f"VM {name}", f"the host has {who} of that name", "choose another name")

    def accept(
        self, body: Document, operation_type: str, parameters: dict[str, Any], *, expect: int | None
    ) -> Accepted:
        """Write a document and the operation that brings the world to it, in one transaction, and begin with it."""
        from backend.operations import journal  # noqa: PLC0415 - the list of VMs needs none

        with self.store.transaction() as transaction:
            written = transaction.put(body, expect=expect)
            if not operation_type:
                return Accepted(written, None)
            operation = journal.new_operation(operation_type, written, parameters, body["updatedBy"])
            owner = self.runner.owner if self.operate else None
            operation = journal.begin(transaction, self.store, operation, owner)
        if self.operate:
            self.runner.start(operation["uid"])
        if written["kind"] == VM.name:
            written = {
                **written,
                "status": {
                    **written.get("status", {}),
                    "power": written.get("status", {}).get("power", "absent"),
                    "addresses": [],
                    "operation": describe_operation(operation),
                },
            }
        return Accepted(written, operation)

    def delete(self, kind: str, name: str, *, if_version: int | None = None, keep_disks: bool = False) -> Accepted:
        """Delete an object; see the protocol."""
        from backend.local.creation import current_user, find_users  # noqa: PLC0415 - pydantic

        which = find_kind(kind)
        if which is OPERATION:
            raise UsageError(f"operation {name}", "operations are kept, not deleted", f"kc op cancel {name}")
        document = self._find_own(which, name)
        if if_version is not None and document["version"] != if_version:
            raise ConflictError(
                f"{which.title} {name}", f"version is {document['version']}, not {if_version}", "look at it again"
            )
        users = find_users(self.store, which, document["uid"])
        if users:
            raise ConflictError(
                f"{which.title} {name}", f"in use by VM {', '.join(users)}", "delete what uses it first"
            )
        if which not in (VM, IMAGE, NETWORK):
            with self.store.transaction() as transaction:
                transaction.delete(which.name, document["uid"], expect=document["version"])
            return Accepted(document, None)
        if which is IMAGE:
            self._check_image_unused(document)
        return self._operate_on(
            document, f"{which.command}.delete", {"keepDisks": keep_disks}, current_user()
        )  # fmt: skip

    def _check_image_unused(self, document: Document) -> None:
        from backend.images.volumes import image_volume  # noqa: PLC0415

        users = self.hypervisor.volume_users(image_volume(document["spec"]))
        if users:
            raise ConflictError(
                f"image {document['name']}", f"in use by domain {', '.join(users[:3])}", "delete what uses it first"
            )

    def _find_own(self, kind: Kind, name: str) -> Document:
        document = self.store.find(kind.name, name)
        if document is not None:
            return document
        if kind is VM and self.observer.find_foreign(name) is not None:
            raise ConflictError(f"VM {name}", "it is foreign: this KC did not make it", "use virsh, or its own KC")
        raise NotFoundError(f"{kind.title} {name}", f"no such {kind.title}", f"see kc {kind.command} list")

    def _operate_on(self, document: Document, operation_type: str, parameters: dict[str, Any], by: str) -> Accepted:
        from backend.operations import journal  # noqa: PLC0415 - as above

        operation = journal.new_operation(operation_type, document, parameters, by)
        with self.store.transaction() as transaction:
            operation = journal.begin(
                transaction, self.store, operation, self.runner.owner if self.operate else None
            )  # fmt: skip
        if self.operate:
            self.runner.start(operation["uid"])
        return Accepted(document, operation)

    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None) -> Accepted:
        """Start, stop or reboot a VM; see the protocol."""
        from backend.local.creation import current_user  # noqa: PLC0415 - pydantic

        if action not in ("start", "stop", "reboot"):
            raise UsageError(f"VM {name}", f"no such action: {action}", "known are start, stop and reboot")
        document = self._find_own(VM, name)
        observed = self.hypervisor.observe(document["uid"])
        power = observed.power if observed is not None else "absent"
        if action == "reboot":
            if power != "running":
                raise ConflictError(f"VM {name}", f"it is {power}", f"kc vm start {name}")
            return self._operate_on(document, "vm.reboot", parameters or {}, current_user())
        wanted = "running" if action == "start" else "stopped"
        already = power == wanted or (wanted == "stopped" and power == "absent")
        if already and document["spec"]["power"] == wanted:
            return Accepted(self.observer.show(document), None)
        body = {key: value for key, value in document.items() if key not in ("status", "version")}
        body |= {
            "spec": {**document["spec"], "power": wanted},
            "updatedAt": format_time(),
            "updatedBy": current_user(),
            "message": action,
        }
        return self.accept(body, f"vm.{action}", parameters or {}, expect=document["version"])

    def upload_image(self, name: str, path: Path, *, metadata: Document, declared: dict[str, str]) -> Accepted:
        """Take the image in a local file; see the protocol."""
        from backend.local.uploading import prepare_image, source_of  # noqa: PLC0415 - pydantic, oslo

        # Nothing is read, let alone written, for a host that does not answer.
        self.hypervisor.find_domain(name)
        origin = source_of(path)
        body = prepare_image(self.store, name, path, metadata, declared)
        return self.accept(body, "image.create", origin, expect=0)

    # --- operations
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

        document = journal.request_cancel(self.store, operation)
        self.runner.cancel(document["uid"])
        if self.operate:
            self.runner.take_up()
        return document

    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:
        """Take up what an earlier process left unfinished, and return how many operations that were.

        Waits until they ended, or until the hypervisor turns out not to answer.
        """
        uids = self.runner.take_up() if self.store.leases() else []
        for uid in uids:
            document = self.store.get(OPERATION.name, uid)
            if document is None:
                continue
            if report is not None:
                target = document["spec"]["target"]
                report(f"finishing {document['spec']['type']} of {target['name']}, which was interrupted")
            if wait:
                try:
                    self.wait(document["name"], timeout=600)
                except KCError as error:
                    if report is not None:
                        report(f"{document['name']} goes on later: {error}")
        return len(uids)

    # --- watching and consoles
    def samples(self) -> list[Sample]:
        """Return the counters of all domains."""
        return self.hypervisor.samples()

    def watch(self, kinds: Sequence[str] = (), *, since: int | None = None) -> Iterator[Event | None]:
        """Yield changes; see the protocol."""
        return self.observer.watch([find_kind(kind).name for kind in kinds], since)

    def console(self, name: str) -> ConsoleStream:
        """Open a VM's serial console, what it has said so far first."""
        from backend.local.console import open_console  # noqa: PLC0415

        document = self._find_own(VM, name)
        # A domain that is being started has no console yet; whoever asks wants to see it boot.
        operation = running_operations(self.store).get(document["uid"])
        if operation is not None:
            self.wait(operation["name"], timeout=START_SECONDS)
        return open_console(self.hypervisor, document)

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """Return the last of what a VM's console has said."""
        from backend.local.console import read_log  # noqa: PLC0415

        return read_log(self.hypervisor, self._find_own(VM, name), limit_bytes)

    # --- the whole
    def initialise(self, report: Callable[[str], None]) -> list[str]:
        """Make what a newcomer needs; see the protocol."""
        from backend.local.initialising import initialise  # noqa: PLC0415

        return initialise(self, report)

    def diagnose(self) -> list[Finding]:
        """Return what works here and what does not."""
        from backend.local.doctor import diagnose  # noqa: PLC0415

        return diagnose(self.store, self.hypervisor, self.settings)

    def close(self) -> None:
        """Let go of everything."""
        if self._runner is not None:
            self._runner.close()
        self.observer.close()
        self.hypervisor.close()
        self.store.close()


def _parse_selector(selector: str) -> Callable[[Document], bool] | None:
    if not selector.strip():
        return None
    from backend.model.selectors import parse  # noqa: PLC0415 - most lists have none

    return parse(selector)


def _label(store: Store) -> str:
    import os  # noqa: PLC0415
    import socket  # noqa: PLC0415

    return f"{os.environ.get('USER') or os.getuid()}@{socket.gethostname()} {store.url}"


__all__ = ["LocalService"]
