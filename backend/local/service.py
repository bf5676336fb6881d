"""`LocalService`: the Service protocol in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, UsageError
from backend.local.views import check_version, running_operations
from backend.local.whole import WholeHome
from backend.model.documents import Document, complete
from backend.model.kinds import IMAGE, NETWORK, TOKEN, VM, WRITTEN_KINDS, Kind, find_kind
from backend.service import Accepted, Adoption, ConsoleStream, DocumentPage, Event, Preview

if TYPE_CHECKING:
    from pathlib import Path

    from backend.model.samples import Sample
    from backend.model.selectors import Selector
    from backend.store.protocol import Page

START_SECONDS = 60.0
_NO_SESSIONS = "spec.type!=session"


class LocalService(WholeHome):
    """Everything that KC can do, on a store and a host that this process opens."""

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
        if which is TOKEN and not everything:
            selector = f"{selector},{_NO_SESSIONS}" if selector.strip() else _NO_SESSIONS
        accepts = _parse_selector(selector)
        if which is VM:
            return self.observer.list_vms(
                accepts, limit=limit, after=after, everything=everything, observe=observe
            )  # fmt: skip
        page = self.store.list_documents(which.name, where=accepts, limit=limit, after=after)
        if which is NETWORK:
            return self._list_networks(page, observe=observe)
        return DocumentPage(page.items, page.next, page.revision, [])

    def _list_networks(self, page: Page, *, observe: bool) -> DocumentPage:
        networks = [complete(network) for network in page.items]
        if observe and networks:
            from backend.local.network_status import describe_networks  # noqa: PLC0415 - the list of VMs needs none

            networks = describe_networks(self.store, self.hypervisor, networks)
        return DocumentPage(networks, page.next, page.revision, [])

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a kind's documents."""
        from backend.model.schemas import document_schema  # noqa: PLC0415 - pydantic

        return document_schema(find_kind(kind))

    # --- changing
    def check(self, document: Document) -> Document:
        """Return the document that `create` would accept."""
        body = self._prepare(document)
        self.settle(body)
        return body

    def _prepare(self, document: Document) -> Document:
        """Return the body that a new document becomes, but for what is chosen when it is written."""
        from backend.local.creation import describe_warnings, prepare  # noqa: PLC0415 - pydantic
        from backend.local.segments import fit_mtu  # noqa: PLC0415 - as above

        body = prepare(self.store, document)
        if body["kind"] == NETWORK.name:
            fit_mtu(self.hypervisor, body)
        elif body["kind"] == TOKEN.name:
            from backend.local.tokens import check_new  # noqa: PLC0415 - few documents are tokens

            check_new(body)
        return {**body, **describe_warnings(self.store, body)}

    def create(self, document: Document, *, key: str = "") -> Accepted:
        """Accept a new document; see the protocol."""
        accepted = self.once(key, "create", document, lambda bound: self._create(document, bound))
        if key and accepted.document["kind"] == TOKEN.name:
            from backend.local.tokens import explain_repeat  # noqa: PLC0415 - few documents are tokens

            return explain_repeat(accepted)
        return accepted

    def _create(self, document: Document, key: str) -> Accepted:
        body = self._prepare(document)
        warnings = body.pop("status", {})
        kind = find_kind(body["kind"])
        self._check_makeable(kind, body["name"])
        if kind is TOKEN:
            from backend.local import tokens  # noqa: PLC0415 - few documents are tokens

            return tokens.create(self, body, key)
        if kind is VM:
            self.check_domain_name(body["name"])
        operation_type = f"{kind.command}.create" if kind in (VM, NETWORK) else ""
        return _with_status(self.accept(body, operation_type, {}, expect=0, key=key), warnings)

    @staticmethod
    def _check_makeable(kind: Kind, name: str) -> None:
        if kind is IMAGE:
            raise UsageError(
                f"image {name}", "it is not made from a document alone", "kc image upload FILE --name NAME"
            )
        if kind not in WRITTEN_KINDS:
            raise UsageError(f"{kind.title} {name}", "it is not made from a document", "KC makes it by itself")

    def update(
        self, document: Document, *, if_version: int | None = None, message: str = "", key: str = ""
    ) -> Accepted:
        """Accept another metadata and spec for an object; see the protocol."""
        wanted = if_version if if_version is not None else document.get("version")
        # Who reads, changes and asks again under the same key has read a newer version meanwhile.
        asked = [{field: document.get(field) for field in ("kind", "name", "metadata", "spec")}, if_version, message]
        return self.once(key, "update", asked, lambda bound: self._update(document, wanted, message, bound))

    def _update(self, document: Document, wanted: int | None, message: str, key: str) -> Accepted:
        from backend.local.changing import prepare_update  # noqa: PLC0415 - pydantic

        kind, live = self._find_changeable(document)
        check_version(live, wanted)
        return self._change(kind, live, prepare_update(self.store, live, document, message), key)

    def _change(self, kind: Kind, live: Document, body: Document, key: str) -> Accepted:
        """Write the next version of an object, unless it says nothing new, and begin to bring the host to it."""
        from backend.local.creation import describe_warnings  # noqa: PLC0415 - as above
        from backend.local.disks import settle_trash  # noqa: PLC0415 - as above
        from backend.local.segments import fit_mtu  # noqa: PLC0415 - as above
        from backend.model.changes import compare_documents  # noqa: PLC0415 - as above

        is_renamed = body["name"] != live["name"]
        if not is_renamed and not compare_documents(live, body):
            return Accepted(self.observer.show(live) if kind is VM else live, None)
        if kind is NETWORK:
            fit_mtu(self.hypervisor, body)
            accepted = self.accept(body, "network.update", {}, expect=live["version"], key=key)
            return _with_status(accepted, describe_warnings(self.store, body).get("status", {}))
        if kind is not VM:
            return self.accept(body, "", {}, expect=live["version"], key=key)
        # A request that meets a host which does not answer is refused before anything is written.
        self.hypervisor.observe(live["uid"])
        if is_renamed:
            self.check_domain_name(body["name"])
        also = settle_trash(self.store, live, body, self.settings.grace_hours)
        operation_type = "vm.rename" if is_renamed else "vm.update"
        accepted = self.accept(body, operation_type, {}, expect=live["version"], also=also, key=key)
        # What cloud-init would find is looked for where it is new: that takes a while.
        is_said = body["spec"]["userData"] == live["spec"]["userData"]
        return accepted if is_said else _with_status(accepted, describe_warnings(self.store, body).get("status", {}))

    def _find_changeable(self, document: Document) -> tuple[Kind, Document]:
        kind = find_kind(str(document.get("kind", "")))
        name = str(document.get("name", ""))
        if kind not in WRITTEN_KINDS:
            raise UsageError(f"{kind.title} {name}", "it is KC's own and cannot be changed", "")
        return kind, self.find_own(kind, name)

    def preview(self, document: Document) -> Preview:
        """Return what `create` or `update` would do; see the protocol."""
        from backend.local.changing import prepare_update  # noqa: PLC0415 - pydantic
        from backend.local.effects import build_preview, describe_making  # noqa: PLC0415 - as above
        from backend.model.changes import compare_documents  # noqa: PLC0415 - as above

        kind = find_kind(str(document.get("kind", "")))
        name = str(document.get("name", ""))
        if kind in WRITTEN_KINDS and self.store.find(kind.name, name) is not None:
            kind, live = self._find_changeable(document)
            check_version(live, document.get("version"))
            return build_preview(self.store, self.hypervisor, live, prepare_update(self.store, live, document))
        body = self.check(document)
        self._check_makeable(kind, name)
        return Preview(None, {**body, "version": 1, "status": {}}, compare_documents({}, body), describe_making(body))

    def rollback(
        self, kind: str, name: str, version: int, *, if_version: int | None = None, message: str = ""
    ) -> Accepted:
        """Write a new version that is as an old one; see the protocol."""
        from backend.local.changing import prepare_update  # noqa: PLC0415 - pydantic

        which = find_kind(kind)
        live = self.find_own(which, name)
        if which is TOKEN:
            hint = "make another token"
            raise UsageError(f"token {name}", "it is only narrowed: what it was once it is not again", hint)
        check_version(live, if_version)
        old = self.find_version(which, name, version)
        wish = {"kind": kind, "name": live["name"], "metadata": old["metadata"], "spec": old["spec"]}
        body = prepare_update(self.store, live, wish, message or f"rollback to version {version}")
        return self._change(which, live, {**body, "name": old["name"]}, "")

    def undo(self, kind: str, name: str, *, if_version: int | None = None) -> Accepted:
        """Take the newest change back; see the protocol."""
        which = find_kind(kind)
        live = self.find_own(which, name)
        earlier = [entry for entry in self.history(kind, name) if entry.version < live["version"] and entry.document]
        if not earlier:
            raise ConflictError(
                f"{which.title} {name}", "it has no earlier version", f"kc {which.command} delete {name} takes it away"
            )
        expected = live["version"] if if_version is None else if_version
        message = f"undo of version {live['version']}"
        return self.rollback(kind, name, earlier[-1].version, if_version=expected, message=message)

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
        """Delete an object; see the protocol."""
        from backend.local.deleting import Wish, delete  # noqa: PLC0415 - pydantic

        wish = Wish(if_version=if_version, keep_disks=keep_disks, now=now, message=message, key="")
        which = find_kind(kind)
        asked = [which.name, name, *wish]
        return self.once(key, "delete", asked, lambda bound: delete(self, which, name, wish._replace(key=bound)))

    def restore(self, kind: str, name: str, *, uid: str = "", new_disks: bool = False) -> Accepted:
        """Bring a deleted object back; see the protocol."""
        from backend.local.deleting import restore  # noqa: PLC0415 - pydantic

        return restore(self, find_kind(kind), name, uid=uid, new_disks=new_disks)

    def empty_trash(self, names: Sequence[str] | None = None) -> list[Accepted]:
        """Remove deleted objects for good; see the protocol."""
        from backend.local.deleting import empty  # noqa: PLC0415 - pydantic

        return empty(self, names)

    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None, *, key: str = "") -> Accepted:
        """Do something to a VM; see the protocol."""
        from backend.local.acting import act  # noqa: PLC0415 - pydantic

        asked = [name, action, parameters or {}]
        return self.once(key, action, asked, lambda bound: act(self, name, action, parameters or {}, bound))

    def act_on_network(self, name: str, action: str, *, key: str = "") -> Accepted:
        """Do something to a network; see the protocol."""
        if action != "reconcile":
            raise UsageError(f"network {name}", f"unknown action {action}", "known is reconcile")
        network = self.find_own(NETWORK, name)
        return self.once(
            key, "network.reconcile", [name], lambda bound: self.operate_on(network, "network.reconcile", {}, key=bound)
        )

    def clone(
        self, name: str, new_name: str, *, metadata: Document | None = None, start: bool = False, key: str = ""
    ) -> Accepted:
        """Make a VM like another; see the protocol."""
        from backend.local.acting import clone  # noqa: PLC0415 - pydantic

        asked = [name, new_name, metadata, start]
        return self.once(
            key, "clone", asked, lambda bound: clone(self, name, new_name, metadata=metadata, start=start, key=bound)
        )

    def rename(self, name: str, new_name: str, *, if_version: int | None = None) -> Accepted:
        """Give a VM another name; see the protocol."""
        from backend.local.acting import rename  # noqa: PLC0415 - pydantic

        return rename(self, name, new_name, if_version=if_version)

    def preview_adoption(self, domain: str, *, name: str = "") -> Adoption:
        """Return what adopting a domain would do; see the protocol."""
        from backend.local.adopting import preview_adoption  # noqa: PLC0415 - pydantic

        return preview_adoption(self, domain, name)

    def adopt(self, domain: str, *, name: str = "", metadata: Document | None = None) -> Accepted:
        """Take a foreign domain under management; see the protocol."""
        from backend.local.adopting import adopt  # noqa: PLC0415 - pydantic

        return adopt(self, domain, name, metadata)

    def upload_image(
        self,
        name: str,
        path: Path,
        *,
        metadata: Document,
        declared: dict[str, str],
        sent: Callable[[int, int], None] | None = None,  # noqa: ARG002 - nothing goes over a network
    ) -> Accepted:
        """Take the image in a local file; see the protocol."""
        from backend.local.uploading import prepare_image, source_of  # noqa: PLC0415 - pydantic, oslo

        # Nothing is read, let alone written, for a host that does not answer.
        self.hypervisor.find_domain(name)
        origin = source_of(path)
        body = prepare_image(self.store, name, path, metadata, declared)
        return self.accept(body, "image.create", origin, expect=0)

    # --- watching and consoles
    def samples(self) -> list[Sample]:
        """Return the counters of all domains."""
        return self.hypervisor.samples()

    def watch(
        self, kinds: Sequence[str] = (), *, since: int | None = None, selector: str = ""
    ) -> Iterator[Event | None]:
        """Yield changes; see the protocol."""
        return self.observer.watch([find_kind(kind).name for kind in kinds], since, _parse_selector(selector))

    def console(self, name: str) -> ConsoleStream:
        """Open a VM's serial console, what it has said so far first."""
        from backend.local.console import open_console  # noqa: PLC0415

        document = self.find_own(VM, name)
        # A domain that is being started has no console yet; whoever asks wants to see it boot.
        operation = running_operations(self.store).get(document["uid"])
        if operation is not None:
            self.wait(operation["name"], timeout=START_SECONDS)
        return open_console(self.hypervisor, document, self.settings.paths.runtime)

    def display(self, name: str) -> ConsoleStream:
        """Open a VM's screen."""
        return self.hypervisor.display(self.find_own(VM, name)["uid"])

    def screenshot(self, name: str) -> bytes:
        """Return a picture of a VM's screen as PNG."""
        return self.hypervisor.screenshot(self.find_own(VM, name)["uid"])

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """Return the last of what a VM's console has said."""
        from backend.local.console import read_log  # noqa: PLC0415

        return read_log(self.hypervisor, self.find_own(VM, name), limit_bytes)

    # --- the whole; see WholeHome too
    def initialise(self, report: Callable[[str], None]) -> list[str]:
        """Make what a newcomer needs; see the protocol."""
        from backend.local.initialising import initialise  # noqa: PLC0415

        self.audit_call("host.init")
        return initialise(self, report)


def _with_status(accepted: Accepted, status: Document) -> Accepted:
    """Return what was accepted, with more in its document's status than is kept of it."""
    if not status:
        return accepted
    document = accepted.document
    return accepted._replace(document={**document, "status": {**document.get("status", {}), **status}})


def _parse_selector(selector: str) -> Selector | None:
    if not selector.strip():
        return None
    from backend.model.selectors import parse  # noqa: PLC0415 - most lists have none

    return parse(selector)


__all__ = ["LocalService"]
