"""The history of one object as values: its versions, the newest first, and what each changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from backend.model.changes import Change, compare_documents
from backend.model.documents import Document
from backend.service import Version
from backend.text import sanitise
from kc_tui.cleaning import clean_changes
from kc_tui.state.differences import count_changes, draw_changes, shorten_changes
from kc_tui.state.formatting import format_age
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line
from kc_tui.state.operations import clock_time, read_time
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Row, Run

COLUMNS: Final = (
    Column("version", "VERSION", 7, align=Align.RIGHT),
    Column("when", "WHEN", 5),
    Column("who", "WHO", 8, weight=1, widest=12),
    Column("what", "WHAT", 14, weight=9),
)


_DELETED: Final = "It was deleted."
_RESTORED: Final = "It was brought back."
_MADE: Final = "It was made."
_OLDEST: Final = "Earlier versions are kept no longer: this is all of it."
_WORDS: Final = {
    _DELETED: Run("deleted", Role.DANGER),
    _RESTORED: Run("restored", Role.OK),
    _MADE: Run("made", Role.MUTED),
    _OLDEST: Run("the oldest that is kept", Role.MUTED),
}


class Difference(NamedTuple):
    """From one version to another (`older` is None before the first): what changed, fit for a terminal.

    `remark` says what the changes do not: that the object was deleted, or that earlier versions are kept no longer.
    """

    older: Version | None
    newer: Version
    changes: list[Change]
    remark: str


class Timeline:
    """The kept versions of an object; `at` 0 is the newest.

    It holds the documents as they are, since two that differ may look alike once they are fit for a terminal; what it
    gives out has passed the gate.
    """

    def __init__(self, versions: Sequence[Version] = ()) -> None:
        self._versions = list(reversed(versions))
        self._places = {version.version: at for at, version in enumerate(self._versions)}

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def newest(self) -> int:
        """The number of the newest version; 0 where there is none."""
        return self._versions[0].version if self._versions else 0

    @property
    def is_deleted(self) -> bool:
        """Whether the newest version tells of the object's deletion."""
        return bool(self._versions) and self._versions[0].document is None

    def find(self, number: int) -> Version | None:
        """Return the version of that number."""
        at = self._places.get(number)
        return None if at is None else self._versions[at]

    def refuse_rollback(self, number: int) -> str:
        """Return why an object cannot go back to a version; empty where it can."""
        version = self.find(number)
        if version is None:
            return "there is no version selected"
        if self.is_deleted:
            return "it is deleted: restore it from the trash first"
        if version.document is None:
            return f"version {number} is its deletion: choose another"
        return f"version {number} is how it is now" if number == self.newest else ""

    def compare(self, number: int) -> Difference | None:
        """Return what a version changed: the difference to the one before it that was no deletion."""
        at = self._places.get(number)
        if at is None:
            return None
        newer = self._versions[at]
        before = at + 1
        while before < len(self) and self._versions[before].document is None:
            before += 1
        older = self._versions[before] if before < len(self) else None
        remark = ""
        if newer.document is None:
            remark = _DELETED
        elif before > at + 1:
            remark = _RESTORED
        elif older is None:
            remark = _MADE if number == 1 else _OLDEST
        return Difference(older, newer, _compare(older, newer), remark)

    def compare_two(self, first: int, second: int) -> Difference | None:
        """Return the difference between two versions, from the older to the newer."""
        older, newer = self.find(min(first, second)), self.find(max(first, second))
        if older is None or newer is None:
            return None
        remark = "One of them is its deletion." if None in (older.document, newer.document) else ""
        return Difference(older, newer, _compare(older, newer), remark)

    def build_row(self, at: int, now: float, glyphs: Glyphs) -> Row:
        """Return one version as the list shows it."""
        version = self._versions[at]
        difference = self.compare(version.version)
        what = summarise(difference) if difference is not None else ()
        moment = read_time(version.at)
        cells = (
            Cell(str(version.version), Role.STRONG if at == 0 else Role.TEXT),
            Cell(format_age(None if moment is None else max(0.0, now - moment), glyphs), Role.MUTED),
            Cell(sanitise(version.by, 60), Role.MUTED),
            Cell(what[0].text, what[0].role, what[1:]) if what else Cell(),
        )
        return Row(str(version.version), cells, cells, _mark_version(version, at, glyphs))

    def build_rows(self, start: int, end: int, now: float, glyphs: Glyphs) -> list[Row]:
        """Return the versions of some places as the list shows them."""
        return [self.build_row(at, now, glyphs) for at in range(start, min(end, len(self)))]


def _compare(older: Version | None, newer: Version) -> list[Change]:
    before: Document = (older.document if older is not None else None) or {}
    after: Document = newer.document or {}
    if older is None:
        # A first version is told without its name, which everybody knows.
        after = {key: value for key, value in after.items() if key != "name"}
    return clean_changes(compare_documents(before, after)) if newer.document is not None else []


def _mark_version(version: Version, at: int, glyphs: Glyphs) -> Cell:
    if version.document is None:
        return Cell(glyphs.failed, Role.DANGER)
    return Cell(glyphs.live, Role.OK) if at == 0 else Cell(glyphs.dot, Role.MUTED)


def summarise(difference: Difference) -> tuple[Run, ...]:
    """Return what a version was about in a few words: its message, and what changed."""
    runs: list[Run] = []
    if difference.remark in _WORDS:
        runs.append(_WORDS[difference.remark])
    if difference.older is not None and difference.changes:
        runs.append(Run(shorten_changes(difference.changes)))
    message = sanitise(difference.newer.message, 200)
    if message and message not in (run.text for run in runs):
        runs = [Run(message), *(Run(run.text, Role.MUTED) for run in runs)]
    spaced = [part for run in runs for part in (Run("  "), run)][1:]
    return tuple(spaced) or (Run("nothing changed", Role.MUTED),)


def name_versions(difference: Difference, glyphs: Glyphs) -> str:
    """Return which versions are compared: `version 3 → 4`."""
    older = difference.older
    newer = difference.newer.version
    return f"version {newer}" if older is None else f"version {older.version} {glyphs.arrow} {newer}"


def describe_author(difference: Difference) -> str:
    """Return when and by whom the newer version was written."""
    newer = difference.newer
    return f"{clock_time(newer.at)} by {sanitise(newer.by, 60)}"


def draw_difference(difference: Difference, width: int, glyphs: Glyphs) -> list[Line]:
    """Return a difference as it is read: which versions, how much changed, why, and what."""
    newer = difference.newer
    head = [Run(name_versions(difference, glyphs).capitalize(), Role.ACCENT), Run("   ")]
    if difference.remark:
        head.append(Run(difference.remark, Role.DANGER if newer.document is None else Role.MUTED))
    elif difference.changes or not difference.newer.message:
        head += count_changes(difference.changes, glyphs)
    lines: list[Line] = [tuple(head)]
    if newer.message:
        lines.append((Run(sanitise(newer.message, 400)),))
    if difference.changes:
        lines += [BLANK, *draw_changes(difference.changes, width, glyphs)]
    return lines
