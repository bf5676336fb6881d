"""From the guard of a NIC to nftables rules of the bridge family; pure text.

What is checked of a frame is checked whatever it is wrapped in. The kernel takes one VLAN tag off before these rules
see the frame, so every rule asks `meta protocol` first: nftables' own idea of a frame's protocol, `ether type`, is the
tag's. What hides a protocol deeper, and which some receivers unwrap nevertheless, is dropped where anything is checked:
tags on tags, and 802.2 frames (CVE-2021-27853 and its kin), with these a guest's spanning tree, unless the bridge has
one itself, which no rule sees. Where addresses are checked, nothing but IPv4, IPv6, ARP and RARP gets through. Behind
IPv6's extension headers nftables finds what is to be found; dropped is a first fragment without the head of what it
carries (RFC 7112), and neighbour discovery in fragments (RFC 6980). Later fragments pass, from the addresses that are
allowed: they are of no use without the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from backend.errors import RefusedError
from backend.network.plan import PortGuard
from backend.text import sanitise

REASONS = ("mac", "protocol", "ipv4", "ipv6", "dhcp-server", "router", "send-rate", "receive-rate")
"""Why frames are dropped; `protocol` is what cannot be checked."""
DROPS = "drops"
# A frame with the segmentation still to be done (GSO) is up to 64 KiB, and has to fit at any rate. nftables lets a
# second's worth through on top.
BURST_BYTES = 65536
# The kernel's arithmetic ends a little above: 2^64 nanoseconds' worth. No virtual NIC is as fast.
LARGEST_RATE = 1 << 34

_UID = re.compile(r"[0-9a-f]{32}")
_TAP = re.compile(r"[a-z][a-z0-9]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_CHAIN = re.compile(r"vm_(?P<uid>[0-9a-f]{32})_(?P<tap>[a-z][a-z0-9]{0,14})_(send|receive)")
# Before br_netfilter (0) shows the frame to the host's own firewall and connection tracking.
_FIRST, _LAST = -300, 300
_ARP, _IPV4, _IPV6 = "meta protocol arp", "meta protocol ip", "meta protocol ip6"
_RARP = "0x8035"
_ICMPV6 = f"{_IPV6} meta l4proto ipv6-icmp icmpv6 type"
# What a host without an address says: multicast listening, the search for routers, the check for duplicates.
_UNSPECIFIED_MAY = ("131-133", "135", "143")


class Rule(NamedTuple):
    """What becomes of the frames that match: dropped for a reason, or let through without further questions."""

    match: str
    reason: str = ""


class Port(NamedTuple):
    """A NIC that has a guard: its VM's uid as 32 hex digits, and its device."""

    uid: str
    tap: str


class _Allowed(NamedTuple):
    """The addresses of one family that a NIC may use."""

    family: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    any_link_local: bool = False

    def no_source(self) -> str:
        """Return what matches a packet from another address."""
        field = "ip saddr" if self.family == "ipv4" else "ip6 saddr"
        link_local = " ip6 saddr != fe80::/10" if self.any_link_local else ""
        return f"{_unlike(field, self.addresses)}{link_local}"

    def no_target(self) -> str:
        """Return what matches neighbour discovery for another address."""
        link_local = " @th,64,16 & 0xffc0 != 0xfe80" if self.any_link_local else ""
        return f"{_unlike('@th,64,128', (f'0x{int(each):032x}' for each in self.addresses))}{link_local}"


def table_of(owner: str) -> str:
    """Return the name of an owner's table; owners that were born at the same time begin alike, their digests do not."""
    return f"kc_{hashlib.sha256(owner.encode()).hexdigest()[:10]}"


def plain_uid(uid: str) -> str:
    """Return a VM's uid as 32 hex digits; raise RefusedError for what is none."""
    return _check(_UID, uid.replace("-", "").lower(), "the uid of a VM")


def read_port(chain: str) -> Port | None:
    """Return the NIC that a chain is of, by its name; None of a chain that is no guard's."""
    found = _CHAIN.fullmatch(chain)
    return Port(found["uid"], found["tap"]) if found else None


def is_guarding(guard: PortGuard) -> bool:
    """Return whether a guard stops anything."""
    return next(rules_for_sent(guard), None) is not None or next(rules_for_received(guard), None) is not None


def build_frame(table: str) -> list[str]:
    """Return the commands that have the table be there, and lead each frame to its NIC's rules by one look-up."""
    lines = [f"add table bridge {table}"]
    lines += [f"add map bridge {table} {direction} {{ type ifname : verdict; }}" for direction in ("send", "receive")]
    # By device and reason. Counters here outlive the rules, and are read without these, which takes nft its time.
    lines.append(f"add set bridge {table} {DROPS} {{ type ifname . mark; size 65536; flags dynamic; counter; }}")
    hooks = (
        ("from_guests", "prerouting", _FIRST, "iifname vmap @send"),
        ("to_guests", "postrouting", _LAST, "oifname vmap @receive"),
    )
    for name, hook, priority, rule in hooks:
        lines += [
            f"add chain bridge {table} {name} {{ type filter hook {hook} priority {priority}; policy accept; }}",
            f"flush chain bridge {table} {name}",
            f"add rule bridge {table} {name} {rule}",
        ]
    return lines


