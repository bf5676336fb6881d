"""A DHCPv6 lease given back for a guest that is gone (RFC 8415, sections 18.2.6 and 18.2.7)."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv6Address
from typing import Any

ANSWER_SECONDS = 2.0
CLIENT_PORT, SERVER_PORT = 546, 547
_ALL_SERVERS = "ff02::1:2"
_INFORMATION_REQUEST, _REPLY, _RELEASE = 11, 7, 8
_CLIENT, _SERVER, _ADDRESSES, _ADDRESS, _ELAPSED = 1, 2, 3, 5, 8
_HEAD = 4


def send_release(lease: dict[str, Any], bridge: str) -> bool:
    """Release a lease as its client would, from the bridge; False where that cannot be done."""
    try:
        address, client = IPv6Address(str(lease.get("ipaddr"))), _bytes(lease.get("clientid"))
        association = int(str(lease.get("iaid") or 0))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as channel:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
            channel.bind(("::", CLIENT_PORT))
            channel.settimeout(ANSWER_SECONDS)
            there = (_ALL_SERVERS, SERVER_PORT, 0, socket.if_nametoindex(bridge))
            server = _find_server(channel, there, client)
            if server:
                channel.sendto(build_release(address, server, client, association), there)
    except (OSError, ValueError, struct.error):
        return False
    return bool(server)


def build_release(address: IPv6Address, server: bytes, client: bytes, association: int) -> bytes:
    """Return a message that gives an address back; `server` and `client` are DUIDs, `association` is the client's."""
    given = struct.pack("!III", association, 0, 0) + _option(_ADDRESS, address.packed + struct.pack("!II", 0, 0))
    options = _option(_CLIENT, client) + _option(_SERVER, server) + _option(_ELAPSED, b"\0\0")
    return _head(_RELEASE) + options + _option(_ADDRESSES, given)


def read_server(message: bytes, transaction: bytes) -> bytes:
    """Return the DUID of the server whose answer this is; empty where it is something else."""
    if message[:1] != bytes([_REPLY]) or message[1:_HEAD] != transaction:
        return b""
    rest = message[_HEAD:]
    while len(rest) >= _HEAD:
        code, size = struct.unpack("!HH", rest[:_HEAD])
        if code == _SERVER:
            return rest[_HEAD : _HEAD + size]
        rest = rest[_HEAD + size :]
    return b""


def _find_server(channel: socket.socket, there: tuple[str, int, int, int], client: bytes) -> bytes:
    """Ask the server of a segment who it is."""
    request = _head(_INFORMATION_REQUEST) + _option(_CLIENT, client) + _option(_ELAPSED, b"\0\0")
    channel.sendto(request, there)
    return read_server(channel.recv(4096), request[1:_HEAD])


def _head(kind: int) -> bytes:
    return bytes([kind]) + os.urandom(3)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def _bytes(text: object) -> bytes:
    """Return colon-separated hexadecimal as bytes."""
    return bytes.fromhex(str(text or "").replace(":", ""))
