"""What every part of the local service stands on: store, hypervisor, runner, and the two ways to begin an operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, KCError, NotFoundError
from backend.local.observing import Observer
from backend.local.views import check_readable, check_version, describe_operation
from backend.model.actions import name_action
from backend.model.documents import Document, complete, format_time
from backend.model.kinds import NETWORK, VM, Kind, find_kind
from backend.service import Accepted, Version
from backend.store.protocol import Store, Transaction

if TYPE_CHECKING:
    from backend.audit import AuditTrail
    from backend.hypervisor.protocol import Hypervisor
    from backend.operations import idempotency
    from backend.operations.runner import Runner
    from backend.settings import Settings


class Home:
    """Documents in a store, operations on threads of this process, VMs on one libvirt host."""

    def __init__(self, store: Store, hypervisor: Hypervisor, settings: Settings, *, operate: bool = True) -> None:
        self.store = store
        self.hypervisor = hypervisor
        self.settings = settings
        self.operate = operate
        self.observer = Observer(store, hypervisor)
        self._guard = threading.Lock()
        self._runner: Runner | None = None
        self._audit: AuditTrail | None = None

    @property
    def audit(self) -> AuditTrail:
        """The audit trail; a command that only reads has none."""
        if self._audit is None:
            from backend.audit import AuditTrail  # noqa: PLC0415 - the list of VMs needs none

            with self._guard:
                self._audit = self._audit or AuditTrail(self.settings.paths.data / "audit")
        return self._audit

    def audit_call(self, action: str, **fields: Any) -> None:
        """Write to the audit trail, and to its disk, that somebody changes something; raise FailedError.

        It is called right before the change is made, inside its transaction where it has one: what cannot be audited
        does not happen.
        """
        from backend.actor import current_actor  # noqa: PLC0415 - as above

        actor = current_actor()
        who = {"subject": actor.subject, "requestId": actor.request_id, "via": actor.via}
        self.audit.record({"event": "write", **who, "action": action, **fields, "outcome": "accepted"}, durable=True)

    def audit_change(self, document: Document, action: str, operation: Document | None = None) -> None:
        """Write to the audit trail what is about to become of an object; see `audit_call`."""
        about = {
            **{field: document.get(field, "") for field in ("kind", "name", "uid", "version")},
            "operation": operation["name"] if operation is not None else "",
            "message": document.get("message", ""),
        }
        self.audit_call(action, **{field: value for field, value in about.items() if value != ""})

    @property
    def runner(self) -> Runner:
        """What runs operations; made when the first is met, since most commands meet none."""
        if self._runner is None:
            from backend.operations.runner import Runner  # noqa: PLC0415 - the list of VMs needs none

            with self._guard:
                self._runner = self._runner or Runner(
                    self.store, self.hypervisor, _label(self.store), keep_days=self.settings.operation_days
                )
        return self._runner

    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        """Return one document; see the protocol."""
        which = find_kind(kind)
        if version is not None:
            return self.find_version(which, name, version)
        document = self.store.find(which.name, name)
        if document is not None:
            if which is NETWORK and observe:
                from backend.local.network_status import inspect_network  # noqa: PLC0415 - the list of VMs needs none

                return inspect_network(self.store, self.hypervisor, complete(document))
            if which is not VM:
                return complete(document)
            shown = self.observer.show(document, thorough=observe)
            if not observe:
                return shown
            from backend.local.inspecting import inspect  # noqa: PLC0415 - the list of VMs needs none

            return inspect(self.store, self.hypervisor, shown)
        if which is VM and observe:
            foreign = self.observer.find_foreign(name)
            if foreign is not None:
                return foreign
        raise NotFoundError(f"{which.title} {name}", f"no such {which.title}", f"see kc {which.command} list")

    def history(self, kind: str, name: str) -> list[Version]:
        """Return the kept versions of an object; see the protocol."""
        which = find_kind(kind)
        document = self.store.find(which.name, name)
        uid = document["uid"] if document is not None else self.store.find_deleted(which.name, name)
        kept = self.store.history(which.name, uid) if uid else []
        if not kept:
            raise NotFoundError(f"{which.title} {name}", f"no such {which.title}", f"see kc {which.command} list")
        return [
            Version(entry.version, format_time(entry.at), entry.by, entry.message, entry.document) for entry in kept
        ]

    def find_version(self, kind: Kind, name: str, version: int) -> Document:
        """Return an object as it was at a version; raise NotFoundError where that is not kept."""
        kept = self.history(kind.name, name)
        for entry in kept:
            if entry.version == version:
                if entry.document is None:
                    raise NotFoundError(
                        f"{kind.title} {name}",
                        f"version {version} is its deletion",
                        f"version {version - 1} is the last",
                    )
                return complete(entry.document)
        raise NotFoundError(
            f"{kind.title} {name}",
            f"version {version} is not kept",
            f"kept are {kept[0].version} to {kept[-1].version}",
        )

    def find_own(self, kind: Kind, name: str) -> Document:
        """Return a live document; raise ConflictError for a foreign VM, NotFoundError."""
        document = self.store.find(kind.name, name)
        if document is not None:
            check_readable(document)
            return complete(document)
        if kind is VM and self.observer.find_foreign(name) is not None:
            raise ConflictError(f"VM {name}", "it is foreign: this KC did not make it", "use virsh, or its own KC")
        raise NotFoundError(f"{kind.title} {name}", f"no such {kind.title}", f"see kc {kind.command} list")

    def check_domain_name(self, name: str) -> None:
        """Raise ConflictError where the host has a domain of that name."""
        domain = self.hypervisor.find_domain(name)
        if domain is None:
            return
        owner = self.hypervisor.owner_of(domain.uid)
        who = f"a VM of {owner.label}" if owner.label else "a domain that no KC made"
        raise ConflictError(f"VM {name}", f"the host has {who} of that name", "choose another name")

    def accept(
        self,
        body: Document,
        operation_type: str,
        parameters: dict[str, Any],
        *,
        expect: int | None,
        also: Callable[[Transaction], None] | None = None,
        key: str = "",
        action: str = "",
    ) -> Accepted:
        """Write a document and the operation that brings the world to it, in one transaction, and begin with it.

        `also` may write more in the same transaction; `key` comes from `once`. What only one object can have (an
        address, a VNI) is settled in it. `action` is what the audit trail calls it where that does not follow.
        """
        from backend.local.segments import follow_gateway  # noqa: PLC0415 - the list of VMs needs none
        from backend.operations import idempotency, journal  # noqa: PLC0415 - as above

        with self.store.transaction() as transaction:
            if also is not None:
                also(transaction)
            self.settle(body)
            if body["kind"] == VM.name:
                follow_gateway(self.store, transaction, body)
            written = transaction.put(body, expect=expect)
            call = "create" if expect == 0 else "update"
            action = action or name_action(operation_type or f"{find_kind(written['kind']).command}.{call}")
            if not operation_type:
                if key:
                    idempotency.record(transaction, self.store, key, written, self._use(call, body["updatedBy"]))
                self.audit_change(written, action)
                return Accepted(written, None)
            operation = journal.new_operation(operation_type, written, parameters, body["updatedBy"])
            if key:
                days = self.settings.operation_days
                operation = idempotency.claim(transaction, self.store, key, operation, days)
            owner = self.runner.owner if self.operate else None
            operation = journal.begin(transaction, self.store, operation, owner)
            self.audit_change(written, action, operation)
        if self.operate:
            self.runner.start(operation["uid"])
        if written["kind"] == VM.name:
            status = {"power": "absent", **written.get("status", {}), "addresses": []}
            written = {**written, "status": {**status, "operation": describe_operation(operation)}}
        return Accepted(written, operation)

    def settle(self, body: Document) -> None:
        """Choose what only one object can have where a document leaves it to KC; raise ConflictError for what is taken.

        Inside a transaction what is free here stays so until it is written.
        """
        from backend.local.allocation import settle_addresses  # noqa: PLC0415 - the list of VMs needs none
        from backend.local.segments import settle_network  # noqa: PLC0415 - as above

        if body["kind"] == VM.name:
            settle_addresses(self.store, body)
        elif body["kind"] == NETWORK.name:
            settle_network(self.store, body)

    def operate_on(
        self,
        document: Document,
        operation_type: str,
        parameters: dict[str, Any],
        *,
        expect: int | None = None,
        key: str = "",
    ) -> Accepted:
        """Begin an operation on an object whose document stays as it is.

        `expect` is the version that it must have; `key` comes from `once`.
        """
        from backend.local.creation import current_user  # noqa: PLC0415 - pydantic
        from backend.operations import idempotency, journal  # noqa: PLC0415 - as above

        operation = journal.new_operation(operation_type, document, parameters, current_user())
        with self.store.transaction() as transaction:
            live = transaction.get(document["kind"], document["uid"])
            if live is None:
                kind = find_kind(document["kind"])
                raise NotFoundError(
                    f"{kind.title} {document['name']}", "it was just deleted", f"see kc {kind.command} list"
                )
            check_version(live, expect)
            if key:
                days = self.settings.operation_days
                operation = idempotency.claim(transaction, self.store, key, operation, days)
            owner = self.runner.owner if self.operate else None
            operation = journal.begin(transaction, self.store, operation, owner)
            self.audit_change(live, name_action(operation_type), operation)
        if self.operate:
            self.runner.start(operation["uid"])
        return Accepted(document, operation)

    def once(self, key: str, call: str, asked: Any, perform: Callable[[str], Accepted]) -> Accepted:
        """Return what `perform` gives; or, where the same was asked with the same key before, what it gave then.

        `asked` are the call's arguments, as JSON values; `perform` hands what it is given to `accept` or `operate_on`
        as their `key`. Raises ConflictError for a key under which something else was asked.
        """
        if not key:
            return perform("")
        from backend.local.creation import current_user  # noqa: PLC0415 - pydantic
        from backend.operations import idempotency  # noqa: PLC0415 - few requests have a key

        bound = idempotency.bind(key, call, asked)
        use = self._use(call, current_user())
        earlier = idempotency.recall(self.store, self.store.identity, bound, use.keep_days)
        if earlier is None:
            try:
                accepted = perform(bound)
            except KCError:
                # Another process may have been faster with the very same request; then that is what came of it.
                earlier = idempotency.recall(self.store, self.store.identity, bound, use.keep_days)
                if earlier is None:
                    raise
            else:
                idempotency.ensure_recorded(self.store, bound, accepted.document, use)
                return accepted
        return idempotency.repeat(self.store, earlier)

    def _use(self, call: str, by: str) -> idempotency.Use:
        from backend.operations.idempotency import Use  # noqa: PLC0415 - as above

        return Use(call, by, self.settings.operation_days)

    def close(self) -> None:
        """Let go of everything."""
        if self._runner is not None:
            self._runner.close()
        self.observer.close()
        self.hypervisor.close()
        self.store.close()
        if self._audit is not None:
            self._audit.close()


def _label(store: Store) -> str:
    import os  # noqa: PLC0415
    import socket  # noqa: PLC0415

    return f"{os.environ.get('USER') or os.getuid()}@{socket.gethostname()} {store.url}"
