"""What somebody with limited rights may do to what is theirs, and how it is told what is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import keep_open, settle, vm_document
from support.tenants import ACME, SECRETS, add_vm, guard, make_world

from backend.auth.guarded import GuardedService
from backend.auth.protocol import EVERYTHING, Scope
from backend.errors import ConflictError, DeniedError, NotFoundError, UsageError
from backend.local import LocalService


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """Both tenants' things; for tests that change nothing."""
    service = keep_open(make_world(tmp_path_factory.mktemp("kc")))
    yield service
    service.close()


@pytest.fixture
def own(tmp_path: Path) -> LocalService:
    return make_world(tmp_path)


def wish(name: str, **spec: Any) -> dict[str, Any]:
    return vm_document(name, metadata={"tenant": "acme"}, **spec)


NETWORK = {"uplink": "isolated"}


# --- what is visible, and not allowed
def test_what_is_seen_and_not_allowed_is_denied_by_its_action(world: LocalService) -> None:
    service = guard(world, (Scope(("vm.read", "vm.start"), "tenant=acme"),))
    denials = {
        "vm.stop": lambda: service.act("web", "stop"),
        "vm.update": lambda: service.update(wish("web")),
        "vm.delete": lambda: service.delete("VM", "web"),
        "vm.create": lambda: service.create(wish("new")),
        "vm.clone": lambda: service.clone("web", "copy"),
        "vm.rename": lambda: service.rename("web", "other"),
        "vm.console": lambda: service.console("web"),
        "vm.display": lambda: service.screenshot("web"),
        "vm.restore": lambda: service.restore("VM", "gone"),
        "image.upload": lambda: service.upload_image("new", Path("/x"), metadata={"tenant": "acme"}, declared={}),
        "trash.delete": service.empty_trash,
    }
    for action, call in denials.items():
        with pytest.raises(DeniedError, match=re.escape(action)):
            call()
    with pytest.raises(DeniedError, match=r"vm\.console"):
        service.console_log("web")
    with pytest.raises(DeniedError, match=r"vm\.display"):
        service.display("web")
    with pytest.raises(UsageError):
        service.act("web", "fly")


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.create(vm_document("new", metadata={"tenant": "globex"})),
        lambda service: service.create(vm_document("new")),
        lambda service: service.check(vm_document("new")),
        lambda service: service.preview(vm_document("new")),
        lambda service: service.preview(vm_document("web", metadata={"tenant": "globex"})),
        lambda service: service.update(vm_document("web", metadata={"tenant": "globex"})),
        lambda service: service.update({"kind": "VM", "name": "web", "metadata": {}}),
        lambda service: service.update({"kind": "VM", "name": "web", "metadata": ["tenant"]}),
        lambda service: service.clone("web", "copy", metadata={"tenant": "globex"}),
        lambda service: service.clone("web", "copy", metadata={}),
        lambda service: service.upload_image("new", Path("/x"), metadata={"tenant": "globex"}, declared={}),
        lambda service: service.create({"kind": "Network", "name": "new", "spec": NETWORK}),
    ],
    ids=range(12),
)
def test_nothing_is_moved_to_another_tenant(world: LocalService, call: Callable[[GuardedService], object]) -> None:
    before = world.store.revision()
    with pytest.raises(DeniedError):
        call(guard(world))
    assert world.store.revision() == before


@pytest.mark.parametrize(
    "spec",
    [
        {"uplink": "bridge:br0"},
        {"uplink": "isolated", "libvirtNetwork": "kc-default"},
        {"uplink": "isolated", "libvirt_network": "kc-default"},
        {"uplink": "isolated", "vxlan": {"vni": 7, "local": "127.0.0.1", "peers": ["127.0.0.2"]}},
    ],
    ids=range(4),
)
def test_a_tenants_network_is_no_way_into_a_segment_of_the_hosts(world: LocalService, spec: dict[str, Any]) -> None:
    for name in ("new", "anet"):
        with pytest.raises(DeniedError, match="host"):
            guard(world).preview({"kind": "Network", "name": name, "metadata": {"tenant": "acme"}, "spec": spec})


