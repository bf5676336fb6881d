"""What the kernel's words mean: recorded from iproute2 6.1 and nftables 1.0.6, with names that somebody made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from support.network_sides import serve
from support.recorded_shell import Recorded

from backend.errors import FailedError
from backend.network.plan import NetworkPlan, NetworkState, Vxlan
from backend.network.truth import look

HOSTILE = 'evil "\\n@vxlans\\n[] \x1b[31m \u202e'.replace('"', '\\"')
BRIDGE: dict[str, Any] = {
    "ifindex": 2, "ifname": "kc-1", "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1450,
    "linkinfo": {"info_kind": "bridge", "info_data": {"stp_state": 0}},
}  # fmt: skip
VXLAN: dict[str, Any] = {
    "ifindex": 7, "ifname": "kx1", "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1450, "master": "kc-1",
    "linkinfo": {
        "info_kind": "vxlan",
        "info_data": {"id": 42, "local": "10.9.0.1", "link": "eth0", "port": 4789, "learning": False},
        "info_slave_kind": "bridge",
    },
}  # fmt: skip
PLAN = NetworkPlan(
    "kc-net", "uid", "nat", bridge="kc-1", ipv4=serve("10.8.0.0/24"), mtu=1450,
    vxlan=Vxlan("kx1", 42, "10.9.0.1", ("10.9.0.2", "10.9.0.3")),
)  # fmt: skip
PEERS = (
    "00:00:00:00:00:00 dev kx1 dst 10.9.0.3 self permanent",
    "00:00:00:00:00:00 dev kx1 dst 10.9.0.2 self permanent",
)


PORTS = (("kx1", "kc-1"), ("kt1", "kc-1"), ("vnet9", "other"))


def speak(bridges: str = "", vxlans: Any = (VXLAN,), peers: Sequence[str] = PEERS, **more: str) -> str:
    """Return what a host says."""
    underlay = [{}, {"ifname": "eth0", "mtu": 1500, "addr_info": [{"local": "10.9.0.1", "prefixlen": 24}]}]
    parts = {
        "bridges": bridges or json.dumps([BRIDGE]),
        "vxlans": json.dumps(list(vxlans)),
        "ports": json.dumps([{"ifname": name, "master": bridge} for name, bridge in PORTS]),
        "peers": "\n".join(peers),
        "devices": json.dumps(underlay),
        "configured": "/var/lib/libvirt/dnsmasq/kc-net.conf\n/var/lib/libvirt/dnsmasq/*.conf",
        "served": "/var/lib/libvirt/dnsmasq/kc-net.conf\n/var/lib/libvirt/dnsmasq/kc-net.conf",
        **more,
    }
    return "".join(f"@{name}\n{text}\n" for name, text in parts.items())


def see(output: str, plan: NetworkPlan = PLAN, *, thorough: bool = False) -> NetworkState:
    (state,) = look(Recorded(output), [(plan, plan.bridge)], thorough=thorough)
    return state


def test_a_healthy_network_is_told_whole():
    assert see(speak()) == NetworkState(
        bridge="kc-1", up=True, mtu=1450, ports=("kx1", "kt1"), dnsmasq=True, vxlan="up", underlay_mtu=1500
    )


def test_any_number_of_networks_is_one_command_and_none_is_no_command():
    host = Recorded(speak())
    assert (
        len(look(host, [(PLAN._replace(name=f"net-{number}"), "kc-1") for number in range(50)], thorough=False)) == 50
    )
    assert [arguments[0] for arguments in host.asked].count("sh") == 1
    quiet = Recorded("")
    assert look(quiet, [], thorough=True) == []
    assert quiet.asked == []


def test_an_alias_that_looks_like_our_own_words_changes_nothing():
    bridges = json.dumps([BRIDGE])[:-2] + f', "ifalias": "{HOSTILE}"}}]'
    assert "\x1b" in bridges
    assert see(speak(bridges)) == see(speak())


def test_a_bridge_that_is_gone_or_off_is_seen():
    gone = see(speak("[]", vxlans=()))
    assert (gone.up, gone.mtu, gone.vxlan) == (False, 0, "missing")
    off = see(speak(json.dumps([{**BRIDGE, "flags": ["BROADCAST", "MULTICAST"]}])))
    assert (off.up, off.mtu) == (False, 1450)


def change(path: str, value: Any) -> dict[str, Any]:
    """Return the VXLAN device with one thing changed."""
    made: dict[str, Any] = json.loads(json.dumps(VXLAN))
    target = made["linkinfo"]["info_data"] if path in VXLAN["linkinfo"]["info_data"] or path == "group" else made
    target[path] = value
    return made


@pytest.mark.parametrize(
    ("device", "peers", "state"),
    [
        (VXLAN, PEERS, "up"),
        (change("flags", ["BROADCAST"]), PEERS, "down"),
        (change("id", 43), PEERS, "different"),
        (change("local", "10.9.0.9"), PEERS, "different"),
        (change("port", 8472), PEERS, "different"),
        (change("group", "239.1.1.1"), PEERS, "different"),
        (change("master", "virbr0"), PEERS, "different"),
        (change("mtu", 1400), PEERS, "different"),
        (VXLAN, PEERS[:1], "different"),
        (VXLAN, (*PEERS, "00:00:00:00:00:00 dev kx1 dst 10.9.0.4 self permanent"), "different"),
        (VXLAN, (*PEERS, "00:00:00:00:00:00 dev kx2 dst 10.9.0.4 self permanent"), "up"),
    ],
    ids=["whole", "off", "vni", "local", "port", "group", "master", "mtu", "peer-gone", "peer-more", "another's"],
)
def test_a_vxlan_is_compared_with_its_plan(device, peers, state):
    assert see(speak(vxlans=(device,), peers=peers)).vxlan == state


def test_a_vxlan_by_multicast_over_ipv6_is_known():
    vxlan = Vxlan("kx1", 42, "fd00::1", group="ff05::1", underlay="eth0")
    device = change("group", "")
    data = {"id": 42, "local6": "fd00::1", "group6": "ff05::1", "link": "eth0", "port": 4789}
    device["linkinfo"]["info_data"] = data
    told = speak(vxlans=(device,), peers=("00:00:00:00:00:00 dev kx1 dst ff05::1 via eth0 self permanent",))
    state = see(told, PLAN._replace(vxlan=vxlan))
    assert (state.vxlan, state.underlay_mtu) == ("up", 1500)
    data["link"] = "eth1"
    told = speak(vxlans=(device,), peers=())
    assert see(told, PLAN._replace(vxlan=vxlan)).vxlan == "different"


def test_a_server_is_wanted_where_libvirt_has_one():
    served = {"served": "/var/lib/libvirt/dnsmasq/kc-other.conf\n/tmp/kc-net.conf"}
    assert see(speak(**served)).dnsmasq is False
    quiet = PLAN._replace(ipv4=serve("10.8.0.0/24", "static"))
    assert see(speak(**served), quiet).dnsmasq is False, "libvirt has written what it is to serve"
    assert see(speak(**served, configured=""), quiet).dnsmasq is None
    assert see(speak(**served), PLAN._replace(uplink="bridge:br0", vxlan=None)).dnsmasq is None


def test_gateways_are_asked_only_by_a_thorough_look():
    foreign = PLAN._replace(ipv4=serve("10.8.0.0/24", gateway="10.8.0.2"))
    for line, word in (
        ("10.8.0.2 dev kc-1 lladdr 52:54:00:00:00:01 REACHABLE", "answers"),
        ("10.8.0.2 dev kc-1 lladdr 52:54:00:00:00:01 router PROBE", "silent"),
        ("10.8.0.2 dev kc-1 FAILED", "silent"),
        ("10.8.0.2 dev kc-9 lladdr 52:54:00:00:00:01 REACHABLE", "silent"),
        ("10.8.0.2 dev kc-1 lladdr 52:54:00:00:00:01 PERMANENT", "unknown"),
    ):
        assert see(speak(neighbours=line), foreign, thorough=True).gateways == (("10.8.0.2", word),), line
        assert see(speak(neighbours=line), foreign).gateways == ()


def test_the_host_is_its_own_gateway_where_its_bridge_has_the_address():
    with_it = json.dumps([{"ifname": "kc-1", "addr_info": [{"local": "10.8.0.1", "prefixlen": 24}]}])
    assert see(speak(devices=with_it), thorough=True).gateways == (("10.8.0.1", "answers"),)
    assert see(speak(), thorough=True).gateways == (("10.8.0.1", "silent"),)


def test_names_that_are_no_words_are_not_given_to_a_command():
    host = Recorded(speak())
    plan = PLAN._replace(ipv4=serve("10.8.0.0/24", gateway="10.8.0.2"))
    look(host, [(plan, "kc-1\nlink delete eth0"), (plan, "-batch"), (plan, "kc-1")], thorough=True)
    assert list(host.asked[0][4:]) == ["addr show to 10.9.0.1", "10.8.0.2 dev kc-1"]


def test_a_host_without_iproute2_is_told_how_to_get_it():
    for output in ("@missing\nip\n", speak("2: kc-1: <BROADCAST,UP> mtu 1500 state UP")):
        with pytest.raises(FailedError) as raised:
            see(output)
        assert raised.value.hint == "apt-get install iproute2"
