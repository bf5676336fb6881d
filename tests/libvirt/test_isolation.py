"""NICs whose devices have names of their own, and that reach the host and not one another."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from hosts import PrivateHost, wait_until
from support.network_sides import serve

from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.images.starter import build
from backend.network.plan import NetworkPlan
from backend.network.shell import open_shell

pytestmark = pytest.mark.libvirt

NETWORK = "alone"
NICS = [
    NicPlan("nic0", f"52:54:00:77:60:0{number}", NETWORK, tap=f"kt000000000{number}", isolated=True)
    for number in (1, 2)
]  # fmt: skip


@pytest.fixture(scope="module")
def host(private_host: PrivateHost) -> PrivateHost:
    """A host that sees its own devices in /sys, by which libvirt isolates ports, and not the machine's."""
    for command in (
        "mkdir /run/sys", "mount -t sysfs kc /run/sys", "mount --rbind /sys/fs/cgroup /run/sys/fs/cgroup",
        "mount --rbind /run/sys /sys",
    ):  # fmt: skip
        private_host.run(*command.split())
    return private_host


@pytest.fixture(scope="module")
def driver(host: PrivateHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
    made = open_hypervisor(host.uri, "alone", tmp_path_factory.mktemp("alone"))
    made.ensure_pool()
    network = NetworkPlan(NETWORK, str(uuid.uuid4()), "isolated", ipv4=serve("10.77.60.0/24"))
    made.ensure_network(network)
    yield made
    made.ensure_network_gone(network)
    made.close()


@pytest.fixture(scope="module")
def guests(driver: Hypervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[DomainPlan]]:
    """Two starter guests that run, isolated from one another."""
    image = build(tmp_path_factory.mktemp("image") / "starter.raw")
    with image.open("rb") as file:
        driver.upload("kc-alone-starter", file, image.stat().st_size)
    plans = []
    for number, nic in enumerate(NICS):
        driver.ensure_overlay(
            f"kc-alone-{number}", base="kc-alone-starter", base_format="raw", capacity_bytes=128 << 20
        )
        plan = DomainPlan(
            uid=str(uuid.uuid4()), name=f"alone-{number}", version=1, owner="owner", owner_label="tests", metadata="{}",
            arch="x86_64", cpus=1, memory_mib=256, firmware="bios", accelerator="qemu",
            disks=(DiskPlan("root", f"kc-alone-{number}", "qcow2", "kc-alone-starter", "raw"),), nics=(nic,), seed="",
            console_log=f"kc-alone-{number}.log",
        )  # fmt: skip
        driver.ensure_defined(plan)
        driver.ensure_running(plan.uid)
        plans.append(plan)
    for plan in plans:
        wait_until(lambda plan=plan: driver.agent_answers(plan.uid), "the agent answers", 120)
    yield plans
    for plan in plans:
        driver.ensure_stopped(plan.uid, grace_seconds=0, force=True)
        driver.ensure_undefined(plan.uid, plan.owner)


def reaches(host: PrivateHost, plan: DomainPlan, address: str) -> bool:
    """Return whether a guest has an answer from an address, by its agent."""

    def ask(command: str, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"execute": command, "arguments": arguments})
        answer = host.virsh("qemu-agent-command", plan.name, request, "--timeout", "10")
        found: dict[str, Any] = json.loads(answer)["return"]
        return found

    script = f"ping -c 2 -W 2 {address}"
    pid = ask("guest-exec", **{"path": "/bin/sh", "arg": ["-c", script], "capture-output": True})["pid"]
    done: dict[str, Any] = {}
    wait_until(lambda: done.update(ask("guest-exec-status", pid=pid)) or done["exited"], script, 30)
    said = base64.b64decode(done.get("out-data", "")).decode()
    assert "2 packets transmitted" in said, said
    return "0 packets received" not in said


def interfaces(host: PrivateHost, plan: DomainPlan, *options: str) -> list[Element]:
    return fromstring(host.virsh("dumpxml", plan.name, *options)).findall("devices/interface")


def taps(host: PrivateHost, plan: DomainPlan, *options: str) -> list[str]:
    targets = [nic.find("target") for nic in interfaces(host, plan, *options)]
    return ["" if target is None else target.get("dev", "") for target in targets]


def isolated_ports(host: PrivateHost) -> set[str]:
    """Return the ports that the kernel keeps from one another."""
    links = json.loads(open_shell(host.uri).run(["bridge", "-d", "-j", "link", "show"]).output)
    return {link["ifname"] for link in links if link.get("isolated")}


