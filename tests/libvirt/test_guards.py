"""What guests send and receive through guards, with real frames in a real bridge."""

from __future__ import annotations

import os
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import frames as f
import pytest
import segment as s

from backend.errors import FailedError
from backend.network import guards
from backend.network.plan import PortDrops, PortGuard, Server
from backend.network.shell import LocalShell

pytestmark = pytest.mark.libvirt

A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
OTHER = "52:54:00:00:00:99"
OWN, OWN6, LINK = "10.0.0.1", "fd00::a", "fe80::5054:ff:fe00:1"
PRIVATE_LINK = "fe80::7a11"
BPDU = bytes.fromhex("424203 0000 00 00 00") + bytes(35)
GUARD = PortGuard(
    "ktaaaaaaaaaa", A, mac_only=True, ipv4=(OWN,), ipv6=(OWN6,), no_dhcp_server=True, no_router=True,
)  # fmt: skip
FORGED_RA = f.advertisement(LINK)

Frames = list[bytes]

FORGED: dict[str, tuple[str, Frames]] = {
    "mac": ("mac", [f.ipv4(OTHER, OWN, f.UDP, f.udp(1, 2))]),
    "arp reply for another": ("ipv4", [f.arp(A, 2, "10.0.0.2", "10.0.0.3")]),
    "arp request from another": ("ipv4", [f.arp(A, 1, "10.0.0.2", "10.0.0.3")]),
    "arp with another's mac": ("mac", [f.arp(A, 2, OWN, "10.0.0.3", OTHER)]),
    "arp probe for another's": ("ipv4", [f.arp(A, 1, "0.0.0.0", "10.0.0.2")]),
    "arp of other lengths": ("protocol", [f.arp(A, 2, OWN, "10.0.0.2", wire=b"\x08\x04")]),
    "ipv4": ("ipv4", [f.ipv4(A, "10.0.0.2", f.UDP, f.udp(1, 2))]),
    "ipv4 from no address": ("ipv4", [f.ipv4(A, "0.0.0.0", f.UDP, f.udp(69, 67))]),
    "ipv4 fragment from no address": ("ipv4", [f.ipv4(A, "0.0.0.0", f.UDP, f.udp(68, 67), frag=5)]),
    "ipv4 last fragment": ("ipv4", [f.ipv4(A, "10.0.0.2", f.UDP, b"the end", frag=5)]),
    "ipv6 last fragment": (
        "ipv6", [f.ipv6(A, "fd00::b", f.FRAGMENT, f.fragment(f.UDP, 16, more=False) + b"end")],
    ),
    "ipv6": ("ipv6", [f.ipv6(A, "fd00::b", f.UDP, f.udp(1, 2))]),
    "ipv6 from no address": ("ipv6", [f.ipv6(A, "::", f.UDP, f.udp(1, 2))]),
    "neighbour advertisement": ("ipv6", [f.icmpv6(A, OWN6, f.NA, f.discovery("fd00::b", 2, A))]),
    "neighbour advertisement without option": ("ipv6", [f.icmpv6(A, LINK, f.NA, f.discovery("fd00::b"))]),
    "neighbour advertisement with another's mac": ("mac", [f.icmpv6(A, OWN6, f.NA, f.discovery(OWN6, 2, OTHER))]),
    "neighbour solicitation with another's mac": ("mac", [f.icmpv6(A, OWN6, f.NS, f.discovery("fd00::b", 1, OTHER))]),
    "router solicitation with another's mac": ("mac", [f.icmpv6(A, LINK, f.RS, bytes(4) + f.link_layer(1, OTHER))]),
    "duplicate check for another's": ("ipv6", [f.icmpv6(A, "::", f.NS, f.discovery("fd00::b"))]),
    "neighbour advertisement in fragments": (
        "protocol",
        [f.ipv6(A, OWN6, f.FRAGMENT, f.fragment(f.ICMPV6, 0, more=True) + bytes([f.NA, 0, 0, 0, 0, 0, 0, 0]))],
    ),
    "neighbour advertisement behind options": (
        "ipv6",
        [
            f.ipv6(
                A, OWN6, f.DESTINATION,
                f.options(f.ICMPV6) + f.icmpv6_message(OWN6, f.NA, f.discovery("fd00::b", 2, A)),
            )
        ],
    ),
    "dhcp offer": ("dhcp-server", [f.ipv4(A, OWN, f.UDP, f.dhcp_answer(OWN))]),
    "dhcp offer from another port": ("dhcp-server", [f.ipv4(A, OWN, f.UDP, f.udp(1067, 68, bytes(240)))]),
    "dhcp offer in fragments": ("dhcp-server", [f.ipv4(A, OWN, f.UDP, f.udp(67, 68, bytes(8)), frag=0x2000)]),
    "dhcpv6 advertisement": ("dhcp-server", [f.ipv6(A, OWN6, f.UDP, f.udp(547, 546, b"\x02abc"))]),
    "dhcpv6 advertisement behind headers": (
        "dhcp-server",
        [
            f.ipv6(
                A, LINK, f.HOP_BY_HOP,
                f.options(f.DESTINATION) + f.options(f.FRAGMENT, 3) + f.fragment(f.UDP, 0, more=True)
                + f.udp(547, 546, bytes(8)),
            )
        ],
    ),
    "dhcpv6 advertisement behind a first fragment": (
        "protocol",
        [f.ipv6(A, LINK, f.FRAGMENT, f.fragment(f.DESTINATION, 0, more=True) + f.options(f.UDP))],
    ),
    "router advertisement": ("router", [f.ipv6(A, LINK, f.ICMPV6, FORGED_RA)]),
    "router advertisement behind options": ("router", [f.ipv6(A, LINK, f.DESTINATION, f.options(58) + FORGED_RA)]),
    "router advertisement behind many headers": (
        "router",
        [f.ipv6(A, LINK, f.HOP_BY_HOP, f.options(60) + f.options(60, 9) + f.options(58, 2) + FORGED_RA)],
    ),
    "router advertisement in an atomic fragment": (
        "router",
        [f.ipv6(A, LINK, f.FRAGMENT, f.fragment(58, 0, more=False) + FORGED_RA)],
    ),
    "router advertisement cut out of its first fragment": (
        "protocol",
        [f.ipv6(A, LINK, f.DESTINATION, f.options(44) + f.fragment(60, 0, more=True) + f.options(58)[:8])],
    ),
    "router advertisement behind half a header": (
        "protocol",
        [f.ipv6(A, LINK, f.FRAGMENT, f.fragment(60, 0, more=True) + f.options(58, 3)[:16])],
    ),
    "redirect": ("router", [f.icmpv6(A, LINK, f.REDIRECT, bytes(36))]),
    "ipv4 redirect": ("router", [f.ipv4(A, OWN, f.ICMP, struct.pack("!BBHI", 5, 1, 0, 0))]),
    "unknown protocol": ("protocol", [f.ethernet(A, 0x88B5, b"hello")]),
    "spanning tree": ("protocol", [f.llc(A, BPDU, "01:80:c2:00:00:00")]),
}  # fmt: skip
# Whatever is behind a tag of no VLAN is as if there were no tag; deeper than that nothing may hide.
for _name in ("arp reply for another", "ipv4", "neighbour advertisement", "dhcp offer", "router advertisement"):
    _reason, [_frame] = FORGED[_name]
    FORGED[f"{_name}, tagged"] = (_reason, [f.tagged(_frame, (f.VLAN, 0))])
    FORGED[f"{_name}, in a vlan"] = (_reason, [f.tagged(_frame, (f.QINQ, 7))])
    FORGED[f"{_name}, tagged twice"] = ("protocol", [f.tagged(_frame, (f.VLAN, 0), (f.VLAN, 0))])
    FORGED[f"{_name}, by snap"] = ("protocol", [f.snap(_frame)])
    FORGED[f"{_name}, tagged, by snap"] = ("protocol", [f.tagged(f.snap(_frame), (f.VLAN, 0))])

