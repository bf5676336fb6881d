"""What a domain has used, as counters that only ever rise."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """Counters of one domain at `at` (seconds, monotonic clock, taken before the call); bytes and nanoseconds."""

    uid: str
    at: float
    power: str
    cpus: int = 0
    cpu_time_ns: int = 0
    memory_used_bytes: int = 0
    memory_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
