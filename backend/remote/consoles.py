"""A console, or a screen, over a WebSocket (RFC 6455) of binary frames."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from backend.errors import DeniedError, KCError, UnreachableError
from backend.remote.answers import read_error
from backend.remote.tls import CONNECT_SECONDS, CertificateChangedError, describe_failure
from backend.remote.transport import Transport
from backend.text import sanitise

if TYPE_CHECKING:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import ClientConnection

# A console of a VM that is being started is opened once it has started.
OPEN_SECONDS = 75.0
_CLOSE_SECONDS = 2.0
_PING_SECONDS = 10.0
# The codes with which a server ends a stream; see `backend.api.sockets`.
_NORMAL, _UNAUTHENTICATED, _FORBIDDEN = 1000, 4401, 4403
_PIECE_BYTES = 32 << 10


class RemoteStream:
    """Bytes both ways; see `backend.service.ConsoleStream`."""

    def __init__(self, connection: ClientConnection, what: str, where: str) -> None:
        self._connection = connection
        self._what = what
        self._where = where
        self._closing = threading.Event()

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes, b"" at the end, None where `timeout` seconds brought nothing."""
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - consoles alone speak it

        if self._closing.is_set():
            return b""
        try:
            data = self._connection.recv(timeout=max(0.0, timeout))
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            return self._end(closed)
        # An empty message is no end.
        return (data.encode() if isinstance(data, str) else data) or None

    def _end(self, closed: ConnectionClosed) -> bytes:
        code = closed.rcvd.code if closed.rcvd is not None else 0
        reason = sanitise(closed.rcvd.reason if closed.rcvd is not None else "", 200)
        if self._closing.is_set() or code == _NORMAL:
            return b""
        if code in (_UNAUTHENTICATED, _FORBIDDEN):
            raise DeniedError(self._what, reason or "it is not allowed any more", "log in anew")
        why = reason or f"the line to {self._where} is lost"
        raise UnreachableError(self._what, why, "open it again", transient=True)

    def write(self, data: bytes) -> None:
        """Send bytes to the guest."""
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - as above

        try:
            # A server takes no large messages.
            for start in range(0, len(data), _PIECE_BYTES):
                self._connection.send(data[start : start + _PIECE_BYTES])
        except ConnectionClosed as error:
            raise UnreachableError(self._what, "it has ended") from error

    def close(self) -> None:
        """End the stream; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._connection.close()


def open_stream(transport: Transport, path: str, what: str) -> RemoteStream:
    """Open a WebSocket; raise the error that the server answers, or UnreachableError."""
    from websockets.client import ClientProtocol  # noqa: PLC0415 - as above
    from websockets.sync.client import ClientConnection  # noqa: PLC0415 - as above
    from websockets.uri import parse_uri  # noqa: PLC0415 - as above

    address = transport.options.address
    scheme = "wss" if address.is_secure else "ws"
    protocol = ClientProtocol(parse_uri(f"{scheme}://{address.authority}{address.path}{path}"), max_size=None)
    headers = {name: value.decode("latin-1") for name, value in transport.credential_header().items()}
    connection = ClientConnection(
        _connect(transport),
        protocol,
        ping_interval=_PING_SECONDS,
        ping_timeout=_PING_SECONDS,
        close_timeout=_CLOSE_SECONDS,
    )
    try:
        _shake_hands(transport, connection, headers)
    except BaseException:
        connection.close_socket()
        connection.recv_events_thread.join(_CLOSE_SECONDS)
        raise
    # Entered, as the library wants it; `close` is what leaving would do.
    connection.__enter__()
    return RemoteStream(connection, what, address.label)


def _shake_hands(transport: Transport, connection: ClientConnection, headers: dict[str, str]) -> None:
    from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus  # noqa: PLC0415 - as above

    options = transport.options
    try:
        connection.handshake(headers, None, OPEN_SECONDS)
    except InvalidStatus as refusal:
        answer = refusal.response
        known = {name.lower(): value for name, value in answer.headers.raw_items()}
        raise read_error(options, answer.status_code, known, bytes(answer.body or b"")) from refusal
    except TimeoutError as error:
        raise UnreachableError(options.address.label, "it does not answer", transient=True) from error
    except (InvalidHandshake, InvalidMessage, EOFError, OSError) as error:
        why = "the connection ended before the answer did"
        raise UnreachableError(options.address.label, why, "try again in a moment", transient=True) from error


def _connect(transport: Transport) -> socket.socket:
    """Return a connected socket, the server's certificate judged."""
    options = transport.options
    try:
        return _connect_secure(transport) if options.address.is_secure else _connect_plain(transport)
    except CertificateChangedError as error:
        raise transport.describe_change(error) from error
    except OSError as error:
        hint = "see that kc serve runs there, and the URL"
        raise UnreachableError(options.address.label, describe_failure(error), hint, transient=True) from error


def _connect_plain(transport: Transport) -> socket.socket:
    address = transport.options.address
    if not address.socket:
        connection = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
        # A key goes on its way at once.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(address.socket)
        except OSError:
            connection.close()
            raise
    connection.settimeout(None)
    return connection


def _connect_secure(transport: Transport) -> socket.socket:
    plain = _connect_plain(transport)
    try:
        plain.settimeout(CONNECT_SECONDS)
        secure = transport.make_context().wrap_socket(plain, server_hostname=transport.options.address.host)
    except (OSError, KCError):
        with suppress(OSError):
            plain.close()
        raise
    secure.settimeout(None)
    return secure