HONEST: dict[str, bytes] = {
    "arp request": f.arp(A, 1, OWN, "10.0.0.2"),
    "arp reply": f.arp(A, 2, OWN, "10.0.0.2"),
    "arp probe": f.arp(A, 1, "0.0.0.0", OWN),
    "rarp": f.ethernet(A, f.RARP, struct.pack("!HHBBH", 1, f.IPV4, 6, 4, 3) + bytes(20)),
    "ipv4": f.ipv4(A, OWN, f.UDP, f.udp(1, 2)),
    "ipv4 last fragment": f.ipv4(A, OWN, f.UDP, b"the end of it", frag=5),
    "dhcp discovery": f.ipv4(A, "0.0.0.0", f.UDP, f.dhcp_question()),
    "dhcp renewal": f.ipv4(A, OWN, f.UDP, f.dhcp_question(), "10.0.0.254"),
    "igmp without an address": f.ipv4(A, "0.0.0.0", f.IGMP, bytes(8), "224.0.0.22"),
    "ipv6": f.ipv6(A, OWN6, f.UDP, f.udp(1, 2)),
    "ipv6 behind options": f.ipv6(A, OWN6, f.DESTINATION, f.options(f.UDP) + f.udp(1, 2)),
    "ipv6 first fragment": f.ipv6(A, OWN6, f.FRAGMENT, f.fragment(f.UDP, 0, more=True) + f.udp(1, 2, bytes(8))),
    "ipv6 last fragment": f.ipv6(A, OWN6, f.FRAGMENT, f.fragment(f.UDP, 16, more=False) + b"end"),
    "ipv4 last fragment that looks like an offer": f.ipv4(A, OWN, f.UDP, f.dhcp_answer(OWN), frag=5),
    "ipv6 last fragment that looks like an advertisement": f.ipv6(
        A, OWN6, f.FRAGMENT, f.fragment(f.ICMPV6, 16, more=False) + FORGED_RA,
    ),
    "ipv6 echo": f.icmpv6(A, OWN6, 128),
    "duplicate check": f.icmpv6(A, "::", f.NS, f.discovery(OWN6)),
    "duplicate check, link-local": f.icmpv6(A, "::", f.NS, f.discovery(PRIVATE_LINK)),
    "router solicitation": f.icmpv6(A, LINK, f.RS, bytes(4) + f.link_layer(1, A)),
    "router solicitation without an address": f.icmpv6(A, "::", f.RS),
    "multicast listener": f.ipv6(
        A, "::", f.HOP_BY_HOP, bytes([58, 0, 5, 2, 0, 0, 1, 0]) + f.icmpv6_message("::", 143, bytes(4)),
    ),
    "neighbour solicitation": f.icmpv6(A, OWN6, f.NS, f.discovery("fd00::b", 1, A)),
    "neighbour advertisement": f.icmpv6(A, OWN6, f.NA, f.discovery(OWN6, 2, A)),
    "neighbour advertisement without option": f.icmpv6(A, OWN6, f.NA, f.discovery(OWN6)),
    "neighbour advertisement, link-local": f.icmpv6(A, PRIVATE_LINK, f.NA, f.discovery(PRIVATE_LINK, 2, A)),
    "dhcpv6 solicitation": f.ipv6(A, LINK, f.UDP, f.udp(546, 547), "ff02::1:2"),
}  # fmt: skip


