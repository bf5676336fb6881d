"""What lies between a libvirt network and a changed plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.hypervisor.network_changes import (
    Update,
    compare_hosts,
    compare_network,
    is_same_subnets,
    keep_bridge,
    rebuild_network,
)
from backend.hypervisor.network_xml import build_network
from backend.hypervisor.xml import parse, render
from backend.network.plan import DhcpHost, NetworkPlan, Route, Side

HOST = DhcpHost("52:54:00:00:00:01", "10.1.0.9", "web")
FOUR = Side("10.1.0.0/24", "10.1.0.1", "dhcp", "10.1.0.1", (("10.1.0.64", "10.1.0.254"),), (HOST,))
SIX = Side("fd00::/64", "fd00::1", "slaac", "fd00::1")
PLAN = NetworkPlan("net", "88abaf9e-e05c-4fc2-8e5c-0b9239a12f22", "nat", ipv4=FOUR, ipv6=SIX)
# As libvirt writes what it was given.
WRITTEN = """
<network connections='1'><name>net</name><uuid>88abaf9e-e05c-4fc2-8e5c-0b9239a12f22</uuid>
  <forward mode='nat'><nat ipv6='yes'><port start='1024' end='65535'/></nat></forward>
  <bridge name='virbr7' stp='off' delay='0'/><mac address='52:54:00:11:22:33'/>
  <ip address='10.1.0.1' netmask='255.255.255.0'><dhcp><range start='10.1.0.64' end='10.1.0.254'>
    <lease expiry='1' unit='hours'/></range>
    <host mac='52:54:00:00:00:01' name='web' ip='10.1.0.9'><lease expiry='60' unit='minutes'/></host></dhcp></ip>
  <ip family='ipv6' address='fd00::1' prefix='64'/></network>
