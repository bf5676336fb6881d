"""Keys of callers: the same request with the same key is done once, however often and by whichever process it is made.

The operation of a keyed request has a uid that follows from the key. So one look tells whether the key was used, and
two processes cannot both use it. A request that makes no operation leaves one that has ended.
"""

from __future__ import annotations

import json
import time
import uuid
from hashlib import sha256
from typing import Any, NamedTuple

from backend.errors import ConflictError, RefusedError
from backend.model.documents import Document, format_time
from backend.model.kinds import OPERATION, find_kind
from backend.operations import journal
from backend.service import Accepted
from backend.store.protocol import Store, Transaction
from backend.text import sanitise

LONGEST = 200
_DAY = 86400.0


class Use(NamedTuple):
    """How a key is used: by which call, by whom, and for how many days that is remembered."""

    call: str
    by: str
    keep_days: float


def bind(key: str, call: str, asked: Any) -> str:
    """Return a key together with a digest of what is asked under it, as `journal.new_operation` takes it.

    Raises RefusedError for a key that is too long or not printable.
    """
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST or not key.isprintable():
        shown = sanitise(str(key)[:40], 40)
        raise RefusedError(
            f"idempotency key {shown!r}", f"it is not 1 to {LONGEST} printable characters", "take a uuid"
        )
    text = json.dumps([call, asked], sort_keys=True, separators=(",", ":"), default=str)
    return f"{key}\n{sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def recall(store: Store | Transaction, identity: str, bound: str, keep_days: float) -> Document | None:
    """Return the operation that an earlier use of the key made; None where there is none, or it is too long ago.

    Raises ConflictError where something else was asked under the key.
    """
    key, _, digest = bound.partition("\n")
    found = store.get(OPERATION.name, find_uid(identity, bound))
    if found is None or _is_over(found, keep_days):
        return None
    if found.get("status", {}).get("request") != digest:
        raise ConflictError(
            f"idempotency key {sanitise(key, 60)}",
            f"it was used for something else: {found['spec']['type']} of {found['spec']['target']['name']}",
            "take another key",
        )
    return found


def find_uid(identity: str, bound: str) -> str:
    """Return the uid of the operation that a key makes in a store of that identity."""
    return str(uuid.uuid5(uuid.UUID(identity), bound.partition("\n")[0]))


def claim(transaction: Transaction, store: Store, bound: str, operation: Document, keep_days: float) -> Document:
    """Return a new operation as the one of the key, in the transaction that uses the key.

    Raises ConflictError where the key was used.
    """
    if recall(transaction, store.identity, bound, keep_days) is not None:
        raise ConflictError("idempotency key", "the same request was just made with it", "make it again")
    key, _, digest = bound.partition("\n")
    uid = find_uid(store.identity, bound)
    if transaction.get(OPERATION.name, uid) is not None:
        transaction.delete(OPERATION.name, uid)
    spec = {**operation["spec"], "idempotencyKey": key}
    name = journal.name_operation(uid)
    return {**operation, "uid": uid, "name": name, "spec": spec, "status": {"request": digest}}


def record(transaction: Transaction, store: Store, bound: str, target: Document, use: Use) -> None:
    """Write down the use of a key by a request that makes no operation."""
    kind = find_kind(target["kind"])
    made = journal.new_operation(f"{kind.command}.{use.call}", target, {}, use.by)
    operation = claim(transaction, store, bound, made, use.keep_days)
    now = format_time()
    transaction.put(operation)
    status = {"state": "succeeded", "percent": 100, "steps": [], "startedAt": now, "endedAt": now}
    transaction.put_status(OPERATION.name, operation["uid"], {**operation["status"], **status})


def ensure_recorded(store: Store, bound: str, target: Document, use: Use) -> None:
    """Write down the use of a key where what it was used for had nothing to do and wrote nothing."""
    if recall(store, store.identity, bound, use.keep_days) is None:
        with store.transaction() as transaction:
            record(transaction, store, bound, target, use)


def repeat(store: Store, operation: Document) -> Accepted:
    """Return what the first use of a key gave: its object as it is now, or as it last was, and its operation."""
    target = operation["spec"]["target"]
    document = store.get(target["kind"], target["uid"])
    if document is None:
        kept = [version.document for version in store.history(target["kind"], target["uid"])]
        document = next((version for version in reversed(kept) if version is not None), None)
    has_worked = "queuedAt" in operation.get("status", {})
    return Accepted(document or {**target, "metadata": {}, "spec": {}, "status": {}}, operation if has_worked else None)


def _is_over(operation: Document, keep_days: float) -> bool:
    ended = operation.get("status", {}).get("endedAt", "")
    return bool(keep_days and ended and ended < format_time(time.time() - keep_days * _DAY))