class Line(NamedTuple):
    """Two guests on a segment, A with a guard, and the ends of their lines."""

    segment: s.Segment
    owner: str
    uid: str
    wire: socket.socket
    sink: socket.socket

    def guard(self, *wanted: PortGuard) -> None:
        guards.ensure(self.segment.shell, self.owner, self.uid, wanted)

    def all_drops(self) -> list[PortDrops]:
        return guards.drops(self.segment.shell, self.owner, self.uid)

    def drops(self) -> dict[str, int]:
        """Return what A's guard has dropped, without what it has not."""
        found = [drops for drops in self.all_drops() if drops.tap == GUARD.tap]
        return {reason: count for reason, count in found[0].drops if count} if found else {}

    def pass_on(self, *sent: bytes) -> Frames:
        """Send frames as A and return which B sees; one that always comes tells that no more do."""
        mark = f.ipv6(A, LINK, f.UDP, f.udp(9, 9, os.urandom(16)))
        for frame in (*sent, mark):
            self.wire.send(frame)
        seen: Frames = []
        while True:
            frame, (_, _, direction, *_) = self.sink.recvfrom(4096)
            if frame == mark:
                return seen
            if direction != socket.PACKET_OUTGOING:
                seen.append(frame)


@pytest.fixture(scope="module")
def bed() -> Iterator[s.Segment]:
    if os.geteuid() != 0:
        pytest.skip("namespaces of its own need root")
    made = s.Segment(f"kcg{uuid.uuid4().hex[:6]}")
    try:
        made.add(GUARD.tap, f"{OWN}/24")
        made.add("ktbbbbbbbbbb", "10.0.0.2/24")
        yield made
    finally:
        made.close()


