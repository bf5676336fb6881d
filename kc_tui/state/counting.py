"""How many VMs there are, and how they are, for the header."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from backend.model.documents import Document
from kc_tui.state.masthead import Masthead
from kc_tui.state.vms import find_drift

_TROUBLE: Final = frozenset({"crashed", "absent"})


def count_vms(vms: Sequence[Document] | None, busy: Collection[str], *, is_connecting: bool = False) -> Masthead:
    """Return the header's counts of KC's own VMs; `busy` are the uids of those that an operation works on.

    While KC `is_connecting`, stored states are no news: see `judge`.
    """
    if vms is None:
        return Masthead()
    total = running = changing = attention = 0
    for document in vms:
        status = document.get("status", {})
        if status.get("foreign"):
            continue
        total += 1
        power = status.get("power")
        if document.get("uid") in busy:
            changing += 1
        elif power == "running":
            running += 1
        elif power in _TROUBLE or (not is_connecting and not status.get("stale") and find_drift(document)):
            attention += 1
    return Masthead(total=total, running=running, changing=changing, attention=attention)
