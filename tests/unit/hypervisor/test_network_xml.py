"""Networks as XML, both ways, and subnets that are free."""

from __future__ import annotations

import functools
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from backend.errors import ConflictError, RefusedError
from backend.hypervisor.network_xml import build_network, find_clash, propose_subnet, read_gateways, read_network
from backend.hypervisor.plan import NetworkPlan, ObservedNetwork
from backend.hypervisor.volume_xml import build_overlay, build_pool, build_raw, read_volume

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


ipv4 = st.builds(
    lambda number, length: str(ip_network((number, length), strict=False)),
    st.integers(0x0A000000, 0x0AFFFFFF), st.integers(8, 30),
)  # fmt: skip
ipv6 = st.builds(
    lambda number, length: str(ip_network((0xFD << 120 | number << 40, length), strict=False)),
    st.integers(0, 1 << 70), st.integers(64, 126),
)  # fmt: skip
network_plans = st.builds(
    NetworkPlan, name=st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=30), uid=st.just(UID),
    uplink=st.sampled_from(["nat", "isolated", "bridge:br0"]), bridge=st.sampled_from(["", "kcbr7"]),
    ipv4_subnet=st.just("") | ipv4, ipv4_mode=st.sampled_from(["none", "static", "dhcp"]),
    ipv6_subnet=st.just("") | ipv6, ipv6_mode=st.sampled_from(["none", "static", "slaac", "dhcpv6"]),
    mtu=st.sampled_from([0, 1400]), dns=st.sampled_from([(), ("9.9.9.9", "2620:fe::fe")]),
)  # fmt: skip


@pytest.mark.libvirt
@settings(max_examples=150, deadline=None)
@given(network_plans)
def test_any_plan_makes_a_network_of_libvirts_grammar_that_is_read_back(plan: NetworkPlan) -> None:
    xml = build_network(plan)
    check(xml, "network")
    seen = read_network(xml, active=True)
    assert (seen.name, seen.uid, seen.uplink, seen.active) == (plan.name, plan.uid, plan.uplink, True)
    if plan.uplink.startswith("bridge:"):
        assert (seen.bridge, seen.ipv4_subnet, seen.ipv6_subnet) == ("br0", "", "")
        return
    assert seen.ipv4_subnet == plan.ipv4_subnet
    assert seen.ipv6_subnet == plan.ipv6_subnet
    assert (seen.ipv4_mode == "dhcp") == (bool(plan.ipv4_subnet) and plan.ipv4_mode == "dhcp")
    assert (seen.ipv6_mode == "dhcpv6") == (bool(plan.ipv6_subnet) and plan.ipv6_mode == "dhcpv6")
    for item in etree.fromstring(xml).findall("ip"):
        subnet = ip_network(f"{item.get('address')}/{item.get('prefix')}", strict=False)
        for limit in item.findall("dhcp/range"):
            ends = [ip_network(limit.get(end)).network_address for end in ("start", "end")]
            assert all(address in subnet for address in ends)
            assert ends[0] <= ends[1]
            # libvirt's own limit.
            assert int(ends[0]) >> 16 == int(ends[1]) >> 16
            assert item.get("address") not in map(str, ends)


def test_the_host_is_the_first_of_a_subnet_and_leases_are_short() -> None:
    plan = NetworkPlan("n", UID, "nat", ipv4_subnet="192.168.150.0/24", ipv4_mode="dhcp")
    root = etree.fromstring(build_network(plan))
    assert read_gateways(build_network(plan)) == [("192.168.150.1", "192.168.150.0/24")]
    limits = root.find("ip/dhcp/range")
    assert (limits.get("start"), limits.get("end")) == ("192.168.150.2", "192.168.150.254")
    assert limits.find("lease").attrib == {"expiry": "1", "unit": "hours"}


@pytest.mark.parametrize(
    "wrong",
    [{"uplink": ""}, {"uplink": "vxlan"}, {"ipv4_subnet": "x"}, {"ipv4_subnet": "fd00::/64"}, {"ipv6_subnet": "::1"}],
)
def test_what_cannot_be_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(RefusedError):
        build_network(NetworkPlan("n", UID, **{"uplink": "nat", **wrong}))


def test_foreign_networks_are_read_whatever_they_are() -> None:
    old = "<network><name>default</name><uuid>u</uuid><forward mode='route'/><bridge name='virbr0'/>"
    seen = read_network(f"{old}<ip address='192.168.122.1' netmask='255.255.255.0'/></network>", active=False)
    assert (seen.uplink, seen.bridge, seen.ipv4_subnet, seen.ipv4_mode) == (
        "route",
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
    plan = NetworkPlan("mine", UID, "nat", ipv4_subnet="10.0.1.0/24", ipv6_subnet="fd00:1::/64")
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