@pytest.fixture
def line(bed: s.Segment) -> Iterator[Line]:
    owner = str(uuid.uuid4())
    a, b = bed.stations[:2]
    with s.open_wire(a.namespace) as wire, s.open_wire(b.namespace) as sink:
        yield Line(bed, owner, str(uuid.uuid4()), wire, sink)
    guards.ensure_none_but(bed.shell, owner, ())
    assert owner.replace("-", "")[:10] not in s.run(bed.host, "nft list tables")


@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_reaches_nobody_and_is_counted(line: Line, what: str) -> None:
    reason, sent = FORGED[what]
    assert len(line.pass_on(*sent)) == len(sent), "without a guard it gets through"
    line.guard(GUARD)
    assert line.pass_on(*sent) == []
    assert line.drops() == {reason: len(sent)}


@pytest.mark.parametrize("what", HONEST)
def test_what_is_honest_is_seen(line: Line, what: str) -> None:
    line.guard(GUARD)
    assert line.pass_on(HONEST[what]) == [HONEST[what]]
    assert line.drops() == {}


def test_a_gateway_announces_itself_and_routes_what_others_sent(line: Line) -> None:
    line.guard(GUARD._replace(ipv4=None, ipv6=None, no_router=False))
    foreign = f.ipv4(A, "198.51.100.7", f.UDP, f.udp(1, 2)), f.ipv6(A, "2001:db8::7", f.UDP, f.udp(1, 2))
    sent = [f.ipv6(A, LINK, f.ICMPV6, FORGED_RA), f.ethernet(A, 0x88B5, b"hello"), *foreign]
    assert line.pass_on(*sent) == sent
    assert line.pass_on(f.ethernet(OTHER, 0x88B5, b"hello"), f.ipv4(A, OWN, f.UDP, f.dhcp_answer(OWN))) == []
    assert line.drops() == {"mac": 1, "dhcp-server": 1}


def test_a_strict_guard_knows_one_link_local_address(line: Line) -> None:
    line.guard(GUARD._replace(strict=True))
    honest = [f.ipv6(A, LINK, f.UDP, f.udp(1, 2)), f.icmpv6(A, LINK, f.NA, f.discovery(LINK, 2, A))]
    assert line.pass_on(*honest) == honest
    forged = [
        f.ipv6(A, PRIVATE_LINK, f.UDP, f.udp(1, 2)), f.icmpv6(A, LINK, f.NA, f.discovery(PRIVATE_LINK, 2, A)),
        f.icmpv6(A, "::", f.NS, f.discovery(PRIVATE_LINK)),
    ]  # fmt: skip
    assert line.pass_on(*forged) == []
    assert line.drops() == {"ipv6": 3}


