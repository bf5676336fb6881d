"""How a file finds the documents that a selector takes without reading all of them.

Each condition of the selector is looked up in the index of fields. What is found is a superset of what the selector
takes, never less: whatever the index does not know is among it, and the caller asks the selector itself.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from backend.model.selectors import Condition
from backend.store.codec import decode
from backend.store.connections import Connections
from backend.store.fields import (
    ANYTHING,
    LARGE_NUMBER,
    LARGEST,
    LONG_TEXT,
    ROOTS,
    Value,
    hash_path,
    index_value,
)  # fmt: skip
from backend.store.formats import INDEXED
from backend.store.protocol import Predicate
from backend.store.rows import STATUS

_PICKED = 500
# A term that finds no more is good enough alone.
_FEW = 2000
# Of a selector that takes much of a table, the rows are better read one after another.
_PART = 4
_SCANNED = 5000
_COMPARISONS = {">": ">=", ">=": ">=", "<": "<=", "<=": "<="}
_EVERYTHING = 1 << 62

_FIELD = "SELECT number FROM field WHERE key = ? AND "
_NAME = "SELECT number FROM head WHERE tbl = ? AND "
_NAMES_OF = (
    f"SELECT name FROM head INDEXED BY head_number WHERE number IN ({','.join('?' * _PICKED)}) AND tbl = ? AND name > ?"  # noqa: S608
)
# A sign keeps SQLite from an index that only seems to help.
_CHANGED = (
    "SELECT document.name FROM log CROSS JOIN head AS document"  # noqa: S608
    " ON document.tbl = ? AND document.id = log.id"
    f" WHERE log.revision > ({INDEXED}) AND +log.tbl IN (?, ?) AND document.name > ?"
)
_UNLISTED = "SELECT number FROM field WHERE key IN (?, ?, ?) AND value = ?"
_SCAN = "SELECT id, name, metadata FROM head WHERE tbl = ? AND id > ? AND +name > ? ORDER BY id LIMIT ?"


Test = tuple[str, tuple[Any, ...]]
"""A condition in SQL, and its values."""


class Lookup(NamedTuple):
    """Statements that together give the numbers of all documents for which a condition may hold."""

    statements: tuple[Test, ...]


def find_few(connections: Connections, table: str, where: Any, after: str) -> list[str] | None:
    """Return the names, in order and after one, of the documents that a selector may take; None where they are many."""
    common: set[int] | None = None
    with connections.moment() as moment:
        for lookup in _list_lookups(table, where):
            numbers = _look(moment, lookup, _FEW + 1)
            if len(numbers) <= _FEW:
                common = numbers if common is None else common & numbers
        return None if common is None else _name(moment, table, common, after)


def find_many(connections: Connections, table: str, where: Any, after: str) -> list[str] | None:
    """Return what `find_few` does for a selector whose terms find much each; None where they do so together too."""
    common: set[int] | None = None
    with connections.moment() as moment:
        for lookup in _list_lookups(table, where):
            numbers = _look(moment, lookup, _EVERYTHING)
            common = numbers if common is None else common & numbers
        ((count,),) = moment.execute("SELECT count(*) FROM head WHERE tbl = ?", (table,))
        if common is not None:
            return None if len(common) * _PART > count else _name(moment, table, common, after)
        names = _scan(moment, table, where, after)
        return None if names is None or len(names) * _PART > count else names


def _scan(moment: sqlite3.Connection, table: str, where: Any, after: str) -> list[str] | None:
    """Return the names for which what a selector says of name and metadata holds; None where it says nothing of them.

    Only what must not be comes to this: there is nothing to look up.
    """
    narrow: Predicate | None = getattr(where, "narrow", None)
    if narrow is None:
        return None
    names: list[str] = []
    last = ""
    while rows := moment.execute(_SCAN, (table, last, after, _SCANNED)).fetchall():
        for _, name, metadata in rows:
            if metadata is None or narrow({"name": name, "metadata": decode(metadata)}):
                names.append(name)
        last = rows[-1][0]
    return sorted(names)


def _look(moment: sqlite3.Connection, lookup: Lookup, limit: int) -> set[int]:
    numbers: set[int] = set()
    for statement, values in lookup.statements:
        numbers.update(chain.from_iterable(moment.execute(f"{statement} LIMIT {limit}", values)))
    return numbers


def _name(moment: sqlite3.Connection, table: str, numbers: set[int], after: str) -> list[str]:
    """Return the names of what was found, and of what the index does not know: it changed since, or has too much."""
    names = set(chain.from_iterable(moment.execute(_CHANGED, (table, table, table + STATUS, after))))
    keys = [hash_path(table, root) for root in ROOTS]
    numbers.update(chain.from_iterable(moment.execute(_UNLISTED, (*keys, ANYTHING))))
    for places in split(sorted(filter(None, numbers)), _PICKED):
        names.update(chain.from_iterable(moment.execute(_NAMES_OF, (*places, table, after))))
    return sorted(names)


def split(values: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Yield values in parts of one length, filled up with None."""
    # Always as many places, so that SQLite compiles it once; NULL is none.
    for start in range(0, len(values), size):
        places = list(values[start : start + size])
        yield places + [None] * (size - len(places))


