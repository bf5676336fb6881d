"""Lists and the change feed for somebody who may not see everything: nothing is missing, nothing too much, no hint."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import furnish, keep_open, make_service, settle, vm_document
from support.tenants import STRANGER, add_vm, guard, make_world

from backend.auth.guarded import GuardedService
from backend.auth.protocol import EVERYTHING, Decision, Scope
from backend.errors import RefusedError
from backend.hypervisor.memory import MemoryDomain, MemoryHypervisor
from backend.local import LocalService
from backend.service import FILTERED, Event

TENANTS = ("acme", "globex", "initech")
MIXED = (
    Scope(("vm.*",), "tenant=acme,tier>1"),
    Scope(("vm.read",), "tenant=initech"),
    Scope(("vm.start",), "name~vm-00*"),
)
ONE = (Scope(("vm.*",), "tenant=acme"),)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """300 VMs of three tenants in three tiers, and one domain that is nobody's."""
    host = MemoryHypervisor()
    service = keep_open(make_service(tmp_path_factory.mktemp("kc"), host))
    furnish(service)
    body = service.check(vm_document("template"))
    with service.store.transaction() as transaction:
        for number in range(300):
            metadata = {"tenant": TENANTS[number % 3], "tier": number % 4}
            transaction.put({**body, "name": f"vm-{number:03d}", "uid": str(uuid.uuid4()), "metadata": metadata})
    host.domains[STRANGER] = MemoryDomain(STRANGER, "stranger", None, power="running")
    yield service
    service.close()


def read_all(service: GuardedService, limit: int | None, **options: Any) -> tuple[list[str], int]:
    """Return the names on all pages, and how many pages there were; each but the last is full."""
    names: list[str] = []
    cursor, pages = "", 0
    while True:
        page = service.list_documents("VM", limit=limit, after=cursor, **options)
        pages += 1
        names += [vm["name"] for vm in page.items]
        cursor = page.next
        assert page.filtered
        assert FILTERED in page.warnings
        if not cursor:
            return names, pages
        assert len(page.items) == limit
        assert set(cursor.split(":")) <= {"n", names[-1]}


def visible(number: int) -> bool:
    tenant = TENANTS[number % 3]
    return (tenant == "acme" and number % 4 > 1) or tenant == "initech" or number < 10


