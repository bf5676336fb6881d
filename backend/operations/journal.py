"""The journal: operations as documents, their leases, and who may write to them.

An operation is a document whose status is its journal. While it is unfinished it has a lease, a row apart: who works on
it, until when, under which fence, and whether it is to be cancelled. Whoever ends an operation removes the lease in the
same transaction, so "unfinished" and "has a lease" are one thing.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.errors import ConflictError, NotFoundError
from backend.model.documents import API_VERSION, Document, format_time
from backend.model.kinds import OPERATION
from backend.store.protocol import Store, Transaction

LEASE_SECONDS = 15.0
PRUNED_AT_ONCE = 20
ENDED = ("succeeded", "failed", "cancelled")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _start_ticks(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return ""
    # The command's name may hold spaces and brackets; the fields after the last bracket are plain (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


class Owner:
    """This process as the holder of leases; told apart from an earlier one of the same pid by its start time."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self.host = f"{socket.gethostname()}/{_boot_id()}"
        self.pid = os.getpid()
        self.started = _start_ticks(self.pid)

    def claim(self, fence: int) -> dict[str, Any]:
        """Return the fields of a lease that is ours."""
        return {
            "owner": self.token,
            "host": self.host,
            "pid": self.pid,
            "started": self.started,
            "fence": fence,
            "expiresAt": time.time() + LEASE_SECONDS,
        }

    def may_take(self, lease: dict[str, Any]) -> bool:
        """Return whether a lease is free: nobody's, its process is gone from this host, or it ran out."""
        if not lease.get("owner") or lease["owner"] == self.token:
            return True
        if lease.get("host") == self.host and _start_ticks(int(lease["pid"])) != lease.get("started"):
            return True
        return bool(lease.get("expiresAt", 0) < time.time())


def new_operation(operation_type: str, target: Document, parameters: dict[str, Any], by: str) -> Document:
    """Return the body of a new operation on `target`, whose metadata it has: who may see one may see the other."""
    uid = str(uuid.uuid4())
    now = format_time()
    return {
        "apiVersion": API_VERSION,
        "kind": OPERATION.name,
        "name": name_operation(uid),
        "uid": uid,
        "metadata": target.get("metadata", {}),
        "spec": {
            "type": operation_type,
            "target": {
                "kind": target["kind"],
                "name": target["name"],
                "uid": target["uid"],
                "version": target.get("version", 0),
            },
            "parameters": parameters,
        },
        "createdAt": now,
        "updatedAt": now,
        "updatedBy": by,
    }


def name_operation(uid: str) -> str:
    """Return the name of an operation, which follows from its uid."""
    return f"op-{uid.replace('-', '')[:10]}"


def check_idle(transaction: Transaction, store: Store, target: Document) -> None:
    """Raise ConflictError while an operation works on `target` (anything with kind, name and uid)."""
    for uid, lease in store.leases():
        if lease.get("target") != target["uid"]:
            continue
        other = transaction.get(OPERATION.name, uid)
        if other is None or transaction.get_lease(uid) is None:
            continue
        raise ConflictError(
            f"{target['kind']} {target['name']}",
            f"{other['name']} ({other['spec']['type']}) is at work on it",
            f"wait for it, or end it with kc op cancel {other['name']}",
            operation=other["name"],
        )


def begin(transaction: Transaction, store: Store, operation: Document, owner: Owner | None) -> Document:
    """Write a new operation and its lease (free without an owner).

    Raises ConflictError while another operation works on the same target.
    """
    target = operation["spec"]["target"]
    check_idle(transaction, store, target)
    written = transaction.put(operation)
    status = {**operation.get("status", {}), "state": "queued", "percent": 0, "steps": [], "queuedAt": format_time()}
    transaction.put_status(OPERATION.name, operation["uid"], status)
    claim = owner.claim(0) if owner is not None else {"fence": 0}
    transaction.put_lease(operation["uid"], {"target": target["uid"], **claim})
    return {**written, "status": status}


