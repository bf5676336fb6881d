"""Documents are read from JSON and YAML without surprises, and hostile texts are refused at once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kc_tui.cli.output import format_json
from kc_tui.cli.reading_documents import TextError, parse_json, parse_yaml, read_documents
from kc_tui.yaml_text import format_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def read(*paths: str) -> list[Any]:
    found, errors = read_documents(paths)
    assert errors == []
    return [entry.document for entry in found]


def refuse(path: str) -> str:
    found, (error,) = read_documents([path])
    assert found == []
    assert error.exit_code == 8
    return str(error)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "a"}{"name": "b"}',
        '{"name": "a"}\n\n{"name": "b"}\n',
        '[{"name": "a"}, {"name": "b"}]',
        '{"items": [{"name": "a"}, {"name": "b"}], "continue": null, "revision": 4}',
        '\ufeff \n{"name": "a"}\t{"name": "b"} ',
        "name: a\n---\nname: b\n",
        "---\n---\nname: a\n---\n# none\n---\nname: b\n...\n",
        "- name: a\n- name: b\n",
        "items:\n- &x {name: a}\n- name: b\n",
    ],
)
def test_a_text_has_any_number_of_documents_in_any_of_their_forms(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path, "text", text)) == [{"name": "a"}, {"name": "b"}]


def test_the_ending_of_a_name_says_what_is_in_a_file(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.yaml", "{name: a}")) == [{"name": "a"}]
    assert "line 1, column 2" in refuse(write(tmp_path, "a.json", "{name: a}"))
    assert "line 1, column 2" in refuse(write(tmp_path, "a", "{name: a}"))


def test_a_folder_is_read_in_order_to_its_depth_without_what_is_hidden_or_no_file(tmp_path: Path) -> None:
    for name in ("b.yaml", "a/z.json", "a/b.yml", "c.txt", ".x.yaml", ".git/x.yaml", "d.jsonl"):
        write(tmp_path, name, json.dumps({"name": name}))
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert [entry["name"] for entry in read(str(tmp_path))] == ["a/b.yml", "a/z.json", "b.yaml"]


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"name: a\n")
    os.close(writing)
    assert read(f"/dev/fd/{reading}") == [{"name": "a"}]
    os.close(reading)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda folder: str(folder / "none.yaml"), 3, "no such file"),
        (str, 3, "no *.json, *.yaml or *.yml is in it"),
        (lambda folder: write(folder, "a.yaml", "# nothing\n"), 8, "no document is in it"),
        (lambda folder: write(folder, "a.json", ""), 8, "no document is in it"),
        (lambda folder: write(folder, "a.json", "[]"), 8, "no document is in it"),
        (lambda folder: write(folder, "a.yaml", b"a: b\nc: \xff\n"), 8, "line 2: it is no text"),
        (lambda folder: write(folder, "a.json", b"\x00" * 100), 8, "line 1, column 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_so(tmp_path: Path, make: Any, code: int, words: str) -> None:
    found, (error,) = read_documents([make(tmp_path)])
    assert found == []
    assert error.exit_code == code
    assert words in str(error)


def test_a_broken_file_does_not_hide_what_is_wrong_with_another(tmp_path: Path) -> None:
    paths = [write(tmp_path, "a.json", "{"), write(tmp_path, "b.yaml", "name: b"), write(tmp_path, "c.yaml", "a: [")]
    found, errors = read_documents(paths)
    assert [entry.where for entry in found] == [f"{tmp_path}/b.yaml, document 1"]
    assert [error.what for error in errors] == [paths[0], paths[2]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "1e999 is too large a number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "line 1 and on: the key 'c' is there twice"),
        ('{"a": 99999999999999999999999}', "64 bits"),
        ('{"a": 18446744073709551616}', "64 bits"),
        ('{"a": -9223372036854775809}', "64 bits"),
        ('{"a": "\\ud800"}', "lone surrogate"),
        ('{"a": 1}\n{"b": ]}', "line 2, column 7"),
        ("{'a': 1}", "line 1, column 2"),
        ('{"a": 1,}', "line 1, column 9"),
        ('{"a":' + "[" * 101 + "]" * 101 + "}", "100 levels"),
        ('{"a":' + "[" * 500_000, "nested too deeply"),
        ("[" * 500_000, "nested too deeply"),
        ('{"a": ' + "9" * 500_000 + "}", "64 bits"),
        ('{"a": 1}}', "line 1, column 9"),
    ],
)
def test_json_that_readers_take_differently_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refuse(write(tmp_path, "a.json", text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' is there twice"),
        ("a:\n  1: b\n", "line 2: a key must be a text"),
        ("true: b\n", "line 1: a key must be a text"),
        ("? [a, b]\n: c\n", "line 1: a key must be a text"),
        ("a: .nan\n", "line 1: .nan is no JSON number"),
        ("a: -.INF\n", "-.INF is no JSON number"),
        ("a: 1e999\n", "too large"),
        ("a: 99999999999999999999999\n", "64 bits"),
        ("a: 18446744073709551616\n", "64 bits"),
        ("a: 0644\n", "octal"),
        ("a: !!python/object/apply:os.system [id]\n", "the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("!!python/name:os.system {}\n", "the tag"),
        ("a: !!binary aGk=\n", "the tag"),
        ("a: !!int x\n", "not what its tag says"),
        ("a: !!set {b, c}\n", "the tag"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "line 2: merging with << is not taken"),
        ("a: *x\n", "*x refers to nothing before it"),
        ("a: &x [*x]\n", "*x refers to nothing before it"),
        ("a: &x 1\n---\nb: *x\n", "line 3: *x refers to nothing before it"),
        ("a: [\n", "line 2, column 1"),
        ("a: b: c\n", "line 1, column 5"),
        ("a: \x01\n", "line 1: control characters are not allowed"),
        ("a: " + "[" * 200_000, "nested in more than 100 levels"),
        ("- " * 200_000, "nested in more than 100 levels"),
        ('a: "\\ud800"\n', "invalid Unicode character"),
    ],
)
def test_yaml_that_is_no_json_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    began = time.monotonic()
    assert words in refuse(write(tmp_path, "a.yaml", text))
    assert time.monotonic() - began < 5


def test_references_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "its references make too much of it" in refuse(write(tmp_path, "a.yaml", "\n".join(lines)))


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate((32 << 20) + 1)
    assert "larger than 32 MiB" in refuse(str(tmp_path / "a.yaml"))


def test_yaml_means_what_people_wrote() -> None:
    text = """
    country: no
    switch: on
    mac: 52:54:00:12:34:56
    date: 2026-01-02
    time: 12:30:45
    quoted: "3"
    tagged: !!str 3
    forced: ! 4
    number: 3
    negative: -7
    hexadecimal: 0x1F
    octal: 0o17
    real: 1.5e3
    whole: !!float 3
    nothing: ~
    empty:
    truth: True
    underscored: 1_000
    path: 1.2.3
    list: &list [a, 'b']
    again: *list
    """
    assert parse_yaml(text) == [
        {
            "country": "no", "switch": "on", "mac": "52:54:00:12:34:56", "date": "2026-01-02", "time": "12:30:45",
            "quoted": "3", "tagged": "3", "forced": "4", "number": 3, "negative": -7, "hexadecimal": 31, "octal": 15,
            "real": 1500.0, "whole": 3.0, "nothing": None, "empty": None, "truth": True, "underscored": "1_000",
            "path": "1.2.3", "list": ["a", "b"], "again": ["a", "b"],
        }
    ]  # fmt: skip


def same(first: Any, second: Any) -> bool:
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES), max_size=3))
def test_what_kc_prints_is_read_back_as_it_was(documents: list[Any]) -> None:
    assert same(list(parse_json("\n".join(format_json(document) for document in documents))), documents)
    assert same(parse_yaml("".join(f"---\n{format_yaml(document)}" for document in documents)), documents)


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("{}[]:,-&*!|>'\"#?%@` \n\tab1~.<"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            values = list(parse(text))
        except TextError:
            continue
        json.dumps(values, allow_nan=False)


class CarefulDumper(yaml.SafeDumper):
    """Quotes every text: PyYAML leaves bare what is a number in YAML 1.2 alone, such as 0E0."""


CarefulDumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"'))


@settings(deadline=None, max_examples=100)
@given(VALUES)
def test_what_a_careful_yaml_writer_quotes_stays_text(value: Any) -> None:
    text = yaml.dump({"value": value}, Dumper=CarefulDumper)
    assert same(parse_yaml(text), [{"value": value}])
