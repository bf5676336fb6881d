"""Documents that remember: updates, rollback, undo, the trash and what comes back from it, on a host in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.homes import opened
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError, UnreachableError, UsageError
from backend.hypervisor.memory import MemoryHypervisor, fail_with
from backend.local import LocalService
from backend.model.documents import Document, format_time


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def service(tmp_path: Path, host: MemoryHypervisor, place: str) -> Iterator[LocalService]:
    service = make_service(tmp_path, host)
    furnish(service)
    lab = {"uplink": "isolated", "ipv4": {"subnet": "10.9.0.0/24", "mode": "dhcp"}}
    settle(service, service.create({"kind": "Network", "name": "lab", "spec": lab}))
    settle(service, service.create(vm_document("web", metadata={"tenant": "acme"})))
    with opened(place, service, tmp_path) as home:
        yield home


def wish(service: LocalService, name: str = "web", **spec: Any) -> Document:
    vm = service.get("VM", name)
    return {"kind": "VM", "name": name, "spec": {**vm["spec"], **spec}}


def change(service: LocalService, **spec: Any) -> Document:
    """Change the VM and return its operation's document once it has ended."""
    return settle(service, service.update(wish(service, **spec)))


def volumes_of(host: MemoryHypervisor, uid: str) -> list[str]:
    return sorted(name.removeprefix(f"kc-{uid}-") for name in host.volumes if uid in name)


def test_an_update_makes_a_version_and_changes_the_domain(service: LocalService, host: MemoryHypervisor) -> None:
    uid = service.get("VM", "web")["uid"]
    ended = change(service, parameters={"memoryMiB": 1024}, nics=[*wish(service)["spec"]["nics"], {"network": "lab"}])
    assert ended["status"]["state"] == "succeeded", ended["status"]
    vm = service.get("VM", "web")
    assert vm["version"] == 2
    assert [nic["id"] for nic in vm["spec"]["nics"]] == ["nic0", "nic1"]
    assert vm["spec"]["nics"][1]["mac"].startswith("52:54:")
    assert vm["status"]["pendingRestart"] == []
    assert host.domains[uid].now().memory_mib == 1024
    assert len(host.domains[uid].plan.nics) == 2


def test_a_reboot_applies_what_waits_for_a_restart(service: LocalService) -> None:
    change(service, type={"name": "small"})
    assert service.get("VM", "web")["status"]["pendingRestart"] == ["spec.parameters.memoryMiB"]
    accepted = service.act("web", "reboot")
    assert accepted.operation is not None
    assert accepted.operation["spec"]["type"] == "vm.restart"
    assert settle(service, accepted)["status"]["state"] == "succeeded"
    status = service.get("VM", "web")["status"]
    assert (status["pendingRestart"], status["power"]) == ([], "running")
    again = service.act("web", "reboot")
    assert again.operation is not None
    assert again.operation["spec"]["type"] == "vm.reboot"
    settle(service, again)


def test_nothing_new_makes_no_version_and_no_operation(service: LocalService) -> None:
    before = service.store.revision()
    vm = service.get("VM", "web")
    accepted = service.update({"kind": "VM", "name": "web", "metadata": vm["metadata"], "spec": vm["spec"]})
    assert accepted.operation is None
    assert accepted.document["version"] == 1
    assert service.store.revision() == before


def test_what_kc_filled_in_stays_where_a_wish_leaves_it_out(service: LocalService) -> None:
    before = service.get("VM", "web")["spec"]
    spec = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}], "description": "front"}
    settle(service, service.update({"kind": "VM", "name": "web", "spec": spec}))
    after = service.get("VM", "web")["spec"]
    assert after == {**before, "description": "front"}
    settle(service, service.act("web", "stop"))
    settle(service, service.update({"kind": "VM", "name": "web", "spec": {**spec, "description": ""}}))
    assert service.get("VM", "web")["spec"]["power"] == "stopped"


