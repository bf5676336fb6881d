"""What makes the table of live documents from the versions, where they come from elsewhere or the table is damaged."""

from __future__ import annotations

from backend.store.rows import STATUS

IS_NEWEST = (
    "NOT EXISTS (SELECT 1 FROM log AS later"
    " WHERE later.tbl = log.tbl AND later.id = log.id AND later.version > log.version)"
)
_CLEAR = "DELETE FROM head"
_FILL = (
    "INSERT OR IGNORE INTO head (tbl, id, name, revision) SELECT tbl, id, name, revision FROM log"  # noqa: S608
    f" WHERE body NOTNULL AND {IS_NEWEST} ORDER BY revision DESC"
)
_DROP_ORPHANS = (
    f"DELETE FROM head WHERE tbl GLOB '*{STATUS}' AND NOT EXISTS (SELECT 1 FROM head AS document"  # noqa: S608
    f" WHERE document.tbl = substr(head.tbl, 1, length(head.tbl) - {len(STATUS)}) AND document.id = head.id)"
)
_FORGET_ORPHANS = (
    f"DELETE FROM log WHERE tbl GLOB '*{STATUS}' AND NOT EXISTS (SELECT 1 FROM head"  # noqa: S608
    " WHERE head.tbl = log.tbl AND head.id = log.id)"
)
MAKE_HEAD = (_CLEAR, _FILL, _DROP_ORPHANS, _FORGET_ORPHANS)
"""A status goes with its document, whatever the versions say; of two that have one name the later one keeps it."""

LOST = (
    "SELECT tbl, id FROM log WHERE body NOTNULL AND NOT EXISTS (SELECT 1 FROM head"  # noqa: S608
    f" WHERE head.tbl = log.tbl AND head.id = log.id) AND {IS_NEWEST}"
)
"""What another one of the same name keeps from being listed."""
DISORDER = """
SELECT 1 FROM (
    SELECT revision, version, lag(revision) OVER rows AS older, lag(version) OVER rows AS before FROM log
    WINDOW rows AS (PARTITION BY tbl, id ORDER BY version)
) WHERE older > revision OR before != version - 1 LIMIT 1
"""
"""Anything at all, where a later version has an earlier revision or one in between is missing."""
