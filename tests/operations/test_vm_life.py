"""The whole life of a VM on a host in memory: power, disks, snapshots, clones, names, drift, adoption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.homes import opened
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.errors import ConflictError, NotFoundError, RefusedError, UsageError
from backend.hypervisor.memory import MemoryDomain, MemoryHypervisor
from backend.hypervisor.plan import DomainOwner, FoundDomain, FoundNic
from backend.local import LocalService
from backend.model.documents import VM_ADDITIONS, Document
from backend.model.schemas import VMSpec
from backend.service import Accepted

GIB = 1 << 30
STRANGER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def service(tmp_path: Path, host: MemoryHypervisor, place: str) -> Iterator[LocalService]:
    service = make_service(tmp_path, host)
    furnish(service)
    done(service, service.create(vm_document("web", metadata={"tenant": "acme"})))
    with opened(place, service, tmp_path) as home:
        yield home


def done(service: LocalService, accepted: Accepted) -> Document:
    """Return the VM once what was accepted has succeeded."""
    ended = settle(service, accepted)
    assert ended["status"]["state"] == "succeeded", ended["status"]
    return accepted.document


def change(service: LocalService, name: str = "web", **spec: Any) -> Document:
    vm = service.get("VM", name)
    done(service, service.update({"kind": "VM", "name": name, "spec": {**vm["spec"], **spec}}))
    return service.get("VM", name)


def disk(host: MemoryHypervisor, vm: Document, name: str) -> str:
    return f"kc-{vm['uid']}-{name}" if f"kc-{vm['uid']}-{name}" in host.volumes else ""


def write(host: MemoryHypervisor, vm: Document, name: str, data: bytes) -> None:
    volume = f"kc-{vm['uid']}-{name}"
    host.volumes[volume] = (host.volumes[volume][0], data)


def read(host: MemoryHypervisor, vm: Document, name: str) -> bytes:
    return host.volumes[f"kc-{vm['uid']}-{name}"][1]


# --- power


def test_a_paused_vm_stays_paused_while_it_is_changed_and_goes_on_when_told(service: LocalService) -> None:
    done(service, service.act("web", "pause"))
    vm = service.get("VM", "web")
    assert (vm["spec"]["power"], vm["status"]["power"], vm["version"]) == ("paused", "paused", 2)
    assert service.act("web", "pause").operation is None
    assert change(service, description="slow")["status"]["power"] == "paused"
    done(service, service.act("web", "resume"))
    vm = service.get("VM", "web")
    assert (vm["spec"]["power"], vm["status"]["power"]) == ("running", "running")


def test_what_is_off_is_neither_paused_nor_resumed(service: LocalService) -> None:
    done(service, service.act("web", "stop"))
    for action in ("pause", "resume"):
        with pytest.raises(ConflictError, match="it is stopped"):
            service.act("web", action)
    with pytest.raises(UsageError, match="reconcile"):
        service.act("web", "fly")


def test_a_vm_starts_with_its_host_while_it_is_to_run(service: LocalService, host: MemoryHypervisor) -> None:
    uid = service.get("VM", "web")["uid"]
    assert host.domains[uid].plan.autostart
    done(service, service.act("web", "stop"))
    assert not host.domains[uid].plan.autostart
    change(service, autostart=False, power="running")
    assert not host.domains[uid].plan.autostart


# --- disks


def test_a_disk_comes_grows_goes_to_the_trash_and_comes_back_with_its_data(
    service: LocalService, host: MemoryHypervisor
) -> None:
    vm = change(service, disks=[{"sizeGiB": 3}])
    assert vm["spec"]["disks"] == [{"id": "disk1", "sizeGiB": 3}]
    assert vm["status"]["disks"][1]["sizeBytes"] == 3 * GIB
    assert [plan.id for plan in host.domains[vm["uid"]].now().disks] == ["root", "disk1"]
    assert change(service, disks=[{"id": "disk1", "sizeGiB": 5}])["status"]["disks"][1]["sizeBytes"] == 5 * GIB
    write(host, vm, "disk1", b"data")
    vm = change(service, disks=[])
    assert [plan.id for plan in host.domains[vm["uid"]].now().disks] == ["root"]
    (entry,) = service.list_documents("Trash").items
    assert (entry["spec"]["disk"], entry["name"][:9]) == ("disk1", "disk-web-")
    vm = change(service, disks=[{"sizeGiB": 1}])
    assert vm["spec"]["disks"] == [{"id": "disk2", "sizeGiB": 1}]
    done(service, service.undo("VM", "web"))
    done(service, service.rollback("VM", "web", 3))
    vm = service.get("VM", "web")
    assert vm["spec"]["disks"] == [{"id": "disk1", "sizeGiB": 5}]
    assert read(host, vm, "disk1") == b"data"
    assert [entry["spec"]["disk"] for entry in service.list_documents("Trash").items] == ["disk2"]


def test_a_disk_that_is_left_out_of_a_wish_stays(service: LocalService) -> None:
    change(service, disks=[{"sizeGiB": 3}])
    spec = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}], "description": "front"}
    done(service, service.update({"kind": "VM", "name": "web", "spec": spec}))
    assert [one["id"] for one in service.get("VM", "web")["spec"]["disks"]] == ["disk1"]


def test_a_disk_in_the_trash_is_deleted_with_its_time_and_not_while_it_is_in_use(
    service: LocalService, host: MemoryHypervisor
) -> None:
    vm = change(service, disks=[{"sizeGiB": 3}])
    change(service, disks=[])
    assert disk(host, vm, "disk1")
    for accepted in service.empty_trash():
        done(service, accepted)
    assert not disk(host, vm, "disk1")
    assert service.list_documents("Trash").items == []


def test_a_vm_that_is_deleted_at_once_takes_its_removed_disks_with_it(
    service: LocalService, host: MemoryHypervisor
) -> None:
    change(service, disks=[{"sizeGiB": 3}])
    vm = change(service, disks=[])
    done(service, service.delete("VM", "web", now=True))
    assert [name for name in host.volumes if vm["uid"] in name] == []
    assert service.list_documents("Trash").items == []


def test_a_vm_comes_back_from_the_trash_with_all_its_disks(service: LocalService, host: MemoryHypervisor) -> None:
    vm = change(service, disks=[{"sizeGiB": 3}])
    write(host, vm, "disk1", b"data")
    done(service, service.delete("VM", "web"))
    done(service, service.restore("VM", "web"))
    assert read(host, vm, "disk1") == b"data"
    assert host.domains[vm["uid"]].power == "running"


def test_no_disk_shrinks(service: LocalService) -> None:
    change(service, disks=[{"sizeGiB": 3}])
    with pytest.raises(RefusedError, match="disk1 cannot shrink from 3 to 2 GiB"):
        change(service, disks=[{"id": "disk1", "sizeGiB": 2}])
    with pytest.raises(RefusedError, match="an id is there twice"):
        change(service, disks=[{"id": "a", "sizeGiB": 2}, {"id": "a", "sizeGiB": 2}])
    with pytest.raises(RefusedError, match="root is the id of something else"):
        change(service, disks=[{"id": "root", "sizeGiB": 2}])


def test_a_disc_is_put_into_the_drive_and_taken_out_and_its_image_stays_meanwhile(
    service: LocalService, host: MemoryHypervisor
) -> None:
    vm = change(service, cdrom="starter")
    assert host.domains[vm["uid"]].now().cdrom
    preview = service.preview({"kind": "VM", "name": "web", "spec": {**vm["spec"], "cdrom": None}})
    assert "starter is ejected" in preview.effects
    assert not host.domains[change(service, cdrom=None)["uid"]].now().cdrom


# --- snapshots


def test_a_snapshot_brings_disks_and_document_back(service: LocalService, host: MemoryHypervisor) -> None:
    vm = service.get("VM", "web")
    write(host, vm, "root", b"before")
    done(service, service.act("web", "snapshot", {"snapshot": "clean", "description": "as it came"}))
    change(service, description="changed")
    write(host, vm, "root", b"after")
    (shown,) = service.get("VM", "web")["status"]["snapshots"]
    assert shown | {"at": ""} == {
        "name": "clean", "at": "", "version": 1, "hasMemory": True, "method": "internal", "description": "as it came",
    }  # fmt: skip
    done(service, service.act("web", "restore-snapshot", {"snapshot": "clean"}))
    vm = service.get("VM", "web")
    assert (vm["version"], vm["spec"]["description"], vm["message"]) == (3, "", "restored snapshot clean")
    assert read(host, vm, "root") == b"before"
    assert vm["status"]["drift"] == []
    done(service, service.act("web", "delete-snapshot", {"snapshot": "clean"}))
    assert service.get("VM", "web")["status"]["snapshots"] == []


def test_a_snapshot_of_what_is_off_leaves_it_off(service: LocalService) -> None:
    done(service, service.act("web", "stop"))
    done(service, service.act("web", "snapshot", {"snapshot": "cold"}))
    done(service, service.act("web", "start"))
    done(service, service.act("web", "restore-snapshot", {"snapshot": "cold"}))
    vm = service.get("VM", "web")
    assert (vm["spec"]["power"], vm["status"]["power"]) == ("stopped", "stopped")


def test_a_snapshot_with_other_disks_is_refused_before_anything_is_done(service: LocalService) -> None:
    done(service, service.act("web", "snapshot", {"snapshot": "clean"}))
    version = change(service, disks=[{"sizeGiB": 1}])["version"]
    with pytest.raises(ConflictError, match="taken with other disks: disk1"):
        service.act("web", "restore-snapshot", {"snapshot": "clean"})
    assert service.get("VM", "web")["version"] == version


def test_snapshots_have_names_of_their_own(service: LocalService) -> None:
    done(service, service.act("web", "snapshot", {"snapshot": "clean"}))
    with pytest.raises(ConflictError, match="it has a snapshot clean already"):
        service.act("web", "snapshot", {"snapshot": "clean"})
    with pytest.raises(RefusedError, match=r"no valid name|does not match"):
        service.act("web", "snapshot", {"snapshot": "../etc"})
    with pytest.raises(NotFoundError, match="no snapshot none"):
        service.act("web", "restore-snapshot", {"snapshot": "none"})
    done(service, service.act("web", "snapshot"))
    assert len(service.get("VM", "web")["status"]["snapshots"]) == 2


def test_a_vm_takes_its_snapshots_with_it(service: LocalService, host: MemoryHypervisor) -> None:
    done(service, service.act("web", "snapshot", {"snapshot": "clean"}))
    done(service, service.delete("VM", "web"))
    done(service, service.restore("VM", "web"))
    assert service.get("VM", "web")["status"]["snapshots"] == []


# --- copies and names


def test_a_clone_has_the_same_disks_and_an_identity_of_its_own(service: LocalService, host: MemoryHypervisor) -> None:
    web = change(service, disks=[{"sizeGiB": 3}])
    write(host, web, "root", b"root")
    write(host, web, "disk1", b"data")
    done(service, service.clone("web", "web-copy"))
    copy = service.get("VM", "web-copy")
    assert (copy["version"], copy["metadata"], copy["status"]["power"]) == (1, {"tenant": "acme"}, "stopped")
    assert copy["uid"] != web["uid"]
    assert copy["spec"]["nics"][0]["mac"] != web["spec"]["nics"][0]["mac"]
    assert (read(host, copy, "root"), read(host, copy, "disk1")) == (b"root", b"data")
    assert read(host, copy, "seed") != read(host, web, "seed")
    done(service, service.clone("web", "runs", metadata={"a": 1}, start=True))
    runs = service.get("VM", "runs")
    assert (runs["status"]["power"], runs["metadata"]) == ("running", {"a": 1})


def test_a_clone_that_fails_leaves_nothing(service: LocalService, host: MemoryHypervisor) -> None:
    host.capacity_bytes = 1
    ended = settle(service, service.clone("web", "web-copy"))
    assert ended["status"]["state"] == "failed"
    with pytest.raises(NotFoundError):
        service.get("VM", "web-copy")
    assert len({name.split("-root")[0] for name in host.volumes if name.endswith("-root")}) == 1


def test_two_guests_do_not_get_one_static_address(service: LocalService) -> None:
    nics = [{"network": "default", "ipv4": {"mode": "static", "address": "192.168.150.9/24"}}]
    done(service, service.create(vm_document("fixed", nics=nics)))
    done(service, service.clone("fixed", "other"))
    assert service.get("VM", "other")["spec"]["nics"][0]["ipv4"] == {"mode": "static", "address": "192.168.150.2/24"}


def test_a_vm_is_renamed_and_the_name_can_be_undone(service: LocalService, host: MemoryHypervisor) -> None:
    done(service, service.act("web", "stop"))
    done(service, service.rename("web", "front"))
    front = service.get("VM", "front")
    assert (front["version"], front["message"], host.domains[front["uid"]].name) == (3, "renamed from web", "front")
    with pytest.raises(NotFoundError):
        service.get("VM", "web")
    assert service.rename("front", "front").operation is None
    done(service, service.undo("VM", "front"))
    assert service.get("VM", "web")["uid"] == front["uid"]
    assert host.domains[front["uid"]].name == "web"


def test_a_running_vm_gets_its_new_name_at_its_next_start(service: LocalService, host: MemoryHypervisor) -> None:
    done(service, service.rename("web", "front"))
    front = service.get("VM", "front")
    assert (front["status"]["pendingRestart"], host.domains[front["uid"]].name) == (["name"], "web")
    with pytest.raises(ConflictError, match="has a VM of"):
        service.create(vm_document("web"))
    done(service, service.act("front", "reboot"))
    assert host.domains[front["uid"]].name == "front"


def test_a_name_that_is_taken_or_none_is_refused(service: LocalService) -> None:
    done(service, service.create(vm_document("db")))
    with pytest.raises(ConflictError, match="the name is taken"):
        service.rename("web", "db")
    with pytest.raises(RefusedError, match=r"not a valid name|does not match"):
        service.rename("web", "Not A Name")


# --- drift


def test_what_somebody_else_changed_is_shown_and_mended_on_request(
    service: LocalService, host: MemoryHypervisor
) -> None:
    vm = service.get("VM", "web")
    assert vm["status"]["drift"] == []
    assert service.act("web", "reconcile").operation is None
    host.tamper(vm["uid"], cpus=2, autostart=False)
    host.set_power(vm["uid"], "stopped")
    drift = {line["path"]: (line["wanted"], line["found"]) for line in service.get("VM", "web")["status"]["drift"]}
    assert drift["spec.parameters.cpus"] == ("1, up to 2", "2")
    assert drift["spec.power"] == ("running", "stopped")
    assert "spec.autostart" in drift
    done(service, service.act("web", "reconcile"))
    mended = service.get("VM", "web")
    assert (mended["status"]["drift"], mended["status"]["power"], mended["version"]) == ([], "running", 1)


def test_a_newer_machine_type_is_shown_until_the_vm_is_moved(service: LocalService) -> None:
    spec = service.get("MachineType", "tiny")["spec"]
    service.update({"kind": "MachineType", "name": "tiny", "spec": {**spec, "description": "newer"}})
    vm = service.get("VM", "web")
    assert (vm["spec"]["type"]["version"], vm["status"]["newerType"]) == (1, 2)
    vm = change(service, type={"name": "tiny", "version": 2})
    assert vm["spec"]["type"]["version"] == 2
    assert "newerType" not in vm["status"]


# --- adoption


@pytest.fixture
def stranger(host: MemoryHypervisor) -> str:
    found = FoundDomain(
        STRANGER, "Old Mail", DomainOwner(), "running", "x86_64", "bios", 2, 1024, "the mail", autostart=True,
        nics=(FoundNic("52:54:00:00:00:01", "network", "kc-default"), FoundNic("52:54:00:00:00:02", "bridge", "br7"),
              ),
        disks=("/srv/mail.img",), untouched=("disk /srv/mail.img", "graphics spice"),
    )  # fmt: skip
    host.domains[STRANGER] = MemoryDomain(STRANGER, "Old Mail", None, "running", found=found)
    return STRANGER


def test_an_adopted_domain_is_managed_and_what_is_not_understood_stays(
    service: LocalService, host: MemoryHypervisor, stranger: str
) -> None:
    before = service.store.revision()
    shown = service.preview_adoption("Old Mail")
    assert shown.document["name"] == "old-mail"
    assert "disk /srv/mail.img" in shown.untouched
    assert service.store.revision() == before
    done(service, service.adopt("Old Mail", metadata={"tenant": "acme"}))
    vm = service.get("VM", "old-mail")
    assert (vm["uid"], vm["version"], vm["metadata"], vm["spec"]["image"]) == (stranger, 1, {"tenant": "acme"}, None)
    assert [nic["mac"][-2:] for nic in vm["spec"]["nics"]] == ["01", "02"]
    assert vm["spec"]["nics"][1]["network"]["name"] == "br7"
    assert vm["status"]["power"] == "running"
    assert host.owner_of(stranger).owner == service.store.identity
    vm = change(service, "old-mail", parameters={"cpus": 2, "memoryMiB": 512})
    assert host.domains[stranger].plan.memory_mib == 512
    with pytest.raises(RefusedError, match="adopted"):
        service.clone("old-mail", "copy")
    with pytest.raises(ConflictError, match="manages it already"):
        service.adopt(stranger)


def test_an_adopted_domain_outlives_its_document_and_can_come_back(
    service: LocalService, host: MemoryHypervisor, stranger: str
) -> None:
    done(service, service.adopt(stranger, name="mail"))
    done(service, service.delete("VM", "mail"))
    assert host.domains[stranger].power == "running"
    assert host.owner_of(stranger) == DomainOwner()
    done(service, service.restore("VM", "mail"))
    assert host.owner_of(stranger).owner == service.store.identity
    done(service, service.delete("VM", "mail", now=True))
    done(service, service.adopt(stranger, name="mail-2"))
    assert service.get("VM", "mail-2")["spec"]["adopted"]


def test_a_domain_on_a_network_that_is_not_there_is_not_adopted(service: LocalService, host: MemoryHypervisor) -> None:
    nics = (FoundNic("52:54:00:00:00:01", "network", "gone"),)
    found = FoundDomain(
        STRANGER, "odd", DomainOwner(), "stopped", "x86_64", "bios", 1, 512, "", autostart=False, nics=nics, disks=(),
        untouched=(),
    )  # fmt: skip
    host.domains[STRANGER] = MemoryDomain(STRANGER, "odd", None, "stopped", found=found)
    with pytest.raises(ConflictError, match="libvirt network gone, which the host has not"):
        service.adopt("odd")


def test_nobody_adopts_what_is_anothers_or_not_there(service: LocalService, stranger: str) -> None:
    with pytest.raises(NotFoundError, match="no such domain"):
        service.adopt("none")
    with pytest.raises(ConflictError, match="the name is taken"):
        service.adopt(stranger, name="web")
    with pytest.raises(RefusedError, match="only KC says so"):
        service.create({"kind": "VM", "name": "x", "spec": {"type": "tiny", "adopted": True}})


# --- documents of an earlier shape


def test_a_vm_of_an_earlier_shape_is_read_started_changed_and_deleted(service: LocalService) -> None:
    vm = service.store.find("VM", "web")
    assert vm is not None
    spec = {field: value for field, value in vm["spec"].items() if field not in VM_ADDITIONS}
    with service.store.transaction() as transaction:
        transaction.put({**vm, "spec": spec})
    assert service.get("VM", "web")["spec"] == {**spec, **VM_ADDITIONS}
    done(service, service.act("web", "stop"))
    done(service, service.act("web", "start"))
    assert change(service, description="newer")["spec"]["disks"] == []
    done(service, service.rollback("VM", "web", 2))
    done(service, service.delete("VM", "web"))
    done(service, service.restore("VM", "web"))


def test_a_vm_of_a_machine_type_of_an_earlier_shape_starts(service: LocalService) -> None:
    tiny = service.store.find("MachineType", "tiny")
    assert tiny is not None
    spec = {field: tiny["spec"][field] for field in ("target", "arch", "firmware", "description", "parameters")}
    spec["hardware"] = {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}
    with service.store.transaction() as transaction:
        transaction.put({**tiny, "spec": spec})
    done(service, service.create(vm_document("old")))
    assert service.get("VM", "old")["status"]["hardware"]["maxMemoryMiB"] == 512


def test_what_is_added_to_earlier_shapes_is_what_a_new_document_gets() -> None:
    spec = VMSpec.model_validate({"image": {"name": "a"}, "type": {"name": "a"}}).model_dump(mode="json", by_alias=True)
    assert {field: spec[field] for field in VM_ADDITIONS} == VM_ADDITIONS
