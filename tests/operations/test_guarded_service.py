"""One tenant's token on another's objects, through every method of the service; and what it may do to its own."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.memory_kc import keep_open, vm_document
from support.tenants import SECRETS, guard, make_world

from backend.auth.guarded import GuardedService
from backend.auth.protocol import EVERYTHING, Decision, Scope
from backend.errors import DeniedError, KCError, NotFoundError
from backend.local import LocalService
from backend.service import Service

Call = Callable[[GuardedService, str], object]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """Both tenants' things; for tests that change nothing."""
    service = keep_open(make_world(tmp_path_factory.mktemp("kc")))
    yield service
    service.close()


def wish(name: str, **spec: Any) -> dict[str, Any]:
    return vm_document(name, metadata={"tenant": "acme"}, **spec)


NETWORK = {"uplink": "isolated"}
# Each is tried with the name of something that is globex's, and of nothing at all.
VM_CALLS: dict[str, list[Call]] = {
    "get": [
        lambda service, name: service.get("VM", name),
        lambda service, name: service.get("vm", name, observe=False),
        lambda service, name: service.get("VM", name, version=1),
        lambda service, name: service.get("VM", name, version=99),
    ],
    "history": [lambda service, name: service.history("VM", name)],
    "update": [
        lambda service, name: service.update(wish(name)),
        lambda service, name: service.update({"kind": "VM", "name": name, "version": 7}, key="k"),
        lambda service, name: service.update(
            {"kind": "Network", "name": "anet", "spec": {**NETWORK, "gateway": f"vm:{name}"}}
        ),
    ],
    "create": [
        lambda service, name: service.create(
            {"kind": "Network", "name": "new", "metadata": {"tenant": "acme"}, "spec": {"gateway": f"vm:{name}"}}
        )
    ],
    "check": [
        lambda service, name: service.check(
            {"kind": "Network", "name": "new", "metadata": {"tenant": "acme"}, "spec": {"gateway": f"vm:{name}/nic0"}}
        )
    ],
    "preview": [
        lambda service, name: service.preview(
            {"kind": "Network", "name": "anet", "spec": {**NETWORK, "gateway": f"vm:{name}"}}
        )
    ],
    "rollback": [
        lambda service, name: service.rollback("VM", name, 1),
        lambda service, name: service.rollback("VM", name, 1, if_version=3),
    ],
    "undo": [lambda service, name: service.undo("VM", name)],
    "delete": [
        lambda service, name: service.delete("VM", name),
        lambda service, name: service.delete("VM", name, if_version=99, now=True, key="k"),
        lambda service, name: service.delete("VM", name, keep_disks=True),
    ],
    "act": [
        *(
            lambda service, name, action=action: service.act(name, action)
            for action in ("start", "stop", "reboot", "pause", "resume", "reconcile", "snapshot", "fly")
        ),
        lambda service, name: service.act(name, "restore-snapshot", {"snapshot": "first"}),
        lambda service, name: service.act(name, "delete-snapshot", {"snapshot": "first"}, key="k"),
    ],
    "clone": [
        lambda service, name: service.clone(name, "copy"),
        lambda service, name: service.clone(name, "copy", metadata={"tenant": "acme"}, start=True),
    ],
    "rename": [lambda service, name: service.rename(name, "other")],
    "wait_until": [lambda service, name: service.wait_until(name, "running", timeout=0.1)],
    "console": [lambda service, name: service.console(name)],
    "console_log": [lambda service, name: service.console_log(name)],
    "display": [lambda service, name: service.display(name)],
    "screenshot": [lambda service, name: service.screenshot(name)],
}
OTHER_CALLS: list[tuple[str, str, Call]] = [
    ("get", "gnet", lambda service, name: service.get("Network", name)),
    ("get", "gimage", lambda service, name: service.get("Image", name)),
    ("get", "gtype", lambda service, name: service.get("MachineType", name)),
    ("get", "stranger", lambda service, name: service.get("VM", name)),
    ("act", "stranger", lambda service, name: service.act(name, "start")),
    ("history", "gimage", lambda service, name: service.history("Image", name)),
    ("history", "lost", lambda service, name: service.history("VM", name)),
    ("get", "lost", lambda service, name: service.get("VM", name, version=1)),
    ("update", "gnet", lambda service, name: service.update({"kind": "Network", "name": name, "spec": NETWORK})),
    ("delete", "gimage", lambda service, name: service.delete("Image", name)),
    ("delete", "gtype", lambda service, name: service.delete("MachineType", name)),
    ("act_on_network", "gnet", lambda service, name: service.act_on_network(name, "reconcile")),
    ("act_on_network", "gnet", lambda service, name: service.act_on_network(name, "fly")),
    ("create", "gimage", lambda service, name: service.create(wish("new", image=name))),
    ("create", "gimage", lambda service, name: service.create(wish("new", cdrom={"name": name}))),
    ("create", "gtype", lambda service, name: service.create(wish("new", type={"name": name, "uid": "x"}))),
    ("create", "gnet", lambda service, name: service.create(wish("new", nics=[{"network": name}]), key="k")),
    ("check", "gnet", lambda service, name: service.check(wish("new", nics=[{"network": {"name": name}}]))),
    ("preview", "gnet", lambda service, name: service.preview(wish("new", nics=[{"network": name}]))),
    ("update", "gnet", lambda service, name: service.update(wish("web", nics=[{"network": name}]))),
    ("update", "gtype", lambda service, name: service.update(wish("web", type=name))),
    ("preview", "gnet", lambda service, name: service.preview(wish("web", nics=[{"network": name}]))),
    ("restore", "lost", lambda service, name: service.restore("VM", name)),
    ("restore", "lost", lambda service, name: service.restore("VM", name, uid="x", new_disks=True)),
    ("restore", "db", lambda service, name: service.restore("VM", name)),
    ("empty_trash", "trash", lambda service, name: service.empty_trash([name])),
    ("delete", "trash", lambda service, name: service.delete("Trash", name)),
    ("get", "trash", lambda service, name: service.get("Trash", name)),
    ("wait", "operation", lambda service, name: service.wait(name, timeout=0.1)),
    ("cancel", "operation", lambda service, name: service.cancel(name)),
    ("get", "operation", lambda service, name: service.get("Operation", name)),
    ("delete", "operation", lambda service, name: service.delete("Operation", name)),
]
WHOLE: dict[str, Callable[[GuardedService], object]] = {
    "initialise": lambda service: service.initialise(print),
    "diagnose": lambda service: service.diagnose(),
    "export": lambda service: service.export(),
    "load": lambda service: service.load([]),
    "check_store": lambda service: service.check_store(),
    "compact_store": lambda service: service.compact_store(),
    "copy_store": lambda service: service.copy_store("tinydb:/a", "tinydb:/b"),
    "adopt": lambda service: service.adopt("stranger"),
    "preview_adoption": lambda service: service.preview_adoption("stranger"),
    "list_audit": lambda service: service.list_audit(),
}
HARMLESS: dict[str, Callable[[GuardedService], object]] = {
    "list_documents": lambda service: [
        service.list_documents(kind, everything=True, observe=observe).items
        for kind in ("VM", "Image", "Network", "MachineType", "Operation", "Trash", "Token")
        for observe in (True, False)
    ],
    "schema": lambda service: service.schema("VM"),
    "samples": lambda service: [sample.uid for sample in service.samples()],
    "access": lambda service: service.access(),
    "watch": lambda service: _take_until_quiet(service.watch(since=0)),
    "resume": lambda service: service.resume(),
    "get": lambda service: [service.get("Network", "default"), service.get("VM", "web")],
    "history": lambda service: service.history("VM", "web"),
    "preview": lambda service: service.preview(
        {"kind": "Network", "name": "anet", "metadata": {"tenant": "acme", "x": 1}}
    ),
}
ELSEWHERE = {"upload_image", "close"}
"""Tested below: they name no object that is there already."""


