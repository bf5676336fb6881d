"""A booted guest sees what is changed while it runs, and after a restart what had to wait."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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

pytestmark = [pytest.mark.libvirt, pytest.mark.guest]

BOOT_SECONDS = 120
FIRST = NicPlan("nic0", "52:54:00:77:20:01", "live-first")
SECOND = NicPlan("wan", "52:54:00:77:20:02", "live-second")
THIRD = NicPlan("backup", "52:54:00:77:20:03", "live-second")


@dataclass
class Guest:
    """A starter guest that runs, and what its tests ask of it."""

    host: PrivateHost
    hypervisor: Hypervisor
    plan: DomainPlan

    def run(self, command: str) -> str:
        """Return what a shell command says in the guest, by its agent."""
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        pid = self._ask("guest-exec", **arguments)["pid"]
        done: dict[str, Any] = {}
        wait_until(lambda: done.update(self._ask("guest-exec-status", pid=pid)) or done["exited"], command, 30)
        return base64.b64decode(done.get("out-data", "")).decode().strip()

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"execute": command, "arguments": arguments})
        answer = self.host.virsh("qemu-agent-command", self.plan.name, request, "--timeout", "10")
        found: dict[str, Any] = json.loads(answer)["return"]
        return found

    def macs(self) -> set[str]:
        """Return the MACs of the NICs that the guest's kernel has."""
        return set(self.run("cat /sys/class/net/e*/address").split())

    def place(self, nic: NicPlan) -> str:
        """Return where on its PCI bus the guest sees a NIC."""
        return self.run(f"cd /sys/class/net; readlink -f $(grep -l {nic.mac} e*/address | cut -d/ -f1)/device/..")

    def memory_mib(self) -> int:
        """Return what the guest's kernel has to give."""
        return int(self.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")) // 1024

    def addresses(self, name: str) -> str:
        """Return what the guest says of an interface's addresses that reach beyond its line."""
        return self.run(f"ip -o address show dev {name} scope global")

    def leases(self, nic: NicPlan) -> list[str]:
        """Return a NIC's addresses as the networks' DHCP servers know them."""
        found = self.hypervisor.leases(["live-first", "live-second"])
        return [lease.address for lease in found if lease.mac == nic.mac]

    def change(self, **changes: Any) -> tuple[str, ...]:
        """Change the plan, its definition and the running domain; return what waits."""
        self.plan = self.plan._replace(**changes)
        self.hypervisor.ensure_defined(self.plan)
        return self.hypervisor.apply_live(self.plan)

    def devices(self) -> list[Element]:
        """Return the NICs of the running domain."""
        return fromstring(self.host.virsh("dumpxml", self.plan.name)).findall("devices/interface")

    def wait_until_up(self) -> None:
        """Wait until the guest's agent answers."""
        wait_until(lambda: self.hypervisor.agent_answers(self.plan.uid), "the agent answers", BOOT_SECONDS)


@pytest.fixture(scope="module")
def guest(private_host: PrivateHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The starter guest of this module, with one NIC."""
    folder = tmp_path_factory.mktemp("live")
    hypervisor = open_hypervisor(private_host.uri, "live", folder)
    hypervisor.ensure_pool()
    image = build(folder / "starter.raw")
    with image.open("rb") as file:
        hypervisor.upload("kc-live-starter", file, image.stat().st_size)
    for number, name in enumerate(("live-first", "live-second")):
        ipv4, ipv6 = f"10.77.{20 + number}.0/24", f"fd00:77:{20 + number}::/64"
        hypervisor.ensure_network(NetworkPlan(name, str(uuid.uuid4()), "isolated", ipv4=serve(ipv4), ipv6=serve(ipv6)))
    hypervisor.ensure_overlay("kc-live-root", base="kc-live-starter", base_format="raw", capacity_bytes=128 << 20)
    plan = DomainPlan(
        uid=str(uuid.uuid4()), name="live", version=1, owner="owner", owner_label="tests", metadata="{}", arch="x86_64",
        cpus=1, memory_mib=256, firmware="bios", accelerator="qemu",
        disks=(DiskPlan("root", "kc-live-root", "qcow2", "kc-live-starter", "raw"),), nics=(FIRST,), seed="",
        console_log="kc-live-console.log", max_cpus=2,
    )  # fmt: skip
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    made = Guest(private_host, hypervisor, plan)
    made.wait_until_up()
    yield made
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    hypervisor.close()


def test_a_nic_comes_gets_an_address_and_goes_again(guest: Guest) -> None:
    assert guest.change(nics=(FIRST, SECOND)) == ()
    wait_until(lambda: guest.leases(SECOND), "the new NIC has a lease", 30)
    (address,) = guest.leases(SECOND)
    assert address.startswith("10.77.21.")
    wait_until(
        lambda: (
            (address, SECOND.mac, "agent")
            in [(found.address, found.mac, found.source) for found in guest.hypervisor.addresses(guest.plan.uid)]
        ),
        "the guest has it too",
    )
    aliases = [nic.find("alias").get("name") for nic in guest.devices()]  # type: ignore[union-attr]
    assert aliases == ["ua-nic0", "ua-wan"]
    assert guest.change(nics=(FIRST,)) == ()
    assert guest.macs() == {FIRST.mac}
    assert len(guest.devices()) == 1


def test_a_nic_moves_to_another_network(guest: Guest) -> None:
    assert guest.change(nics=(FIRST, SECOND)) == ()
    wait_until(
        lambda: all(part in guest.run("ip -o address") for part in ("10.77.21.", "fd00:77:21:")), "it has addresses", 30
    )  # fmt: skip
    place = guest.place(SECOND)
    assert guest.change(nics=(FIRST, SECOND._replace(network="live-first"))) == ()
    # It is the same device, whose line has been down in between: the guest asks the other network for addresses.
    assert guest.place(SECOND) == place
    name = guest.run(f"cd /sys/class/net; grep -l {SECOND.mac} e*/address | cut -d/ -f1")
    wait_until(
        lambda: all(part in guest.addresses(name) for part in (" 10.77.20.", " fd00:77:20:")), "it has new ones", 30
    )  # fmt: skip
    assert "77.21." not in guest.addresses(name)
    assert "77:21:" not in guest.addresses(name)
    assert "10.77.20." in guest.run(f"ip route show dev {name}")
    assert guest.change(nics=(FIRST,)) == ()


def test_a_nic_of_another_mac_takes_the_others_place(guest: Guest) -> None:
    assert guest.change(nics=(FIRST, SECOND)) == ()
    other = SECOND._replace(mac="52:54:00:77:20:0f")
    assert guest.change(nics=(FIRST, other)) == ()
    assert guest.macs() == {FIRST.mac, other.mac}
    assert guest.change(nics=(FIRST,)) == ()


@pytest.mark.parametrize("step", ["attach", "release", "attempt"])
def test_a_change_that_is_killed_anywhere_is_brought_to_its_end(guest: Guest, tmp_path: Path, step: str) -> None:
    before, after = {
        "attach": ((FIRST,), (FIRST, SECOND, THIRD)),
        "release": ((FIRST, SECOND, THIRD), (FIRST,)),
        "attempt": ((FIRST, SECOND), (FIRST, SECOND._replace(network="live-first"))),
    }[step]
    assert guest.change(nics=before) == ()
    wanted = guest.plan._replace(nics=after)
    guest.hypervisor.ensure_defined(wanted)
    # The process dies when it has done the first of the things that this step does.
    script = (
        "import os, sys; from pathlib import Path\n"
        "from backend.hypervisor.live_domain import RunningDomain\n"
        "from backend.hypervisor.host import open_hypervisor\n"
        "from backend.hypervisor.plan import *\n"
        "control = RunningDomain.control\n"
        "def die(self, *arguments):\n"
        "    control(self, *arguments)\n"
        f"    if sys._getframe(1).f_code.co_name == {step!r}: os._exit(9)\n"
        "RunningDomain.control = die\n"
        f"open_hypervisor({guest.host.uri!r}, 'live', Path({str(tmp_path)!r})).apply_live({wanted!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 9, done.stderr
    assert guest.change(nics=after) == ()
    assert sorted(guest.macs()) == sorted(nic.mac for nic in after)
    assert len(guest.devices()) == len(after)
    states = [nic.find("link") for nic in guest.devices()]
    assert all(state is None or state.get("state") == "up" for state in states)
    assert guest.change(nics=(FIRST,)) == ()


def test_cpus_come_within_the_headroom_and_are_idle_when_they_are_not_wanted(guest: Guest) -> None:
    assert guest.run("nproc") == "1"
    assert guest.change(cpus=2) == ()
    assert guest.run("nproc") == "2"
    assert guest.change(cpus=3) == ("cpus",)
    # An emulated machine keeps its CPUs until it is started again; its guest leaves them alone.
    assert guest.change(cpus=1) == ("cpus",)
    assert guest.run("nproc") == "1"
    assert guest.change(cpus=2) == ()
    assert guest.run("nproc") == "2"


def test_memory_is_given_back_and_taken_again_up_to_what_it_was_started_with(guest: Guest) -> None:
    before = guest.memory_mib()
    assert guest.change(memory_mib=192) == ()
    assert guest.memory_mib() == before - 64
    assert guest.change(memory_mib=512) == ("memory",)
    assert guest.memory_mib() == before
    assert guest.change(memory_mib=256) == ()


def test_a_paused_guest_is_changed_and_shows_it_when_it_goes_on(guest: Guest) -> None:
    guest.host.virsh("suspend", guest.plan.name)
    try:
        assert guest.change(nics=(FIRST, SECOND)) == ()
        assert guest.change(nics=(FIRST,)) == ("nic:wan",)
    finally:
        guest.hypervisor.ensure_running(guest.plan.uid)
    wait_until(lambda: guest.change(nics=(FIRST,)) == (), "it lets go of the NIC when it goes on", 30)
    assert guest.macs() == {FIRST.mac}


def test_what_waits_is_there_after_a_restart_and_nics_keep_their_places(guest: Guest) -> None:
    assert guest.change(cpus=2, nics=(FIRST, SECOND, THIRD)) == ()
    assert guest.change(nics=(FIRST, THIRD)) == ()
    places = [guest.place(nic) for nic in (FIRST, THIRD)]
    assert all(places)
    memory = guest.memory_mib()
    assert guest.change(cpus=3, memory_mib=320, description="grown", version=2) == ("cpus", "memory")
    assert guest.hypervisor.owner_of(guest.plan.uid).version == 2
    assert "grown" in guest.host.virsh("desc", guest.plan.name)
    assert guest.hypervisor.ensure_stopped(guest.plan.uid, grace_seconds=30, force=False)
    guest.hypervisor.ensure_defined(guest.plan)
    guest.hypervisor.ensure_running(guest.plan.uid)
    guest.wait_until_up()
    assert guest.run("nproc") == "3"
    assert memory + 50 < guest.memory_mib() < memory + 70
    assert guest.macs() == {FIRST.mac, THIRD.mac}
    assert [guest.place(nic) for nic in (FIRST, THIRD)] == places
    assert guest.hypervisor.apply_live(guest.plan) == ()