# --- what conflicts tell
def test_a_taken_name_is_taken_whoever_has_it(world: LocalService) -> None:
    service = guard(world)
    for call in (service.create, service.preview):
        with pytest.raises(ConflictError, match="the name is taken") as caught:
            call(wish("db"))
        assert "globex" not in str(caught.value)
    with pytest.raises(ConflictError):
        service.rename("web", "db")
    with pytest.raises(ConflictError):
        service.clone("web", "db")


def test_an_error_names_no_vm_of_another_tenant(world: LocalService) -> None:
    mac = world.get("VM", "db")["spec"]["nics"][0]["mac"]
    with pytest.raises(ConflictError, match=f"mac {mac} belongs to VM another one"):
        guard(world).create(wish("new", nics=[{"network": "default", "mac": mac}]))
    with pytest.raises(ConflictError, match="belongs to VM db"):
        world.create(wish("new", nics=[{"network": "default", "mac": mac}]))


def test_words_of_the_callers_own_are_left_as_they_are(world: LocalService) -> None:
    # Otherwise an error would say whether there is an object of that name.
    mac = world.get("VM", "db")["spec"]["nics"][0]["mac"]
    with pytest.raises(ConflictError, match=rf"mac {mac} belongs to VM db"):
        guard(world).create(wish("new", nics=[{"network": "default", "mac": mac}], description="db"))


def test_the_effects_of_a_change_name_nobody_elses_vms(world: LocalService) -> None:
    everywhere = (Scope(("network.*",)), Scope(("vm.*",), "tenant=acme"))
    change = {"kind": "Network", "name": "default", "spec": {**world.get("Network", "default")["spec"], "mtu": 1400}}
    told = json.dumps(guard(world, everywhere).preview(change)[3:])
    assert "web" in json.dumps(world.preview(change)[3:])
    for secret in SECRETS:
        assert not re.search(rf"(?<![\w:]){secret}(?![\w:])", told)


def test_a_network_shows_nobody_elses_vms_and_addresses(world: LocalService) -> None:
    everywhere = (Scope(("network.read",)), Scope(("vm.*",), "tenant=acme"))
    mine, whole = guard(world, everywhere).get("Network", "default"), world.get("Network", "default")
    assert mine["status"]["vms"] == ["web"]
    assert whole["status"]["vms"] == ["db", "web"]
    assert {lease["vm"] for lease in mine["status"]["leases"]} == {"web"}
    assert "free" not in mine["status"]
    owners = {use["owner"] for use in mine["status"]["addresses"]}
    assert "VM web/nic0" in owners
    assert not any("db" in owner or owner.startswith("lease") for owner in owners)


# --- what is one's own
def test_a_tenant_lives_with_its_own_vm_from_birth_to_death(own: LocalService) -> None:
    service = guard(own)
    accepted = service.create(wish("new"), key="key-1")
    operation = accepted.operation
    assert operation is not None
    assert operation["metadata"] == {"tenant": "acme"}
    assert service.wait(operation["name"], timeout=30)["status"]["state"] == "succeeded"
    assert service.get("VM", "new")["updatedBy"] == "alice"
    assert service.create(wish("new"), key="key-1").document["uid"] == accepted.document["uid"]
    settle(own, service.act("new", "stop"))
    settle(own, service.update({"kind": "VM", "name": "new", "metadata": {"tenant": "acme", "tier": 2}}))
    assert [entry.version for entry in service.history("VM", "new")] == [1, 2, 3]
    settle(own, service.undo("VM", "new"))
    settle(own, service.rename("new", "newer"))
    settle(own, service.delete("VM", "newer"))
    settle(own, service.restore("VM", "newer"))
    settle(own, service.delete("VM", "newer"))
    entry = next(each for each in service.list_documents("Trash").items if each["spec"]["target"]["name"] == "newer")
    (purged,) = service.empty_trash([entry["name"]])
    assert purged.operation is not None
    assert service.wait(purged.operation["name"], timeout=30)["status"]["state"] == "succeeded"


def test_emptying_the_trash_takes_ones_own_alone(own: LocalService) -> None:
    emptied = guard(own).empty_trash()
    assert [each.document["spec"]["target"]["name"] for each in emptied] == ["gone"]
    for each in emptied:
        settle(own, each)
    assert [entry["spec"]["target"]["name"] for entry in own.list_documents("Trash").items] == ["lost"]


