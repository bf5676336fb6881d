"""What stands in the way of networks: from what hosts said, with rules as nftables 1.0.6 gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.network_sides import serve
from support.recorded_shell import Recorded

from backend.network.plan import NetworkPlan, Vxlan
from backend.network.truth import find_obstacles

NAT = NetworkPlan("kc-net", "uid", "nat", bridge="kc-1", ipv4=serve("10.8.0.0/24"))
JOINED = NAT._replace(vxlan=Vxlan("kx1", 42, "10.9.0.1", ("10.9.0.2",)))


def tell(rules: dict[str, list[Any]] | None = None, **more: str) -> str:
    """Return what a host says of what could stand in the way; without more it is a healthy one."""
    parts = {
        "forwarding4": "1", "forwarding6": "1", "bridged4": "", "bridged6": "", "legacy": "", "missing": "",
        "modules": "", "bridges": " kc-1", "uplinks": "default via 192.0.2.1 dev eth0", "accepting": "", **more,
    }  # fmt: skip
    text = "".join(f"@{name}\n{each}\n" for name, each in parts.items())
    for family, objects in (rules if rules is not None else {"ip": LIBVIRT}).items():
        text += f"@rules {family}\n{json.dumps({'nftables': [{'metainfo': {}}, *objects]})}\n"
    return text


def chain(family: str, table: str, name: str, hook: str = "", policy: str = "accept", kind: str = "filter") -> Any:
    base = {"type": kind, "hook": hook, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": family, "table": table, "name": name, **base}}


def rule(family: str, table: str, name: str, *statements: Any) -> Any:
    return {"rule": {"family": family, "table": table, "chain": name, "handle": 1, "expr": list(statements)}}


def match(key: str, value: Any, op: str = "==") -> Any:
    if "." in key:
        protocol, field = key.split(".")
        return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": value}}
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


SUBNET = {"prefix": {"addr": "10.8.0.0", "len": 24}}
COUNTER = {"counter": {"packets": 0, "bytes": 0}}
REJECT = {"xt": {"type": "target", "name": "REJECT"}}
NEW_OR_OLD = {"xt": {"type": "match", "name": "conntrack"}}
LIBVIRT = [
    chain("ip", "nat", "POSTROUTING", "postrouting", kind="nat"),
    chain("ip", "nat", "LIBVIRT_PRT"),
    rule("ip", "nat", "POSTROUTING", COUNTER, {"jump": {"target": "LIBVIRT_PRT"}}),
    rule("ip", "nat", "LIBVIRT_PRT", match("ip.saddr", SUBNET), match("ip.daddr", "224.0.0.0"), {"return": None}),
    rule(
        "ip", "nat", "LIBVIRT_PRT", match("ip.saddr", SUBNET), match("ip.daddr", SUBNET, "!="),
        COUNTER, {"xt": {"type": "target", "name": "MASQUERADE"}},
    ),
    chain("ip", "filter", "FORWARD", "forward"),
    chain("ip", "filter", "LIBVIRT_FWO"),
    chain("ip", "filter", "LIBVIRT_FWI"),
    rule("ip", "filter", "FORWARD", COUNTER, {"jump": {"target": "LIBVIRT_FWO"}}),
    rule("ip", "filter", "FORWARD", COUNTER, {"jump": {"target": "LIBVIRT_FWI"}}),
    rule("ip", "filter", "LIBVIRT_FWO", match("ip.saddr", SUBNET), match("iifname", "kc-1"), COUNTER, {"accept": None}),
    rule("ip", "filter", "LIBVIRT_FWO", match("iifname", "kc-1"), COUNTER, REJECT),
    rule("ip", "filter", "LIBVIRT_FWI", match("oifname", "kc-1"), NEW_OR_OLD, COUNTER, {"accept": None}),
    rule("ip", "filter", "LIBVIRT_FWI", match("oifname", "kc-1"), COUNTER, REJECT),
]  # fmt: skip
ESTABLISHED = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}


def codes(output: str, *plans: NetworkPlan) -> list[str]:
    return [obstacle.code for obstacle in find_obstacles(Recorded(output), plans or (NAT,))]


def test_a_healthy_host_has_no_obstacles():
    assert codes(tell()) == []
    assert codes(tell(None, bridges=""), NAT) == []
    assert find_obstacles(Recorded(""), []) == []


def test_forwarding_that_is_off_hinders_those_who_are_routed():
    (found,) = find_obstacles(Recorded(tell(forwarding4="0")), [NAT])
    assert (found.code, found.mend) == ("forwarding-off", "sysctl -w net.ipv4.ip_forward=1")
    assert codes(tell(forwarding4="0", forwarding6="0"), NAT._replace(uplink="isolated")) == []
    both = NAT._replace(uplink="routed", ipv6=serve("fd00::/64"))
    assert codes(tell(forwarding4="0", forwarding6="0"), both) == ["forwarding-off", "forwarding-off"]


def test_a_route_by_advertisements_is_lost_on_a_host_that_forwards():
    plan = NAT._replace(ipv6=serve("fd00::/64"))
    words = {
        "uplinks": "default via 192.0.2.1 dev eth0\ndefault via fe80::1 dev eth0 proto ra metric 100 pref medium",
        "accepting": "/proc/sys/net/ipv6/conf/eth0/accept_ra:1\n/proc/sys/net/ipv6/conf/all/accept_ra:1",
    }
    (found,) = find_obstacles(Recorded(tell(**words)), [plan])
    assert found.mend == "sysctl -w net.ipv6.conf.eth0.accept_ra=2"
    assert codes(tell(**{**words, "accepting": "/proc/sys/net/ipv6/conf/eth0/accept_ra:2"}), plan) == []
    assert codes(tell(**words), NAT) == []


def test_docker_beside_libvirts_own_rules_is_no_obstacle():
    docker = [chain("ip", "filter", "DOCKER-USER"), *LIBVIRT]
    docker[6] = chain("ip", "filter", "FORWARD", "forward", "drop")
    assert codes(tell({"ip": docker})) == []


def test_docker_over_a_libvirt_with_tables_of_its_own_stops_guests():
    rules = [
        chain("ip", "libvirt_network", "guest_nat", "postrouting", kind="nat"),
        rule("ip", "libvirt_network", "guest_nat", match("ip.saddr", SUBNET), {"masquerade": None}),
        chain("ip", "libvirt_network", "forward", "forward"),
        rule("ip", "libvirt_network", "forward", match("iifname", "kc-1"), {"accept": None}),
        chain("ip", "filter", "FORWARD", "forward", "drop"),
        chain("ip", "filter", "DOCKER-USER"),
        rule("ip", "filter", "FORWARD", COUNTER, {"jump": {"target": "DOCKER-USER"}}),
        rule("ip", "filter", "FORWARD", match("oifname", "docker0"), NEW_OR_OLD, {"accept": None}),
    ]
    (found,) = find_obstacles(Recorded(tell({"ip": rules})), [NAT])
    assert found.code == "firewall-forward"
    assert "Docker" in found.why
    assert found.mend == ("iptables -I DOCKER-USER -i kc-1 -j ACCEPT && iptables -I DOCKER-USER -o kc-1 -j ACCEPT")
    rules.append(rule("ip", "filter", "DOCKER-USER", match("iifname", "kc-1"), {"accept": None}))
    assert codes(tell({"ip": rules})) == []


def test_a_table_that_drops_what_it_does_not_know_stops_guests_addresses_and_names():
    table = [
        chain("inet", "filter", "forward", "forward", "drop"),
        chain("inet", "filter", "input", "input", "drop"),
        rule("inet", "filter", "input", ESTABLISHED, {"accept": None}),
        rule("inet", "filter", "input", match("iifname", "lo"), {"accept": None}),
        rule("inet", "filter", "input", match("tcp.dport", {"set": [22, 80]}), {"accept": None}),
    ]
    found = find_obstacles(Recorded(tell({"ip": LIBVIRT, "inet": table})), [NAT])
    assert [each.code for each in found] == ["firewall-forward", "firewall-dhcp", "firewall-dns"]
    assert found[1].mend == "nft insert rule inet filter input iifname kc-1 accept"
    table += [
        rule("inet", "filter", "input", match("udp.dport", {"set": [53, {"range": [67, 68]}]}), {"accept": None}),
        {"set": {"family": "inet", "table": "filter", "name": "inside", "elem": ["kc-1", "virbr0"]}},
        rule("inet", "filter", "forward", match("iifname", "@inside"), {"accept": None}),
    ]
    assert codes(tell({"ip": LIBVIRT, "inet": table})) == []


def test_a_map_of_states_is_read():
    table = [
        chain("inet", "filter", "forward", "forward"),
        rule(
            "inet", "filter", "forward",
            {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": None}],
                                                                       ["new", {"jump": {"target": "fresh"}}]]}}},
        ),
        rule("inet", "filter", "forward", {"drop": None}),
        chain("inet", "filter", "fresh"),
    ]  # fmt: skip
    assert codes(tell({"ip": LIBVIRT, "inet": table})) == ["firewall-forward"]
    table.append(rule("inet", "filter", "fresh", match("iifname", "kc*"), {"accept": None}))
    assert codes(tell({"ip": LIBVIRT, "inet": table})) == []


@pytest.mark.parametrize(
    "unsure",
    [{"xt": {"type": "match", "name": "set"}}, {"limit": {"rate": 1, "per": "second"}}, match("mark", 7)],
    ids=["extension", "limit", "mark"],
)
def test_what_cannot_be_told_is_no_obstacle(unsure):
    table = [chain("inet", "fw", "forward", "forward", "drop"), rule("inet", "fw", "forward", unsure, {"accept": None})]
    assert codes(tell({"ip": LIBVIRT, "inet": table})) == []
    table = [chain("inet", "fw", "forward", "forward"), rule("inet", "fw", "forward", unsure, {"drop": None})]
    assert codes(tell({"ip": LIBVIRT, "inet": table})) == []


FIREWALLD = "firewall-cmd --permanent --zone=libvirt --add-interface=kc-1 && firewall-cmd --reload"
INSERT = "nft insert rule inet own forward"


@pytest.mark.parametrize(
    ("table", "name", "mend"),
    [
        ("firewalld", "filter_FORWARD", FIREWALLD),
        ("own", "forward", f"{INSERT} iifname kc-1 accept && {INSERT} oifname kc-1 accept"),
    ],
    ids=["firewalld", "own"],
)
def test_the_mend_is_the_owners_own_command(table, name, mend):
    rules = [
        chain("inet", table, name, "forward"),
        rule("inet", table, name, ESTABLISHED, {"accept": None}),
        rule("inet", table, name, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}),
    ]
    (found,) = find_obstacles(Recorded(tell({"ip": LIBVIRT, "inet": rules})), [NAT])
    assert found.mend == mend


def test_ufw_is_told_to_let_a_bridge_through():
    rules = [
        *LIBVIRT[:5],
        chain("ip", "filter", "FORWARD", "forward", "drop"),
        chain("ip", "filter", "ufw-before-forward"),
        rule("ip", "filter", "FORWARD", COUNTER, {"jump": {"target": "ufw-before-forward"}}),
        rule("ip", "filter", "ufw-before-forward", NEW_OR_OLD, COUNTER, {"accept": None}),
    ]
    (found,) = find_obstacles(Recorded(tell({"ip": rules})), [NAT])
    assert (found.code, found.mend) == ("firewall-forward", "ufw route allow in on kc-1")


def test_rules_that_were_flushed_are_missed():
    assert codes(tell({"ip": LIBVIRT[5:]})) == ["nat-missing"]
    assert codes(tell({"ip": LIBVIRT[5:]}, legacy="nat")) == [], "the older iptables has rules that nft does not see"
    assert codes(tell({"ip": LIBVIRT[5:]}), NAT._replace(bridge="")) == []


def test_frames_between_guests_that_pass_the_firewall_may_be_dropped_there():
    rules = {"ip": [*LIBVIRT[:5], chain("ip", "filter", "FORWARD", "forward", "drop")]}
    bridged = NetworkPlan("kc-br", "uid", "bridge:kc-1")
    (found,) = find_obstacles(Recorded(tell(rules, bridged4="1")), [bridged])
    assert (found.code, found.mend) == ("bridge-filtered", "sysctl -w net.bridge.bridge-nf-call-iptables=0")
    assert codes(tell(rules, bridged4="0"), bridged) == []


def test_programs_and_modules_that_are_missing_are_named_with_their_packages():
    found = find_obstacles(Recorded(tell({}, missing="nft\ndnsmasq", modules="vxlan\nnf_tables")), [JOINED])
    assert [(each.code, each.what, each.mend) for each in found] == [
        ("program-missing", "nft", "apt-get install nftables"),
        ("program-missing", "dnsmasq", "apt-get install dnsmasq-base"),
        ("module-missing", "vxlan", "modprobe vxlan"),
        ("module-missing", "nf_tables", "modprobe nf_tables"),
    ]
    plain = NetworkPlan("kc-br", "uid", "bridge:kc-1")
    assert codes(tell({}, missing="dnsmasq", modules="vxlan"), plain) == []


def test_a_rule_that_refers_to_itself_ends():
    rules = [
        chain("inet", "fw", "forward", "forward", "drop"),
        rule("inet", "fw", "forward", {"jump": {"target": "forward"}}),
    ]
    assert codes(tell({"ip": LIBVIRT, "inet": rules})) == []