def build_port(table: str, uid: str, guard: PortGuard) -> list[str]:
    """Return the commands that bring one NIC to its guard, whatever was there of it; counters go on counting.

    Raises RefusedError for a MAC, an address or a device's name that is none.
    """
    port = Port(plain_uid(uid), _check(_TAP, guard.tap, "the name of a NIC's device"))
    sent, received = list(rules_for_sent(guard)), list(rules_for_received(guard))
    reasons = {rule.reason for rule in (*sent, *received)}
    lines = [*_chain(table, port, "send", "iifname", sent), *_chain(table, port, "receive", "oifname", received)]
    for number, reason in enumerate(REASONS):
        counter = f'element bridge {table} {DROPS} {{ "{port.tap}" . {number} }}'
        # What may not be there is made first, as nothing else can be removed.
        lines += [f"add {counter}", *([] if reason in reasons else [f"delete {counter}"])]
    return lines


def remove_port(table: str, port: Port) -> list[str]:
    """Return the commands that leave nothing of a NIC's guard."""
    return build_port(table, port.uid, PortGuard(port.tap, ""))


def _chain(table: str, port: Port, direction: str, key: str, rules: Sequence[Rule]) -> list[str]:
    name = f"vm_{port.uid}_{port.tap}_{direction}"
    chain, entry = f"bridge {table} {name}", f'bridge {table} {direction} {{ "{port.tap}" : goto {name} }}'
    lines = [f"add chain {chain}", f"flush chain {chain}", f"add element {entry}"]
    if not rules:
        return [*lines, f"delete element {entry}", f"delete chain {chain}"]
    for match, reason in rules:
        # The counter is there already: one that could not be made would let the frame through.
        verdict = f"update @{DROPS} {{ {key} . {REASONS.index(reason)} }} drop" if reason else "accept"
        lines.append(f"add rule {chain} {match} {verdict}")
    return lines


def rules_for_received(guard: PortGuard) -> Iterator[Rule]:
    """Yield what becomes of frames to a guest."""
    yield from _limit(guard.receive_rate, "receive-rate")


def rules_for_sent(guard: PortGuard) -> Iterator[Rule]:
    """Yield what becomes of frames from a guest, the first that matches first."""
    yield from _limit(guard.send_rate, "send-rate")
    knows_addresses = guard.ipv4 is not None or guard.ipv6 is not None
    if not (guard.mac_only or knows_addresses or guard.no_dhcp_server or guard.no_router):
        return
    if guard.mac_only:
        yield Rule(f"ether saddr != {_mac(guard)}", "mac")
    if knows_addresses:
        yield Rule(_unlike("meta protocol", ("arp", "ip", "ip6", _RARP)), "protocol")
    else:
        yield from (Rule(f"meta protocol {hidden}", "protocol") for hidden in ("8021q", "8021ad", "<= 0x05ff"))
    ipv4, ipv6 = _allow_ipv4(guard), _allow_ipv6(guard)
    yield from _pass_later_fragments(ipv4, ipv6)
    if guard.no_dhcp_server:
        # A client takes its answer from any port.
        yield Rule(f"{_IPV4} udp dport 68", "dhcp-server")
        yield Rule(f"{_IPV6} udp dport 546", "dhcp-server")
    if guard.no_router:
        yield from (Rule(f"{_ICMPV6} {kind}", "router") for kind in ("nd-router-advert", "nd-redirect"))
        yield from (Rule(f"{_IPV4} icmp type {kind}", "router") for kind in ("router-advertisement", "redirect"))
    yield Rule(f"{_IPV6} exthdr frag exists meta l4proto ipv6-icmp icmpv6 type 133-137", "protocol")
    if guard.mac_only:
        yield from _check_link_layer_addresses(_mac(guard))
    if ipv4 is not None:
        yield from _check_ipv4(ipv4)
    if ipv6 is not None:
        yield from _check_ipv6(ipv6)
    yield Rule(f"{_IPV6} @th,0,32 >= 0")
    yield Rule(_IPV6, "protocol")


def _pass_later_fragments(ipv4: _Allowed | None, ipv6: _Allowed | None) -> Iterator[Rule]:
    """Yield what lets the later fragments of packets go on, from the addresses that are allowed.

    nftables takes what is in them for the head of what they are a part of.
    """
    for later, allowed in (
        (f"{_IPV4} ip frag-off & 0x1fff != 0", ipv4),
        (f"{_IPV6} frag frag-off != 0 meta l4proto 0-255", ipv6),
    ):
        if allowed is not None:
            yield Rule(f"{later} {allowed.no_source()}", allowed.family)
        yield Rule(later)


