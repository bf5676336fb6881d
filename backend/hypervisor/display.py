"""A guest's screen: where it is, its bytes (VNC, RFC 6143), and a picture of it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import NamedTuple
from urllib.parse import quote

import libvirt

from backend.errors import ConflictError, FailedError, RefusedError, TimedOutError
from backend.hypervisor.domains import Domains
from backend.hypervisor.errors import is_code
from backend.hypervisor.link import Channel, Link
from backend.hypervisor.picture import LARGEST_BYTES, convert_to_png
from backend.hypervisor.xml import parse
from backend.text import sanitise

PICTURE_SECONDS = 20.0
WRITE_SECONDS = 5.0
READ_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a host listens on, as one may reach it


class Screen(NamedTuple):
    """The VNC server of a domain that is on: its number among the domain's screens, and its socket, or host and port.

    All but the number are empty where libvirt alone can open it.
    """

    number: int
    socket: str
    host: str
    port: str


def open_display(link: Link, domains: Domains, uid: str) -> DisplayStream:
    """Open a domain's screen; see `Hypervisor.display`."""
    what = domains.name(uid)
    if not link.is_local:
        raise RefusedError(what, "its screen is on another machine", _advise_tunnel(link, domains, uid))

    def connect(connection: libvirt.virConnect) -> int:
        domain = domains.require(connection, uid)
        try:
            # Whoever may ask libvirt for it needs no password.
            return domain.openGraphicsFD(_require(domain, what).number, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
        except libvirt.libvirtError as error:
            raise _explain_off(error, what) from error

    return DisplayStream(socket.socket(fileno=link.control(what, connect, repeat=False)), what)


def find_address(link: Link, domains: Domains, uid: str) -> str:
    """Return where a domain's screen is: `vnc+unix://PATH` or `vnc://HOST:PORT`; empty where it has none or is off."""

    def fetch(connection: libvirt.virConnect) -> str:
        domain = domains.require(connection, uid)
        try:
            return _describe(read_screen(domain.XMLDesc())) if domain.isActive() else ""
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID):
                return ""
            raise

    return link.observe(domains.name(uid), fetch)


def take_picture(link: Link, domains: Domains, uid: str) -> bytes:
    """Return a picture of a domain's screen as PNG; see `Hypervisor.screenshot`."""
    what = domains.name(uid)
    ends = time.monotonic() + PICTURE_SECONDS

    def begin(connection: libvirt.virConnect) -> libvirt.virStream:
        domain = domains.require(connection, uid)
        if not domain.isActive():
            raise _off(what)
        if not any(model.get("type") != "none" for model in parse(domain.XMLDesc()).iterfind("devices/video/model")):
            raise ConflictError(what, "it has no screen", "use `kc vm console`")
        stream = connection.newStream()
        try:
            domain.screenshot(stream, 0)
        except libvirt.libvirtError as error:
            raise _explain_off(error, what) from error
        return stream

    with link.open_channel(what) as channel:
        stream = channel.call(what, begin, PICTURE_SECONDS)
        data = _receive(channel, stream, what, ends)
    try:
        return convert_to_png(data)
    except ValueError as error:
        raise FailedError(what, f"the host sent no picture that could be: {error}", "try again") from error


def read_screen(xml: str) -> Screen | None:
    """Return the VNC server in the XML of a domain that is on, or None."""
    for number, graphics in enumerate(parse(xml).iterfind("devices/graphics")):
        if graphics.get("type") != "vnc":
            continue
        for listen in graphics.iterfind("listen"):
            if listen.get("type") == "socket":
                return Screen(number, listen.get("socket") or graphics.get("socket") or "", "", "")
        port = graphics.get("port", "")
        host = next((listen.get("address", "") for listen in graphics.iterfind("listen")), "") or "127.0.0.1"
        return Screen(number, graphics.get("socket", ""), host, port if port.isdecimal() else "")
    return None


