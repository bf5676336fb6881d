"""What `kc network show` says of a network: how it is and what is wrong, what it is to be, who is on it."""

from __future__ import annotations

from collections.abc import Sequence

from backend.model.addressing import FAMILIES
from backend.model.documents import Document
from kc_tui.cli.columns import describe_network_state
from kc_tui.state.network_facts import Facts, describe_facts, join_words

_COUNTABLE = 1 << 32


def describe_network(document: Document) -> Facts:
    """Yield all about a network."""
    spec, status = document["spec"], document.get("status", {})
    if status:
        reason = f" ({status['reason']})" if status.get("reason") else ""
        yield "state", f"{describe_network_state(document).text}{reason}"
    for problem in status.get("problems") or ():
        yield "problem", join_words([problem.get("message", ""), problem.get("hint", "")], ". ")
    yield from describe_facts(document)
    if spec.get("description"):
        yield "description", spec["description"]
    yield from _describe_use(status)


def _describe_use(status: Document) -> Facts:
    """Yield who is on a network: VMs, addresses with their owners, leases, and what is free."""
    users = status.get("vms")
    if isinstance(users, list):
        yield "vms", ", ".join(map(str, users)) or "none"
    fields = ("address", "owner", "source")
    rows = [tuple(str(entry.get(field, "")) for field in fields) for entry in status.get("addresses") or ()]
    if rows:
        yield "in use", _columns(rows)
    rows = [_show_lease(entry) for entry in status.get("leases") or ()]
    if rows:
        yield "leases", _columns(rows)
    free = status.get("free") or {}
    counts = [f"{_count(free[family])} {family}" for family in FAMILIES if isinstance(free.get(family), int)]
    if counts:
        yield "free", ", ".join(counts)


def _count(number: int) -> str:
    """Return a figure that one can read; nobody reads all the digits of an IPv6 subnet's."""
    return f"{number:,}" if number < _COUNTABLE else f"about 2^{(number - 1).bit_length()}"


def _show_lease(lease: Document) -> tuple[str, ...]:
    owner = "/".join(str(lease[field]) for field in ("vm", "nic") if lease.get(field))
    fields = (lease.get("address"), lease.get("mac"), lease.get("hostname"), f"VM {owner}" if owner else "")
    return tuple(str(field or "") for field in fields)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines whose parts stand below each other."""
    from kc_tui.cli.table import Column, render  # noqa: PLC0415 - most networks need none

    count = max(map(len, rows))
    filled = [(*row, *[""] * (count - len(row))) for row in rows]
    return "\n".join(render([Column("")] * count, filled)[1:])
