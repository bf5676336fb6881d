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

from backend.errors import RefusedError
from backend.model.documents import Document
from backend.text import sanitise

MAXIMUM_LENGTH = 4096
MAXIMUM_TERMS = 50
MAXIMUM_PARTS = 20
_MAXIMUM_NEEDLES = 10
ROOTS = frozenset({"spec", "status", "metadata"})
FIELDS = frozenset(
    {"name", "kind", "uid", "version", "apiVersion", "createdAt", "updatedAt", "updatedBy", "message"} | ROOTS
)

_SPACE = re.compile(r"\s*")
_PART = re.compile(r"[^\s.,=!<>~()\"]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPERATOR = re.compile(r"==|!=|>=|<=|=|>|<|~|(?:notin|in)(?=\s*\()")
_PLAIN = re.compile(r'[^,"]*')
_PLAIN_IN_LIST = re.compile(r'[^,"()]*')
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,99})(?:\.\d{1,99})?(?:[eE][+-]?\d{1,3})?")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip
_CONSTANTS = {"true": True, "false": False, "null": None}

Predicate = Callable[[Document], bool]
Test = Callable[[Any], bool]


class Word(NamedTuple):
    """A part of a key, or a value: its text, and whether it was in quotes."""

    text: str
    quoted: bool = False

    def __str__(self) -> str:
        return json.dumps(self.text, ensure_ascii=False) if self.quoted else self.text


class Term(NamedTuple):
    """One condition: `operator` is one of `= != in notin > >= < <= ~`, or `exists` or `missing` without a value."""

    path: tuple[Word, ...]
    operator: str
    values: tuple[Word, ...] = ()

    def __str__(self) -> str:
        key = ".".join(map(str, self.path))
        if not self.values:
            return f"!{key}" if self.operator == "missing" else key
        if self.operator in ("in", "notin"):
            return f"{key} {self.operator} ({','.join(map(str, self.values))})"
        return f"{key}{self.operator}{self.values[0]}"


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
    if len(text) > MAXIMUM_LENGTH:
        why = f"it is longer than {MAXIMUM_LENGTH} characters"
        raise RefusedError("selector", why, "name fewer values", position=MAXIMUM_LENGTH)
    return Selector(_Parser(text).parse())


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> tuple[Term, ...]:
        self._take(_SPACE)
        if self._at == len(self._text):
            return ()
        terms = [self._term()]
        while self._accept(","):
            if len(terms) == MAXIMUM_TERMS:
                raise self._fault(f"it has more than {MAXIMUM_TERMS} terms")
            terms.append(self._term())
        if self._at < len(self._text):
            raise self._fault("the term should end here")
        return tuple(terms)

    def _term(self) -> Term:
        self._take(_SPACE)
        if self._accept("!"):
            return Term(self._key(), "missing")
        path = self._key()
        start = self._at
        operation = self._take(_OPERATOR).replace("==", "=")
        if not operation:
            if self._peek() not in ("", ","):
                raise self._fault("an operator should be here, one of = != in notin > >= < <= ~")
            return Term(path, "exists")
        self._take(_SPACE)
        if operation in ("in", "notin"):
            return Term(path, operation, self._values())
        value = self._value(_PLAIN)
        if not value.text and not value.quoted and operation not in ("=", "!="):
            self._at = start + len(operation)
            raise self._fault("a value is missing")
        return Term(path, operation, (value,))

    def _key(self) -> tuple[Word, ...]:
        self._take(_SPACE)
        path = [self._part()]
        while self._accept("."):
            if len(path) == MAXIMUM_PARTS:
                raise self._fault(f"the key has more than {MAXIMUM_PARTS} parts")
            path.append(self._part())
        self._take(_SPACE)
        return tuple(path)

    def _part(self) -> Word:
        if self._peek() == '"':
            return Word(self._quoted(), quoted=True)
        text = self._take(_PART)
        if not text:
            raise self._fault("a key is missing")
        return Word(text)

    def _values(self) -> tuple[Word, ...]:
        self._accept("(")
        values: list[Word] = []
        while True:
            self._take(_SPACE)
            value = self._value(_PLAIN_IN_LIST)
            if not value.text and not value.quoted:
                raise self._fault("a value is missing")
            values.append(value)
            if not self._accept(","):
                break
        if not self._accept(")"):
            raise self._fault("a closing parenthesis is missing")
        self._take(_SPACE)
        return tuple(values)

    def _value(self, plain: re.Pattern[str]) -> Word:
        if self._peek() == '"':
            word = Word(self._quoted(), quoted=True)
            self._take(_SPACE)
            return word
        if self._peek() == "=":
            raise self._fault("a value that starts with = must be in quotes")
        text = self._take(plain)
        if self._peek() == '"':
            raise self._fault("a value that has a quotation mark must be in quotes as a whole")
        return Word(text.rstrip())

    def _quoted(self) -> str:
        start = self._at
        literal = self._take(_QUOTED)
        try:
            return str(json.loads(literal, strict=False))
        except ValueError as error:
            self._at = start
            raise self._fault("a quotation mark or an escape in the quotes is wrong") from error

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _accept(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if not match:
            return ""
        self._at = match.end()
        return match.group()

    def _fault(self, why: str) -> RefusedError:
        before = sanitise(self._text[: self._at], MAXIMUM_LENGTH)
        after = sanitise(self._text[self._at :], MAXIMUM_LENGTH)
        return RefusedError(
            "selector",
            f"{why}, at character {self._at + 1}",
            f"look at the ^ in {before}^{after}",
            position=self._at,
            caret=f"{before}{after}\n{' ' * len(before)}^",
        )


def _join(tests: list[Predicate]) -> Predicate:
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    first, rest = tests[0], _join(tests[1:])
    return lambda document: first(document) and rest(document)


def _split_root(path: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
    """Return where in the document a path starts (empty: at the document itself), and the rest of it."""
    first = path[0]
    if not first.quoted:
        if len(path) > 1 and first.text in ROOTS:
            return first.text, path[1:]
        if len(path) == 1 and first.text in FIELDS:
            return "", path
    return "metadata", path


def _compile(term: Term) -> Predicate:
    root, path = _split_root(term.path)
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


def _is_narrow(term: Term) -> bool:
    root, path = _split_root(term.path)
    return root == "metadata" or (not root and path[0].text == "name")


def _find_needles(term: Term) -> tuple[bytes, ...]:
    """Return texts of which one stands in the JSON of the metadata of every document that a term takes."""
    root, path = _split_root(term.path)
    if root != "metadata" or term.operator in ("missing", "!=", "notin"):
        return ()
    few = len(term.values) <= _MAXIMUM_NEEDLES
    whole = few and term.operator in ("=", "in") and not any(_parse_scalar(word)[0] for word in term.values)
    # Of a number there is more than one form. Of a key there is one, and a key with dots ends with its last part.
    words, opening = (term.values, '"') if whole else (path[-1:], "")
    # Such texts have one form in JSON, whoever wrote it.
    plain = all(word.text.isprintable() and not {'"', "\\"} & set(word.text) for word in words)
    return tuple(f'{opening}{word.text}"'.encode() for word in words) if plain else ()
