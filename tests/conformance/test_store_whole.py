"""What every store must do as a whole: keep what its retentions say, compact, check, export and import."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import PLACES, delete, feed, make, make_place, names, other, place, put, put_status, store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import ConflictError, RefusedError
from backend.model.documents import Document
from backend.model.selectors import parse
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions, Store

__all__ = ["make_place", "other", "place", "store"]  # the fixtures of the suite that this is a part of

DAY = 86400.0
Opener = Callable[..., Store]


@pytest.fixture
def opener(make_place: Callable[[Path], str], tmp_path: Path) -> Iterator[Opener]:
    """Open a store of the engine under a name, with the retention of all kinds and of some."""
    opened: list[Store] = []

    def open_named(name: str = "kc", retention: Retention = Retention(), **kinds: Retention) -> Store:  # noqa: B008
        opened.append(open_store(make_place(tmp_path / name), retentions=Retentions(retention, kinds)))
        return opened[-1]

    yield open_named
    for each in opened:
        each.close()


def fill(store: Store) -> None:
    """Give a store some of everything: versions, statuses, a rename, deletions, a return from them, leases."""
    for cpus in (1, 2, 3):
        put(store, make("web", spec={"cpus": cpus}, message=f"now {cpus}"))
    put(store, make("old-name", metadata={"tenant": "umbrella", "notes": "ü\u2028" * 2000}))
    put(store, make("new-name", uid="uid-of-old-name", metadata={"tenant": "umbrella"}))
    put(store, make("web", kind="Image", uid="image"))
    for power in ("starting", "running"):
        put_status(store, "uid-of-web", {"power": power})
    put(store, make("gone"))
    put_status(store, "uid-of-gone", {"power": "running"})
    delete(store, "uid-of-gone", by="bob", message="away")
    put(store, make("back"))
    delete(store, "uid-of-back")
    put(store, make("back"))
    with store.transaction() as transaction:
        transaction.put_lease("op", {"owner": "me", "expiresAt": time.time() + 60, "fence": 3, "target": "uid-of-web"})


def describe(store: Store) -> dict[str, Any]:
    """Return all that a store tells."""
    kinds = ("VM", "Image")
    uids = [(kind, uid) for kind in kinds for uid in ("image", *(f"uid-of-{n}" for n in ("web", "gone", "back")))]
    return {
        "revision": store.revision(),
        "identity": store.identity,
        "lists": {kind: store.list_documents(kind).items for kind in kinds},
        "selected": names(store.list_documents("VM", where=parse("tenant=umbrella")).items),
        "history": {uid: store.history(*uid) for uid in (*uids, ("VM", "uid-of-old-name"))},
        "deleted": [store.find_deleted("VM", name) for name in ("web", "old-name", "gone", "back")],
    }


def export(store: Store) -> list[Document]:
    """Return an export as a file of it would be read."""
    return [json.loads(line) for line in [json.dumps(record) for record in store.dump()]]


def age(records: list[Document], days: float) -> list[Document]:
    """Return an export whose entries were all written so many days earlier."""
    return [{**record, "at": record["at"] - days * DAY} if "table" in record else record for record in records]


def versions(store: Store, uid: str = "uid-of-web", kind: str = "VM") -> list[int]:
    return [entry.version for entry in store.history(kind, uid)]


def put_many(store: Store, count: int, **fields: Any) -> None:
    for cpus in range(count):
        put(store, make(spec={"cpus": cpus}, **fields))


class TestRetention:
    def test_each_kind_keeps_its_number_of_versions(self, opener: Opener):
        store = opener(retention=Retention(versions=3), Image=Retention(versions=2), Network=Retention(versions=1))
        for kind, kept in (("VM", [5, 6, 7]), ("Image", [6, 7]), ("Network", [7])):
            put_many(store, 7, kind=kind)
            assert versions(store, kind=kind) == kept
            assert store.find(kind, "web")["version"] == 7  # type: ignore[index]

    @pytest.mark.parametrize("kept", [1, 2, 3])
    def test_a_deletion_is_told_with_its_document_however_few_are_kept(self, opener: Opener, kept: int):
        store = opener(retention=Retention(versions=kept))
        put_many(store, 5)
        since = store.revision()
        assert delete(store, "uid-of-web", by="bob") == 6
        assert feed(store, since) == [("deleted", "web", 5)]
        assert store.changes(since)[0].document["spec"] == {"cpus": 4}
        last = store.history("VM", "uid-of-web")[-1]
        assert (last.version, last.by, last.document) == (6, "bob", None)
        assert store.find_deleted("VM", "web") == "uid-of-web"
        assert put(store, make(), expect=6)["version"] == 7

    def test_whoever_follows_misses_no_newest_state(self, opener: Opener):
        store = opener(retention=Retention(versions=1))
        put(store, make("a"))
        put_many(store, 4)
        put(store, make("b"))
        delete(store, "uid-of-a")
        put(store, make("a"))
        assert feed(store)[-3:] == [("updated", "web", 4), ("created", "b", 1), ("created", "a", 3)]

    def test_what_came_back_is_selected_after_its_former_life_has_gone(self, opener: Opener):
        store = opener(retention=Retention(versions=4))
        put(store, make("back"))
        put_many(store, 70)
        delete(store, "uid-of-back")
        for name in ("back", "other", "back"):
            put(store, make(name, uid="uid-of-back"))
        assert versions(store, "uid-of-back") == [2, 3, 4, 5]
        assert store.check() == []
        put_many(store, 71)
        assert names(store.list_documents("VM", where=parse("tenant=acme")).items) == ["back", "web"]
        assert names(store.list_documents("VM", where=parse("tenant=acme,spec.cpus=1")).items) == ["back"]
        assert store.check() == []


class TestCompaction:
    def test_nothing_is_dropped_that_is_to_be_kept(self, store: Store):
        fill(store)
        before = describe(store), store.changes(0)
        done = store.compact()
        assert (done.versions, done.documents) == (0, 0)
        assert (describe(store), store.changes(0)) == before

    def test_an_empty_store_is_compacted_too(self, store: Store):
        assert store.compact()[:2] == (0, 0)
        assert store.changes(0) == []

    def test_versions_beyond_the_number_go_and_the_feed_begins_after_them(self, opener: Opener):
        wide, narrow = opener(), opener(retention=Retention(versions=3), Image=Retention(versions=5))
        put_many(wide, 10)
        put_many(wide, 10, kind="Image", uid="image")
        put(wide, make("last"))
        put_status(wide, "uid-of-web", {"power": "running"})
        assert versions(narrow) == list(range(1, 11))
        before = [narrow.list_documents(kind) for kind in ("VM", "Image")]
        done = narrow.compact()
        assert (done.versions, done.documents) == (7 + 5, 0)
        for reader in (wide, narrow):
            assert versions(reader) == [8, 9, 10]
            assert versions(reader, "image", "Image") == [6, 7, 8, 9, 10]
            assert [reader.list_documents(kind) for kind in ("VM", "Image")] == before
            for since in (0, 1, 14):
                with pytest.raises(ConflictError) as raised:
                    reader.changes(since)
                assert raised.value.details["compacted"] is True
            assert feed(reader, 15)[0] == ("updated", "web", 6)
            assert feed(reader, 20) == [("created", "last", 1), ("status", "web", 10)]
            assert reader.check() == []
        assert narrow.compact()[:2] == (0, 0)
        assert put(wide, make("web", spec={"cpus": 77}), expect=10)["version"] == 11

    def test_versions_go_by_the_time_since_they_were_replaced(self, opener: Opener):
        first = opener("first")
        put_many(first, 4)
        put(first, make("still"))
        put_status(first, "uid-of-still", {"power": "running"})
        store = opener("second", Retention(days=3))
        store.load(age(export(first), 10))
        put(store, make(spec={"cpus": 99}))
        done = store.compact()
        # The fourth was replaced only now, and the newest is live however old it is.
        assert versions(store) == [4, 5]
        assert versions(store, "uid-of-still") == [1]
        assert (done.versions, done.documents) == (3, 0)
        assert store.find("VM", "still")["status"] == {"power": "running"}  # type: ignore[index]
        assert store.check() == []

    def test_what_was_deleted_long_ago_is_forgotten(self, opener: Opener):
        first = opener("first")
        fill(first)
        store = opener("second", Retention(deleted_days=5), Image=Retention(deleted_days=0))
        delete(first, "image", kind="Image")
        store.load(age(export(first), 10))
        put(store, make("lately"))
        delete(store, "uid-of-lately")
        revision = store.revision()
        done = store.compact()
        assert done.documents == 1
        assert store.history("VM", "uid-of-gone") == []
        assert store.find_deleted("VM", "gone") == ""
        # Of the deletions, that was the only one of its kind, that old, and of something that did not come back.
        assert versions(store, "image", "Image") == [1, 2]
        assert versions(store, "uid-of-back") == [1, 2, 3]
        assert store.find_deleted("VM", "lately") == "uid-of-lately"
        assert put(store, store.history("VM", "uid-of-lately")[0].document, expect=2)["version"] == 3  # type: ignore[arg-type]
        assert put(store, make("gone"), expect=0)["version"] == 1
        assert store.revision() == revision + 2
        assert store.check() == []

    def test_leases_and_revisions_outlive_it(self, opener: Opener, make_place: Callable[[Path], str], tmp_path: Path):
        first = opener("first")
        fill(first)
        delete(first, "uid-of-web")
        store = opener("second", Retention(deleted_days=5))
        store.load(age(export(first), 10))
        revision, leases = store.revision(), store.leases()
        # The newest write of all stays, however old: it tells where to go on from.
        assert store.compact().documents == 1
        assert (store.revision(), store.leases()) == (revision, leases)
        assert versions(store) == [1, 2, 3, 4]
        assert store.changes(revision) == []
        store.close()
        again = open_store(make_place(tmp_path / "second"), retentions=Retentions(Retention(deleted_days=5)))
        assert again.revision() == revision
        put(again, make("next"))
        assert again.compact().documents == 1
        assert versions(again) == []
        assert [change.revision for change in again.changes(revision)] == [revision + 1]
        with pytest.raises(ConflictError):
            again.changes(revision - 1)
        again.close()

    def test_a_follower_who_is_not_behind_notices_nothing(self, opener: Opener):
        store, follower = opener(retention=Retention(versions=1)), opener()
        put_many(follower, 10)
        since = store.revision()
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.extend(follower.changes(since, wait=20)))
        thread.start()
        assert store.compact().versions == 9
        put(store, make("next"))
        thread.join(10)
        assert [change.document["name"] for change in seen] == ["next"]

    def test_it_says_how_much_room_it_gave_back(self, opener: Opener):
        wide, narrow = opener(), opener(retention=Retention(versions=1))
        for number in range(90):
            put(wide, make(metadata={"x": str(number) * 20_000}))
        done = narrow.compact()
        assert done.versions == 89
        if done.bytes_before:  # an engine that knows of none says 0
            assert done.bytes_after < done.bytes_before


class TestCheck:
    def test_a_sound_store_has_no_fault(self, store: Store, other: Store):
        assert store.check() == []
        fill(store)
        for each in (store, other):
            assert each.check() == []
            assert each.check(repair=True) == []
        before = describe(store)
        store.compact()
        assert store.check() == []
        assert describe(other) == before

    def test_tables_of_tinydb_are_sound_too(self, store: Store):
        table = store.database.table("notes")  # type: ignore[attr-defined]  # every store here has TinyDB's tables
        uids = table.insert_multiple([{"n": n} for n in range(5)])
        table.remove(doc_ids=uids[:2])
        table.update({"m": 1})
        assert store.check() == []
        assert store.compact()[:2] == (0, 0)


class TestExport:
    def test_an_export_has_the_shape_that_is_promised(self, store: Store):
        fill(store)
        header, *entries, lease, end = export(store)
        assert header == {
            "kc": "export", "format": 1, "identity": store.identity, "revision": store.revision(), "at": header["at"],
            **{key: header[key] for key in header if key not in ("kc", "format", "identity", "revision", "at")},
        }  # fmt: skip
        assert lease["lease"] == "op"
        assert lease["value"]["target"] == "uid-of-web"
        assert (end["end"], end["entries"]) == (store.revision(), len(entries))
        revisions = [entry["revision"] for entry in entries]
        assert revisions == sorted(set(revisions))
        assert entries[0] == {
            "revision": 1, "table": "VM", "id": "uid-of-web", "version": 1, "at": entries[0]["at"],
            "event": "created", "name": "web", "by": "anna", "message": "now 1",
            "document": make("web", message="now 1"),
        }  # fmt: skip
        (gone,) = [entry for entry in entries if (entry["id"], entry["event"]) == ("uid-of-gone", "deleted")]
        assert (gone["by"], gone["message"], gone["document"], gone["name"]) == ("bob", "away", None, "gone")
        assert [entry["document"] for entry in entries if entry["table"] == "VM.status"] == [{"power": "running"}]

    def test_what_was_exported_is_the_same_store_elsewhere(self, store: Store, opener: Opener):
        fill(store)
        records = export(store)
        second = opener("second")
        assert second.load(records) == len(records) - 3
        assert describe(second) == describe(store)
        ((uid, lease),) = second.leases()
        assert (uid, lease["owner"], lease["expiresAt"], lease["fence"]) == ("op", "", 0, 3)
        # What an export says of the store it came from is the same again, only not when it was made.
        first, again = ([{**each, "at": each.get("table")} for each in export(one)] for one in (store, second))
        assert [each for each in again if "lease" not in each] == [each for each in first if "lease" not in each]
        assert second.check() == []

    @pytest.mark.parametrize("target", PLACES.values(), ids=PLACES.keys())
    def test_every_engine_takes_what_another_exported(
        self, store: Store, target: Callable[[Path], str], tmp_path: Path
    ):
        fill(store)
        second = open_store(target(tmp_path / "target"))
        second.load(store.dump())
        assert describe(second) == describe(store)
        second.close()

    def test_life_goes_on_after_an_import(self, store: Store, opener: Opener):
        fill(store)
        second = opener("second")
        second.load(export(store))
        revision = second.revision()
        assert put(second, make(spec={"cpus": 9}), expect=3)["version"] == 4
        assert put(second, make("gone"), expect=2)["version"] == 3
        with pytest.raises(ConflictError):
            put(second, make("new-name", uid="another"))
        put(second, make("old-name", uid="another"))
        assert [change.revision for change in second.changes(revision)] == [revision + 1, revision + 2, revision + 3]
        assert second.check() == []

    def test_the_feed_goes_on_at_the_revision_of_the_import(self, opener: Opener):
        first, second = opener("first"), opener("second", Retention(deleted_days=5))
        fill(first)
        delete(first, "uid-of-web")
        second.load(age(export(first), 10))
        second.compact()
        third = opener("third")
        third.load(export(second))
        assert third.revision() == second.revision() == first.revision()
        # Who followed from before the deletions that were dropped cannot be told of them here either.
        for since in (0, 1, third.revision() - 1):
            with pytest.raises(ConflictError) as raised:
                third.changes(since)
            assert raised.value.details["compacted"] is True
        assert third.changes(third.revision()) == []

    def test_an_empty_store_is_exported_and_imported(self, store: Store, opener: Opener):
        records = export(store)
        assert len(records) == 2
        second = opener("second")
        assert second.load(records) == 0
        assert second.identity == store.identity
        put(second, make())

    def test_an_export_is_of_one_moment(self, store: Store, opener: Opener):
        with store.transaction() as transaction:
            for number in range(1500):
                transaction.put(make(f"vm-{number:04}"))
        records = store.dump()
        begun = [next(records) for _ in range(3)]
        put(store, make("later"))
        delete(store, "uid-of-vm-1400")
        put_status(store, "uid-of-vm-0000", {"power": "running"})
        whole = [*begun, *records]
        assert whole[-1]["entries"] == 1500
        second = opener("second")
        assert second.load(whole) == 1500
        assert names(second.list_documents("VM").items) == [f"vm-{number:04}" for number in range(1500)]

    def test_an_export_that_is_not_read_to_its_end_is_in_nobodys_way(self, store: Store):
        fill(store)
        records = store.dump()
        next(records)
        next(records)
        put(store, make("meanwhile"))
        records.close()  # type: ignore[attr-defined]  # it is a generator
        put(store, make("later"))
        assert store.check() == []

    def test_only_an_empty_store_takes_an_import(self, store: Store, opener: Opener):
        fill(store)
        records = export(store)
        second = opener("second")
        put(second, make("mine"))
        before = describe(second)
        with pytest.raises(ConflictError):
            second.load(records)
        assert describe(second) == before

    def test_an_import_that_was_cut_anywhere_leaves_nothing(self, store: Store, opener: Opener):
        fill(store)
        records = export(store)
        second = opener("second")
        identity = second.identity
        for length in range(len(records)):
            with pytest.raises(RefusedError):
                second.load(records[:length])
        assert (second.revision(), second.identity, second.leases()) == (0, identity, [])
        assert second.list_documents("VM").items == []
        assert second.load(records) == len(records) - 3

    @pytest.mark.parametrize(
        "damage",
        [
            lambda records: [records[0], records[2], records[1], *records[3:]],
            lambda records: [records[0], records[1], *records[1:]],
            lambda records: [records[0], *records[2:]],
            lambda records: records[1:],
            lambda records: [{**records[0], "format": 2}, *records[1:]],
            lambda records: [{**records[0], "format": "1"}, *records[1:]],
            lambda records: [{**records[0], "identity": ""}, *records[1:]],
            lambda records: [*records[:-1], {"end": 1, "entries": 1}],
            lambda records: [[], *records],
            lambda records: [*records[:2], "text", *records[2:]],
            lambda records: [*records[:2], None, *records[2:]],
            lambda records: [{**each, "document": {"n": 1}} if each.get("id") == "image" else each for each in records],
            lambda records: [{**each, "version": 7} if each.get("revision") == 2 else each for each in records],
            lambda records: [{**each, "version": 1} if each.get("revision") == 2 else each for each in records],
            lambda records: [{**each, "name": "web"} if each.get("id") == "uid-of-back" else each for each in records],
            lambda records: [{**each, "name": None} if each.get("id") == "uid-of-back" else each for each in records],
            lambda records: [{**each, "revision": 10**30} if each.get("revision") == 9 else each for each in records],
            lambda records: [{**each, "lease": 5} if "lease" in each else each for each in records],
            lambda records: [{**each, "value": None} if "lease" in each else each for each in records],
            lambda records: [{**each, "document": {"x": "\ud800"}} if each.get("id") == "image" else each
                             for each in records],
        ],
        ids=["swapped", "twice", "one-left-out", "no-header", "newer", "format-text", "no-identity", "other-end",
             "list", "text", "null", "other-document", "version-skipped", "version-twice", "name-twice", "name-gone",
             "huge-revision", "lease-number", "lease-null", "surrogate"],
    )  # fmt: skip
    def test_a_damaged_import_is_refused_and_leaves_nothing(
        self, store: Store, opener: Opener, damage: Callable[[list[Any]], list[Any]]
    ):
        fill(store)
        second = opener("second")
        identity = second.identity
        with pytest.raises(RefusedError):
            second.load(damage(export(store)))
        assert (second.revision(), second.identity, second.leases()) == (0, identity, [])
        assert second.list_documents("VM").items == []
        assert second.check() == []
        put(second, make())

    def test_no_change_of_an_import_is_worse_than_an_error(self, store: Store, opener: Opener):
        """Whatever is written over a field: it is refused, or taken and then sound."""
        fill(store)
        records = export(store)
        counter = itertools.count()
        values = st.none() | st.booleans() | st.integers(-3, 30) | st.floats(-2, 1e300) | st.text(max_size=3)

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.integers(0, len(records) - 1), st.data(), values | st.just({}) | st.just([]))
        def change(index: int, data: st.DataObject, value: Any) -> None:
            field = data.draw(st.sampled_from(sorted(records[index])))
            second = opener(f"changed-{next(counter)}")
            try:
                second.load([*records[:index], {**records[index], field: value}, *records[index + 1 :]])
            except RefusedError:
                assert second.revision() == 0
            assert second.check() == []
            second.list_documents("VM")
            second.changes(second.revision())
            second.close()

        change()