def test_no_address_is_none(line: Line) -> None:
    line.guard(GUARD._replace(ipv4=(), ipv6=()))
    forged = [
        f.arp(A, 1, "0.0.0.0", OWN), f.ipv4(A, "0.0.0.0", f.UDP, f.dhcp_question()),
        f.ipv4(A, OWN, f.UDP, b"the end", frag=5), f.ipv6(A, OWN6, f.UDP, f.udp(1, 2)),
    ]  # fmt: skip
    assert line.pass_on(*forged) == []
    assert line.drops() == {"ipv4": 3, "ipv6": 1}


def test_each_of_several_addresses_may_be_used(line: Line) -> None:
    line.guard(GUARD._replace(ipv4=(OWN, "10.0.0.7"), ipv6=(OWN6, "fd00::7")))
    honest = [
        f.arp(A, 2, "10.0.0.7", "10.0.0.3"), f.ipv4(A, "10.0.0.7", f.UDP, f.udp(1, 2)),
        f.ipv6(A, "fd00::7", f.UDP, f.udp(1, 2)), f.icmpv6(A, OWN6, f.NA, f.discovery("fd00::7", 2, A)),
    ]  # fmt: skip
    assert line.pass_on(*honest) == honest
    assert line.pass_on(f.arp(A, 2, "10.0.0.8", "10.0.0.3"), f.ipv6(A, "fd00::8", f.UDP, f.udp(1, 2))) == []


def test_others_may_send_to_a_guarded_guest_what_it_may_not(line: Line) -> None:
    line.guard(GUARD)
    guarded, other = line.segment.stations[:2]
    sent = [f.ipv4(B, "10.0.0.2", f.UDP, f.dhcp_answer("10.0.0.2")), f.ipv6(B, "fe80::2", f.ICMPV6, FORGED_RA)]
    with s.open_wire(other.namespace) as wire, s.open_wire(guarded.namespace) as sink:
        for frame in sent:
            wire.send(frame)
        assert [sink.recv(4096) for _ in sent] == sent
    assert line.drops() == {}


def test_a_guard_is_there_before_its_nic_and_when_it_comes_back(line: Line) -> None:
    late = GUARD._replace(tap="ktcccccccccc", mac="52:54:00:00:00:33")
    line.guard(GUARD, late)
    station = line.segment.add(late.tap)
    forged = f.ipv4(B, OWN, f.UDP, f.udp(1, 2))
    for _ in range(2):
        with s.open_wire(station.namespace) as wire:
            wire.send(forged)
        s.run(line.segment.host, f"ip link set {late.tap} down name kt0")
        s.run(line.segment.host, f"ip link set kt0 up name {late.tap}")
    counted = {each.tap: dict(each.drops)["mac"] for each in line.all_drops()}
    assert counted == {GUARD.tap: 0, late.tap: 2}
    line.guard(GUARD)
    assert [each.tap for each in line.all_drops()] == [GUARD.tap]


def test_a_guard_that_is_set_up_again_goes_on_counting_and_says_what_it_guards(line: Line) -> None:
    forged = f.ipv4(OTHER, OWN, f.UDP, f.udp(1, 2))
    line.guard(GUARD)
    assert line.pass_on(forged) == []
    line.guard(GUARD._replace(receive_rate=1 << 20))
    assert line.pass_on(forged) == []
    [guarded] = line.all_drops()
    assert guarded == PortDrops(
        GUARD.tap,
        (("mac", 2), ("protocol", 0), ("ipv4", 0), ("ipv6", 0), ("dhcp-server", 0), ("router", 0), ("receive-rate", 0)),
    )
    line.guard(PortGuard(GUARD.tap, A, send_rate=1 << 20))
    assert line.all_drops() == [PortDrops(GUARD.tap, (("send-rate", 0),))]
    assert line.pass_on(forged) == [forged]
    line.guard(PortGuard(GUARD.tap, A))
    assert line.all_drops() == []


