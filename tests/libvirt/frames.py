"""Ethernet frames as guests send them, honest ones and forged ones."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

BROADCAST = "ff:ff:ff:ff:ff:ff"
IPV4, ARP, RARP, VLAN, IPV6, QINQ = 0x0800, 0x0806, 0x8035, 0x8100, 0x86DD, 0x88A8
ICMP, IGMP, UDP, ICMPV6 = 1, 2, 17, 58
HOP_BY_HOP, FRAGMENT, DESTINATION = 0, 44, 60
RS, RA, NS, NA, REDIRECT = 133, 134, 135, 136, 137


def raw_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, protocol: int, payload: bytes, destination: str = BROADCAST) -> bytes:
    return raw_mac(destination) + raw_mac(source) + struct.pack("!H", protocol) + payload


def tagged(frame: bytes, *tags: tuple[int, int]) -> bytes:
    """Return a frame with VLAN tags, (protocol, id) from the outside in."""
    wrapped = b"".join(struct.pack("!HH", protocol, vlan) for protocol, vlan in tags)
    return frame[:12] + wrapped + frame[12:]


def llc(source: str, payload: bytes, destination: str = BROADCAST) -> bytes:
    """Return an IEEE 802.3 frame, which has a length in the place of a protocol."""
    return ethernet(source, len(payload), payload, destination)


def snap(frame: bytes) -> bytes:
    """Return a frame with its protocol in an 802.2 SNAP header."""
    return frame[:12] + struct.pack("!H", len(frame) - 12 + 6) + b"\xaa\xaa\x03\0\0\0" + frame[12:]


def arp(source: str, operation: int, sender: str, target: str, mac: str = "", wire: bytes = b"") -> bytes:
    """Return an ARP message; `mac` is what it says of its sender, `wire` the lengths of its addresses."""
    head = struct.pack("!HH", 1, IPV4) + (wire or b"\x06\x04") + struct.pack("!H", operation)
    body = raw_mac(mac or source) + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return ethernet(source, ARP, head + body)


def ipv4(source: str, sender: str, protocol: int, payload: bytes, to: str = "255.255.255.255", frag: int = 0) -> bytes:
    """Return an IPv4 packet; `frag` is the field of flags and fragment offset."""
    parts = (0x45, 0, 20 + len(payload), 7, frag, 64, protocol)
    ends = IPv4Address(sender).packed + IPv4Address(to).packed
    header = struct.pack("!BBHHHBBH", *parts, 0) + ends
    return ethernet(source, IPV4, struct.pack("!BBHHHBBH", *parts, checksum(header)) + ends + payload)


def udp(sender: int, to: int, payload: bytes = b"data") -> bytes:
    """Return a UDP datagram without a checksum, as IPv4 allows."""
    return struct.pack("!HHHH", sender, to, 8 + len(payload), 0) + payload


def ipv6(source: str, sender: str, protocol: int, payload: bytes, to: str = "ff02::1") -> bytes:
    ends = IPv6Address(sender).packed + IPv6Address(to).packed
    return ethernet(source, IPV6, struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255) + ends + payload)


def icmpv6(source: str, sender: str, kind: int, body: bytes = bytes(4), to: str = "ff02::1") -> bytes:
    return ipv6(source, sender, ICMPV6, icmpv6_message(sender, kind, body, to), to)


def icmpv6_message(sender: str, kind: int, body: bytes, to: str = "ff02::1") -> bytes:
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = IPv6Address(sender).packed + IPv6Address(to).packed + struct.pack("!II", len(message), ICMPV6)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def discovery(target: str, option: int = 0, mac: str = "") -> bytes:
    """Return what follows the checksum in a neighbour solicitation or advertisement."""
    return bytes(4) + IPv6Address(target).packed + link_layer(option, mac)


def link_layer(option: int, mac: str) -> bytes:
    return bytes([option, 1]) + raw_mac(mac) if mac else b""


def advertisement(sender: str) -> bytes:
    """Return a router's advertisement as a message, with itself as the default router for half an hour."""
    return icmpv6_message(sender, RA, struct.pack("!BBHII", 64, 0, 1800, 0, 0))


def options(following: int, units: int = 0) -> bytes:
    """Return an extension header of IPv6 full of padding, 8 octets and `units` more of them."""
    return bytes([following, units, 1, 4 + 8 * units if units < 32 else 252]) + bytes(4 + 8 * units)


def fragment(following: int, offset: int, *, more: bool) -> bytes:
    """Return the header of a fragment; `offset` in octets."""
    return struct.pack("!BBHI", following, 0, offset | more, 77)


def dhcp_answer(server: str) -> bytes:
    """Return a DHCP offer as a datagram."""
    return udp(67, 68, b"\x02\x01\x06\x00" + bytes(16) + ip_address(server).packed + bytes(216) + b"\x63\x82\x53\x63")


def dhcp_question() -> bytes:
    """Return a DHCP discovery as a datagram."""
    return udp(68, 67, b"\x01\x01\x06\x00" + bytes(232) + b"\x63\x82\x53\x63")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
