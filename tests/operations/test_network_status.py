"""What a network's status says of its host: states, problems and addresses, and what the doctor makes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import close_services
from support.world import Lab

from backend.errors import UnreachableError
from backend.hypervisor.memory import fail_with
from backend.hypervisor.plan import Address
from backend.local.doctor import diagnose
from backend.local.network_status import describe_networks, inspect_network
from backend.model.documents import Document
from backend.model.networks import libvirt_name, vxlan_device
from backend.network.plan import NetworkState, Obstacle, Server
from backend.operations.networks import plan_network

NAT = {"uplink": "nat", "ipv4": {"subnet": "10.1.0.0/24", "mode": "dhcp"}, "gateway": "host"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield Lab(tmp_path)
    close_services()


def add(lab: Lab, name: str, **spec: Any) -> Document:
    """Add a network that is up on the host."""
    network = lab.add("Network", name, {**NAT, **spec})
    lab.host.ensure_network(plan_network(lab.service.store, network))
    return network


def let(lab: Lab, network: Document, **changes: Any) -> None:
    """Have the host's kernel say of a network what it would not say of a healthy one."""
    plan = plan_network(lab.service.store, network)
    (healthy,) = lab.host.network_states([plan])
    lab.host.network_state[plan.name] = healthy._replace(**changes)


def describe(lab: Lab, network: Document) -> Document:
    """Return a network's status in a list."""
    (shown,) = describe_networks(lab.service.store, lab.host, [network])
    assert {**shown, "status": {}} == {**network, "status": {}}
    status: Document = shown["status"]
    return status


def look(lab: Lab, network: Document) -> Document:
    """Return a network's status at a close look."""
    status: Document = inspect_network(lab.service.store, lab.host, network)["status"]
    return status


def found(status: Document) -> list[str]:
    return [problem["code"] for problem in status["problems"]]


# --- states
def test_a_healthy_network_is_up_and_has_no_problems(lab):
    network = add(lab, "lab")
    status = describe(lab, network)
    assert (status["state"], status["problems"]) == ("up", [])
    assert status["gateway"] == {"ipv4": "10.1.0.1", "ipv6": "", "state": "unknown"}
    assert status["bridge"]
    assert status["mtu"] == 1500


def test_a_list_takes_two_questions_however_many_networks_there_are(lab):
    networks = [
        add(lab, f"net-{number}", ipv4={"subnet": f"10.1.{number}.0/24", "mode": "dhcp"}) for number in range(9)
    ]
    asked: list[str] = []
    lab.host.fail = asked.append
    assert [shown["status"]["state"] for shown in describe_networks(lab.service.store, lab.host, networks)] == [
        "up"
    ] * 9
    assert asked == ["list_networks", "network_states"]


def test_a_host_that_does_not_answer_leaves_states_unknown(lab):
    network = add(lab, "lab")
    lab.host.fail = fail_with(
        UnreachableError("host", "no route"), "list_networks", "network_states", "leases", "inventory"
    )
    for status in (describe(lab, network), look(lab, network)):
        assert (status["state"], status["problems"]) == ("unknown", [])
        assert "no route" in status["reason"]


def test_a_kernel_that_nobody_can_ask_still_lets_libvirt_say_what_is_not_started(lab):
    network, other = (
        add(lab, "lab"),
        lab.add("Network", "other", {**NAT, "ipv4": {"subnet": "10.2.0.0/24", "mode": "dhcp"}}),
    )
    lab.host.fail = fail_with(UnreachableError("host", "no ssh"), "network_states")
    assert describe(lab, network)["state"] == "unknown"
    status = describe(lab, other)
    assert (status["state"], found(status)) == ("down", ["inactive"])


def test_a_document_of_a_newer_kc_is_left_alone(lab):
    newer = {**add(lab, "lab"), "apiVersion": "kc/v9", "spec": {"shape": "another"}}
    (shown,) = describe_networks(lab.service.store, lab.host, [newer])
    assert shown["spec"] == newer["spec"]
    assert shown["status"]["state"] == "unknown"
    assert inspect_network(lab.service.store, lab.host, newer)["status"]["state"] == "unknown"


