"""The README's tour on a real host: a running VM is changed, taken back and brought back, and the guest shows it."""

from __future__ import annotations

import json
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kc import pool_volumes, run_kc, virsh

# Three guests boot one after another, without KVM where there is none.
pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

OLD_KIB = range(400_000, 524_289)
NEW_KIB = range(650_000, 786_433)
OPTIONS = (
    "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "ConnectTimeout=10", "BatchMode=yes",
    "ServerAliveInterval=5", "ServerAliveCountMax=3",
)  # fmt: skip
PARTITION = r"n\np\n2\n262144\n\nw\n"


class Tour:
    """A VM, a second network for it, and its guest's shell."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.key = folder / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True, timeout=30)
        self.name = f"tour-{uuid.uuid4().hex[:6]}"
        subnet = f"10.214.{random.randrange(256)}.0/24"
        self.kc("network", "create", self.name, "--uplink", "isolated", "--ipv4", subnet)
        self.kc(
            "vm", "create", self.name, "--image", "starter", "--network", "default", "--type", "tiny",
            "--ssh-key", f"{self.key}.pub", "--wait", "ready",
        )  # fmt: skip

    def kc(self, *arguments: str) -> str:
        """Return what a `kc` command prints; fail where it does."""
        done = run_kc(self.home, *arguments)
        assert done.status == 0, done.stderr
        return done.stdout

    def show(self) -> Any:
        return json.loads(self.kc("vm", "show", self.name, "-o", "json"))

    def guest(self, command: str) -> str:
        """Return what a command in the guest prints, asked for until the guest answers."""
        deadline = time.monotonic() + 120
        while True:
            addresses = [entry for entry in self.show()["status"]["addresses"] if entry["network"] == "default"]
            for address in (entry["address"] for entry in addresses if entry["family"] == "ipv4"):
                options = [part for option in OPTIONS for part in ("-o", option)]
                done = subprocess.run(
                    ["ssh", *options, "-i", str(self.key), f"root@{address}", command],
                    capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                if done.returncode == 0:
                    return done.stdout
                assert time.monotonic() < deadline, done.stderr
            assert time.monotonic() < deadline, "the guest has no address"

    def memory(self) -> int:
        """Return the KiB of memory that the guest has."""
        return int(self.guest("grep MemTotal /proc/meminfo").split()[1])

    def nics(self) -> list[str]:
        return [name for name in self.guest("ls /sys/class/net").split() if name != "lo"]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {what}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def tour(ready_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    tour = Tour(ready_home, tmp_path_factory.mktemp("tour"))
    yield tour
    run_kc(ready_home, "vm", "delete", tour.name, "--yes", "--now")
    run_kc(ready_home, "network", "delete", tour.name, "--yes", "--now")


def test_memory_and_a_nic_are_changed_and_taken_back_and_the_guest_shows_it(tour: Tour) -> None:
    name = tour.name
    assert tour.memory() in OLD_KIB
    assert tour.nics() == ["eth0"]

    tour.kc("vm", "set", name, "spec.parameters.memoryMiB=768", "--message", "the sale begins")
    tour.kc("vm", "nic", "add", name, "--network", name)
    tour.wait(lambda: tour.nics() == ["eth0", "eth1"], "the guest has the new NIC")
    tour.wait(lambda: {entry["network"] for entry in tour.show()["status"]["addresses"]} == {"default", name},
              "the new NIC has an address of its network")  # fmt: skip
    address = next(entry["address"] for entry in tour.show()["status"]["addresses"] if entry["network"] == name)
    assert address in tour.guest("ip -o -4 addr show dev eth1")
    assert tour.show()["status"]["pendingRestart"] == ["spec.parameters.memoryMiB"]
    assert tour.memory() in OLD_KIB

    patch = json.loads(tour.kc("vm", "diff", name, "1", "-o", "json"))
    assert [(change["op"], change["path"]) for change in patch] == [
        ("add", "/spec/parameters/memoryMiB"), ("add", "/spec/nics/1"),
    ]  # fmt: skip

    tour.kc("vm", "reboot", name, "--wait", "ready")
    assert tour.memory() in NEW_KIB
    assert tour.nics() == ["eth0", "eth1"]
    assert "pendingRestart" not in tour.show()["status"] or tour.show()["status"]["pendingRestart"] == []

    tour.kc("vm", "undo", name)
    tour.wait(lambda: tour.nics() == ["eth0"], "the NIC is gone from the guest")
    tour.kc("vm", "undo", name)
    tour.wait(lambda: tour.nics() == ["eth0", "eth1"], "the NIC is back in the guest")

    tour.kc("vm", "rollback", name, "--to", "1")
    tour.wait(lambda: tour.nics() == ["eth0"], "the guest has the NICs of the first version")
    tour.wait(lambda: tour.memory() in OLD_KIB, "the guest has given the memory back")

    history = json.loads(tour.kc("vm", "history", name, "-o", "json"))["items"]
    told = {entry["version"]: entry["message"] for entry in history}
    assert told[2] == "the sale begins"
    assert told[4] == "undo of version 3"
    assert told[6] == "rollback to version 1"
    assert max(told) == 6


def test_a_deleted_vm_comes_back_with_what_its_guest_has_written(tour: Tour) -> None:
    tour.guest(
        f"printf '{PARTITION}' | fdisk /dev/vda >/dev/null 2>&1; partprobe /dev/vda; mke2fs -q /dev/vda2"
        " && mkdir -p /data && mount -t ext2 /dev/vda2 /data && echo brass > /data/note && umount /data && sync"
    )
    uid = tour.show()["uid"]
    volumes = pool_volumes(f"kc-{uid}")
    tour.kc("vm", "delete", tour.name, "--yes")
    assert tour.name not in virsh("list", "--all", "--name").split()
    assert run_kc(tour.home, "vm", "show", tour.name).status == 3
    deleted = json.loads(tour.kc("trash", "list", "-o", "json"))["items"]
    assert tour.name in [entry["spec"]["target"]["name"] for entry in deleted]

    tour.kc("vm", "restore", tour.name)
    assert tour.show()["uid"] == uid
    assert tour.guest("mkdir -p /data; mount -t ext2 /dev/vda2 /data && cat /data/note") == "brass\n"
    assert pool_volumes(f"kc-{uid}") == volumes

    tour.kc("vm", "delete", tour.name, "--yes", "--now")
    assert pool_volumes(f"kc-{uid}") == []
    assert run_kc(tour.home, "vm", "restore", tour.name).status == 4