def test_of_two_deleted_objects_of_one_name_ones_own_comes_back(own: LocalService) -> None:
    for tenant in ("acme", "globex"):
        add_vm(own, "twin", tenant)
        settle(own, own.delete("VM", "twin"))
    restored = guard(own).restore("VM", "twin")
    assert restored.document["metadata"] == {"tenant": "acme"}


def test_history_before_the_vm_was_ones_own_is_not(own: LocalService) -> None:
    settle(own, own.update({"kind": "VM", "name": "db", "metadata": {"tenant": "acme"}}))
    service = guard(own)
    assert service.get("VM", "db")["metadata"] == {"tenant": "acme"}
    assert all(
        entry.document is None or "globex" not in json.dumps(entry.document) for entry in service.history("VM", "db")
    )
    with pytest.raises(NotFoundError):
        service.get("VM", "db", version=1)
    with pytest.raises(NotFoundError):
        service.rollback("VM", "db", 1)
    with pytest.raises(DeniedError):
        service.undo("VM", "db")


def test_a_key_is_its_subjects_own(own: LocalService) -> None:
    first = guard(own, subject="alice").create(wish("one"), key="same")
    second = guard(own, subject="bob").create(wish("two"), key="same")
    assert first.document["uid"] != second.document["uid"]
    own.create(vm_document("three", metadata={"tenant": "globex"}), key="same")


def test_a_key_that_was_used_with_more_rights_tells_nothing(own: LocalService) -> None:
    document = vm_document("theirs", metadata={"tenant": "globex"})
    guard(own, EVERYTHING, "alice").create(document, key="same")
    with pytest.raises(DeniedError):
        guard(own, ACME, "alice").create(document, key="same")
    settle(own, guard(own, EVERYTHING, "alice").act("web", "stop", key="stop"))
    settle(own, own.update({"kind": "VM", "name": "web", "metadata": {"tenant": "globex"}}))
    with pytest.raises(NotFoundError):
        guard(own, ACME, "alice").act("web", "stop", key="stop")


def test_a_snapshot_brings_no_vm_back_to_what_it_may_not_be(own: LocalService) -> None:
    service = guard(own, (Scope(("*",), "tenant=acme,spec.description=plain"), *ACME[1:]))
    add_vm(own, "app", "acme", network="default")
    settle(own, own.act("app", "snapshot", {"snapshot": "old"}))
    spec = {**own.get("VM", "app")["spec"], "description": "plain"}
    settle(own, own.update({"kind": "VM", "name": "app", "spec": spec}))
    assert service.get("VM", "app")
    with pytest.raises(DeniedError, match="restore-snapshot"):
        service.act("app", "restore-snapshot", {"snapshot": "old"})


def test_a_scope_that_speaks_of_specs_holds_for_new_documents_too(own: LocalService) -> None:
    service = guard(own, (Scope(("vm.*",), "tenant=acme,spec.autostart=true"), *ACME[1:]))
    settle(own, service.create(wish("new", nics=[{"network": "default"}]), key="k"))
    assert service.create(wish("new", nics=[{"network": "default"}]), key="k").document["name"] == "new"
    with pytest.raises(DeniedError):
        service.create(wish("other", autostart=False))
    spec = own.get("VM", "new")["spec"]
    with pytest.raises(DeniedError):
        service.update({"kind": "VM", "name": "new", "spec": {**spec, "autostart": False}})
    settle(own, service.update({"kind": "VM", "name": "new", "spec": {**spec, "description": "x"}}))


