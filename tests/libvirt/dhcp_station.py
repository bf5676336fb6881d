"""A station on a network that asks for an address by DHCP (RFC 2131), on raw frames: it needs no address before."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv4Address

BROADCAST = b"\xff" * 6
MAGIC = b"\x63\x82\x53\x63"
IPV4 = 0x0800
OFFER, ACK = 2, 5
UDP_PAYLOAD = 14 + 20 + 8
DHCP_OPTIONS = UDP_PAYLOAD + 240


def ask_for_address(interface: str, mac: str, seconds: float = 30) -> IPv4Address:
    """Take a lease and return its address; raise TimeoutError."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    transaction = os.urandom(4)
    client = bytes([61, 7, 1]) + hardware
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(IPV4)) as wire:
        wire.bind((interface, IPV4))
        wire.settimeout(1)
        ends = time.monotonic() + seconds
        request = bytes([53, 1, 1]) + client
        while time.monotonic() < ends:
            wire.send(_frame(hardware, transaction, request))
            answer = _receive(wire, transaction)
            if answer is None:
                continue
            kind, address, server = answer
            if kind == ACK:
                return address
            if kind == OFFER:
                request = bytes([53, 1, 3]) + client + bytes([50, 4]) + address.packed + bytes([54, 4]) + server
    raise TimeoutError(f"no lease for {mac}")


def _frame(hardware: bytes, transaction: bytes, options: bytes) -> bytes:
    message = struct.pack("!BBBB4sHH16x16s64x128x", 1, 1, 6, 0, transaction, 0, 0x8000, hardware)
    message += MAGIC + options + b"\xff"
    datagram = struct.pack("!HHHH", 68, 67, 8 + len(message), 0) + message
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, b"\0" * 4, b"\xff" * 4)
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return BROADCAST + hardware + struct.pack("!H", IPV4) + header + datagram


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _receive(wire: socket.socket, transaction: bytes) -> tuple[int, IPv4Address, bytes] | None:
    """Return the kind, address and server of the next answer to us, or None."""
    ends = time.monotonic() + 4  # the server pings an address before it offers it
    while time.monotonic() < ends:
        try:
            frame = wire.recv(2048)
        except TimeoutError:
            continue
        message = frame[UDP_PAYLOAD:]
        if frame[23:24] != b"\x11" or message[4:8] != transaction or message[:1] != b"\x02":
            continue
        options = _read_options(frame[DHCP_OPTIONS:])
        return options[53][0], IPv4Address(message[16:20]), options[54]
    return None


def _read_options(data: bytes) -> dict[int, bytes]:
    options = {}
    while data and data[0] != 0xFF:
        if data[0] == 0:
            data = data[1:]
            continue
        options[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return options
