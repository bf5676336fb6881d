"""What a network's document may say, and what is refused with the path and the reason."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backend.errors import RefusedError
from backend.model.addressing import dynamic_ranges, effective_guard, effective_rates, host_address
from backend.model.documents import NETWORK_ADDITIONS, SIDE_ADDITIONS, Document, complete
from backend.model.networks import tap_device, vxlan_device
from backend.model.schemas import validate_document

DHCP = {"subnet": "10.0.0.0/24", "mode": "dhcp"}
SLAAC = {"subnet": "fd00:1::/64", "mode": "slaac"}
VXLAN = {"vni": 7, "local": "192.0.2.1", "peers": ["192.0.2.2"]}


def read(**spec: Any) -> Document:
    document = {"kind": "Network", "name": "lab", "metadata": {}, "spec": spec}
    found: Document = validate_document(document)["spec"]
    return found


@pytest.mark.parametrize(
    ("spec", "path", "why"),
    [
        ({"ipv4": {"subnet": "10.0.0.1/24", "mode": "dhcp"}}, "ipv4.subnet", "host bits"),
        ({"ipv4": {"subnet": "fd00::/64", "mode": "dhcp"}}, "ipv4.subnet", "no IPv4 subnet"),
        ({"ipv4": {"subnet": "10.0.0.0/31", "mode": "dhcp"}}, "ipv4.subnet", "no room"),
        ({"ipv4": {"mode": "dhcp"}}, "ipv4.mode", "needs a subnet"),
        ({"ipv4": {**DHCP, "mode": "slaac"}}, "ipv4.mode", ""),
        ({"ipv4": {"ranges": [{"start": "10.0.0.5", "end": "10.0.0.9"}]}}, "ipv4.ranges", "no subnet"),
        ({"ipv4": {**DHCP, "ranges": [{"start": "10.0.1.5", "end": "10.0.1.9"}]}}, "ipv4.ranges.0.start", "not in"),
        ({"ipv4": {**DHCP, "ranges": [{"start": "10.0.0.9", "end": "10.0.0.5"}]}}, "ipv4.ranges.0", "comes after"),
        ({"ipv4": {**DHCP, "ranges": [{"start": "10.0.0.9", "end": "10.0.0.255"}]}}, "ipv4.ranges.0.end", "machine"),
        (
            {"ipv4": {**DHCP, "ranges": [{"start": "10.0.0.5", "end": "10.0.0.9"}] * 2}},
            "ipv4.ranges.1",
            "overlaps another range",
        ),
        ({"ipv4": {**DHCP, "reservations": [{"address": "10.0.0.9"}]}}, "ipv4.reservations.0.mac", "missing"),
        (
            {"ipv4": {**DHCP, "reservations": [{"address": "10.0.9.9", "mac": "52:54:00:00:00:01"}]}},
            "ipv4.reservations.0.address",
            "not in",
        ),
        (
            {"ipv4": {**DHCP, "reservations": [{"address": "10.0.0.9", "mac": "52:54:00:00:00:01"}] * 2}},
            "ipv4.reservations.1.address",
            "there twice",
        ),
        ({"ipv6": {**SLAAC, "reservations": [{"address": "fd00:1::9"}]}}, "ipv6.reservations.0.duid", "knows no MAC"),
        ({"ipv4": {**DHCP, "routes": [{"to": "10.9.0.0/16", "via": "fd00::1"}]}}, "ipv4.routes.0.via", "no IPv4"),
        ({"ipv4": {**DHCP, "ntp": ["time.example"]}}, "ipv4.ntp.0", "no IP address"),
        ({"ipv6": {"subnet": "fd00::/65", "mode": "slaac"}}, "ipv6.subnet", "SLAAC needs a /64"),
        ({"ipv6": {"subnet": "fd00::/65", "mode": "stateless"}}, "ipv6.subnet", "SLAAC needs a /64"),
        ({"ipv6": {"subnet": "fe80::/64", "mode": "slaac"}}, "ipv6.subnet", "no subnet that guests can have"),
        ({"ipv6": {"subnet": "fd00::/127", "mode": "dhcpv6"}}, "ipv6.subnet", "no room"),
        ({"ipv4": DHCP, "gateway": "10.0.1.1"}, "gateway", "not in 10.0.0.0/24"),
        ({"ipv4": DHCP, "gateway": "10.0.0.255"}, "gateway", "a machine can have"),
        ({"ipv4": DHCP, "gateway": "fd00::1"}, "gateway", "the network has no such subnet"),
        ({"ipv4": DHCP, "gateway": "10.0.0.1,10.0.0.2"}, "gateway", "one address of each family"),
        ({"ipv4": DHCP, "gateway": "vm:Not A Name"}, "gateway", ""),
        ({"uplink": "bridge:br0", "ipv4": {**DHCP, "mode": "static"}}, "gateway", "does not know the gateway"),
        ({"uplink": "bridge:kx0123456789"}, "uplink", "needs itself"),
        ({"uplink": "bridge:kt0123456789"}, "uplink", "needs itself"),
        ({"uplink": "bridge:all"}, "uplink", "needs itself"),
        ({"uplink": "bridge:.."}, "uplink", ""),
        ({"uplink": "bridge:a-name-that-is-too-long"}, "uplink", ""),
        ({"uplink": "bridge:br0", "vxlan": VXLAN}, "vxlan", "the operator's"),
        ({"vxlan": VXLAN, "libvirtNetwork": "default"}, "vxlan", "shared with others"),
        ({"vxlan": {**VXLAN, "vni": 0}}, "vxlan.vni", "greater than or equal to 1"),
        ({"vxlan": {**VXLAN, "vni": 1 << 24}}, "vxlan.vni", "less than or equal to 16777215"),
        ({"vxlan": {**VXLAN, "peers": ["192.0.2.1"]}}, "vxlan.peers.0", "this host"),
        ({"vxlan": {**VXLAN, "peers": ["192.0.2.3"] * 2}}, "vxlan.peers.1", "there twice"),
        ({"vxlan": {**VXLAN, "peers": ["2001:db8::1"]}}, "vxlan.peers.0", "IPv6, local is IPv4"),
        ({"vxlan": {**VXLAN, "peers": ["239.0.0.1"]}}, "vxlan.peers.0", "no address of a host"),
        ({"vxlan": {**VXLAN, "group": "239.0.0.1"}}, "vxlan.group", "not both"),
        ({"vxlan": {"vni": 7, "local": "192.0.2.1", "group": "192.0.2.9"}}, "vxlan.group", "no multicast address"),
        ({"vxlan": {"vni": 7, "local": "fe80::1%eth0"}}, "vxlan.local", "zone"),
        ({"vxlan": {**VXLAN, "dev": "kx0123456789"}}, "vxlan.dev", "cannot be a VXLAN's underlay"),
        ({"vxlan": {**VXLAN, "port": 70000}}, "vxlan.port", "65535"),
        ({"ipv6": SLAAC, "mtu": 1279}, "mtu", "IPv6 needs 1280"),
        ({"mtu": 100}, "mtu", "576"),
        ({"dns": ["9.9.9.9", "nine"]}, "dns.1", "no IP address"),
        ({"searchDomain": "-lab"}, "searchDomain", ""),
        ({"guard": {"antiSpoof": "perhaps"}}, "guard.antiSpoof", ""),
        ({"rateLimit": {"sendBytesPerSecond": 1}}, "rateLimit.sendBytesPerSecond", "8192"),
        ({"colour": "red"}, "colour", "unknown field"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(spec: Document, path: str, why: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(**spec)
    assert refused.value.why.startswith(f"spec.{path}: "), refused.value.why
    assert re.search(re.escape(why), refused.value.why)


def test_addresses_are_kept_as_they_are_written_best() -> None:
    slaac = {"subnet": "FD00:0001:0::/64", "mode": "slaac"}
    spec = read(ipv4=DHCP, ipv6=slaac, gateway="FD00:1::0001,10.0.0.9", dns=["2620:FE::fe"])
    assert spec["ipv6"]["subnet"] == "fd00:1::/64"
    assert spec["gateway"] == "10.0.0.9,fd00:1::1"
    assert spec["dns"] == ["2620:fe::fe"]


def test_a_network_of_the_first_shape_is_completed() -> None:
    spec: Document = {
        "uplink": "nat", "ipv4": DHCP, "ipv6": {"subnet": "", "mode": "none"}, "gateway": "host", "dns": [],
        "mtu": None, "description": "", "libvirtNetwork": "",
    }  # fmt: skip
    whole = complete({"kind": "Network", "apiVersion": "kc/v1", "spec": spec})["spec"]
    assert whole == read(**spec)
    assert NETWORK_ADDITIONS.keys() <= whole.keys()
    assert SIDE_ADDITIONS.keys() <= whole["ipv4"].keys()


@pytest.mark.parametrize(
    ("gateway", "host", "host6"),
    [
        ("host", "10.0.0.1", "fd00:1::1"),
        ("none", "10.0.0.254", "fd00:1::2"),
        ("10.0.0.1", "10.0.0.254", "fd00:1::2"),
        ("10.0.0.254,fd00:1::2", "10.0.0.1", "fd00:1::1"),
        ("vm:gw", "10.0.0.254", "fd00:1::2"),
    ],
)
def test_the_host_keeps_out_of_the_gateways_way(gateway: str, host: str, host6: str) -> None:
    spec = read(ipv4=DHCP, ipv6=SLAAC, gateway=gateway)
    assert (host_address(spec, "ipv4"), host_address(spec, "ipv6")) == (host, host6)


def test_a_bridge_of_the_hosts_own_has_no_address_that_kc_knows() -> None:
    assert host_address(read(uplink="bridge:br0", ipv4=DHCP), "ipv4") == ""


@pytest.mark.parametrize(
    ("side", "ranges"),
    [
        (DHCP, (("10.0.0.64", "10.0.0.254"),)),
        ({"subnet": "10.0.0.0/29", "mode": "dhcp"}, (("10.0.0.2", "10.0.0.6"),)),
        ({"subnet": "10.0.0.0/30", "mode": "dhcp"}, (("10.0.0.2", "10.0.0.2"),)),
        ({"subnet": "10.0.0.0/8", "mode": "dhcp"}, (("10.0.63.255", "10.0.255.255"),)),
        ({**DHCP, "ranges": [{"start": "10.0.0.1", "end": "10.0.0.9"}]}, (("10.0.0.2", "10.0.0.9"),)),
        ({"subnet": "10.0.0.0/24", "mode": "static"}, ()),
    ],
)
def test_dhcp_gives_the_upper_part_or_what_it_is_told_to(side: Document, ranges: tuple[tuple[str, str], ...]) -> None:
    assert dynamic_ranges(read(ipv4=side), "ipv4") == ranges


NIC = {
    "network": {"uid": "n"}, "mac": "52:54:00:00:00:01", "ipv4": {"mode": "network", "address": ""},
    "ipv6": {"mode": "network", "address": ""},
}  # fmt: skip


def guard_of(nic: Document, *, is_gateway: bool = False, **spec: Any) -> dict[str, Any]:
    return effective_guard({**NIC, **nic}, {"spec": read(**spec)}, is_gateway=is_gateway)


STATIC = {"ipv4": {"mode": "static", "address": "10.0.0.5/24"}}


def test_what_a_nic_may_not_do_is_on_where_it_breaks_nothing() -> None:
    plain = guard_of({}, ipv4=DHCP, ipv6=SLAAC)
    assert (plain["antiSpoof"], plain["dhcpGuard"], plain["raGuard"], plain["isolated"]) == ("mac", True, True, False)
    known = guard_of(STATIC, ipv4=DHCP, ipv6=SLAAC)
    assert (known["antiSpoof"], known["ipv4"], known["ipv6"], known["strict"]) == ("address", ["10.0.0.5"], None, False)
    gateway = guard_of(STATIC, ipv4=DHCP, ipv6=SLAAC, is_gateway=True)
    assert (gateway["antiSpoof"], gateway["ipv4"], gateway["dhcpGuard"], gateway["raGuard"]) == (
        "mac",
        None,
        True,
        False,
    )
    # Where KC serves nothing, somebody else may be meant to.
    bare = guard_of({})
    assert (bare["dhcpGuard"], bare["raGuard"]) == (False, False)
    office = guard_of({}, uplink="bridge:br0", ipv4=DHCP)
    assert (office["antiSpoof"], office["dhcpGuard"]) == ("mac", False)


def test_a_nic_says_otherwise_than_its_network() -> None:
    guard = {"antiSpoof": "off", "dhcpGuard": "off", "raGuard": "on", "isolated": True}
    spec: dict[str, Any] = {"ipv4": DHCP, "guard": guard}
    assert guard_of({}, **spec) == {
        "antiSpoof": "off", "ipv4": None, "ipv6": None, "strict": False, "dhcpGuard": False, "raGuard": True,
        "isolated": True,
    }  # fmt: skip
    own = {"antiSpoof": "address", "dhcpGuard": "on", "raGuard": "off", "isolated": "off"}
    assert guard_of({**STATIC, "guard": own}, **spec) == {
        "antiSpoof": "address", "ipv4": ["10.0.0.5"], "ipv6": [], "strict": True, "dhcpGuard": True, "raGuard": False,
        "isolated": False,
    }  # fmt: skip


def test_a_rate_of_its_own_takes_the_place_of_the_networks() -> None:
    network = {"spec": read(rateLimit={"sendBytesPerSecond": 10_000, "receiveBytesPerSecond": 20_000})}
    assert effective_rates(NIC, network) == (20_000, 10_000)
    own = {"sendBytesPerSecond": 30_000, "receiveBytesPerSecond": None}
    assert effective_rates({**NIC, "rateLimit": own}, network) == (0, 30_000)


def test_devices_are_named_within_the_kernels_fifteen_characters() -> None:
    uid = "88abaf9e-e05c-4fc2-8e5c-0b9239a12f22"
    names = {vxlan_device({"uid": uid}), *(tap_device(uid, f"nic{number}") for number in range(16))}
    assert len(names) == 17
    assert all(len(name) <= 15 for name in names)
