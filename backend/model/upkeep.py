"""What is told of a store that was looked after."""

from __future__ import annotations

from typing import NamedTuple


class Compaction(NamedTuple):
    """What a compaction did: versions dropped, deleted documents forgotten, bytes on disk (0: not known)."""

    versions: int
    documents: int
    bytes_before: int = 0
    bytes_after: int = 0


class Fault(NamedTuple):
    """One thing that a check found wrong; what is derived from the versions can be `repaired`."""

    where: str
    what: str
    repaired: bool = False
