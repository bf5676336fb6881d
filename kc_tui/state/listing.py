"""A list as values: its entries, which of them a filter lets through, and in which order they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from kc_tui.state.table import Row

_DIGITS: Final = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a list.

    `search` is what a filter without a selector looks through, in lower case; `sort_keys` has one key a column. `state`
    and `busy` are what its verbs are judged by.
    """

    uid: str
    name: str
    row: Row
    search: str
    sort_keys: Mapping[str, Any]
    state: str = ""
    busy: str = ""
    is_foreign: bool = False


EntryType = TypeVar("EntryType", bound=Entry)
Accepts = Callable[[Entry], bool]


def natural_key(text: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts figures in names as figures: `web-2` before `web-10`."""
    # Longer runs of digits are no figures that anyone counts by, and turning them into numbers costs dearly.
    return tuple(
        (int(part) if part.isdecimal() and len(part) <= 18 else -1, part)  # noqa: PLR2004 - what fits into 64 bits
        for part in _DIGITS.split(text.casefold())
        if part
    )


def accept_words(text: str) -> Accepts | None:
    """Return what lets entries through that have every word of `text` (with `!` before it: that have it not)."""
    words = text.casefold().split()
    if not words:
        return None
    wanted = [word for word in words if not word.startswith("!")]
    unwanted = [word[1:] for word in words if word.startswith("!") and len(word) > 1]

    def accepts(entry: Entry) -> bool:
        search = entry.search
        return all(word in search for word in wanted) and not any(word in search for word in unwanted)

    return accepts


class Listing(Generic[EntryType]):
    """The entries of one section; it sorts and filters again only where a change makes it needful."""

    def __init__(self) -> None:
        self._entries: dict[str, EntryType] = {}
        self._sorted: list[EntryType] = []
        self._ordered: list[EntryType] = []
        self._accepts: Accepts | None = None
        self._column = "name"
        self._reverse = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def shown(self) -> list[EntryType]:
        """The entries that the filter lets through, in their order."""
        return self._ordered

    @property
    def rows(self) -> list[Row]:
        """Their rows."""
        return [entry.row for entry in self._ordered]

    def get(self, uid: str) -> EntryType | None:
        """Return the entry of that uid, whether it is shown or not."""
        return self._entries.get(uid)

    def fill(self, entries: Iterable[EntryType]) -> None:
        """Take other entries in the place of all."""
        self._entries = {entry.uid: entry for entry in entries}
        self._arrange()

    def update(self, changed: Iterable[EntryType], gone: Iterable[str] = ()) -> list[Row] | None:
        """Take changed and new entries, and drop those that are gone.

        Returns the rows to put in the places of the old ones, or None where the list has to be shown anew.
        """
        places_moved = False
        rows: list[Row] = []
        for uid in gone:
            places_moved |= self._entries.pop(uid, None) is not None
        replaced: dict[str, EntryType] = {}
        for entry in changed:
            before = self._entries.get(entry.uid)
            self._entries[entry.uid] = entry
            replaced[entry.uid] = entry
            rows.append(entry.row)
            places_moved |= before is None or self._place(before) != self._place(entry)
        if places_moved:
            self._arrange()
            return None
        self._sorted = [replaced.get(entry.uid, entry) for entry in self._sorted]
        self._ordered = [replaced.get(entry.uid, entry) for entry in self._ordered]
        return rows

    def filter(self, accepts: Accepts | None) -> None:
        """Let only those entries through that `accepts` takes."""
        self._accepts = accepts
        self._choose()

    def sort(self, column: str, *, reverse: bool = False) -> None:
        """Order the entries by a column, those that are equal there by name."""
        self._column, self._reverse = column, reverse
        self._arrange()

    def _place(self, entry: EntryType) -> tuple[bool, Any, str]:
        accepted = self._accepts is None or self._accepts(entry)
        return accepted, entry.sort_keys.get(self._column), entry.name

    def _arrange(self) -> None:
        found = sorted(self._entries.values(), key=lambda entry: (entry.sort_keys["name"], entry.uid))
        column = self._column
        if column != "name" and all(column in entry.sort_keys for entry in found):
            found.sort(key=lambda entry: entry.sort_keys[column], reverse=self._reverse)
        elif self._reverse:
            found.reverse()
        self._sorted = found
        self._choose()

    def _choose(self) -> None:
        accepts = self._accepts
        self._ordered = self._sorted if accepts is None else [entry for entry in self._sorted if accepts(entry)]
