"""Networks as XML, both ways, and subnets that are free."""

from __future__ import annotations

import functools
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from backend.errors import ConflictError, RefusedError
from backend.hypervisor.network_options import NO_ADVERTISEMENTS, read_options
from backend.hypervisor.network_xml import build_network, find_clash, propose_subnet, read_gateways, read_network
from backend.hypervisor.plan import ObservedNetwork
from backend.hypervisor.volume_xml import build_overlay, build_pool, build_raw, read_volume
from backend.network.plan import DhcpHost, NetworkPlan, Route, Side

SCHEMAS = Path("/usr/share/libvirt/schemas")
UID = "88abaf9e-e05c-4fc2-8e5c-0b9239a12f22"


@functools.cache
def grammar(name: str) -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(SCHEMAS / f"{name}.rng")))


def check(xml: str, name: str) -> etree._Element:
    root = etree.fromstring(xml.encode())
    schema = grammar(name)
    assert schema.validate(root), schema.error_log
    return root


def subnets(base: int, bits: int, lengths: tuple[int, int]) -> st.SearchStrategy[str]:
    kind = IPv4Network if bits == 32 else IPv6Network
    return st.builds(
        lambda number, length: str(kind((base | number, length), strict=False)),
        st.integers(0, (1 << (bits - 8)) - 1),
        st.integers(*lengths),
    )


ipv4, ipv6 = subnets(10 << 24, 32, (8, 30)), subnets(0xFD << 120, 128, (64, 126))


@st.composite
def sides(draw: st.DrawFn, subnet: st.SearchStrategy[str], modes: tuple[str, ...]) -> Side:
    network = ip_network(draw(subnet))
    last = network.num_addresses - (2 if network.version == 4 else 1)
    host, *others = (str(network[draw(st.integers(1, last))]) for _ in range(4))
    first, end = sorted(draw(st.integers(1, min(last, 1 << 20))) for _ in range(2))
    servers = ("192.0.2.1",) if network.version == 4 else ("2001:db8::1", "2001:db8::2")
    hosts = [DhcpHost(f"52:54:00:00:00:0{number}", address, "web") for number, address in enumerate(others)]
    return Side(
        subnet=str(network), host=host, mode=draw(st.sampled_from(modes)),
        gateway=draw(st.sampled_from(["", host, others[0]])), ranges=((str(network[first]), str(network[end])),),
        hosts=(*hosts, DhcpHost("", str(network[1]), "db", "00:03:00:01:52:54:00:00:00:09")),
        routes=draw(st.sampled_from([(), (Route("203.0.113.0/24", others[0]),) if network.version == 4 else ()])),
        ntp=draw(st.sampled_from([(), servers])), lease_seconds=draw(st.integers(120, 1 << 20)),
    )  # fmt: skip


network_plans = st.builds(
    NetworkPlan, name=st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=30), uid=st.just(UID),
    uplink=st.sampled_from(["nat", "routed", "isolated"]), bridge=st.sampled_from(["", "kcbr7"]),
    ipv4=st.just(Side()) | sides(ipv4, ("none", "static", "dhcp")),
    ipv6=st.just(Side()) | sides(ipv6, ("none", "static", "slaac", "stateless", "dhcpv6")),
    mtu=st.sampled_from([0, 1400]), dns=st.sampled_from([(), ("9.9.9.9", "2620:fe::fe"), ("9.9.9.9",)]),
    search_domain=st.sampled_from(["", "lab.example"]),
)  # fmt: skip


@pytest.mark.libvirt
@settings(max_examples=150, deadline=None)
@given(network_plans)
def test_any_plan_makes_a_network_of_libvirts_grammar_that_is_read_back(plan: NetworkPlan) -> None:
    xml = build_network(plan)
    root = check(xml, "network")
    seen = read_network(xml, active=True)
    assert (seen.name, seen.uid, seen.uplink, seen.active) == (plan.name, plan.uid, plan.uplink, True)
    assert (seen.ipv4_subnet, seen.ipv6_subnet) == (plan.ipv4.subnet, plan.ipv6.subnet)
    assert (seen.ipv4_mode == "dhcp") == (plan.ipv4.mode == "dhcp")
    # Nobody can tell the two apart from outside: nothing is advertised.
    assert seen.ipv6_mode == {"none": "static" if plan.ipv6.subnet else "none"}.get(plan.ipv6.mode, plan.ipv6.mode)
    for item, side in zip(root.findall("ip"), [side for side in (plan.ipv4, plan.ipv6) if side.subnet], strict=True):
        assert (item.get("address"), item.get("prefix")) == (side.host, side.subnet.partition("/")[2])
        kept = {ip_address(each.get("ip")) for each in item.findall("dhcp/host")}
        spans = [(ip_address(each.get("start")), ip_address(each.get("end"))) for each in item.findall("dhcp/range")]
        # libvirt's own limit.
        assert all(int(first) >> 16 == int(last) >> 16 for first, last in spans)
        if spans:
            start, end = (ip_address(text) for text in side.ranges[0])
            pieces = [(first, last) for first, last in spans if start <= first <= end]
            assert (pieces[0][0], pieces[-1][1]) == (start, end)
            assert all(int(last) + 1 == int(first) for (_, last), (first, _) in pairwise(pieces))
            # The others make room for what is kept.
            assert {first for first, _ in spans} - {first for first, _ in pieces} <= kept
        names = [host.get("name") for host in item.findall("dhcp/host") if host.get("name")]
        assert len(names) == len(set(names))