def _limit(rate: int, reason: str) -> Iterator[Rule]:
    if 0 < rate < LARGEST_RATE:
        yield Rule(f"limit rate over {rate:d} bytes/second burst {BURST_BYTES} bytes", reason)


def _check_link_layer_addresses(mac: str) -> Iterator[Rule]:
    """Yield what stops ARP and neighbour discovery (RFC 4861, section 4) that tell another MAC than the NIC's own."""
    digits = mac.replace(":", "")
    yield Rule(f"{_ARP} arp hlen != 6", "protocol")
    yield Rule(f"{_ARP} arp plen != 4", "protocol")
    yield Rule(f"{_ARP} arp saddr ether != {mac}", "mac")
    yield Rule(f"{_ICMPV6} nd-router-solicit @th,64,16 0x0101 @th,80,48 != 0x{digits}", "mac")
    yield Rule(f"{_ICMPV6} nd-neighbor-solicit @th,192,16 0x0101 @th,208,48 != 0x{digits}", "mac")
    yield Rule(f"{_ICMPV6} nd-neighbor-advert @th,192,64 != 0x0201{digits}", "mac")


def _check_ipv4(allowed: _Allowed) -> Iterator[Rule]:
    if not allowed.addresses:
        yield Rule(_ARP, "ipv4")
        yield Rule(_IPV4, "ipv4")
        return
    # The check for duplicates (RFC 5227) asks from no address for the one that it is about to use.
    yield Rule(f"{_ARP} arp saddr ip 0.0.0.0 {_unlike('arp daddr ip', allowed.addresses)}", "ipv4")
    yield Rule(f"{_ARP} arp saddr ip != 0.0.0.0 {_unlike('arp saddr ip', allowed.addresses)}", "ipv4")
    yield Rule(f"{_IPV4} ip saddr 0.0.0.0 udp sport 68 udp dport 67")
    yield Rule(f"{_IPV4} ip saddr 0.0.0.0 ip protocol igmp")
    yield Rule(f"{_IPV4} {allowed.no_source()}", "ipv4")


def _check_ipv6(allowed: _Allowed) -> Iterator[Rule]:
    yield Rule(f"{_ICMPV6} nd-neighbor-advert {allowed.no_target()}", "ipv6")
    # The check for duplicates (RFC 4862) asks from no address for the one that it is about to use.
    yield Rule(f"{_ICMPV6} nd-neighbor-solicit ip6 saddr :: {allowed.no_target()}", "ipv6")
    yield from (Rule(f"{_ICMPV6} {kind} ip6 saddr ::") for kind in _UNSPECIFIED_MAY)
    yield Rule(f"{_IPV6} {allowed.no_source()}", "ipv6")


def _allow_ipv4(guard: PortGuard) -> _Allowed | None:
    return None if guard.ipv4 is None else _Allowed("ipv4", tuple(_addresses(guard.ipv4, 4)))


def _allow_ipv6(guard: PortGuard) -> _Allowed | None:
    if guard.ipv6 is None:
        return None
    own = [_link_local(_mac(guard))] if guard.strict else []
    return _Allowed("ipv6", (*_addresses(guard.ipv6, 6), *own), any_link_local=not guard.strict)


def _unlike(field: str, values: Iterable[object]) -> str:
    """Return what matches where a field has none of a few values; nft is slow to learn of many small sets."""
    return " ".join(f"{field} != {value}" for value in values)


def _link_local(mac: str) -> IPv6Address:
    """Return the link-local address that follows from a MAC (RFC 4291, appendix A)."""
    number = int(mac.replace(":", ""), 16) ^ (2 << 40)
    return IPv6Address((0xFE80 << 112) | (number >> 24 << 40) | (0xFFFE << 24) | (number & 0xFFFFFF))


def _mac(guard: PortGuard) -> str:
    return _check(_MAC, guard.mac.lower(), "the MAC of a NIC")


def _addresses(texts: Iterable[str], version: int) -> list[IPv4Address | IPv6Address]:
    found = []
    for text in dict.fromkeys(texts):
        try:
            address = ip_address(text)
        except ValueError:
            address = None
        if address is None or address.version != version or "%" in text:
            raise RefusedError("the guard of a NIC", f"{sanitise(text, 60)} is no IPv{version} address")
        found.append(address)
    return sorted(set(found), key=int)


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    """Return a text that is of a pattern, and can so be a part of a command; raise RefusedError otherwise."""
    if not pattern.fullmatch(text):
        raise RefusedError("the guard of a NIC", f"{sanitise(text, 60)} is not {what}")
    return text
