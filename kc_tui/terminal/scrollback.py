"""The lines that have left the top of the screen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kc_tui.terminal.style import Row

SCROLLBACK_LINES = 10_000
_RUN_COST = 64
_COST_LIMIT = 8_000_000
"""A bound on memory: characters plus 64 for each run. Ordinary text reaches the number of lines first; a guest that
colours every cell in its own colour reaches this first."""


class Scrollback:
    """The latest lines, the oldest of them first; it counts those it was ever given."""

    def __init__(self) -> None:
        self.total = 0
        self._rows: deque[Row] = deque()
        self._cost = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Row:
        return self._rows[number]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def append(self, row: Row) -> None:
        """Add a line at the end; the oldest go when there are too many."""
        self.total += 1
        self._rows.append(row)
        self._cost += _cost(row)
        while len(self._rows) > SCROLLBACK_LINES or self._cost > _COST_LIMIT:
            self._cost -= _cost(self._rows.popleft())


def _cost(row: Row) -> int:
    return sum([len(text) + _RUN_COST for text, _ in row])
