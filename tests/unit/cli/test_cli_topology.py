"""`kc network topology`: a drawing, JSON, names, and a graph that Graphviz takes."""

from __future__ import annotations

import re

import pytest
from support.command_line import CommandLine

from kc_tui.cli.topology import write_dot
from kc_tui.state.topology import build_topology

HOSTILE = "\x1b[2J\u202eevil\n"
SPEC = {
    "uplink": "isolated", "ipv4": {"subnet": "10.0.0.0/24", "mode": "dhcp"}, "ipv6": {"subnet": "", "mode": "none"},
    "gateway": "vm:fw",
}  # fmt: skip
VXLAN = {"vni": 100, "local": "192.0.2.1", "peers": ["192.0.2.2", "192.0.2.3"], "group": "", "port": 4789, "dev": ""}


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


def add_world(kc):
    kc.service.add("Network", "lab", spec=SPEC | {"vxlan": VXLAN}, status={"state": "up"})
    status = {"power": "running", "addresses": [{"address": "10.0.0.254", "nic": "nic0"}]}
    nics = [{"id": "nic0", "network": {"name": "lab"}}]
    kc.service.add("VM", "fw", spec={"nics": nics, "hidden": True}, status=status)
    for number in range(12):
        kc.service.add("VM", f"web-{number}", spec={"nics": nics}, status={"power": "running"})


def test_the_topology_as_text_json_names_and_dot(kc):
    add_world(kc)
    drawn = kc("network", "topology")
    assert drawn.code == 0
    assert "├── fw  .254  (router, hidden)" in drawn.out
    assert "2 peers ── vxlan 100" in drawn.out
    assert "+4 more" in drawn.out
    assert "more" not in kc("network", "topology", "--all").out
    graph = kc("network", "topology", "-o", "json").json()
    assert set(graph) == {"nodes", "edges"}
    assert len(graph["nodes"]) == 15
    assert {"from": "vm:fw", "to": "network:lab", "kind": "gateway", "nic": "nic0", "address": "10.0.0.254",
            "addresses": ["10.0.0.254"]} in graph["edges"]  # fmt: skip
    assert kc("network", "topology", "-o", "name").out.splitlines()[:3] == ["network:lab", "vm:fw", "vm:web-0"]
    assert kc("network", "topology", "--dot").out.startswith("graph kc {\n")
    both = kc("network", "topology", "--dot", "-o", "json")
    assert (both.code, both.out) == (2, "")


def test_an_empty_topology_says_how_to_make_the_first_network(kc):
    result = kc("network", "topology")
    assert (result.code, result.out) == (0, "")
    assert result.err == "kc: no networks; make the first with kc init, or kc network create NAME --ipv4 CIDR\n"
    assert kc("network", "topology", "-o", "json").json() == {"nodes": [], "edges": []}


_STRING = r'"(?:[^"\\\n]|\\.)*"'
_ATTRIBUTES = rf"\[(?:\w+=(?:\w+|{_STRING})(?:, )?)+\]"
_STATEMENT = re.compile(rf"  (?:rankdir=LR|({_STRING})(?: -- ({_STRING}))? {_ATTRIBUTES});")


def read_dot(text):
    """Return the nodes and edges of a graph; fail for what Graphviz would not take."""
    first, *body, last = text.splitlines()
    assert (first, last) == ("graph kc {", "}")
    nodes, found = [], []
    for line in body:
        match = _STATEMENT.fullmatch(line)
        assert match, line
        if match[2]:
            found.append((match[1], match[2]))
        elif match[1]:
            nodes.append(match[1])
    return nodes, found


@pytest.mark.parametrize(
    "name", ["plain", 'a"b', "a\\", 'a\\"; evil [label="', "a\nb", "<b>x<i>", "a\\N&amp;", HOSTILE]
)
def test_no_name_breaks_out_of_its_quotes(name):
    network = {"kind": "Network", "name": name, "spec": SPEC | {"gateway": f"vm:{name}", "uplink": f"bridge:{name}"}}
    nics = [{"id": "nic0", "network": {"name": name}}]
    vm = {
        "kind": "VM",
        "name": name,
        "spec": {"nics": nics},
        "status": {"addresses": [{"address": name, "nic": "nic0"}]},
    }
    graph = build_topology([network], [vm])
    nodes, found = read_dot("\n".join(write_dot(graph)))
    assert (len(nodes), len(found)) == (len(graph["nodes"]), len(graph["edges"])) == (3, 3)
    assert {end for edge in found for end in edge} <= set(nodes)
