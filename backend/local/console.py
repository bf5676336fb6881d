"""A VM's serial console: what it said so far, then what it says now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.errors import ConflictError
from backend.hypervisor.protocol import Hypervisor
from backend.model.documents import Document
from backend.operations.domain_plan import console_volume
from backend.service import ConsoleStream

if TYPE_CHECKING:
    from pathlib import Path

REPLAY_BYTES = 64 * 1024
GAP = b"\r\n[KC: what was said meanwhile is left out here; the log has it]\r\n"
# QEMU looks once a second whether somebody reads its console; until then what the guest says is in the log alone.
SETTLE_SECONDS = 1.5
POLL_SECONDS = 0.1
# So much of what came last tells where one is in what the console said.
_TAIL_BYTES = 1024


def read_log(hypervisor: Hypervisor, document: Document, limit_bytes: int) -> bytes:
    """Return the last bytes of a VM's console log; b"" where it has never said anything."""
    return hypervisor.read_log(console_volume(document["uid"]), limit_bytes)


def open_console(hypervisor: Hypervisor, document: Document, folder: Path) -> ConsoleStream:
    """Open the console of a running VM for one more viewer, who meets the others in a folder of the user's own.

    Raises ConflictError for a VM that is off.
    """
    from backend.local.console_sharing import MeetingPoint, SharedConsole  # noqa: PLC0415 - reading a log needs none

    name, uid = document["name"], document["uid"]

    def open_stream(seen: bytes) -> ConsoleStream:
        observed = hypervisor.observe(uid)
        if observed is None or observed.power not in ("running", "paused"):
            state = observed.power if observed is not None else "absent"
            raise ConflictError(f"VM {name}", f"it is {state} and has no console", f"kc vm start {name}")
        return ReplayedConsole(
            hypervisor.console(uid), lambda: read_log(hypervisor, document, REPLAY_BYTES), seen
        )  # fmt: skip

    return SharedConsole(f"console of VM {name}", MeetingPoint(folder, uid), open_stream)


class ReplayedConsole:
    """A stream that follows the log until the stream itself has all that is said; what stands in both is given once.

    `seen` is what the reader has been given last by an earlier stream of the same console; it is not given again.
    """

    def __init__(self, stream: ConsoleStream, read_whole: Callable[[], bytes], seen: bytes = b"") -> None:
        self._stream = stream
        self._read_log = read_whole
        self._seen = seen
        self._held = b""
        self._has_looked = False
        self._has_joined = self._has_ended = False
        self._settles = time.monotonic() + SETTLE_SECONDS

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes; those of the log come first."""
        ends = time.monotonic() + timeout
        while not self._has_joined:
            if not self._has_looked:
                self._has_looked = True
            else:
                self._gather(min(POLL_SECONDS, max(0.0, ends - time.monotonic())))
            if self._held or self._has_ended or time.monotonic() >= self._settles:
                data = self._join()
            else:
                data = self._take(self._read_log())
            if data:
                return data
            if time.monotonic() >= ends:
                return None
        if self._has_ended:
            return b""
        return self._stream.read(max(0.0, ends - time.monotonic()))

    def write(self, data: bytes) -> None:
        """Send keys to the guest."""
        self._stream.write(data)

    def close(self) -> None:
        """End the stream."""
        self._stream.close()

    def _join(self) -> bytes:
        """Return what the log still has and what the stream has beyond it; from here on the stream has everything."""
        self._has_joined = True
        # The log may be a moment behind the stream when it is read; afterwards the stream must not be behind the log.
        self._gather(POLL_SECONDS)
        logged = self._take(self._read_log())
        self._gather(POLL_SECONDS)
        held, self._held = self._held, b""
        return logged + find_rest(self._seen, held)

    def _gather(self, seconds: float) -> None:
        """Hold back what the stream gives for some time."""
        ends = time.monotonic() + seconds
        while not self._has_ended:
            data = self._stream.read(max(0.0, ends - time.monotonic()))
            if data is not None:
                self._held += data
                self._has_ended = not data
            if time.monotonic() >= ends:
                return

    def _take(self, log: bytes) -> bytes:
        rest = find_rest(self._seen, log)
        self._seen = (self._seen + rest)[-REPLAY_BYTES:]
        return rest


def find_rest(seen: bytes, more: bytes) -> bytes:
    """Return what `more` says beyond `seen`: two pieces of one text, the second beginning and ending no earlier.

    All of `more` where they do not meet.
    """
    return more[find_meeting(seen, more) :]


def continue_with(seen: bytes, more: bytes) -> bytes:
    """Return what `more` says beyond `seen`, after a note where something between the two is missing."""
    meeting = find_meeting(seen, more)
    # A few bytes may be the same by chance.
    is_sure = not seen or meeting >= min(len(seen), len(more), _TAIL_BYTES)
    return more[meeting:] if is_sure else GAP + more


def find_meeting(seen: bytes, more: bytes) -> int:
    """Return how much of `more` stands in `seen` already; 0 where they do not meet."""
    if more.startswith(seen):
        return len(seen)
    tail = seen[-_TAIL_BYTES:]
    at = more.rfind(tail) if len(tail) == _TAIL_BYTES else -1
    return at + len(tail) if at >= 0 else _measure_overlap(seen, more)


def _measure_overlap(before: bytes, after: bytes) -> int:
    """Return how many bytes at the start of `after` repeat the end of `before`, in time linear in both.

    By the failure function of Knuth, Morris and Pratt: a guest may say what makes the plain way slow.
    """
    size = min(len(before), len(after))
    pattern = after[:size]
    failure = [0] * size
    length = 0
    for index in range(1, size):
        while length and pattern[index] != pattern[length]:
            length = failure[length - 1]
        length += pattern[index] == pattern[length]
        failure[index] = length
    length = 0
    for byte in before[-size:] if size else b"":
        if length == size:
            length = failure[length - 1]
        while length and byte != pattern[length]:
            length = failure[length - 1]
        length += byte == pattern[length]
    return length
