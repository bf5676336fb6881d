"""A check finds every sort of damage, says it in plain words, and mends what follows from the versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import delete, make, names, put, put_status

from backend.errors import FailedError
from backend.model.selectors import parse
from backend.store.engine import WINDOW
from backend.store.opening import open_store
from backend.store.protocol import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kc.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A store of ten VMs with some of everything, half of it in the index already."""
    opened = open_store(f"tinydb:{path}")
    for number in range(10):
        put(opened, make(f"vm-{number}", metadata={"tenant": f"t{number % 3}", "n": number}))
        put_status(opened, f"uid-of-vm-{number}", {"power": "running"})
    while opened.revision() < WINDOW:
        put(opened, make("vm-0", metadata={"tenant": "t0", "n": opened.revision()}))
    for cpus in range(3):
        put(opened, make("vm-1", metadata={"tenant": "t1", "n": 1}, spec={"cpus": cpus}))
    put_status(opened, "uid-of-vm-2", {"power": "stopped"})
    delete(opened, "uid-of-vm-3", by="bob")
    with opened.transaction() as transaction:
        transaction.put_lease("op", {"owner": "me"})
    assert opened.check() == []
    yield opened
    opened.close()


def damage(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
    connection.close()


def describe(store: Store) -> list[Any]:
    uids = [f"uid-of-vm-{number}" for number in range(10)]
    selectors = ("tenant=t1", "n>4", "status.power=running", "spec.cpus=2")
    return [
        store.list_documents("VM").items,
        [store.history("VM", uid) for uid in uids],
        [names(store.list_documents("VM", where=parse(selector)).items) for selector in selectors],
    ]


DERIVED = {
    "a head is gone": (
        "DELETE FROM head WHERE tbl = 'VM' AND name = 'vm-4'",
        "VM vm-4", "it is not listed",
    ),
    "a status's head is gone": (
        "DELETE FROM head WHERE tbl = 'VM.status' AND id = 'uid-of-vm-4'",
        "uid-of-vm-4", "it is not listed",
    ),
    "all heads are gone": ("DELETE FROM head", "VM vm-", "it is not listed"),
    "a head points at an older version": (
        "UPDATE head SET revision = (SELECT min(revision) FROM log WHERE id = 'uid-of-vm-1') WHERE name = 'vm-1'",
        "VM vm-1", "newest version",
    ),
    "a head points nowhere": (
        "UPDATE head SET revision = 100000 WHERE tbl = 'VM' AND name = 'vm-5'",
        "VM vm-5", "newest version",
    ),
    "what was deleted is listed": (
        "INSERT INTO head (tbl, id, name, revision) SELECT tbl, id, name, revision FROM log WHERE body IS NULL",
        "VM vm-3", "its versions say that there is none",
    ),
    "a head of nothing": (
        "INSERT INTO head (tbl, id, name, revision) VALUES ('VM', 'ghost', 'ghost', 3)",
        "VM ghost", "its versions say that there is none",
    ),
    "a name in the list is another": (
        "UPDATE head SET name = 'wrong' WHERE tbl = 'VM' AND name = 'vm-6'",
        "VM vm-6", "another name",
    ),
    "a name beside a version is another": (
        "UPDATE log SET name = 'wrong' WHERE tbl = 'VM' AND id = 'uid-of-vm-6'",
        "VM wrong, version 1", "another name than its own",
    ),
    "a copy of metadata is wrong": (
        "UPDATE head SET metadata = '{\"tenant\":\"other\"}' WHERE tbl = 'VM' AND name = 'vm-7'",
        "VM vm-7", "copy of its metadata",
    ),
    "a copy of metadata is no JSON": (
        "UPDATE head SET metadata = x'ff' WHERE tbl = 'VM' AND name = 'vm-7'",
        "VM vm-7", "copy of its metadata",
    ),
    "an entry of the index is gone": (
        "DELETE FROM field WHERE value = 't1'",
        "the index of fields", "may miss",
    ),
    "an entry of the index is too many": (
        "INSERT INTO field (key, value, number) VALUES (1, 2, 3)", "the index of fields", "entries",
    ),
    "an entry of the index is another": (
        "UPDATE OR IGNORE field SET value = 'other' WHERE value = 't1'", "the index of fields", "may miss",
    ),
    "a number of the index is lost": (
        "UPDATE head SET number = NULL WHERE tbl = 'VM' AND name = 'vm-8'", "the index of fields", "entries",
    ),
    "the index says that it is newer than it is": (
        "UPDATE meta SET value = '1000' WHERE key = 'indexed'", "the index of fields", "may miss",
    ),
    "the index does not say how old it is": (
        "DELETE FROM meta WHERE key = 'indexed'", "the index of fields", "entries",
    ),
    "a status is left of nothing": (
        "INSERT INTO log (revision,tbl,id,version,at,event,body) VALUES (6,'VM.status','ghost',1,5,'created','{}')",
        "ghost", "a document that there is not",
    ),
    "the counter of revisions has fallen behind": (
        "UPDATE sqlite_sequence SET seq = 5", "store", "counter of revisions",
    ),
    "the counter of revisions is gone": ("DELETE FROM sqlite_sequence", "store", "counter of revisions"),
    "the feed begins in the future": (
        "UPDATE meta SET value = '5000' WHERE key = 'floor'", "store", "beginning of its feed",
    ),
    "the feed begins nowhere": ("UPDATE meta SET value = 'x' WHERE key = 'floor'", "store", "beginning of its feed"),
    "the feed's beginning is gone": ("DELETE FROM meta WHERE key = 'floor'", "store", "beginning of its feed"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "where", "what"), DERIVED.values(), ids=DERIVED.keys())
def test_what_follows_from_the_versions_is_found_and_mended(
    store: Store, path: Path, statement: str, where: str, what: str
):
    before, revision = describe(store), store.revision()
    damage(path, statement)
    found = store.check()
    assert any(where in fault.where and what in fault.what for fault in found), found
    assert not any(fault.repaired for fault in found)
    assert store.check() == found, "a check changed something"
    mended = store.check(repair=True)
    assert mended
    assert all(fault.repaired for fault in mended), mended
    assert store.check() == []
    assert describe(store) == before
    assert store.revision() == revision
    put(store, make("next", metadata={"tenant": "t1"}))
    assert store.revision() == revision + 1
    assert "next" in names(store.list_documents("VM", where=parse("tenant=t1")).items)
    assert store.check() == []


LOST = {
    "a version's content": (
        "UPDATE log SET body = x'00' WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version = 2",
        "VM vm-1, version 2", "damaged and cannot be read",
    ),
    "a version's shape": (
        "UPDATE log SET body = '[]' WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version = 2",
        "VM vm-1, version 2", "damaged and cannot be read",
    ),
    "a note": ("UPDATE log SET note = '{' WHERE body IS NULL", "VM vm-3, version 2", "damaged and cannot be read"),
    "a version in between": (
        "DELETE FROM log WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version = 3",
        "VM vm-1, version 4", "version 3 is missing",
    ),
    "versions in between": (
        "DELETE FROM log WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version IN (2, 3)",
        "VM vm-1, version 4", "version 2 to 3 is missing",
    ),
    "the order": (
        "UPDATE log SET revision = 100000 WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version = 2",
        "VM vm-1, version 3", "older than version 2",
    ),
    "an event": (
        "UPDATE log SET event = 'deleted' WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version = 2",
        "VM vm-1, version 2", "marked as deleted",
    ),
    "a time": (
        "UPDATE log SET at = 'x' WHERE tbl = 'VM' AND id = 'uid-of-vm-1' AND version = 2",
        "VM vm-1, version 2", "time",
    ),
    "the identity": ("DELETE FROM meta WHERE key = 'identity'", "store", "identity"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "where", "what"), LOST.values(), ids=LOST.keys())
def test_what_is_lost_is_told_and_not_called_mended(store: Store, path: Path, statement: str, where: str, what: str):
    damage(path, statement)
    for repair in (False, True):
        found = [fault for fault in store.check(repair=repair) if not fault.repaired]
        assert any(where in fault.where and what in fault.what for fault in found), found


def test_a_damaged_lease_is_taken_away(store: Store, path: Path):
    damage(path, "UPDATE lease SET body = '5'")
    (fault,) = store.check(repair=True)
    assert "operation op" in fault.where
    assert fault.repaired
    assert store.leases() == []
    assert store.check() == []


def test_of_two_with_one_name_the_later_keeps_it(store: Store, path: Path):
    damage(
        path,
        "UPDATE log SET name = 'vm-9', body = replace(body, '\"vm-8\"', '\"vm-9\"') WHERE tbl = 'VM' AND name = 'vm-8'",
    )
    found = store.check(repair=True)
    assert [fault for fault in found if not fault.repaired and "another document has its name" in fault.what]
    assert store.find("VM", "vm-9")["uid"] == "uid-of-vm-9"  # type: ignore[index]


def test_hostile_names_are_told_harmlessly(store: Store):
    put(store, make("\x1b[2J\x9b", metadata={}))
    engine = store._engine  # type: ignore[attr-defined]
    with engine.transaction():
        engine._connections.write("DELETE FROM head WHERE name LIKE '%2J%'")
    (fault,) = store.check()
    assert "\x1b" not in str(fault.where)
    assert "\x9b" not in str(fault.where)


def test_an_index_of_sqlites_own_is_made_again(store: Store, path: Path):
    before = describe(store)
    store.close()
    connection = sqlite3.connect(path)
    # Only a writable schema can take rows from one index alone.
    connection.executescript(
        "PRAGMA writable_schema=ON;"
        "UPDATE sqlite_schema SET sql = 'CREATE INDEX log_deleted ON log (tbl, name) WHERE body IS NOT NULL'"
        " WHERE name = 'log_deleted'; PRAGMA writable_schema=RESET;"
    )
    connection.close()
    connection = sqlite3.connect(path)
    connection.executescript(
        "INSERT INTO log (tbl, id, version, at, event, body) VALUES ('notes', 'x', 1, 5.0, 'created', '{}');"
        "INSERT INTO head (tbl, id, revision) VALUES ('notes', 'x', last_insert_rowid());"
        "PRAGMA writable_schema=ON;"
        "UPDATE sqlite_schema SET sql = 'CREATE INDEX log_deleted ON log (tbl, name) WHERE body IS NULL'"
        " WHERE name = 'log_deleted'; PRAGMA writable_schema=RESET;"
    )
    connection.close()
    again = open_store(f"tinydb:{path}")
    found = again.check()
    assert any("SQLite finds" in fault.what for fault in found), found
    assert all(fault.repaired for fault in again.check(repair=True))
    assert again.check() == []
    assert describe(again) == before
    again.close()


def test_pages_that_are_overwritten_are_told(store: Store, path: Path):
    for number in range(200):
        put(store, make(f"more-{number}", metadata={"x": "y" * 1000}))
    store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(content)
    damaged = open_store(f"tinydb:{path}")
    found = damaged.check()
    assert any("SQLite" in fault.what for fault in found), found
    try:
        assert not all(fault.repaired for fault in damaged.check(repair=True))
    except FailedError as error:
        assert "damaged" in error.why  # noqa: PT017 - either is right: what cannot be read may not be writable either
    damaged.close()


def test_a_repair_keeps_others_out_and_they_go_on(store: Store, path: Path):
    other = open_store(f"tinydb:{path}")
    assert names(other.list_documents("VM", where=parse("tenant=t1")).items) == ["vm-1", "vm-4", "vm-7"]
    damage(path, "DELETE FROM field", "DELETE FROM head WHERE tbl = 'VM'")
    assert store.check(repair=True)
    assert names(other.list_documents("VM", where=parse("tenant=t1")).items) == ["vm-1", "vm-4", "vm-7"]
    put(other, make("vm-1", metadata={"tenant": "t9"}))
    assert names(store.list_documents("VM", where=parse("tenant=t9")).items) == ["vm-1"]
    assert other.check() == []
    other.close()