def _take_until_quiet(events: Iterator[Any]) -> list[Any]:
    taken: list[Any] = []
    for event in events:
        if event is None:
            return taken
        taken.append(event)
    raise AssertionError


def name_of_globex(world: LocalService, what: str) -> str:
    """Return the name of globex's entry of the trash, of its operation, or the one that is given."""
    if what == "trash":
        return next(
            entry["name"] for entry in world.list_documents("Trash").items if entry["metadata"]["tenant"] == "globex"
        )
    if what == "operation":
        found = world.list_documents("Operation", selector="tenant=globex,spec.target.kind=VM").items
        return str(found[0]["name"])
    return what


def test_every_method_of_the_protocol_is_tried() -> None:
    methods = {name for name, value in vars(Service).items() if inspect.isfunction(value) and not name.startswith("_")}
    tried = {*VM_CALLS, *(method for method, _, _ in OTHER_CALLS), *WHOLE, *HARMLESS, *ELSEWHERE}
    assert methods - tried == set()
    assert tried - methods == set()


def fail(call: Call, service: GuardedService, name: str) -> KCError:
    with pytest.raises(KCError) as caught:
        call(service, name)
    return caught.value


CASES = [
    *(
        pytest.param("db", call, id=f"{method}-{number}")
        for method, calls in VM_CALLS.items()
        for number, call in enumerate(calls)
    ),
    *(
        pytest.param(name, call, id=f"{method}-{name}-{number}")
        for number, (method, name, call) in enumerate(OTHER_CALLS)
    ),
]


