r"""Selectors: which documents are meant, in one line of text; the same on every surface.

    SELECTOR := TERM { , TERM }                  all terms hold; the empty selector takes every document
    TERM     := KEY | ! KEY                      the key is there (null counts) | is not
              | KEY = V | KEY != V | KEY in (V, …) | KEY notin (V, …)
              | KEY > V | KEY >= V | KEY < V | KEY <= V
              | KEY ~ GLOB                       * is any text, ? any one character
    KEY      := part { . part }                  a part is plain, or "quoted" as JSON quotes

A KEY is a path in the customer's metadata, and inside it a key that has dots itself is found too
(`app.example.org/tier`). `spec.…`, `status.…`, `metadata.…` and `name`, `kind`, `uid`, `version`, `apiVersion`,
`createdAt`, `updatedAt`, `updatedBy`, `message` reach the rest; a quoted first part is always the customer's. A path
goes through lists, and a list matches where any element does.

V is compared as JSON where it is a JSON number, true, false or null, and as text too: `tier=3` takes 3, 3.0 and "3". In
quotes it is text alone. `>` and its like compare numbers with numbers; where V is no number, texts with texts, which
is right for times. A missing key, or a value of another type, makes `=`, `in`, `~`, `>` false and `!=`, `notin` true.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from backend.model.documents import Document
from backend.model.selector_terms import Term, Word, parse_terms, split_root

__all__ = ["Condition", "Selector", "Term", "Word", "compile_glob", "parse"]

_MAXIMUM_NEEDLES = 10
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,99})(?:\.\d{1,99})?(?:[eE][+-]?\d{1,3})?")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip
_CONSTANTS = {"true": True, "false": False, "null": None}

Predicate = Callable[[Document], bool]
Test = Callable[[Any], bool]


class Condition(NamedTuple):
    """What a document must have for a term to hold; an engine that knows its own documents can look for it.

    Some value at `path` (the parts joined with dots, through objects and lists) below `root` (`metadata`, `spec`,
    `status`, or empty for a field of the document itself). `operator` is `exists`; `in` with all `values` it may be;
    one of `> >= < <=` with a bound, a number or a text, that compares with its own kind alone; or `~` with a glob.
    """

    root: str
    path: str
    operator: str
    values: tuple[Any, ...] = ()


class Selector:
    """A predicate on whole documents, with the terms that it was made from; `str` gives a text that parses to it."""

    def __init__(self, terms: tuple[Term, ...]) -> None:
        self.terms = terms
        tests = [_compile(term) for term in terms]
        self.holds = _join(tests)
        """The predicate as a plain function, for loops: a call of the selector itself takes half as long again."""
        narrowing = [test for term, test in zip(terms, tests, strict=True) if _is_narrow(term)]
        self.narrow = _join(narrowing) if narrowing else None
        """What can be told from a document's name and metadata alone; None where that is nothing."""
        self.needles = tuple(needles for term in terms if (needles := _find_needles(term)))
        """Texts that stand in the JSON of the metadata of every document that is taken, at least one of each group."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What every document that is taken fulfils; what must not be is not among it."""
        return tuple(condition for term in self.terms if (condition := _describe(term)))

    def __call__(self, document: Document) -> bool:
        """Return whether a whole document matches."""
        return self.holds(document)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))

    def __repr__(self) -> str:
        return f"parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)


def parse(text: str) -> Selector:
    """Return the selector that a text says; raise RefusedError with the `position` (a 0-based index) of its fault."""
    return Selector(parse_terms(text))


def _join(tests: list[Predicate]) -> Predicate:
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    first, rest = tests[0], _join(tests[1:])
    return lambda document: first(document) and rest(document)


def _compile(term: Term) -> Predicate:
    root, path = split_root(term.path)
    if term.operator == "exists":
        return _compile_lookup(root, path, lambda _: True, through_lists=False)
    if term.operator == "missing":
        return _negate(_compile_lookup(root, path, lambda _: True, through_lists=False))
    if term.operator in ("=", "!=", "in", "notin"):
        found = _compile_lookup(root, path, _compile_equality(term.values))
        return found if term.operator in ("=", "in") else _negate(found)
    (value,) = term.values
    if term.operator == "~":
        return _compile_lookup(root, path, compile_glob(value.text))
    return _compile_lookup(root, path, _compile_comparison(_COMPARISONS[term.operator], value))


def _negate(test: Predicate) -> Predicate:
    return lambda document: not test(document)


def _compile_lookup(root: str, path: tuple[Word, ...], test: Test, *, through_lists: bool = True) -> Predicate:
    """Return whether any value at the path passes the test."""

    def test_any(value: Any) -> bool:
        if value.__class__ is list and through_lists:
            return any(map(test_any, value))
        return test(value)

    search = _compile_search(path, test_any)
    key = path[0].text
    if not root:
        return lambda document: key in document and test_any(document[key])
    if len(path) > 1:
        return lambda document: search(document.get(root))

    def look(document: Document) -> bool:
        # The plainest key by far, and so worth a way of its own: one look into one object.
        values = document.get(root)
        if values.__class__ is not dict:
            return search(values)
        value = values.get(key, look)  # which no document holds
        if value.__class__ is list:
            return test_any(value)
        return value is not look and test(value)

    return look


