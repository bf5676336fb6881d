"""One booted guest reports its CPUs, memory, disks, disc and NICs before and after each change made under it."""

from __future__ import annotations

import base64
import io
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kc import URI, run_kc, virsh
from support.network_sides import serve

from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.images.volumes import image_volume
from backend.network.plan import NetworkPlan

# The guest boots once, without KVM where there is none.
pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(400)]

MIB = 1 << 20
BOOT_SECONDS = 180.0
LESS_MIB, MOST_MIB = 192, 320


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail with `what` where it does not."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"never came true: {what}"
        time.sleep(0.1)


class Guest:
    """The starter image with headroom, and a shell in it by its agent."""

    def __init__(self, hypervisor: Hypervisor, plan: DomainPlan) -> None:
        self.hypervisor = hypervisor
        self.plan = plan
        self.discs: list[str] = []

    def run(self, command: str) -> str:
        """Return what a shell command says in the guest; fail where it does."""
        pid = self._ask("guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})["pid"]
        done: dict[str, Any] = {}
        wait_until(lambda: done.update(self._ask("guest-exec-status", pid=pid)) or done["exited"], command)
        said = base64.b64decode(done.get("out-data", "")).decode().strip()
        assert done["exitcode"] == 0, (command, said, base64.b64decode(done.get("err-data", "")))
        return said

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"execute": command, "arguments": arguments})
        answer = virsh("qemu-agent-command", self.plan.name, request, "--timeout", "20")
        found: dict[str, Any] = json.loads(answer)["return"]
        return found

    def change(self, **changes: Any) -> tuple[str, ...]:
        """Change the plan, its definition and the running domain; return what waits."""
        self.plan = self.plan._replace(**changes)
        self.hypervisor.ensure_defined(self.plan)
        return self.hypervisor.apply_live(self.plan)

    def memory_mib(self) -> int:
        """Return what the guest's kernel has to give."""
        return int(self.run("awk '/MemTotal/ { print $2 }' /proc/meminfo")) // 1024

    def disks(self) -> dict[str, tuple[str, int]]:
        """Return the guest's names for its virtio disks and their sizes in MiB, by serial number."""
        said = self.run('for disk in /sys/block/vd*; do echo "$(cat $disk/serial) ${disk##*/} $(cat $disk/size)"; done')
        return {serial: (name, int(size) * 512 // MIB) for serial, name, size in map(str.split, said.splitlines())}

    def disk(self, name: str, size_mib: int) -> DiskPlan:
        """Return a disk whose volume is there and empty."""
        volume = f"kc-{self.plan.uid}-{name}"
        virsh("vol-create-as", "kc", volume, f"{size_mib}M", "--format", "qcow2")
        return DiskPlan(name, volume, capacity_bytes=size_mib * MIB)

    def disc(self, text: str) -> str:
        """Return the name of a volume that is a disc of that text, in blocks of a CD-ROM."""
        name = f"kc-{self.plan.uid}-disc{len(self.discs)}"
        data = text.encode().ljust(2048, b"\n") * 256
        self.hypervisor.upload(name, io.BytesIO(data), len(data))
        self.discs.append(name)
        return name

    def addresses(self, nic: NicPlan) -> list[str]:
        """Return the addresses of a NIC as the guest's agent tells them."""
        found = self.hypervisor.addresses(self.plan.uid)
        return [one.address for one in found if one.mac == nic.mac and one.source == "agent"]


@pytest.fixture(scope="module")
def network(libvirt_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkPlan]:
    name = f"kc-live-{uuid.uuid4().hex[:6]}"
    hypervisor = open_hypervisor(URI, "kc", tmp_path_factory.mktemp("network"))
    subnet = f"10.{random.randrange(215, 225)}.{random.randrange(256)}.0/24"
    plan = NetworkPlan(name, str(uuid.uuid4()), "isolated", ipv4=serve(subnet))
    hypervisor.ensure_network(plan)
    yield plan
    hypervisor.ensure_network_gone(plan)
    hypervisor.close()


@pytest.fixture(scope="module")
def guest(ready_home: Path, network: NetworkPlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, booted once."""
    hypervisor = open_hypervisor(URI, "kc", tmp_path_factory.mktemp("live"))
    image = image_volume(run_kc(ready_home, "image", "show", "starter", "-o", "json").json()["spec"])
    uid = str(uuid.uuid4())
    hypervisor.ensure_overlay(f"kc-{uid}-root", base=image, base_format="raw", capacity_bytes=128 * MIB)
    plan = DomainPlan(
        uid=uid, name=f"live-{uid[:8]}", version=1, owner="tests", owner_label="tests", metadata="{}", arch="x86_64",
        cpus=1, max_cpus=4, memory_mib=LESS_MIB, max_memory_mib=MOST_MIB, firmware="bios", accelerator="qemu",
        disks=(DiskPlan("root", f"kc-{uid}-root", "qcow2", image, "raw"),),
        nics=(NicPlan("nic0", f"52:54:00:{uid[:2]}:{uid[2:4]}:01", network.name),), seed="",
        console_log=f"kc-{uid}-console.log",
    )  # fmt: skip
    made = Guest(hypervisor, plan)
    try:
        hypervisor.ensure_defined(plan)
        hypervisor.ensure_running(uid)
        # The guest that has not booted yet is told what it is to have, and nothing waits for another start.
        assert hypervisor.apply_live(plan) == ()
        wait_until(lambda: hypervisor.agent_answers(uid), "the agent answers", BOOT_SECONDS)
        yield made
    finally:
        hypervisor.ensure_stopped(uid, grace_seconds=0, force=True)
        hypervisor.ensure_undefined(uid, plan.owner)
        for volume in hypervisor.list_volumes(f"kc-{uid}"):
            hypervisor.ensure_volume_gone(volume.name)
        hypervisor.close()


def test_it_starts_with_less_than_it_can_have(guest: Guest) -> None:
    assert guest.run("nproc") == "1"
    # The kernel itself keeps some of it.
    wait_until(lambda: LESS_MIB - 64 < guest.memory_mib() < LESS_MIB, "it has given back what it is not to have")
    assert guest.hypervisor.apply_live(guest.plan) == ()


def test_cpus_come_are_put_to_use_and_are_idle_when_they_are_not_wanted(guest: Guest) -> None:
    assert guest.change(cpus=3) == ()
    assert guest.run("nproc") == "3"
    guest.run("echo 0 >/sys/devices/system/cpu/cpu2/online")
    assert guest.run("nproc") == "2"
    assert guest.hypervisor.apply_live(guest.plan) == ()
    assert guest.run("nproc") == "3"
    assert guest.change(cpus=5) == ("cpus",)
    assert guest.run("nproc") == "4"
    # An emulated machine keeps its CPUs until it is started again; its guest leaves them alone.
    assert guest.change(cpus=2) == ("cpus",)
    assert guest.run("nproc") == "2"
    assert guest.change(cpus=4) == ()
    assert guest.run("nproc") == "4"
    assert guest.change(cpus=1) == ("cpus",)
    assert guest.run("nproc") == "1"


def test_memory_comes_up_to_the_headroom_and_goes(guest: Guest) -> None:
    less = guest.memory_mib()
    most = less + MOST_MIB - LESS_MIB
    assert guest.change(memory_mib=MOST_MIB, cpus=4) == ()
    wait_until(lambda: guest.memory_mib() == most, "it has all that it can have")
    assert guest.change(memory_mib=MOST_MIB + 64) == ("memory",)
    assert guest.memory_mib() == most
    assert guest.change(memory_mib=LESS_MIB) == ()
    wait_until(lambda: guest.memory_mib() == less, "it has given it back")


def test_a_disk_comes_is_written_grows_goes_and_comes_back_with_its_data(guest: Guest) -> None:
    (root,) = guest.plan.disks
    assert guest.disks() == {"root": ("vda", 128)}
    data = guest.disk("data", 32)
    assert guest.change(disks=(root, data)) == ()
    wait_until(lambda: "data" in guest.disks(), "the guest has the disk")
    assert guest.disks() == {"root": ("vda", 128), "data": ("vdb", 32)}
    guest.run("mke2fs -q /dev/vdb && mkdir -p /data && mount -t ext2 /dev/vdb /data && echo brass >/data/note")
    larger = data._replace(capacity_bytes=96 * MIB)
    assert guest.change(disks=(root._replace(capacity_bytes=160 * MIB), larger)) == ()
    wait_until(lambda: guest.disks() == {"root": ("vda", 160), "data": ("vdb", 96)}, "both have grown")
    assert guest.run("cat /data/note") == "brass"
    guest.run("umount /data")
    assert guest.change(disks=(root._replace(capacity_bytes=160 * MIB),)) == ()
    wait_until(lambda: "data" not in guest.disks(), "the guest has lost the disk")
    assert guest.change(disks=(root._replace(capacity_bytes=160 * MIB), larger)) == ()
    wait_until(lambda: "data" in guest.disks(), "the guest has it again")
    name = guest.disks()["data"][0]
    assert guest.run(f"mount -t ext2 /dev/{name} /data && cat /data/note && umount /data") == "brass"
    assert guest.change(disks=(root._replace(capacity_bytes=160 * MIB),)) == ()


def test_a_disc_is_read_changed_and_taken_out_also_where_the_guest_has_locked_it(guest: Guest) -> None:
    read = "head -c 2048 /dev/sr0"
    first, second = guest.disc("first"), guest.disc("second")
    for disc, text in ((first, "first"), (second, "second")):
        assert guest.change(cdrom=disc) == ()
        wait_until(lambda text=text: guest.run(f"{read} || true") == text, f"the guest reads {text}")  # type: ignore[misc]
    assert guest.change(cdrom="") == ()
    assert guest.run(f"{read} 2>&1 || echo empty").endswith("empty")
    assert guest.change(cdrom=first) == ()
    wait_until(lambda: guest.run(f"{read} || true") == "first", "it is there again")
    # Whoever has it open has its drive locked.
    guest.run("setsid sleep 600 </dev/sr0 >/dev/null 2>&1 &")
    assert guest.change(cdrom=second) == ()
    guest.run("killall sleep")
    wait_until(lambda: guest.run(f"{read} || true") == "second", "the other one has taken its place")
    assert guest.change(cdrom="") == ()


def test_a_nic_comes_gets_an_address_and_goes(guest: Guest) -> None:
    (first,) = guest.plan.nics
    second = NicPlan("nic1", first.mac[:-1] + "2", first.network)
    assert guest.change(nics=(first, second)) == ()
    wait_until(lambda: guest.addresses(second), "the guest tells its new address")
    assert guest.addresses(second)[0].rsplit(".", 1)[0] == guest.addresses(first)[0].rsplit(".", 1)[0]
    assert guest.change(nics=(first,)) == ()
    assert second.mac not in guest.run("cat /sys/class/net/*/address")


def test_after_a_restart_it_is_as_it_was_left(guest: Guest) -> None:
    (root,) = guest.plan.disks
    data = guest.disk("late", 16)
    assert guest.change(cpus=2, memory_mib=256, disks=(root, data)) == ("cpus",)
    wait_until(lambda: "late" in guest.disks(), "the guest has the disk")
    wait_until(lambda: 256 - 64 < guest.memory_mib() < 256, "it has the memory that it is to have")
    before = guest.memory_mib()
    bus = guest.run("readlink -f /sys/block/vd*/device | sort")
    assert guest.hypervisor.ensure_stopped(guest.plan.uid, grace_seconds=60, force=False)
    guest.hypervisor.ensure_running(guest.plan.uid)
    wait_until(lambda: guest.hypervisor.agent_answers(guest.plan.uid), "the agent answers", BOOT_SECONDS)
    assert guest.hypervisor.apply_live(guest.plan) == ()
    assert guest.run("nproc") == "2"
    wait_until(lambda: guest.memory_mib() == before, "it has the memory that it had")
    assert guest.run("readlink -f /sys/block/vd*/device | sort") == bus
    assert {serial: size for serial, (_, size) in guest.disks().items()} == {"root": 160, "late": 16}
