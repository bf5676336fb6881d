"""Documents from files, folders and standard input: JSON, JSON lines and YAML, none of which is trusted.

YAML is read by the core schema of YAML 1.2, so that `no` is a text and `52:54:00:12:34:56` no number; no object of
Python's is ever made from it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from backend.errors import KCError, NotFoundError, RefusedError
from backend.text import sanitise
from kc_tui.yaml_text import LONGEST_INTEGER, TextError, check_value, find_line, parse_float, parse_yaml

MAXIMUM_BYTES = 32 << 20
_SUFFIXES = (".json", ".yaml", ".yml")

_SPACE = re.compile(r"[ \t\r\n]*")


class Given(NamedTuple):
    """A document as it was found; `where` names its file, and its number there."""

    where: str
    document: Any


def read_documents(paths: Sequence[str]) -> tuple[list[Given], list[KCError]]:
    """Return the documents of files, folders and `-`, in order, and the errors of those that cannot be read."""
    found: list[Given] = []
    errors: list[KCError] = []
    for path in paths:
        try:
            files = _list_files(path)
        except KCError as error:
            errors.append(error)
            continue
        for file in files:
            name = "standard input" if file == "-" else sanitise(file, 200)
            try:
                values = list(_parse(_read(file, name), Path(file).suffix.lower(), name))
            except KCError as error:
                errors.append(error)
            else:
                found += [Given(f"{name}, document {number}", value) for number, value in enumerate(values, start=1)]
    return found, errors


def _list_files(path: str) -> list[str]:
    """Return a path, or for a folder the documents' files in and below it, sorted; hidden ones are left out."""
    if path == "-" or not Path(path).is_dir():
        return [path]
    files = []
    # Links to folders are not followed: they may lead round in a circle.
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            file
            for name in names
            if name.endswith(_SUFFIXES) and not name.startswith(".") and (file := Path(folder, name)).is_file()
        ]
    if not files:
        raise NotFoundError(sanitise(path, 200), "no *.json, *.yaml or *.yml is in it", "name another folder or a file")
    return [str(file) for file in sorted(files)]


def _read(path: str, name: str) -> str:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAXIMUM_BYTES + 1) if sys.stdin else b""
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAXIMUM_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(name, "no such file") from error
    except (OSError, ValueError) as error:
        raise RefusedError(name, f"cannot be read: {str(getattr(error, 'strerror', None) or error).lower()}") from error
    if len(data) > MAXIMUM_BYTES:
        raise RefusedError(name, f"it is larger than {MAXIMUM_BYTES >> 20} MiB", "make several files of it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RefusedError(name, f"line {line}: it is no text", "it must be UTF-8") from error


def _parse(text: str, suffix: str, name: str) -> Iterator[Any]:
    """Yield the documents of a text; one without a known suffix is JSON where it begins so."""
    is_json = suffix in (".json", ".jsonl", ".ndjson")
    if suffix not in (".yaml", ".yml") and not is_json:
        is_json = text.lstrip().startswith(("{", "["))
    count = 0
    try:
        for value in parse_json(text) if is_json else parse_yaml(text):
            for document in _unfold(value):
                count += 1
                check_value(document)
                yield document
    except TextError as error:
        where = "" if str(error).startswith("line ") else f"document {count or 1}: "
        raise RefusedError(name, f"{where}{sanitise(error, 300)}", "mend the file") from error
    if not count:
        raise RefusedError(name, "no document is in it", "see kc schema")


def _unfold(value: Any) -> Iterator[Any]:
    """Yield the documents in a value: itself, or what a list or `{"items": […]}` has."""
    if isinstance(value, dict) and "kind" not in value and isinstance(value.get("items"), list):
        value = value["items"]
    if isinstance(value, list):
        yield from value
    else:
        yield value


# --- JSON


def parse_json(text: str) -> Iterator[Any]:
    """Yield the JSON values of a text that stand one after another; raise TextError, naming the line."""
    at = _skip(text, 0)
    while at < len(text):
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise TextError(f"line {error.lineno}, column {error.colno}: {error.msg.lower()}") from error
        except RecursionError as error:
            raise TextError(f"line {find_line(text, at)}: it is nested too deeply") from error
        except TextError as error:
            raise TextError(f"line {find_line(text, at)} and on: {error}") from error
        yield value
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _refuse_constant(word: str) -> NoReturn:
    raise TextError(f"{word} is no JSON number")


def _parse_integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise TextError(f"{digits[:LONGEST_INTEGER]}… has more than 64 bits")
    return int(digits)


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise TextError(f"the key {key[:60]!r} is there twice in one object")
        value[key] = item
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_build_object,
    parse_constant=_refuse_constant,
    parse_float=parse_float,
    parse_int=_parse_integer,
)
