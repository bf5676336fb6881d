"""The sockets that the server listens on, bound by KC itself: uvicorn would let everybody write to a unix socket."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from backend.errors import ConflictError, FailedError, NotFoundError, UsageError
from backend.paths import make_private
from backend.text import sanitise

DEFAULT_ADDRESS: Final = "127.0.0.1:8470"
_FIRST_INHERITED = 3
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65535
_HIGHEST_MODE = 0o777


class Listener:
    """A socket that listens; `is_secure` ones speak TLS. `close` it at the end, which takes a unix socket away."""

    def __init__(
        self, bound: socket.socket, *, is_secure: bool = False, path: Path | None = None, lock: int = -1
    ) -> None:
        self.socket = bound
        self.is_secure = is_secure
        self._path = path
        self._lock = lock
        self._inode = path.stat().st_ino if path is not None else 0

    @property
    def label(self) -> str:
        """Where it is reached, as people write it."""
        if self.socket.family == socket.AF_UNIX:
            return f"unix:{sanitise(self._path or self.socket.getsockname(), 200)}"
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.is_secure else 'http'}://{shown}:{port}"

    def close(self) -> None:
        """Listen no more; a second call does nothing."""
        self.socket.close()
        if self._path is not None:
            with suppress(OSError):
                # Another server that came meanwhile has its own there.
                if self._path.lstat().st_ino == self._inode:
                    self._path.unlink()
            self._path = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Return `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (all addresses); raise UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        raise UsageError(f"address {sanitise(text, 80)!r}", "it is no HOST:PORT", f"write it like {DEFAULT_ADDRESS}")
    return Address(match["six"] or match["host"] or "", int(match["port"]))


def bind_tcp(text: str, *, is_secure: bool, is_insecure: bool) -> list[Listener]:
    """Return the sockets bound to an address; raise UsageError where credentials would cross a network in the clear.

    `is_insecure` allows that. Raises ConflictError where somebody else listens there, FailedError.
    """
    address = parse_address(text)
    try:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise FailedError(f"address {sanitise(text, 80)}", str(error.strerror).lower(), "name another one") from error
    if not is_secure and not is_insecure:
        for entry in found:
            _check_loopback(str(entry[4][0]), text)
    listeners: list[Listener] = []
    try:
        listeners.extend(Listener(_bind(entry), is_secure=is_secure) for entry in dict.fromkeys(found))
    except OSError as error:
        for listener in listeners:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(f"address {text}", "somebody listens there", "choose another port") from error
        raise FailedError(f"address {text}", str(error.strerror).lower(), "choose another address") from error
    return listeners


def _check_loopback(host: str, text: str) -> None:
    """Raise UsageError for a host that is not this machine alone."""
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_loopback:
        raise UsageError(
            f"address {sanitise(text, 80)}", "credentials would cross the network in the clear",
            "give --tls-cert and --tls-key, or --insecure where another thing encrypts",
        )  # fmt: skip


def _bind(entry: tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]) -> socket.socket:
    family, kind, protocol, _, address = entry
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.setblocking(False)  # noqa: FBT003 - the socket's own signature
    except OSError:
        bound.close()
        raise
    return bound


def bind_unix(path: Path, *, mode: int = 0o660, group: str = "") -> Listener:
    """Return a unix socket at `path` that nobody but its owner and group can ever reach.

    One that a server left is removed, under a lock, so that two that begin at once are not taken for that. Raises
    ConflictError where a server listens there or something else stands there, NotFoundError for a group, FailedError.
    """
    if not 0 <= mode <= _HIGHEST_MODE:
        raise UsageError("mode", f"{mode:o} is no mode of a socket", "write 0660")
    if not path.parent.exists():
        make_private(path.parent)
    gid = _find_group(group) if group else -1
    lock = _take_lock(path)
    try:
        _remove_stale(path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Whatever the process's own mask is: the moment between bind and chmod is nobody else's.
        before = os.umask(0o177)
        try:
            bound.bind(os.fspath(path))
        finally:
            os.umask(before)
        os.chown(path, -1, gid)
        path.chmod(mode)
        bound.setblocking(False)  # noqa: FBT003 - as above
        return Listener(bound, path=path, lock=lock)
    except OSError as error:
        os.close(lock)
        raise FailedError(f"socket {path}", str(error.strerror or error).lower(), "name another path") from error
    except ConflictError:
        os.close(lock)
        raise


def _find_group(name: str) -> int:
    import grp  # noqa: PLC0415 - few name one

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise NotFoundError(f"group {sanitise(name, 60)}", "there is no such group", "groupadd makes one") from None


def _take_lock(path: Path) -> int:
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise FailedError(f"socket {path}", str(error.strerror).lower(), "name another path") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConflictError(f"socket {path}", "another server listens there", "end it, or name another path") from None
    return descriptor


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConflictError(f"socket {path}", "something else stands there", "name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise ConflictError(f"socket {path}", "something listens there", "end it, or name another path")


def take_inherited(*, is_secure: bool, is_insecure: bool) -> list[Listener]:
    """Return the sockets that systemd handed over (sd_listen_fds(3)), none where it did not.

    Raises UsageError for those that are none, and like `bind_tcp`.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    given = os.environ.pop("LISTEN_FDS", "0")
    del os.environ["LISTEN_PID"]
    listeners: list[Listener] = []
    try:
        listeners.extend(
            _take(descriptor, is_secure=is_secure, is_insecure=is_insecure)
            for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(given))
        )
    except (OSError, ValueError) as error:
        raise UsageError("LISTEN_FDS", f"{sanitise(given, 40)!r} are no sockets", "start KC by its unit") from error
    return listeners


def _take(descriptor: int, *, is_secure: bool, is_insecure: bool) -> Listener:
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - its own signature
    inherited = socket.socket(fileno=descriptor)
    inherited.setblocking(False)  # noqa: FBT003 - as above
    listener = Listener(inherited, is_secure=is_secure and inherited.family != socket.AF_UNIX)
    if inherited.family != socket.AF_UNIX and not is_secure and not is_insecure:
        _check_loopback(str(inherited.getsockname()[0]), listener.label)
    return listener


def notify(state: str) -> None:
    """Tell systemd how the service is (sd_notify(3)), where it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told, suppress(OSError):
        told.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
