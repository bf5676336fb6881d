"""What the memory engine has of its own: names instead of files, one process, and nothing derived but the heads."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from conformance.test_store import make, put

from backend.errors import FailedError, NotFoundError, TimedOutError
from backend.store import memory
from backend.store.memory import MemoryEngine
from backend.store.opening import open_store
from backend.store.protocol import Store


@pytest.fixture
def store() -> Store:
    return open_store("memory:")


def state_of(store: Any) -> Any:
    return store._engine._shared.state


def test_all_openings_of_a_name_share_it_and_those_without_share_nothing():
    name = f"memory:{os.urandom(8).hex()}"
    put(open_store(name), make())
    assert open_store(name, create=False).find("VM", "web")
    assert open_store(name).url == name
    first, second = open_store("memory:"), open_store("memory:")
    put(first, make())
    assert second.find("VM", "web") is None
    assert first.identity != second.identity


def test_a_name_that_nobody_made_is_not_there():
    with pytest.raises(NotFoundError):
        open_store("memory:nobody made this one", create=False)


def test_a_child_process_is_told_that_it_has_another_one(store: Store):
    put(store, make())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            store.find("VM", "web")
        except FailedError as error:
            os.write(writing, str(error.details["reason"]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    assert os.read(reading, 100) == b"fork"
    os.close(reading)


def test_a_writer_that_does_not_end_is_waited_for_a_while_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "PATIENCE", 0.2)
    name = f"memory:{os.urandom(8).hex()}"
    store, other = open_store(name), open_store(name)
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with other.transaction():
            begun.set()
            assert end.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    start = time.monotonic()
    with pytest.raises(TimedOutError):
        put(store, make())
    assert 0.15 < time.monotonic() - start < 5
    end.set()
    thread.join(10)
    put(store, make())


def test_a_write_outside_of_a_transaction_is_a_fault_of_the_caller():
    engine = MemoryEngine()
    for write in (lambda: engine.put_lease("op", b"{}"), lambda: engine.forget("VM", "x")):
        with pytest.raises(RuntimeError):
            write()


def test_a_store_is_not_closed_in_the_middle_of_a_transaction(store: Store):
    with store.transaction() as transaction:
        with pytest.raises(FailedError):
            store.close()
        transaction.put(make())
    assert store.find("VM", "web")


def test_a_head_that_is_wrong_is_found_and_made_again(store: Store):
    put(store, make("a"))
    put(store, make("b"))
    put(store, make("b", spec={"cpus": 2}))
    expected = store.list_documents("VM")
    heads = state_of(store).heads["VM"]
    heads["ghost"] = heads["uid-of-a"]
    heads["uid-of-b"] = store._engine._shared.state.log[1]  # type: ignore[attr-defined]
    del heads["uid-of-a"]
    found = store.check()
    assert [(fault.where, fault.repaired) for fault in found] == [
        ("VM ghost", False),
        ("VM uid-of-a", False),
        ("VM uid-of-b", False),
    ]
    assert [fault.repaired for fault in store.check(repair=True)] == [True] * 3
    assert store.check() == []
    assert store.list_documents("VM") == expected


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state: state.log.reverse(), "out of order"),
        (lambda state: state.log.pop(1), "versions are out of order"),
        (lambda state: setattr(state, "revision", 1), "revisions are out of order"),
        (lambda state: state.log.__setitem__(1, state.log[1]._replace(body=b"[]")), "no object"),
        (lambda state: state.log.__setitem__(3, state.log[3]._replace(name="a")), "two live documents"),
    ],
    ids=["order", "gap", "revision", "body", "name"],
)
def test_a_log_that_is_wrong_is_found(store: Store, damage: Any, words: str):
    for cpus in (1, 2, 3):
        put(store, make("a", spec={"cpus": cpus}))
    put(store, make("b"))
    damage(state_of(store))
    faults = [fault for fault in store.check(repair=True) if not fault.repaired]
    assert any(words in fault.what for fault in faults), faults
