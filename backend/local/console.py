"""A VM's serial console: what it said so far, then what it says now."""

from __future__ import annotations

from backend.errors import ConflictError
from backend.hypervisor.protocol import Hypervisor
from backend.model.documents import Document
from backend.operations.vms import console_volume
from backend.service import ConsoleStream

REPLAY_BYTES = 64 * 1024
OVERLAP_SECONDS = 0.2


def read_log(hypervisor: Hypervisor, document: Document, limit_bytes: int) -> bytes:
    """Return the last bytes of a VM's console log; b"" where it has never said anything."""
    return hypervisor.read_log(console_volume(document["uid"]), limit_bytes)


def open_console(hypervisor: Hypervisor, document: Document) -> ConsoleStream:
    """Open the console of a running VM; raise ConflictError for one that is off."""
    name, uid = document["name"], document["uid"]
    observed = hypervisor.observe(uid)
    if observed is None or observed.power not in ("running", "paused"):
        state = observed.power if observed is not None else "absent"
        raise ConflictError(f"VM {name}", f"it is {state} and has no console", f"kc vm start {name}")
    stream = hypervisor.console(uid)
    return ReplayedConsole(stream, read_log(hypervisor, document, REPLAY_BYTES))


class ReplayedConsole:
    """A stream whose first bytes come from the log; what stands in both is given once."""

    def __init__(self, stream: ConsoleStream, log: bytes) -> None:
        self._stream = stream
        self._log: bytes | None = log

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes; the log comes first."""
        if self._log is None:
            return self._stream.read(timeout)
        # The stream was opened before the log was read, so its first bytes may stand at the log's end already.
        log, self._log = self._log, None
        first = self._stream.read(OVERLAP_SECONDS) or b""
        joined = log + first[_overlap(log, first) :]
        return joined or self._stream.read(timeout)

    def write(self, data: bytes) -> None:
        """Send keys to the guest."""
        self._stream.write(data)

    def close(self) -> None:
        """End the stream."""
        self._stream.close()


def _overlap(before: bytes, after: bytes) -> int:
    """Return how many bytes at the start of `after` repeat the end of `before`."""
    for length in range(min(len(before), len(after)), 0, -1):
        if before.endswith(after[:length]):
            return length
    return 0
