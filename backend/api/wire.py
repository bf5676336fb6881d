"""uvicorn's protocol with what KC adds: who is at the other end, and an end to whoever sends a head for too long."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.api.gate import CHECK_PATH
from backend.auth.protocol import Peer

HEAD_BYTES = 64 << 10
HEAD_FIELDS = 100
HEAD_SECONDS = 10.0
_UCRED = struct.Struct("3i")


class Protocol(HttpToolsProtocol):
    """One connection; `scope["state"]` has `peer` on a unix socket, `tls_fingerprint` where there was a certificate."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who is at the other end, and begin to wait for the first head."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, **_identify(transport)}
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Count a new head."""
        super().on_message_begin()
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Count a part of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > HEAD_FIELDS:
            self._count(HEAD_BYTES + 1)

    def on_headers_complete(self) -> None:
        """End the wait for a head."""
        self._stop_waiting()
        super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        """Say no to a proxy that asks for somebody else's WebSocket: Caddy's question looks like one itself."""
        return self.url.partition(b"?")[0] != CHECK_PATH.encode() and super()._should_upgrade()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            # The parser makes of it what it makes of every head that is none: 400, and the connection ends.
            msg = "the head is too large"
            raise ValueError(msg)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()


def _identify(transport: asyncio.Transport) -> dict[str, Any]:
    found: socket.socket | None = transport.get_extra_info("socket")
    if found is not None and found.family == socket.AF_UNIX:
        packed = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return {"peer": Peer(*_UCRED.unpack(packed))}
    secured = transport.get_extra_info("ssl_object")
    certificate = secured.getpeercert(binary_form=True) if secured is not None else None
    if not certificate:
        return {}
    digest = base64.b64encode(hashlib.sha256(certificate).digest()).decode().rstrip("=")
    return {"tls_fingerprint": f"SHA256:{digest}"}
