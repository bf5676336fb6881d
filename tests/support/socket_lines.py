"""WebSockets as a client reads them, each wait with an end."""

from __future__ import annotations

import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection


def read_until(line: ClientConnection, wanted: bytes, seconds: float = 10.0) -> bytes:
    """Return what comes, up to the message that completes `wanted`."""
    received, ends = b"", time.monotonic() + seconds
    while wanted not in received:
        data = line.recv(timeout=max(ends - time.monotonic(), 0.01))
        assert isinstance(data, bytes)
        received += data
    return received


def read_close(line: ClientConnection, seconds: float = 10.0) -> tuple[int, str]:
    """Return the code and the reason with which the server ends it."""
    with pytest.raises(ConnectionClosed) as raised:
        _read_on(line, time.monotonic() + seconds)
    assert raised.value.rcvd is not None
    return raised.value.rcvd.code, raised.value.rcvd.reason


def _read_on(line: ClientConnection, ends: float) -> None:
    while True:
        line.recv(timeout=max(ends - time.monotonic(), 0.01))
