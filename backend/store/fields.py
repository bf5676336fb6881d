"""The index of fields: which documents have which value at which path, so that a selector need not read them all.

A row says that something at the path `key` of the document `number` is `value`. It is derived from the documents, and
it is only ever used to leave documents out: what it gives is looked at whole afterwards. So a row too many costs time
and a row too few is a fault.

A path is the keys of objects joined with dots, under `metadata.`, `spec.` or `status.`, and goes through lists; it is
kept as a checksum with its table. Numbers and short texts are kept as they are, because SQLite compares and orders them
as Python does; all else is a blob, which sorts behind them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from zlib import crc32

from backend.errors import FailedError
from backend.store.codec import decode, encode_value
from backend.store.rows import STATUS

ROOTS = ("metadata", "spec", "status")
MAXIMUM_FIELDS = 200
"""A document with more below one root is looked at whatever a selector says."""
MAXIMUM_TEXT = 64
LARGEST = (1 << 63) - 1

OBJECT, EMPTY_LIST, NULL, TRUE, FALSE, LARGE_NUMBER = (b"{", b"[", b"0", b"t", b"f", b"#")
LONG_TEXT = b"~"
"""Followed by a checksum of the text."""

ANYTHING = b"!"
"""What stands, at a root, for fields that are not listed."""

Value = int | float | str | bytes
Field = tuple[int, Value]


@lru_cache(maxsize=8192)
def hash_path(table: str, path: str) -> int:
    """Return the key of a path of a table's documents; two may share one, which costs time and nothing else."""
    return crc32(f"{table}\0{path}".encode()) - (1 << 31)


def index_value(value: Any) -> Value:
    """Return what a scalar is kept as."""
    kind = value.__class__
    if kind is str:
        if len(value) <= MAXIMUM_TEXT and "\0" not in value:
            return str(value)
        return LONG_TEXT + crc32(value.encode()).to_bytes(4)
    if kind is bool:
        return TRUE if value else FALSE
    if value is None:
        return NULL
    if kind is int and not -LARGEST <= value <= LARGEST:
        return LARGE_NUMBER
    number: int | float = value
    return number


def list_fields(table: str, body: bytes) -> frozenset[Field]:
    """Return the fields of a document's body, or of a status in a table of those."""
    kind = table.removesuffix(STATUS)
    return frozenset().union(*(_list_root(kind, root, value) for root, value in _split(table, body).items()))


def compare_fields(table: str, old: bytes, new: bytes) -> tuple[frozenset[Field], frozenset[Field]]:
    """Return what fields a body has lost and what others it has got; what did not change is not looked through."""
    kind = table.removesuffix(STATUS)
    before, after = _split(table, old), _split(table, new)
    changed = [root for root in ROOTS if encode_value(before.get(root)) != encode_value(after.get(root))]
    lost: frozenset[Field] = frozenset().union(*(_list_root(kind, root, before.get(root)) for root in changed))
    got: frozenset[Field] = frozenset().union(*(_list_root(kind, root, after.get(root)) for root in changed))
    return lost - got, got - lost


def _split(table: str, body: bytes) -> dict[str, Any]:
    try:
        value = decode(body)
    except FailedError:  # a check tells of it
        value = None
    if table.endswith(STATUS):
        return {"status": value}
    return {root: value.get(root) if isinstance(value, dict) else None for root in ("metadata", "spec")}


def _list_root(table: str, root: str, value: Any) -> frozenset[Field]:
    found: set[Field] = set()
    return frozenset(found if _collect(value, f"{root}.", None, table, found) else {(hash_path(table, root), ANYTHING)})


def _collect(value: Any, prefix: str, path: str | None, table: str, found: set[Field]) -> bool:
    """Add the fields below a value; False where they have become too many."""
    if value.__class__ is dict:
        return _collect_object(value, prefix, path, table, found)
    if value.__class__ is list:
        if not value and path is not None:
            found.add((hash_path(table, path), EMPTY_LIST))
        return all(_collect(item, prefix, path, table, found) for item in value)
    if path is not None:
        found.add((hash_path(table, path), index_value(value)))
    return len(found) <= MAXIMUM_FIELDS


def _collect_object(value: dict[str, Any], prefix: str, path: str | None, table: str, found: set[Field]) -> bool:
    if path is not None:
        found.add((hash_path(table, path), OBJECT))
    for key, item in value.items():
        below = prefix + key
        if item.__class__ is dict or item.__class__ is list:
            if not _collect(item, f"{below}.", below, table, found):
                return False
        else:
            found.add((hash_path(table, below), index_value(item)))
    return len(found) <= MAXIMUM_FIELDS
