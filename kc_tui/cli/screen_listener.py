"""A listener on the loopback that serves one VM's screen while a command runs.

Each connection gets a stream of its own, so that several viewers may look at once. Everybody on a machine can reach its
loopback, so only connections of this user, and root's, are taken.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from backend.errors import KCError
from backend.service import ConsoleStream
from kc_tui.cli.session import Session

HOST = "127.0.0.1"
END_SECONDS = 5.0
_MOST_CONNECTIONS = 8
_PIECE_BYTES = 65536
_POLL_SECONDS = 0.2
_SOCKETS = Path("/proc/net/tcp")


class Listener:
    """Serves a screen from the beginning of a `with` block to its end, on a port of the system's choice."""

    def __init__(self, session: Session, name: str) -> None:
        """Take the VM's name; nothing listens yet."""
        self.port = 0
        self._session = session
        self._name = name
        self._ending = threading.Event()
        self._guard = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}

    def __enter__(self) -> Self:
        """Begin to listen; `port` then says where."""
        self._server = socket.create_server((HOST, 0))
        self._server.settimeout(_POLL_SECONDS)
        self.port = self._server.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="screen-listener", daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all connections and listen no more."""
        self._ending.set()
        deadline = time.monotonic() + END_SECONDS
        self._accepting.join(END_SECONDS)
        self._server.close()
        with self._guard:
            left = dict(self._connections)
        for connection in left:
            hang_up(connection)
        for thread in left.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def wait(self) -> None:
        """Wait for a signal: nothing else ends a listener that nobody looks after."""
        self._ending.wait()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                connection, (_host, port) = self._server.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            with self._guard:
                is_full = len(self._connections) >= _MOST_CONNECTIONS
            if is_full or find_user(port, self.port) not in (os.getuid(), 0):
                connection.close()
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="screen", daemon=True)
            with self._guard:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            stream = self._session.service.display(self._name)
        except KCError as error:
            self._session.note(str(error))
        else:
            carry(connection, stream, self._ending)
        with self._guard:
            del self._connections[connection]
        connection.close()


def hang_up(connection: socket.socket) -> None:
    """End a connection for both sides, so that whoever reads from it or writes to it goes on."""
    with suppress(OSError):  # the other side was first
        connection.shutdown(socket.SHUT_RDWR)


def find_user(port: int, listener: int) -> int:
    """Return the uid of whose socket has this port of the loopback and is connected to a listener's; -1: nobody's.

    Where the system has no such list it is this process's user. Source: proc(5), /proc/net/tcp.
    """
    address = f"{int.from_bytes(socket.inet_aton(HOST), sys.byteorder):08X}"
    ends = [f"{address}:{port:04X}", f"{address}:{listener:04X}"]
    try:
        lines = _SOCKETS.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:
        return os.getuid()
    except OSError:
        return -1
    return next((int(fields[7]) for fields in map(str.split, lines) if fields[1:3] == ends), -1)


def carry(connection: socket.socket, stream: ConsoleStream, ending: threading.Event) -> None:
    """Carry bytes between a connection and a screen until either ends, or `ending` is set; the stream is closed."""
    keys = threading.Thread(target=_carry_keys, args=(connection, stream), name="screen-keys", daemon=True)
    keys.start()
    try:
        while not ending.is_set():
            data = stream.read(_POLL_SECONDS)
            if data == b"":
                break
            if data:
                connection.sendall(data)
    except (KCError, OSError):
        pass  # either side is gone: the other is told by what follows
    finally:
        hang_up(connection)
        stream.close()
        keys.join(END_SECONDS)


def _carry_keys(connection: socket.socket, stream: ConsoleStream) -> None:
    try:
        while data := connection.recv(_PIECE_BYTES):
            stream.write(data)
    except (KCError, OSError):
        pass  # as above
    stream.close()
