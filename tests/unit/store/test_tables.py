"""TinyDB's own API over the engine: what its users know stays true, and what hurt them does not happen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import make
from tinydb import Query, where
from tinydb.operations import increment
from tinydb.operations import set as set_field
from tinydb.table import Document

from backend.errors import ConflictError, RefusedError
from backend.store.engine import FileEngine
from backend.store.tables import DocumentDatabase, DocumentTable, Rows, Working


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FileEngine]:
    opened = FileEngine(tmp_path / "kc.db")
    yield opened
    opened.close()


@pytest.fixture
def database(engine: FileEngine) -> DocumentDatabase:
    return DocumentDatabase(engine)


@pytest.fixture
def notes(database: DocumentDatabase) -> Any:
    return database.table("notes")


class TestPlainTables:
    def test_insert_get_and_contains(self, notes: Any):
        uid = notes.insert({"int": 1, "char": "a"})
        assert isinstance(uid, str)
        assert notes.get(doc_id=uid) == {"int": 1, "char": "a"}
        assert notes.get(doc_id=uid).doc_id == uid
        assert notes.get(where("char") == "a").doc_id == uid
        assert notes.contains(doc_id=uid)
        assert notes.contains(where("int") == 1)
        assert notes.get(doc_id="nobody") is None
        assert not notes.contains(where("int") == 2)

    def test_insert_multiple_keeps_the_order(self, notes: Any):
        uids = notes.insert_multiple({"int": number} for number in range(20))
        assert [document.doc_id for document in notes] == uids
        assert [document["int"] for document in notes.all()] == list(range(20))
        assert len(notes) == 20
        assert {document.doc_id for document in notes.get(doc_ids=uids[:3])} == set(uids[:3])

    def test_insert_with_an_id_that_is_taken_is_an_error(self, notes: Any):
        notes.insert(Document({"int": 1}, doc_id="x"))
        with pytest.raises(ValueError, match="already exists"):
            notes.insert(Document({"int": 2}, doc_id="x"))
        assert notes.get(doc_id="x") == {"int": 1}

    def test_search_with_queries(self, notes: Any):
        notes.insert_multiple([{"int": n, "deep": {"tags": ["a", f"t{n}"]}} for n in range(5)])
        query = Query()
        assert notes.count(query.int >= 3) == 2
        assert [document["int"] for document in notes.search((query.int > 1) & ~(query.int == 3))] == [2, 4]
        assert notes.count(query.deep.tags.any(["t4"])) == 1
        assert notes.count(query.fragment({"int": 2})) == 1
        assert notes.search(query.none.exists()) == []

    def test_update_by_query_by_id_and_by_operation(self, notes: Any):
        uids = notes.insert_multiple([{"int": n} for n in range(4)])
        assert notes.update({"seen": True}, where("int") < 2) == uids[:2]
        assert notes.update(increment("int"), doc_ids=[uids[3], "nobody"]) == [uids[3]]
        assert notes.update(set_field("all", 1)) == uids
        assert notes.update_multiple([({"low": 1}, where("int") == 0), ({"high": 1}, where("int") == 4)]) == [
            uids[0],
            uids[3],
        ]
        assert notes.all() == [
            {"int": 0, "seen": True, "all": 1, "low": 1},
            {"int": 1, "seen": True, "all": 1},
            {"int": 2, "all": 1},
            {"int": 4, "all": 1, "high": 1},
        ]

    def test_upsert(self, notes: Any):
        (uid,) = notes.upsert({"int": 1}, where("int") == 1)
        assert notes.upsert({"int": 1, "more": 2}, where("int") == 1) == [uid]
        assert notes.upsert(Document({"int": 3}, doc_id="x")) == ["x"]
        assert notes.upsert(Document({"more": 3}, doc_id="x")) == ["x"]
        assert notes.get(doc_id="x") == {"int": 3, "more": 3}
        assert len(notes) == 2

    def test_remove_and_truncate(self, notes: Any):
        uids = notes.insert_multiple([{"int": n} for n in range(6)])
        assert notes.remove(where("int") < 2) == uids[:2]
        assert notes.remove(doc_ids=[uids[2], "nobody"]) == [uids[2]]
        assert len(notes) == 3
        notes.truncate()
        assert notes.all() == []

    def test_tables_and_dropping_them(self, database: DocumentDatabase):
        database.insert({"in": "default"})
        database.table("one").insert({"a": 1})
        database.table("two").insert({"a": 1})
        assert database.tables() == {"_default", "one", "two"}
        database.drop_table("one")
        assert database.tables() == {"_default", "two"}
        assert len(database.table("one")) == 0
        database.drop_tables()
        assert database.tables() == set()
        assert "DocumentTable" in repr(database.table("two"))

    def test_a_table_longer_than_a_page(self, notes: Any):
        notes.insert_multiple({"int": number} for number in range(1203))
        assert len(notes) == 1203
        assert [document["int"] for document in notes] == list(range(1203))
        assert len(notes.update({"x": 1}, where("int") >= 1000)) == 203
        assert notes.count(where("x") == 1) == 203


class TestWhatUsedToHurt:
    def test_an_update_that_raises_changes_nothing(self, notes: Any):
        notes.insert_multiple([{"a": 1}, {"a": 2}, {"b": 3}])
        with pytest.raises(KeyError):
            notes.update(increment("a"))
        assert notes.all() == [{"a": 1}, {"a": 2}, {"b": 3}]

    def test_results_are_the_callers_own(self, notes: Any):
        uid = notes.insert({"deep": {"x": 1}})
        for document in (notes.get(doc_id=uid), notes.all()[0], notes.search(where("deep").exists())[0]):
            document["deep"]["x"] = 2
        assert notes.get(doc_id=uid) == {"deep": {"x": 1}}

    def test_another_opening_is_seen_at_once(self, notes: Any, engine: FileEngine):
        other_engine = FileEngine(engine.path)
        other = DocumentDatabase(other_engine).table("notes")
        query = where("a") == 1
        assert notes.search(query) == []
        other.insert({"a": 1})
        assert notes.search(query) == [{"a": 1}]
        other_engine.close()

    def test_two_openings_never_give_the_same_id(self, notes: Any, engine: FileEngine):
        other_engine = FileEngine(engine.path)
        other = DocumentDatabase(other_engine).table("notes")
        threads = [
            threading.Thread(target=lambda table=table: [table.insert({"a": n}) for n in range(25)])
            for table in (notes, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(notes) == 50
        other_engine.close()

    def test_an_unchanged_document_makes_no_version(self, notes: Any, engine: FileEngine):
        uid = notes.insert({"a": 1, "b": 2})
        notes.update({"a": 1})
        notes.update({"a": 2}, where("b") == 5)
        assert engine.revision() == 1
        notes.update({"a": True})
        assert [entry.version for entry in engine.history("notes", uid)] == [1, 2]

    def test_several_tables_change_together_or_not_at_all(self, database: DocumentDatabase, engine: FileEngine):
        def change() -> None:
            with engine.transaction():
                database.table("one").insert({"a": 1})
                database.table("two").insert({"a": 1})
                assert len(database.table("two")) == 1
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            change()
        assert database.tables() == set()

    def test_an_update_sees_what_the_same_transaction_wrote(self, database: DocumentDatabase, engine: FileEngine):
        notes = database.table("notes")
        with engine.transaction():
            uid: Any = notes.insert({"a": 1})
            notes.update(increment("a"), doc_ids=[uid])
            notes.update(increment("a"), doc_ids=[uid])
            assert notes.get(doc_id=uid) == {"a": 3}
        assert notes.get(doc_id=uid) == {"a": 3}

    def test_an_invalid_document_in_a_batch_leaves_none_of_it(self, notes: Any):
        with pytest.raises(RefusedError):
            notes.insert_multiple([{"a": 1}, {"a": {1, 2}}])
        assert notes.all() == []


class TestDocumentsOfKC:
    @pytest.fixture
    def vms(self, database: DocumentDatabase) -> DocumentTable:
        vms = database.table("VM")
        assert isinstance(vms, DocumentTable)
        for name, power in (("a", "running"), ("b", "stopped")):
            vms.put(make(name))
            database.table("VM.status").insert(Document({"power": power}, doc_id=f"uid-of-{name}"))  # type: ignore[arg-type]
        return vms

    def test_a_query_sees_the_whole_document(self, vms: DocumentTable):
        query = Query()
        (found,) = vms.search((query.status.power == "running") & (query.version == 1))
        assert found["name"] == "a"

    def test_an_update_leaves_version_and_status_out(self, vms: DocumentTable, engine: FileEngine):
        vms.update({"spec": {"cpus": 4}}, where("name") == "a")
        row = engine.read("VM", "uid-of-a")
        assert row
        assert row[0] == 2
        assert b'"version"' not in row[1]
        assert b'"status"' not in row[1]
        assert vms.get(where("name") == "a")["status"] == {"power": "running"}  # type: ignore[index]

    def test_names_are_unique_here_too(self, vms: DocumentTable):
        with pytest.raises(ConflictError):
            vms.update({"name": "a"}, where("name") == "b")
        with pytest.raises(ConflictError):
            vms.insert(Document(make("a", uid="new"), doc_id="new"))  # type: ignore[arg-type]
        assert sorted(document["name"] for document in vms) == ["a", "b"]

    def test_identity_cannot_be_bent(self, vms: DocumentTable):
        for fields in ({"uid": "other"}, {"name": ""}, {"name": 5}):
            with pytest.raises(RefusedError):
                vms.update(fields, where("name") == "a")

    def test_removal_takes_the_status_along(self, vms: DocumentTable, engine: FileEngine):
        vms.remove(where("name") == "a")
        assert engine.read("VM.status", "uid-of-a") is None
        assert engine.find_deleted("VM", "a") == "uid-of-a"

    def test_the_whole_state_is_written_as_differences(
        self, vms: DocumentTable, database: DocumentDatabase, engine: FileEngine
    ):
        revision = engine.revision()
        storage = vms.storage
        state = storage.read()
        assert state
        storage.write(state)
        assert engine.revision() == revision
        state["VM"]["uid-of-a"]["spec"] = {"cpus": 8}
        del state["VM"]["uid-of-b"]
        storage.write(state)
        assert [(d["name"], d["version"], d["spec"]) for d in vms] == [("a", 2, {"cpus": 8})]


class TestMappings:
    def test_rows_are_a_mapping(self, notes: Any, engine: FileEngine):
        notes.insert(Document({"a": 1}, doc_id="x"))
        rows = Rows(engine, "notes")
        assert list(rows) == ["x"]
        assert rows["x"] == {"a": 1}
        assert "y" not in rows
        with pytest.raises(KeyError):
            rows["y"]

    def test_working_is_a_mapping_that_writes_on_flush(self, notes: Any, engine: FileEngine):
        notes.insert(Document({"a": 1}, doc_id="x"))
        notes.insert(Document({"a": 2}, doc_id="y"))
        with engine.transaction():
            working = Working(engine, "notes")
            working["z"] = {"a": 3}
            del working["x"]
            working["y"]["a"] = 5
            assert sorted(working) == ["y", "z"]
            assert len(working) == 2
            assert "x" not in working
            assert len(Rows(engine, "notes")) == 2
            assert engine.read("notes", "z") is None
            working.flush()
        assert {document.doc_id: document["a"] for document in notes} == {"y": 5, "z": 3}