def take(store: Store, owner: Owner, uid: str) -> dict[str, Any]:
    """Take the lease of an operation and return it; raise ConflictError where another holds it or it ended."""
    with store.transaction() as transaction:
        lease = transaction.get_lease(uid)
        if lease is None:
            raise ConflictError("operation", "it has ended")
        if not owner.may_take(lease):
            raise ConflictError("operation", "another process works on it")
        taken = {**lease, **owner.claim(int(lease.get("fence", 0)) + 1)}
        transaction.put_lease(uid, taken)
        return taken


def check_fence(transaction: Transaction, owner: Owner, uid: str, fence: int) -> dict[str, Any]:
    """Return our lease; raise ConflictError where another process has taken it since."""
    lease = transaction.get_lease(uid)
    if lease is None or lease.get("owner") != owner.token or lease.get("fence") != fence:
        raise ConflictError("operation", "another process has taken it over")
    return lease


def renew(store: Store, owner: Owner, fences: Mapping[str, int | None]) -> tuple[list[str], list[str]]:
    """Extend our leases, by operation with its fence; None: it waits for its turn, under whatever fence it has.

    Returns the operations that are to be cancelled, and those that are not ours any more or have ended.
    """
    cancelled: list[str] = []
    lost: list[str] = []
    with store.transaction() as transaction:
        for uid, fence in fences.items():
            lease = transaction.get_lease(uid)
            if lease is None or lease.get("owner") != owner.token or fence not in (None, lease.get("fence")):
                lost.append(uid)
                continue
            transaction.put_lease(uid, {**lease, **owner.claim(int(lease.get("fence", 0)))})
            if lease.get("cancel"):
                cancelled.append(uid)
    return cancelled, lost


def release(store: Store, owner: Owner, uid: str, fence: int) -> None:
    """Give our lease up without an end, for another process to go on."""
    with store.transaction() as transaction:
        lease = check_fence(transaction, owner, uid, fence)
        transaction.put_lease(uid, {**lease, "owner": "", "fence": fence})


def request_cancel(store: Store, name: str, witness: Callable[[Document], None] | None = None) -> Document:
    """Mark an operation to be cancelled and return it; raise NotFoundError, and ConflictError where it has ended.

    `witness` is told of the operation before it is marked, and prevents that by raising.
    """
    with store.transaction() as transaction:
        operation = transaction.find(OPERATION.name, name)
        if operation is None:
            raise NotFoundError(f"operation {name}", "no such operation", "see kc op list")
        lease = transaction.get_lease(operation["uid"])
        if lease is None:
            state = operation.get("status", {}).get("state", "ended")
            raise ConflictError(f"operation {name}", f"it has {state} already")
        if witness is not None:
            witness(operation)
        transaction.put_lease(operation["uid"], {**lease, "cancel": True})
        return operation


def prune(store: Store, keep_days: float, limit: int = PRUNED_AT_ONCE) -> int:
    """Delete operations that ended longer ago than is kept, a few at a time, and return how many; 0 days: none."""
    if not keep_days:
        return 0
    from backend.model.selectors import parse  # noqa: PLC0415 - most processes write no operation

    before = format_time(time.time() - keep_days * 86400)
    over = store.list_documents(OPERATION.name, where=parse(f"status.endedAt<{before}"), limit=limit).items
    if not over:
        return 0
    with store.transaction() as transaction:
        gone = [operation["uid"] for operation in over if _is_over(transaction, operation["uid"], before)]
        for uid in gone:
            transaction.delete(OPERATION.name, uid)
    return len(gone)


def _is_over(transaction: Transaction, uid: str, before: str) -> bool:
    operation = transaction.get(OPERATION.name, uid)
    if operation is None or transaction.get_lease(uid) is not None:
        return False
    ended = operation.get("status", {}).get("endedAt", "")
    return bool(ended and ended < before)
