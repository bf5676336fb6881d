"""Hints that something on the host has changed, for as long as somebody wants them, across lost connections."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import libvirt

from backend.errors import KCError
from backend.hypervisor.link import Link
from backend.hypervisor.protocol import Hint
from backend.text import sanitise

# How long a new subscriber waits for the first connection; later ones are made in the background.
FIRST_SECONDS = 2.0
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


class Subscriptions:
    """The subscribers to one host's events, served by one thread from the first of them on."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._hints: list[Hint] = []
        self._queue: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_started = False
        self._is_connected = True
        self._registered_on: libvirt.virConnect | None = None

    def add(self, hint: Hint) -> Callable[[], None]:
        """Have `hint` called until the returned function is; a host that does not answer now is tried until it does."""
        with self._lock:
            self._hints.append(hint)
            is_first, self._is_started = not self._is_started, True
        if is_first:
            self._link.observing.hooks.append(self._register)
            self._link.observing.on_lost.append(lambda: self._queue.put(_LOST))
        if not self._connect(FIRST_SECONDS):
            self._queue.put(_LOST)
            if not self._is_connected:
                hint(*_LOST)
        if is_first:
            threading.Thread(target=self._serve, name="kc-libvirt-hints", daemon=True).start()
        return lambda: self._remove(hint)

    def close(self) -> None:
        """End every subscription."""
        with self._lock:
            self._hints.clear()
        self._queue.put(_STOP)

    def _remove(self, hint: Hint) -> None:
        with self._lock:
            if hint in self._hints:
                self._hints.remove(hint)

    def _connect(self, deadline: float) -> bool:
        """Have events registered on a connection that answers."""
        try:
            self._link.observe("the host's events", self._ensure_registered, deadline)
        except KCError:
            return False
        return True

    def _ensure_registered(self, connection: libvirt.virConnect) -> None:
        if self._registered_on is not connection:
            self._register(connection)
        connection.getLibVersion()  # one that is broken shows here

    def _register(self, connection: libvirt.virConnect) -> Callable[[], None]:
        """Register for events on a connection; returns what undoes it."""
        domains = [connection.domainEventRegisterAny(None, event, self._on_domain, None) for event in _DOMAIN_EVENTS]
        network = connection.networkEventRegisterAny(
            None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, self._on_network, None
        )
        self._registered_on = connection
        self._queue.put(_BACK)

        def deregister() -> None:
            if self._registered_on is connection:
                self._registered_on = None
            for callback in domains:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.domainEventDeregisterAny(callback)
            connection.networkEventDeregisterAny(network)

        return deregister

    def _on_domain(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, *_details: object) -> None:
        # On the event thread: the handle is good for its uuid alone, and only now.
        self._queue.put(("domain", domain.UUIDString()))

    def _on_network(self, _connection: libvirt.virConnect, network: libvirt.virNetwork, *_details: object) -> None:
        self._queue.put(("network", sanitise(network.name())))

    def _serve(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                # Without a connection, or without anybody who would miss it, nothing is tried.
                waits = self._is_connected or not self._hints
                item = self._queue.get(timeout=None if waits else pause)
            except Empty:
                self._connect(FIRST_SECONDS)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            if item == _STOP:
                return
            if item in (_LOST, _BACK):
                if self._is_connected is (item == _BACK):
                    continue
                self._is_connected = item == _BACK
                pause = SHORTEST_PAUSE_SECONDS
            with self._lock:
                hints = list(self._hints)
            for hint in hints:
                hint(*item)