def _list_lookups(table: str, where: Any) -> Iterator[Lookup]:
    conditions: Iterable[Condition] = getattr(where, "conditions", ())
    for condition in conditions:
        statements = _look_up_field(table, condition) if condition.root else _look_up_head(table, condition)
        if statements:
            yield Lookup(tuple(statements))


def _look_up_field(table: str, condition: Condition) -> list[Test]:
    key = hash_path(table, f"{condition.root}.{condition.path}")
    if condition.operator == "exists":
        tests: list[Test] = [("value = value", ())]
    elif condition.operator == "in":
        tests = [_is_one_of(condition.values)]
    elif condition.operator == "~":
        tests = _is_like(condition.values[0])
    else:
        tests = _compare(condition.operator, condition.values[0])
    return [(_FIELD + test, (key, *values)) for test, values in tests]


def _is_one_of(values: Iterable[Any]) -> Test:
    wanted: set[Value] = set()
    for value in values:
        wanted.add(index_value(value))
        if value.__class__ in (int, float) and not -LARGEST <= value <= LARGEST:
            wanted |= {LARGE_NUMBER, float(value)}
    return f"value IN ({','.join('?' * len(wanted))})", tuple(wanted)


def _is_like(glob: str) -> list[Test]:
    if "\0" in glob:
        return []
    stop = min((glob.find(character) for character in "*?" if character in glob), default=len(glob))
    test, values = _starts_with(glob[:stop])
    pattern = glob.replace("[", "[[]")  # which SQLite takes for a set of characters
    return [(f"{test} AND value GLOB ?", (*values, pattern)), _is_long_text()]


def _starts_with(prefix: str, column: str = "value") -> Test:
    end = _find_end(prefix)
    return f"{column} >= ? AND {column} < ?", (prefix, b"" if end is None else end)


def _find_end(prefix: str) -> str | None:
    """Return the first text behind all that start with a prefix; None where there is none."""
    prefix = prefix.rstrip(chr(0x10FFFF))
    if not prefix:
        return None
    last = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if last == 0xD800 else last)  # noqa: PLR2004 - surrogates are no characters


def _is_long_text() -> Test:
    return "value >= ? AND value < ?", (LONG_TEXT, bytes([LONG_TEXT[0] + 1]))


def _compare(operator: str, bound: Any) -> list[Test]:
    is_less = operator.startswith("<")
    if bound.__class__ is str:
        test = ("value >= '' AND value <= ?", (bound,)) if is_less else ("value >= ? AND value < x''", (bound,))
        return [test, _is_long_text()]
    if not -LARGEST <= bound <= LARGEST:
        # One step outwards, because the nearest that SQLite can hold may be on the wrong side.
        bound = math.nextafter(float(bound), -math.inf if not is_less else math.inf)
    test = ("value <= ?", (bound,)) if is_less else ("value >= ? AND value < ''", (bound,))
    return [test, ("value = ?", (LARGE_NUMBER,))]


def _look_up_head(table: str, condition: Condition) -> list[Test]:
    texts = [value for value in condition.values if value.__class__ is str]
    if condition.path == "uid" and condition.operator == "in":
        return [(f"{_NAME}id IN ({','.join('?' * len(texts))})", (table, *texts))]
    if condition.path != "name" or not texts or condition.operator == "exists":
        return []
    if condition.operator == "in":
        return [(f"{_NAME}name IN ({','.join('?' * len(texts))})", (table, *texts))]
    if condition.operator == "~":
        return _is_name_like(table, texts[0])
    return [(f"{_NAME}name {_COMPARISONS[condition.operator]} ?", (table, texts[0]))]


def _is_name_like(table: str, glob: str) -> list[Test]:
    if "\0" in glob:
        return []
    stop = min((glob.find(character) for character in "*?" if character in glob), default=len(glob))
    test, values = _starts_with(glob[:stop], "name")
    pattern = glob.replace("[", "[[]")
    # SQLite sees the end of a text in a NUL.
    return [(f"{_NAME}{test} AND (name GLOB ? OR instr(name, char(0)))", (table, *values, pattern))]