@pytest.mark.parametrize(
    ("changes", "code", "state"),
    [
        ({"up": False, "mtu": 0}, "bridge-missing", "down"),
        ({"up": False}, "bridge-down", "down"),
        ({"dnsmasq": False}, "dnsmasq-dead", "degraded"),
        ({"mtu": 1400}, "mtu-mismatch", "degraded"),
        ({"vxlan": "missing"}, "vxlan-missing", "degraded"),
        ({"vxlan": "down"}, "vxlan-down", "degraded"),
        ({"vxlan": "different"}, "vxlan-different", "degraded"),
        ({"underlay_mtu": 1400}, "mtu-mismatch", "degraded"),
        ({"underlay_mtu": 0}, "underlay-missing", "degraded"),
    ],
    ids=["missing", "off", "dnsmasq", "mtu", "vxlan-missing", "vxlan-off", "vxlan-other", "underlay", "no-underlay"],
)
def test_what_the_kernel_says_is_a_problem_with_a_way_out(lab, changes, code, state):
    vxlan = {"vni": 7, "local": "192.0.2.1", "peers": ["192.0.2.2"]}
    network = add(lab, "lab", vxlan=vxlan, mtu=1450)
    let(lab, network, **{"mtu": 1450, "underlay_mtu": 1500, "vxlan": "up"} | changes)
    status = describe(lab, network)
    assert (found(status), status["state"]) == ([code], state)
    (problem,) = status["problems"]
    assert problem["hint"]
    if code.startswith("vxlan"):
        assert vxlan_device(network) in problem["message"]
    if changes.get("underlay_mtu"):
        assert problem["hint"] == "kc network set lab spec.mtu=1350"


def test_a_network_that_libvirt_has_not_started_is_down(lab):
    network = add(lab, "lab")
    name = libvirt_name(network)
    lab.host.networks[name] = lab.host.networks[name]._replace(active=False)
    status = describe(lab, network)
    assert (status["state"], found(status)) == ("down", ["inactive"])
    assert status["problems"][0]["hint"] == "kc network reconcile lab"


def test_a_bridge_of_the_hosts_own_is_made_by_its_operator(lab):
    network = lab.add("Network", "lan", {"uplink": "bridge:br9", "gateway": "none"})
    lab.host.network_state[libvirt_name(network)] = NetworkState("br9", up=False)
    status = describe(lab, network)
    assert (status["state"], found(status)) == ("down", ["bridge-missing"])
    assert status["problems"][0]["hint"].startswith("ip link add br9")
    assert status["gateway"] == {"ipv4": "", "ipv6": "", "state": ""}


def test_a_gateway_that_is_silent_is_told_once_it_was_asked(lab):
    network = add(lab, "lab", gateway="10.1.0.77")
    let(lab, network, gateways=(("10.1.0.77", "silent"),))
    status = look(lab, network)
    assert (status["gateway"]["state"], found(status)) == ("silent", ["gateway-silent"])
    let(lab, network, gateways=(("10.1.0.77", "answers"),))
    assert (look(lab, network)["gateway"]["state"], look(lab, network)["state"]) == ("answers", "up")


# --- a VM as the gateway
def gateway_vm(lab: Lab, name: str, address: str = "", power: str = "running") -> tuple[Document, Document]:
    """Add a network whose gateway is a VM, and the VM."""
    network = add(lab, "inner", uplink="isolated", gateway="none", ipv4={"subnet": "10.3.0.0/24", "mode": "dhcp"})
    vm = lab.add_vm(name, power, networks=("inner",))
    if address:
        nics = [{**vm["spec"]["nics"][0], "ipv4": {"mode": "static", "address": address}}]
        vm = lab.change(vm, 0, spec__nics=nics)
    reference = {"kind": "VM", "name": name, "uid": vm["uid"], "nic": ""}
    return lab.change(network, 0, spec__gateway=f"vm:{name}", spec__gatewayReference=reference), vm


def test_a_gateway_vm_with_an_address_that_is_on_is_no_problem(lab):
    network, _ = gateway_vm(lab, "fw", "10.3.0.1/24")
    status = describe(lab, network)
    assert (status["state"], status["gateway"]["ipv4"]) == ("up", "10.3.0.1")


def test_a_gateway_vm_without_an_address_there_is_told(lab):
    network, _ = gateway_vm(lab, "fw")
    status = describe(lab, network)
    assert found(status) == ["gateway-unset"]
    assert "IPv4" in status["problems"][0]["message"]


def test_a_gateway_vm_that_is_off_or_gone_is_told_and_not_called_silent_too(lab):
    network, vm = gateway_vm(lab, "fw", "10.3.0.1/24", power="stopped")
    let(lab, network, gateways=(("10.3.0.1", "silent"),))
    status = look(lab, network)
    assert found(status) == ["gateway-unset"]
    assert status["problems"][0]["hint"] == "kc vm start fw"
    lab.throw_away(vm, 0)
    assert "is not there" in describe(lab, network)["problems"][0]["message"]


