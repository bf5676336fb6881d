"""The index of fields: it leaves documents out, and never one that a selector takes."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import delete, make, names, put, put_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.model.selectors import Condition, parse
from backend.store.engine import WINDOW, FileEngine
from backend.store.fields import LARGEST, MAXIMUM_FIELDS, MAXIMUM_TEXT
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions, Store
from backend.store.sifting import find_few, find_many


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kc.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = open_store(f"tinydb:{path}")
    yield opened
    opened.close()


def engine_of(store: Store) -> FileEngine:
    engine = store._engine  # type: ignore[attr-defined]
    assert isinstance(engine, FileEngine)
    return engine


def look_up(store: Store, selector: str) -> list[str] | None:
    """Return what the index alone gives."""
    connections = engine_of(store)._connections
    where = parse(selector)
    few = find_few(connections, "VM", where, "")
    return few if few is not None else find_many(connections, "VM", where, "")


def settle(store: Store) -> None:
    """Bring the index up to date as a write does in time."""
    engine = engine_of(store)
    with engine.transaction():
        engine._connections.move(due=True)


def count_entries(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM field")
    connection.close()
    return int(count)


# Few keys and few values, so that selectors meet them; among them all that SQLite and Python might see differently.
KEYS = st.sampled_from(["a", "b", "a.b", "", "é", "a b", "spec"])
TEXTS = st.sampled_from(
    ["", "x", "X", "xy", "x*y", "[x]", "é", "3", "3.0", "true", "null", "x\0y", "\0", "y" * 64, "y" * 65, "y" * 66,
     "\ud7ff", "\ue000", "\U0010ffff", "\U0010ffff\U0010ffff"]
)  # fmt: skip
NUMBERS = st.sampled_from(
    [0, -0.0, 1, 1.0, 3, 3.5, -1, 2**53, 2**53 + 1, float(2**53), LARGEST, -LARGEST, LARGEST + 1, LARGEST + 2, 2**64,
     10**25, 1e25, -(10**25), float(2**63), 1e300, 5e-324, -LARGEST - 1, -LARGEST - 2]
)  # fmt: skip
SCALARS = TEXTS | NUMBERS | st.sampled_from([True, False, None])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
ROOT_VALUES = OBJECTS | st.lists(OBJECTS, max_size=2) | SCALARS
NAMES = st.text(st.sampled_from("ab[*\0é"), min_size=1, max_size=3)


def quote(text: str) -> str:
    return json.dumps(text)


@st.composite
def make_term(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 5)) == 0:
        key = draw(st.sampled_from(["name", "uid", "version", "kind", "updatedAt", "metadata", "spec"]))
    else:
        parts = draw(st.lists(KEYS, min_size=1, max_size=3))
        words = [draw(st.sampled_from([part if part.isalpha() else quote(part), quote(part)])) for part in parts]
        key = draw(st.sampled_from(["", "metadata.", "spec.", "status."])) + ".".join(words)
    bare = st.sampled_from(["true", "null", "x", "3", "3.0", "1e400", "-1e400", "1e25"])
    value = st.one_of(TEXTS.map(quote), NUMBERS.map(str), bare)
    globs = st.text(st.sampled_from("xy*?[]é\0\ud7ff\U0010ffff"), min_size=1, max_size=4).map(quote)
    return draw(
        st.one_of(
            st.just(key),
            st.just(f"!{key}"),
            st.builds(lambda o, v: f"{key}{o}{v}", st.sampled_from(["=", "!=", ">", ">=", "<", "<="]), value),
            st.builds(lambda o, v: f"{key} {o} ({','.join(v)})", st.sampled_from(["in", "notin"]),
                      st.lists(value, min_size=1, max_size=3)),
            globs.map(lambda glob: f"{key}~{glob}"),
        )
    )  # fmt: skip


WRITES = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from(["put", "put", "status", "delete", "settle"]), ROOT_VALUES, ROOT_VALUES
    ),
    max_size=25,
)  # fmt: skip


def apply(store: Store, write: tuple[int, str, Any, Any]) -> None:
    number, verb, first, second = write
    uid = f"uid-{number}"
    live = store.get("VM", uid)
    if verb == "settle":
        settle(store)
    elif verb == "put":
        put(store, make("x[*\0é"[number % 5 :] + str(number), uid=uid, metadata=first, spec=second))
    elif live and verb == "status":
        put_status(store, uid, first if isinstance(first, dict) else {"a": first})
    elif live:
        delete(store, uid)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(writes=WRITES, selectors=st.lists(st.lists(make_term(), min_size=1, max_size=3), min_size=1, max_size=12))
def test_the_index_gives_all_that_a_naive_evaluation_takes(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Any], selectors: list[list[str]]
):
    folder = tmp_path_factory.mktemp("index")
    store = open_store(f"tinydb:{folder}/kc.db", retentions=Retentions(Retention(versions=2)))
    for write in writes:
        apply(store, write)
    for last in (False, True):
        everything = store.list_documents("VM").items
        for terms in selectors:
            selector = parse(",".join(terms))
            expected = [document for document in everything if selector(document)]
            assert store.list_documents("VM", where=selector).items == expected, selector
            looked_up = look_up(store, str(selector))
            if looked_up is not None:
                assert {document["name"] for document in expected} <= set(looked_up), selector
        if not last:
            settle(store)
    assert store.check() == []
    store.close()


class TestConditions:
    def test_what_must_not_be_is_none(self):
        assert parse("!a,b!=1,c notin (x)").conditions == ()

    def test_each_operator_says_what_it_looks_for(self):
        assert parse('a.b=3,spec.c in (x,true,"4"),name~w*,n>=2.5,t<abc,status.s').conditions == (
            Condition("metadata", "a.b", "in", ("3", 3)),
            Condition("spec", "c", "in", ("x", "true", "4", True)),
            Condition("", "name", "~", ("w*",)),
            Condition("metadata", "n", ">=", (2.5,)),
            Condition("metadata", "t", "<", ("abc",)),
            Condition("status", "s", "exists", ()),
        )  # fmt: skip


class TestNarrowing:
    @pytest.fixture
    def full(self, store: Store) -> Store:
        """A store of 300 VMs, of which the 77th is special in every way."""
        with store.transaction() as transaction:
            for number in range(300):
                special = number == 77
                metadata = {
                    "n": number, "tenant": f"t{special}", "owner": {"mails": ["x@y", f"{number}@z"]},
                    "app.org/tier": "web" if special else "db", "long": ("l" if special else "m") * 100,
                }  # fmt: skip
                spec = {"cpus": 64 if special else 2, "nics": [{"mac": number}]}
                body = make(f"vm-{number:03}", metadata=metadata, spec=spec)
                transaction.put(body)
                transaction.put_status("VM", body["uid"], {"power": "failed" if special else "running"})
        settle(store)
        return store

    @pytest.mark.parametrize(
        "selector",
        ["tenant=tTrue", "n=77", "n=77.0", "n>=77,n<78", "owner.mails=77@z", "owner.mails~77@?", "app.org/tier=web",
         "status.power=failed", "status.power=failed,n>3", "spec.cpus>63", "spec.nics.mac=77", "name=vm-077",
         "name~vm-077*", "uid=uid-of-vm-077", "n in (77,a,b)", f"long={'l' * 100}", "owner,n=77",
         "name>vm-076,name<vm-078"],
    )  # fmt: skip
    def test_one_of_many_is_found_without_the_others(self, full: Store, selector: str):
        found = look_up(full, selector)
        assert found is not None
        assert "vm-077" in found
        assert len(found) <= 3
        assert names(full.list_documents("VM", where=parse(selector)).items) == ["vm-077"]

    def test_pages_go_on_after_a_cursor(self, full: Store):
        where = parse("owner.mails~1??@z")
        first = full.list_documents("VM", where=where, limit=30)
        rest = full.list_documents("VM", where=where, after=first.next)
        assert names(first.items + rest.items) == [f"vm-{number}" for number in range(100, 200)]

    def test_terms_that_find_much_each_are_taken_together(self, full: Store, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("backend.store.sifting._FEW", 10)
        assert look_up(full, "n>=77,n<78,status.power") == ["vm-077", "vm-078"]
        assert names(full.list_documents("VM", where=parse("n>=77,n<78,status.power")).items) == ["vm-077"]

    def test_a_selector_that_takes_most_is_no_matter_for_the_index(self, full: Store, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("backend.store.sifting._FEW", 10)
        assert look_up(full, "status.power=running") is None
        assert len(full.list_documents("VM", where=parse("status.power=running")).items) == 299

    def test_the_writes_of_a_transaction_are_found_in_it(self, full: Store):
        engine = engine_of(full)
        with engine.transaction():
            full.database.table("VM").put(make("vm-new", metadata={"tenant": "new"}))  # type: ignore[attr-defined]
            found = full.list_documents("VM", where=parse("tenant=new")).items
            assert names(found) == ["vm-new"]

    def test_an_unchanged_leaf_is_not_written_again(self, full: Store, path: Path):
        before = count_entries(path)
        document = full.find("VM", "vm-077")
        assert document
        document["metadata"]["n"] = 1000
        put(full, document)
        assert names(full.list_documents("VM", where=parse("n=1000")).items) == ["vm-077"]
        connection = sqlite3.connect(path)
        connection.executescript(
            "CREATE TABLE writes (value); CREATE TRIGGER t AFTER INSERT ON field BEGIN"
            " INSERT INTO writes VALUES (new.value); END;"
        )
        settle(full)
        assert connection.execute("SELECT value FROM writes").fetchall() == [(1000,)]
        connection.close()
        assert count_entries(path) == before

    def test_what_is_deleted_leaves_nothing_behind(self, full: Store, path: Path):
        for number in range(300):
            delete(full, f"uid-of-vm-{number:03}")
        settle(full)
        assert count_entries(path) == 0
        assert full.check() == []


class TestLimits:
    def test_a_document_with_too_many_fields_is_found_by_each(self, store: Store, path: Path):
        put(store, make("huge", metadata={f"k{n}": n for n in range(MAXIMUM_FIELDS + 1)}))
        put(store, make("small", metadata={"k7": 7}))
        for _ in range(2):
            assert names(store.list_documents("VM", where=parse("k7=7")).items) == ["huge", "small"]
            assert names(store.list_documents("VM", where=parse("k199=199")).items) == ["huge"]
            settle(store)
        assert count_entries(path) < 20
        put(store, make("huge", metadata={"k7": 8}))
        settle(store)
        assert look_up(store, "k7=7") == ["small"]
        assert store.check() == []

    @pytest.mark.parametrize("length", [MAXIMUM_TEXT, MAXIMUM_TEXT + 1])
    def test_a_long_text_is_found_by_all_that_can_be_said_of_it(self, store: Store, length: int):
        put(store, make("long", metadata={"x": "y" * length}))
        put(store, make("other", metadata={"x": "z" * length}))
        settle(store)
        for term in (f"x={'y' * length}", "x~y*", "x~*y", "x>x,x<yz", f"x<={'y' * length}"):
            assert names(store.list_documents("VM", where=parse(term)).items) == ["long"], term

    def test_a_few_versions_kept_do_not_confuse_it(self, path: Path):
        store = open_store(f"tinydb:{path}", retentions=Retentions(Retention(versions=1)))
        for number in range(WINDOW * 3):
            put(store, make("a", metadata={"n": number}))
            put_status(store, "uid-of-a", {"n": -number})
            assert store.list_documents("VM", where=parse(f"n={number},status.n={-number}")).items
        settle(store)
        assert look_up(store, f"n={WINDOW}") == []
        assert look_up(store, f"status.n={-WINDOW}") == []
        assert store.check() == []
        store.close()


def test_readers_miss_nothing_while_others_write(store: Store, path: Path):
    """A document that always fulfils a selector is always listed, whatever else in it changes."""
    for name in ("a", "b"):
        put(store, make(name, metadata={"tenant": "acme", "n": 0}))
        put_status(store, f"uid-of-{name}", {"power": "running", "n": 0})
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        other = open_store(f"tinydb:{path}")
        number = 0
        try:
            while not stop.is_set():
                number += 1
                put(other, make("a", metadata={"tenant": "acme", "n": number}))
                put_status(other, "uid-of-b", {"power": "running", "n": number})
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)
        finally:
            other.close()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    selectors = [parse(text) for text in ("tenant=acme", "status.power=running", "n>=0,status.n>=0")]
    try:
        for _ in range(300):
            for selector in selectors:
                assert names(store.list_documents("VM", where=selector).items) == ["a", "b"], selector
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert store.check() == []
