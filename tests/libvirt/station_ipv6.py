"""What a station on a link hears of IPv6; run as `python station_ipv6.py KIND INTERFACE [DUID [NAME]]`.

Of the kinds, `ra` asks for a router advertisement (RFC 4861), `information` for everything but an address (RFC 8415),
`solicit` takes an address. The answer is one line of JSON; `null` where nobody answers.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

ALL_ROUTERS, ALL_SERVERS = "ff02::2", "ff02::1:2"
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
SOLICIT, ADVERTISE, REQUEST, REPLY, INFORMATION_REQUEST = 1, 2, 3, 7, 11
DNS_SERVERS, DOMAIN_LIST, SNTP, NTP = 23, 24, 31, 56
RETRY_SECONDS, TRIES = 1.0, 4


def hear_router(interface: str) -> dict[str, Any] | None:
    """Return what the first advertisement says that answers ours."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as wire:
        index = socket.if_nametoindex(interface)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for _ in range(TRIES):
            wire.sendto(struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0), (ALL_ROUTERS, 0, 0, index))
            for data in receive(wire):
                if data[0] == ROUTER_ADVERTISEMENT:
                    return read_advertisement(data)
    return None


def receive(wire: socket.socket) -> list[bytes]:
    """Return what comes in the time of one try, ended by the first."""
    wire.settimeout(RETRY_SECONDS)
    try:
        return [wire.recv(4096)]
    except TimeoutError:
        return []


def read_advertisement(data: bytes) -> dict[str, Any]:
    """Return an advertisement's fields; source: RFC 4861 section 4.2, RFC 8106."""
    flags, lifetime = struct.unpack("!BH", data[5:8])
    found: dict[str, Any] = {
        "lifetime": lifetime, "managed": bool(flags & 0x80), "other": bool(flags & 0x40), "mtu": 0, "prefixes": [],
        "dns": [], "search": [],
    }  # fmt: skip
    rest = data[16:]
    while len(rest) >= 8 and rest[1]:
        option = rest[: rest[1] * 8]
        rest = rest[rest[1] * 8 :]
        if option[0] == 3:
            found["prefixes"].append({
                "prefix": f"{IPv6Address(option[16:32])}/{option[2]}", "on_link": bool(option[3] & 0x80),
                "autonomous": bool(option[3] & 0x40),
            })  # fmt: skip
        elif option[0] == 5:
            found["mtu"] = struct.unpack("!I", option[4:8])[0]
        elif option[0] == 25:
            found["dns"] += read_addresses(option[8:])
        elif option[0] == 31:
            found["search"] += read_names(option[8:])
    return found


def read_addresses(data: bytes) -> list[str]:
    """Return the addresses in a list of them."""
    return [str(IPv6Address(data[at : at + 16])) for at in range(0, len(data) - 15, 16)]


def read_names(data: bytes) -> list[str]:
    """Return the names of a list of them, as DNS writes them."""
    names: list[str] = []
    labels: list[str] = []
    while data:
        size, data = data[0], data[1:]
        if size:
            labels.append(data[:size].decode())
            data = data[size:]
        elif labels:
            names.append(".".join(labels))
            labels = []
    return names


def ask_server(interface: str, kind: str, duid: str, name: str) -> dict[str, Any] | None:
    """Return what a DHCPv6 server answers to an information request, or what address it gives."""
    identity = bytes.fromhex(duid.replace(":", "")) if duid else b"\0\3\0\1" + hardware_address(interface)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        wire.bind(("::", 546, 0, socket.if_nametoindex(interface)))
        common = (
            option(1, identity)
            + option(8, b"\0\0")
            + option(6, struct.pack("!4H", DNS_SERVERS, DOMAIN_LIST, SNTP, NTP))
        )
        common += option(39, b"\0" + bytes([len(name)]) + name.encode()) if name else b""
        if kind == "information":
            return exchange(wire, interface, INFORMATION_REQUEST, common)
        wants = common + option(3, struct.pack("!III", 1, 0, 0))
        offer = exchange(wire, interface, SOLICIT, wants)
        if offer is None or not offer["address"]:
            return offer
        return exchange(wire, interface, REQUEST, wants + option(2, bytes.fromhex(offer["server"])))


def hardware_address(interface: str) -> bytes:
    """Return an interface's MAC."""
    return bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text().strip().replace(":", ""))


def option(code: int, value: bytes) -> bytes:
    """Return an option of DHCPv6."""
    return struct.pack("!HH", code, len(value)) + value


def exchange(wire: socket.socket, interface: str, kind: int, options: bytes) -> dict[str, Any] | None:
    """Send a message until it is answered, and return the answer."""
    transaction = os.urandom(3)
    for _ in range(TRIES):
        wire.sendto(bytes([kind]) + transaction + options, (ALL_SERVERS, 547, 0, socket.if_nametoindex(interface)))
        for data in receive(wire):
            if data[0] in (ADVERTISE, REPLY) and data[1:4] == transaction:
                return read_answer(data[4:])
    return None


def read_answer(data: bytes) -> dict[str, Any]:
    """Return an answer's fields."""
    found: dict[str, Any] = {"address": "", "lease": 0, "server": "", "dns": [], "search": [], "sntp": [], "ntp": []}
    for code, value in read_options(data):
        if code == 2:
            found["server"] = value.hex()
        elif code == 3:
            for inner, content in read_options(value[12:]):
                if inner == 5:
                    found["address"] = str(IPv6Address(content[:16]))
                    found["lease"] = struct.unpack("!I", content[20:24])[0]
        elif code in (DNS_SERVERS, SNTP):
            found["dns" if code == DNS_SERVERS else "sntp"] += read_addresses(value)
        elif code == DOMAIN_LIST:
            found["search"] += read_names(value)
        elif code == NTP:
            found["ntp"] += [
                address for inner, content in read_options(value) if inner == 1 for address in read_addresses(content)
            ]
    return found


def read_options(data: bytes) -> list[tuple[int, bytes]]:
    """Return the options in a message."""
    found = []
    while len(data) >= 4:
        code, size = struct.unpack("!HH", data[:4])
        found.append((code, data[4 : 4 + size]))
        data = data[4 + size :]
    return found


def main() -> None:
    """Ask, and print the answer."""
    kind, interface, *rest = sys.argv[1:]
    duid, name = [*rest, "", ""][:2]
    answer = hear_router(interface) if kind == "ra" else ask_server(interface, kind, duid, name)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