"""


def four(**changes: Any) -> NetworkPlan:
    return PLAN._replace(ipv4=FOUR._replace(**changes))


def words(updates: list[Update] | None) -> list[tuple[str, str, int]]:
    assert updates is not None
    return [(update.verb, update.section, update.position) for update in updates]


def test_what_libvirt_wrote_is_what_was_meant() -> None:
    assert compare_network(WRITTEN, PLAN) == []
    assert compare_hosts(WRITTEN, PLAN) == []
    assert keep_bridge(WRITTEN, PLAN).bridge == "virbr7"
    assert keep_bridge(WRITTEN, PLAN._replace(bridge="mine")).bridge == "mine"


def test_what_is_made_anew_keeps_its_bridge_and_its_mac() -> None:
    made = rebuild_network(WRITTEN, PLAN._replace(mtu=1400))
    assert compare_network(made, PLAN._replace(bridge="virbr7", mtu=1400)) == []
    assert parse(made).find("mac").get("address") == "52:54:00:11:22:33"  # type: ignore[union-attr]


def test_ranges_that_come_and_go_are_named_with_their_place() -> None:
    six = SIX._replace(mode="dhcpv6", ranges=(("fd00::100", "fd00::ffff"),))
    changes = compare_network(WRITTEN, four(mode="static")._replace(ipv6=six))
    assert words(changes) == [("delete", "range", 0), ("delete", "host", 0), ("add", "range", 1)]
    assert changes is not None
    assert 'start="10.1.0.64"' in changes[0].xml
    assert 'mac="52:54:00:00:00:01"' in changes[1].xml
    assert 'end="fd00::ffff"' in changes[2].xml


def test_another_time_of_leases_is_another_range_and_another_host() -> None:
    changes = words(compare_network(WRITTEN, four(lease_seconds=600)))
    assert changes == [("delete", "range", 0), ("delete", "host", 0), ("add", "host", 0), ("add", "range", 0)]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ((), ["delete"]), ((HOST, HOST._replace(mac="52:54:00:00:00:02", address="10.1.0.8", hostname="")), ["add"]),
        ((HOST._replace(address="10.1.0.8"),), ["delete", "add"]),
        ((HOST._replace(mac="52:54:00:00:00:02"),), ["delete", "add"]),
    ],
)  # fmt: skip
def test_what_is_kept_for_a_client_goes_before_it_comes(hosts: tuple[DhcpHost, ...], expected: list[str]) -> None:
    for changes in (compare_network(WRITTEN, four(hosts=hosts)), compare_hosts(WRITTEN, four(hosts=hosts))):
        assert words(changes) == [(verb, "host", 0) for verb in expected]


def test_of_a_shared_network_nothing_of_others_goes() -> None:
    another = DhcpHost("52:54:00:00:00:02", "10.1.0.8", "db")
    shared = four(hosts=(another,))._replace(shared=True)
    assert words(compare_hosts(WRITTEN, shared)) == [("add", "host", 0)]
    moved = four(hosts=(HOST._replace(address="10.1.0.7"),))._replace(shared=True)
    assert words(compare_hosts(WRITTEN, moved)) == [("delete", "host", 0), ("add", "host", 0)]
    for taken in (another._replace(address="10.1.0.9"), another._replace(hostname="web")):
        assert compare_hosts(WRITTEN, four(hosts=(taken,))._replace(shared=True)) == []


def test_hosts_are_brought_to_a_plan_that_differs_otherwise_too_but_not_to_another_subnet() -> None:
    changed = four(hosts=(), gateway="10.1.0.5")._replace(mtu=1400)
    assert compare_network(WRITTEN, changed) is None
    assert words(compare_hosts(WRITTEN, changed)) == [("delete", "host", 0)]
    moved = FOUR._replace(subnet="10.2.0.0/24", host="10.2.0.1", gateway="10.2.0.1", ranges=(), hosts=())
    assert compare_hosts(WRITTEN, PLAN._replace(ipv4=moved)) == []
    assert not is_same_subnets(WRITTEN, PLAN._replace(ipv4=moved))
    assert is_same_subnets(WRITTEN, changed)


def test_what_is_kept_beside_a_small_range_has_a_lease_of_its_own() -> None:
    clients = tuple(DhcpHost(f"52:54:00:00:00:0{number}", f"10.1.0.{number}") for number in range(1, 4))
    small = four(ranges=(("10.1.0.1", "10.1.0.2"),), hosts=clients[:1])
    xml = build_network(small)
    assert xml.count("<range") == 1
    for compare in (compare_network, compare_hosts):
        more = small._replace(ipv4=small.ipv4._replace(hosts=clients))
        changes = compare(xml, more)
        assert words(changes) == [("add", "host", 0), ("add", "host", 0), ("add", "range", 0)]
        assert changes is not None
        assert 'start="10.1.0.3" end="10.1.0.3"' in changes[2].xml
        assert words(compare(build_network(more), small)) == [
            ("delete", "range", 0), ("delete", "host", 0), ("delete", "host", 0),
        ]  # fmt: skip
    # A range that is the plan's own affair is not what keeps an address.
    assert compare_hosts(WRITTEN, four(ranges=(("10.1.0.80", "10.1.0.99"),))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"uplink": "isolated"}, {"uplink": "routed"}, {"bridge": "mine"}, {"mtu": 1400}, {"dns": ("9.9.9.9",)},
        {"search_domain": "lab.example"}, {"ipv4": Side()},
        {"ipv4": FOUR._replace(subnet="10.1.0.0/16")}, {"ipv4": FOUR._replace(host="10.1.0.2", gateway="10.1.0.2")},
        {"ipv4": FOUR._replace(gateway="10.1.0.7")}, {"ipv4": FOUR._replace(gateway="")},
        {"ipv4": FOUR._replace(ntp=("192.0.2.1",))},
        {"ipv4": FOUR._replace(routes=(Route("10.9.0.0/16", "10.1.0.7"),))},
        {"ipv6": SIX._replace(subnet="2001:db8::/64", host="2001:db8::1")}, {"ipv6": SIX._replace(mode="static")},
        {"ipv6": SIX._replace(mode="stateless")}, {"ipv6": SIX._replace(gateway="")},
    ],
)  # fmt: skip
def test_anything_else_is_the_whole_of_it(change: dict[str, Any]) -> None:
    assert compare_network(WRITTEN, PLAN._replace(**change)) is None


spans = st.lists(st.integers(1, 200), min_size=1, max_size=3, unique=True)
kept = st.dictionaries(st.integers(1, 9), st.integers(201, 250), max_size=4)


def with_leases(ranges: list[int], hosts: dict[int, int]) -> NetworkPlan:
    clients = tuple(DhcpHost(f"52:54:00:00:00:0{mac}", f"10.1.0.{last}", f"vm{mac}") for mac, last in hosts.items())
    return four(ranges=tuple((f"10.1.0.{each}", f"10.1.0.{each}") for each in ranges), hosts=clients)


@settings(max_examples=60)
@given(spans, kept, spans, kept)
def test_updates_lead_from_any_leases_to_any_other(
    ranges: list[int], hosts: dict[int, int], then_ranges: list[int], then_hosts: dict[int, int]
) -> None:
    before, after = with_leases(ranges, hosts), with_leases(then_ranges, then_hosts)
    root = parse(build_network(before))
    updates = compare_network(render(root), after)
    assert updates is not None
    for update in updates:
        dhcp = root.findall("ip")[update.position].find("dhcp")
        assert dhcp is not None
        if update.verb == "add":
            dhcp.append(parse(update.xml))
        else:
            (found,) = [each for each in dhcp if render(each) == update.xml]
            dhcp.remove(found)
    assert compare_network(render(root), after) == []
