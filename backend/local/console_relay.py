"""The one who has a console shows it to all who watch: the viewer of its own process, and others at a socket.

What goes over the socket to a viewer is frames of a letter, a length and so many bytes: `R` what was said last before
it came, `D` what is said now, `P` nothing, to show that the owner lives, `E` the console's end. What comes back are
keys.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from backend.errors import KCError
from backend.local.console import GAP, REPLAY_BYTES
from backend.service import ConsoleStream

HEADER = struct.Struct("!cI")
REPLAY, DATA, PING, END = b"R", b"D", b"P", b"E"
PING_SECONDS = 2.0
# A viewer that is so far behind is left behind where another one reads on; alone, it makes the guest wait.
LIMIT_BYTES = 1 << 20
_READ_SECONDS = 0.5
_KEY_BYTES = 4096
_KEYS_WAITING = 64
_MAXIMUM_GUESTS = 64

_log = logging.getLogger("kc.console")


class _Guest:
    """A viewer at the socket: what it is still to be sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pending = bytearray()
        self.is_gone = False

    def put(self, letter: bytes, data: bytes = b"") -> None:
        self.pending += HEADER.pack(letter, len(data)) + data


class Relay:
    """Reads a console for as long as somebody looks, and hands what is said to everyone.

    `history` is what its own viewer was given last. `leave` is called once the stream is closed, before the others
    hear of it, so that one of them can take over.
    """

    def __init__(
        self, stream: ConsoleStream, listener: socket.socket | None, history: bytes, leave: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._listener = listener
        self._leave = leave
        self._history = history
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_behind = self._has_ended = self._is_closing = False
        self._error: KCError | None = None
        self._guests: list[_Guest] = []
        self._keys: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._letting_go = threading.Lock()
        self._bell, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        works = (self._pump, self._serve, self._type) if listener is not None else (self._pump,)
        self._threads = [threading.Thread(target=work, name="kc-console", daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    # --- the viewer of this process
    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes, b"" at the end, None when `timeout` seconds brought nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._has_ended, timeout)
            if self._is_behind:
                self._is_behind = False
                data = GAP + self._history
            else:
                data = b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            self._changed.notify_all()
            if data:
                return data
            if self._error is not None:
                raise self._error
            return b"" if self._has_ended else None

    def write(self, data: bytes) -> None:
        """Send keys to the guest."""
        self._stream.write(data)

    def close(self) -> None:
        """Let go of the console; those at the socket may take it over. Whoever calls again waits until that is done."""
        with self._letting_go:
            if not self._is_closing:
                self._let_go()

    def _let_go(self) -> None:
        with self._changed:
            self._is_closing = self._has_ended = True
            self._changed.notify_all()
        self._ring()
        self._stream.close()
        for thread in self._threads:
            thread.join(_READ_SECONDS + 1.0)
        self._leave()
        self._dismiss()
        with self._changed:
            for end in (self._bell, self._rope):
                os.close(end)
            self._bell = self._rope = -1

    # --- from the guest to all
    def _pump(self) -> None:
        while not self._is_closing:
            with self._changed:
                if not self._changed.wait_for(lambda: self._is_closing or self._has_room(), _READ_SECONDS):
                    continue
            try:
                data = self._stream.read(_READ_SECONDS)
            except KCError as error:
                self._error, data = error, b""
            if data == b"":
                self._end()
                return
            if data:
                self._give(data)

    def _has_room(self) -> bool:
        return self._size < LIMIT_BYTES or any(len(guest.pending) < LIMIT_BYTES for guest in self._guests)

    def _give(self, data: bytes) -> None:
        with self._changed:
            self._history = (self._history + data)[-REPLAY_BYTES:]
            if self._size >= LIMIT_BYTES:
                self._chunks.clear()
                self._is_behind = True
            if not self._is_behind:
                self._size += len(data)
                self._chunks.append(data)
            for guest in self._guests:
                if len(guest.pending) < LIMIT_BYTES:
                    guest.put(DATA, data)
                else:
                    guest.is_gone = True  # it comes again, and is told what was said last
            self._changed.notify_all()
        self._ring()

    def _end(self) -> None:
        if self._is_closing:
            return
        with self._changed:
            for guest in self._guests:
                guest.put(END)
            self._has_ended = True
            self._changed.notify_all()
        self._ring()
        self._leave()  # the console that the VM has after its next start is another one

    def _ring(self) -> None:
        """Have the thread at the socket look."""
        with self._changed, suppress(BlockingIOError):
            if self._rope >= 0:
                os.write(self._rope, b"!")

    # --- those at the socket
    def _serve(self) -> None:
        listener = self._listener
        if listener is None:
            return
        pinged = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._is_closing:
                for key, events in selector.select(PING_SECONDS):
                    if key.fileobj is listener:
                        self._admit(selector, listener)
                    elif key.fileobj == self._bell:
                        with suppress(BlockingIOError):
                            os.read(self._bell, _KEY_BYTES)
                    elif events & selectors.EVENT_READ:
                        self._hear(key.data)
                if time.monotonic() - pinged >= PING_SECONDS:
                    pinged = time.monotonic()
                    self._ping()
                self._send(selector)

    def _admit(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(0)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            _, user, _ = struct.unpack("3i", credentials)
            if user not in (0, os.geteuid()) or len(self._guests) >= _MAXIMUM_GUESTS:
                connection.close()
                return
            guest = _Guest(connection)
            with self._changed:
                guest.put(REPLAY, self._history)
                if self._has_ended:
                    guest.put(END)
                self._guests.append(guest)
            selector.register(connection, selectors.EVENT_READ, guest)

    def _hear(self, guest: _Guest) -> None:
        try:
            keys = guest.connection.recv(_KEY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            keys = b""
        with self._changed:
            if not keys:
                guest.is_gone = True
            elif len(self._keys) < _KEYS_WAITING:  # a guest that takes no keys gets none later either
                self._keys.append(keys)
                self._changed.notify_all()

    def _ping(self) -> None:
        with self._changed:
            for guest in self._guests:
                if not guest.pending:
                    guest.put(PING)

    def _send(self, selector: selectors.BaseSelector) -> None:
        """Send what can be sent without waiting, and let go of those that are gone."""
        with self._changed:
            for guest in list(self._guests):
                if guest.pending and not guest.is_gone:
                    try:
                        del guest.pending[: guest.connection.send(guest.pending)]
                    except BlockingIOError:
                        pass
                    except OSError:
                        guest.is_gone = True
                if guest.is_gone:
                    self._guests.remove(guest)
                    selector.unregister(guest.connection)
                    guest.connection.close()
                    continue
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if guest.pending else 0)
                if selector.get_key(guest.connection).events != wanted:
                    selector.modify(guest.connection, wanted, guest)
            self._changed.notify_all()

    def _type(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._keys or self._is_closing)
                if self._is_closing:
                    return
                keys = b"".join(self._keys)
                self._keys.clear()
            try:
                self._stream.write(keys)
            except KCError as error:
                _log.info("console: %s", error)  # the reader meets the same end and tells of it

    def _dismiss(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for guest in self._guests:
            with suppress(OSError):
                guest.connection.send(guest.pending)  # the last words, as far as they go at once
            guest.connection.close()
        self._guests.clear()
