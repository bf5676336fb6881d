"""Where one is in a list: the cursor, which stays with its object, the marks, and the range being marked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from kc_tui.state.table import Row


class Selection:
    """The rows of a list with a cursor and marks upon them; keys of rows are unique.

    The cursor follows its row's key when rows come, go or move; when its row is gone it stays at the same place.
    Marks are kept by key and leave with their rows, so that no verb acts on what is not in the list.
    """

    def __init__(self) -> None:
        self.rows: tuple[Row, ...] = ()
        self.cursor = 0
        self._index: dict[str, int] = {}
        self._marks: set[str] = set()
        self._anchor: str | None = None

    @property
    def row(self) -> Row | None:
        """The row under the cursor; None in an empty list."""
        return self.rows[self.cursor] if self.rows else None

    @property
    def has_note(self) -> bool:
        """Whether a line of its own stands below the row under the cursor."""
        return self.row is not None and bool(self.row.note)

    @property
    def in_range(self) -> bool:
        """Whether moving the cursor marks what it passes."""
        return self._anchor is not None

    @property
    def marked(self) -> frozenset[str]:
        """The keys of all marked rows, those of the range included."""
        return frozenset(self._marks | self._range_keys())

    def find(self, key: str) -> int | None:
        """Return the index of the row of that key."""
        return self._index.get(key)

    def locate(self, line: int) -> tuple[int | None, bool]:
        """Return the index of the row on a line (None beyond the ends), and whether the line is its note."""
        below = self.cursor + 1
        if self.has_note and line >= below:
            if line == below:
                return self.cursor, True
            line -= 1
        return (line, False) if 0 <= line < len(self.rows) else (None, False)

    def identify(self, line: int) -> Hashable:
        """Return what tells a line from any that looks different; None where there is nothing."""
        index, is_note = self.locate(line)
        if index is None:
            return None
        row = self.rows[index]
        return row.key, row.version, is_note, index == self.cursor, self.is_marked(index)

    def show(self, rows: Sequence[Row]) -> None:
        """Take other rows; the cursor stays on its key."""
        key = self.rows[self.cursor].key if self.rows else None
        self.rows = tuple(rows)
        self._index = {row.key: index for index, row in enumerate(self.rows)}
        if len(self._index) != len(self.rows):
            raise ValueError("two rows have the same key")
        at = self._index.get(key, self.cursor) if key is not None else self.cursor
        self.cursor = max(0, min(at, len(self.rows) - 1))
        self._marks.intersection_update(self._index)
        if self._anchor not in self._index:
            self._anchor = None

    def replace(self, rows: Iterable[Row]) -> list[int]:
        """Put rows in the place of those with the same keys and return their indexes; unknown keys are passed over."""
        known = [(index, row) for row in rows if (index := self._index.get(row.key)) is not None]
        if known:
            changed = list(self.rows)
            for index, row in known:
                changed[index] = row
            self.rows = tuple(changed)
        return [index for index, _ in known]

    def move(self, index: int) -> bool:
        """Put the cursor on a row, the nearest there is; return whether it moved."""
        wanted = max(0, min(index, len(self.rows) - 1))
        moved = wanted != self.cursor
        self.cursor = wanted
        return moved

    def is_marked(self, index: int) -> bool:
        """Return whether the row at `index` is marked, or within the range."""
        if self.rows[index].key in self._marks:
            return True
        span = self._span()
        return span is not None and span[0] <= index <= span[1]

    def toggle_mark(self) -> None:
        """Mark the row under the cursor, or take its mark away; a range that is open is closed first."""
        if self._close_range() or not self.rows:
            return
        self._marks.symmetric_difference_update({self.rows[self.cursor].key})

    def toggle_range(self) -> None:
        """Start a range at the cursor, or mark what lies in the one that was started."""
        if not self._close_range() and self.rows:
            self._anchor = self.rows[self.cursor].key

    def invert_marks(self) -> None:
        """Mark what is not marked, and the other way round."""
        self._close_range()
        self._marks = set(self._index) - self._marks

    def mark(self, keys: Iterable[str]) -> None:
        """Mark these rows and no others."""
        self._anchor = None
        self._marks = set(keys) & set(self._index)

    def clear_marks(self) -> bool:
        """Take all marks and the range away; return whether there were any."""
        had = bool(self._marks) or self._anchor is not None
        self._marks.clear()
        self._anchor = None
        return had

    def _span(self) -> tuple[int, int] | None:
        start = None if self._anchor is None else self._index.get(self._anchor)
        return None if start is None else (min(start, self.cursor), max(start, self.cursor))

    def _range_keys(self) -> set[str]:
        span = self._span()
        return set() if span is None else {row.key for row in self.rows[span[0] : span[1] + 1]}

    def _close_range(self) -> bool:
        if self._anchor is None:
            return False
        self._marks |= self._range_keys()
        self._anchor = None
        return True
