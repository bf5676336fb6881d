"""What KC knows: lists and the feed cross on their way, and the newer word wins."""

from typing import Any

from backend.service import DocumentPage, Event
from kc_tui.state.inventory import Inventory


def vm(name: str, power: str = "running", **more: Any) -> dict[str, Any]:
    return {"kind": "VM", "name": name, "uid": f"uid-{name}", "version": 1, "status": {"power": power}, **more}


def operation(name: str, target: str, state: str) -> dict[str, Any]:
    spec = {"type": "vm.start", "target": {"kind": "VM", "name": target, "uid": f"uid-{target}"}}
    return {"kind": "Operation", "name": name, "uid": name, "version": 1, "spec": spec, "status": {"state": state}}


def page(revision: int, *items: dict[str, Any]) -> DocumentPage:
    return DocumentPage(list(items), "", revision, [])


def names(inventory: Inventory) -> list[str]:
    return sorted(document["name"] for document in inventory.documents("VM"))


def power(inventory: Inventory, name: str) -> str:
    document = inventory.get("VM", f"uid-{name}")
    assert document is not None
    return document["status"]["power"]


def test_a_list_takes_the_place_of_what_was_known():
    inventory = Inventory()
    inventory.replace("VM", page(1, vm("a"), vm("b")))
    inventory.replace("VM", page(2, vm("b"), vm("c")))
    assert names(inventory) == ["b", "c"]
    assert inventory.loaded == {"VM"}


def test_a_list_that_is_older_than_the_feed_takes_nothing_back():
    inventory = Inventory()
    inventory.replace("VM", page(1, vm("a")))
    inventory.apply([Event(5, "created", vm("new")), Event(6, "status", vm("a", "stopped"))])
    inventory.replace("VM", page(3, vm("a")))
    assert names(inventory) == ["a", "new"]
    assert power(inventory, "a") == "stopped"


def test_a_list_that_is_older_than_a_deletion_brings_nothing_back():
    inventory = Inventory()
    inventory.replace("VM", page(1, vm("a")))
    inventory.apply([Event(4, "deleted", vm("a"))])
    inventory.replace("VM", page(3, vm("a")))
    assert names(inventory) == []


def test_the_feed_tells_what_looks_different_the_target_of_an_operation_too():
    inventory = Inventory()
    inventory.replace("VM", page(1, vm("a"), vm("b")))
    changed = inventory.apply([Event(2, "created", operation("op-1", "a", "running"))])
    assert changed == {"Operation": {"op-1"}, "VM": {"uid-a"}}


def test_an_operation_is_found_by_its_target_until_it_ends():
    inventory = Inventory()
    inventory.apply([Event(2, "created", operation("op-1", "a", "running"))])
    found = inventory.operation_on("uid-a")
    assert found is not None
    assert found["name"] == "op-1"
    inventory.apply([Event(3, "status", operation("op-1", "a", "succeeded"))])
    assert inventory.operation_on("uid-a") is None
    assert inventory.active_operations == []


def test_the_end_of_an_older_operation_does_not_hide_the_newer_one():
    inventory = Inventory()
    inventory.apply([Event(2, "created", operation("op-1", "a", "running"))])
    inventory.apply([Event(4, "created", operation("op-2", "a", "running"))])
    inventory.apply([Event(5, "status", operation("op-1", "a", "failed"))])
    found = inventory.operation_on("uid-a")
    assert found is not None
    assert found["name"] == "op-2"


def test_kcs_own_object_is_found_before_a_foreign_one_of_its_name():
    inventory = Inventory()
    foreign = vm("a") | {"uid": "other", "version": 0}
    inventory.replace("VM", page(1, foreign, vm("a")))
    found = inventory.find("VM", "a")
    assert found is not None
    assert found["uid"] == "uid-a"


def test_kinds_of_a_newer_kc_are_passed_over():
    inventory = Inventory()
    assert inventory.apply([Event(1, "created", {"kind": "Router", "uid": "r"})]) == {}
