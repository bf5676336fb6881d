"""What every store must do; a new engine joins by one line in `PLACES`.

What the store is as a whole (retention, compaction, check, export) is in `test_store_whole.py`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.etcd_cluster import make_url

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.model.documents import Document
from backend.model.selectors import parse
from backend.store.opening import open_store
from backend.store.protocol import Store, watch

# Where a fresh store of each engine is: a function from a folder of the test's own to the store's address.
PLACES: dict[str, Callable[[Path], str]] = {
    "file": lambda folder: f"tinydb:{folder}/kc.db",
    "memory": lambda folder: f"memory:{folder}",
    "etcd": lambda folder: make_url(3, folder),
}
# Those that other processes reach: what is in the memory of one is nobody else's.
SHARED = {engine: make_place for engine, make_place in PLACES.items() if engine != "memory"}


@pytest.fixture(params=PLACES.values(), ids=PLACES.keys())
def make_place(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    return request.param


@pytest.fixture
def place(make_place: Callable[[Path], str], tmp_path: Path) -> str:
    return make_place(tmp_path)


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    opened = open_store(place)
    yield opened
    opened.close()


@pytest.fixture
def other(store: Store, place: str) -> Iterator[Store]:
    """A second opening of the same store, as another process has."""
    opened = open_store(place, create=False)
    yield opened
    opened.close()


def make(name: str = "web", kind: str = "VM", uid: str = "", **fields: Any) -> Document:
    return {
        "apiVersion": "kc/v1",
        "kind": kind,
        "name": name,
        "uid": uid or f"uid-of-{name}",
        "metadata": {"tenant": "acme"},
        "spec": {"cpus": 1},
        "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z",
        "updatedBy": "anna",
        "message": "",
        **fields,
    }


def put(store: Store, body: Document, expect: int | None = None) -> Document:
    with store.transaction() as transaction:
        return transaction.put(body, expect=expect)


def put_status(store: Store, uid: str, status: dict[str, Any], kind: str = "VM") -> None:
    with store.transaction() as transaction:
        transaction.put_status(kind, uid, status)


def delete(store: Store, uid: str, kind: str = "VM", expect: int | None = None, **remarks: str) -> int:
    with store.transaction() as transaction:
        return transaction.delete(kind, uid, expect=expect, **remarks)


def names(documents: list[Document]) -> list[str]:
    return [document["name"] for document in documents]


def feed(store: Store, since: int = 0, kinds: tuple[str, ...] = ()) -> list[tuple[str, str, int]]:
    return [
        (change.type, change.document["name"], change.document["version"]) for change in store.changes(since, kinds)
    ]


class TestDocuments:
    def test_a_new_store_is_empty(self, store: Store):
        assert store.revision() == 0
        assert store.list_documents("VM") == ([], "", 0)
        assert store.get("VM", "x") is None
        assert store.find("VM", "x") is None
        assert store.history("VM", "x") == []
        assert store.find_deleted("VM", "x") == ""
        assert store.changes(0) == []
        assert store.leases() == []

    def test_a_document_is_read_as_it_was_written_with_version_and_status(self, store: Store, other: Store):
        body = make(metadata={"tenant": "acme", "deep": {"list": [1, 1.5, None, True, 'é\u2028"\\']}})
        whole = {**body, "version": 1, "status": {}}
        assert put(store, body) == whole
        for reader in (store, other):
            assert reader.get("VM", body["uid"]) == whole
            assert reader.find("VM", "web") == whole
            assert reader.list_documents("VM").items == [whole]

    def test_what_is_handed_out_is_the_callers_own(self, store: Store):
        body = make()
        written = put(store, body)
        written["spec"]["cpus"] = 99
        store.get("VM", body["uid"])["spec"]["cpus"] = 99  # type: ignore[index]
        body["spec"]["cpus"] = 99
        assert store.get("VM", body["uid"])["spec"] == {"cpus": 1}  # type: ignore[index]

    def test_version_and_status_in_a_body_are_passed_over(self, store: Store):
        put(store, make(version=7, status={"power": "running"}))
        assert store.find("VM", "web") == {**make(), "version": 1, "status": {}}
        assert "version" not in str(store.history("VM", "uid-of-web")[0].document).replace("'version': 1", "")

    def test_a_name_is_unique_among_the_live_ones_of_its_kind(self, store: Store):
        put(store, make())
        with pytest.raises(ConflictError) as raised:
            put(store, make(uid="another"))
        assert raised.value.details["reason"] == "name"
        assert "VM web" in str(raised.value)
        put(store, make(kind="Image", uid="another"))
        assert store.get("VM", "another") is None

    def test_a_document_can_be_renamed_to_a_free_name_only(self, store: Store):
        put(store, make("a"))
        put(store, make("b"))
        with pytest.raises(ConflictError):
            put(store, make("b", uid="uid-of-a"))
        put(store, make("c", uid="uid-of-a"))
        assert store.find("VM", "a") is None
        assert names(store.list_documents("VM").items) == ["b", "c"]
        put(store, make("a", uid="new"))

    @pytest.mark.parametrize("field", ["kind", "name", "uid"])
    def test_a_body_without_identity_is_refused(self, store: Store, field: str):
        with pytest.raises(RefusedError, match=field):
            put(store, make(**{field: ""}) if field != "uid" else {**make(), "uid": ""})
        with pytest.raises(RefusedError, match=field):
            put(store, {key: value for key, value in make().items() if key != field})
        with pytest.raises(RefusedError, match="dot"):
            put(store, make(kind="VM.status"))
        assert store.revision() == 0

    @pytest.mark.parametrize(
        "value",
        [float("nan"), float("inf"), (1, 2), {1: 2}, {None: 1}, {"a": {3}}, b"x", object(), "\ud800"],
        ids=lambda value: type(value).__name__ if type(value) is object else str(value),
    )
    def test_what_json_cannot_carry_is_refused(self, store: Store, value: Any):
        with pytest.raises(RefusedError):
            put(store, make(metadata={"x": value}))
        assert store.revision() == 0

    def test_a_document_that_is_too_large_or_too_deep_is_refused(self, store: Store):
        deep: Any = 1
        for _ in range(150):
            deep = [deep]
        for metadata in ({"x": "y" * 800_000}, {"x": deep}):
            with pytest.raises(RefusedError):
                put(store, make(metadata=metadata))
        put(store, make(metadata={"x": "y" * 500_000}))
        assert len(store.find("VM", "web")["metadata"]["x"]) == 500_000  # type: ignore[index]


class TestVersions:
    def test_each_change_is_the_next_version(self, store: Store):
        for cpus in (1, 2, 3):
            assert put(store, make(spec={"cpus": cpus}))["version"] == cpus

    def test_the_same_body_makes_no_version(self, store: Store):
        first = put(store, make())
        revision = store.revision()
        reordered = dict(reversed(make().items()))
        for same in (make(), first, reordered, make(updatedAt="later", updatedBy="bob", message="touched")):
            assert put(store, same) == first
        assert store.revision() == revision
        assert len(store.history("VM", first["uid"])) == 1

    def test_values_that_python_takes_for_equal_are_told_apart(self, store: Store):
        for version, value in enumerate([1, True, 1.0, 0, False, -0.0, "1"], start=1):
            assert put(store, make(metadata={"x": value}))["version"] == version
            assert repr(store.find("VM", "web")["metadata"]["x"]) == repr(value)  # type: ignore[index]

    def test_expect_is_the_current_version(self, store: Store):
        put(store, make(), expect=0)
        put(store, make(spec={"cpus": 2}), expect=1)
        for wrong in (0, 1, 3):
            with pytest.raises(ConflictError) as raised:
                put(store, make(spec={"cpus": 9}), expect=wrong)
            assert raised.value.details == {"reason": "version", "current": 2}
        with pytest.raises(ConflictError):
            put(store, make(spec={"cpus": 2}), expect=1)
        with pytest.raises(ConflictError):
            put(store, make("new"), expect=1)
        assert store.find("VM", "web")["spec"] == {"cpus": 2}  # type: ignore[index]

    def test_history_has_every_version_with_who_and_why(self, store: Store):
        before = time.time()
        put(store, make(message="born"))
        put(store, make(spec={"cpus": 2}, updatedBy="bob", message="more"))
        delete(store, "uid-of-web")
        history = store.history("VM", "uid-of-web")
        assert [(v.version, v.revision, v.by, v.message) for v in history] == [
            (1, 1, "anna", "born"),
            (2, 2, "bob", "more"),
            (3, 3, "", ""),
        ]
        assert [v.document and (v.document["version"], v.document["spec"]) for v in history] == [
            (1, {"cpus": 1}),
            (2, {"cpus": 2}),
            None,
        ]
        assert all(before - 1 <= v.at <= time.time() + 1 for v in history)

    def test_the_last_hundred_versions_are_kept(self, store: Store):
        for cpus in range(105):
            put(store, make(spec={"cpus": cpus}))
        assert [v.version for v in store.history("VM", "uid-of-web")] == list(range(6, 106))


class TestDeletion:
    def test_a_deleted_document_is_gone_and_its_history_stays(self, store: Store):
        put(store, make())
        delete(store, "uid-of-web", expect=1)
        assert store.get("VM", "uid-of-web") is None
        assert store.find("VM", "web") is None
        assert store.list_documents("VM").items == []
        assert len(store.history("VM", "uid-of-web")) == 2
        assert store.find_deleted("VM", "web") == "uid-of-web"

    def test_a_deletion_is_a_version_that_says_who_and_why(self, store: Store, other: Store):
        put(store, make())
        put(store, make(spec={"cpus": 2}))
        assert delete(store, "uid-of-web", by="bob", message="no longer needed") == 3
        for reader in (store, other):
            last = reader.history("VM", "uid-of-web")[-1]
            assert (last.version, last.by, last.message, last.document) == (3, "bob", "no longer needed", None)
            assert reader.revision() == last.revision

    def test_who_deleted_is_kept_as_it_was_said(self, store: Store):
        for number, by in enumerate(["", "\x1b[31m", "ü\u2028", '{"a": 1}', "x" * 5000]):
            put(store, make(uid=f"{number}"))
            delete(store, f"{number}", by=by, message="")
            assert store.history("VM", f"{number}")[-1].by == by
        put(store, make(uid="last"))
        with pytest.raises(RefusedError):
            delete(store, "last", by="\ud800")
        assert store.find("VM", "web")

    def test_only_what_is_live_can_be_deleted_and_only_in_the_version_expected(self, store: Store):
        with pytest.raises(NotFoundError):
            delete(store, "nobody")
        put(store, make())
        with pytest.raises(ConflictError):
            delete(store, "uid-of-web", expect=2)
        assert store.find("VM", "web")
        delete(store, "uid-of-web")
        with pytest.raises(NotFoundError):
            delete(store, "uid-of-web")

    def test_a_name_can_be_used_again_and_the_last_deleted_is_found(self, store: Store):
        for uid in ("one", "two"):
            put(store, make(uid=uid), expect=0)
            delete(store, uid)
        assert store.find_deleted("VM", "web") == "two"
        put(store, make(uid="three"))
        assert store.find_deleted("VM", "web") == "two"
        assert store.find_deleted("Image", "web") == ""

    def test_a_deleted_document_comes_back_under_its_uid_with_the_next_version(self, store: Store):
        put(store, make())
        delete(store, "uid-of-web")
        with pytest.raises(ConflictError):
            put(store, make(), expect=0)
        assert put(store, make(), expect=2)["version"] == 3
        assert store.find_deleted("VM", "web") == ""
        assert feed(store) == [("created", "web", 1), ("deleted", "web", 1), ("created", "web", 3)]


class TestStatus:
    def test_a_status_is_no_version_and_moves_the_feed(self, store: Store):
        put(store, make())
        put_status(store, "uid-of-web", {"power": "running"})
        document = store.find("VM", "web")
        assert document
        assert (document["version"], document["status"]) == (1, {"power": "running"})
        assert len(store.history("VM", "uid-of-web")) == 1
        assert feed(store, 1) == [("status", "web", 1)]

    def test_an_equal_status_moves_nothing(self, store: Store):
        put(store, make())
        put_status(store, "uid-of-web", {"power": "running", "since": 1})
        revision = store.revision()
        put_status(store, "uid-of-web", {"since": 1, "power": "running"})
        assert store.revision() == revision
        put_status(store, "uid-of-web", {"since": True, "power": "running"})
        assert store.revision() > revision

    def test_a_status_needs_a_live_document_and_goes_with_it(self, store: Store):
        with pytest.raises(NotFoundError):
            put_status(store, "uid-of-web", {})
        put(store, make())
        put_status(store, "uid-of-web", {"power": "running"})
        delete(store, "uid-of-web")
        put(store, make())
        assert store.find("VM", "web")["status"] == {}  # type: ignore[index]

    def test_many_statuses_leave_one(self, store: Store):
        put(store, make())
        for number in range(50):
            put_status(store, "uid-of-web", {"step": number})
        (change,) = store.changes(1)
        assert (change.type, change.document["status"]) == ("status", {"step": 49})


class TestLists:
    @pytest.fixture(scope="class", params=PLACES.values(), ids=PLACES.keys())
    @classmethod
    def full(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
        """A store of 700 VMs that the tests only read."""
        store = open_store(request.param(tmp_path_factory.mktemp("full")))
        with store.transaction() as transaction:
            for number in range(700):
                body = make(f"vm-{number * 9 % 700:04}", metadata={"n": number, "tenant": f"t{number % 3}"})
                transaction.put(body)
                if number % 2:
                    transaction.put_status("VM", body["uid"], {"power": "running"})
        yield store
        store.close()

    def test_a_list_is_in_the_order_of_names(self, full: Store):
        page = full.list_documents("VM")
        assert names(page.items) == [f"vm-{number:04}" for number in range(700)]
        assert (page.next, page.revision) == ("", 1050)

    @pytest.mark.parametrize("limit", [7, 499, 500, 501, 699, 700, 5000])
    @pytest.mark.parametrize(
        "where",
        [None, lambda document: document["metadata"]["n"] % 5 == 0, parse("tenant=t1"), parse("status.power=running")],
        ids=["all", "function", "metadata", "status"],
    )
    def test_pages_make_up_the_list(self, full: Store, limit: int, where: Any):
        pages, after = [], ""
        while True:
            page = full.list_documents("VM", where=where, limit=limit, after=after)
            assert 0 < len(page.items) <= limit
            pages += page.items
            after = page.next
            if not after:
                break
        assert pages == full.list_documents("VM", where=where).items
        assert pages == [document for document in full.list_documents("VM").items if not where or where(document)]

    @pytest.mark.parametrize(
        "selector",
        ["tenant=t1", "n=17", "n>690", "tenant!=t1", "name~vm-00*", "name=vm-0003", "!n", "tenant", "tenant=none",
         ",".join(["tenant=t1"] * 50), f"tenant in ({','.join(map(str, range(800)))},t1)", "tenant in (t0,t1)",
         "status.power=running,tenant in (t0,t2)", "!status.power", "spec.cpus=1,n<5", "uid=uid-of-vm-0010", ""],
    )  # fmt: skip
    def test_a_selector_lists_what_it_takes_one_by_one(self, full: Store, selector: str):
        where = parse(selector)
        everything = full.list_documents("VM").items
        assert full.list_documents("VM", where=where).items == [each for each in everything if where(each)]

    def test_metadata_too_large_for_the_short_way_is_selected_all_the_same(self, store: Store):
        put(store, make("large", metadata={"tenant": "acme", "notes": "x" * 5000}))
        put(store, make("small"))
        put(store, make("other", metadata={"tenant": "umbrella", "notes": "x" * 5000}))
        assert names(store.list_documents("VM", where=parse("tenant=acme")).items) == ["large", "small"]

    def test_a_selector_sees_changed_metadata(self, store: Store):
        put(store, make())
        put(store, make(metadata={"tenant": "umbrella"}))
        assert store.list_documents("VM", where=parse("tenant=acme")).items == []
        assert names(store.list_documents("VM", where=parse("tenant=umbrella")).items) == ["web"]

    def test_the_feed_goes_on_where_a_list_ended(self, store: Store, other: Store):
        put(store, make("a"))
        page = other.list_documents("VM")
        put(store, make("b"))
        assert feed(other, page.revision) == [("created", "b", 1)]


class TestFeed:
    def test_changes_come_in_order_and_resume_anywhere(self, store: Store, other: Store):
        put(store, make("a"))
        put(other, make("b"))
        put(store, make("a", spec={"cpus": 2}))
        put_status(other, "uid-of-b", {"power": "running"})
        delete(store, "uid-of-a")
        expected = [
            ("created", "a", 1),
            ("created", "b", 1),
            ("updated", "a", 2),
            ("status", "b", 1),
            ("deleted", "a", 2),
        ]
        for reader in (store, other):
            assert feed(reader) == expected
            revisions = [change.revision for change in reader.changes(0)]
            assert revisions == sorted(set(revisions))
            for count, revision in enumerate(revisions, start=1):
                assert feed(reader, revision) == expected[count:]

    def test_a_deletion_shows_the_document_as_it_last_was(self, store: Store):
        put(store, make(spec={"cpus": 5}))
        delete(store, "uid-of-web")
        assert store.changes(1)[0].document["spec"] == {"cpus": 5}

    def test_the_feed_of_some_kinds_leaves_the_others_out(self, store: Store):
        put(store, make("a"))
        put(store, make("i", kind="Image"))
        put_status(store, "uid-of-a", {"x": 1})
        put_status(store, "uid-of-i", {"x": 1}, kind="Image")
        assert feed(store, 0, ("Image",)) == [("created", "i", 1), ("status", "i", 1)]
        assert feed(store, 0, ("Network",)) == []
        put(store, make("n", kind="Network"))
        assert feed(store, 0, ("Network",)) == [("created", "n", 1)]
        assert feed(store, 0, ("Network", "VM")) == [("created", "a", 1), ("status", "a", 1), ("created", "n", 1)]

    def test_a_long_feed_comes_in_batches_without_a_gap(self, store: Store):
        with store.transaction() as transaction:
            for number in range(1000):
                transaction.put(make(f"vm-{number:04}"))
        seen: list[str] = []
        since = 0
        while batch := store.changes(since):
            seen += names([change.document for change in batch])
            since = batch[-1].revision
        assert seen == [f"vm-{number:04}" for number in range(1000)]

    @pytest.mark.parametrize("since", [-1, 1])
    def test_a_cursor_that_was_never_given_out_says_so(self, store: Store, since: int):
        with pytest.raises(ConflictError) as raised:
            store.changes(since)
        assert raised.value.details["compacted"] is True

    def test_waiting_ends_with_the_first_change(self, store: Store, other: Store):
        for writer in (store, other):
            since = store.revision()
            timer = threading.Timer(0.1, lambda writer=writer: put(writer, make(f"of-{id(writer)}")))
            timer.start()
            start = time.monotonic()
            changes = store.changes(since, wait=10)
            taken = time.monotonic() - start
            timer.join()
            assert len(changes) == 1
            assert 0.05 < taken < 1.1

    def test_waiting_ends_in_time_without_a_change(self, store: Store):
        start = time.monotonic()
        assert store.changes(0, wait=0.2) == []
        assert 0.19 < time.monotonic() - start < 1

    def test_many_wait_at_once_and_all_see_it(self, store: Store, other: Store):
        seen: list[list[str]] = []

        def wait() -> None:
            seen.append(names([change.document for change in store.changes(0, wait=10)]))

        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)  # long enough for most to wait; those that do not yet see it anyway
        put(other, make())
        for thread in threads:
            thread.join(5)
        assert seen == [["web"]] * 8

    def test_closing_ends_a_wait(self, place: str):
        opened = open_store(place)
        result: list[Any] = []
        thread = threading.Thread(target=lambda: result.append(opened.changes(0, wait=30)))
        thread.start()
        time.sleep(0.1)
        opened.close()
        thread.join(5)
        assert result == [[]]

    def test_watch_yields_batches_and_empty_ones(self, store: Store):
        put(store, make())
        batches = watch(store, 0, wait=0.05)
        assert names([change.document for change in next(batches)]) == ["web"]
        assert next(batches) == []
        put(store, make("b"))
        assert names([change.document for change in next(batches)]) == ["b"]

    @pytest.mark.parametrize("make_place", SHARED.values(), ids=SHARED.keys())
    def test_another_process_is_seen_well_within_a_second(self, store: Store, place: str):
        writer = start_writer(place)
        try:
            for number in range(5):
                since = store.revision()
                writer.stdin.write(f"vm-{number}\n")
                writer.stdin.flush()
                (change,) = store.changes(since, wait=10)
                seen_at = time.time()
                written_at = float(writer.stdout.readline())
                assert change.document["name"] == f"vm-{number}"
                assert seen_at - written_at < 1
        finally:
            writer.stdin.close()
            assert writer.wait(10) == 0
            writer.stdout.close()


def start_writer(place: str) -> subprocess.Popen[str]:
    """Start a process that writes a VM for each line that it reads, and answers with the time of the commit."""
    program = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from conformance.test_store import make, put
from backend.store.opening import open_store
store = open_store({place!r})
for line in sys.stdin:
    put(store, make(line.strip()))
    print(time.time(), flush=True)
store.close()
"""
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class TestTransactions:
    def test_reads_see_the_writes_before_them_and_others_do_not(self, store: Store, other: Store):
        with store.transaction() as transaction:
            transaction.put(make())
            transaction.put_status("VM", "uid-of-web", {"power": "running"})
            assert transaction.find("VM", "web")["status"] == {"power": "running"}  # type: ignore[index]
            assert transaction.get("VM", "uid-of-web")["version"] == 1  # type: ignore[index]
            transaction.put(make(spec={"cpus": 2}))
            assert transaction.get("VM", "uid-of-web")["version"] == 2  # type: ignore[index]
            assert other.find("VM", "web") is None
            assert other.changes(0) == []
        assert other.find("VM", "web")["version"] == 2  # type: ignore[index]

    def test_a_block_that_raises_leaves_nothing(self, store: Store):
        put(store, make("old"))
        revision = store.revision()

        def change_all() -> None:
            with store.transaction() as transaction:
                transaction.put(make("new"))
                transaction.put_status("VM", "uid-of-old", {"power": "running"})
                transaction.delete("VM", "uid-of-old")
                transaction.put_lease("op", {"holder": "me"})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            change_all()
        assert names(store.list_documents("VM").items) == ["old"]
        assert store.find("VM", "old")["status"] == {}  # type: ignore[index]
        assert store.leases() == []
        assert store.changes(revision) == []
        put(store, make("after"))
        assert feed(store, revision) == [("created", "after", 1)]

    def test_an_error_that_is_caught_inside_leaves_the_rest(self, store: Store):
        put(store, make("taken"))
        with store.transaction() as transaction:
            transaction.put(make("a"))
            with pytest.raises(ConflictError):
                transaction.put(make("taken", uid="another"))
            with pytest.raises(ConflictError):
                transaction.put(make("taken", spec={"cpus": 2}), expect=5)
            with pytest.raises(RefusedError):
                transaction.put(make("b", metadata={"x": float("nan")}))
            transaction.put(make("c"))
        assert names(store.list_documents("VM").items) == ["a", "c", "taken"]

    def test_a_transaction_inside_another_is_a_part_of_it(self, store: Store):
        def put_and_fail(name: str) -> None:
            with store.transaction() as transaction:
                transaction.put(make(name))
                assert transaction.find("VM", name)
                raise ZeroDivisionError

        with store.transaction() as outer:
            outer.put(make("a"))
            with pytest.raises(ZeroDivisionError):
                put_and_fail("b")
            assert outer.find("VM", "b") is None
            with store.transaction() as inner:
                inner.put(make("c"))
        assert names(store.list_documents("VM").items) == ["a", "c"]

    def test_a_part_goes_with_the_whole(self, store: Store):
        def put_and_fail() -> None:
            with store.transaction():
                with store.transaction() as inner:
                    inner.put(make())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            put_and_fail()
        assert store.find("VM", "web") is None

    def test_several_documents_become_visible_at_once(self, store: Store, other: Store):
        stop = threading.Event()
        torn: list[Any] = []

        def read() -> None:
            while not stop.is_set():
                listed = other.list_documents("VM").items
                if len({document["spec"]["cpus"] for document in listed}) > 1:
                    torn.append(listed)

        thread = threading.Thread(target=read)
        thread.start()
        for cpus in range(60):
            with store.transaction() as transaction:
                for name in ("a", "b", "c"):
                    transaction.put(make(name, spec={"cpus": cpus}))
        stop.set()
        thread.join(10)
        assert not torn

    def test_threads_that_increment_lose_nothing(self, store: Store, other: Store):
        put(store, make(spec={"count": 0}))

        def increment(target: Store) -> None:
            for _ in range(25):
                while True:
                    document = target.find("VM", "web")
                    assert document
                    document["spec"]["count"] += 1
                    try:
                        put(target, document, expect=document["version"])
                        break
                    except ConflictError:
                        continue

        threads = [threading.Thread(target=increment, args=(each,)) for each in (store, other, store, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        document = store.find("VM", "web")
        assert document
        assert (document["spec"]["count"], document["version"]) == (100, 101)


class TestLeases:
    def test_leases_are_kept_apart_from_the_feed(self, store: Store, other: Store):
        with store.transaction() as transaction:
            assert transaction.get_lease("op") is None
            transaction.put_lease("op", {"holder": "one", "until": 5})
            transaction.put_lease("other", {"holder": "two"})
            assert transaction.get_lease("op") == {"holder": "one", "until": 5}
        assert sorted(other.leases()) == [("op", {"holder": "one", "until": 5}), ("other", {"holder": "two"})]
        assert store.revision() == 0
        with other.transaction() as transaction:
            transaction.put_lease("op", {"holder": "three"})
            transaction.put_lease("other", None)
            transaction.put_lease("nobody", None)
        assert store.leases() == [("op", {"holder": "three"})]


class TestOpening:
    def test_a_store_keeps_its_identity(self, store: Store, other: Store, place: str):
        assert store.identity == other.identity
        assert len(store.identity) == 36
        store.close()
        other.close()
        again = open_store(place)
        assert again.identity == store.identity
        again.close()

    def test_two_stores_differ(self, store: Store, make_place: Callable[[Path], str], tmp_path: Path):
        second = open_store(make_place(tmp_path / "second"))
        assert second.identity != store.identity
        second.close()

    def test_its_address_opens_it(self, store: Store):
        put(store, make())
        again = open_store(store.url, create=False)
        assert again.find("VM", "web")
        again.close()

    def test_closing_twice_does_nothing_and_a_closed_store_says_so(self, place: str):
        opened = open_store(place)
        put(opened, make())
        opened.close()
        opened.close()
        for use in (
            opened.revision,
            lambda: opened.list_documents("VM"),
            lambda: put(opened, make("b")),
            lambda: opened.changes(0, wait=1),
        ):
            with pytest.raises(FailedError, match="closed"):
                use()

    def test_what_was_written_is_there_after_opening_again(self, place: str):
        opened = open_store(place)
        put(opened, make())
        put_status(opened, "uid-of-web", {"power": "running"})
        expected = opened.find("VM", "web"), opened.revision(), opened.history("VM", "uid-of-web")
        opened.close()
        opened = open_store(place)
        assert (opened.find("VM", "web"), opened.revision(), opened.history("VM", "uid-of-web")) == expected
        opened.close()
