"""What export and import share: a store as JSON lines, and the count of them for whoever waits."""

from __future__ import annotations

import os
import sys
import time

from kc_tui.cli.session import Session

# A document has 700 KiB at most, and JSON may write a character as six; what is longer is no line of an export.
MAXIMUM_LINE_BYTES = 8 << 20
_SECONDS = 0.1


class Counter:
    """Says on a terminal how far it is, on one line that is rewritten."""

    def __init__(self, session: Session, title: str) -> None:
        """Begin with nothing; `title` says what is done."""
        self.count = 0
        self._title = title
        self._stream = sys.stderr
        self._shows = not session.quiet and self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._next = time.monotonic() + _SECONDS

    def add(self, done: int, whole: int) -> None:
        """Count one line; `done` of `whole` is how far it is, in any unit, 0 where that is not known."""
        self.count += 1
        if not self._shows or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS
        share = f"  {min(100, 100 * done // whole)} %" if whole else ""
        self._stream.write(f"\r\x1b[K{self._title}: {self.count} entries{share}")
        self._stream.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False
