"""One connection's place: opened when needed, opened again when lost, and never waited for beyond a deadline."""

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
Hook = Callable[[libvirt.virConnect], Callable[[], None]]
"""Called with each new connection; returns what is to be called before that connection is closed."""

CLOSE_SECONDS = 1.5
# A daemon serves five calls of one connection at a time; the rest would wait behind calls that hang.
STUCK_CALLS_PER_CONNECTION = 3


class LostError(Exception):
    """The connection broke under a call; whether the call was carried out is not known."""


class _Opened:
    """One open connection, and how many calls use it right now."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self.connection = connection
        self.cleanups: list[Callable[[], None]] = []
        self.users = 0
        self.stuck = 0

    def dispose(self) -> None:
        """Close the connection, which no call uses; never on the event thread."""
        for cleanup in self.cleanups:
            with contextlib.suppress(libvirt.libvirtError):
                cleanup()
        dispose(self.connection)


class Slot:
    """The place of one connection to a host."""

    def __init__(self, lane: Lane, opener: Callable[[], libvirt.virConnect]) -> None:
        self.hooks: list[Hook] = []
        self.on_lost: list[Callable[[], None]] = []
        self._lane = lane
        self._opener = opener
        self._opened: _Opened | None = None
        self._retired: list[_Opened] = []
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._is_closed = False

    def use(self, function: Call[T], deadline: float) -> T:
        """Return what `function` returns for the connection; raises LateError, CrowdedError, LostError and its own."""
        held: list[_Opened] = []
        try:
            return self._lane.run(lambda: self._perform(function, deadline, held), deadline)
        except LateError:
            for opened in held:
                self._note_stuck(opened)
            raise

    def close(self) -> None:
        """Close the connection; the daemon is told, but not waited for."""
        with self._lock:
            self._is_closed = True
        if self._opened is not None or self._retired:
            self._forget(self._opened)
            with contextlib.suppress(LateError, CrowdedError):
                self._lane.run(self._sweep, CLOSE_SECONDS)
        self._lane.close()

    def _perform(self, function: Call[T], deadline: float, held: list[_Opened]) -> T:
        opened = self._acquire(deadline)
        held.append(opened)
        try:
            return function(opened.connection)
        except libvirt.libvirtError as error:
            if not is_lost(error):
                raise
            self._forget(opened)
            raise LostError(message_of(error)) from error
        finally:
            with self._lock:
                opened.users -= 1
            if self._retired:
                self._sweep()

    def _acquire(self, timeout: float) -> _Opened:
        # One thread opens, the others wait for it: a daemon that does not answer costs one thread, not many.
        if not self._opening.acquire(timeout=timeout):
            raise LateError(started=True)
        try:
            with self._lock:
                opened = self._opened
                if opened is not None:
                    opened.users += 1
                    return opened
            opened = self._open()
        finally:
            self._opening.release()
        return opened

    def _open(self) -> _Opened:
        if self._is_closed:
            raise LostError("KC has closed it")
        opened = _Opened(self._opener())
        events.keep(opened.connection)
        opened.users = 1
        with contextlib.suppress(libvirt.libvirtError):
            opened.connection.registerCloseCallback(self._on_close, opened)
        opened.cleanups.extend(hook(opened.connection) for hook in self.hooks)
        with self._lock:
            if not self._is_closed:
                self._opened = opened
                return opened
        # Closed while it was being opened.
        opened.dispose()
        raise LostError("KC has closed it")

    def _on_close(self, _connection: libvirt.virConnect, _reason: int, opened: _Opened) -> None:
        """Note that the daemon went away; runs on the event thread, and so makes no call."""
        self._forget(opened)
        for hook in self.on_lost:
            hook()

    def _forget(self, opened: _Opened | None) -> None:
        """Have the next call open a new connection; this one is closed once no call uses it."""
        with self._lock:
            if opened is not None and self._opened is opened:
                self._opened = None
                self._retired.append(opened)

    def _note_stuck(self, opened: _Opened) -> None:
        with self._lock:
            opened.stuck += 1
            is_clogged = opened.stuck >= STUCK_CALLS_PER_CONNECTION
        if is_clogged:
            self._forget(opened)

    def _sweep(self) -> None:
        """Close the retired connections that no call uses any more."""
        with self._lock:
            unused = [opened for opened in self._retired if opened.users == 0]
            self._retired = [opened for opened in self._retired if opened.users > 0]
        for opened in unused:
            opened.dispose()


def dispose(connection: libvirt.virConnect) -> None:
    """Close a connection that no call uses; never on the event thread."""
    events.release(connection)
    for function in (connection.unregisterCloseCallback, connection.close):
        with contextlib.suppress(libvirt.libvirtError):
            function()
