"""What the clients of a network are told, heard by one: a station with a DHCP client and a network stack of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import PrivateHost, wait_until
from station import Station
from support.network_sides import serve

from backend.errors import NotFoundError
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import DhcpHost, NetworkPlan, Route, Side
from backend.network.shell import open_shell

pytestmark = pytest.mark.libvirt

FOUR, SIX = "10.77.60.0/24", "fd00:77:60::/64"
HOST4, HOST6 = "10.77.60.1", "fd00:77:60::1"
Join = Callable[..., Station]


@pytest.fixture
def join(hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path) -> Iterator[Join]:
    """Makes a network, puts a station on it, and removes both."""
    plans: list[NetworkPlan] = []
    stations: list[Station] = []

    def make(mac: str = "", uplink: str = "nat", **changes: Any) -> Station:
        plan = NetworkPlan(f"net-{uuid.uuid4().hex[:6]}", str(uuid.uuid4()), uplink)._replace(**changes)
        plans.append(plan)
        made = hypervisor.ensure_network(plan)
        station = Station(open_shell(private_host.uri), tmp_path, mac)
        stations.append(station)
        station.plug(made.bridge)
        return station

    yield make
    for station in stations:
        station.close()
    for plan in plans:
        hypervisor.ensure_network_gone(plan)


def test_a_client_of_dhcp_is_told_all_of_the_plan(join: Join) -> None:
    side = serve(
        FOUR, ranges=(("10.77.60.70", "10.77.60.70"),), routes=(Route("10.9.0.0/16", "10.77.60.9"),),
        ntp=("192.0.2.1", "192.0.2.2"), lease_seconds=600,
    )  # fmt: skip
    station = join(ipv4=side, mtu=1400, dns=("9.9.9.9", "2620:fe::fe", "1.1.1.1"), search_domain="lab.example")
    told = station.ask_dhcp()
    assert (told["ip"], told["mask"], told["router"], told["lease"]) == ("10.77.60.70", "24", HOST4, "600")
    assert (told["dns"], told["search"], told["mtu"]) == ("9.9.9.9 1.1.1.1", "lab.example", "1400")
    assert told["ntpsrv"] == "192.0.2.1 192.0.2.2"
    assert told["staticroutes"] == f"10.9.0.0/16 10.77.60.9 0.0.0.0/0 {HOST4}"
    assert station.addresses() == set()


@pytest.mark.parametrize(
    ("uplink", "gateway", "router"),
    [
        ("nat", "10.77.60.9", "10.77.60.9"), ("nat", "", None), ("routed", HOST4, HOST4),
        ("isolated", HOST4, None), ("isolated", "10.77.60.9", "10.77.60.9"),
    ],
)  # fmt: skip
def test_the_router_of_ipv4_is_the_plans(join: Join, uplink: str, gateway: str, router: str | None) -> None:
    told = join(uplink=uplink, ipv4=serve(FOUR, gateway=gateway)).ask_dhcp()
    assert told.get("router") == router
    # Where no server is planned, the host answers itself.
    assert told["dns"] == HOST4
    assert "mtu" not in told


def test_a_client_keeps_its_address_and_nobody_else_gets_it(join: Join) -> None:
    mac = "52:54:00:77:60:01"
    hosts = (DhcpHost(mac, "10.77.60.5", "web"), DhcpHost("52:54:00:77:60:02", "10.77.60.70"))
    side = serve(FOUR, ranges=(("10.77.60.70", "10.77.60.71"),), hosts=hosts)
    station = join(mac, ipv4=side)
    assert station.ask_dhcp()["ip"] == "10.77.60.5"
    station.run("ip", "link", "set", "eth0", "address", "52:54:00:77:60:03")
    assert station.ask_dhcp()["ip"] == "10.77.60.71"


@pytest.mark.parametrize(
    ("uplink", "gateway", "is_router"),
    [("nat", HOST6, True), ("nat", "fd00:77:60::9", False), ("nat", "", False), ("isolated", HOST6, False)],
)
def test_slaac_gives_an_address_and_a_router_only_where_the_host_is_one(
    join: Join, uplink: str, gateway: str, is_router: bool
) -> None:
    station = join("52:54:00:77:60:01", uplink, ipv6=serve(SIX, gateway=gateway), mtu=1400, search_domain="lab.example")
    heard = station.hear_router()
    assert heard is not None
    assert heard["prefixes"] == [{"prefix": SIX, "on_link": True, "autonomous": True}]
    assert (bool(heard["lifetime"]), heard["managed"], heard["other"]) == (is_router, False, False)
    assert (heard["mtu"], heard["search"]) == (1400, ["lab.example"])
    assert [address.startswith("fe80::") for address in heard["dns"]] == [True]
    wait_until(station.addresses, "the kernel has an address")
    assert station.addresses() == {"fd00:77:60:0:5054:ff:fe77:6001/64"}
    assert station.has_default_route() is is_router
    assert station.ask_dhcp(tries=2) == {}


def test_stateless_clients_are_sent_to_dhcpv6_for_the_rest(join: Join) -> None:
    side = serve(SIX, "stateless", ntp=("2001:db8::7",))
    station = join("52:54:00:77:60:01", ipv6=side, dns=("2620:fe::fe", "9.9.9.9"), search_domain="lab.example")
    heard = station.hear_router()
    assert heard is not None
    assert heard["prefixes"] == [{"prefix": SIX, "on_link": True, "autonomous": True}]
    assert (heard["managed"], heard["other"], heard["dns"]) == (False, True, ["2620:fe::fe"])
    told = station.ask_dhcpv6("information")
    assert told is not None
    assert (told["dns"], told["search"], told["ntp"], told["sntp"]) == (
        ["2620:fe::fe"], ["lab.example"], ["2001:db8::7"], ["2001:db8::7"],
    )  # fmt: skip
    offered = station.ask_dhcpv6("solicit")
    assert offered is not None
    assert offered["address"] == ""
    assert station.addresses() == {"fd00:77:60:0:5054:ff:fe77:6001/64"}


def test_dhcpv6_gives_addresses_and_keeps_them_and_nobody_makes_one_of_a_prefix(join: Join) -> None:
    duid = "00:03:00:01:52:54:00:77:60:02"
    hosts = (DhcpHost("", "fd00:77:60::5", "web"), DhcpHost("", "fd00:77:60::6", duid=duid))
    side = serve(SIX, "dhcpv6", ranges=((f"{SIX[:-3]}70", f"{SIX[:-3]}70"),), hosts=hosts, lease_seconds=600)
    station = join(ipv6=side._replace(gateway=""), dns=("9.9.9.9",))
    heard = station.hear_router()
    assert heard is not None
    assert heard["prefixes"] == [{"prefix": SIX, "on_link": True, "autonomous": False}]
    assert (heard["lifetime"], heard["managed"], heard["dns"]) == (0, True, [])
    for who, address in (({}, "::70"), ({"duid": duid}, "::6"), ({"duid": f"{duid[:-2]}03", "name": "web"}, "::5")):
        told = station.ask_dhcpv6("solicit", **who)
        assert told is not None
        assert (told["address"], told["lease"], told["dns"]) == (f"fd00:77:60{address}", 600, [])
    assert station.addresses() == set()
    assert station.has_default_route() is False


@pytest.mark.parametrize(("mode", "other"), [("static", serve(FOUR)), ("none", Side())], ids=["static", "none"])
def test_static_ipv6_is_advertised_by_nobody(join: Join, mode: str, other: Side) -> None:
    station = join(ipv4=other, ipv6=serve(SIX, mode))
    assert not other.subnet or station.ask_dhcp()
    assert station.hear_router() is None
    assert station.ask_dhcpv6("solicit") is None
    assert station.addresses() == set()
    station.run("ip", "addr", "add", f"{SIX[:-3]}9/64", "dev", "eth0")
    assert "1 packets received" in station.run("busybox", "ping", "-c1", "-W2", HOST6)


def test_both_families_are_served_side_by_side(join: Join) -> None:
    station = join(uplink="routed", ipv4=serve(FOUR), ipv6=serve(SIX), dns=("9.9.9.9", "2620:fe::fe"))
    told, heard = station.ask_dhcp(), station.hear_router()
    assert heard is not None
    assert (told["router"], told["dns"]) == (HOST4, "9.9.9.9")
    assert (heard["lifetime"] > 0, heard["dns"]) == (True, ["2620:fe::fe"])


def test_a_segment_without_the_host_serves_nothing(join: Join) -> None:
    station = join(uplink="isolated", ipv4=Side(FOUR, mode="static"))
    assert station.ask_dhcp(tries=2) == {}
    assert station.hear_router() is None


def test_leases_of_both_families_are_seen_with_their_names(hypervisor: Hypervisor, join: Join) -> None:
    side = serve(SIX, "dhcpv6")
    station = join(
        "52:54:00:77:60:01", ipv4=serve(FOUR, hosts=(DhcpHost("52:54:00:77:60:01", "10.77.60.5", "web"),)), ipv6=side
    )
    station.ask_dhcp()
    station.ask_dhcpv6("solicit")
    (name,) = [network.name for network in hypervisor.list_networks() if network.ipv4_subnet == FOUR]
    wait_until(lambda: len(hypervisor.leases([name])) == 2, "both leases are seen")
    four, six = sorted(hypervisor.leases([name]), key=lambda lease: lease.family)
    assert (four.address, four.mac, four.hostname) == ("10.77.60.5", station.mac, "web")
    assert (six.family, six.mac, six.address.startswith(SIX[:-4])) == ("ipv6", station.mac, True)


def test_a_lease_of_ipv6_is_given_back(libvirt_uri: str, tmp_path: Path) -> None:
    # Only who is on the host itself can speak for a guest that is gone.
    driver = open_hypervisor(libvirt_uri, "kc", tmp_path)
    token = uuid.uuid4().hex
    subnet = f"fd{token[:2]}:{token[2:6]}:{token[6:10]}:1::/64"
    plan = NetworkPlan(f"kct-{token[:6]}", str(uuid.uuid4()), "isolated", ipv6=serve(subnet, "dhcpv6"))
    station = Station(open_shell(libvirt_uri), tmp_path)
    try:
        station.plug(driver.ensure_network(plan).bridge)
        told = station.ask_dhcpv6("solicit")
        assert told is not None
        wait_until(lambda: driver.leases([plan.name]), "the lease is seen")
        assert [lease.address for lease in driver.leases([plan.name])] == [told["address"]]
        driver.release_lease(plan.name, "52:54:00:00:00:00")
        assert len(driver.leases([plan.name])) == 1
        driver.release_lease(plan.name, station.mac)
        assert driver.leases([plan.name]) == []
    finally:
        station.close()
        driver.ensure_network_gone(plan)
        driver.close()


def test_a_bridge_of_the_hosts_own_is_looked_for_and_left_alone(
    hypervisor: Hypervisor, private_host: PrivateHost
) -> None:
    plan = NetworkPlan("theirs", str(uuid.uuid4()), "bridge:theirs0")
    for call in (hypervisor.ensure_network, hypervisor.replace_network):
        with pytest.raises(NotFoundError, match="theirs0"):
            call(plan)
    private_host.run("ip", "link", "add", "theirs0", "type", "bridge")
    made = hypervisor.ensure_network(plan)
    assert (made.name, made.active, made.bridge, made.uplink) == ("theirs", True, "theirs0", "bridge:theirs0")
    assert hypervisor.would_cut(plan) == ()
    hypervisor.ensure_network_gone(plan)
    assert "theirs" not in private_host.virsh("net-list", "--all")
    private_host.run("ip", "link", "show", "theirs0")
    # A segment of KC's own that becomes the host's leaves no network behind.
    hypervisor.ensure_network(plan._replace(uplink="isolated", ipv4=serve(FOUR)))
    assert hypervisor.replace_network(plan).bridge == "theirs0"
    assert "theirs" not in private_host.virsh("net-list", "--all")
