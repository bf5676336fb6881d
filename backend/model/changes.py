"""Differences between documents, and the ways to change one: paths, merge patch, JSON Patch. Pure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from backend.errors import RefusedError
from backend.model.documents import Document
from backend.text import sanitise

Step = str | int
Path = tuple[Step, ...]
"""Keys of objects and positions in lists, from the document down."""

MAXIMUM_DEPTH = 100
_POSITION = r"0|[1-9][0-9]{0,8}"
_WORD = r"[^\s.\"\[\]=]+"
_PLAIN = re.compile(_WORD)
_PART = re.compile(rf"\[({_POSITION})\]|(\"(?:[^\"\\]|\\.)*\")|({_WORD})", re.DOTALL)
_IS_POSITION = re.compile(_POSITION).fullmatch


class Change(NamedTuple):
    """One difference: `operation` is `add`, `remove` or `replace`; the value that is not there is None."""

    path: Path
    operation: str
    old: Any
    new: Any

    @property
    def where(self) -> str:
        """The path as people write it."""
        return format_path(self.path)


def format_path(path: Path) -> str:
    """Return `spec.nics.0.mac`; a key that could be misread, or do something to a terminal, stands in quotes."""
    return ".".join(
        str(step)
        if isinstance(step, int) or (_PLAIN.fullmatch(step) and step.isprintable())
        else json.dumps(step, ensure_ascii=not step.isprintable())
        for step in path
    )


def parse_path(text: str) -> tuple[str, ...]:
    """Return the parts of a path as people write it, dots between them, quotes around odd ones, `[0]` for positions.

    Raises RefusedError.
    """
    parts: list[str] = []
    at = 0
    while True:
        match = _PART.match(text, at)
        if match is None:
            hint = 'write it like spec.parameters.cpus, with odd keys in quotes: metadata."a.b"'
            raise RefusedError(f"path {sanitise(text, 80)!r}", f"a key is missing at character {at + 1}", hint)
        position, quoted, word = match.groups()
        parts.append(_read_quoted(text, at, quoted) if quoted else position or word)
        at = match.end()
        if at == len(text):
            break
        if text[at] == ".":
            at += 1
        elif text[at] != "[":
            why = f"a dot is missing at character {at + 1}"
            raise RefusedError(f"path {sanitise(text, 80)!r}", why, "write it like spec.parameters.cpus")
    if len(parts) > MAXIMUM_DEPTH:
        raise RefusedError("path", f"it has more than {MAXIMUM_DEPTH} parts", "name something less deep")
    return tuple(parts)


def _read_quoted(text: str, at: int, literal: str) -> str:
    try:
        return str(json.loads(literal, strict=False))
    except ValueError as error:
        why = f"an escape in the quotes at character {at + 1} is wrong"
        raise RefusedError(f"path {sanitise(text, 80)!r}", why, "write a backslash twice") from error


def set_path(document: Document, path: tuple[str, ...], value: Any) -> None:
    """Put a value at a path, in place; objects on the way are made, a position one after a list's end adds to it.

    Raises RefusedError where the way leads through something else.
    """
    parent: Any = document
    for index, part in enumerate(path[:-1]):
        if isinstance(parent, list):
            parent = parent[_position(parent, part, path[: index + 1], may_add=False)]
        else:
            parent = parent.setdefault(part, {})
        if not isinstance(parent, (dict, list)):
            raise RefusedError(
                _name(path[: index + 1]), "it is no object and no list", "name something that is there"
            )  # fmt: skip
    if isinstance(parent, list):
        position = _position(parent, path[-1], path, may_add=True)
        parent[position : position + 1] = [value]
    else:
        parent[path[-1]] = value


def remove_path(document: Document, path: tuple[str, ...]) -> None:
    """Take away what is at a path, in place; raises RefusedError where nothing is."""
    parent: Any = document
    for part in path[:-1]:
        parent = _look(parent, part, path)
    _look(parent, path[-1], path)
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]


def _look(parent: Any, part: str, path: tuple[str, ...]) -> Any:
    if isinstance(parent, dict) and part in parent:
        return parent[part]
    if isinstance(parent, list) and _IS_POSITION(part) and int(part) < len(parent):
        return parent[int(part)]
    raise RefusedError(_name(path), "there is none", "see what is there with show -o yaml")


def _position(items: list[Any], part: str, path: Path, *, may_add: bool) -> int:
    end = len(items) + may_add
    if not _IS_POSITION(part) or int(part) >= end:
        why = f"the list has {len(items)} entries, and {sanitise(part, 40)!r} is no place in it"
        raise RefusedError(_name(path), why, "count from 0")
    return int(part)


def _name(path: Path) -> str:
    return sanitise(format_path(path), 200)


def merge_patch(target: Any, patch: Any) -> Any:
    """Return what a merge patch (RFC 7396) makes of a value; the two are left alone, and share nothing with it.

    Raises RefusedError for one that is too deep.
    """
    _check_depth(target)
    _check_depth(patch)
    return _merge(copy.deepcopy(target), patch)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def compare(old: Any, new: Any) -> list[Change]:
    """Return the differences between two JSON values in the order of the old one, what is new at the end.

    Lists are compared position by position once what they begin and end with alike is set aside, so that an entry more
    in the middle is one change. 1, 1.0 and true differ, as they do in the store: no version is without a difference.
    Raises RefusedError for values that are too deep.
    """
    _check_depth(old)
    _check_depth(new)
    return list(_compare(old, new, ()))


def compare_documents(old: Document, new: Document) -> list[Change]:
    """Return the differences in what is versioned: name, metadata and spec."""
    fields = ("name", "metadata", "spec")
    return compare(*({key: document[key] for key in fields if key in document} for document in (old, new)))


def _compare(old: Any, new: Any, path: Path) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in new:
                yield from _compare(value, new[key], (*path, key))
            else:
                yield Change((*path, key), "remove", value, None)
        for key, value in new.items():
            if key not in old:
                yield Change((*path, key), "add", None, value)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _compare_lists(old, new, path)
    elif not _is_same(old, new):
        yield Change(path, "replace", old, new)


def _compare_lists(old: list[Any], new: list[Any], path: Path) -> Iterator[Change]:
    shorter = min(len(old), len(new))
    head = 0
    if len(old) != len(new):
        while head < shorter and _is_same(old[head], new[head]):
            head += 1
        tail = 0
        while tail < shorter - head and _is_same(old[-1 - tail], new[-1 - tail]):
            tail += 1
    else:
        tail = 0
    olds, news = old[head : len(old) - tail], new[head : len(new) - tail]
    common = min(len(olds), len(news))
    for index in range(common):
        yield from _compare(olds[index], news[index], (*path, head + index))
    # From the end, so that each position still is what it says when the changes are made in turn.
    for index in reversed(range(common, len(olds))):
        yield Change((*path, head + index), "remove", olds[index], None)
    for index in range(common, len(news)):
        yield Change((*path, head + index), "add", None, news[index])


def _is_same(first: Any, second: Any) -> bool:
    """Return whether two values are the same JSON; the order of keys does not matter."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_is_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_is_same, first, second))
    # Python takes 1 for 1.0 and for true, and 0.0 for -0.0.
    if first.__class__ is not second.__class__ or first != second:
        return False
    return not isinstance(first, float) or repr(first) == repr(second)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAXIMUM_DEPTH + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    raise RefusedError("document", "it is nested too deeply", f"keep it below {MAXIMUM_DEPTH} levels")


def json_patch(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Return changes as a JSON Patch (RFC 6902), which makes the new document from the old."""
    patch = []
    for change in changes:
        pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in change.path)
        entry: dict[str, Any] = {"op": change.operation, "path": pointer}
        if change.operation != "remove":
            entry["value"] = change.new
        patch.append(entry)
    return patch