@pytest.mark.parametrize(("what", "call"), CASES)
def test_what_is_another_tenants_does_not_exist(world: LocalService, what: str, call: Call) -> None:
    name = name_of_globex(world, what)
    before = world.store.revision()
    found = fail(call, guard(world), name)
    nothing = fail(call, guard(world), "nothing")
    assert isinstance(found, NotFoundError)
    assert type(nothing) is type(found)
    assert json.dumps(found.problem()).replace(name, "nothing") == json.dumps(nothing.problem())
    assert world.store.revision() == before


@pytest.mark.parametrize("method", WHOLE)
def test_what_is_about_everything_takes_a_right_without_a_selector(world: LocalService, method: str) -> None:
    with pytest.raises(DeniedError):
        WHOLE[method](guard(world))
    with pytest.raises(DeniedError):
        WHOLE[method](
            guard(world, (Scope(("vm.*",)),)) if method not in ("adopt", "preview_adoption") else guard(world, ())
        )


@pytest.mark.parametrize("method", HARMLESS)
def test_an_answer_tells_of_no_other_tenant(world: LocalService, method: str) -> None:
    told = json.dumps(HARMLESS[method](guard(world)), default=str)
    uids = [world.get("VM", "db")["uid"]]
    for secret in (*SECRETS, *uids):
        # Between colons it is a part of a MAC address.
        assert not re.search(rf"(?<![\w:]){secret}(?![\w:])", told), secret
    if method not in ("schema", "resume", "access"):
        assert re.search(r"\bweb\b|\banet\b", told) or method == "samples"


@pytest.mark.parametrize("scopes", [(), None, (Scope(()),), (Scope(("*",), "a b"),), (Scope(("image.*",)),)])
def test_who_has_no_right_to_vms_sees_none(world: LocalService, scopes: tuple[Scope, ...] | None) -> None:
    service = guard(world, scopes)
    page = service.list_documents("VM")
    assert (page.items, page.next, page.filtered) == ([], "", True)
    with pytest.raises(NotFoundError):
        service.get("VM", "web")


def test_a_decision_that_is_no_allow_allows_nothing(world: LocalService) -> None:
    service = guard(world)
    service.decision = Decision("deny", subject="alice", scopes=EVERYTHING)
    with pytest.raises(NotFoundError):
        service.get("VM", "web")
