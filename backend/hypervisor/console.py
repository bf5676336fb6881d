"""A serial console over a connection of its own.

The stream does not block: libvirt's event thread brings what the guest says, and lane threads send what is typed. A
blocking read would stop for ever as soon as something is written beside it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

import libvirt

from backend.errors import ConflictError, KCError, TimedOutError
from backend.hypervisor.connection import Call
from backend.hypervisor.domains import Domains
from backend.hypervisor.errors import is_code
from backend.hypervisor.link import Link

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 1.5
WRITE_SECONDS = 5.0
PAUSE_SECONDS = 0.01
READ_BYTES = 64 * 1024
# Small enough that a guest that does not read makes itself felt, and the socket does not fill.
WRITE_BYTES = 4096
# Beyond it the guest's output waits in the host until somebody reads.
BUFFER_BYTES = 1 << 20
_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_ENDING = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def open_console(link: Link, domains: Domains, uid: str) -> SerialConsole:
    """Open a running domain's first serial console, taking it from whoever reads it now; raise ConflictError."""
    return attach_console(link, domains.name(uid), lambda raw: domains.require(raw, uid), OPEN_SECONDS)


def attach_console(link: Link, what: str, find: Call[libvirt.virDomain], deadline: float) -> SerialConsole:
    """Return the console of the domain that `find` gives, on a connection that lives as long as the console."""
    console = SerialConsole(link, what)
    try:
        console.attach(find, deadline)
    except BaseException:
        console.close()
        raise
    return console


class SerialConsole:
    """Bytes both ways between a guest's serial line and one reader."""

    def __init__(self, link: Link, what: str) -> None:
        self._what = what
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._has_ended = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._stream: libvirt.virStream | None = None
        # libvirt says nothing to a stream whose daemon has died; the connection hears of it.
        self._channel = link.open_channel(what, self._end)

    def attach(self, find: Call[libvirt.virDomain], deadline: float) -> None:
        """Open the stream; raise ConflictError for a domain that is off."""

        def attach(raw: libvirt.virConnect) -> libvirt.virStream:
            stream = raw.newStream(libvirt.VIR_STREAM_NONBLOCK)
            domain = find(raw)
            try:
                domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID):
                    raise ConflictError(self._what, "it is off and has no console", "start it first") from error
                raise
            stream.eventAddCallback(_READABLE | _ENDING, self._on_event, None)
            return stream

        self._stream = self._channel.call(self._what, attach, deadline)

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
            self._listen(_READABLE | _ENDING)
        return data

    def write(self, data: bytes) -> None:
        """Send keys to the guest; raise ConflictError once the console has ended, TimedOutError where none is taken."""
        ends = time.monotonic() + WRITE_SECONDS
        with self._writing:
            while data:
                if self._has_ended:
                    raise ConflictError(self._what, "its console has ended", "open it again")
                sent = self._send(data[:WRITE_BYTES])
                if sent:
                    data = data[sent:]
                elif time.monotonic() > ends:
                    raise TimedOutError(self._what, "the guest takes no keys", "try again")
                else:
                    time.sleep(PAUSE_SECONDS)  # the daemon has not yet taken what was sent before

    def close(self) -> None:
        """End the stream and wake a reader; a second call does nothing."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            had_ended, self._has_ended = self._has_ended, True
            self._changed.notify_all()
        with contextlib.suppress(KCError):
            self._channel.call(self._what, lambda _: self._let_go(abort=not had_ended), CLOSE_SECONDS)
        self._channel.close()

    def _send(self, data: bytes) -> int:
        stream = self._stream
        if stream is None:
            return 0
        try:
            return max(self._channel.call(self._what, lambda _: stream.send(data), WRITE_SECONDS), 0)
        except KCError:
            self._end()
            raise

    def _let_go(self, *, abort: bool) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        for function in (stream.eventRemoveCallback, *([stream.abort] if abort else [])):
            with contextlib.suppress(libvirt.libvirtError):
                function()
        # libvirt's client never gives back what it was given with the callback: the stream, and with it the connection,
        # which would stay open. So the stream is freed by hand.
        stream.__del__()

    def _listen(self, events: int) -> None:
        # The stream may have ended meanwhile; then nobody listens any more.
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(libvirt.libvirtError):
                stream.eventUpdateCallback(events)

    def _end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _on_event(self, stream: libvirt.virStream, events: int, _opaque: object) -> None:
        """Take what has come; runs on the event thread."""
        try:
            while self._wants_more():
                data = stream.recv(READ_BYTES)
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