def test_metadata_alone_can_change(service: LocalService, host: MemoryHypervisor) -> None:
    settle(service, service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "umbrella"}}))
    vm = service.get("VM", "web")
    assert vm["metadata"] == {"tenant": "umbrella"}
    assert host.domains[vm["uid"]].plan.metadata == '{"tenant": "umbrella"}'


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"image": "other"}, "image cannot change"),
        ({"parameters": {"diskGiB": 1}}, "cannot shrink|minimum"),
        ({"parameters": {"cpus": 400}}, "cpus"),
        ({"nics": [{"id": "nic0", "network": "default"}, {"id": "nic0", "network": "lab"}]}, "twice"),
        ({"colour": "red"}, "unknown field|unexpected"),
        ({"nics": "many"}, "nics"),
        ({"type": 7}, "type"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(service: LocalService, spec: Document, words: str) -> None:
    before = service.store.revision()
    with pytest.raises(RefusedError, match=words):
        service.update(wish(service, **spec))
    with pytest.raises(RefusedError, match=words):
        service.preview(wish(service, **spec))
    assert service.store.revision() == before


def test_of_two_changes_to_one_version_the_second_loses(service: LocalService) -> None:
    read = service.get("VM", "web")
    settle(service, service.update({**read, "metadata": {"tenant": "first"}}))
    with pytest.raises(ConflictError, match="version 2, not 1") as caught:
        service.update({**read, "metadata": {"tenant": "second"}})
    assert caught.value.details["current"] == 2
    with pytest.raises(ConflictError):
        service.update({"kind": "VM", "name": "web", "metadata": {}}, if_version=1)
    with pytest.raises(ConflictError):
        service.delete("VM", "web", if_version=1)
    assert service.get("VM", "web")["metadata"] == {"tenant": "first"}


def test_rollback_gives_back_memory_nics_and_power(service: LocalService, host: MemoryHypervisor) -> None:
    uid = service.get("VM", "web")["uid"]
    first = service.get("VM", "web")["spec"]
    change(service, parameters={"memoryMiB": 1024}, nics=[*first["nics"], {"network": "lab"}])
    settle(service, service.act("web", "stop"))
    accepted = service.rollback("VM", "web", 1)
    assert settle(service, accepted)["status"]["state"] == "succeeded"
    vm = service.get("VM", "web")
    assert (vm["version"], vm["spec"], vm["status"]["power"]) == (4, first, "running")
    assert vm["message"] == "rollback to version 1"
    assert host.domains[uid].plan.memory_mib == 512
    assert len(host.domains[uid].plan.nics) == 1


def test_undo_takes_the_last_change_back_and_twice_is_a_redo(service: LocalService) -> None:
    change(service, description="one")
    settle(service, service.undo("VM", "web"))
    assert service.get("VM", "web")["spec"]["description"] == ""
    settle(service, service.undo("VM", "web"))
    assert service.get("VM", "web")["spec"]["description"] == "one"
    assert [(entry.version, entry.message) for entry in service.history("VM", "web")] == [
        (1, ""), (2, ""), (3, "undo of version 2"), (4, "undo of version 3"),
    ]  # fmt: skip


def test_one_version_cannot_be_undone(service: LocalService) -> None:
    with pytest.raises(ConflictError, match="no earlier version"):
        service.undo("VM", "web")


def test_old_versions_are_shown_as_they_were(service: LocalService) -> None:
    change(service, description="new")
    old = service.get("VM", "web", version=1)
    assert (old["version"], old["spec"]["description"], old["status"]) == (1, "", {})
    with pytest.raises(NotFoundError, match=r"version 9 is not kept.*1 to 2"):
        service.get("VM", "web", version=9)
    with pytest.raises(NotFoundError):
        service.history("VM", "none")


def test_a_preview_tells_all_and_writes_nothing(service: LocalService) -> None:
    before = service.store.revision()
    nics = [{"network": "lab"}, {"network": "default", "id": "nic1"}]
    preview = service.preview(wish(service, parameters={"memoryMiB": 1024}, nics=nics, power="stopped"))
    assert preview.before is not None
    assert preview.after["version"] == 2
    assert "spec.parameters" in {change.where.rpartition(".memoryMiB")[0] for change in preview.changes}
    assert preview.effects == [
        "memoryMiB 512 → 1024: while it runs",
        "nic0 moves from default to lab",
        "nic1 on default is plugged in",
        "the guest is shut down",
    ]
    fresh = service.preview(vm_document("new"))
    assert (fresh.before, fresh.effects) == (None, ["the VM is made and started"])
    assert service.preview({"kind": "VM", "name": "web"}).changes == []
    assert service.store.revision() == before


def test_a_vm_comes_back_from_the_trash_with_its_disk(service: LocalService, host: MemoryHypervisor) -> None:
    vm = service.get("VM", "web")
    name = f"kc-{vm['uid']}-root"
    host.volumes[name] = disk = (host.volumes[name][0], b"what the guest wrote")
    settle(service, service.delete("VM", "web", message="no longer needed"))
    assert host.domains == {}
    assert volumes_of(host, vm["uid"]) == ["root"]
    (entry,) = service.list_documents("Trash", selector="tenant=acme").items
    assert entry["name"].startswith("vm-web-")
    assert entry["spec"]["document"]["spec"] == vm["spec"]
    assert entry["spec"]["until"] > format_time()
    deletion = service.history("VM", "web")[-1]
    assert (deletion.version, deletion.message, deletion.document) == (2, "no longer needed", None)
    assert deletion.by
    assert settle(service, service.restore("VM", "web"))["status"]["state"] == "succeeded"
    back = service.get("VM", "web")
    assert (back["uid"], back["version"], back["spec"]) == (vm["uid"], 3, vm["spec"])
    assert back["status"]["power"] == "running"
    assert host.volumes[name] == disk
    assert service.list_documents("Trash").items == []


def test_emptying_the_trash_removes_the_disks_and_restore_says_so(
    service: LocalService, host: MemoryHypervisor
) -> None:
    uid = service.get("VM", "web")["uid"]
    settle(service, service.delete("VM", "web"))
    for accepted in service.empty_trash():
        assert settle(service, accepted)["status"]["state"] == "succeeded"
    assert volumes_of(host, uid) == []
    assert service.list_documents("Trash").items == []
    with pytest.raises(ConflictError, match=r"disks are gone.*--new-disks"):
        service.restore("VM", "web")
    settle(service, service.restore("VM", "web", new_disks=True))
    assert service.get("VM", "web")["status"]["power"] == "running"
    assert volumes_of(host, uid) == ["console.log", "root", "seed"]


def test_the_trash_empties_itself_when_the_grace_time_has_passed(service: LocalService, host: MemoryHypervisor) -> None:
    uid = service.get("VM", "web")["uid"]
    brief = LocalService(service.store, host, service.settings._replace(grace_hours=0.0001 / 3600))
    settle(brief, brief.delete("VM", "web"))
    assert service.resume() == 1
    assert volumes_of(host, uid) == []
    assert service.list_documents("Trash").items == []


def test_of_several_deleted_ones_the_newest_comes_back_unless_another_is_named(service: LocalService) -> None:
    first = service.get("VM", "web")["uid"]
    settle(service, service.delete("VM", "web"))
    settle(service, service.create(vm_document("web")))
    second = service.get("VM", "web")["uid"]
    with pytest.raises(ConflictError, match="it is there, not deleted"):
        service.restore("VM", "web")
    with pytest.raises(ConflictError, match="another one has the name"):
        service.restore("VM", "web", uid=first)
    settle(service, service.delete("VM", "web"))
    settle(service, service.restore("VM", "web"))
    assert service.get("VM", "web")["uid"] == second
    settle(service, service.delete("VM", "web"))
    settle(service, service.restore("VM", "web", uid=first))
    assert service.get("VM", "web")["uid"] == first


def test_what_a_deleted_vm_needs_is_kept_or_missed_in_words(service: LocalService) -> None:
    settle(service, service.delete("VM", "web"))
    with pytest.raises(ConflictError, match="deleted VMs still need it: vm-web-"):
        service.delete("Image", "starter")
    service.delete("MachineType", "tiny")
    with pytest.raises(ConflictError, match=r"its machine type tiny was deleted.*kc type restore tiny"):
        service.restore("VM", "web")
    service.restore("MachineType", "tiny")
    settle(service, service.restore("VM", "web"))
    assert service.get("VM", "web")["status"]["power"] == "running"


def test_networks_images_and_types_come_back_too(service: LocalService, host: MemoryHypervisor) -> None:
    settle(service, service.delete("VM", "web", now=True))
    settle(service, service.delete("Network", "lab"))
    image = service.get("Image", "starter")
    assert service.delete("Image", "starter").operation is None
    assert settle(service, service.restore("Network", "lab"))["status"]["state"] == "succeeded"
    service.restore("Image", "starter")
    assert service.get("Image", "starter")["spec"] == image["spec"]
    service.delete("Image", "starter")
    for accepted in service.empty_trash():
        settle(service, accepted)
    with pytest.raises(ConflictError, match="bytes are gone"):
        service.restore("Image", "starter")
    assert not [name for name in host.volumes if name.startswith("kc-image-")]


def test_an_image_whose_bytes_another_one_shares_keeps_them(service: LocalService, host: MemoryHypervisor) -> None:
    twin = {**service.get("Image", "starter"), "name": "twin", "uid": "99999999-1111-4111-8111-111111111111"}
    service.accept({key: twin[key] for key in twin if key not in ("version", "status")}, "", {}, expect=0)
    settle(service, service.delete("Image", "twin", now=True))
    assert [name for name in host.volumes if name.startswith(("kc-image-", "kc-starter-"))]


def test_a_failed_change_is_told_where_people_look_and_undo_mends_it(
    service: LocalService, host: MemoryHypervisor
) -> None:
    host.fail = fail_with(FailedError("domain web", "QEMU said no"), "ensure_defined")
    assert change(service, description="x")["status"]["state"] == "failed"
    assert service.get("VM", "web")["status"]["problem"] == "vm.update: QEMU said no"
    host.fail = lambda _call: None
    settle(service, service.undo("VM", "web"))
    assert "problem" not in service.get("VM", "web")["status"]


def test_a_host_that_does_not_answer_refuses_before_anything_is_written(
    service: LocalService, host: MemoryHypervisor
) -> None:
    host.fail = fail_with(UnreachableError("host", "it does not answer"))
    before = service.store.revision()
    with pytest.raises(UnreachableError):
        service.update({"kind": "VM", "name": "web", "metadata": {"a": 1}})
    assert service.store.revision() == before


@pytest.mark.parametrize("kind", ["Operation", "Trash"])
def test_kcs_own_documents_are_not_written_by_hand(service: LocalService, kind: str) -> None:
    with pytest.raises((UsageError, RefusedError, NotFoundError)):
        service.update({"kind": kind, "name": "x", "spec": {}})
    with pytest.raises((UsageError, RefusedError)):
        service.create({"kind": kind, "name": "x", "spec": {}})


def test_a_feed_with_a_selector_tells_what_comes_and_what_leaves(service: LocalService) -> None:
    since = service.store.revision()
    settle(service, service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "umbrella"}}))
    settle(service, service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme"}}))
    seen: list[tuple[str, int]] = []
    for event in service.watch(["VM"], since=since, selector="tenant=acme"):
        if event is None and seen and seen[-1][1] == 3:
            break
        seen += [] if event is None else [(event.type, event.document["version"])]
    assert ("left", 2) in seen or seen[0] == ("updated", 3)
    assert seen[-1][1] == 3


def test_revisions_of_the_feed_never_go_back(service: LocalService) -> None:
    change(service, description="a")
    revisions = []
    for event in service.watch(since=0):
        if event is None:
            break
        revisions.append(event.revision)
    assert revisions == sorted(revisions)


def test_a_fault_of_kcs_own_is_told_and_not_met_for_ever(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("backend.operations.run.discard", stumble)
    accepted = service.delete("VM", "web")
    with pytest.raises(FailedError, match="internal error: ZeroDivisionError"):
        settle(service, accepted)
    monkeypatch.undo()
    other = LocalService(service.store, service.hypervisor, service.settings)
    assert accepted.operation is not None
    other.resume()
    assert other.get("Operation", accepted.operation["name"])["status"]["state"] == "succeeded"


def test_a_deletion_of_a_version_that_was_overtaken_at_the_last_moment_is_refused(service: LocalService) -> None:
    read = service.get("VM", "web")
    settle(service, service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "umbrella"}}))
    # What `delete` does once it has looked: somebody was faster in between.
    with pytest.raises(ConflictError, match="version 2, not 1"):
        service.operate_on(read, "vm.delete", {}, expect=1)
    assert service.store.leases() == []
    settle(service, service.delete("VM", "web", if_version=2))
    with pytest.raises(NotFoundError, match="just deleted"):
        service.operate_on(read, "vm.reboot", {})
    assert service.store.leases() == []


@pytest.mark.parametrize(
    "damage",
    [
        {"name": "../web"},
        {"name": "Web 1"},
        {"uid": "../../etc/kc"},
        {"uid": "image"},
        {"name": "vm-web-1234", "kind": "Trash", "spec": {"target": {"uid": "image"}, "document": {}, "until": ""}},
    ],
)
def test_an_import_passes_the_door_for_names_and_uids(
    tmp_path: Path, service: LocalService, damage: dict[str, Any]
) -> None:
    records = list(service.export())
    entry = next(record for record in records if record.get("table") == "MachineType")
    entry["document"] |= damage
    entry |= {"id": entry["document"]["uid"], "name": entry["document"]["name"], "table": entry["document"]["kind"]}
    fresh = make_service(tmp_path / "fresh", MemoryHypervisor())
    with pytest.raises(RefusedError, match=r"import|valid name|uid"):
        fresh.load(records)
    assert fresh.store.revision() == 0