@pytest.mark.parametrize("observe", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 50, 1000, None])
def test_every_page_is_full_and_nothing_is_missing(many: LocalService, limit: int | None, observe: bool) -> None:
    if observe and limit == 1:
        limit = 10  # each page looks at the whole host
    mine = [f"vm-{number:03d}" for number in range(300) if visible(number)]
    names, pages = read_all(guard(many, MIXED), limit, observe=observe)
    assert names == mine
    assert pages == (1 if limit is None else -(-len(mine) // limit))
    mine = [f"vm-{number:03d}" for number in range(0, 300, 3)]
    assert read_all(guard(many, ONE), limit, observe=observe)[0] == mine


@pytest.mark.parametrize("scopes", [ONE, MIXED], ids=["one", "mixed"])
def test_a_selector_narrows_what_may_be_seen_and_widens_nothing(many: LocalService, scopes: tuple[Scope, ...]) -> None:
    service = guard(many, scopes)
    assert read_all(service, 20, selector="tenant=globex,name>vm-010", observe=False)[0] == []
    whole = read_all(service, None, observe=False)[0]
    for selector in (
        "tier=3",
        "name~*7",
        "!nothing",
        "tenant!=acme",
        f"name in ({','.join(f'vm-{n:03d}' for n in range(300))})",
    ):
        chosen = {vm["name"] for vm in many.list_documents("VM", selector=selector, observe=False).items}
        assert read_all(service, 9, selector=selector, observe=False)[0] == [name for name in whole if name in chosen]


@pytest.mark.parametrize("selector", ["tenant=acme,", 'x="', "name=vm-001,!", "a b"])
def test_a_selector_that_is_none_joins_with_nothing(many: LocalService, selector: str) -> None:
    with pytest.raises(RefusedError):
        guard(many, ONE).list_documents("VM", selector=selector)


@pytest.mark.parametrize("cursor", ["300:vm-299", "vm-001", "x"])
def test_only_cursors_of_such_lists_are_taken(many: LocalService, cursor: str) -> None:
    with pytest.raises(RefusedError):
        guard(many, ONE).list_documents("VM", after=cursor)


def test_a_cursor_stays_valid_when_its_vm_is_gone(many: LocalService) -> None:
    service = guard(many, ONE)
    assert service.list_documents("VM", limit=2, after="n:vm-004", observe=False).items[0]["name"] == "vm-006"


def test_foreign_domains_show_to_who_sees_all_vms(many: LocalService) -> None:
    assert many.list_documents("VM").items[-1]["name"] == "stranger"
    for scopes in (ONE, (Scope(("vm.*",), "!tenant"),), (Scope(("vm.*",), "name~s*"),)):
        assert all(vm["name"] != "stranger" for vm in guard(many, scopes).list_documents("VM").items)
    page = guard(many, (Scope(("vm.read",)),)).list_documents("VM")
    assert page.items[-1]["name"] == "stranger"
    assert not page.filtered


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_foreign_domains_between_pages_repeat_nothing(tmp_path: Path, limit: int) -> None:
    host = MemoryHypervisor()
    service = make_world(tmp_path, host)
    for number, name in enumerate(("aaa", "bbb", "zzz")):
        uid = f"8888888{number}-9999-4999-8999-999999999999"
        host.domains[uid] = MemoryDomain(uid, name, None, power="running")
    for scopes in ((Scope(("vm.*",), "!nothing"),), (Scope(("vm.*",), "!nothing"), Scope(("vm.*",), "tenant=acme"))):
        assert read_all(guard(service, scopes), limit)[0] == ["db", "web"]


def test_a_page_of_few_costs_no_look_at_each(many: LocalService) -> None:
    started = time.monotonic()
    for _ in range(20):
        guard(many, MIXED).list_documents("VM", limit=5, observe=False)
    assert time.monotonic() - started < 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    service = keep_open(make_world(tmp_path_factory.mktemp("kc")))
    yield service
    service.close()


@pytest.mark.parametrize(
    "scopes",
    [
        (Scope(("*",), "tenant=acme"),),
        (Scope(("op.read", "trash.read"), "tenant=acme"),),
        (Scope(("vm.read", "network.read", "image.read", "type.read"), "tenant=acme"),),
        (Scope(("vm.*",), "tenant=acme,kind=VM"), Scope(("*",), "tenant=acme,name~a*")),
    ],
    ids=["all", "own-right", "by-kind", "mixed"],
)
@pytest.mark.parametrize("limit", [1, 3, None])
def test_operations_and_trash_are_seen_by_what_they_are_about(
    world: LocalService, scopes: tuple[Scope, ...], limit: int | None
) -> None:
    service = guard(world, scopes)
    for kind in ("Operation", "Trash"):
        mine = [each["name"] for each in world.list_documents(kind).items if each["metadata"].get("tenant") == "acme"]
        assert mine
        names: list[str] = []
        cursor = ""
        while True:
            page = service.list_documents(kind, limit=limit, after=cursor)
            names += [each["name"] for each in page.items]
            cursor = page.next
            if not cursor:
                break
        assert names == mine


def test_an_operation_without_metadata_is_not_a_tenants(world: LocalService) -> None:
    shown = guard(world, (Scope(("*",), "tenant=acme"),)).list_documents("Operation").items
    assert all(each["spec"]["target"]["name"] not in ("default", "db", "lost") for each in shown)


def test_a_selector_on_specs_shows_no_operation_by_its_target(world: LocalService) -> None:
    service = guard(world, (Scope(("vm.*",), "spec.hidden!=true"),))
    assert len(service.list_documents("VM", observe=False).items) == 2
    assert service.list_documents("Operation").items == []


# --- the feed
def follow(service: GuardedService, until: str, **options: Any) -> list[Event]:
    """Return what is told up to a VM's deletion or arrival by that name; time-limited."""
    events: list[Event] = []
    ends = time.monotonic() + 20
    for event in service.watch(**options):
        assert time.monotonic() < ends
        if event is not None:
            events.append(event)
            if event.document["name"] == until:
                return events
    raise AssertionError


def words(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.document["name"]) for event in events if event.type != "status"]


@pytest.fixture
def own(tmp_path: Path) -> LocalService:
    return make_world(tmp_path)


def move(service: LocalService, name: str, tenant: str) -> None:
    settle(
        service, service.update({"kind": "VM", "name": name, "metadata": {"tenant": tenant, "secret": f"of {tenant}"}})
    )


def test_the_feed_tells_of_ones_own_alone(own: LocalService) -> None:
    since = own.store.revision()
    add_vm(own, "theirs", "globex")
    add_vm(own, "mine", "acme")
    move(own, "theirs", "initech")
    own.delete("MachineType", "gtype")
    settle(own, own.delete("VM", "theirs"))
    add_vm(own, "last", "acme")
    events = follow(guard(own), "last", since=since)
    assert {event.document["kind"] for event in events} == {"VM", "Operation"}
    about = {event.document["spec"].get("target", event.document)["name"] for event in events}
    assert about == {"mine", "last"}
    told = json.dumps([event.document for event in events])
    assert "globex" not in told
    assert "theirs" not in told
    revisions = [event.revision for event in events]
    assert revisions == sorted(revisions)


def test_what_leaves_is_told_of_as_it_was(own: LocalService) -> None:
    since = own.store.revision()
    move(own, "web", "globex")
    add_vm(own, "last", "acme")
    events = follow(guard(own), "last", since=since, kinds=("VM",))
    left = [event for event in events if event.type == "left"]
    assert [event.document["name"] for event in left] == ["web"]
    assert left[0].document["metadata"] == {"tenant": "acme"}
    assert "globex" not in json.dumps([event.document for event in events])


def test_what_was_shown_leaves_though_its_history_is_not_kept(
    own: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = guard(own)
    events = service.watch(("VM",), since=own.store.revision())
    own.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "x": 1}})
    assert next(event for event in events if event is not None).document["name"] == "web"
    monkeypatch.setattr(own, "history", lambda *_: [])
    own.wait(own.list_documents("Operation", selector="spec.type=vm.update").items[-1]["name"], timeout=10)
    move(own, "web", "globex")
    left = next(event for event in events if event is not None and event.type == "left")
    assert left.document["name"] == "web"
    assert (left.document["metadata"], left.document["spec"]) == ({}, {})


