"""The requests and answers of etcd v3 in JSON (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]

# etcd takes 128 operations in one list (`--max-txn-ops`), counted along each path of nested lists: three levels of 40.
_GROUP = 40


class Pair(NamedTuple):
    """A key with its value, and etcd's own revision that made the key."""

    key: bytes
    value: bytes
    created: int


class Found(NamedTuple):
    """What one range found, how many there are in all, and whether there are more than were asked for."""

    pairs: list[Pair]
    total: int
    more: bool


class Answer(NamedTuple):
    """The answer to a transaction: etcd's own revision, which branch was taken, and what its ranges found."""

    revision: int
    succeeded: bool
    found: list[Found]


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def find_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with `prefix`, whose last byte is none of 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def get(key: bytes, *, revision: int = 0) -> Json:
    """Return the operation that reads one key."""
    return {"request_range": {"key": _text(key), **({"revision": revision} if revision else {})}}


def get_range(start: bytes, end: bytes, **options: Any) -> Json:
    """Return the operation that reads the keys from `start` to before `end`; options as etcd names them."""
    return {"request_range": {"key": _text(start), "range_end": _text(end), **options}}


def get_all(prefix: bytes, **options: Any) -> Json:
    """Return the operation that reads the keys that begin with `prefix`."""
    return get_range(prefix, find_end(prefix), **options)


def put(key: bytes, value: bytes, lease: int = 0) -> Json:
    """Return the operation that writes a key, bound to a lease where one is named."""
    return {"request_put": {"key": _text(key), "value": _text(value), **({"lease": lease} if lease else {})}}


def delete(key: bytes) -> Json:
    """Return the operation that deletes a key."""
    return {"request_delete_range": {"key": _text(key)}}


def delete_all(prefix: bytes) -> Json:
    """Return the operation that deletes the keys that begin with `prefix`."""
    return {"request_delete_range": {"key": _text(prefix), "range_end": _text(find_end(prefix))}}


def was_created(key: bytes, revision: int) -> Json:
    """Return the condition that a key was made by this revision of etcd's; 0: that it is not there."""
    return {"key": _text(key), "target": "CREATE", "result": "EQUAL", "create_revision": revision}


def transaction(success: Sequence[Json], failure: Sequence[Json] = (), compare: Sequence[Json] = ()) -> Json:
    """Return a transaction of any number of operations; etcd still refuses one of more than 1.5 MiB."""
    return {"compare": list(compare), "success": _pack(success), "failure": _pack(failure)}


def _pack(operations: Sequence[Json]) -> list[Json]:
    packed = list(operations)
    while len(packed) > _GROUP:
        groups = (packed[start : start + _GROUP] for start in range(0, len(packed), _GROUP))
        packed = [{"request_txn": {"success": group}} for group in groups]
    return packed


def read_answer(answer: Json) -> Answer:
    """Return what a transaction answered; the answers of writes are left out."""
    revision = int(answer.get("header", {}).get("revision", 0))
    return Answer(revision, bool(answer.get("succeeded")), list(_read_found(answer)))


def _read_found(answer: Json) -> Iterator[Found]:
    for response in answer.get("responses", ()):
        if "response_range" in response:
            found = response["response_range"]
            pairs = [_read_pair(pair) for pair in found.get("kvs", ())]
            yield Found(pairs, int(found.get("count", 0)), bool(found.get("more")))
        elif "response_txn" in response:
            yield from _read_found(response["response_txn"])


def _read_pair(pair: Json) -> Pair:
    return Pair(b64decode(pair["key"]), b64decode(pair.get("value", "")), int(pair["create_revision"]))


def watch(key: bytes, revision: int) -> Json:
    """Return the request that follows a key from a revision of etcd's on."""
    return {"create_request": {"key": _text(key), "start_revision": revision}}
