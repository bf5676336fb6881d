"""Queries, read strictly by the table: what it does not have is refused, not passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from backend.errors import NotFoundError, UsageError
from backend.model.kinds import find_kind
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.api.rows import Parameter, Row

_MAXIMUM_FIELDS = 50
_SHORT = 256
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?")


def read_query(row: Row, text: str) -> dict[str, Any]:
    """Return the values of a query, defaults filled in; raise UsageError for what the row does not take."""
    return dict(_read_short(row, text)) if len(text) <= _SHORT else _read_query(row, text)


@lru_cache(maxsize=1024)
def _read_short(row: Row, text: str) -> Mapping[str, Any]:
    return _read_query(row, text)


def _read_query(row: Row, text: str) -> dict[str, Any]:
    values = {
        name: parameter.schema["default"] for name, parameter in row.parameters.items() if "default" in parameter.schema
    }
    if not text:
        return values
    given: dict[str, str] = {}
    for name, value in _split(text):
        if name not in row.parameters:
            raise UsageError("query", f"unknown parameter {sanitise(name, 60)!r}", _name_known(row))
        if name in given:
            raise UsageError("query", f"{name} stands there twice", "give it once")
        given[name] = value
    return values | {name: _read(row.parameters[name], value) for name, value in given.items()}


def _split(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MAXIMUM_FIELDS
        )
    except ValueError as error:
        raise UsageError(
            "query", f"not well formed: {sanitise(str(error), 80)}", "write NAME=VALUE&NAME=VALUE"
        ) from None


def find_action(row: Row, text: str) -> str:
    """Return the action that a request asks for: the row's, or where its query names kinds, the first one's reading.

    A query that is not well formed is refused later, to whoever may know.
    """
    if "kinds" not in row.parameters or "kinds" not in text:
        return row.action
    try:
        kinds = str(read_query(row, text).get("kinds", "")).split(",")
        return f"{find_kind(kinds[0].strip()).command}.read"
    except (UsageError, NotFoundError):
        return row.action


def _name_known(row: Row) -> str:
    return f"known are {', '.join(row.parameters)}" if row.parameters else "it takes none"


def _read(parameter: Parameter, text: str) -> Any:
    schema = parameter.schema
    value: Any = text
    if schema["type"] == "boolean":
        if text not in ("true", "false"):
            raise _refuse(parameter, "write true or false")
        return text == "true"
    if schema["type"] in ("integer", "number"):
        pattern = _INTEGER if schema["type"] == "integer" else _NUMBER
        if not pattern.fullmatch(text):
            raise _refuse(parameter, "write a plain figure")
        value = int(text) if schema["type"] == "integer" else float(text)
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            raise _refuse(parameter, f"from {schema.get('minimum', '')} to {schema.get('maximum', '')}")
    elif len(text) > schema.get("maxLength", len(text)):
        raise _refuse(parameter, f"{schema['maxLength']} characters at most")
    elif "\0" in text or ("enum" in schema and text not in schema["enum"]):
        raise _refuse(parameter, f"one of {', '.join(schema['enum'])}" if "enum" in schema else "plain text")
    return value


def _refuse(parameter: Parameter, hint: str) -> UsageError:
    return UsageError("query", f"{parameter.name} is not what it is to be", hint)
