"""YAML as people write it, and values that are to become JSON; none of it is trusted.

Read and written by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `no` is a text and
`52:54:00:12:34:56` no number, and no object of Python's is ever made from it.
"""

from __future__ import annotations

import re
from typing import Any

from backend.model.changes import MAXIMUM_DEPTH
from backend.text import sanitise, sanitise_lines

# What references (`*name`) in a text may make of it, counted as if each were written out.
MAXIMUM_VALUES = 1_000_000
LONGEST_INTEGER = 20
_INTEGERS = range(-(1 << 63), 1 << 64)
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for text, value in (("true", True), ("false", False)) for word in (text, text.title(), text.upper())
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TWO_MEANINGS = re.compile(r"[-+]?0[0-9]+")

_LIKE_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FoOxX_.:eE+-]*|[-+]?\.(?:inf|nan)", re.IGNORECASE)


class TextError(ValueError):
    """What is wrong with a text, in a few words; any other ValueError speaks of bytes and positions."""


def check_value(value: Any) -> None:
    """Raise TextError for what every JSON reader takes differently, and for what is too deep."""
    level = [value]
    depth = 0
    while level:
        if depth > MAXIMUM_DEPTH:
            raise TextError(f"it is nested in more than {MAXIMUM_DEPTH} levels")
        depth += 1
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                if not item.isascii() and _SURROGATE.search(item):
                    raise TextError("a text in it has half a character (a lone surrogate)")
            elif isinstance(item, int) and item not in _INTEGERS:
                raise TextError("a number in it has more than 64 bits")
        level = below


def parse_float(digits: str) -> float:
    """Return a number that JSON can carry; raise TextError for one that is too large."""
    number = float(digits)
    if number - number != 0:
        raise TextError(f"{digits[:20]} is too large a number")
    return number


def find_line(text: str, at: int) -> int:
    """Return the number of the line in which a position stands."""
    return text.count("\n", 0, at) + 1


def format_yaml(value: Any) -> str:
    """Return a value as YAML without loss, texts of several lines as such, in which nothing can steer a terminal."""
    import yaml  # noqa: PLC0415 - 50 ms, for those who ask for it

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as they read, and quotes what some reader would take for a number."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        lines = "\n" in text and sanitise_lines(text) == text and not text.startswith((" ", "\n"))
        style = "|" if lines else "'" if _LIKE_NUMBER.fullmatch(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)

    def dump(*, allow_unicode: bool) -> str:
        return str(yaml.dump(value, Dumper=Dumper, allow_unicode=allow_unicode, sort_keys=False, width=110))

    text = dump(allow_unicode=True)
    return text if sanitise_lines(text) == text else dump(allow_unicode=False)


def parse_yaml(text: str) -> list[Any]:
    """Return the documents of a YAML text, empty ones left out; raise TextError, naming the line."""
    import yaml  # noqa: PLC0415 - for those who write YAML

    builder = _Builder()
    # Events, not nodes: a text that is nested deeply, or grows by its references, is refused before it costs anything.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise TextError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        at = getattr(error, "position", 0)
        raise TextError(f"line {find_line(text, at)}: {getattr(error, 'reason', None) or 'it is no YAML'}") from error
    return builder.documents


class _Open:
    """An object or a list that is being read; `key` waits for its value."""

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, before: int) -> None:
        self.value = value
        self.anchor = anchor
        self.before = before
        self.key: str | None = None


class _Builder:
    """Makes documents from the events of YAML's parser; raises TextError with the line."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self._open: list[_Open] = []
        self._known: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def take(self, event: Any) -> None:
        """Take the next event."""
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            self._known = {}
        elif kind in ("ScalarEvent", "AliasEvent", "MappingStartEvent", "SequenceStartEvent"):
            try:
                self._take_value(kind, event)
            except TextError as error:
                raise TextError(f"line {event.start_mark.line + 1}: {error}") from error
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            closed = self._open.pop()
            if closed.anchor:
                self._known[closed.anchor] = (closed.value, self._count - closed.before)

    def _take_value(self, kind: str, event: Any) -> None:
        self._spend(1)
        if kind == "AliasEvent":
            if event.anchor not in self._known:
                raise TextError(f"*{sanitise(event.anchor, 40)} refers to nothing before it")
            value, size = self._known[event.anchor]
            self._spend(size)
            self._put(value, is_text=isinstance(value, str))
        elif kind == "ScalarEvent":
            value = _resolve(event)
            if event.anchor:
                self._known[event.anchor] = (value, 1)
            self._put(value, is_text=isinstance(value, str), merges=value == "<<" and event.implicit[0])
        else:
            name = "map" if kind == "MappingStartEvent" else "seq"
            if event.tag not in (None, "!", _TAG + name):
                raise TextError(f"the tag {sanitise(event.tag, 60)} is not taken")
            container: Any = {} if name == "map" else []
            # It can be referred to once it is whole: in itself it would have no end.
            self._known.pop(event.anchor or "", None)
            self._put(container, is_text=False)
            self._open.append(_Open(container, event.anchor, self._count - 1))
            if len(self._open) > MAXIMUM_DEPTH:
                raise TextError(f"it is nested in more than {MAXIMUM_DEPTH} levels")

    def _spend(self, count: int) -> None:
        self._count += count
        if self._count > MAXIMUM_VALUES:
            raise TextError("its references make too much of it: write it out, or make several files")

    def _put(self, value: Any, *, is_text: bool, merges: bool = False) -> None:
        """Put a value where it belongs: into a list, as the key or as the value of an object, or as a document."""
        if not self._open:
            if value is not None:
                self.documents.append(value)
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is not None:
            parent.value[parent.key] = value
            parent.key = None
        elif merges:
            raise TextError("merging with << is not taken: write it out")
        elif not is_text:
            raise TextError("a key must be a text: put it in quotes")
        elif value in parent.value:
            raise TextError(f"the key {value[:60]!r} is there twice in one object")
        else:
            parent.key = value


def _resolve(event: Any) -> Any:
    """Return the value of a scalar by the core schema of YAML 1.2, without what JSON has not."""
    text: str = event.value
    if event.tag is None and not event.implicit[0]:
        return text
    if event.tag in ("!", _TAG + "str"):
        return text
    value = _resolve_plain(text)
    if event.tag is not None:
        wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(event.tag.removeprefix(_TAG))
        if wanted is None:
            raise TextError(f"the tag {sanitise(event.tag, 60)} is not taken")
        if wanted is float and type(value) is int:
            return float(value)
        if type(value) is not wanted:
            raise TextError(f"{sanitise(text, 60)!r} is not what its tag says")
    return value


def _resolve_plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > LONGEST_INTEGER + 1:
            raise TextError(f"{text[:LONGEST_INTEGER]}… has more than 64 bits")
        return int(text, 0)
    if _TWO_MEANINGS.fullmatch(text):
        raise TextError(f"{text[:20]} begins with 0, which some take for octal: put it in quotes, or leave the 0 out")
    if _NO_JSON.fullmatch(text):
        raise TextError(f"{text} is no JSON number")
    return parse_float(text) if _FLOAT.fullmatch(text) else text
