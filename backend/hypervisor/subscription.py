"""Hints that something on the host has changed, for as long as somebody wants them, across lost connections."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import libvirt

from backend.errors import KCError
from backend.hypervisor.link import Channel, Link
from backend.hypervisor.protocol import Hint
from backend.text import sanitise

# How long a new subscriber waits for the first connection; later ones are made in the background.
FIRST_SECONDS = 2.0
# An idle connection tells by itself that the daemon died, but not that it hangs or that the line is cut.
CHECK_SECONDS = 10.0
ANSWER_SECONDS = 5.0
SHORTEST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
_DOMAIN_EVENTS = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
)
_LOST = ("connection", "lost")
_BACK = ("connection", "back")
_STOP = ("", "")
_WHAT = "the host's events"


class Subscriptions:
    """The subscribers to one host's events; a watcher serves them while there are any."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._hints: list[Hint] = []
        self._watcher: _Watcher | None = None

    def add(self, hint: Hint) -> Callable[[], None]:
        """Have `hint` called until the returned function is; a host that does not answer now is tried until it does."""
        with self._lock:
            self._hints.append(hint)
            if self._watcher is None:
                self._watcher = _Watcher(self._link, self._tell)
            watcher = self._watcher
        watcher.await_first(hint)
        return lambda: self._remove(hint)

    def close(self) -> None:
        """End every subscription."""
        with self._lock:
            self._hints.clear()
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()

    def _remove(self, hint: Hint) -> None:
        with self._lock:
            if hint in self._hints:
                self._hints.remove(hint)
            if self._hints or self._watcher is None:
                return
            watcher, self._watcher = self._watcher, None
        watcher.stop()

    def _tell(self, kind: str, uid: str) -> None:
        with self._lock:
            hints = list(self._hints)
        for hint in hints:
            hint(kind, uid)


class _Watcher:
    """A thread with a connection of its own that hears of events, and makes a new one when that is lost."""

    def __init__(self, link: Link, tell: Hint) -> None:
        self._connected = threading.Event()
        self._lock = threading.Lock()
        self._owes_return = False
        self._link = link
        self._tell = tell
        self._queue: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._is_stopped = threading.Event()
        threading.Thread(target=self._run, name="kc-libvirt-hints", daemon=True).start()

    def await_first(self, hint: Hint) -> None:
        """Wait a little for the connection; tell a subscriber that there is none yet."""
        if self._connected.wait(FIRST_SECONDS):
            return
        with self._lock:
            if not self._connected.is_set():
                self._owes_return = True
                hint(*_LOST)

    def stop(self) -> None:
        """End the thread; it is not waited for."""
        self._is_stopped.set()
        self._queue.put(_STOP)

    def _run(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while not self._is_stopped.is_set():
            events = self._connect()
            if events is None:
                self._is_stopped.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            pause = SHORTEST_PAUSE_SECONDS
            with self._lock:
                self._connected.set()
                owes_return, self._owes_return = self._owes_return, True
            if owes_return:
                self._tell(*_BACK)
            self._serve(events)
            self._connected.clear()
            if not self._is_stopped.is_set():
                self._tell(*_LOST)
            events.close()

    def _connect(self) -> _Events | None:
        # What the connection before it has still to say no longer matters: everybody looks again.
        while not self._queue.empty():
            self._queue.get()
        try:
            channel = self._link.open_channel(_WHAT, lambda: self._queue.put(_LOST))
        except KCError:
            return None
        events = _Events(channel, self._queue)
        try:
            channel.call(_WHAT, events.register, ANSWER_SECONDS)
        except KCError:
            events.close()
            return None
        return events

    def _serve(self, events: _Events) -> None:
        """Pass events on until the connection is lost, or nobody wants them."""
        while not self._is_stopped.is_set():
            try:
                item = self._queue.get(timeout=CHECK_SECONDS)
            except Empty:
                if not events.answers():
                    return
                continue
            if item in (_LOST, _STOP):
                return
            self._tell(*item)


class _Events:
    """What is registered on one connection."""

    def __init__(self, channel: Channel, queue: SimpleQueue[tuple[str, str]]) -> None:
        self._channel = channel
        self._queue = queue
        self._domain_callbacks: list[int] = []
        self._network_callbacks: list[int] = []

    def register(self, raw: libvirt.virConnect) -> None:
        """Ask for the events; within a call of the channel."""
        for event in _DOMAIN_EVENTS:
            self._domain_callbacks.append(raw.domainEventRegisterAny(None, event, self._on_domain, None))
        lifecycle = libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE
        self._network_callbacks.append(raw.networkEventRegisterAny(None, lifecycle, self._on_network, None))

    def answers(self) -> bool:
        """Return whether the daemon still answers on this connection."""
        try:
            self._channel.call(_WHAT, lambda raw: raw.getLibVersion(), ANSWER_SECONDS)
        except KCError:
            return False
        return True

    def close(self) -> None:
        """Take everything back; a connection with a callback is never freed."""
        with contextlib.suppress(KCError):
            self._channel.call(_WHAT, self._deregister, ANSWER_SECONDS)
        self._channel.close()

    def _deregister(self, raw: libvirt.virConnect) -> None:
        for callback in self._domain_callbacks:
            with contextlib.suppress(libvirt.libvirtError):
                raw.domainEventDeregisterAny(callback)
        for callback in self._network_callbacks:
            with contextlib.suppress(libvirt.libvirtError):
                raw.networkEventDeregisterAny(callback)

    def _on_domain(self, _raw: libvirt.virConnect, domain: libvirt.virDomain, *_details: object) -> None:
        # On the event thread: the handle is good for its uuid alone, and only now.
        self._queue.put(("domain", domain.UUIDString()))

    def _on_network(self, _raw: libvirt.virConnect, network: libvirt.virNetwork, *_details: object) -> None:
        self._queue.put(("network", sanitise(network.name())))
