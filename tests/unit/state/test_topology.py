"""What is joined to what, as a graph and as a drawing, whatever the documents say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from kc_tui.state.glyphs import ASCII
from kc_tui.state.topology import build_topology, shorten
from kc_tui.state.topology_drawing import SHOWN_VMS, draw_topology, to_text

HOSTILE = "\x1b[2J[@click=quit]\u202eevil\n"


def network(name: str, *, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    none = {"subnet": "", "mode": "none"}
    whole = {"uplink": "isolated", "ipv4": none, "ipv6": none, "gateway": "host", **spec}
    return {"kind": "Network", "name": name, "uid": f"uid-{name}", "spec": whole, "status": status or {"state": "up"}}


def vm(name: str, *nics: tuple[str, list[str]], **status: Any) -> dict[str, Any]:
    """Return a VM with a NIC on each network, which has the addresses that stand beside it."""
    addresses = [
        {"address": address, "nic": f"nic{place}"} for place, (_, found) in enumerate(nics) for address in found
    ]
    wired = [
        {"id": f"nic{place}", "network": {"name": on, "uid": f"uid-{on}"}, "ipv4": {"mode": "network", "address": ""}}
        for place, (on, _) in enumerate(nics)
    ]
    whole = {"power": "running", "addresses": addresses, **status}
    return {"kind": "VM", "name": name, "uid": f"uid-{name}", "spec": {"nics": wired}, "status": whole}


def v4(subnet: str, mode: str = "dhcp") -> dict[str, str]:
    return {"subnet": subnet, "mode": mode}


VXLAN = {"vni": 42, "local": "10.0.0.1", "peers": ["10.0.0.2", "10.0.0.3"], "group": "", "port": 4789}
NETWORKS = [
    network("default", uplink="nat", ipv4=v4("192.168.150.0/24")),
    network("backend", ipv6=v4("fd00:1::/64", "slaac"), gateway="vm:fw-1", vxlan=VXLAN),
]
VMS = [
    vm("web-1", ("default", ["192.168.150.17"])),
    vm("web-2", ("default", ["192.168.150.18"]), power="stopped"),
    vm("fw-1", ("default", ["192.168.150.254"]), ("backend", ["fd00:1::1"])),
    vm("db-1", ("backend", ["fe80::1", "fd00:1::27"])),
]


def edges(graph: dict[str, Any], kind: str) -> list[tuple[str, str, str]]:
    found = [edge for edge in graph["edges"] if edge["kind"] == kind]
    return [(edge["from"], edge["to"], edge.get("address", "")) for edge in found]


def find(graph: dict[str, Any], identity: str) -> dict[str, Any]:
    (node,) = [node for node in graph["nodes"] if node["id"] == identity]
    return node


def draw(graph: dict[str, Any], **options: Any) -> list[str]:
    return to_text(draw_topology(graph, **options))


# --- the graph


def test_networks_vms_routers_gateways_and_uplinks_are_nodes():
    graph = build_topology(NETWORKS, VMS)
    assert {node["id"]: node["kind"] for node in graph["nodes"]} == {
        "network:backend": "network", "network:default": "network", "vm:db-1": "vm", "vm:fw-1": "router",
        "vm:web-1": "vm", "vm:web-2": "vm", "host": "host", "uplink:nat": "uplink", "uplink:vxlan:42": "uplink",
    }  # fmt: skip
    assert find(graph, "uplink:vxlan:42") == {
        "id": "uplink:vxlan:42", "kind": "uplink", "type": "vxlan", "name": "vxlan 42", "vni": 42, "local": "10.0.0.1",
        "peers": ["10.0.0.2", "10.0.0.3"], "group": "",
    }  # fmt: skip
    assert edges(graph, "uplink") == [
        ("uplink:vxlan:42", "network:backend", ""), ("uplink:nat", "network:default", ""),
    ]  # fmt: skip
    assert edges(graph, "gateway") == [
        ("vm:fw-1", "network:backend", "fd00:1::1"), ("host", "network:default", "192.168.150.1"),
    ]  # fmt: skip
    assert ("vm:db-1", "network:backend", "fd00:1::27") in edges(graph, "nic")


def test_nothing_makes_an_empty_graph_and_no_drawing():
    assert build_topology([], []) == {"nodes": [], "edges": []}
    assert draw(build_topology([], [])) == []
    assert draw(build_topology([], [vm("web", ("gone", []))])) == []


def test_a_gateway_vm_is_known_by_its_uid_after_it_was_renamed():
    pinned = {"kind": "VM", "name": "old", "uid": "uid-new", "nic": "nic1"}
    lab = network("lab", ipv4=v4("10.0.0.0/24"), gateway="vm:old/nic1", gatewayReference=pinned)
    router = vm("new", ("other", ["10.9.0.1"]), ("lab", ["10.0.0.254"]))
    graph = build_topology([lab, network("other")], [router])
    assert edges(graph, "gateway") == [("vm:new", "network:lab", "10.0.0.254")]
    assert find(graph, "vm:new")["kind"] == "router"


def test_what_the_host_says_of_a_gateway_comes_before_what_follows_from_documents():
    status = {"state": "up", "gateway": {"ipv4": "10.0.0.9", "ipv6": "", "state": "answers"}}
    lab = network("lab", ipv4=v4("10.0.0.0/24"), gateway="vm:fw", status=status)
    graph = build_topology([lab], [vm("fw", ("lab", ["10.0.0.254"]))])
    assert edges(graph, "gateway") == [("vm:fw", "network:lab", "10.0.0.9")]


def test_a_gateway_that_is_not_there_is_missing_and_told():
    graph = build_topology([network("lab", gateway="vm:gone"), network("dmz", gateway="router:edge")], [])
    missing = "gateway:lab:vm:gone"
    assert find(graph, missing) == {"id": missing, "kind": "gateway", "name": "gone", "missing": True}
    assert find(graph, "gateway:dmz:router:edge")["missing"]
    assert "gateway gone (missing)" in "\n".join(draw(graph))


def test_an_address_of_a_vm_makes_it_the_router_and_another_address_is_somebody_else():
    both = network(
        "lab", ipv4=v4("10.0.0.0/24"), ipv6=v4("fd00::/64", "static"), gateway="10.0.0.254,fd00::ffff",
    )  # fmt: skip
    graph = build_topology([both], [vm("fw", ("lab", ["10.0.0.254"]))])
    assert edges(graph, "gateway") == [
        ("vm:fw", "network:lab", "10.0.0.254"), ("gateway:lab:fd00::ffff", "network:lab", "fd00::ffff"),
    ]  # fmt: skip
    assert find(graph, "vm:fw")["kind"] == "router"


def test_the_host_routes_for_both_families():
    lab = network("lab", uplink="routed", ipv4=v4("10.0.0.0/24"), ipv6=v4("fd00::/64", "slaac"))
    (edge,) = [edge for edge in build_topology([lab], [])["edges"] if edge["kind"] == "gateway"]
    assert (edge["from"], edge["addresses"]) == ("host", ["10.0.0.1", "fd00::1"])


@pytest.mark.parametrize(
    ("uplink", "gateway", "told"),
    [
        ("bridge:br0", "host", "gateway unknown"),
        ("isolated", "none", "no gateway"),
        ("isolated", "host", "no gateway"),
        ("nat", "none", "no gateway"),
    ],
)
def test_where_nobody_is_known_to_route_there_is_no_gateway(uplink, gateway, told):
    graph = build_topology([network("lab", uplink=uplink, gateway=gateway, ipv4=v4("10.0.0.0/24"))], [])
    assert edges(graph, "gateway") == []
    assert any(told in line for line in draw(graph))


def test_another_vm_of_the_name_is_not_the_gateway_that_was_pinned():
    pinned = {"kind": "VM", "name": "fw", "uid": "uid-of-another", "nic": ""}
    lab = network("lab", gateway="vm:fw", gatewayReference=pinned)
    graph = build_topology([lab], [vm("fw", ("lab", []))])
    assert find(graph, "vm:fw")["kind"] == "vm"
    assert "gateway fw (missing)" in "\n".join(draw(graph))


def test_networks_behind_one_uplink_share_its_node():
    networks = [network(name, uplink="bridge:br0", gateway="none") for name in ("a", "b")]
    graph = build_topology([*networks, network("c", uplink="bridge:br1", gateway="none")], [])
    assert [edge[:2] for edge in edges(graph, "uplink")] == [
        ("uplink:bridge:br0", "network:a"), ("uplink:bridge:br0", "network:b"), ("uplink:bridge:br1", "network:c"),
    ]  # fmt: skip
    assert len([node for node in graph["nodes"] if node["kind"] == "uplink"]) == 2


def test_a_vxlan_without_a_vni_and_one_with_a_group():
    chosen = network("a", gateway="none", vxlan={"local": "10.0.0.1", "peers": ["10.0.0.2"]})
    group = network("b", gateway="none", vxlan={"vni": 7, "local": "10.0.0.1", "group": "239.1.1.1", "port": 4790})
    graph = build_topology([chosen, group], [])
    assert find(graph, "uplink:vxlan:a")["vni"] is None
    assert find(graph, "uplink:vxlan:7:4790")["group"] == "239.1.1.1"
    text = "\n".join(draw(graph))
    assert "1 peer ── vxlan ──" in text
    assert "group 239.1.1.1 ── vxlan 7" in text


def test_an_address_of_the_document_stands_in_where_none_is_seen():
    web = vm("web", ("lab", []))
    web["spec"]["nics"][0]["ipv4"] = {"mode": "static", "address": "10.0.0.5/24"}
    graph = build_topology([network("lab", gateway="none")], [web])
    assert edges(graph, "nic") == [("vm:web", "network:lab", "10.0.0.5")]


def test_foreign_vms_and_what_a_newer_kc_wrote_are_no_trouble():
    newer = {"apiVersion": "kc/v9", "kind": "Network", "name": "later", "spec": {"ipv4": [1]}, "status": {}}
    odd = {"apiVersion": "kc/v9", "kind": "VM", "name": "odd", "spec": {"nics": 3}, "status": {}}
    bare = {"kind": "Network", "name": "bare", "spec": {}}
    graph = build_topology([newer, bare], [odd, vm("theirs", ("later", []), foreign=True)])
    assert [node["id"] for node in graph["nodes"]] == ["network:bare", "network:later"]
    assert len(draw(graph)) > 4


# --- addresses


@pytest.mark.parametrize(
    ("address", "subnet", "short"),
    [
        ("10.0.0.17", "10.0.0.0/24", ".17"), ("10.0.0.130", "10.0.0.128/25", ".130"),
        ("10.0.3.17", "10.0.0.0/16", "10.0.3.17"),
        ("fd00:1::27", "fd00:1::/64", "::27"), ("fd00:1::5054:ff:fe00:1", "fd00:1::/64", "::5054:ff:fe00:1"),
        ("fd00:1:0:5::27", "fd00:1::/48", "fd00:1:0:5::27"), ("10.9.0.1", "10.0.0.0/24", "10.9.0.1"),
        ("10.0.0.17", "fd00::/64", "10.0.0.17"), ("nonsense", "10.0.0.0/24", "nonsense"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_what_all_share(address, subnet, short):
    assert shorten(address, [subnet]) == short


# --- the drawing


def test_the_picture_of_the_design():
    assert draw(build_topology(NETWORKS, VMS)) == [
        "                        ┌ default ───────────────┐",
        " internet ── NAT ───────┤ 192.168.150.0/24  dhcp ├── web-1  .17",
        "                        │ gateway host  .1       ├── web-2  .18  (stopped)",
        "                        └───────────┬────────────┘",
        "                                  fw-1  .254  /  ::1  (router)",
        "                        ┌ backend ──┴────────────┐",
        " 2 peers ── vxlan 42 ───┤ fd00:1::/64  slaac     ├── db-1  ::27",
        "                        │ gateway fw-1  ::1      │",
        "                        └────────────────────────┘",
    ]


def test_ascii_is_enough():
    text = "\n".join(draw(build_topology(NETWORKS, VMS), glyphs=ASCII))
    assert text.isascii()
    assert " internet -- NAT " in text


def test_a_network_that_is_not_well_says_so_beside_its_name():
    ill = [network("a", status={"state": "degraded"}), network("b", status={"state": "down"}), network("c", status={})]
    text = "\n".join(draw(build_topology(ill, [])))
    assert "a ▲ degraded" in text
    assert "b ▲ down" in text
    assert "┌ c ──" in text


def test_many_vms_are_counted_unless_all_are_wanted():
    vms = [vm(f"vm-{number}", ("lab", [])) for number in range(SHOWN_VMS + 5)]
    router = vm("zz", ("lab", ["10.0.0.254"]))
    graph = build_topology([network("lab", ipv4=v4("10.0.0.0/24"), gateway="vm:zz")], [*vms, router])
    few = draw(graph)
    assert "├── zz  .254  (router)" in few[1]
    assert "+5 more" in "\n".join(few)
    assert sum("── vm-" in line for line in few) == SHOWN_VMS
    every = draw(graph, limit=None)
    assert sum("── vm-" in line for line in every) == len(vms)
    assert [line for line in every if "more" in line] == []


def test_one_vm_too_many_is_drawn_rather_than_counted():
    vms = [vm(f"vm-{number}", ("lab", [])) for number in range(SHOWN_VMS + 1)]
    assert "more" not in "\n".join(draw(build_topology([network("lab")], vms)))


def test_networks_that_a_router_joins_stand_below_each_other():
    star = [network(name, gateway="vm:fw") for name in ("c", "b")]
    networks = [network("a", uplink="nat"), network("aa"), network("ab", uplink="nat"), *star]
    graph = build_topology(networks, [vm("fw", ("ab", []), ("b", []), ("c", []))])
    drawn = [line.split("┌ ")[1].split()[0] for line in draw(graph) if "┌ " in line]
    assert drawn == ["a", "ab", "b", "c", "aa"]
    assert sum("fw  (router)" in line for line in draw(graph)) == 2


def test_nothing_from_outside_can_steer_the_terminal():
    ill = network(
        HOSTILE, ipv4=v4(HOSTILE, HOSTILE), gateway=HOSTILE, uplink=f"bridge:{HOSTILE}", status={"state": HOSTILE}
    )
    worse = network("w", vxlan={"local": HOSTILE, "group": HOSTILE, "vni": HOSTILE}, gateway=f"vm:{HOSTILE}")
    graph = build_topology([ill, worse], [vm(HOSTILE, (HOSTILE, [HOSTILE]), power=HOSTILE)])
    for line in draw(graph):
        assert line.isprintable()


def test_every_piece_that_shows_something_names_a_node_of_the_graph():
    graph = build_topology(NETWORKS, VMS)
    shown = {piece.node for line in draw_topology(graph) for piece in line if piece.node}
    assert shown == {node["id"] for node in graph["nodes"]} - {"host"}


NAMES = st.sampled_from(["a", "lab", "a-rather-long-name-that-fills-its-box-and-more", "日本", "x" * 63])
ADDRESSES = st.sampled_from(["10.0.0.5", "fd00::5054:ff:fe12:3456", "fd00:1234:5678:9abc:5054:ff:fe12:3456"])


@st.composite
def worlds(sketch: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    names = sketch(st.lists(NAMES, unique=True, max_size=4))
    vm_names = [f"vm-{name}" for name in sketch(st.lists(NAMES, unique=True, max_size=5))]
    gateways = st.sampled_from(["host", "none", "10.0.0.5", "vm:gone", *(f"vm:{name}" for name in vm_names)])
    uplinks = st.sampled_from(["nat", "routed", "isolated", "bridge:a-long-bridge-0"])
    subnets = st.sampled_from([v4(""), v4("10.0.0.0/24"), v4("fd00:1234:5678:9abc::/64", "stateless")])
    networks = [
        network(
            name, uplink=sketch(uplinks), gateway=sketch(gateways), ipv4=sketch(subnets), ipv6=sketch(subnets),
            vxlan=sketch(st.sampled_from([None, VXLAN])), status={"state": sketch(st.sampled_from(["up", "degraded"]))},
        )
        for name in names
    ]  # fmt: skip
    links = st.lists(st.tuples(st.sampled_from([*names, "gone"]), st.lists(ADDRESSES, max_size=5)), max_size=4)
    return networks, [vm(name, *sketch(links)) for name in vm_names]


@settings(deadline=None, max_examples=150)
@given(worlds(), st.integers(10, 200), st.sampled_from([None, 0, 1, 8]))
def test_every_drawing_fits_and_shows_every_network_once(world, width, limit):
    networks, vms = world
    graph = build_topology(networks, vms)
    identities = {node["id"] for node in graph["nodes"]}
    assert {end for edge in graph["edges"] for end in (edge["from"], edge["to"])} <= identities
    lines = draw_topology(graph, width=width, limit=limit)
    assert all(cell_len(line) <= max(width, 80) for line in to_text(lines))
    titles = [piece.node for line in lines for piece in line if piece.node.startswith("network:")]
    assert sorted(titles) == sorted(node["id"] for node in graph["nodes"] if node["kind"] == "network")
    if limit is None:
        joined = {edge["from"] for edge in graph["edges"] if edge["kind"] == "nic"}
        assert joined <= {piece.node for line in lines for piece in line}