def options(plan: NetworkPlan) -> list[str]:
    return list(read_options(etree.fromstring(build_network(plan))))


FOUR = Side("192.168.150.0/24", "192.168.150.1", "dhcp", "192.168.150.1", (("192.168.150.64", "192.168.150.254"),))
SIX = Side("fd00::/64", "fd00::1", "slaac", "fd00::1")
PLAN = NetworkPlan("n", UID, "nat", ipv4=FOUR, ipv6=SIX)


def test_the_host_has_the_address_of_the_plan_and_leases_their_time() -> None:
    plan = PLAN._replace(ipv4=FOUR._replace(host="192.168.150.254", lease_seconds=600, ranges=FOUR.ranges[:1]))
    root = etree.fromstring(build_network(plan))
    assert read_gateways(build_network(plan)) == [("192.168.150.254", "192.168.150.0/24"), ("fd00::1", "fd00::/64")]
    limits = root.find("ip/dhcp/range")
    assert (limits.get("start"), limits.get("end")) == ("192.168.150.64", "192.168.150.254")
    assert limits.find("lease").attrib == {"expiry": "600", "unit": "seconds"}


def test_where_the_host_is_all_that_guests_are_told_libvirt_says_it() -> None:
    assert options(PLAN) == []
    assert options(PLAN._replace(uplink="routed")) == []


def test_another_gateway_is_told_by_dhcp_and_the_host_advertises_none() -> None:
    other = PLAN._replace(ipv4=FOUR._replace(gateway="192.168.150.254"), ipv6=SIX._replace(gateway="fd00::fe"))
    assert options(other) == ["dhcp-option=option:router,192.168.150.254", "ra-param=*,0,0"]
    none = PLAN._replace(ipv4=FOUR._replace(gateway=""), ipv6=SIX._replace(gateway=""))
    assert options(none) == ["dhcp-option=option:router", "ra-param=*,0,0"]
    # libvirt itself names no router on an isolated network, and the host is none there.
    assert options(PLAN._replace(uplink="isolated")) == ["ra-param=*,0,0"]
    assert options(other._replace(uplink="isolated")) == options(other)


def test_routes_bring_the_default_route_with_them() -> None:
    routes = (Route("10.9.0.0/16", "192.168.150.9"),)
    told = options(PLAN._replace(ipv4=FOUR._replace(routes=routes)))
    first = "dhcp-option=option:classless-static-route,10.9.0.0/16,192.168.150.9"
    assert told == [f"{first},0.0.0.0/0,192.168.150.1"]
    none = options(PLAN._replace(ipv4=FOUR._replace(routes=routes, gateway="")))
    assert none == ["dhcp-option=option:router", first]


def test_what_guests_ask_is_told_in_each_family() -> None:
    four, six = FOUR._replace(ntp=("192.0.2.7",)), SIX._replace(mode="stateless", ntp=("2001:db8::7",))
    plan = PLAN._replace(ipv4=four, ipv6=six, dns=("9.9.9.9", "2620:fe::fe"), search_domain="lab.example")
    assert options(plan) == [
        "dhcp-option=option:dns-server,9.9.9.9", "dhcp-option=option:ntp-server,192.0.2.7",
        "dhcp-option=option:domain-search,lab.example", "dhcp-range=fd00::,ra-stateless",
        "dhcp-option=option6:dns-server,[2620:fe::fe]", "dhcp-option=option6:ntp-server,[2001:db8::7]",
        "dhcp-option=option6:sntp-server,[2001:db8::7]", "dhcp-option=option6:domain-search,lab.example",
    ]  # fmt: skip
    # A family without a server of its own is told that there is none, not the host.
    assert "dhcp-option=option6:dns-server" in options(plan._replace(dns=("9.9.9.9",)))


@pytest.mark.parametrize("mode", ["static", "none", "dhcpv6"])
def test_where_guests_have_static_addresses_nothing_is_advertised(mode: str) -> None:
    assert options(PLAN._replace(ipv6=SIX._replace(mode=mode))) == [NO_ADVERTISEMENTS]
    ranged = SIX._replace(mode="dhcpv6", ranges=(("fd00::100", "fd00::ffff"),))
    assert options(PLAN._replace(ipv6=ranged)) == []


