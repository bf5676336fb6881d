"""The terms of a selector, and how they are read from a text; `backend.model.selectors` says what they mean."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from backend.errors import RefusedError
from backend.text import sanitise

MAXIMUM_LENGTH = 4096
MAXIMUM_TERMS = 50
MAXIMUM_PARTS = 20
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

    def speaks_of(self, root: str) -> bool:
        """Return whether the key lies below `root` (`metadata`, `spec` or `status`), or is that itself."""
        return split_root(self.path)[0] == root or (not self.path[0].quoted and self.path == (Word(root),))

    def __str__(self) -> str:
        key = ".".join(map(str, self.path))
        if not self.values:
            return f"!{key}" if self.operator == "missing" else key
        if self.operator in ("in", "notin"):
            return f"{key} {self.operator} ({','.join(map(str, self.values))})"
        return f"{key}{self.operator}{self.values[0]}"


def split_root(path: tuple[Word, ...]) -> tuple[str, tuple[Word, ...]]:
    """Return where in the document a path starts (empty: at the document itself), and the rest of it."""
    first = path[0]
    if not first.quoted:
        if len(path) > 1 and first.text in ROOTS:
            return first.text, path[1:]
        if len(path) == 1 and first.text in FIELDS:
            return "", path
    return "metadata", path


def parse_terms(text: str) -> tuple[Term, ...]:
    """Return the terms that a text says; raise RefusedError with the `position` (a 0-based index) of its fault."""
    if len(text) > MAXIMUM_LENGTH:
        why = f"it is longer than {MAXIMUM_LENGTH} characters"
        raise RefusedError("selector", why, "name fewer values", position=MAXIMUM_LENGTH)
    return _Parser(text).parse()


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
