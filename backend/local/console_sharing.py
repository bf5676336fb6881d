"""Several viewers of one console, in any of the user's processes, although libvirt knows one reader.

The first viewer has the console and serves the others at a socket; where it leaves, or dies, the next one to notice
takes the console over and goes on where the log says that it was. There is no daemon: without viewers there is nothing.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backend.errors import ConflictError, FailedError, TimedOutError
from backend.local.console import REPLAY_BYTES, continue_with
from backend.local.console_relay import DATA, END, HEADER, PING_SECONDS, REPLAY, Relay
from backend.paths import make_private
from backend.service import ConsoleStream

JOIN_SECONDS = 3.0
FIND_SECONDS = 15.0
# An owner that says nothing for so long is stopped, or hangs.
SILENCE_SECONDS = 4 * PING_SECONDS
_PAUSE_SECONDS = 0.05
_RECEIVE_BYTES = 64 * 1024
_LONGEST_FRAME = 16 << 20


class LeftError(Exception):
    """Whoever had the console has left, or does not answer any more."""

    def __init__(self, *, is_stuck: bool = False) -> None:
        super().__init__(is_stuck)
        self.is_stuck = is_stuck


class MeetingPoint:
    """A socket, and a lock that says whose it is, in a folder of the user's own.

    The lock goes with its process however that ends, so a socket without it is a stale one.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._socket = f"{name}.console"
        self._lock = folder / f"{name}.lock"
        self._held = -1
        self._was_deposed = False
        self._guard = threading.RLock()

    def connect(self) -> socket.socket | None:
        """Return a connection to whoever has the console, or None."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(JOIN_SECONDS)
        try:
            self._with_address(connection.connect)
        except OSError:
            connection.close()
            return None
        return connection

    def claim(self) -> bool:
        """Take the console for this viewer; False where somebody else has it."""
        make_private(self._folder)
        found = self._folder.stat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{self._folder} is open to others")
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        # Whoever had it may have removed the file between the two calls: then it locks nobody out.
        if _identify(os.fstat(descriptor)) != self.owner():
            os.close(descriptor)
            return False
        self._held = descriptor
        self._was_deposed = False
        return True

    def listen(self) -> socket.socket:
        """Return the socket at which the one who has the console hears of others; raise OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            (self._folder / self._socket).unlink(missing_ok=True)
            self._with_address(listener.bind)
            (self._folder / self._socket).chmod(0o600)
            listener.listen(16)
            listener.settimeout(0)
        except OSError:
            listener.close()
            raise
        return listener

    def owner(self) -> object:
        """Return what changes whenever the console changes hands; None where nobody has it."""
        try:
            return _identify(self._lock.stat())
        except OSError:
            return None

    def depose(self, owner: object) -> None:
        """Take the place away from an owner that is stuck, unless another one has it by now."""
        if owner is not None and self.owner() == owner:
            self._clear()

    def is_deposed(self) -> bool:
        """Whether another viewer has found this one stuck, and taken its place."""
        with self._guard:
            if self._held >= 0:
                self._was_deposed = self.owner() != _identify(os.fstat(self._held))
            return self._was_deposed

    def leave(self) -> None:
        """Leave the console to others; a second call does nothing."""
        with self._guard:
            if self._held < 0:
                return
            if not self.is_deposed():
                self._clear()
            os.close(self._held)
            self._held = -1

    def _clear(self) -> None:
        for path in (self._folder / self._socket, self._lock):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _with_address(self, function: Callable[[str], object]) -> None:
        """Call with the socket's address, by way of a descriptor: a path may be longer than an address can be."""
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            function(f"/proc/self/fd/{folder}/{self._socket}")
        finally:
            os.close(folder)


def _identify(file: os.stat_result) -> object:
    return (file.st_dev, file.st_ino, file.st_mtime_ns)