def test_what_comes_is_told_of(own: LocalService) -> None:
    since = own.store.revision()
    move(own, "db", "acme")
    events = follow(guard(own), "db", since=since, kinds=("VM",))
    assert words(events) == [("updated", "db")]


def test_a_selector_of_the_watchers_own_holds_too(own: LocalService) -> None:
    since = own.store.revision()
    settle(own, own.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "tier": 1}}))
    settle(own, own.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "tier": 2}}))
    add_vm(own, "last", "acme")
    settle(own, own.update({"kind": "VM", "name": "last", "metadata": {"tenant": "acme", "tier": 1}}))
    events = follow(guard(own), "last", since=since, kinds=("VM",), selector="tier=1")
    assert words(events)[0] == ("updated", "web")
    assert ("left", "web") in words(events)
    assert words(events)[-1] == ("updated", "last")


def test_a_foreign_domain_is_no_news(own: LocalService) -> None:
    host = own.hypervisor
    assert isinstance(host, MemoryHypervisor)
    unguarded = own.watch(("VM",))
    events = guard(own).watch(("VM",))
    # Both have subscribed once they have nothing to tell.
    for feed in (unguarded, events):
        assert None in [next(feed) for _ in range(3)]
    host._tell("domain", STRANGER)
    seen = next(unguarded)
    assert seen is not None
    assert seen.document["name"] == "stranger"
    assert next(events) is None


@pytest.mark.parametrize("scopes", [EVERYTHING, (Scope(("*",), "tenant=acme"),)], ids=["all", "some"])
def test_a_decision_that_is_replaced_holds_from_then_on(own: LocalService, scopes: tuple[Scope, ...]) -> None:
    service = guard(own, scopes)
    events = service.watch(("VM",), since=own.store.revision())
    move(own, "web", "acme")
    assert next(event for event in events if event is not None).document["name"] == "web"
    service.decision = Decision("allow", subject="alice", scopes=())
    settle(own, own.act("web", "stop"))
    settle(own, own.update({"kind": "VM", "name": "web", "metadata": {"tenant": "globex"}}))
    assert [event.type for event in (next(events) for _ in range(3)) if event is not None] in ([], ["left"])
