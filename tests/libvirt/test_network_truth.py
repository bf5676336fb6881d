"""What goes wrong with a real network is seen in the kernel, while libvirt still calls it active."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import frames
import pytest
from hosts import PrivateHost, wait_until

from backend.hypervisor.protocol import Hypervisor
from backend.local.creation import prepare
from backend.local.network_status import describe_networks, inspect_network
from backend.model.documents import Document, format_time
from backend.network.obstacles import find_obstacles
from backend.network.plan import NetworkPlan
from backend.network.shell import LocalShell, Shell, open_shell
from backend.network.truth import look
from backend.operations.networks import plan_network
from backend.store.opening import open_store
from backend.store.protocol import Store

pytestmark = pytest.mark.libvirt

UNDERLAY = "10.99.7.1"
PEERS = ("10.99.7.2", "10.99.7.3")
# Sends a frame, given in hexadecimal, from a device.
SEND = (
    "import socket, sys; line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
    "line.bind((sys.argv[1], 0)); line.send(bytes.fromhex(sys.argv[2]))"
)


@pytest.fixture
def shell(private_host: PrivateHost, hypervisor: Hypervisor) -> Shell:
    return open_shell(private_host.uri)


def do(shell: Shell, command: str) -> str:
    """Have a command done on the host, and return what it says."""
    done = shell.run(command.split())
    assert done.code == 0, (command, done.errors)
    return done.output


@pytest.fixture
def underlay(shell: Shell) -> Iterator[None]:
    """A device that VXLANs send by."""
    do(shell, "ip link add und0 type veth peer name und1")
    for command in (f"ip addr add {UNDERLAY}/24 dev und0", "ip link set und0 up", "ip link set und1 up"):
        do(shell, command)
    yield
    do(shell, "ip link delete und0")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"tinydb:{tmp_path / 'store'}")
    yield opened
    opened.close()


@pytest.fixture
def lab(store: Store, hypervisor: Hypervisor, underlay: None) -> Iterator[Document]:
    """A network with everything: DHCP, the host as the gateway, a VXLAN, an MTU."""
    spec = {
        "uplink": "nat",
        "ipv4": {"subnet": "10.77.2.0/24", "mode": "dhcp"},
        "ipv6": {"subnet": "fd00:77:2::/64", "mode": "slaac"},
        "vxlan": {"vni": 77, "local": UNDERLAY, "peers": list(PEERS)},
        "mtu": 1450,
    }
    body = prepare(store, {"kind": "Network", "name": "lab", "spec": spec, "metadata": {}})
    now = format_time()
    body |= {"uid": str(uuid.uuid4()), "createdAt": now, "updatedAt": now, "updatedBy": "test"}
    with store.transaction() as transaction:
        document = transaction.put(body, expect=0)
    hypervisor.ensure_network(plan_network(store, document))
    yield document
    hypervisor.ensure_network_gone(plan_network(store, document))


def bridge_of(hypervisor: Hypervisor, plan: NetworkPlan) -> str:
    return next(network.bridge for network in hypervisor.list_networks() if network.name == plan.name)


def see(store: Store, hypervisor: Hypervisor, document: Document) -> tuple[str, list[str]]:
    """Return a network's state and the codes of its problems, with libvirt's word for it that it is active."""
    plan = plan_network(store, document)
    assert next(network for network in hypervisor.list_networks() if network.name == plan.name).active
    (shown,) = describe_networks(store, hypervisor, [document])
    return shown["status"]["state"], [problem["code"] for problem in shown["status"]["problems"]]


def test_a_healthy_network_is_up_in_every_respect(store, hypervisor, lab):
    plan = plan_network(store, lab)
    (state,) = hypervisor.network_states([plan], thorough=True)
    assert plan.vxlan is not None
    assert state == state._replace(
        bridge=bridge_of(hypervisor, plan), up=True, mtu=1450, dnsmasq=True, vxlan="up", underlay_mtu=1500,
        gateways=(("10.77.2.1", "answers"), ("fd00:77:2::1", "answers")), servers=(),
    )  # fmt: skip
    assert plan.vxlan.device in state.ports
    assert see(store, hypervisor, lab) == ("up", [])


def test_a_close_look_tells_the_hosts_addresses_and_what_is_free(store, hypervisor, lab):
    status = inspect_network(store, hypervisor, lab)["status"]
    assert (status["state"], status["gateway"]["state"]) == ("up", "answers")
    assert status["addresses"] == [
        {"address": "10.77.2.1", "owner": "host", "source": "host"},
        {"address": "fd00:77:2::1", "owner": "host", "source": "host"},
    ]
    assert status["free"] == {"ipv4": 253, "ipv6": 2**64 - 2}
    assert (status["leases"], status["vms"]) == ([], [])


def test_a_server_that_was_killed_is_dead(store, hypervisor, shell, lab):
    plan = plan_network(store, lab)
    file = f"/run/libvirt/network/{plan.name}.pid"
    do(shell, f"kill -KILL {do(shell, f'cat {file}').strip()}")
    wait_until(lambda: hypervisor.network_states([plan])[0].dnsmasq is False, "dnsmasq is seen to be dead")
    assert see(store, hypervisor, lab) == ("degraded", ["dnsmasq-dead"])


def test_the_server_of_another_network_namespace_does_not_count(shell, network):
    (state,) = look(shell, [(network, "")], thorough=False)
    assert state.dnsmasq is True
    # The test's own namespace sees the process too, as it is in a child of our namespace of processes.
    (state,) = look(LocalShell(), [(network, "")], thorough=False)
    assert state.dnsmasq is False


def test_a_bridge_that_was_deleted_is_missing(store, hypervisor, shell, lab):
    plan = plan_network(store, lab)
    do(shell, f"ip link delete {bridge_of(hypervisor, plan)}")
    (state,) = hypervisor.network_states([plan])
    assert (state.up, state.mtu) == (False, 0)
    assert see(store, hypervisor, lab) == ("down", ["bridge-missing"])


def test_a_bridge_that_was_switched_off_is_down(store, hypervisor, shell, lab):
    do(shell, f"ip link set {bridge_of(hypervisor, plan_network(store, lab))} down")
    assert see(store, hypervisor, lab) == ("down", ["bridge-down"])


def test_an_mtu_that_was_changed_by_hand_is_told(store, hypervisor, shell, lab):
    do(shell, f"ip link set {bridge_of(hypervisor, plan_network(store, lab))} mtu 1400")
    assert see(store, hypervisor, lab) == ("degraded", ["mtu-mismatch"])


def test_an_underlay_that_has_become_too_narrow_is_told(store, hypervisor, shell, lab):
    do(shell, "ip link set und0 mtu 1400")
    state, codes = see(store, hypervisor, lab)
    assert state == "degraded"
    assert "mtu-mismatch" in codes


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        (["ip link delete {0}"], "vxlan-missing"),
        (["ip link set {0} down"], "vxlan-down"),
        (["ip link set {0} nomaster"], "vxlan-different"),
        ([f"bridge fdb del 00:00:00:00:00:00 dev {{0}} dst {PEERS[0]}"], "vxlan-different"),
        (["bridge fdb append 00:00:00:00:00:00 dev {0} dst 10.99.7.9"], "vxlan-different"),
        (["ip link set {0} mtu 1300"], "vxlan-different"),
        (["ip link delete {0}", "ip link add {0} type vxlan id 78 local 10.99.7.1 dstport 4789"], "vxlan-different"),
    ],
    ids=["deleted", "off", "no-port", "peer-gone", "peer-more", "mtu", "other-vni"],
)
def test_a_vxlan_that_somebody_touched_is_told(store, hypervisor, shell, lab, commands, code):
    vxlan = plan_network(store, lab).vxlan
    assert vxlan is not None
    for command in commands:
        do(shell, command.format(vxlan.device))
    assert see(store, hypervisor, lab) == ("degraded", [code])


def test_a_network_that_reconcile_mends_is_up_again(store, hypervisor, shell, lab):
    plan = plan_network(store, lab)
    assert plan.vxlan is not None
    do(shell, f"ip link delete {plan.vxlan.device}")
    assert see(store, hypervisor, lab) == ("degraded", ["vxlan-missing"])
    hypervisor.ensure_network(plan)
    assert see(store, hypervisor, lab) == ("up", [])


@pytest.fixture
def stranger(shell: Shell, hypervisor: Hypervisor, store: Store, lab: Document) -> Iterator[str]:
    """A device whose other end is a port of the network."""
    do(shell, "ip link add str0 type veth peer name str1")
    do(shell, f"ip link set str0 master {bridge_of(hypervisor, plan_network(store, lab))} up")
    do(shell, "ip link set str1 up")
    yield "str1"
    do(shell, "ip link delete str0")


def test_another_server_and_another_router_are_seen_once_they_speak(store, hypervisor, shell, lab, stranger):
    mac = "52:54:00:77:00:66"
    for frame in (
        frames.ipv4(mac, "10.77.2.66", frames.UDP, frames.dhcp_answer("10.77.2.66")),
        frames.ipv6(mac, "fe80::66", frames.ICMPV6, frames.advertisement("fe80::66")),
    ):
        done = shell.run(["python3", "-c", SEND, stranger, frame.hex()])
        assert done.code == 0, done.errors
    wait_until(lambda: len(hypervisor.network_states([plan_network(store, lab)])[0].servers) == 2, "both are noted")
    assert see(store, hypervisor, lab) == ("degraded", ["duplicate-dhcp", "rogue-router"])
    (shown,) = describe_networks(store, hypervisor, [lab])
    assert all(mac in problem["message"] for problem in shown["status"]["problems"])


@pytest.fixture
def station(hypervisor: Hypervisor, shell: Shell, network: NetworkPlan) -> Iterator[str]:
    """A namespace that has the addresses of a gateway on the network."""
    name = "truth-gw"
    commands = (
        f"ip netns add {name}",
        f"ip link add gw0 type veth peer name eth0 netns {name}",
        f"ip -n {name} addr add 10.77.1.9/24 dev eth0",
        f"ip -n {name} addr add fd00:77::9/64 dev eth0 nodad",
        f"ip -n {name} link set eth0 up",
        f"ip link set gw0 master {bridge_of(hypervisor, network)} up",
    )
    for command in commands:
        do(shell, command)
    yield name
    do(shell, f"ip netns delete {name}")


def test_a_gateway_answers_while_it_is_there_and_is_silent_when_it_is_not(hypervisor, shell, network, station):
    addresses = ("10.77.1.9", "fd00:77::9")
    ipv4, ipv6 = (
        side._replace(gateway=address) for side, address in zip((network.ipv4, network.ipv6), addresses, strict=True)
    )
    foreign = network._replace(ipv4=ipv4, ipv6=ipv6)

    def ask() -> set[str]:
        (state,) = hypervisor.network_states([foreign], thorough=True)
        assert tuple(address for address, _ in state.gateways) == addresses
        return {word for _, word in state.gateways}

    wait_until(lambda: ask() == {"answers"}, "both answer", 20)
    do(shell, f"ip -n {station} link set eth0 down")
    before = time.monotonic()
    assert ask() == {"silent"}, "although the host still knows its MAC"
    assert time.monotonic() - before < 5
    bridge = bridge_of(hypervisor, network)
    do(shell, f"ip neigh replace 10.77.1.9 dev {bridge} lladdr 52:54:00:00:00:09 nud permanent")
    assert ask() == {"unknown", "silent"}
    assert "PERMANENT" in do(shell, f"ip neigh show to 10.77.1.9 dev {bridge}")


def test_a_host_is_healthy_until_somebody_changes_it(hypervisor, shell, network):
    plan = network._replace(bridge=bridge_of(hypervisor, network))

    def codes() -> list[str]:
        return [obstacle.code for obstacle in find_obstacles(shell, [plan])]

    assert hypervisor.network_obstacles([network]) == []
    do(shell, "sysctl -qw net.ipv4.ip_forward=0")
    assert codes() == ["forwarding-off"]
    do(shell, "sysctl -qw net.ipv4.ip_forward=1")
    rules = (
        "add table inet strict; add chain inet strict in { type filter hook input priority 0; policy drop; }; "
        "add rule inet strict in ct state established,related accept; "
        "add chain inet strict pass { type filter hook forward priority 0; policy drop; }"
    )
    assert shell.run(["nft", "-f", "-"], stdin=rules).code == 0
    try:
        found = find_obstacles(shell, [plan])
        kinds = ("firewall-forward", "firewall-dhcp", "firewall-dns", "bridge-filtered")
        assert tuple(each.code for each in found) == kinds
        for each in found:
            assert shell.run(["sh", "-c", each.mend]).code == 0, each.mend
        assert codes() == [], "what was said to mend it does"
    finally:
        do(shell, "nft delete table inet strict")
    do(shell, "nft flush chain ip nat LIBVIRT_PRT")
    assert codes() == ["nat-missing"]
