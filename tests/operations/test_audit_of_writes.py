"""Every write of the service is in the audit trail, before it is made; what cannot be audited does not happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.actor import Actor, acting_as
from backend.errors import ConflictError, FailedError, NotFoundError
from backend.hypervisor.memory import MemoryDomain, MemoryHypervisor
from backend.hypervisor.plan import DomainOwner, FoundDomain
from backend.local import LocalService
from backend.model.kinds import OPERATION


@pytest.fixture
def service(tmp_path: Path) -> LocalService:
    service = make_service(tmp_path)
    furnish(service)
    settle(service, service.create(vm_document("web", metadata={"tenant": "acme"})))
    return service


def entries_of(service: LocalService, selector: str = "") -> list[dict[str, Any]]:
    """Return the entries, the oldest first."""
    return [item["metadata"] for item in reversed(service.list_audit(selector=selector).items)]


def last(service: LocalService) -> dict[str, Any]:
    return dict(service.list_audit(limit=1).items[0]["metadata"])


def test_an_entry_says_who_did_what_to_which_version(service: LocalService) -> None:
    with acting_as(Actor("alice", "request-7", "tcp")):
        accepted = service.act("web", "stop")
    operation = accepted.operation
    assert operation is not None
    entry = last(service)
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "event": "write", "subject": "alice", "requestId": "request-7", "via": "tcp", "action": "vm.stop",
        "kind": "VM", "name": "web", "uid": accepted.document["uid"], "version": 2, "operation": operation["name"],
        "message": "stop", "outcome": "accepted",
    }  # fmt: skip
    settle(service, accepted)


def test_each_kind_of_write_has_its_action(service: LocalService) -> None:
    def done(call: Any) -> None:
        accepted = call
        if accepted.operation is not None:
            settle(service, accepted)

    since = len(entries_of(service))
    done(service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "x": 1}}))
    done(service.rollback("VM", "web", 1))
    done(service.undo("VM", "web"))
    done(service.rename("web", "web-2"))
    done(service.act("web-2", "snapshot", {"snapshot": "s"}))
    done(service.act("web-2", "restore-snapshot", {"snapshot": "s"}))
    done(service.act("web-2", "delete-snapshot", {"snapshot": "s"}))
    done(service.act("web-2", "reboot"))
    done(service.clone("web-2", "copy"))
    done(service.delete("VM", "copy"))
    done(service.restore("VM", "copy"))
    done(service.delete("VM", "copy", now=True))
    done(service.create({"kind": "MachineType", "name": "mine", "spec": service.get("MachineType", "tiny")["spec"]}))
    done(service.update({"kind": "MachineType", "name": "mine", "metadata": {"x": 1}}))
    done(service.delete("MachineType", "mine", message="enough"))
    done(service.restore("MachineType", "mine"))
    done(service.delete("MachineType", "mine"))
    for accepted in service.empty_trash():
        settle(service, accepted)
    done(service.act_on_network("default", "reconcile"))
    service.compact_store()
    service.check_store()
    service.check_store(repair=True)
    actions = [entry["action"] for entry in entries_of(service)[since:]]
    assert actions == [
        "vm.update", "vm.update", "vm.update", "vm.rename", "vm.snapshot", "vm.restore-snapshot", "vm.delete-snapshot",
        "vm.reboot", "vm.clone", "vm.delete", "vm.restore", "vm.delete", "type.create", "type.update", "type.delete",
        "type.restore", "type.delete", "trash.delete", "network.reconcile", "store.compact", "store.check",
    ]  # fmt: skip
    assert entries_of(service, "action=type.delete")[0]["message"] == "enough"


def test_what_only_reads_leaves_no_trail(tmp_path: Path) -> None:
    service = make_service(tmp_path)
    service.list_documents("VM")
    service.check_store()
    with pytest.raises(NotFoundError):
        service.act("web", "start")
    assert service.list_audit().items == []
    assert not (tmp_path / "data" / "audit").exists()


def test_a_write_that_is_refused_is_no_write(service: LocalService) -> None:
    since = len(entries_of(service))
    with pytest.raises(ConflictError):
        service.create(vm_document("web"))
    with pytest.raises(ConflictError):
        service.update({"kind": "VM", "name": "web", "metadata": {"x": 1}}, if_version=9)
    assert service.update({"kind": "VM", "name": "web"}).operation is None
    assert len(entries_of(service)) == since


@pytest.mark.parametrize("what", ["create", "update", "delete", "act", "type", "compact", "cancel"])
def test_what_cannot_be_audited_does_not_happen(
    service: LocalService, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    calls: dict[str, Any] = {
        "create": lambda: service.create(vm_document("new")),
        "update": lambda: service.update({"kind": "VM", "name": "web", "metadata": {"x": 1}}),
        "delete": lambda: service.delete("VM", "web"),
        "act": lambda: service.act("web", "reboot"),
        "type": lambda: service.delete("MachineType", "large"),
        "compact": service.compact_store,
        "cancel": lambda: service.cancel(_begin(service)),
    }
    operations = len(service.store.list_documents(OPERATION.name).items)

    def fail(*_: object, **__: object) -> None:
        raise FailedError("audit trail", "no room left on its disk", "")

    if what == "cancel":
        name = _begin(service)
        calls["cancel"] = lambda: service.cancel(name)
        operations += 1
    revision = service.store.revision()
    monkeypatch.setattr(service.audit, "record", fail)
    with pytest.raises(FailedError, match="audit trail"):
        calls[what]()
    assert service.store.revision() == revision
    assert len(service.store.list_documents(OPERATION.name).items) == operations
    assert not any(lease.get("cancel") for _, lease in service.store.leases())


def _begin(service: LocalService) -> str:
    """Return an operation that nobody goes on with."""
    service.operate = False
    operation = service.act("web", "reboot").operation
    assert operation is not None
    return str(operation["name"])


def test_a_cancel_is_a_write(service: LocalService) -> None:
    name = _begin(service)
    service.cancel(name)
    entry = last(service)
    assert (entry["action"], entry["kind"], entry["name"]) == ("op.cancel", "Operation", name)


def test_a_repeated_request_is_written_once(service: LocalService) -> None:
    for _ in range(2):
        service.create(vm_document("keyed"), key="k")
    assert len(entries_of(service, "name=keyed")) == 1


def test_what_is_adopted_and_imported_is_told(tmp_path: Path) -> None:
    host = MemoryHypervisor()
    service = make_service(tmp_path / "one", host)
    uid = "77777777-7777-4777-8777-777777777777"
    found = FoundDomain(
        uid,
        "old",
        DomainOwner(),
        "running",
        "x86_64",
        "bios",
        1,
        512,
        "",
        autostart=True,
        nics=(),
        disks=(),
        untouched=(),
    )
    host.domains[uid] = MemoryDomain(uid, "old", None, "running", found=found)
    settle(service, service.adopt("old"))
    assert [entry["action"] for entry in entries_of(service)] == ["type.create", "vm.adopt"]
    other = make_service(tmp_path / "two", host)
    other.load(list(service.export()))
    assert [entry["action"] for entry in entries_of(other)] == ["store.import"]


def test_operations_have_the_metadata_of_what_they_are_about(service: LocalService) -> None:
    settle(service, service.delete("VM", "web"))
    for accepted in service.empty_trash():
        settle(service, accepted)
    types = {op["spec"]["type"] for op in service.list_documents("Operation", selector="tenant=acme").items}
    assert types == {"vm.create", "vm.delete", "trash.purge"}


def test_a_full_access_is_the_own_users(service: LocalService) -> None:
    with acting_as(Actor("alice")):
        access = service.access()
    assert (access.subject, access.scopes) == ("alice", ((("*",), ""),))
