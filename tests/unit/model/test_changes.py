"""Differences, paths and patches, held against the documents that describe them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.model.changes import (
    Change,
    compare,
    compare_documents,
    format_path,
    json_patch,
    merge_patch,
    parse_path,
    remove_path,
    set_path,
)
from backend.text import sanitise

# Keys that mean something to a path, a pointer, a terminal or Python.
ODD_KEYS = [
    "", " ", ".", "a.b", "~", "~0", "~1", "/", "a/b", '"', "\\", "\\u0041", "[0]", "0", "-", "-1", "01", "=", "a=b",
    "\x1bc", "\x1b[31m", "\u202e", "\u2028", "\n", "\t", "é", "日本", "\U0001f600", "null", "__class__",
    "%", "'", "x" * 300,
]  # fmt: skip
keys = st.sampled_from(ODD_KEYS) | st.text(max_size=4) | st.sampled_from("abc")
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 1.5, 1e300, 2**70, "", "1", "true"])
    | st.text(max_size=3)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5), max_leaves=25
)


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """A value like another one, with a few things in it changed: what people do to documents."""
    if isinstance(value, dict):
        changed = {key: draw(edited(item)) for key, item in value.items() if draw(st.integers(0, 5))}
        return {**changed, **draw(st.dictionaries(keys, scalars, max_size=1))}
    if isinstance(value, list):
        items = [draw(edited(item)) for item in value if draw(st.integers(0, 4))]
        if draw(st.booleans()):
            items.insert(draw(st.integers(0, len(items))), draw(scalars))
        return items
    return value if draw(st.integers(0, 4)) else draw(values)


pairs = st.tuples(values, values) | values.flatmap(lambda value: st.tuples(st.just(value), edited(value)))


def exact(value: Any) -> str:
    """Return what tells two JSON values apart, and nothing else: 1 from 1.0 and true, not the order of keys."""
    return json.dumps(value, sort_keys=True)


def apply(document: Any, patch: list[dict[str, Any]]) -> Any:
    """Apply a JSON Patch as RFC 6902 says, with every check that it asks for."""
    document = copy.deepcopy(document)
    for entry in patch:
        assert set(entry) == ({"op", "path"} if entry["op"] == "remove" else {"op", "path", "value"})
        if entry["path"] == "":
            assert entry["op"] == "replace"
            document = entry["value"]
            continue
        assert entry["path"].startswith("/")
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in entry["path"].split("/")[1:]]
        target = document
        for part in way:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if isinstance(target, list):
            position = int(last)
            assert last == str(position)
            assert 0 <= position <= len(target) - (entry["op"] != "add")
            if entry["op"] == "add":
                target.insert(position, entry["value"])
            elif entry["op"] == "remove":
                del target[position]
            else:
                target[position] = entry["value"]
        else:
            assert (last in target) == (entry["op"] != "add")
            if entry["op"] == "remove":
                del target[last]
            else:
                target[last] = entry["value"]
    return document


class TestCompare:
    @given(pairs)
    @example(([1, 2, 3, 4], [1, 4]))
    @example(([1, 4], [1, 2, 3, 4]))
    @example(([1, 1, 1], [1, 1]))
    @example(([[1], [2]], [[2]]))
    @example(({"a": 1}, {"a": 1.0}))
    @example(({"a": [True]}, {"a": [1]}))
    @example(({"a": 0.0}, {"a": -0.0}))
    @example(({"a": None}, {}))
    @example(({}, {"a": None}))
    @example((1, {}))
    def test_the_patch_makes_the_new_from_the_old(self, pair: tuple[Any, Any]):
        old, new = pair
        before = exact(old), exact(new)
        patch = json_patch(compare(old, new))
        assert exact(apply(old, json.loads(json.dumps(patch)))) == exact(new)
        assert (exact(old), exact(new)) == before

    @given(pairs)
    def test_there_is_a_difference_where_there_is_one_and_only_there(self, pair: tuple[Any, Any]):
        old, new = pair
        assert (compare(old, new) == []) == (exact(old) == exact(new))

    @given(pairs)
    def test_each_change_says_what_is_there(self, pair: tuple[Any, Any]):
        old, new = pair
        for change in compare(old, new):
            assert change.operation in ("add", "remove", "replace")
            if change.operation == "add":
                assert change.old is None
            if change.operation == "remove":
                assert change.new is None
            if change.operation == "replace":
                assert exact(change.old) != exact(change.new)
                # Whole objects and lists are replaced by other things only.
                assert not (isinstance(change.old, dict) and isinstance(change.new, dict))
                assert not (isinstance(change.old, list) and isinstance(change.new, list))

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ({"a": 1}, {"a": 1}, []),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
            ({"a": 1}, {"a": 2}, ["a replace 1 2"]),
            ({"a": 1}, {"b": 1}, ["a remove 1 None", "b add None 1"]),
            ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a.b.c replace 1 2"]),
            ({"a": {"b": 1}}, {"a": [1]}, ["a replace {'b': 1} [1]"]),
            ({"a": [1, 2, 3]}, {"a": [1, 9, 3]}, ["a.1 replace 2 9"]),
            ({"a": [1, 2, 3]}, {"a": [1, 3]}, ["a.1 remove 2 None"]),
            ({"a": [1, 3]}, {"a": [1, 2, 3]}, ["a.1 add None 2"]),
            ({"a": [1, 2]}, {"a": []}, ["a.1 remove 2 None", "a.0 remove 1 None"]),
            ({"a": []}, {"a": [1, 2]}, ["a.0 add None 1", "a.1 add None 2"]),
            ({"a": [{"m": 1}, {"m": 2}]}, {"a": [{"m": 2}]}, ["a.0 remove {'m': 1} None"]),
            ({"a": [{"m": 1}]}, {"a": [{"m": 1, "n": 2}]}, ["a.0.n add None 2"]),
            ({"a": 1}, {"a": True}, ["a replace 1 True"]),
            ({"a": 1}, {"a": 1.0}, ["a replace 1 1.0"]),
            ({"a": None}, {}, ["a remove None None"]),
            ({"a.b": 1}, {}, ['"a.b" remove 1 None']),
            (1, 2, [" replace 1 2"]),
        ],
    )
    def test_what_people_change(self, old: Any, new: Any, expected: list[str]):
        found = [f"{each.where} {each.operation} {each.old} {each.new}" for each in compare(old, new)]
        assert found == expected

    def test_a_nic_more_in_the_middle_is_one_change(self):
        nics = [{"id": f"nic{n}", "mac": f"52:54:00:00:00:0{n}"} for n in range(4)]
        assert compare(nics, [*nics[:1], {"id": "new"}, *nics[1:]]) == [Change((1,), "add", None, {"id": "new"})]
        assert compare(nics, [*nics[:2], *nics[3:]]) == [Change((2,), "remove", nics[2], None)]

    def test_of_documents_what_is_versioned_is_compared(self):
        old = {"kind": "VM", "name": "a", "uid": "1", "version": 1, "metadata": {}, "spec": {"cpus": 1}, "status": {}}
        new = {
            **old,
            "name": "b",
            "version": 2,
            "status": {"power": "running"},
            "updatedBy": "bob",
            "spec": {"cpus": 2},
        }
        assert [change.where for change in compare_documents(old, new)] == ["name", "spec.cpus"]
        assert compare_documents(old, {**old, "version": 7}) == []

    def test_pointers_are_written_as_rfc_6901_says(self):
        ((*_, entry),) = [json_patch([Change(("a/b", "m~n", "~1", 0, ""), "remove", 1, None)])]
        assert entry == {"op": "remove", "path": "/a~1b/m~0n/~01/0/"}

    def test_what_is_too_deep_is_refused_and_not_a_crash(self):
        deep: Any = 1
        for _ in range(5000):
            deep = [deep]
        for first, second in ((deep, 1), (1, deep), (deep, deep)):
            with pytest.raises(RefusedError, match="deep"):
                compare(first, second)
        with pytest.raises(RefusedError, match="deep"):
            merge_patch({}, {"a": deep})
        allowed: Any = 1
        for _ in range(99):
            allowed = {"a": allowed}
        assert merge_patch({}, allowed) == allowed
        assert compare(allowed, {})


# The test cases of appendix A of RFC 7396: original, patch, result.
RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


class TestMergePatch:
    @pytest.mark.parametrize(("target", "patch", "expected"), RFC_7396)
    def test_the_cases_of_the_rfc(self, target: Any, patch: Any, expected: Any):
        before = copy.deepcopy((target, patch))
        assert merge_patch(target, patch) == expected
        assert (target, patch) == before

    @given(values, values)
    def test_neither_is_changed_and_nothing_is_shared(self, target: Any, patch: Any):
        before = exact([target, patch])
        merged = merge_patch(target, patch)
        assert exact([target, patch]) == before

        def spoil(value: Any) -> None:
            for item in list(value.values()) if isinstance(value, dict) else list(value):
                if isinstance(item, (dict, list)):
                    spoil(item)
            value.clear()

        if isinstance(merged, (dict, list)):
            spoil(merged)
        assert exact([target, patch]) == before

    @given(st.dictionaries(keys, values, max_size=4), st.dictionaries(keys, values, max_size=4))
    def test_twice_is_as_once_and_no_null_of_the_patch_remains(self, target: Any, patch: Any):
        once = merge_patch(target, patch)
        assert exact(merge_patch(once, patch)) == exact(once)
        for key, value in patch.items():
            assert (key in once) == (value is not None)
        for key in target.keys() - patch.keys():
            assert exact(once[key]) == exact(target[key])


class TestPaths:
    @given(st.lists(keys | st.integers(0, 10**8), min_size=1, max_size=6))
    def test_what_is_written_is_read_back(self, path: list[str | int]):
        text = format_path(tuple(path))
        assert parse_path(text) == tuple(map(str, path))
        assert sanitise(text, 10**6) == text, "it would do something to a terminal"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a", ("a",)),
            ("spec.nics.0.mac", ("spec", "nics", "0", "mac")),
            ("spec.nics[0].mac", ("spec", "nics", "0", "mac")),
            ("spec.nics[0][12]", ("spec", "nics", "0", "12")),
            ('metadata."a.b"', ("metadata", "a.b")),
            ('metadata."".x', ("metadata", "", "x")),
            (r'metadata."\"\\\u0041\n"', ("metadata", '"\\A\n')),
            ('metadata."a\nb"', ("metadata", "a\nb")),
            ("metadata.app/x-y_z@1", ("metadata", "app/x-y_z@1")),
            ("日本.é", ("日本", "é")),
        ],
    )
    def test_what_people_write(self, text: str, expected: tuple[str, ...]):
        assert parse_path(text) == expected

    @pytest.mark.parametrize(
        ("text", "at"),
        [
            ("", 1), (".", 1), ("a.", 3), ("a..b", 3), (".a", 1), ("a b", 2), (" a", 1), ("a=b", 2), ('a"b"', 2),
            ('"a"b', 4),
            ("a[", 2), ("a[]", 2), ("a[x]", 2), ("a[-1]", 2), ("a[01]", 2), ("a[0", 2), ("a[0]b", 5), ("a]", 2),
            ("a[" + "9" * 5000 + "]", 2), ("a[٣]", 2), ('"', 1), ('a."b', 3), (r'a."\q"', 3),
            (r'a."\u12"', 3), ('a."\\', 3),
        ],
    )  # fmt: skip
    def test_a_wrong_path_is_refused_with_the_place(self, text: str, at: int):
        with pytest.raises(RefusedError, match=rf"character {at}\b"):
            parse_path(text)

    @given(st.text(max_size=12) | st.text('a."\\[]0=u ', max_size=12))
    def test_any_text_is_a_path_or_refused_in_safe_words(self, text: str):
        try:
            path = parse_path(text)
        except RefusedError as error:
            said = str(error)
        else:
            said = format_path(path)
            assert parse_path(said) == path
        assert sanitise(said) == said

    def test_a_path_has_an_end(self):
        assert len(parse_path(".".join("a" * 100))) == 100
        with pytest.raises(RefusedError):
            parse_path(".".join("a" * 101))

    @given(keys)
    def test_a_hostile_name_is_harmless_in_an_error(self, key: str):
        for call in (
            lambda: remove_path({"metadata": {}}, ("metadata", f"{key}x")),
            lambda: remove_path({"metadata": []}, ("metadata", f"{key}x")),
            lambda: set_path({"metadata": 1}, ("metadata", key), 1),
            lambda: set_path({"metadata": []}, ("metadata", f"{key}x"), 1),
        ):
            with pytest.raises(RefusedError) as raised:
                call()
            assert sanitise(str(raised.value)) == str(raised.value)
            assert len(str(raised.value)) < 500


class TestSetAndRemove:
    @pytest.mark.parametrize(
        ("document", "path", "expected"),
        [
            ({}, "a", {"a": 9}),
            ({"a": 1}, "a", {"a": 9}),
            ({}, "a.b.c", {"a": {"b": {"c": 9}}}),
            ({"a": {"x": 1}}, "a.b", {"a": {"x": 1, "b": 9}}),
            ({"a": [1, 2]}, "a[0]", {"a": [9, 2]}),
            ({"a": [1, 2]}, "a.1", {"a": [1, 9]}),
            ({"a": [1, 2]}, "a[2]", {"a": [1, 2, 9]}),
            ({"a": []}, "a[0]", {"a": [9]}),
            ({"a": [{"b": 1}]}, "a[0].b", {"a": [{"b": 9}]}),
            ({"a": [{}]}, "a[0].b.c", {"a": [{"b": {"c": 9}}]}),
            ({"a": [[1]]}, "a[0][1]", {"a": [[1, 9]]}),
            ({}, "a[0]", {"a": {"0": 9}}),
            ({"a": {"0": 1}}, "a[0]", {"a": {"0": 9}}),
            ({"a": None}, "a", {"a": 9}),
            ({}, '"a.b"', {"a.b": 9}),
            ({}, '""', {"": 9}),
        ],
    )
    def test_a_value_is_set(self, document: Any, path: str, expected: Any):
        set_path(document, parse_path(path), 9)
        assert document == expected

    @pytest.mark.parametrize(
        ("document", "path"),
        [
            ({"a": 1}, "a.b"),
            ({"a": None}, "a.b"),
            ({"a": "text"}, "a[0]"),
            ({"a": {"b": True}}, "a.b.c.d"),
            ({"a": [1]}, "a[2]"),
            ({"a": [1]}, "a.b"),
            ({"a": [1]}, 'a."-1"'),
            ({"a": [1]}, 'a."01"'),
            ({"a": [1, 2]}, 'a."١"'),
            ({"a": [1]}, "a[1].b"),
            ({"a": [1]}, "a[0].b"),
            ({"a": []}, "a[0].b"),
            ({"a": [1]}, 'a."' + "9" * 5000 + '"'),
            ({"a": [1]}, 'a.""'),
        ],
    )
    def test_a_way_that_is_none_is_refused_and_nothing_is_changed(self, document: Any, path: str):
        before = copy.deepcopy(document)
        for change in (
            lambda: set_path(document, parse_path(path), 9),
            lambda: remove_path(document, parse_path(path)),
        ):
            with pytest.raises(RefusedError):
                change()
            assert document == before

    @pytest.mark.parametrize(
        ("document", "path", "expected"),
        [
            ({"a": 1}, "a", {}),
            ({"a": None}, "a", {}),
            ({"a": {"b": 1, "c": 2}}, "a.b", {"a": {"c": 2}}),
            ({"a": {"b": 1}}, "a.b", {"a": {}}),
            ({"a": [1, 2, 3]}, "a[1]", {"a": [1, 3]}),
            ({"a": [{"b": 1}]}, "a[0].b", {"a": [{}]}),
            ({"a": {"0": 1}}, "a[0]", {"a": {}}),
        ],
    )
    def test_a_value_is_removed(self, document: Any, path: str, expected: Any):
        remove_path(document, parse_path(path))
        assert document == expected

    @pytest.mark.parametrize("path", ["x", "a.x", "a.b.x", "l[2]", "l.x", "l[0].x", 'l."-1"', "n.x"])
    def test_what_is_not_there_cannot_be_removed(self, path: str):
        document = {"a": {"b": 1}, "l": [1, 2], "n": None}
        before = copy.deepcopy(document)
        with pytest.raises(RefusedError, match="there is none"):
            remove_path(document, parse_path(path))
        assert document == before

    @given(values, st.lists(keys, min_size=1, max_size=4).map(tuple))
    def test_what_was_set_is_there_and_nothing_else_moved(self, value: Any, path: tuple[str, ...]):
        document = {"a": value, "b": [copy.deepcopy(value), {}]}
        before = copy.deepcopy(document)
        try:
            set_path(document, path, {"new": 1})
        except RefusedError:
            assert exact(document) == exact(before)
            return
        for change in compare(before, document):
            way = tuple(map(str, change.path))
            assert way[: len(path)] == path[: len(way)]
        remove_path(document, path)
