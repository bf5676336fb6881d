"""A store that an older KC made is brought up to date, whole or not at all, and keeps all that it had."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import delete, make, names, put, put_status

from backend.errors import RefusedError
from backend.model.selectors import parse
from backend.store.engine import WINDOW
from backend.store.formats import FORMATS
from backend.store.opening import open_store
from backend.store.protocol import Store

# What the first release wrote, word for word; never to be changed.
FORMAT_1 = """
CREATE TABLE log (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    tbl TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
    at REAL NOT NULL, event TEXT NOT NULL, name TEXT, body BLOB
);
CREATE UNIQUE INDEX log_row ON log (tbl, id, version);
CREATE INDEX log_deleted ON log (tbl, name) WHERE body IS NULL;
CREATE TABLE head (
    tbl TEXT NOT NULL, id TEXT NOT NULL, name TEXT, revision INTEGER NOT NULL, metadata BLOB,
    PRIMARY KEY (tbl, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX head_name ON head (tbl, name);
CREATE TABLE lease (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
IDENTITY = "019a2038-07bf-727d-ae9f-000000000000"
DOCUMENTS = 150


class OldKC:
    """A KC of the first format: the statements that it writes with, on a connection that stays open."""

    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self.connection = sqlite3.connect(path, isolation_level=None)
        if is_new:
            self.connection.executescript(
                f"PRAGMA application_id={0x4B433031}; PRAGMA user_version=1; {FORMAT_1} PRAGMA journal_mode=WAL;"
                f"INSERT INTO meta (key, value) VALUES ('identity', '{IDENTITY}'), ('floor', '0');"
            )

    def _log(self, table: str, uid: str, event: str, name: str | None, body: Any) -> tuple[int, int]:
        select = "SELECT ifnull(max(version), 0) + 1 FROM log WHERE tbl = ? AND id = ?"
        ((version,),) = self.connection.execute(select, (table, uid))
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        cursor = self.connection.execute(
            "INSERT INTO log (tbl, id, version, at, event, name, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (table, uid, version, time.time(), event, name, data),
        )
        oldest = version - (1 if table.endswith(".status") else 100)
        if oldest > 0:
            self.connection.execute("DELETE FROM log WHERE tbl = ? AND id = ? AND version <= ?", (table, uid, oldest))
        assert cursor.lastrowid
        return cursor.lastrowid, version

    def put(self, body: dict[str, Any], table: str = "", uid: str = "") -> None:
        table, uid, name = table or body["kind"], uid or body["uid"], body["name"] if "kind" in body else None
        metadata = json.dumps(body["metadata"], separators=(",", ":")).encode() if name else None
        self.connection.execute("BEGIN IMMEDIATE")
        if self.connection.execute("SELECT 1 FROM head WHERE tbl = ? AND id = ?", (table, uid)).fetchone():
            revision, _ = self._log(table, uid, "updated", name, body)
            update = "UPDATE head SET revision = ?, metadata = ? WHERE tbl = ? AND id = ?"
            self.connection.execute(update, (revision, metadata, table, uid))
        else:
            revision, _ = self._log(table, uid, "created", name, body)
            insert = "INSERT INTO head (tbl, id, revision, name, metadata) VALUES (?, ?, ?, ?, ?)"
            self.connection.execute(insert, (table, uid, revision, name, metadata))
        self.connection.execute("COMMIT")

    def put_status(self, uid: str, status: dict[str, Any], kind: str = "VM") -> None:
        self.put(status, f"{kind}.status", uid)

    def delete(self, name: str, uid: str, kind: str = "VM") -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._log(kind, uid, "deleted", name, None)
        for table in ("head", "log"):
            self.connection.execute(f"DELETE FROM {table} WHERE tbl = ? AND id = ?", (f"{kind}.status", uid))
        self.connection.execute("DELETE FROM head WHERE tbl = ? AND id = ?", (kind, uid))
        self.connection.execute("COMMIT")

    def fill(self) -> None:
        for number in range(DOCUMENTS):
            self.put(make(f"vm-{number:03}", metadata={"tenant": f"t{number % 3}", "n": number}, message="born"))
            self.put_status(f"uid-of-vm-{number:03}", {"power": "running" if number % 2 else "stopped"})
        for cpus in range(120):
            self.put(make("vm-000", metadata={"tenant": "t0", "n": 0}, spec={"cpus": cpus}, updatedBy="bob"))
        self.put(make("vm-001", metadata={"tenant": "moved", "n": 1, "notes": "ü" * 3000}))
        self.put_status("uid-of-vm-001", {"power": "paused"})
        for number in (2, 3):
            self.delete(f"vm-{number:03}", f"uid-of-vm-{number:03}")
        self.put(make("vm-003", metadata={"tenant": "back"}))
        self.put(make("starter", kind="Image"))
        self.put({"n": 1}, "notes", "x")
        self.connection.execute("INSERT INTO lease VALUES ('op', ?)", (b'{"owner":"me"}',))

    def describe(self) -> dict[str, Any]:
        """Return what it shows: every version, what is live, and the rest."""
        columns = "revision, tbl, id, version, at, event, name, body"
        return {
            "log": self.connection.execute(f"SELECT {columns} FROM log ORDER BY revision").fetchall(),
            "head": self.connection.execute("SELECT tbl, id, name, revision FROM head ORDER BY tbl, id").fetchall(),
            "leases": self.connection.execute("SELECT * FROM lease").fetchall(),
            "meta": self.connection.execute("SELECT * FROM meta WHERE key IN ('identity', 'floor')").fetchall(),
            "revision": self.connection.execute("SELECT seq FROM sqlite_sequence").fetchall(),
        }

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kc.db"
    old = OldKC(path)
    old.fill()
    old.close()
    return path


def open_at(path: Path) -> Store:
    return open_store(f"tinydb:{path}", create=False)


def read_format(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        ((found,),) = connection.execute("PRAGMA user_version")
    connection.close()
    return int(found)


def describe(path: Path) -> dict[str, Any]:
    old = OldKC(path)
    described = old.describe()
    old.close()
    return described


def list_naively(store: Store, selector: str) -> list[str]:
    where = parse(selector)
    return names([document for document in store.list_documents("VM").items if where(document)])


def list_selected(store: Store, selector: str) -> list[str]:
    return names(store.list_documents("VM", where=parse(selector)).items)


SELECTORS = ("tenant=t1", "tenant=moved", "n<10", "status.power=paused", "status.power=running", "spec.cpus>100",
             "tenant=back", "n>=148", "name~vm-00*", "notes", "tenant=new", "status.power=new")  # fmt: skip


class TestMigration:
    def test_everything_is_as_it_was(self, path: Path):
        before = describe(path)
        store = open_at(path)
        assert describe(path) == before
        assert read_format(path) == len(FORMATS)
        assert store.identity == IDENTITY
        assert store.revision() == before["revision"][0][0]
        assert store.leases() == [("op", {"owner": "me"})]
        assert len(store.list_documents("VM").items) == DOCUMENTS - 1
        history = store.history("VM", "uid-of-vm-000")
        assert [entry.version for entry in history] == list(range(22, 122))
        assert (history[-1].by, history[-1].document["spec"]) == ("bob", {"cpus": 119})  # type: ignore[index]
        assert [(e.version, e.by, e.document is None) for e in store.history("VM", "uid-of-vm-002")] == [
            (1, "anna", False),
            (2, "", True),
        ]
        assert store.find_deleted("VM", "vm-002") == "uid-of-vm-002"
        assert store.find("VM", "vm-001")["status"] == {"power": "paused"}  # type: ignore[index]
        assert store.changes(store.revision() - 2)[0].type == "created"
        assert store.check() == []
        store.close()

    def test_selectors_take_what_they_took(self, path: Path):
        store = open_at(path)
        for selector in SELECTORS:
            assert list_selected(store, selector) == list_naively(store, selector), selector
        store.close()

    def test_what_was_migrated_is_what_is_born(self, path: Path, tmp_path: Path):
        open_at(path).close()
        open_store(f"tinydb:{tmp_path}/born.db").close()
        schemas = []
        for each in (path, tmp_path / "born.db"):
            connection = sqlite3.connect(each)
            schemas.append(sorted(connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall(), key=str))
            connection.close()
        assert schemas[0] == schemas[1]

    def test_life_goes_on(self, path: Path):
        store = open_at(path)
        put(store, make("vm-004", metadata={"tenant": "new"}))
        put_status(store, "uid-of-vm-005", {"power": "new"})
        delete(store, "uid-of-vm-006", by="carl", message="away")
        put(store, make("vm-new", metadata={"tenant": "new"}))
        assert store.history("VM", "uid-of-vm-006")[-1].by == "carl"
        for selector in SELECTORS:
            assert list_selected(store, selector) == list_naively(store, selector), selector
        assert store.check() == []
        store.close()

    def test_an_empty_store_is_migrated_too(self, tmp_path: Path):
        OldKC(tmp_path / "empty.db").close()
        store = open_at(tmp_path / "empty.db")
        assert store.revision() == 0
        put(store, make())
        assert store.check() == []
        store.close()

    def test_a_damaged_document_is_no_obstacle(self, path: Path):
        old = OldKC(path)
        old.connection.execute("UPDATE log SET body = x'ff' WHERE tbl = 'VM' AND id = 'uid-of-vm-007'")
        old.connection.execute("UPDATE log SET body = '[1]' WHERE tbl = 'VM' AND id = 'uid-of-vm-008'")
        old.close()
        store = open_at(path)
        assert store.find("VM", "vm-009")
        faults = store.check()
        assert len(faults) == 2
        assert all("damaged" in fault.what for fault in faults)
        store.close()

    def test_a_failed_step_leaves_the_format_before(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("DROP TABLE field")
            connection.execute("DELETE FROM log")
            raise ZeroDivisionError

        before = describe(path)
        monkeypatch.setattr("backend.store.formats.FORMATS", (*FORMATS, fail))
        monkeypatch.setattr("backend.store.engine.FORMATS", (*FORMATS, fail))
        with pytest.raises(ZeroDivisionError):
            open_at(path)
        assert describe(path) == before
        assert read_format(path) == len(FORMATS)
        monkeypatch.undo()
        store = open_at(path)
        assert store.check() == []
        store.close()

    def test_the_next_format_is_one_more_function(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        def add(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TABLE next (x)")

        before = describe(path)
        monkeypatch.setattr("backend.store.formats.FORMATS", (*FORMATS, add))
        monkeypatch.setattr("backend.store.engine.FORMATS", (*FORMATS, add))
        store = open_at(path)
        assert store.check() == []
        store.close()
        assert read_format(path) == len(FORMATS) + 1
        assert describe(path) == before
        monkeypatch.undo()
        with pytest.raises(RefusedError, match="newer KC"):
            open_at(path)


MIGRATE = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from backend.store import formats, indexing
steps = int(sys.argv[2])
class Counted:
    def __init__(self, connection): self.connection = connection
    def __getattr__(self, name): return getattr(self.connection, name)
    def execute(self, *arguments):
        global steps
        steps -= 1
        if steps == 0:
            print("there", flush=True)
            time.sleep(600)
        return self.connection.execute(*arguments)
real = formats.migrate
from backend.store import files
files.migrate = lambda path, connection: real(path, Counted(connection))
from backend.store.opening import open_store
open_store("tinydb:" + sys.argv[1])
print("done", flush=True)
time.sleep(600)
"""


def test_a_migration_that_is_killed_anywhere_is_done_by_the_next(path: Path):
    before = describe(path)
    steps, ended = 1, False
    formats: list[int] = []
    while not ended:
        process = subprocess.Popen(
            [sys.executable, "-c", MIGRATE, str(path), str(steps)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        ended = process.stdout.readline() == "done\n"
        process.kill()
        process.wait()
        process.stdout.close()
        formats.append(read_format(path))
        assert describe(path) == before
        steps += 2
    # Nothing in between: it was the old one until the moment at which it was the new one.
    assert formats == sorted(formats)
    assert set(formats) == {1, len(FORMATS)}
    assert formats.count(1) > 10
    store = open_at(path)
    for selector in SELECTORS:
        assert list_selected(store, selector) == list_naively(store, selector), selector
    assert store.check() == []
    store.close()


def test_many_that_open_an_old_store_migrate_it_once(path: Path):
    before = describe(path)
    program = f"from backend.store.opening import open_store; print(len(open_store('tinydb:{path}').check()))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["0\n"] * 4
    assert describe(path) == before


class TestAnOlderProcessThatStaysOpen:
    """It does not know the index, and whatever it writes is found all the same."""

    def test_its_writes_are_selected(self, path: Path):
        old = OldKC(path)
        store = open_at(path)
        old.put(make("vm-004", metadata={"tenant": "new"}))
        old.put(make("vm-new", metadata={"tenant": "new", "n": 5}))
        old.put_status("uid-of-vm-005", {"power": "new"})
        old.put_status("uid-of-vm-new", {"power": "new"})
        old.delete("vm-006", "uid-of-vm-006")
        assert list_selected(store, "tenant=new") == ["vm-004", "vm-new"]
        assert list_selected(store, "status.power=new") == ["vm-005", "vm-new"]
        for rounds in range(3):
            for selector in SELECTORS:
                assert list_selected(store, selector) == list_naively(store, selector), selector
            # Now the index takes up what the other one has written.
            for number in range(WINDOW):
                put(store, make("busy", metadata={"tenant": "busy", "n": number + rounds * 1000}))
            old.put(make("vm-007", metadata={"tenant": "new", "n": 7, "round": rounds}))
            old.delete("vm-new", "uid-of-vm-new")
            old.put(make("vm-new", metadata={"tenant": "new", "n": rounds}))
        old.close()
        store.close()

    def test_what_it_leaves_in_the_index_is_mended(self, path: Path):
        old = OldKC(path)
        store = open_at(path)
        old.delete("vm-006", "uid-of-vm-006")
        for number in range(WINDOW):
            put(store, make("busy", metadata={"n": number}))
        old.close()
        (fault,) = store.check()
        assert "index" in fault.where
        (fault,) = store.check(repair=True)
        assert fault.repaired
        assert store.check() == []
        for selector in SELECTORS:
            assert list_selected(store, selector) == list_naively(store, selector), selector
        store.close()

    def test_it_reads_what_the_newer_one_writes(self, path: Path):
        old = OldKC(path)
        store = open_at(path)
        put(store, make("vm-004", metadata={"tenant": "new"}))
        delete(store, "uid-of-vm-005", by="carl")
        found = old.connection.execute(
            "SELECT log.version, head.metadata FROM head JOIN log USING (revision) WHERE head.name = 'vm-004'"
        ).fetchall()
        assert found == [(2, b'{"tenant":"new"}')]
        assert old.connection.execute("SELECT 1 FROM head WHERE name = 'vm-005'").fetchall() == []
        old.close()
        store.close()