def _list_steps(path: tuple[Word, ...]) -> list[list[tuple[str, int]]]:
    """Return, for each part of a path, the keys that may start there, and the part that follows each."""
    steps: list[list[tuple[str, int]]] = []
    for start, first in enumerate(path):
        step = [(first.text, start + 1)]
        for stop in range(start + 2, len(path) + 1):
            if any(word.quoted for word in path[start:stop]):
                break
            step.append((".".join(word.text for word in path[start:stop]), stop))
        steps.append(step)
    return steps


def _compile_search(path: tuple[Word, ...], test: Test) -> Test:
    """Return whether any value below another one passes the test; the parts of a path may be one key with dots."""
    end = len(path)
    steps = _list_steps(path)

    def search(value: Any, at: int = 0) -> bool:
        if at == end:
            return test(value)
        if value.__class__ is dict:
            for key, following in steps[at]:
                if key in value and search(value[key], following):
                    return True
        elif value.__class__ is list:
            for item in value:
                if search(item, at):
                    return True
        return False

    return search


def _parse_scalar(word: Word) -> tuple[bool, Any]:
    """Return whether a word is a JSON number, true, false or null, and its value."""
    if word.quoted:
        return False, None
    if word.text in _CONSTANTS:
        return True, _CONSTANTS[word.text]
    if _NUMBER.fullmatch(word.text):
        return True, json.loads(word.text)
    return False, None


def _compile_equality(words: tuple[Word, ...]) -> Test:
    texts = frozenset(word.text for word in words)
    scalars = [value for is_scalar, value in map(_parse_scalar, words) if is_scalar]
    numbers = frozenset(value for value in scalars if value.__class__ in (int, float))
    constants = [value for value in scalars if value is None or value.__class__ is bool]

    def test(value: Any) -> bool:
        if value.__class__ is str:
            return value in texts
        if value.__class__ is int or value.__class__ is float:
            return value in numbers
        return any(value is constant for constant in constants)

    return test


def _compile_comparison(compare: Callable[[Any, Any], bool], word: Word) -> Test:
    _, bound = _parse_scalar(word)
    if bound.__class__ in (int, float):
        return lambda value: (value.__class__ is int or value.__class__ is float) and compare(value, bound)
    text = word.text
    return lambda value: value.__class__ is str and compare(value, text)


def compile_glob(pattern: str) -> Test:
    """Return whether a value is a text that a glob covers; the time is bounded by length of text times of pattern."""
    # Between two stars the first place that fits is as good as any, so nothing is ever tried twice.
    head, *rest = (
        re.compile("".join("." if character == "?" else re.escape(character) for character in piece), re.DOTALL)
        for piece in pattern.split("*")
    )
    if not rest:
        return lambda value: value.__class__ is str and head.fullmatch(value) is not None
    tail = rest.pop()
    tail_length = len(pattern) - pattern.rfind("*") - 1

    def test(value: Any) -> bool:
        if value.__class__ is not str or not (match := head.match(value)):
            return False
        at = match.end()
        for piece in rest:
            match = piece.search(value, at)
            if not match:
                return False
            at = match.end()
        start = len(value) - tail_length
        return start >= at and tail.match(value, start) is not None

    return test


def _describe(term: Term) -> Condition | None:
    if term.operator in ("missing", "!=", "notin"):
        return None
    root, words = split_root(term.path)
    path = ".".join(word.text for word in words)
    scalars = tuple(value for is_scalar, value in map(_parse_scalar, term.values) if is_scalar)
    texts = tuple(word.text for word in term.values)
    if term.operator in ("=", "in"):
        return Condition(root, path, "in", texts + scalars)
    if term.operator in _COMPARISONS:
        is_number = scalars and scalars[0].__class__ in (int, float)
        return Condition(root, path, term.operator, scalars if is_number else texts)
    return Condition(root, path, term.operator, texts)


def _is_narrow(term: Term) -> bool:
    root, path = split_root(term.path)
    return root == "metadata" or (not root and path[0].text == "name")


def _find_needles(term: Term) -> tuple[bytes, ...]:
    """Return texts of which one stands in the JSON of the metadata of every document that a term takes."""
    root, path = split_root(term.path)
    if root != "metadata" or term.operator in ("missing", "!=", "notin"):
        return ()
    few = len(term.values) <= _MAXIMUM_NEEDLES
    whole = few and term.operator in ("=", "in") and not any(_parse_scalar(word)[0] for word in term.values)
    # Of a number there is more than one form. Of a key there is one, and a key with dots ends with its last part.
    words, opening = (term.values, '"') if whole else (path[-1:], "")
    # Such texts have one form in JSON, whoever wrote it.
    plain = all(word.text.isprintable() and not {'"', "\\"} & set(word.text) for word in words)
    return tuple(f'{opening}{word.text}"'.encode() for word in words) if plain else ()
