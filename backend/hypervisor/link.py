"""One host as the parts of the driver see it: every libvirt call goes through here, and every call has a deadline."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import libvirt

from backend.errors import KCError, TimedOutError
from backend.hypervisor import events
from backend.hypervisor.connection import Call, LostError, Slot, dispose
from backend.hypervisor.errors import is_lost, message_of, translate, unreachable
from backend.hypervisor.lanes import CrowdedError, Lane, LateError

T = TypeVar("T")

SYSTEM = "qemu:///system"
SESSION = "qemu:///session"
CONTROL_SECONDS = 10.0
OBSERVE_SECONDS = 5.0
OPEN_SECONDS = 10.0
# Between them they end a call to a daemon that has stopped answering after 20 s; its caller is gone by then.
KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3
PROBE_SECONDS = 1.5


class Link:
    """A connection for changes, one for observation, and further ones for streams."""

    def __init__(self, uri: str) -> None:
        self._asked = uri
        self.uri = uri or SYSTEM
        self._streams = Lane("kc-libvirt-stream", 8, 8)
        self._controlling = Slot(Lane("kc-libvirt-control", 4, 8), self._open)
        self.observing = Slot(Lane("kc-libvirt-observe", 2, 6), self._open)

    @property
    def is_local(self) -> bool:
        """Whether the URI names this machine."""
        scheme, _, rest = self.uri.partition("://")
        return rest.startswith("/") and scheme.partition("+")[2] in ("", "unix")

    def observe(self, what: str, function: Call[T], deadline: float = OBSERVE_SECONDS) -> T:
        """Return what `function` reads through the connection for observation."""
        return self._call(self.observing, what, function, deadline, repeat=True)

    def control(self, what: str, function: Call[T], deadline: float = CONTROL_SECONDS, *, repeat: bool = True) -> T:
        """Return what `function` does through the connection for changes.

        `repeat`: it is made again where the connection was lost, because it may have been lost before the call.
        """
        return self._call(self._controlling, what, function, deadline, repeat=repeat)

    @contextmanager
    def transfer(self, what: str) -> Iterator[libvirt.virConnect]:
        """Give a connection of its own to a stream, used on the caller's thread: keepalive bounds its calls."""
        connection = self.open_stream_connection(what)
        try:
            yield connection
        except libvirt.libvirtError as error:
            raise self._explain(error, what) from error
        finally:
            self.close_stream_connection(connection)

    def open_stream_connection(self, what: str) -> libvirt.virConnect:
        """Return a new connection, to be given to `close_stream_connection` in the end."""
        connection = self.call_on_stream(what, self._open, OPEN_SECONDS, dispose)
        events.keep(connection)
        return connection

    def call_on_stream(
        self, what: str, function: Callable[[], T], deadline: float, dispose_late: Callable[[T], None] | None = None
    ) -> T:
        """Return what a call on a connection of one's own returns."""
        try:
            return self._streams.run(function, deadline, dispose_late)
        except LateError as late:
            raise self._explain_late(self._controlling, what, deadline, started=late.started) from None
        except CrowdedError:
            raise self._explain_crowd() from None
        except libvirt.libvirtError as error:
            raise self._explain(error, what) from error

    def close_stream_connection(self, connection: libvirt.virConnect) -> None:
        """Close a connection of one's own; a daemon that hangs is not waited for."""
        with contextlib.suppress(LateError, CrowdedError):
            self._streams.run(lambda: dispose(connection), PROBE_SECONDS)

    def close(self) -> None:
        """Let go of both connections; calls that hang are left to themselves."""
        self._controlling.close()
        self.observing.close()
        self._streams.close()

    def _call(self, slot: Slot, what: str, function: Call[T], deadline: float, *, repeat: bool) -> T:
        ends = time.monotonic() + deadline
        while True:
            try:
                return slot.use(function, max(ends - time.monotonic(), 0.1))
            except LostError as lost:
                if not repeat:
                    raise unreachable(self.uri, f"the connection was lost: {lost}") from lost
                repeat = False
            except LateError as late:
                raise self._explain_late(slot, what, deadline, started=late.started) from None
            except CrowdedError:
                raise self._explain_crowd() from None
            except libvirt.libvirtError as error:
                raise translate(error, what) from error

    def _explain(self, error: libvirt.libvirtError, what: str) -> KCError:
        if is_lost(error):
            return unreachable(self.uri, f"the connection was lost: {message_of(error)}")
        return translate(error, what)

    def _explain_crowd(self) -> KCError:
        return unreachable(self.uri, "too many calls to it hang already")

    def _explain_late(self, slot: Slot, what: str, deadline: float, *, started: bool) -> KCError:
        """Tell a host that does not answer from one of which a part is stuck, by asking it something small."""
        other = self._controlling if slot is self.observing else self.observing
        try:
            other.use(lambda connection: connection.getLibVersion(), PROBE_SECONDS)
        except (LateError, CrowdedError, LostError, KCError, libvirt.libvirtError):
            return unreachable(self.uri, f"it did not answer within {deadline:.0f} s")
        if not started:
            return TimedOutError(what, "the host is busy with earlier calls", "try again in a moment")
        return TimedOutError(
            what, f"no answer within {deadline:.0f} s", "a QEMU hangs, or libvirt is probing it; `kc doctor` tells more"
        )

    def _open(self) -> libvirt.virConnect:
        events.start()
        if self._asked:
            return self._open_one(self._asked)
        try:
            connection = self._open_one(SYSTEM)
        except KCError:
            # Root's own session is the system's daemon again.
            if os.geteuid() == 0:
                raise
            connection = self._open_one(SESSION)
        self._asked = self.uri
        return connection

    def _open_one(self, uri: str) -> libvirt.virConnect:
        try:
            connection = libvirt.open(_quieten(uri))
        except libvirt.libvirtError as error:
            raise unreachable(uri, message_of(error)) from error
        self.uri = uri
        with contextlib.suppress(libvirt.libvirtError):
            # Refused by libvirt's test driver, which has no daemon that could stop answering.
            connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        return connection


def _quieten(uri: str) -> str:
    """Return the URI with ssh told never to ask on the terminal, which is KC's."""
    if not uri.partition("://")[0].endswith("+ssh") or "no_tty=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}no_tty=1"