class Guest:
    """A viewer of a console that another one has; `seen` is what it was given last, which is not given again."""

    def __init__(self, connection: socket.socket, seen: bytes) -> None:
        connection.settimeout(JOIN_SECONDS)
        self._connection = connection
        self._seen = seen
        self._received = bytearray()
        self._heard = time.monotonic()
        self._has_ended = self._is_closed = False
        self._writing = threading.Lock()

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes, b"" at the end, None when nothing came; raise LeftError where the owner is gone."""
        ends = time.monotonic() + timeout
        while not self._is_closed:
            data = self._take_frames()
            if data:
                return data
            if self._has_ended:
                return b""
            if not self._receive(max(0.0, ends - time.monotonic())):
                return None
        return b""

    def wait_for_greeting(self) -> None:
        """Return once the owner has said what was said last; raise LeftError where it does not."""
        ends = time.monotonic() + JOIN_SECONDS
        while len(self._received) < HEADER.size:
            if not self._receive(max(0.0, ends - time.monotonic())):
                raise LeftError(is_stuck=True)

    def write(self, data: bytes) -> None:
        """Send keys to the owner; raise LeftError where it is gone or takes none."""
        with self._writing:
            try:
                self._connection.sendall(data)
            except TimeoutError:
                raise LeftError(is_stuck=True) from None
            except OSError:
                raise LeftError from None

    def close(self) -> None:
        """Leave, and wake a reader."""
        self._is_closed = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _receive(self, seconds: float) -> bool:
        """Take in what the owner sends; False where that was nothing in time."""
        try:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            if not poll.poll(seconds * 1000):
                if time.monotonic() - self._heard > SILENCE_SECONDS:
                    raise LeftError(is_stuck=True)
                return False
            received = self._connection.recv(_RECEIVE_BYTES)
        except (OSError, ValueError):  # ValueError: it was closed meanwhile
            received = b""
        if not received:
            if self._is_closed:
                return True
            raise LeftError
        self._heard = time.monotonic()
        self._received += received
        return True

    def _take_frames(self) -> bytes:
        data = b""
        while len(self._received) >= HEADER.size:
            letter, length = HEADER.unpack_from(self._received)
            if length > _LONGEST_FRAME:
                raise LeftError(is_stuck=True)
            if len(self._received) < HEADER.size + length:
                break
            body = bytes(self._received[HEADER.size : HEADER.size + length])
            del self._received[: HEADER.size + length]
            if letter == REPLAY:
                data += continue_with(self._seen, body)
            elif letter == DATA:
                data += body
            elif letter == END:
                self._has_ended = True
                break
        return data


class SharedConsole:
    """A console as one of its viewers has it, whoever reads it from libvirt at the moment.

    `open_stream` opens it, given what this viewer has seen last.
    """

    def __init__(self, what: str, place: MeetingPoint, open_stream: Callable[[bytes], ConsoleStream]) -> None:
        self._what = what
        self._place = place
        self._open_stream = open_stream
        self._seen = b""
        self._is_closed = False
        self._has_ended = False
        self._guard = threading.Lock()
        self._owner: object = None
        self._source: Relay | Guest = self._find()

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes, b"" at the end, None when `timeout` seconds brought nothing."""
        ends = time.monotonic() + timeout
        while not self._is_closed and not self._has_ended:
            source = self._source
            try:
                data = source.read(max(0.0, ends - time.monotonic()))
                # Where this process was stopped for a while, another viewer has the console by now.
                left = LeftError() if data == b"" and self._place.is_deposed() else None
            except LeftError as error:
                data, left = None, error
            if left is not None:
                self._replace(source, left)
            elif data == b"":
                self._has_ended = True
            elif data or time.monotonic() >= ends:
                self._seen = (self._seen + (data or b""))[-REPLAY_BYTES:]
                return data
        return b""

    def write(self, data: bytes) -> None:
        """Send keys to the guest; raise ConflictError once the console has ended."""
        source = self._source
        try:
            if not self._has_ended:
                source.write(data)
        except LeftError as error:
            self._replace(source, error)
            with suppress(LeftError):  # twice in a moment: the reader finds the next owner
                if not self._has_ended:
                    self._source.write(data)
        if self._has_ended:
            raise ConflictError(self._what, "it has ended", "open it again")

    def close(self) -> None:
        """Leave; where others look on, one of them takes over."""
        self._is_closed = True
        self._source.close()

    def _replace(self, source: Relay | Guest, error: LeftError) -> None:
        """Find the console anew after its owner has left, unless that is done, it has ended, or this viewer leaves."""
        with self._guard:
            if self._is_closed or self._has_ended or self._source is not source:
                return
            source.close()
            if error.is_stuck:
                self._place.depose(self._owner)
            try:
                self._source = self._find()
            except ConflictError:
                self._has_ended = True
            if self._is_closed:
                self._source.close()

    def _find(self) -> Relay | Guest:
        """Join whoever has the console, or take it; raise KCErrors."""
        ends = time.monotonic() + FIND_SECONDS
        while time.monotonic() < ends:
            self._owner = self._place.owner()
            guest = self._join()
            if guest is not None:
                return guest
            try:
                is_ours = self._place.claim()
            except (OSError, FailedError):  # no place to meet: this viewer has the console to itself
                return Relay(self._open_stream(self._seen), None, self._seen, self._place.leave)
            if is_ours:
                return self._take()
            time.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - nothing is secret about it
        raise TimedOutError(self._what, "somebody else has been opening it for too long", "try again")

    def _join(self) -> Guest | None:
        connection = self._place.connect()
        if connection is None:
            return None
        guest = Guest(connection, self._seen)
        try:
            guest.wait_for_greeting()
        except LeftError as error:
            guest.close()
            if error.is_stuck:
                self._place.depose(self._owner)
            return None
        return guest

    def _take(self) -> Relay:
        """Open the console, and then let others come: whoever comes earlier finds the place taken, and waits."""
        try:
            stream = self._open_stream(self._seen)
        except BaseException:
            self._place.leave()
            raise
        try:
            listener = self._place.listen()
        except OSError:
            listener = None
        return Relay(stream, listener, self._seen, self._place.leave)
