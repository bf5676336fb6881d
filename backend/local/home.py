"""What every part of the local service stands on: store, hypervisor, runner, and the two ways to begin an operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, NotFoundError
from backend.local.observing import Observer
from backend.local.views import check_readable, check_version, describe_operation
from backend.model.documents import Document, format_time
from backend.model.kinds import VM, Kind, find_kind
from backend.service import Accepted, Version
from backend.store.protocol import Store, Transaction

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
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

    @property
    def runner(self) -> Runner:
        """What runs operations; made when the first is met, since most commands meet none."""
        if self._runner is None:
            from backend.operations.runner import Runner  # noqa: PLC0415 - the list of VMs needs none

            with self._guard:
                self._runner = self._runner or Runner(self.store, self.hypervisor, _label(self.store))
        return self._runner

    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        """Return one document; see the protocol."""
        which = find_kind(kind)
        if version is not None:
            return self.find_version(which, name, version)
        document = self.store.find(which.name, name)
        if document is not None:
            return self.observer.show(document, thorough=observe) if which is VM else document
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
                return entry.document
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
            return document
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
    ) -> Accepted:
        """Write a document and the operation that brings the world to it, in one transaction, and begin with it.

        `also` may write more in the same transaction.
        """
        from backend.operations import journal  # noqa: PLC0415 - the list of VMs needs none

        with self.store.transaction() as transaction:
            if also is not None:
                also(transaction)
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

    def operate_on(
        self, document: Document, operation_type: str, parameters: dict[str, Any], *, expect: int | None = None
    ) -> Accepted:
        """Begin an operation on an object whose document stays as it is; `expect` is the version that it must have."""
        from backend.local.creation import current_user  # noqa: PLC0415 - pydantic
        from backend.operations import journal  # noqa: PLC0415 - as above

        operation = journal.new_operation(operation_type, document, parameters, current_user())
        with self.store.transaction() as transaction:
            live = transaction.get(document["kind"], document["uid"])
            if live is None:
                kind = find_kind(document["kind"])
                raise NotFoundError(
                    f"{kind.title} {document['name']}", "it was just deleted", f"see kc {kind.command} list"
                )
            check_version(live, expect)
            operation = journal.begin(
                transaction, self.store, operation, self.runner.owner if self.operate else None
            )  # fmt: skip
        if self.operate:
            self.runner.start(operation["uid"])
        return Accepted(document, operation)

    def close(self) -> None:
        """Let go of everything."""
        if self._runner is not None:
            self._runner.close()
        self.observer.close()
        self.hypervisor.close()
        self.store.close()


def _label(store: Store) -> str:
    import os  # noqa: PLC0415
    import socket  # noqa: PLC0415

    return f"{os.environ.get('USER') or os.getuid()}@{socket.gethostname()} {store.url}"
