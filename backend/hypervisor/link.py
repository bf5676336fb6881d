"""One host as the parts of the driver see it: every libvirt call goes through here, and every call has a deadline."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import libvirt

from backend.errors import KCError, TimedOutError
from backend.hypervisor import events
from backend.hypervisor.connection import CLOSE_SECONDS, Call, Connection, Connections, LostError
from backend.hypervisor.errors import message_of, translate, unreachable
from backend.hypervisor.lanes import CrowdedError, Lane, LateError

T = TypeVar("T")

SYSTEM = "qemu:///system"
SESSION = "qemu:///session"
CONTROL_SECONDS = 10.0
OBSERVE_SECONDS = 5.0
OPEN_SECONDS = 10.0
# A chunk of a stream over a slow line may take long; a daemon that stands still takes for ever.
STREAM_SECONDS = 30.0
PROBE_SECONDS = 1.5
ANSWER_SECONDS = 2.0
KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3
# The first version whose keepalive does not corrupt the calls beside it; see `backend.hypervisor.connection`.
KEEPALIVE_IS_SAFE = libvirt.getVersion() >= 10_004_000  # noqa: PLR2004 - 10.4.0


class Link:
    """Connections for changes, others for observation, so that neither waits for the other, and further for streams."""

    def __init__(self, uri: str) -> None:
        self._asked = uri
        self.uri = uri or SYSTEM
        self.streams = Lane("kc-libvirt-stream", 8, 8)
        self._control = Connections(Lane("kc-libvirt-control", 4, 6), self._connect)
        self._observe = Connections(Lane("kc-libvirt-observe", 3, 6), self._connect)
        self._asking = threading.Lock()
        self._asked_at = -ANSWER_SECONDS
        self._answered = False

    @property
    def is_local(self) -> bool:
        """Whether the URI names this machine."""
        scheme, _, rest = self.uri.partition("://")
        return rest.startswith("/") and scheme.partition("+")[2] in ("", "unix")

    def observe(self, what: str, function: Call[T], deadline: float = OBSERVE_SECONDS) -> T:
        """Return what `function` reads from the host."""
        return self._call(self._observe, what, function, deadline, repeat=True)

    def control(self, what: str, function: Call[T], deadline: float = CONTROL_SECONDS, *, repeat: bool = True) -> T:
        """Return what `function` does to the host.

        `repeat`: it is made again where the connection was lost, because it may have been lost before the call.
        """
        return self._call(self._control, what, function, deadline, repeat=repeat)

    def open_channel(self, what: str, on_lost: Callable[[], None] | None = None) -> Channel:
        """Return a connection of one's own; `on_lost` is called on the event thread, and only queues."""
        with self.explaining(what, OPEN_SECONDS):
            connection = self.streams.run(lambda: self._connect(on_lost), OPEN_SECONDS, Connection.close)
        return Channel(self, connection)

    def close(self) -> None:
        """Let go of the connections; calls that hang are left to themselves."""
        self._control.close()
        self._observe.close()
        self.streams.close()

    def _call(self, connections: Connections, what: str, function: Call[T], deadline: float, *, repeat: bool) -> T:
        ends = time.monotonic() + deadline
        other = self._control if connections is self._observe else self._observe
        with self.explaining(what, deadline, other):
            if repeat:
                with contextlib.suppress(LostError):
                    return connections.use(function, deadline)
            return connections.use(function, max(ends - time.monotonic(), PROBE_SECONDS))

    def answers(self, connections: Connections) -> bool:
        """Return whether the host answers something small; what was found out a moment ago is not asked again."""
        with self._asking:
            if time.monotonic() - self._asked_at > ANSWER_SECONDS:
                try:
                    connections.use(lambda raw: raw.getLibVersion(), PROBE_SECONDS)
                    self._answered = True
                except (LateError, CrowdedError, LostError, KCError, libvirt.libvirtError):
                    self._answered = False
                self._asked_at = time.monotonic()
            return self._answered

    def explaining(self, what: str, deadline: float, other: Connections | None = None) -> _Explaining:
        """Return a block whose libvirt errors come out as KC's."""
        return _Explaining(self, what, deadline, other or self._observe)

    def _connect(self, on_lost: Callable[[], None] | None = None) -> Connection:
        events.start()
        if self._asked:
            return Connection(self._open(self._asked), on_lost)
        try:
            raw = self._open(SYSTEM)
        except KCError:
            # Root's own session is the system's daemon again.
            if os.geteuid() == 0:
                raise
            raw = self._open(SESSION)
        self._asked = self.uri
        return Connection(raw, on_lost)

    def _open(self, uri: str) -> libvirt.virConnect:
        try:
            raw = libvirt.open(_quieten(uri))
        except libvirt.libvirtError as error:
            raise unreachable(uri, message_of(error)) from error
        self.uri = uri
        if KEEPALIVE_IS_SAFE:
            with contextlib.suppress(libvirt.libvirtError):
                raw.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        return raw


class Channel:
    """A connection of one's own, for streams: one call at a time, each with a deadline."""

    def __init__(self, link: Link, connection: Connection) -> None:
        self._link = link
        self._connection = connection

    def call(self, what: str, function: Call[T], deadline: float = STREAM_SECONDS) -> T:
        """Return what `function` returns for the connection."""
        with self._link.explaining(what, deadline):
            return self._link.streams.run(lambda: self._connection.perform(function), deadline)

    def close(self) -> None:
        """Close it; a daemon that hangs is not waited for."""
        with contextlib.suppress(LateError, CrowdedError):
            self._link.streams.run(self._connection.close, CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Explaining:
    """A block whose libvirt errors come out as KC's."""

    def __init__(self, link: Link, what: str, deadline: float, other: Connections) -> None:
        self._link = link
        self._what = what
        self._deadline = deadline
        self._other = other

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        uri = self._link.uri
        if isinstance(error, libvirt.libvirtError):
            raise translate(error, self._what) from error
        if isinstance(error, LostError):
            raise unreachable(uri, f"the connection was lost: {error}") from error
        if isinstance(error, CrowdedError):
            raise unreachable(uri, "too many calls to it hang already") from None
        if isinstance(error, LateError):
            raise self._explain_late(started=error.started) from None

    def _explain_late(self, *, started: bool) -> KCError:
        """Tell a host that does not answer from one of which a part is stuck."""
        if not self._link.answers(self._other):
            return unreachable(self._link.uri, f"it did not answer within {self._deadline:.0f} s")
        if not started:
            why = "the host is busy with earlier calls"
            return TimedOutError(self._what, why, "try again in a moment", transient=True)
        return TimedOutError(
            self._what,
            f"no answer within {self._deadline:.0f} s",
            "a QEMU hangs, or libvirt is probing it; `kc doctor` tells more",
        )


def _quieten(uri: str) -> str:
    """Return the URI with ssh told never to ask on the terminal, which is KC's."""
    if not uri.partition("://")[0].endswith("+ssh") or "no_tty=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}no_tty=1"
