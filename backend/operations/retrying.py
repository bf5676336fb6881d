"""What is tried again by itself, how often, and when."""

from __future__ import annotations

import random
import time

from backend.errors import KCError, UnreachableError

ATTEMPTS = 5
FIRST_SECONDS = 0.5
LONGEST_SECONDS = 8.0
UNREACHABLE_SECONDS = 5.0
"""A host that is away for longer is not waited for by a step: its operation is parked."""
PARKED_SECONDS = 15.0


def choose_delay(failures: int, longest: float = LONGEST_SECONDS) -> float:
    """Return how long to wait after so many failures: twice as long each time, and never two processes in step."""
    longest_now: float = min(longest, FIRST_SECONDS * 2.0 ** (failures - 1))
    return longest_now * random.uniform(0.5, 1.0)  # noqa: S311 - nothing is secret about it


class Attempts:
    """The attempts at one step in this process.

    What is tried again: an error that says of itself that it is `transient`, five times; a host that does not answer,
    for five seconds.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._failures = 0

    def next_delay(self, error: KCError) -> float | None:
        """Return how long to wait before the next attempt; None where there is to be none."""
        self._failures += 1
        if isinstance(error, UnreachableError):
            is_over = time.monotonic() - self._began >= UNREACHABLE_SECONDS
        else:
            is_over = not error.is_transient or self._failures >= ATTEMPTS
        return None if is_over else choose_delay(self._failures)
