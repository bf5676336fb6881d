"""Documents to bytes and back.

The standard library's JSON starts faster, msgspec runs four times as fast: a process changes over once it has coded so
many documents that the import has paid for itself. Both write the same values, and both read what the other wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from backend.errors import FailedError, RefusedError
from backend.store.faults import describe

# The cap of one document on every engine: etcd takes 1.5 MiB a request, and a write carries the document twice.
MAXIMUM_BYTES = 700 * 1024
# Deeper ones could be written on a shallow stack and never be read again on a deep one.
MAXIMUM_DEPTH = 100
_SMALL_METADATA = 2048
# Some 10 µs saved a document against some 25 ms of import.
_DOCUMENTS_WORTH_AN_IMPORT = 2000


def _encode_plainly(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _decode_plainly(data: bytes) -> Any:
    return json.loads(data.decode())


class _Codec:
    def __init__(self) -> None:
        self.encode: Callable[[Any], bytes] = self._count(_encode_plainly)
        self.decode: Callable[[bytes], Any] = self._count(_decode_plainly)
        self._left = _DOCUMENTS_WORTH_AN_IMPORT

    def _count(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def counted(value: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                self.quicken()
            return function(value)

        return counted

    def quicken(self) -> None:
        import msgspec  # noqa: PLC0415 - only a process with much to code gains by it

        self.encode = msgspec.json.Encoder().encode
        self.decode = msgspec.json.Decoder().decode


_codec = _Codec()


def decode(data: bytes) -> Any:
    """Return the value of stored bytes; raise FailedError where they are damaged."""
    try:
        return _codec.decode(data)
    except (ValueError, RecursionError) as error:
        raise FailedError(
            "store", "a stored document cannot be read", "bring the store back from an export or a copy"
        ) from error


def encode(value: dict[str, Any], table: str, name: str) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a JSON object and the value that they will be read as.

    Raises RefusedError, naming the document, for anything that would not come back the same, is too deep or too large.
    """
    try:
        data = _codec.encode(value)
        copy = _codec.decode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise RefusedError(describe(table, name), "it holds what JSON cannot carry", "use JSON values only") from error
    if copy != value:
        raise RefusedError(describe(table, name), "it holds what JSON cannot carry", "use JSON values only")
    if len(data) > MAXIMUM_BYTES:
        why = f"{len(data) // 1024} KiB are too large for one document"
        raise RefusedError(describe(table, name), why, f"keep it below {MAXIMUM_BYTES // 1024} KiB")
    if data.count(b"[") + data.count(b"{") > MAXIMUM_DEPTH and measure_depth(copy) > MAXIMUM_DEPTH:
        raise RefusedError(describe(table, name), "it is nested too deeply", f"keep it below {MAXIMUM_DEPTH} levels")
    return data, copy


def encode_value(value: Any) -> bytes:
    """Return the bytes of a JSON value that was decoded here."""
    return _codec.encode(value)


def encode_metadata(document: dict[str, Any]) -> bytes | None:
    """Return the bytes of the metadata of a document that `encode` took; None where they are many."""
    data = _codec.encode(document.get("metadata", {}))
    return data if len(data) <= _SMALL_METADATA else None


def is_same(first: Any, second: Any) -> bool:
    """Return whether two JSON values are the same JSON: 1, 1.0 and true differ, the order of keys does not."""
    # Python's == is the cheap half of the answer; it takes 1 for true, so equal values are compared once more as text.
    if first != second:
        return False
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def measure_depth(value: Any) -> int:
    """Return how many levels of objects and lists a JSON value has."""
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
