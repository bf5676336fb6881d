"""Connections: opened when needed, opened again when lost, never waited for beyond a deadline, never shared.

One thread at a time uses a connection. libvirt's client before 10.4 writes to the stack of a thread that has left when
two threads call through one connection at once (CVE-2024-4418, open in Debian 12), and its keepalive is such a second
thread. So calls that run at the same time have connections of their own, and keepalive is for fixed versions only;
what must end in time is ended by lanes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

import libvirt

from backend.hypervisor import events
from backend.hypervisor.errors import is_lost, message_of
from backend.hypervisor.lanes import CrowdedError, Lane, LateError

T = TypeVar("T")
Call = Callable[[libvirt.virConnect], T]

CLOSE_SECONDS = 1.5


class LostError(Exception):
    """The connection broke under a call; whether the call was carried out is not known."""


class Connection:
    """An open connection that one thread at a time uses; `on_lost` only queues."""

    def __init__(self, raw: libvirt.virConnect, on_lost: Callable[[], None] | None = None) -> None:
        self.is_lost = False
        self._raw = raw
        self._on_lost = on_lost
        self._guard = threading.Lock()
        self._is_busy = False
        self._is_closing = False
        events.keep(raw)
        with contextlib.suppress(libvirt.libvirtError):
            raw.registerCloseCallback(self._note_close, None)

    def perform(self, function: Call[T]) -> T:
        """Return what `function` returns for the connection; raises LostError and its own; on a lane's thread."""
        with self._guard:
            if self._is_busy or self._is_closing:
                raise LostError("an earlier call hangs in it")
            self._is_busy = True
        try:
            return function(self._raw)
        except libvirt.libvirtError as error:
            # The daemon also passes on what its own connections, to virtlogd say, ran into.
            if not is_lost(error) or self._raw.isAlive() == 1:
                raise
            self.is_lost = True
            raise LostError(message_of(error)) from error
        finally:
            with self._guard:
                self._is_busy = False
                is_closing = self._is_closing
            if is_closing:
                self._dispose()

    def close(self) -> None:
        """Close it, now or when the call that hangs in it ends; on a lane's thread."""
        with self._guard:
            if self._is_closing:
                return
            self._is_closing = True
            is_busy = self._is_busy
        if not is_busy:
            self._dispose()

    def _note_close(self, _raw: libvirt.virConnect, _reason: int, _opaque: object) -> None:
        """Note that the daemon went away; runs on the event thread, and so makes no call."""
        self.is_lost = True
        if self._on_lost is not None:
            self._on_lost()

    def _dispose(self) -> None:
        events.release(self._raw)
        for function in (self._raw.unregisterCloseCallback, self._raw.close):
            with contextlib.suppress(libvirt.libvirtError):
                function()


class Connections:
    """As many connections to one host as calls run at once, kept for the next ones."""

    def __init__(self, lane: Lane, opener: Callable[[], Connection]) -> None:
        self._lane = lane
        self._opener = opener
        self._free: list[Connection] = []
        self._opening = threading.Lock()
        self._guard = threading.Lock()
        self._is_closed = False

    def use(self, function: Call[T], deadline: float) -> T:
        """Return what `function` returns for a connection; raises LateError, CrowdedError, LostError and its own."""
        return self._lane.run(lambda: self._perform(function, deadline), deadline)

    def close(self) -> None:
        """Close the connections; the daemon is told, but not waited for."""
        with self._guard:
            self._is_closed = True
            free, self._free = self._free, []
        if free:
            with contextlib.suppress(LateError, CrowdedError):
                self._lane.run(lambda: _close_all(free), CLOSE_SECONDS)
        self._lane.close()

    def _perform(self, function: Call[T], deadline: float) -> T:
        connection = self._take(deadline)
        try:
            return connection.perform(function)
        finally:
            self._give_back(connection)

    def _take(self, timeout: float) -> Connection:
        while True:
            with self._guard:
                connection = self._free.pop() if self._free else None
            if connection is None:
                return self._open(timeout)
            if not connection.is_lost:
                return connection
            connection.close()

    def _open(self, timeout: float) -> Connection:
        if self._is_closed:
            raise LostError("KC has closed it")
        # One at a time: a daemon that does not answer costs one thread, not as many as ask.
        if not self._opening.acquire(timeout=timeout):
            raise LateError(started=True)
        try:
            return self._opener()
        finally:
            self._opening.release()

    def _give_back(self, connection: Connection) -> None:
        with self._guard:
            if not self._is_closed and not connection.is_lost:
                self._free.append(connection)
                return
        connection.close()


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
