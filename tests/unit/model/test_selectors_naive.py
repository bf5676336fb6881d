"""Selectors against a second reading of their grammar: slow, plain, and written from its description alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conformance.test_store import PLACES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.model.documents import Document
from backend.model.selectors import parse
from backend.store.opening import open_store

FIELDS = ("name", "kind", "uid", "version", "apiVersion", "createdAt", "updatedAt", "updatedBy", "message")
ROOTS = ("spec", "status", "metadata")


class Text(NamedTuple):
    """A part of a key or a value as it is meant, and whether it stands in quotes."""

    text: str
    quoted: bool


class Condition(NamedTuple):
    """A term as it is meant."""

    path: list[Text]
    operator: str
    values: list[Text]


# --- what is meant


def holds(conditions: list[Condition], document: Document) -> bool:
    return all(is_met(condition, document) for condition in conditions)


def is_met(condition: Condition, document: Document) -> bool:
    path, operator, values = condition
    found = list(find(path, document))
    if operator == "exists":
        return bool(found)
    if operator == "missing":
        return not found
    leaves = [leaf for value in found for leaf in flatten(value)]
    if operator in ("=", "in"):
        return any(is_equal(leaf, value) for leaf in leaves for value in values)
    if operator in ("!=", "notin"):
        return not any(is_equal(leaf, value) for leaf in leaves for value in values)
    if operator == "~":
        return any(isinstance(leaf, str) and covers(values[0].text, leaf) for leaf in leaves)
    return any(is_ordered(leaf, operator, values[0]) for leaf in leaves)


def find(path: list[Text], document: Document) -> Iterator[Any]:
    """Yield every value that a key means in a document."""
    first = path[0]
    if not first.quoted and len(path) == 1 and first.text in FIELDS + ROOTS:
        yield from [document[first.text]] if first.text in document else []
    elif not first.quoted and len(path) > 1 and first.text in ROOTS:
        yield from descend(document.get(first.text), path[1:])
    else:
        yield from descend(document.get("metadata"), path)


def descend(value: Any, path: list[Text]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from descend(item, path)
    elif isinstance(value, dict):
        # One part is one key, quoted or not; several that are not quoted may be one key with dots in it.
        for length in range(1, len(path) + 1):
            parts = path[:length]
            key = ".".join(part.text for part in parts)
            if key in value and (length == 1 or not any(part.quoted for part in parts)):
                yield from descend(value[key], path[length:])


def flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from flatten(item)
    else:
        yield value


def refuse(constant: str) -> None:
    raise ValueError(constant)  # Python's parser takes NaN and Infinity, which are no JSON (RFC 8259)


def read_number(value: Text) -> float | None:
    try:
        number = None if value.quoted else json.loads(value.text, parse_constant=refuse)
    except ValueError:
        return None
    return number if is_number(number) else None


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_equal(found: Any, value: Text) -> bool:
    if isinstance(found, str):
        return found == value.text
    if value.quoted:
        return False
    if found is None or isinstance(found, bool):
        return value.text == json.dumps(found)
    return is_number(found) and read_number(value) is not None and found == read_number(value)


def is_ordered(found: Any, operator: str, value: Text) -> bool:
    number = read_number(value)
    bound: Any = value.text if number is None else number
    if not (isinstance(found, str) if number is None else is_number(found)):
        return False
    return {">": found > bound, ">=": found >= bound, "<": found < bound, "<=": found <= bound}[operator]


def covers(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return any(covers(glob[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and glob[0] in ("?", text[0]) and covers(glob[1:], text[1:])


# --- how it is written

# Few keys and values, so that they meet; among them what a grammar, JSON, an index or a codec may stumble on.
KEYS = ["a", "b", "c", "a.b", "b.c", "a.b.c", "spec", "name", "in", "notin", "metadata", "é", "a b", 'q"',
        "back\\", "\u2028", "", "0",
        "a/b-c_d", "%_", "\x7f", "A"]  # fmt: skip
TEXTS = ["", "a", "b", "ab", "aab", "A", "1", "1.0", "01", "-1", "1e0", "true", "null", "é", 'q"', "back\\", "a,b",
         "(a)", " a", "a b", "*", "?",
         "a*", "%", "\n", "\u2028", "\x00", "2026-01-01", "]", "{}", "[1]", "=", "x" * 40]  # fmt: skip
VALUES = [*TEXTS, "1e2", "100", "-0", "0", "2", "false", "0.5", "1e", "+1", "NaN", "Infinity", "0x1"]
GLOBS = [*TEXTS, "a?", "*b", "a*b", "**", "?*", "*a*b*", "??"]
NUMBERS = [0, 1, -1, 2, 100, 0.5, 1.0, -0.0, 1e300, 2**60]

plain_parts = [key for key in KEYS if key and not set(key) & set(' .,=!<>~()"\u2028')]
parts = st.sampled_from(KEYS).map(lambda key: Text(key, quoted=True)) | st.sampled_from(plain_parts).map(
    lambda key: Text(key, quoted=False)
)


def is_plain(text: str, forbidden: str) -> bool:
    """Return whether a value can stand without quotes and be the same."""
    return bool(text) and text.strip() == text and not set(text) & set(forbidden) and not text.startswith("=")


def texts(words: list[str], forbidden: str) -> st.SearchStrategy[Text]:
    quoted = st.sampled_from(words).map(lambda word: Text(word, quoted=True))
    plain = st.sampled_from([word for word in words if is_plain(word, forbidden)])
    return quoted | plain.map(lambda word: Text(word, quoted=False))


rooted = st.sampled_from([*ROOTS, *FIELDS]).map(lambda name: Text(name, quoted=False))
paths = st.lists(parts, min_size=1, max_size=3) | st.tuples(rooted, st.lists(parts, max_size=2)).map(
    lambda pair: [pair[0], *pair[1]]
)
conditions = st.one_of(
    st.tuples(paths, st.sampled_from(["exists", "missing"]), st.just([])),
    st.tuples(paths, st.sampled_from(["=", "!=", ">", ">=", "<", "<="]), texts(VALUES, ',"').map(lambda word: [word])),
    st.tuples(paths, st.just("~"), texts(GLOBS, ',"').map(lambda word: [word])),
    st.tuples(paths, st.sampled_from(["in", "notin"]), st.lists(texts(VALUES, ',"()'), min_size=1, max_size=12)),
).map(lambda fields: Condition(*fields))
spaces = st.sampled_from(["", "", "", " ", "  ", "\t"])


@st.composite
def selectors(draw: st.DrawFn) -> tuple[str, list[Condition]]:
    """Some conditions, and a text that says them."""
    meant = draw(st.lists(conditions, max_size=3))
    return ",".join(draw(spaces) + write(condition, draw(spaces)) + draw(spaces) for condition in meant), meant


def write(condition: Condition, space: str) -> str:
    path, operator, values = condition
    key = ".".join(map(write_text, path))
    if operator == "exists":
        return key
    if operator == "missing":
        return f"!{space}{key}"
    if operator in ("in", "notin"):
        return f"{key} {operator}{space}({','.join(space + write_text(value) + space for value in values)})"
    return f"{key}{space}{operator}{space}{write_text(values[0])}"


def write_text(word: Text) -> str:
    return json.dumps(word.text) if word.quoted else word.text


# --- what it is said of

leaves = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(KEYS), trees, max_size=5)


@st.composite
def bodies(draw: st.DrawFn, name: str) -> Document:
    metadata = draw(objects)
    if draw(st.integers(0, 5)) == 0:
        metadata["large"] = [*["x" * 40] * 80, draw(leaves)]  # more than is kept beside the names
    return {
        "apiVersion": "kc/v1", "kind": "VM", "name": name, "uid": f"uid-of-{name}", "metadata": metadata,
        "spec": draw(objects), "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-02T00:00:00.000Z",
        "updatedBy": draw(st.sampled_from(TEXTS)),
    }  # fmt: skip


wholes = st.tuples(bodies("a"), objects, st.integers(1, 3)).map(
    lambda each: {**each[0], "status": each[1], "version": each[2]}
)


def meet(document: Document) -> st.SearchStrategy[tuple[str, list[Condition]]]:
    """Return selectors half of which ask for keys and values that a document has."""

    @st.composite
    def near(draw: st.DrawFn) -> tuple[str, list[Condition]]:
        value, path = document["metadata"], []
        while isinstance(value, (dict, list)) and value:
            if isinstance(value, list):
                value = draw(st.sampled_from(value))
                continue
            key = draw(st.sampled_from(sorted(value)))
            value = value[key]
            whole = [Text(key, quoted=True)]
            split = [Text(part, quoted=False) for part in key.split(".")]
            path += split if all(part.text in plain_parts for part in split) and draw(st.booleans()) else whole
        if not path:
            return "", []
        text = value if isinstance(value, str) else json.dumps(value)
        quoted = not is_plain(text, ',"()') or draw(st.booleans())
        operator = draw(st.sampled_from(["=", "!=", "in", "notin", ">=", "<", "~", "exists", "missing"]))
        values = [] if operator in ("exists", "missing") else [Text(text, quoted)]
        condition = Condition(path, operator, values)
        return write(condition, ""), [condition]

    return selectors() | near()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wholes.flatmap(lambda document: st.tuples(st.just(document), st.lists(meet(document), min_size=3, max_size=3))))
def test_a_selector_takes_what_is_meant(case: tuple[Document, list[tuple[str, list[Condition]]]]):
    document, asked = case
    for text, meant in asked:
        selector = parse(text)
        assert selector(document) == holds(meant, document), text
        assert parse(str(selector))(document) == selector(document)


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?\n.é", max_size=9), st.text("ab*?\n.é", max_size=9))
def test_a_glob_covers_what_is_meant(glob: str, text: str):
    selector = parse(f"a~{json.dumps(glob)}") if glob else parse('a~""')
    assert selector({"metadata": {"a": text}}) == covers(glob, text)


NAMES = ["a", "b", "ab", "é", "x y", "n-1", "n-2"]


class Step(NamedTuple):
    """What is done to a store: bodies written, statuses, and which are deleted at last."""

    bodies: list[Document]
    statuses: dict[str, Document]
    deleted: set[str]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    written = [draw(bodies(name)) for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=9))]
    names = sorted({body["name"] for body in written})
    statuses = draw(st.dictionaries(st.sampled_from(names), objects, max_size=3))
    return Step(written, statuses, draw(st.sets(st.sampled_from(names), max_size=1)))


@pytest.mark.parametrize("make_place", PLACES.values(), ids=PLACES.keys())
def test_a_store_lists_what_is_meant(make_place: Callable[[Path], str], tmp_path: Path):
    counter = itertools.count()

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(st.data(), steps(), st.integers(1, 3))
    def check(data: st.DataObject, step: Step, limit: int) -> None:
        store = open_store(make_place(tmp_path / str(next(counter))))
        for body in step.bodies:
            with store.transaction() as transaction:
                transaction.put(body)
        with store.transaction() as transaction:
            for name, status in step.statuses.items():
                transaction.put_status("VM", f"uid-of-{name}", status)
            for name in step.deleted:
                transaction.delete("VM", f"uid-of-{name}")
        everything = store.list_documents("VM").items
        for document in everything or [step.bodies[0]]:
            for text, meant in data.draw(st.lists(meet(document), min_size=2, max_size=4)):
                selector = parse(text)
                expected = [each for each in everything if holds(meant, each)]
                assert store.list_documents("VM", where=selector).items == expected, text
                assert store.list_documents("VM", where=selector.holds).items == expected, text
                found, after = [], ""
                while True:
                    page = store.list_documents("VM", where=selector, limit=limit, after=after)
                    found += page.items
                    after = page.next
                    if not after:
                        break
                assert found == expected, text
        store.close()

    check()
