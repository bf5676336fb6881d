"""For how long nobody has pressed a key, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

WARNING_SECONDS: Final = 60.0
"""How long before the end it is told; with a shorter limit, half of that."""


class Presence(Enum):
    """What is to be done about somebody: nothing, a warning, the end."""

    HERE = "here"
    WARNED = "warned"
    AWAY = "away"


class Idleness:
    """Counts from the last key; `limit` are the seconds after which a session ends, 0 means never."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._last = clock()

    def touch(self) -> None:
        """Note a key."""
        self._last = self._clock()

    @property
    def warning(self) -> float:
        """For how many seconds before the end the warning stands."""
        return min(WARNING_SECONDS, self.limit / 2)

    def look(self) -> Presence:
        """Return what is to be done now."""
        idle = self._clock() - self._last
        if not self.limit or idle < self.limit - self.warning:
            return Presence.HERE
        return Presence.WARNED if idle < self.limit else Presence.AWAY

    def until_next(self) -> float:
        """Return the seconds until `look` may say something else, where no key comes; 0 where nothing is to come."""
        idle = self._clock() - self._last
        due = [at for at in (self.limit - self.warning, self.limit) if at > idle]
        return due[0] - idle if self.limit and due else 0.0

    def describe_warning(self) -> str:
        """Return what is told before the end."""
        return f"no key for a while: this session ends in {describe_span(self.warning)}; any key keeps it"

    def describe_end(self) -> str:
        """Return why a session has ended."""
        return f"no key was pressed for {describe_span(self.limit)}"


def describe_span(seconds: float) -> str:
    """Return a time for a sentence: `30 minutes`, `1 minute`, `90 seconds`."""
    count, unit = (round(seconds / 60), "minute") if seconds >= 60 and seconds % 60 == 0 else (round(seconds), "second")  # noqa: PLR2004 - seconds of a minute
    return f"{count} {unit}{'' if count == 1 else 's'}"