@pytest.mark.guest
def test_isolated_guests_reach_the_host_and_one_another_only_once_they_may(
    host: PrivateHost, driver: Hypervisor, guests: list[DomainPlan]
) -> None:
    addresses: dict[str, str] = {}

    def have_addresses() -> bool:
        addresses.update({lease.mac: lease.address for lease in driver.leases([NETWORK])})
        return len(addresses) == len(NICS)

    wait_until(have_addresses, "both guests have addresses", 60)
    first, second = guests
    other = addresses[NICS[1].mac]
    assert isolated_ports(host) == {nic.tap for nic in NICS}
    assert [reaches(host, plan, "10.77.60.1") for plan in guests] == [True, True]
    assert not reaches(host, first, other)
    # It takes both ends to be isolated.
    for isolated in (False, True):
        plan = first._replace(nics=(NICS[0]._replace(isolated=isolated),))
        driver.ensure_defined(plan)
        assert driver.apply_live(plan) == ()
        assert driver.differences(plan) == ()
        assert reaches(host, first, other) is not isolated
        assert reaches(host, second, addresses[NICS[0].mac]) is not isolated
        assert reaches(host, first, "10.77.60.1")


@pytest.mark.guest
def test_a_nic_that_comes_later_has_its_name_and_is_isolated_too(
    host: PrivateHost, driver: Hypervisor, guests: list[DomainPlan]
) -> None:
    late = NicPlan("late", "52:54:00:77:60:09", NETWORK, tap="kt0000000009", isolated=True)
    plan = guests[0]._replace(nics=(*guests[0].nics, late))
    driver.ensure_defined(plan)
    assert driver.apply_live(plan) == ()
    assert taps(host, plan) == [NICS[0].tap, late.tap]
    assert isolated_ports(host) == {NICS[0].tap, NICS[1].tap, late.tap}
    # One of the same name and another MAC takes its place, and its device's name.
    plan = guests[0]._replace(nics=(*guests[0].nics, late._replace(mac="52:54:00:77:60:0a", isolated=False)))
    driver.ensure_defined(plan)
    assert driver.apply_live(plan) == ()
    assert taps(host, plan) == [NICS[0].tap, late.tap]
    assert isolated_ports(host) == {NICS[0].tap, NICS[1].tap}
    driver.ensure_defined(guests[0])
    assert driver.apply_live(guests[0]) == ()
    assert taps(host, plan) == [NICS[0].tap]


def test_a_running_domain_keeps_the_device_that_it_was_started_with_until_it_is_started_again(
    host: PrivateHost, driver: Hypervisor, hypervisor: Hypervisor, make: Callable[..., DomainPlan]
) -> None:
    nic = NicPlan("nic0", "52:54:00:77:60:0b", NETWORK)
    before = make(nics=(nic,))
    hypervisor.ensure_defined(before)
    hypervisor.ensure_running(before.uid)
    (numbered,) = taps(host, before)
    assert numbered.startswith("vnet")
    plan = before._replace(nics=(nic._replace(tap="kt000000000b"),))
    # Neither a definition of before nor what runs by it is anybody's doing.
    assert hypervisor.differences(plan) == ()
    hypervisor.ensure_defined(plan)
    assert hypervisor.apply_live(plan) == ()
    assert hypervisor.differences(plan) == ()
    assert taps(host, plan) == [numbered]
    assert taps(host, plan, "--inactive") == ["kt000000000b"]
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    hypervisor.ensure_running(plan.uid)
    assert taps(host, plan) == ["kt000000000b"]
    assert hypervisor.apply_live(plan) == ()


def test_isolation_that_somebody_took_away_is_seen_in_words(
    driver: Hypervisor, hypervisor: Hypervisor, make: Callable[..., DomainPlan]
) -> None:
    nic = NicPlan("nic0", "52:54:00:77:60:0c", NETWORK, tap="kt000000000c", isolated=True)
    plan = make(nics=(nic._replace(isolated=False),))
    hypervisor.ensure_defined(plan)
    plan = plan._replace(nics=(nic,))
    (difference,) = hypervisor.differences(plan)
    assert difference == (
        "nic:nic0", f"network {NETWORK}, {nic.mac}, isolated", f"network {NETWORK}, {nic.mac}",
    )  # fmt: skip
    hypervisor.ensure_defined(plan)
    assert hypervisor.differences(plan) == ()
