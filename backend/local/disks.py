"""The disks of a VM as its document changes: what is taken away goes to the trash, what comes back leaves it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.model.documents import Document, format_time
from backend.model.kinds import TRASH
from backend.operations import journal
from backend.operations.trash import discard_disk
from backend.operations.vm_disks import disks_in_trash

if TYPE_CHECKING:
    from backend.store.protocol import Store, Transaction


def settle_trash(
    store: Store, live: Document, body: Document, grace_hours: float
) -> Callable[[Transaction], None] | None:
    """Return what is to be written with the next version of a VM; None where its disks stay the same ones."""
    before, after = ({disk["id"] for disk in each["spec"]["disks"]} for each in (live, body))
    kept = disks_in_trash(store, live["uid"])
    back = [kept[name] for name in sorted(after & kept.keys())]
    gone = sorted(before - after)
    if not back and not gone:
        return None
    until = format_time(time.time() + grace_hours * 3600)

    def settle(transaction: Transaction) -> None:
        for entry in back:
            if transaction.get(TRASH.name, entry["uid"]) is not None:
                # Somebody may be about to delete it for good.
                journal.check_idle(transaction, store, entry)
                transaction.delete(TRASH.name, entry["uid"], by=body["updatedBy"], message="taken back")
        for name in gone:
            discard_disk(transaction, live, name, by=body["updatedBy"], until=until)

    return settle
