"""What the driver changes on domains that are on, and on networks, without a guest's help."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from hosts import PrivateHost, wait_until
from support.network_sides import serve

from backend.errors import ConflictError
from backend.hypervisor.plan import DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import NetworkPlan

pytestmark = pytest.mark.libvirt

Make = Callable[..., DomainPlan]


def nics(count: int, network: str, start: int = 0) -> tuple[NicPlan, ...]:
    return tuple(NicPlan(f"nic{n}", f"52:54:00:77:30:{n:02x}", network) for n in range(start, start + count))


def places(host: PrivateHost, plan: DomainPlan, *options: str) -> dict[str, str]:
    """Return the PCI bus of each NIC and disk, by alias."""
    root = fromstring(host.virsh("dumpxml", plan.name, *options))
    return {
        device.find("alias").get("name", ""): device.find("address").get("bus", "")  # type: ignore[union-attr]
        for device in (*root.findall("devices/interface"), *root.findall("devices/disk[@device='disk']"))
    }


@pytest.mark.parametrize(
    "machine",
    [{"firmware": "bios"}, {"firmware": "uefi"}, {"firmware": "uefi", "arch": "aarch64", "memory_mib": 256}],
    ids=["bios", "uefi", "aarch64"],
)
def test_eight_nics_find_room_and_what_finds_none_waits(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make, machine: dict[str, Any]
) -> None:
    if machine.get("arch", "x86_64") not in hypervisor.facts().guest_archs:
        pytest.skip("no QEMU for it here")
    plan = make(nics=nics(2, network.name), **machine)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    full = plan._replace(nics=nics(10, network.name))
    hypervisor.ensure_defined(full)
    assert hypervisor.apply_live(full) == ()
    assert hypervisor.apply_live(full) == ()
    # They stay where they are when it starts next.
    assert places(private_host, full) == places(private_host, full, "--inactive")
    over = plan._replace(nics=nics(12, network.name))
    hypervisor.ensure_defined(over)
    assert hypervisor.apply_live(over) == ("nic:nic10", "nic:nic11")
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    hypervisor.ensure_running(plan.uid)
    assert hypervisor.apply_live(over) == ()


def test_devices_keep_their_places_through_every_change(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make
) -> None:
    plan = make(nics=nics(3, network.name))
    hypervisor.ensure_defined(plan)
    before = places(private_host, plan)
    assert len(set(before.values())) == 4
    fewer = plan._replace(nics=(plan.nics[2],), memory_mib=96)
    hypervisor.ensure_defined(fewer)
    assert places(private_host, fewer) == {name: before[name] for name in ("ua-nic2", "ua-disk-root")}
    hypervisor.ensure_defined(plan)
    after = places(private_host, plan)
    assert len(set(after.values())) == 4
    assert after["ua-nic2"] == before["ua-nic2"]


def test_a_nic_moves_between_networks_and_bridges_and_waits_with_another_mtu(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make
) -> None:
    (nic,) = nics(1, network.name)
    plan = make(nics=(nic,))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    private_host.run("ip", "link", "add", "brmove", "type", "bridge")
    bridged = plan._replace(nics=(nic._replace(network="", bridge="brmove"),))
    for step, bridge in ((bridged, "brmove"), (plan, hypervisor.ensure_network(network).bridge)):
        hypervisor.ensure_defined(step)
        assert hypervisor.apply_live(step) == ()
        source = fromstring(private_host.virsh("dumpxml", plan.name)).find("devices/interface/source")
        assert source is not None
        assert source.get("bridge") == bridge
        assert hypervisor.apply_live(step) == ()
    larger = plan._replace(nics=(nic._replace(mtu=1400),))
    assert hypervisor.apply_live(larger) == ("nic:nic0",)
    assert hypervisor.apply_live(plan) == ()


def test_a_line_that_was_left_down_comes_up_again(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make
) -> None:
    (nic,) = nics(1, network.name)
    plan = make(nics=(nic,))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    private_host.virsh("domif-setlink", plan.name, nic.mac, "down")
    assert hypervisor.apply_live(plan) == ()
    assert private_host.virsh("domif-getlink", plan.name, nic.mac).split()[-1] == "up"


def test_a_nic_that_another_tool_added_goes_or_is_named(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.hypervisor.live.UNPLUG_SECONDS", 1.0)
    plan = make()
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    mac = "52:54:00:77:31:01"
    private_host.virsh("attach-interface", plan.name, "network", network.name, "--mac", mac, "--model", "virtio")
    (waiting,) = hypervisor.apply_live(plan)
    assert waiting == "nic:net0"


def test_cpus_and_memory_have_headroom_and_a_guest_without_drivers_waits_for_no_start(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    plan = make(max_cpus=4, max_memory_mib=128)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    # Its balloon is told and nobody is there to fill it, as in a guest that boots: another start would change nothing.
    assert hypervisor.apply_live(plan) == ()
    for changes, waiting in (
        ({"cpus": 3, "memory_mib": 96}, ()),
        ({"cpus": 5, "memory_mib": 160}, ("cpus", "memory")),
        ({"cpus": 4, "memory_mib": 128}, ()),
        ({"cpus": 2}, ("cpus",)),
    ):
        changed = plan._replace(**changes)
        assert hypervisor.apply_live(changed) == waiting
        assert hypervisor.apply_live(changed) == waiting
    vcpu = fromstring(private_host.virsh("dumpxml", plan.name)).find("vcpu")
    assert vcpu is not None
    assert (vcpu.get("current", vcpu.text), vcpu.text) == ("4", "4")


def test_an_adopted_domain_keeps_its_nics_of_other_kinds(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make
) -> None:
    user, (managed,) = NicPlan("user", "52:54:00:77:34:01"), nics(1, network.name)
    plan = make(nics=(user,))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    adopted = plan._replace(adopted=True, disks=(), seed="", console_log="", nics=(managed,))
    assert hypervisor.apply_live(adopted) == ()
    assert hypervisor.apply_live(adopted) == ()
    found = fromstring(private_host.virsh("dumpxml", plan.name)).findall("devices/interface")
    assert [nic.get("type") for nic in found] == ["user", "network"]


def test_metadata_is_mirrored_whole_while_it_runs(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    plan = make(description="first <b>&")
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    private_host.virsh("metadata", plan.name, "--uri", "urn:other", "--key", "o", "--set", "<kept/>", "--live")
    wanted = plan._replace(version=2, metadata='{"a":"<x>&\\u0007 é"}', description="")
    assert hypervisor.apply_live(wanted) == ()
    root = fromstring(private_host.virsh("dumpxml", plan.name))
    label = root.find("metadata/{urn:kc:1}vm")
    assert label is not None
    assert label.get("version") == "2"
    assert label.findtext("{urn:kc:1}metadata") == wanted.metadata
    assert root.find("metadata/{urn:other}kept") is not None
    assert root.find("description") is None
    # What it will be when it starts next is not this call's affair.
    assert "first" in private_host.virsh("dumpxml", plan.name, "--inactive")


def test_a_network_whose_new_subnet_is_the_hosts_is_put_back(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan
) -> None:
    private_host.run("ip", "link", "add", "uplink1", "type", "bridge")
    private_host.run("ip", "addr", "add", "10.78.1.2/24", "dev", "uplink1")
    private_host.run("ip", "link", "set", "uplink1", "up")
    before = hypervisor.ensure_network(network)
    with pytest.raises(ConflictError, match="uplink1"):
        hypervisor.replace_network(network._replace(ipv4=serve("10.78.1.0/24")))
    assert hypervisor.ensure_network_started(network.name) == before
    assert "yes" in private_host.virsh("net-info", network.name).split("Autostart:")[1]


@pytest.mark.parametrize("left", ["destroyed", "gone"])
def test_a_replacement_that_was_killed_is_brought_to_its_end(
    hypervisor: Hypervisor, private_host: PrivateHost, left: str
) -> None:
    plan = NetworkPlan(
        f"net-{uuid.uuid4().hex[:6]}", str(uuid.uuid4()), "nat", ipv4=serve("10.77.40.0/24")
    )  # fmt: skip
    hypervisor.ensure_network(plan)
    private_host.virsh("net-destroy", plan.name)
    if left == "gone":
        private_host.virsh("net-undefine", plan.name)
    changed = plan._replace(ipv4=serve("10.77.41.0/24"), dns=("9.9.9.9",))
    made = hypervisor.replace_network(changed)
    assert (made.active, made.ipv4_subnet) == (True, "10.77.41.0/24")
    assert "9.9.9.9" in private_host.virsh("net-dumpxml", plan.name)
    hypervisor.ensure_network_gone(plan)


def test_a_change_of_ranges_that_was_half_done_is_finished(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make
) -> None:
    plan = make(nics=nics(1, network.name))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    span = "<range start='10.77.1.2' end='10.77.1.254'/>"
    private_host.virsh("net-update", network.name, "delete", "ip-dhcp-range", span, "--config")
    changed = hypervisor.replace_network(network._replace(ipv4=serve("10.77.1.0/24", "static")))
    assert changed.ipv4_mode == "static"
    for options in ((), ("--inactive",)):
        assert "range" not in private_host.virsh("net-dumpxml", network.name, *options)
    assert hypervisor.replace_network(network).ipv4_mode == "dhcp"
    wait_until(lambda: "range" in private_host.virsh("net-dumpxml", network.name, "--inactive"), "it is kept too")
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
