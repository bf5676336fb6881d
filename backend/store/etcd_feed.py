"""The change feed of a store in an etcd: a range of its own log, and the versions that it points at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.errors import ConflictError, FailedError
from backend.store import etcd_requests as ask
from backend.store.etcd_cache import read_state
from backend.store.etcd_client import Client
from backend.store.etcd_faults import RevisionGoneError
from backend.store.etcd_keys import Keys, Pointer, read_entry, read_pointer
from backend.store.rows import STATUS, Change

_TRIES = 5


def read_changes(
    client: Client, keys: Keys, since: int, tables: Sequence[str], limit: int
) -> tuple[list[Change], int]:  # fmt: skip
    """Return the feed after a revision, of some tables or of all, and how far it was read; all from one moment.

    Raises ConflictError where `since` is below what is kept, or beyond what was ever written.
    """
    for _ in range(_TRIES):
        try:
            return _read(client, keys, since, tables, limit)
        except RevisionGoneError:
            continue  # from a newer moment
    raise FailedError(client.what, "etcd compacts its history faster than it can be read", "let it keep some minutes")


def _read(client: Client, keys: Keys, since: int, tables: Sequence[str], limit: int) -> tuple[list[Change], int]:
    moment = until = 0
    while True:
        options = {"revision": moment} if moment else {}
        log = ask.get_range(keys.log(since + 1), ask.find_end(keys.logs), limit=limit, **options)
        answer = client.run([ask.get_all(keys.meta), log])
        if not moment:
            moment = answer.revision
            until, floor, _ = read_state(client.what, keys, answer.found[0].pairs)
            if not floor <= since <= until:
                hint = "list again, and go on from the revision of that list"
                why = f"it cannot tell what changed after revision {since}"
                raise ConflictError(client.what, why, hint, compacted=True)
        pairs = answer.found[1].pairs
        pointers = [pointer for pair in pairs if (pointer := read_pointer(*pair[:2])).table in tables or not tables]
        found = list(_complete(client, keys, pointers, moment))
        if len(pairs) < limit:
            return found, until
        since = read_pointer(*pairs[-1][:2]).revision
        if found:
            return found, since


def _complete(client: Client, keys: Keys, pointers: Sequence[Pointer], moment: int) -> Iterator[Change]:
    """Yield the changes that pointers stand for; none for the status of what is gone."""
    wanted = {key: None for pointer in pointers for key in _list_keys(keys, pointer)}
    if not wanted:
        return
    answer = client.run([ask.get(key, revision=moment) for key in wanted])
    entries = {
        key: read_entry(found.pairs[0].value) for key, found in zip(wanted, answer.found, strict=True) if found.pairs
    }
    for pointer in pointers:
        first, second = (entries.get(key) for key in _list_keys(keys, pointer))
        kind = pointer.table.removesuffix(STATUS)
        event = "status" if kind != pointer.table else pointer.event
        if first:
            status = second.payload if second and event != "deleted" else None
            yield Change(pointer.revision, kind, event, (first.version, first.payload, status))


def _list_keys(keys: Keys, pointer: Pointer) -> tuple[bytes, bytes]:
    """Return the keys of what a change shows: a version and the status that goes with it."""
    kind = pointer.table.removesuffix(STATUS)
    status = keys.head(kind + STATUS, pointer.uid)
    if kind != pointer.table:
        return keys.head(kind, pointer.uid), status
    # A deletion shows the document as it last was; its status is gone.
    version = pointer.version - (pointer.event == "deleted")
    return keys.version(kind, pointer.uid, version), status