# --- who else serves
def test_another_dhcp_server_is_named_by_its_vm(lab):
    network = add(lab, "lab")
    vm = lab.add_vm("rogue", networks=("lab",))
    mac = vm["spec"]["nics"][0]["mac"]
    let(
        lab, network, servers=(Server("dhcp", mac.upper(), "10.1.0.9"), Server("dhcp", "02:00:00:00:00:01", "\x1b[31m"))
    )
    status = describe(lab, network)
    assert (found(status), status["state"]) == (["duplicate-dhcp", "duplicate-dhcp"], "degraded")
    assert "the VM rogue" in status["problems"][0]["message"]
    assert "02:00:00:00:00:01" in status["problems"][1]["message"]
    assert "\x1b" not in str(status)
    assert status["problems"][0]["hint"] == "kc network set lab spec.guard.dhcpGuard=on"


def test_a_server_where_kc_serves_nobody_is_somebodys_own_affair(lab):
    network = add(lab, "lab", ipv4={"subnet": "10.1.0.0/24", "mode": "static"})
    let(
        lab,
        network,
        servers=(Server("dhcp", "02:00:00:00:00:01", "10.1.0.9"), Server("router", "02:00:00:00:00:01", "fe80::1")),
    )
    assert describe(lab, network)["state"] == "up"


def test_a_router_that_is_not_the_gateway_is_a_rogue(lab):
    network = add(lab, "lab", ipv6={"subnet": "fd00:1::/64", "mode": "slaac"})
    let(lab, network, servers=(Server("router", "02:00:00:00:00:01", "fe80::1"),))
    status = describe(lab, network)
    assert found(status) == ["rogue-router"]
    assert status["problems"][0]["hint"] == "kc network set lab spec.guard.raGuard=on"


def test_the_gateway_vm_may_announce_itself(lab):
    network = add(lab, "six", uplink="isolated", gateway="none", ipv6={"subnet": "fd00:1::/64", "mode": "slaac"})
    vm = lab.add_vm("fw", networks=("six",))
    reference = {"kind": "VM", "name": "fw", "uid": vm["uid"], "nic": ""}
    network = lab.change(
        network,
        0,
        spec__gateway="vm:fw",
        spec__gatewayReference=reference,
        spec__ipv4={**network["spec"]["ipv4"], "mode": "none"},
    )
    let(lab, network, servers=(Server("router", vm["spec"]["nics"][0]["mac"], "fe80::1"),))
    assert describe(lab, network)["problems"] == []
    let(lab, network, servers=(Server("router", "02:00:00:00:00:01", "fe80::1"),))
    assert found(describe(lab, network)) == ["rogue-router"]


# --- overlaps
def test_networks_whose_subnets_overlap_name_each_other(lab):
    wide = lab.add("Network", "wide", {**NAT, "ipv4": {"subnet": "10.0.0.0/8", "mode": "dhcp"}})
    inner = lab.add("Network", "inner", {**NAT, "ipv4": {"subnet": "10.1.0.0/24", "mode": "dhcp"}})
    beside = lab.add("Network", "beside", {**NAT, "ipv4": {"subnet": "11.0.0.0/24", "mode": "dhcp"}})
    behind = lab.add(
        "Network", "behind", {"uplink": "bridge:br0", "gateway": "none", "ipv4": {"subnet": "10.1.0.0/24"}}
    )
    for network, other in ((wide, "inner"), (inner, "wide")):
        (message,) = [
            each["message"] for each in describe(lab, network)["problems"] if each["code"] == "subnet-overlap"
        ]
        assert message == f"its subnet overlaps that of the network {other}"
    for network in (beside, behind):
        assert "subnet-overlap" not in found(describe(lab, network))