def test_clients_that_libvirt_could_not_tell_apart_are_there_once() -> None:
    hosts = (
        DhcpHost("52:54:00:00:00:01", "fd00::10"), DhcpHost("52:54:00:00:00:02", "fd00::11", "web"),
        DhcpHost("", "fd00::12", "web"), DhcpHost("", "fd00::13", "web", "00:02:AA"), DhcpHost("", "fd00::10", "db"),
        DhcpHost("", "fd00::14"), DhcpHost("", "fd01::15", "far"), DhcpHost("", "nonsense", "odd"),
    )  # fmt: skip
    plan = PLAN._replace(ipv6=SIX._replace(mode="dhcpv6", hosts=hosts))
    found = [dict(each.attrib) for each in etree.fromstring(build_network(plan)).findall("ip[2]/dhcp/host")]
    assert found == [
        {"id": "00:03:00:01:52:54:00:00:00:01", "ip": "fd00::10"}, {"name": "web", "ip": "fd00::11"},
        {"id": "00:02:aa", "ip": "fd00::13"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"uplink": ""}, {"uplink": "vxlan"}, {"uplink": "bridge:br0"}, {"ipv4": Side("x", "x")},
        {"ipv4": Side("fd00::/64", "fd00::1")}, {"ipv6": Side("::1", "::1")},
        {"ipv4": FOUR._replace(ranges=(("", ""),))},
        {"ipv4": FOUR._replace(host="10.0.0.1")}, {"ipv4": FOUR._replace(host="")},
        {"ipv4": FOUR._replace(gateway="192.168.150.9\nserver=192.0.2.1")},
        {"ipv4": FOUR._replace(ntp=("a b",))}, {"dns": ("9.9.9.9\n",)}, {"search_domain": "lab\nserver=192.0.2.1"},
        {"ipv4": FOUR._replace(routes=(Route("10.0.0.0/8\n", "192.168.150.9"),))},
        {"ipv6": SIX._replace(mode="dhcpv6", ranges=(("fd00::", "fd00::ffff:ffff"),))},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        build_network(PLAN._replace(**wrong))


def test_a_segment_without_an_address_of_the_host_is_a_bridge_alone() -> None:
    root = etree.fromstring(build_network(PLAN._replace(ipv4=Side("10.0.0.0/24"), ipv6=Side(), dns=("9.9.9.9",))))
    assert [item.tag for item in root] == ["name", "uuid", "forward", "bridge"]


def test_foreign_networks_are_read_whatever_they_are() -> None:
    old = "<network><name>default</name><uuid>u</uuid><forward mode='route'/><bridge name='virbr0'/>"
    seen = read_network(f"{old}<ip address='192.168.122.1' netmask='255.255.255.0'/></network>", active=False)
    assert (seen.uplink, seen.bridge, seen.ipv4_subnet, seen.ipv4_mode) == (
        "routed",
        "virbr0",
        "192.168.122.0/24",
        "static",
    )
    bare = read_network("<network><name>n</name><ip address='nonsense'/></network>", active=False)
    assert (bare.uplink, bare.ipv4_subnet, bare.ipv6_mode) == ("isolated", "", "none")


@given(st.lists(ipv4 | ipv6 | st.just("nonsense") | st.sampled_from(["192.168.150.0/24", "192.168.0.0/16"])))
def test_a_proposed_subnet_is_free(used: list[str]) -> None:
    if "192.168.0.0/16" in used:
        with pytest.raises(ConflictError):
            propose_subnet(used)
        return
    proposed = ip_network(propose_subnet(used))
    assert proposed.prefixlen == 24
    assert proposed.network_address >= ip_network("192.168.150.0/24").network_address
    assert not any(proposed.overlaps(ip_network(text)) for text in used if "." in text)


def test_subnets_are_proposed_upward() -> None:
    assert propose_subnet([]) == "192.168.150.0/24"
    assert propose_subnet(["192.168.150.0/25", "192.168.151.7/32"]) == "192.168.152.0/24"


def test_a_clash_is_named_with_its_subnet() -> None:
    plan = NetworkPlan("mine", UID, "nat", ipv4=Side("10.0.1.0/24"), ipv6=Side("fd00:1::/64"))
    others = [
        ObservedNetwork("far", "u", active=True, bridge="b", uplink="nat", ipv4_subnet="10.0.2.0/24"),
        ObservedNetwork("near", "u", active=False, bridge="b", uplink="nat", ipv6_subnet="fd00:1::/80"),
    ]
    assert find_clash(plan, others) == "near (fd00:1::/80)"
    assert find_clash(plan, others[:1]) == ""
    assert find_clash(plan, [others[1]._replace(name="mine")]) == ""


@pytest.mark.libvirt
@given(st.text(min_size=1, max_size=40), st.integers(0, 1 << 50))
def test_volumes_and_pools_are_of_libvirts_grammar(name: str, size: int) -> None:
    safe = "v" + "".join(letter for letter in name if letter.isprintable() and letter != "/")
    check(build_pool(safe, f"/pool/{safe}"), "storagepool")
    check(build_raw(safe, size), "storagevol")
    xml = build_overlay(safe, size, f"/pool/{safe}", "raw")
    check(xml, "storagevol")
    details = read_volume(xml)
    assert (details.volume.capacity_bytes, details.volume.format) == (size, "qcow2")
    assert (details.backing_path, details.backing_format) == (f"/pool/{safe}".strip(), "raw")
