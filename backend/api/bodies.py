"""Bodies, read strictly: counted while they come, JSON without doubt about its meaning, held to the table's schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backend.api.problems import HttpError
from backend.errors import RefusedError, UsageError
from backend.text import hide_secrets, sanitise

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from backend.api.rows import Row, Schema

MAXIMUM_DEPTH = 64
LARGE_BYTES = 32 << 10
_LONGEST_MESSAGE = 300
_LONGEST_INTEGER = 20
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[][{}]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(connection: HTTPConnection, limit: int) -> bytes:
    """Return a whole body; raise HttpError (413) for one of more than `limit` bytes, as soon as that is known."""
    declared = connection.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in connection.stream():  # type: ignore[attr-defined]
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> HttpError:
    # What is still on its way is not read, so the connection cannot serve another request.
    return HttpError(413, "body", f"more than {limit} bytes", "send less", {"Connection": "close"})


async def read_row_body(connection: HTTPConnection, row: Row) -> bytes | None:
    """Return the body that an operation takes, None where it may be, and is, left out; see `Exchange.json`."""
    body = row.body
    if body is None:
        msg = f"{row.operation_id} takes no body"
        raise TypeError(msg)
    if connection.headers.get("content-type") or body.required:
        check_media(connection.headers.get("content-type", ""), body.media)
    if connection.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(415, "body", "it is compressed", "send it as it is")
    data = await read_body(connection, body.limit)
    if data and not connection.headers.get("content-type"):
        check_media("", body.media)
    return data if data or body.required else None


def parse_body(row: Row, data: bytes) -> Any:
    """Return the JSON value of a body within its schema; raise UsageError, RefusedError."""
    value = parse_json(data)
    row.check_body(value)
    return value


def check_media(given: str, known: tuple[str, ...]) -> None:
    """Raise HttpError (415) for a body that is not said to be of a known media type, in UTF-8."""
    name, _, parameters = given.partition(";")
    charset = parameters.replace(" ", "").lower()
    if name.strip().lower() not in known or charset not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise HttpError(415, "body", f"its type is {sanitise(given, 60) or 'not said'}", f"send {' or '.join(known)}",
                        {"Accept-Patch": ", ".join(known)} if len(known) > 1 else {})  # fmt: skip


def parse_json(data: bytes) -> Any:
    """Return a JSON value (RFC 8259); raise UsageError where it is none, repeats a key, or is too deep.

    One member must not mean one thing to who checks it and another to who uses it, so that a key stands once.
    """
    if data.count(b"{") + data.count(b"[") > MAXIMUM_DEPTH:
        _check_depth(data)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_make_object, parse_constant=_refuse_constant,
            parse_float=_parse_float, parse_int=_parse_integer,
        )  # fmt: skip
        if _ESCAPED_SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise UsageError("body", "not in UTF-8", "send JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UsageError("body", f"no JSON: {sanitise(str(error), 120)}", "send a JSON value") from None
    return value


def _check_depth(data: bytes) -> None:
    """Raise UsageError for brackets nested too deep; those in strings are text."""
    depth = 0
    for match in _BRACKETS.finditer(_STRINGS.sub(b"", data)):
        depth += 1 if match[0] in b"{[" else -1
        if depth > MAXIMUM_DEPTH:
            raise UsageError("body", f"nested deeper than {MAXIMUM_DEPTH}", "send something less deep")


def _parse_integer(text: str) -> int:
    value = int(text) if len(text) <= _LONGEST_INTEGER else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        msg = "a whole number is too large"
        raise ValueError(msg)
    return value


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        msg = "a key stands twice in an object"
        raise ValueError(msg)
    return made


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        msg = "a number is too large"
        raise ValueError(msg)
    return value


def compile_check(schema: Schema) -> Callable[[Any], None]:
    """Return what raises RefusedError for a JSON value outside a schema, naming the place."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - for writes alone

    validator = Draft202012Validator(dict(schema))

    def check(value: Any) -> None:
        error = next(iter(validator.iter_errors(value)), None)
        if error is None:
            return
        error = _innermost(error)
        where = ".".join(str(part) for part in error.absolute_path)
        # The message quotes the value, and what is never shown is not shown here either.
        message = "it is not as it is to be" if error.schema.get("writeOnly") else hide_secrets(error.message)
        why = f"{where}: {message}" if where else message
        raise RefusedError("body", sanitise(why, _LONGEST_MESSAGE), "see /openapi.json")

    return check


def _innermost(error: Any) -> Any:
    """Return the fault inside a failed alternative that lies deepest: what somebody most likely meant."""
    while error.context:
        error = max(error.context, key=lambda each: len(each.absolute_path))
    return error
