"""A TCP line through which only so many bytes get to a server, so that a sender is cut where a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

_PIECE_BYTES = 64 << 10


class NarrowLine:
    """Listens at `port` of loopback and passes on to another; `passed` counts the bytes that went to the server.

    Before that is more than `limit`, its connections stand still until `widen` is called, which cuts them.
    """

    def __init__(self, port: int, limit: int) -> None:
        self.passed = 0
        self.is_full = threading.Event()
        self._limit = limit
        self._wide = threading.Event()
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lines: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def widen(self) -> None:
        """Cut what stands still, let everything else through from now on, and count it anew."""
        self.passed = 0
        self._wide.set()

    def close(self) -> None:
        """End every connection."""
        self._wide.set()
        _end(self._listener, *self._lines)
        # Nobody comes any more once the first thread, which takes connections, has ended.
        self._threads[0].join()
        _end(*self._lines)
        for thread in self._threads[1:]:
            thread.join()
        for line in (self._listener, *self._lines):
            line.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._lines.append(client)
                server = socket.create_connection(("127.0.0.1", self._server))
                self._lines.append(server)
                self._begin(self._pass_on, client, server)
                self._begin(self._pass_back, server, client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(_PIECE_BYTES):
                if not self._wide.is_set() and self.passed + len(data) > self._limit:
                    self.is_full.set()
                    self._wide.wait()
                    break
                server.sendall(data)
                self.passed += len(data)
        _end(client, server)

    @staticmethod
    def _pass_back(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_PIECE_BYTES):
                client.sendall(data)
        _end(client, server)


def _end(*lines: socket.socket) -> None:
    """End connections for whoever waits at either end; closing alone would not wake another thread of this process."""
    for line in lines:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
