"""A serial console over a connection of its own.

The stream does not block: libvirt's event thread moves its bytes. A blocking read stops for ever as soon as another
thread writes to the same stream.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

import libvirt

from backend.errors import ConflictError, KCError, TimedOutError
from backend.hypervisor.domains import Domains
from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.link import Link

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 1.5
WRITE_SECONDS = 5.0
CHUNK_BYTES = 64 * 1024
# Beyond it the guest's output waits in the host until somebody reads.
BUFFER_BYTES = 1 << 20
_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_WRITABLE = libvirt.VIR_STREAM_EVENT_WRITABLE
_ENDING = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def open_console(link: Link, domains: Domains, uid: str) -> SerialConsole:
    """Open a running domain's first serial console, taking it from whoever reads it now; raise ConflictError."""
    connection = link.open_stream_connection(domains.name(uid))

    def attach() -> libvirt.virStream:
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            domains.require(connection, uid).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID) and not is_lost(error):
                raise ConflictError(
                    domains.name(uid), "it does not run and has no console", "start it first"
                ) from error
            raise
        return stream

    try:
        return SerialConsole(link, connection, link.call_on_stream(domains.name(uid), attach, OPEN_SECONDS))
    except BaseException:
        link.close_stream_connection(connection)
        raise


class SerialConsole:
    """Bytes both ways between a guest's serial line and one reader."""

    def __init__(self, link: Link, connection: libvirt.virConnect, stream: libvirt.virStream) -> None:
        self._link = link
        self._connection = connection
        self._stream = stream
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._has_ended = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._events = _READABLE | _ENDING
        stream.eventAddCallback(self._events, self._on_event, None)

    def read(self, timeout: float) -> bytes | None:
        """Return what has come, b"" at the end, None when `timeout` seconds brought nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._has_ended, timeout)
            if not self._chunks:
                return b"" if self._has_ended else None
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            was_paused, self._is_paused = self._is_paused, False
        if was_paused:
            self._listen(self._events)
        return data

    def write(self, data: bytes) -> None:
        """Send keys to the guest; raise ConflictError once the console has ended, TimedOutError where none is taken."""
        ends = time.monotonic() + WRITE_SECONDS
        with self._writing:
            while data:
                if self._has_ended:
                    raise ConflictError("console", "it has ended", "open it again")
                sent = self._send(data)
                data = data[sent:]
                if sent == 0:
                    if time.monotonic() > ends:
                        raise TimedOutError("console", "the guest takes no keys", "try again")
                    time.sleep(0.01)  # the event thread is moving what was sent before

    def close(self) -> None:
        """End the stream and wake a reader; a second call does nothing."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            had_ended, self._has_ended = self._has_ended, True
            self._changed.notify_all()
        with contextlib.suppress(KCError):
            self._link.call_on_stream("console", lambda: self._let_go(abort=not had_ended), CLOSE_SECONDS)
        self._link.close_stream_connection(self._connection)

    def _send(self, data: bytes) -> int:
        try:
            return max(self._stream.send(data), 0)
        except libvirt.libvirtError:
            self._end()
            return 0

    def _let_go(self, *, abort: bool) -> None:
        for function in (self._stream.eventRemoveCallback, *([self._stream.abort] if abort else [])):
            with contextlib.suppress(libvirt.libvirtError):
                function()

    def _listen(self, events: int) -> None:
        # The stream may have ended meanwhile; then nobody listens any more.
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.eventUpdateCallback(events)

    def _end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _on_event(self, stream: libvirt.virStream, events: int, _opaque: object) -> None:
        """Take what has come; runs on the event thread."""
        try:
            while self._wants_more():
                data = stream.recv(CHUNK_BYTES)
                if isinstance(data, int):
                    break
                if not data:
                    self._stop(stream)
                    return
                with self._changed:
                    self._chunks.append(data)
                    self._size += len(data)
                    self._changed.notify_all()
        except libvirt.libvirtError:
            # The domain went off, the daemon went away, or another reader took the console.
            self._stop(stream)
            return
        if events & _ENDING and not events & _READABLE:
            self._stop(stream)

    def _wants_more(self) -> bool:
        with self._changed:
            if self._is_closed:
                return False
            self._is_paused = self._size >= BUFFER_BYTES
            if not self._is_paused:
                return True
        self._listen(_ENDING)
        return False

    def _stop(self, stream: libvirt.virStream) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            stream.eventRemoveCallback()
        self._end()