# --- a close look
def test_a_close_look_tells_each_address_once_with_its_owner_and_how_it_is_known(lab):
    kept = [{"address": "10.1.0.40", "mac": "52:54:00:00:00:40", "hostname": "printer"}]
    network = add(
        lab, "lab", ipv4={"subnet": "10.1.0.0/24", "mode": "dhcp", "reservations": kept}, gateway="10.1.0.254"
    )
    vm = lab.add_vm("web", networks=("lab",), address="10.1.0.90")
    lab.add_vm("other", networks=("default",), address="192.168.150.9")
    fixed = lab.add_vm("fixed", networks=("lab",))
    fixed = lab.change(
        fixed, 0, spec__nics=[{**fixed["spec"]["nics"][0], "ipv4": {"mode": "static", "address": "10.1.0.5/24"}}]
    )
    mac = vm["spec"]["nics"][0]["mac"]
    stranger = Address("10.1.0.91", 24, "ipv4", "52:54:00:00:00:99", "lease")
    lab.host.leases = lambda _names: [Address("10.1.0.90", 24, "ipv4", mac.upper(), "lease"), stranger]
    status = look(lab, network)
    assert status["leases"] == [
        {"mac": mac, "address": "10.1.0.90", "vm": "web", "nic": "nic0"},
        {"mac": "52:54:00:00:00:99", "address": "10.1.0.91"},
    ]
    assert [(each["address"], each["owner"], each["source"]) for each in status["addresses"]] == [
        ("10.1.0.1", "host", "host"),
        ("10.1.0.5", "VM fixed/nic0", "static"),
        ("10.1.0.40", "reservation printer", "reserved"),
        ("10.1.0.90", "VM web/nic0", "lease"),
        ("10.1.0.91", "lease 52:54:00:00:00:99", "lease"),
        ("10.1.0.254", "gateway", "gateway"),
    ]
    assert status["free"] == {"ipv4": 254 - 6, "ipv6": 0}
    assert status["vms"] == ["fixed", "web"]


def test_room_in_ipv6_is_a_number_too(lab):
    network = add(lab, "six", ipv4={"subnet": "", "mode": "none"}, ipv6={"subnet": "fd00:1::/64", "mode": "slaac"})
    assert look(lab, network)["free"] == {"ipv4": 0, "ipv6": 2**64 - 2}


def test_a_guest_is_asked_for_the_address_that_nobody_else_knows(lab):
    network = add(lab, "six", ipv4={"subnet": "", "mode": "none"}, ipv6={"subnet": "fd00:1::/64", "mode": "slaac"})
    vm = lab.add_vm("web", networks=("six",))
    mac = vm["spec"]["nics"][0]["mac"]
    seen = [Address("fd00:1::27", 64, "ipv6", mac, "agent"), Address("fe80::27", 64, "ipv6", mac, "agent")]
    lab.host.leases = lambda _names: []
    lab.host.domains[vm["uid"]].addresses = seen
    owners = {each["address"]: each for each in look(lab, network)["addresses"]}
    assert owners["fd00:1::27"]["owner"] == "VM web/nic0"
    assert "fe80::27" not in owners


def test_the_network_of_many_vms_is_shown_at_once(lab):
    network = add(lab, "lab")
    vm = lab.add_vm("first", networks=("lab",))
    body = {key: value for key, value in vm.items() if key not in ("status", "version", "message")}
    with lab.service.store.transaction() as transaction:
        for number in range(2000):
            uid = f"00000000-0000-4000-8000-{number:012d}"
            place = "lab" if number % 100 == 0 else "default"
            target = {"name": place, "uid": lab.service.store.find("Network", place)["uid"]}
            nics = [
                {**vm["spec"]["nics"][0], "mac": f"52:54:01:00:{number >> 8:02x}:{number & 255:02x}", "network": target}
            ]
            transaction.put(
                {**body, "name": f"vm-{number}", "uid": uid, "spec": {**body["spec"], "nics": nics}}, expect=0
            )
    look(lab, network)  # indexes are made once
    before = time.process_time()
    status = look(lab, network)
    assert len(status["vms"]) == 21
    assert time.process_time() - before < 0.5


# --- the doctor
def test_the_doctor_tells_obstacles_and_networks_that_are_not_well(lab):
    network = add(lab, "lab")
    lab.host.obstacles = [
        Obstacle("forwarding-off", "IPv4 forwarding", "it is \x1b[31m off", "sysctl -w net.ipv4.ip_forward=1")
    ]
    let(lab, network, dnsmasq=False)
    findings = {finding.check: finding for finding in diagnose(lab.service.store, lab.host, lab.service.settings)}
    hindered = findings["IPv4 forwarding"]
    assert hindered.mend == "sysctl -w net.ipv4.ip_forward=1"
    assert "\x1b" not in "".join(map(str, hindered))
    assert findings["network lab"].mend == "kc network reconcile lab"
    assert findings["network default"].state == "ok"


def test_the_doctor_says_where_a_kernel_cannot_be_asked(lab):
    add(lab, "lab")
    lab.host.fail = fail_with(UnreachableError("h1", "no ssh", "try ssh h1"), "network_obstacles", "network_states")
    findings = [
        finding for finding in diagnose(lab.service.store, lab.host, lab.service.settings) if "network" in finding.check
    ]
    assert [finding.state for finding in findings] == ["warning"] * 3
    assert any("no ssh" in finding.message for finding in findings)
