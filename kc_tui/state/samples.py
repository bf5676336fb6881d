"""From counters to figures: how busy a VM's CPUs are and how much memory it uses, with a short history."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

HISTORY: Final = 30
"""Figures kept of each VM; at one every two seconds, the last minute."""
_NANOSECONDS: Final = 1e9


class Counters(Protocol):
    """The counters of one VM at one moment, as the hypervisor's bulk call gives them."""

    @property
    def uid(self) -> str:
        """Whose they are."""

    @property
    def at(self) -> float:
        """When they were read, in seconds of a clock that never goes back."""

    @property
    def cpus(self) -> int:
        """How many CPUs it has."""

    @property
    def cpu_time_ns(self) -> int:
        """CPU time used since it started."""

    @property
    def memory_used_bytes(self) -> int:
        """Memory that is in use; 0 where the guest does not tell."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a VM uses: `cpu` as a share of all its CPUs (1.0 is all), memory in bytes; None where it is not known."""

    cpu: float | None
    memory_bytes: int | None
    cpu_history: tuple[float, ...]


class _Track:
    __slots__ = ("at", "cpu_time", "history")

    def __init__(self) -> None:
        self.at = 0.0
        self.cpu_time = 0
        self.history: deque[float] = deque(maxlen=HISTORY)


class UsageBook:
    """Keeps what the last samples said."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._usages: dict[str, Usage] = {}

    def get(self, uid: str) -> Usage | None:
        """Return what a VM uses; None where no sample has told."""
        return self._usages.get(uid)

    def take(self, samples: Iterable[Counters]) -> None:
        """Take one bulk sample; VMs that it does not have are forgotten."""
        usages: dict[str, Usage] = {}
        tracks: dict[str, _Track] = {}
        for sample in samples:
            track = self._tracks.get(sample.uid) or _Track()
            share = self._share(track, sample)
            if share is not None:
                track.history.append(share)
            track.at, track.cpu_time = sample.at, sample.cpu_time_ns
            tracks[sample.uid] = track
            usages[sample.uid] = Usage(share, sample.memory_used_bytes or None, tuple(track.history))
        self._tracks, self._usages = tracks, usages

    @staticmethod
    def _share(track: _Track, sample: Counters) -> float | None:
        passed = sample.at - track.at
        used = sample.cpu_time_ns - track.cpu_time
        # A counter that went back belongs to a guest that was started anew.
        if not track.at or passed <= 0 or used < 0 or sample.cpus < 1:
            return None
        return min(1.0, used / _NANOSECONDS / passed / sample.cpus)