def _describe(screen: Screen | None) -> str:
    if screen is None:
        return ""
    if screen.socket:
        return f"vnc+unix://{quote(sanitise(screen.socket))}"
    if not screen.port:
        return ""
    host = sanitise(_EVERY_ADDRESS.get(screen.host, screen.host))
    return f"vnc://[{host}]:{screen.port}" if ":" in host else f"vnc://{host}:{screen.port}"


def _advise_tunnel(link: Link, domains: Domains, uid: str) -> str:
    """Return how the screen of another machine is reached."""
    address = find_address(link, domains, uid)
    machine = sanitise(link.uri.partition("://")[2].partition("/")[0]) or "HOST"
    name, _, port = machine.rpartition(":") if machine.rpartition(":")[2].isdecimal() else (machine, "", "")
    options = f"-p {port} {name}" if port else machine
    far = address.partition("://")[2]
    if not far:
        return "start it first"
    if address.startswith("vnc+unix:"):
        return f"`ssh -NL /tmp/kc.sock:{far} {options}`, and a viewer on vnc+unix:///tmp/kc.sock"
    return f"`ssh -NL 5900:{far} {options}`, and a viewer on vnc://127.0.0.1:5900"


def _require(domain: libvirt.virDomain, what: str) -> Screen:
    if not domain.isActive():
        raise _off(what)
    screen = read_screen(domain.XMLDesc())
    if screen is None:
        raise ConflictError(what, "it has no VNC screen", "use `kc vm console`")
    return screen


def _off(what: str) -> ConflictError:
    return ConflictError(what, "it is off and has no screen", "start it first")


def _explain_off(error: libvirt.libvirtError, what: str) -> Exception:
    return _off(what) if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID) else error


def _receive(channel: Channel, stream: libvirt.virStream, what: str, ends: float) -> bytes:
    data = bytearray()
    while chunk := channel.call(what, lambda _: stream.recv(CHUNK_BYTES), max(ends - time.monotonic(), 1.0)):
        if isinstance(chunk, int):
            break
        data += chunk
        if len(data) > LARGEST_BYTES:
            raise FailedError(what, "the host sent a picture without an end", "try again")
        if time.monotonic() > ends:
            raise TimedOutError(what, f"no picture within {PICTURE_SECONDS:.0f} s", "try again")
    channel.call(what, lambda _: stream.finish())
    return bytes(data)


class DisplayStream:
    """Bytes both ways between QEMU's VNC server and one viewer."""

    def __init__(self, line: socket.socket, what: str) -> None:
        self._line = line
        self._what = what
        self._is_closed = False
        # Held while the socket is in use, so that its number is not another file's before all have let go of it.
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        line.settimeout(0)

    def read(self, timeout: float) -> bytes | None:
        """Return what has come, b"" at the end, None when `timeout` seconds brought nothing."""
        with self._reading:
            if self._is_closed:
                return b""
            if not _wait(self._line, select.POLLIN, timeout):
                return None
            try:
                return self._line.recv(READ_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                return b""

    def write(self, data: bytes) -> None:
        """Send what a viewer says; raise ConflictError once the screen is gone, TimedOutError where none is taken."""
        ends = time.monotonic() + WRITE_SECONDS
        rest = memoryview(data)
        with self._writing:
            while rest:
                if self._is_closed:
                    raise self._ended()
                if not _wait(self._line, select.POLLOUT, ends - time.monotonic()):
                    raise TimedOutError(self._what, "its screen takes nothing", "is the guest stuck?")
                try:
                    rest = rest[self._line.send(rest) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise self._ended() from error

    def close(self) -> None:
        """End the stream and wake a reader; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        # QEMU may have gone first.
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        with self._reading, self._writing:
            self._line.close()

    def _ended(self) -> ConflictError:
        return ConflictError(self._what, "its screen has gone", "open it again")


def _wait(line: socket.socket, event: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(line, event)
    return bool(poll.poll(max(timeout, 0) * 1000))
