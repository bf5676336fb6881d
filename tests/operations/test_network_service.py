"""Networks in the service, on a host in memory: addresses given out, gateways by reference, what may not be broken."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.homes import opened
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.errors import ConflictError, KCError, RefusedError
from backend.hypervisor.memory import MemoryHypervisor
from backend.local import LocalService
from backend.local.allocation import find_free
from backend.model.addressing import dynamic_ranges, effective_guard, host_address
from backend.model.documents import NETWORK_ADDITIONS, SIDE_ADDITIONS, Document
from backend.model.networks import libvirt_name, tap_device
from backend.operations.networks import plan_network, seed_nic


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def service(tmp_path: Path, host: MemoryHypervisor, place: str) -> Iterator[LocalService]:
    service = make_service(tmp_path, host)
    furnish(service)
    with opened(place, service, tmp_path) as home:
        yield home


STATIC = {"uplink": "isolated", "ipv4": {"subnet": "10.9.0.0/29", "mode": "static"}}
LAB = {"uplink": "isolated", "ipv4": {"subnet": "10.8.0.0/24", "mode": "dhcp"}}


def make_network(service: LocalService, name: str, spec: Document) -> Document:
    ended = settle(service, service.create({"kind": "Network", "name": name, "spec": spec}))
    assert ended["status"]["state"] == "succeeded", ended["status"]
    return service.get("Network", name)


def make_vm(service: LocalService, name: str, *nics: Any, power: str = "stopped") -> Document:
    ended = settle(service, service.create(vm_document(name, nics=list(nics), power=power)))
    assert ended["status"]["state"] == "succeeded", ended["status"]
    return service.get("VM", name)


def change(service: LocalService, kind: str, name: str, **spec: Any) -> Document:
    live = service.get(kind, name)
    accepted = service.update({"kind": kind, "name": name, "spec": {**live["spec"], **spec}})
    if accepted.operation is not None:
        ended = settle(service, accepted)
        assert ended["status"]["state"] == "succeeded", ended["status"]
    return service.get(kind, name)


def address_of(vm: Document, nic: int = 0, family: str = "ipv4") -> str:
    return str(vm["spec"]["nics"][nic][family]["address"])


# --- addresses
def test_a_static_network_gives_each_nic_the_lowest_free_address(service: LocalService) -> None:
    make_network(service, "rack", STATIC)
    first = make_vm(service, "a", {"network": "rack"})
    second = make_vm(service, "b", {"network": "rack"}, {"network": "rack"})
    # The host has the first: it is the gateway by default.
    assert [address_of(first), address_of(second), address_of(second, 1)] == [
        "10.9.0.2/29", "10.9.0.3/29", "10.9.0.4/29",
    ]  # fmt: skip
    settle(service, service.delete("VM", "a"))
    assert address_of(make_vm(service, "c", {"network": "rack"})) == "10.9.0.2/29"


def test_a_full_network_says_so_and_makes_nothing(service: LocalService) -> None:
    make_network(service, "rack", STATIC)
    for number in range(5):
        make_vm(service, f"vm-{number}", {"network": "rack"})
    with pytest.raises(ConflictError, match=r"no address is free in 10\.9\.0\.0/29 of network rack"):
        service.create(vm_document("late", nics=[{"network": "rack"}]))
    assert service.store.find("VM", "late") is None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.9.0.2/29", "belongs to nic0 of VM a"),
        ("10.9.0.1/29", "the host's own"),
        ("10.9.0.7/29", "not an address that a machine can have"),
        ("10.9.0.0/29", "not an address that a machine can have"),
        ("10.9.1.2/29", "is not in 10.9.0.0/29"),
    ],
)
def test_an_address_that_is_taken_or_outside_is_refused_with_its_path(
    service: LocalService, address: str, words: str
) -> None:
    make_network(service, "rack", STATIC)
    make_vm(service, "a", {"network": "rack"})
    with pytest.raises(KCError, match=words) as refused:
        service.create(
            vm_document("b", nics=[{"network": "rack", "ipv4": {"mode": "static", "address": address}}])
        )  # fmt: skip
    assert "spec.nics.0.ipv4.address" in f"{refused.value.what}{refused.value.why}"


def test_a_static_nic_on_a_network_with_dhcp_stays_out_of_what_dhcp_gives(
    service: LocalService, host: MemoryHypervisor
) -> None:
    network = make_network(service, "lab", LAB)
    vm = make_vm(service, "web", {"network": "lab", "ipv4": {"mode": "static"}}, power="running")
    assert address_of(vm) == "10.8.0.2/24"
    assert plan_network(service.store, network).ipv4.ranges == (("10.8.0.64", "10.8.0.254"),)
    kept = plan_network(service.store, network).ipv4.hosts
    assert [(each.mac, each.address) for each in kept] == [(vm["spec"]["nics"][0]["mac"], "10.8.0.2")]
    del host


def test_an_address_with_dhcp_is_kept_for_the_nic(service: LocalService) -> None:
    network = make_network(service, "lab", LAB)
    vm = make_vm(service, "web", {"network": "lab", "ipv4": {"mode": "dhcp", "address": "10.8.0.77/24"}})
    entry = plan_network(service.store, network).ipv4.hosts[0]
    assert (entry.mac, entry.address, entry.hostname) == (vm["spec"]["nics"][0]["mac"], "10.8.0.77", "web")
    with pytest.raises(ConflictError, match="belongs to nic0 of VM web"):
        service.create(
            vm_document("b", nics=[{"network": "lab", "ipv4": {"mode": "static", "address": "10.8.0.77/24"}}])
        )  # fmt: skip


def test_a_reservation_of_the_network_is_nobody_elses(service: LocalService) -> None:
    reserved = {"address": "10.8.0.9", "mac": "52:54:00:00:00:09", "hostname": "printer"}
    spec = {**LAB, "ipv4": {**LAB["ipv4"], "reservations": [reserved]}}
    make_network(service, "lab", spec)
    wish = {"mode": "static", "address": "10.8.0.9/24"}
    with pytest.raises(ConflictError, match="reserved for printer"):
        service.create(vm_document("b", nics=[{"network": "lab", "ipv4": wish}]))
    own = make_vm(service, "p", {"network": "lab", "ipv4": wish, "mac": "52:54:00:00:00:09"})
    assert address_of(own) == "10.8.0.9/24"


def test_an_address_stays_through_changes_and_moves_with_the_network(service: LocalService) -> None:
    make_network(service, "rack", STATIC)
    make_network(service, "other", {**STATIC, "ipv4": {"subnet": "10.9.1.0/24", "mode": "static"}})
    make_vm(service, "a", {"network": "rack"})
    assert address_of(change(service, "VM", "a", nics=[{"network": "rack"}])) == "10.9.0.2/29"
    assert address_of(change(service, "VM", "a", description="x")) == "10.9.0.2/29"
    moved = service.get("VM", "a")["spec"]["nics"]
    moved[0]["network"] = "other"
    assert address_of(change(service, "VM", "a", nics=moved)) == "10.9.1.2/24"


def test_what_comes_back_from_the_trash_finds_its_address_taken(service: LocalService) -> None:
    make_network(service, "rack", STATIC)
    make_vm(service, "a", {"network": "rack"})
    settle(service, service.delete("VM", "a"))
    make_vm(service, "b", {"network": "rack"})
    with pytest.raises(ConflictError, match="belongs to nic0 of VM b"):
        service.restore("VM", "a")


def test_both_families_are_given_at_once(service: LocalService) -> None:
    spec = {**STATIC, "ipv6": {"subnet": "fd09::/64", "mode": "static"}, "searchDomain": "lab.example"}
    network = make_network(service, "rack", spec)
    vm = make_vm(service, "a", {"network": "rack"})
    assert (address_of(vm), address_of(vm, family="ipv6")) == ("10.9.0.2/29", "fd09::2/64")
    nic = seed_nic(vm["spec"]["nics"][0], network, {"ipv4": "", "ipv6": ""})
    assert (nic.ipv4_address, nic.ipv6_address, nic.search) == ("10.9.0.2/29", "fd09::2/64", ("lab.example",))
    assert nic.dns == ("10.9.0.1", "fd09::1")


@given(
    length=st.integers(20, 30),
    taken=st.sets(st.integers(0, 5000)),
    closed=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 600)), max_size=4),
)
def test_a_free_address_is_the_lowest_that_is_free(
    length: int, taken: set[int], closed: list[tuple[int, int]]
) -> None:  # fmt: skip
    subnet = ip_network(f"10.0.0.0/{length}")
    base = int(subnet.network_address)
    used = {base + number for number in taken}
    ranges = [(base + start, base + start + size) for start, size in closed]
    free = [
        int(address)
        for address in subnet.hosts()
        if int(address) not in used and not any(start <= int(address) <= end for start, end in ranges)
    ]
    assert find_free(subnet, used, ranges) == (free[0] if free else None)


# --- ranges and the host's own address
@given(
    length=st.integers(16, 30),
    gateway=st.sampled_from(["host", "none", "last", "first"]),
    holes=st.sets(st.integers(1, 60000), max_size=3),
)
def test_what_dhcp_gives_lies_in_the_subnet_and_leaves_out_host_and_gateway(
    length: int, gateway: str, holes: set[int]
) -> None:
    subnet = ip_network(f"10.4.0.0/{length}")
    words = {"last": str(subnet[-2]), "first": str(subnet[1])}
    spec = {
        "uplink": "isolated", "gateway": words.get(gateway, gateway), "libvirtNetwork": "",
        "ipv4": {**SIDE_ADDITIONS, "subnet": str(subnet), "mode": "dhcp"}, **NETWORK_ADDITIONS,
    }  # fmt: skip
    excluded = tuple(str(subnet[hole]) for hole in holes if hole < subnet.num_addresses - 1)
    host = ip_address(host_address(spec, "ipv4"))
    for first, last in dynamic_ranges(spec, "ipv4", excluded):
        assert subnet[1] <= ip_address(first) <= ip_address(last) <= subnet[-2]
        assert not ip_address(first) <= host <= ip_address(last)
        for hole in excluded:
            assert not ip_address(first) <= ip_address(hole) <= ip_address(last)
    assert host in subnet
    assert str(host) != words.get(gateway)


# --- gateways
def routed(service: LocalService) -> tuple[Document, Document]:
    """Make network `inner`, whose gateway is VM `gw` with 10.7.0.1 on it."""
    inner = {"uplink": "isolated", "ipv4": {"subnet": "10.7.0.0/24", "mode": "dhcp"}, "gateway": "vm:gw"}
    make_network(service, "inner", inner)
    nics = [{"network": "inner", "ipv4": {"mode": "static", "address": "10.7.0.1/24"}}, {"network": "default"}]
    gateway = make_vm(service, "gw", *nics, power="running")
    return service.get("Network", "inner"), gateway


def test_a_gateway_may_be_named_before_it_is_there(service: LocalService, host: MemoryHypervisor) -> None:
    inner = {"uplink": "isolated", "ipv4": {"subnet": "10.7.0.0/24", "mode": "dhcp"}, "gateway": "vm:gw"}
    accepted = service.create({"kind": "Network", "name": "inner", "spec": inner})
    settle(service, accepted)
    assert "no VM gw yet" in accepted.document["status"]["warnings"][0]
    network = service.get("Network", "inner")
    assert plan_network(service.store, network).ipv4.gateway == ""
    make_vm(service, "gw", {"network": "inner", "ipv4": {"mode": "static", "address": "10.7.0.1/24"}})
    plan = plan_network(service.store, network)
    assert (plan.ipv4.gateway, plan.ipv4.host) == ("10.7.0.1", "10.7.0.254")
    # The operation that made the VM has told the host's network of it.
    assert host.network_plans[libvirt_name(network)].ipv4.gateway == "10.7.0.1"


def test_the_host_gives_way_to_a_gateway_that_has_the_last_address(
    service: LocalService, host: MemoryHypervisor
) -> None:
    inner = {"uplink": "isolated", "ipv4": {"subnet": "10.7.0.0/24", "mode": "dhcp"}, "gateway": "vm:gw"}
    make_network(service, "inner", inner)
    make_vm(service, "gw", {"network": "inner", "ipv4": {"mode": "static", "address": "10.7.0.254/24"}})
    plan = host.network_plans[libvirt_name(service.get("Network", "inner"))]
    assert (plan.ipv4.gateway, plan.ipv4.host) == ("10.7.0.254", "10.7.0.1")
    with pytest.raises(ConflictError, match="the host's own"):
        make_vm(service, "web", {"network": "inner", "ipv4": {"mode": "static", "address": "10.7.0.1/24"}})


def test_static_guests_route_by_the_gateway_vm_and_the_gateway_by_nobody(service: LocalService) -> None:
    network, gateway = routed(service)
    client = make_vm(service, "client", {"network": "inner", "ipv4": {"mode": "static"}})
    gateways = {"ipv4": "10.7.0.1", "ipv6": ""}
    assert seed_nic(client["spec"]["nics"][0], network, gateways).ipv4_gateway == "10.7.0.1"
    assert seed_nic(gateway["spec"]["nics"][0], network, gateways).ipv4_gateway == ""


def test_a_gateway_is_not_deleted_and_not_taken_off_its_network(service: LocalService) -> None:
    network, gateway = routed(service)
    change(service, "Network", "inner", gateway="vm:gw")
    with pytest.raises(ConflictError, match="it is the gateway of network inner"):
        service.delete("VM", "gw")
    for nics in ([gateway["spec"]["nics"][1]], [{**gateway["spec"]["nics"][0], "ipv4": {"mode": "dhcp"}}]):
        with pytest.raises(ConflictError, match="would have no address there"):
            service.update({"kind": "VM", "name": "gw", "spec": {**gateway["spec"], "nics": nics}})
    change(service, "Network", "inner", gateway="none")
    settle(service, service.delete("VM", "gw"))
    assert service.store.find("VM", "gw") is None
    del network


def test_a_gateway_that_is_renumbered_is_carried_through(service: LocalService, host: MemoryHypervisor) -> None:
    network, gateway = routed(service)
    nics = [dict(nic) for nic in gateway["spec"]["nics"]]
    nics[0]["ipv4"] = {"mode": "static", "address": "10.7.0.5/24"}
    change(service, "VM", "gw", nics=nics)
    assert host.network_plans[libvirt_name(network)].ipv4.gateway == "10.7.0.5"


def test_a_gateway_of_static_guests_is_not_renumbered(service: LocalService) -> None:
    _, gateway = routed(service)
    make_vm(service, "client", {"network": "inner", "ipv4": {"mode": "static"}})
    nics = [dict(nic) for nic in gateway["spec"]["nics"]]
    nics[0]["ipv4"] = {"mode": "static", "address": "10.7.0.5/24"}
    with pytest.raises(ConflictError, match=r"VM client has its address 10\.7\.0\.1 by a static configuration"):
        service.update({"kind": "VM", "name": "gw", "spec": {**gateway["spec"], "nics": nics}})


def test_a_gateway_that_is_renamed_stays_it(service: LocalService) -> None:
    routed(service)
    change(service, "Network", "inner", gateway="vm:gw")
    settle(service, service.rename("gw", "edge"))
    network = service.get("Network", "inner")
    assert network["spec"]["gateway"] == "vm:edge"
    assert plan_network(service.store, network).ipv4.gateway == "10.7.0.1"
    with pytest.raises(ConflictError, match="it is the gateway of network inner"):
        service.delete("VM", "edge")


def test_a_gateway_needs_an_address_that_is_known_beforehand(service: LocalService) -> None:
    make_network(service, "lab", LAB)
    make_vm(service, "gw", {"network": "lab"})
    with pytest.raises(RefusedError, match=r"spec\.gateway: nic0 of VM gw has no address there"):
        change(service, "Network", "lab", gateway="vm:gw")
    with pytest.raises(RefusedError, match=r"spec\.gateway: VM gw has no NIC nic7"):
        change(service, "Network", "lab", gateway="vm:gw/nic7")
    with pytest.raises(RefusedError, match="no routers yet"):
        change(service, "Network", "lab", gateway="router:edge")


# --- networks beside one another
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"ipv4": {"subnet": "10.9.0.0/24", "mode": "dhcp"}}, r"spec\.ipv4\.subnet: 10\.9\.0\.0/24 overlaps that of"),
        ({"ipv6": {"subnet": "fd09::/48", "mode": "dhcpv6"}}, r"spec\.ipv6\.subnet: fd09::/48 overlaps that of"),
    ],
)
def test_subnets_that_overlap_are_refused(service: LocalService, spec: Document, words: str) -> None:
    make_network(service, "rack", {**STATIC, "ipv6": {"subnet": "fd09::/64", "mode": "slaac"}})
    with pytest.raises(ConflictError, match=words):
        service.create({"kind": "Network", "name": "other", "spec": {"uplink": "isolated", **spec}})
    # A bridge of the host's own may well lead into the same subnet.
    service.create({"kind": "Network", "name": "office", "spec": {"uplink": "bridge:br0", "gateway": "none", **spec}})


def test_a_vni_is_chosen_and_nobody_elses(service: LocalService) -> None:
    vxlan = {"local": "192.0.2.1", "peers": ["192.0.2.2"]}
    first = make_network(service, "a", {"uplink": "isolated", "vxlan": vxlan})
    second = make_network(service, "b", {"uplink": "isolated", "vxlan": vxlan})
    assert [each["spec"]["vxlan"]["vni"] for each in (first, second)] == [1, 2]
    assert first["spec"]["mtu"] == 1450
    with pytest.raises(ConflictError, match=r"spec\.vxlan\.vni: 2 is that of network b"):
        service.create({"kind": "Network", "name": "c", "spec": {"uplink": "isolated", "vxlan": {**vxlan, "vni": 2}}})
    with pytest.raises(RefusedError, match=r"spec\.mtu: the underlay carries 1500 bytes, VXLAN takes 50: 1450"):
        service.create({"kind": "Network", "name": "c", "spec": {"uplink": "isolated", "vxlan": vxlan, "mtu": 1500}})


def test_an_underlay_too_small_for_ipv6_is_refused(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "underlay_mtu", lambda _local, _device="": 1280)
    spec = {
        "uplink": "isolated", "vxlan": {"local": "192.0.2.1"}, "ipv6": {"subnet": "fd09::/64", "mode": "slaac"},
    }  # fmt: skip
    with pytest.raises(RefusedError, match=r"spec\.mtu: 1230 .* IPv6 needs 1280"):
        service.create({"kind": "Network", "name": "a", "spec": spec})


def test_a_subnet_does_not_leave_its_vms_behind(service: LocalService) -> None:
    make_network(service, "rack", STATIC)
    make_vm(service, "a", {"network": "rack"})
    with pytest.raises(ConflictError, match=r"10\.9\.0\.2 of nic0 of VM a is not in 10\.9\.8\.0/24"):
        change(service, "Network", "rack", ipv4={"subnet": "10.9.8.0/24", "mode": "static"})
    change(service, "Network", "rack", ipv4={"subnet": "10.9.0.0/24", "mode": "static"})
    # The host takes the last address where it is not the gateway.
    make_vm(service, "last", {"network": "rack", "ipv4": {"mode": "static", "address": "10.9.0.254/24"}})
    with pytest.raises(ConflictError, match=r"the host would need 10\.9\.0\.254"):
        change(service, "Network", "rack", gateway="none")


def test_a_change_tells_whom_it_cuts_off(service: LocalService, host: MemoryHypervisor) -> None:
    make_network(service, "lab", LAB)
    make_vm(service, "web", {"network": "lab"}, power="running")
    live = service.get("Network", "lab")
    harmless = {**live["spec"], "ipv4": {**live["spec"]["ipv4"], "ranges": [{"start": "10.8.0.9", "end": "10.8.0.99"}]}}
    assert service.preview({"kind": "Network", "name": "lab", "spec": harmless}).cuts == ()
    preview = service.preview({"kind": "Network", "name": "lab", "spec": {**live["spec"], "dns": ["9.9.9.9"]}})
    assert preview.cuts == ("web",)
    assert any("VM web is without a line for a moment" in line for line in preview.effects)
    change(service, "Network", "lab", dns=["9.9.9.9"])
    assert host.network_plans[libvirt_name(live)].dns == ("9.9.9.9",)


# --- guards
def test_a_nic_is_guarded_from_its_start_and_no_longer_than_it_is_there(
    service: LocalService, host: MemoryHypervisor
) -> None:
    make_network(service, "rack", STATIC)
    vm = make_vm(service, "a", {"network": "rack", "rateLimit": {"sendBytesPerSecond": 100_000}}, power="running")
    guard = host.guards[service.store.identity, vm["uid"]][0]
    assert (guard.tap, guard.mac) == (tap_device(vm["uid"], "nic0"), vm["spec"]["nics"][0]["mac"])
    assert (guard.ipv4, guard.ipv6, guard.mac_only, guard.send_rate) == (("10.9.0.2",), None, True, 100_000)
    shown = service.get("VM", "a")["status"]["guards"][0]
    assert (shown["antiSpoof"], shown["dhcpGuard"], shown["active"]) == ("address", True, True)
    change(service, "Network", "rack", guard={"antiSpoof": "off", "dhcpGuard": "off", "raGuard": "on"})
    guard = host.guards[service.store.identity, vm["uid"]][0]
    assert (guard.mac_only, guard.no_dhcp_server, guard.no_router) == (False, False, True)
    settle(service, service.delete("VM", "a", now=True))
    assert not host.guards.get((service.store.identity, vm["uid"]))


def test_checking_addresses_needs_addresses_that_are_known(service: LocalService) -> None:
    make_network(service, "lab", LAB)
    wish = {"network": "lab", "guard": {"antiSpoof": "address"}}
    with pytest.raises(RefusedError, match=r"spec\.nics\.0\.guard\.antiSpoof: nobody knows beforehand"):
        service.create(vm_document("web", nics=[wish]))
    make_vm(service, "web", {**wish, "ipv4": {"mode": "dhcp", "address": "10.8.0.70/24"}})


def test_the_gateway_may_forward_and_announce(service: LocalService) -> None:
    network, gateway = routed(service)
    nic = gateway["spec"]["nics"][0]
    assert effective_guard(nic, network, is_gateway=True)["ipv4"] is None
    six = {**network, "spec": {**network["spec"], "ipv6": {"subnet": "fd07::/64", "mode": "slaac"}}}
    assert effective_guard(nic, six, is_gateway=True)["raGuard"] is False
    assert effective_guard(nic, six, is_gateway=False)["raGuard"] is True


def test_a_network_of_the_earlier_shape_still_works(service: LocalService) -> None:
    network = make_network(service, "lab", LAB)
    old = {key: value for key, value in network["spec"].items() if key not in NETWORK_ADDITIONS}
    old["ipv4"] = {"subnet": "10.8.0.0/24", "mode": "dhcp"}
    old["ipv6"] = {"subnet": "", "mode": "none"}
    body = {key: value for key, value in network.items() if key not in ("version", "status")}
    with service.store.transaction() as transaction:
        transaction.put({**body, "spec": old})
    vm = make_vm(service, "web", {"network": "lab", "ipv4": {"mode": "static"}}, power="running")
    assert ip_interface(address_of(vm)).ip in ip_network("10.8.0.0/24")
    assert change(service, "Network", "lab", dns=["9.9.9.9"])["spec"]["gatewayReference"] is None
    settle(service, service.act_on_network("lab", "reconcile"))
