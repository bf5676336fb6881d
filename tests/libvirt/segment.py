"""A segment of a test's own: a bridge in a network namespace, others for its guests, and raw access to each."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backend.network.shell import LocalShell

ALL_PROTOCOLS = 0x0003
_NEW_NETWORK = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Station(NamedTuple):
    """A guest's place on the segment: its namespace, its device on the host, its MAC."""

    namespace: str
    tap: str
    mac: str


class Segment:
    """A bridge `br0`, and stations whose `eth0` are ports of it."""

    def __init__(self, name: str) -> None:
        self.host = f"{name}-h"
        self.shell = LocalShell(("ip", "netns", "exec", self.host))
        self._namespaces: list[str] = []
        self.stations: list[Station] = []
        self._add_namespace(self.host)
        run(self.host, "ip link add br0 type bridge stp_state 0 mcast_snooping 0")
        run(self.host, "ip link set br0 up")

    def add(self, tap: str, address: str = "") -> Station:
        """Add a station whose device on the host is `tap`; with an IPv4 address (CIDR) it has an IP stack, too."""
        number = len(self.stations) + 1
        station = Station(f"{self.host[:-2]}-{number}", tap, f"52:54:00:00:00:{number:02x}")
        self.stations.append(station)
        self._add_namespace(station.namespace)
        run(station.namespace, f"ip link add eth0 address {station.mac} type veth peer name {tap} netns {self.host}")
        if address:
            run(station.namespace, f"ip address add {address} dev eth0")
        run(self.host, f"ip link set {tap} master br0 up")
        run(station.namespace, "ip link set eth0 up")
        return station

    def close(self) -> None:
        """Remove all of it."""
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=True, timeout=20)

    def _add_namespace(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
        self._namespaces.append(name)
        # Nobody says a word that no test has asked for.
        run(name, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")


def run(namespace: str, command: str) -> str:
    """Return what a command says in a namespace."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *command.split()], capture_output=True, text=True, timeout=20, check=True
    ).stdout  # fmt: skip


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace, with this thread alone; sockets made there stay there."""
    with (
        Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").open() as here,
        Path(f"/run/netns/{namespace}").open() as there,
    ):
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(here.fileno())


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def open_wire(namespace: str, device: str = "eth0") -> socket.socket:
    """Return a socket for whole frames of a device."""
    with inside(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        wire.bind((device, ALL_PROTOCOLS))
    wire.settimeout(5)
    return wire


def measure(sender: str, receiver: str, address: str, seconds: float, settle: float = 0) -> float:
    """Return how many bytes a second a TCP stream brings from one namespace to another, after it has settled."""
    with inside(receiver):
        listener = socket.create_server((address, 0))
    with inside(sender):
        stream = socket.socket()
    ended = threading.Event()

    def send() -> None:
        block = bytes(65536)
        while not ended.is_set():
            with contextlib.suppress(OSError):
                stream.send(block)

    with listener, stream:
        stream.settimeout(1)
        stream.connect(listener.getsockname())
        arriving, _ = listener.accept()
        thread = threading.Thread(target=send)
        thread.start()
        try:
            with arriving:
                arriving.settimeout(30)
                _read_for(arriving, settle)
                began = time.monotonic()
                return _read_for(arriving, seconds) / (time.monotonic() - began)
        finally:
            ended.set()
            thread.join()


def _read_for(arriving: socket.socket, seconds: float) -> int:
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        count += len(arriving.recv(1 << 20))
    return count