def test_guards_of_others_are_left_alone(line: Line) -> None:
    shell, other_owner, kept, gone = line.segment.shell, str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
    mine = [GUARD._replace(tap=tap) for tap in ("kt1", "kt2", "kt3")]
    guards.ensure(shell, other_owner, kept, mine[:1])
    before = s.run(line.segment.host, "nft -s list ruleset")
    guards.ensure(shell, line.owner, kept, mine[1:2])
    guards.ensure(shell, line.owner, gone, mine[2:])
    line.guard(GUARD)
    guards.ensure_none_but(shell, line.owner, [line.uid, kept])
    assert [guards.drops(shell, line.owner, uid) == [] for uid in (line.uid, kept, gone)] == [False, False, True]
    line.guard()
    guards.ensure(shell, line.owner, kept, [])
    guards.ensure_none_but(shell, line.owner, [])
    assert s.run(line.segment.host, "nft -s list ruleset") == before
    guards.ensure_none_but(shell, other_owner, [])


def test_a_hundred_vms_are_guarded_at_once_and_soon(line: Line) -> None:
    """Four at a time, as operations are: 2 s here, of which most is starting programs."""
    shell = line.segment.shell
    vms = [str(uuid.uuid4()) for _ in range(100)]
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        made = [
            pool.submit(guards.ensure, shell, line.owner, vm, [GUARD._replace(tap=f"kt{number:010x}")])
            for number, vm in enumerate(vms)
        ]
    for each in made:
        each.result()
    took = time.monotonic() - began
    assert [len(guards.drops(shell, line.owner, vm)) for vm in vms[::10]] == [1] * 10
    assert took < 60
    print(f"a hundred VMs were guarded in {took:.1f} s")
    guards.ensure_none_but(shell, line.owner, vms[:50])
    assert [len(guards.drops(shell, line.owner, vm)) for vm in vms[::10]] == [1] * 5 + [0] * 5


@pytest.mark.parametrize("direction", ["send", "receive"])
def test_a_rate_is_held_for_a_stream_and_without_one_it_is_much_faster(line: Line, direction: str) -> None:
    rate = 2_000_000
    ends = [
        (station.namespace, address)
        for station, address in zip(line.segment.stations[:2], (OWN, "10.0.0.2"), strict=True)
    ]
    (sender, _), (receiver, address) = ends if direction == "send" else ends[::-1]
    line.guard(GUARD._replace(send_rate=rate) if direction == "send" else GUARD._replace(receive_rate=rate))
    assert s.measure(sender, receiver, address, seconds=5, settle=2) == pytest.approx(rate, rel=0.25)
    assert list(line.drops()) == [f"{direction}-rate"]
    line.guard(GUARD)
    assert s.measure(sender, receiver, address, seconds=1) > 10 * rate
    assert line.drops() == {}


def test_who_serves_a_segment_is_noted_but_not_who_may_not(line: Line) -> None:
    guards.ensure_watch(line.segment.shell)
    line.guard(GUARD)
    server = line.segment.stations[1]
    served = [
        f.ipv4(B, "10.0.0.2", f.UDP, f.dhcp_answer("10.0.0.2")), f.ipv6(B, "fe80::2", f.UDP, f.udp(547, 546)),
        f.ipv6(B, "fe80::2", f.ICMPV6, FORGED_RA), f.ipv4(B, "10.0.0.2", f.UDP, f.dhcp_question()),
    ]  # fmt: skip
    with s.open_wire(server.namespace) as wire:
        for frame in served:
            wire.send(frame)
    assert line.pass_on(FORGED["dhcp offer"][1][0], FORGED["router advertisement"][1][0]) == []
    expected = {"br0": [Server("dhcp", B, "10.0.0.2"), Server("dhcp", B, "fe80::2"), Server("router", B, "fe80::2")]}
    assert guards.read_servers(line.segment.shell) == expected
    guards.ensure_watch(line.segment.shell)
    assert guards.read_servers(line.segment.shell) == expected


def test_without_the_right_to_it_a_person_is_told_what_is_needed(line: Line) -> None:
    nobody = LocalShell(("ip", "netns", "exec", line.segment.host, "setpriv", "--reuid=65534", "--clear-groups"))
    with pytest.raises(FailedError, match="root") as caught:
        guards.ensure(nobody, line.owner, line.uid, [GUARD])
    assert "not permitted" in caught.value.why
    assert line.all_drops() == []
