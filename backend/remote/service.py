"""`RemoteService`: the Service protocol over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, UsageError
from backend.model.documents import Document
from backend.model.kinds import IMAGE, NETWORK, OPERATION, TRASH, VM, find_kind
from backend.remote import shapes
from backend.remote.base import RemoteBase, kind_of, path_of
from backend.remote.transport import LONG_SECONDS, Query
from backend.service import (
    Accepted,
    Access,
    Adoption,
    ConsoleStream,
    DocumentPage,
    Event,
    Finding,
    Preview,
    Progress,
    Version,
)

if TYPE_CHECKING:
    from pathlib import Path

    from backend.model.samples import Sample
    from backend.model.upkeep import Compaction, Fault


PAGE_ITEMS = 10_000
"""The most that a server puts on a page; for each page the host is looked at anew."""
_LONGEST_LOG_BYTES = 16 << 20
_PRECONDITION_FAILED = 412
_ATTEMPTS = 5
_CONTENT = frozenset({"metadata", "spec"})
_REPEATED_ACTIONS = ("reboot", "snapshot", "restore-snapshot", "delete-snapshot")
_VM_ACTIONS = ("start", "stop", "pause", "resume", "reconcile", *_REPEATED_ACTIONS)


class RemoteService(RemoteBase):
    """Everything that KC can do, done by a KC elsewhere; see `backend.service.Service` for what each call means."""

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
        """Return documents of a kind; without a limit all of them, over as many pages as the server makes of it."""
        query: dict[str, str | int | None] = {
            "selector": selector or None,
            "all": "true" if everything else None,
            "observe": None if observe else "false",
        }
        return self._list(path_of(find_kind(kind)), query, limit, after)

    def _list(self, path: str, query: Query, limit: int | None, after: str) -> DocumentPage:
        items: list[Document] = []
        warnings: dict[str, None] = {}
        revision: int | None = None
        filtered = False
        while True:
            left = PAGE_ITEMS if limit is None else min(limit - len(items), PAGE_ITEMS)
            page = self.ask(shapes.read_page, path, {**query, "limit": left, "continue": after or None})
            items += page.items
            warnings |= dict.fromkeys(page.warnings)
            filtered |= page.filtered
            # Of all pages the first is the oldest: what changed since is what the feed tells from there on.
            revision = page.revision if revision is None else revision
            after = page.next
            if not after or (limit is not None and len(items) >= limit):
                return DocumentPage(items, after, revision, list(warnings), filtered=filtered)

    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        """Return one document."""
        query = {"version": version, "observe": None if observe or version is not None else "false"}
        return self.ask(dict, path_of(kind_of(kind, name), name), query)

    def history(self, kind: str, name: str) -> list[Version]:
        """Return the kept versions of an object."""
        return self.ask(shapes.read_history, path_of(kind_of(kind, name), name, "versions"))

    def samples(self) -> list[Sample]:
        """Return the counters of all domains."""
        return self.ask(shapes.read_samples, "/v1/samples")

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a kind's documents."""
        return self.ask(dict, f"/v1/schemas/{find_kind(kind).command}")

    # --- changing
    def create(self, document: Document, *, key: str = "") -> Accepted:
        """Accept a new document; that of a token has its secret, once."""
        kind = find_kind(str(document.get("kind", "")))
        answer = self.transport.call("POST", path_of(kind), body=document, headers=self.key_header(key, kind))
        value = shapes.read(dict, answer.value)
        return Accepted(value, None) if "document" not in value else self.read_accepted(answer)

    def check(self, document: Document) -> Document:
        """Return the document that `create` would accept."""
        kind = find_kind(str(document.get("kind", "")))
        return self.ask(dict, path_of(kind, "check"), method="POST", body=document)

    def update(
        self, document: Document, *, if_version: int | None = None, message: str = "", key: str = ""
    ) -> Accepted:
        """Accept another metadata and spec for an object; where no version is named, it is written over the newest."""
        named = if_version if if_version is not None else document.get("version")
        attempts = 1 if named is not None else _ATTEMPTS
        while True:
            attempts -= 1
            try:
                return self._update(document, if_version, named, message, key)
            except ConflictError as error:
                if error.details.get("reason") != "version" or not attempts:
                    raise

    def _update(
        self, document: Document, if_version: int | None, named: int | None, message: str, key: str
    ) -> Accepted:
        name = str(document.get("name", ""))
        kind = kind_of(str(document.get("kind", "")), name)
        body = document
        if named is None or not document.keys() >= _CONTENT:
            # What is written is a whole document, of the version that was read; and PUT would make what is not there.
            current = self.get(kind.name, name, observe=False)
            body = {**{field: current[field] for field in _CONTENT}, **document}
            named = current["version"] if named is None else named
        headers = self.key_header(key)
        if key and if_version is None:
            # A repeat has read a newer version; of what a header names, it would be another request.
            body = {**body, "version": named}
        else:
            headers["If-Match"] = f'"{named}"'
        try:
            return self.write("PUT", path_of(kind, name), body, query={"message": message or None}, headers=headers)
        except UsageError as error:
            if error.details.get("status") == _PRECONDITION_FAILED:
                # There was nothing that the condition could mean; in the words of what is not there.
                self.get(kind.name, name, observe=False)
            raise

    def preview(self, document: Document) -> Preview:
        """Return what `create` or `update` would do."""
        kind = find_kind(str(document.get("kind", "")))
        body = document
        if not document.keys() >= _CONTENT:
            current = self.get(kind.name, str(document.get("name", "")), observe=False)
            body = {**{field: current[field] for field in _CONTENT}, **document}
        return self.ask(shapes.read_preview, path_of(kind, "preview"), method="POST", body=body)

    def rollback(
        self, kind: str, name: str, version: int, *, if_version: int | None = None, message: str = ""
    ) -> Accepted:
        """Write a new version that is as an old one."""
        body = {"version": version, **({"message": message} if message else {})}
        return self.write("POST", path_of(kind_of(kind, name), name, "rollback"), body, if_version=if_version)

    def undo(self, kind: str, name: str, *, if_version: int | None = None) -> Accepted:
        """Take the newest change back."""
        return self.write("POST", path_of(kind_of(kind, name), name, "undo"), {}, if_version=if_version)

    def restore(self, kind: str, name: str, *, uid: str = "", new_disks: bool = False) -> Accepted:
        """Bring a deleted object back."""
        body = {**({"uid": uid} if uid else {}), **({"newDisks": True} if new_disks else {})}
        return self.write("POST", path_of(kind_of(kind, name), name, "restore"), body)

    def delete(
        self,
        kind: str,
        name: str,
        *,
        if_version: int | None = None,
        keep_disks: bool = False,
        now: bool = False,
        message: str = "",
        key: str = "",
    ) -> Accepted:
        """Delete an object."""
        which = kind_of(kind, name)
        query = {
            "keepDisks": "true" if keep_disks else None,
            "now": "true" if now else None,
            "message": message or None,
        }
        headers = self.key_header(key, which)
        return self.write("DELETE", path_of(which, name), query=query, if_version=if_version, headers=headers)

    def empty_trash(self, names: Sequence[str] | None = None) -> list[Accepted]:
        """Remove deleted objects for good."""
        if names is None:
            return self.ask(shapes.read_all_accepted, path_of(TRASH), method="DELETE")
        for name in names:
            # All or nothing is begun: a name that is not there is told first.
            self.get(TRASH.name, name, observe=False)
        return [self.write("DELETE", path_of(TRASH, name)) for name in names]

    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None, *, key: str = "") -> Accepted:
        """Do something to a VM."""
        if action not in _VM_ACTIONS:
            raise UsageError(f"VM {name}", f"unknown action {action}", f"known are {', '.join(_VM_ACTIONS)}")
        path = path_of(kind_of(VM.name, name), name, "actions", action)
        # To ask for a state that a VM has already is common, does nothing, and is to leave nothing behind.
        headers = self.key_header(key, VM if action in _REPEATED_ACTIONS else None)
        return self.write("POST", path, parameters or {}, headers=headers)

    def act_on_network(self, name: str, action: str, *, key: str = "") -> Accepted:
        """Do something to a network."""
        if action != "reconcile":
            raise UsageError(f"network {name}", f"unknown action {action}", "known is reconcile")
        path = path_of(kind_of(NETWORK.name, name), name, "actions", action)
        return self.write("POST", path, {}, headers=self.key_header(key, NETWORK))

    def clone(
        self, name: str, new_name: str, *, metadata: Document | None = None, start: bool = False, key: str = ""
    ) -> Accepted:
        """Make a VM like another."""
        body = {"name": new_name, "start": start, **({} if metadata is None else {"metadata": metadata})}
        path = path_of(kind_of(VM.name, name), name, "actions", "clone")
        return self.write("POST", path, body, headers=self.key_header(key, VM))

    def rename(self, name: str, new_name: str, *, if_version: int | None = None) -> Accepted:
        """Give a VM another name."""
        path = path_of(kind_of(VM.name, name), name, "actions", "rename")
        return self.write("POST", path, {"name": new_name}, if_version=if_version)

    def preview_adoption(self, domain: str, *, name: str = "") -> Adoption:
        """Return what `adopt` would do."""
        path = path_of(kind_of(VM.name, domain), domain, "actions", "adopt")
        body = {"dryRun": True, **({"name": name} if name else {})}
        return self.ask(shapes.read_adoption, path, method="POST", body=body)

    def adopt(self, domain: str, *, name: str = "", metadata: Document | None = None) -> Accepted:
        """Take a foreign domain under management."""
        path = path_of(kind_of(VM.name, domain), domain, "actions", "adopt")
        body = {**({"name": name} if name else {}), **({} if metadata is None else {"metadata": metadata})}
        return self.write("POST", path, body)

    def upload_image(
        self,
        name: str,
        path: Path,
        *,
        metadata: Document,
        declared: dict[str, str],
        sent: Callable[[int, int], None] | None = None,
    ) -> Accepted:
        """Send the image in a local file; one that was cut goes on where it was."""
        from backend.remote.uploads import upload_image  # noqa: PLC0415 - few commands send an image

        kind_of(IMAGE.name, name)
        return upload_image(self.transport, name, path, metadata, declared, sent)

    # --- operations
    def wait(self, operation: str, *, timeout: float | None = None, progress: Progress | None = None) -> Document:
        """Return an operation once it ended, over as many connections as it takes."""
        from backend.remote.feed import wait_for_operation  # noqa: PLC0415 - lists wait for nothing

        return wait_for_operation(self.transport, kind_of(OPERATION.name, operation) and operation, timeout, progress)

    def wait_until(self, name: str, state: str, *, timeout: float, progress: Progress | None = None) -> Document:
        """Return a VM once it is in a state."""
        from backend.remote.feed import wait_for_vm  # noqa: PLC0415 - as above

        return wait_for_vm(self.transport, kind_of(VM.name, name) and name, state, timeout, progress)

    def cancel(self, operation: str) -> Document:
        """Ask an operation to end and undo itself."""
        path = path_of(kind_of(OPERATION.name, operation), operation, "actions", "cancel")
        document = self.ask(dict, path, method="POST", body={})
        return shapes.read(dict, document["document"]) if "document" in document else document

    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:  # noqa: ARG002 - the protocol
        """Return 0: the server takes up what was left unfinished by itself."""
        return 0

    # --- watching and consoles
    def watch(
        self, kinds: Sequence[str] = (), *, since: int | None = None, selector: str = ""
    ) -> Iterator[Event | None]:
        """Yield changes until the line is lost; whoever wants more asks again from the last revision on."""
        from backend.remote.feed import watch  # noqa: PLC0415 - as above

        return watch(self.transport, kinds, since, selector)

    def console(self, name: str) -> ConsoleStream:
        """Open a VM's serial console."""
        from backend.remote.consoles import open_stream  # noqa: PLC0415 - as above

        return open_stream(self.transport, path_of(kind_of(VM.name, name), name, "console"), f"console of VM {name}")

    def display(self, name: str) -> ConsoleStream:
        """Open a VM's screen."""
        from backend.remote.consoles import open_stream  # noqa: PLC0415 - as above

        return open_stream(self.transport, path_of(kind_of(VM.name, name), name, "display"), f"screen of VM {name}")

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """Return the last of what a VM's console has said."""
        path = path_of(kind_of(VM.name, name), name, "console-log")
        return self.transport.call("GET", path, query={"limit": min(limit_bytes, _LONGEST_LOG_BYTES)}).body

    def screenshot(self, name: str) -> bytes:
        """Return a picture of a VM's screen as PNG."""
        return self.transport.call("GET", path_of(kind_of(VM.name, name), name, "screenshot")).body

    # --- the whole
    def initialise(self, report: Callable[[str], None]) -> list[str]:
        """Have the server make what a newcomer needs."""
        from backend.remote.transfers import initialise  # noqa: PLC0415 - as above

        return initialise(self.transport, report)

    def diagnose(self) -> list[Finding]:
        """Return what works there and what does not."""
        return self.ask(shapes.read_findings, "/v1/doctor", seconds=LONG_SECONDS)

    def access(self) -> Access:
        """Return who the server takes the caller for, and what they may do."""
        return self.ask(shapes.read_access, "/v1/session")

    def list_audit(self, *, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        """Return entries of the audit trail, the newest first."""
        return self._list("/v1/audit", {"selector": selector or None}, limit, after)

    def export(self) -> Iterator[Document]:
        """Yield the whole store, history included."""
        from backend.remote.transfers import export  # noqa: PLC0415 - as above

        return export(self.transport)

    def load(self, records: Iterable[Document]) -> int:
        """Take an export into an empty store."""
        from backend.remote.transfers import load  # noqa: PLC0415 - as above

        return load(self.transport, records)

    def check_store(self, *, repair: bool = False) -> list[Fault]:
        """Verify the store."""
        body = {"repair": repair}
        return self.ask(shapes.read_faults, "/v1/store/check", method="POST", body=body, seconds=LONG_SECONDS)

    def compact_store(self) -> Compaction:
        """Drop the history that is to be kept no longer."""
        return self.ask(shapes.read_compaction, "/v1/store/compact", method="POST", body={}, seconds=LONG_SECONDS)

    def copy_store(self, source: str, target: str) -> int:
        """Copy all of one store into another, both as the server reaches them."""
        body = {"source": source, "target": target}
        answer = self.ask(dict, "/v1/store/copy", method="POST", body=body, seconds=LONG_SECONDS)
        return shapes.read(int, answer.get("entries"))
