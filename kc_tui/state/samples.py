"""From counters to figures: what a VM uses of CPUs, memory, disks and network, with a short history."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

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

    @property
    def disk_read_bytes(self) -> int:
        """What was read from its disks since it started."""

    @property
    def disk_written_bytes(self) -> int:
        """What was written to its disks since it started."""

    @property
    def received_bytes(self) -> int:
        """What came in through its NICs since it started."""

    @property
    def sent_bytes(self) -> int:
        """What went out through its NICs since it started."""


class Usage(NamedTuple):
    """What a VM uses: `cpu` as a share of all its CPUs (1.0 is all), memory in bytes; None where it is not known.

    The histories are oldest first and of one length: shares, bytes of memory (0: not told), and bytes a second.
    """

    cpu: float | None
    memory_bytes: int | None
    cpu_history: tuple[float, ...] = ()
    memory_history: tuple[float, ...] = ()
    read: tuple[float, ...] = ()
    written: tuple[float, ...] = ()
    received: tuple[float, ...] = ()
    sent: tuple[float, ...] = ()


_CHANNELS: Final = len(Usage._fields) - 2


class _Track:
    """One VM: its counters of the last sample, and a ring of figures, one block of `HISTORY` a channel.

    An array of small floats, as ten thousand VMs have one each.
    """

    __slots__ = ("_count", "_last", "_ring", "cpu", "memory")

    def __init__(self) -> None:
        self._last: Counters | None = None
        self._ring = array("f", bytes(4 * HISTORY * _CHANNELS))
        self._count = 0
        self.cpu: float | None = None
        self.memory: int | None = None

    def take(self, sample: Counters) -> None:
        """Take the next counters; those that went back belong to a guest that was started anew."""
        last, self._last = self._last, sample
        self.memory = sample.memory_used_bytes or None
        self.cpu = None
        passed = sample.at - last.at if last is not None else 0.0
        if last is None or passed <= 0 or sample.cpus < 1 or sample.cpu_time_ns < last.cpu_time_ns:
            return
        self.cpu = min(1.0, (sample.cpu_time_ns - last.cpu_time_ns) / _NANOSECONDS / passed / sample.cpus)
        figures = (
            self.cpu,
            sample.memory_used_bytes,
            max(0, sample.disk_read_bytes - last.disk_read_bytes) / passed,
            max(0, sample.disk_written_bytes - last.disk_written_bytes) / passed,
            max(0, sample.received_bytes - last.received_bytes) / passed,
            max(0, sample.sent_bytes - last.sent_bytes) / passed,
        )
        at = self._count % HISTORY
        self._count += 1
        for channel, figure in enumerate(figures):
            self._ring[channel * HISTORY + at] = figure

    def show(self) -> Usage:
        """Return what the samples said."""
        return Usage(self.cpu, self.memory, *(self._unroll(channel) for channel in range(_CHANNELS)))

    def _unroll(self, channel: int) -> tuple[float, ...]:
        block = self._ring[channel * HISTORY : (channel + 1) * HISTORY]
        at = self._count % HISTORY
        return tuple(block[:at]) if self._count < HISTORY else (*block[at:], *block[:at])


class UsageBook:
    """Keeps what the last samples said."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}

    def get(self, uid: str) -> Usage | None:
        """Return what a VM uses; None where no sample has told."""
        track = self._tracks.get(uid)
        return None if track is None else track.show()

    def take(self, samples: Iterable[Counters]) -> None:
        """Take one bulk sample; VMs that it does not have are forgotten."""
        tracks: dict[str, _Track] = {}
        for sample in samples:
            track = self._tracks.get(sample.uid) or _Track()
            track.take(sample)
            tracks[sample.uid] = track
        self._tracks = tracks