def test_an_image_is_uploaded_for_ones_own_tenant(own: LocalService, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    accepted = guard(own).upload_image("mine", path, metadata={"tenant": "acme"}, declared={"format": "raw"})
    assert accepted.document["updatedBy"] == "alice"


def test_an_operation_may_be_cancelled_by_who_could_begin_it(world: LocalService) -> None:
    name = world.list_documents("Operation", selector="tenant=acme,spec.type=vm.create").items[0]["name"]
    with pytest.raises(DeniedError, match=r"op\.cancel"):
        guard(world, (Scope(("vm.start",), "tenant=acme"),)).cancel(name)
    for action in ("op.cancel", "vm.create"):
        with pytest.raises(ConflictError, match="already"):
            guard(world, (Scope((action,), "tenant=acme"),)).cancel(name)


def test_refusals_reach_the_audit_trail(world: LocalService) -> None:
    scopes = (Scope(("vm.read",), "tenant=acme"),)
    plain = guard(world, scopes)
    service = GuardedService(world, plain.decision, plain.actor, audit=world.audit)
    with pytest.raises(DeniedError):
        service.act("web", "stop")
    with pytest.raises(NotFoundError):
        service.get("VM", "db")
    world.audit.flush()
    told, hidden = (item["metadata"] for item in reversed(world.list_audit(selector="event=refusal", limit=2).items))
    assert (told["action"], told["name"], told["subject"], told["requestId"]) == (
        "vm.stop",
        "web",
        "alice",
        "request-1",
    )
    assert (hidden["action"], hidden["name"]) == ("vm.read", "db")


def test_a_tenants_selector_lets_no_entry_of_the_trail_be_seen(world: LocalService) -> None:
    for selector in ("tenant=acme", "tenant!=globex", "!tenant"):
        with pytest.raises(DeniedError, match=r"audit\.read"):
            guard(world, (Scope(("*",), selector),)).list_audit()


@pytest.mark.parametrize("limit", [1, 4, None])
def test_a_right_to_some_entries_shows_those(world: LocalService, limit: int | None) -> None:
    one = (Scope(("audit.read",), "kind=Network"),)
    several = (*one, Scope(("audit.*",), "action=vm.stop"))
    for scopes, wanted in ((one, {"Network"}), (several, {"Network", "VM"})):
        names: list[str] = []
        cursor = ""
        while True:
            page = guard(world, scopes).list_audit(limit=limit, after=cursor)
            assert page.filtered
            names += [item["name"] for item in page.items]
            assert {item["metadata"]["kind"] for item in page.items} <= wanted
            cursor = page.next
            if not cursor:
                break
        whole = [
            item["name"]
            for item in world.list_audit().items
            if item["metadata"].get("kind") == "Network"
            or (scopes is several and item["metadata"]["action"] == "vm.stop")
        ]
        assert names == whole
        assert whole


def test_nobody_makes_a_token_beyond_their_rights(own: LocalService) -> None:
    service = guard(own, (Scope(("vm.*",), "tenant=acme"), Scope(("token.*",), "owner=alice")))

    def token(**spec: Any) -> dict[str, Any]:
        return {"kind": "Token", "name": "mine", "metadata": {"owner": "alice"}, "spec": spec}

    narrower = [{"actions": ["vm.start"], "selector": "tenant=acme,name=web"}]
    wider = [{"actions": ["vm.start"], "selector": ""}]
    for spec in (
        {"type": "god"},
        {"type": "session", "subject": "root"},
        {"type": "limited", "scopes": wider},
        {"type": "limited", "scopes": [*narrower, *wider]},
        {"type": "limited", "scopes": "vm.start"},
        {},
    ):
        with pytest.raises(DeniedError, match="more than you may"):
            service.create(token(**spec))
    with pytest.raises(DeniedError):
        service.create({**token(type="limited", scopes=narrower), "metadata": {}})
    secret = service.create(token(type="limited", scopes=narrower)).document
    assert secret["spec"]["scopes"] == narrower
    with pytest.raises(DeniedError, match="more than you may"):
        service.update({**token(type="limited", scopes=wider), "version": 1})
    own.create({**token(type="god"), "name": "god"})
    with pytest.raises(DeniedError, match="more than you may"):
        service.update({"kind": "Token", "name": "god", "metadata": {"owner": "alice", "x": 1}})
    service.delete("Token", "mine")


def test_who_may_do_everything_is_held_to_nothing(own: LocalService) -> None:
    service = guard(own, EVERYTHING, "root")
    page, whole = service.list_documents("VM"), own.list_documents("VM")
    assert [vm["name"] for vm in page.items] == [vm["name"] for vm in whole.items] == ["db", "web", "stranger"]
    assert not page.filtered
    assert service.get("VM", "stranger")["status"]["foreign"]
    assert len(service.samples()) == len(own.samples())
    settle(own, service.act("db", "start"))
    assert next(iter(service.export()))["kc"] == "export"
    assert service.access().scopes == ((("*",), ""),)
    service.close()
    service.close()
