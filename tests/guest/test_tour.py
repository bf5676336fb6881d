"""The README's tour on a real host: a running VM is changed, taken back and brought back, and the guest shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guest_vm import GuestVM
from support.kc import pool_volumes, run_kc, virsh

# Three guests boot one after another, without KVM where there is none.
pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

OLD_KIB = range(400_000, 524_289)
NEW_KIB = range(650_000, 786_433)
PARTITION = r"n\np\n2\n262144\n\nw\n"


@pytest.fixture(scope="module")
def tour(ready_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestVM]:
    tour = GuestVM(ready_home, tmp_path_factory.mktemp("tour"), "tour")
    yield tour
    tour.end()


def test_memory_and_a_nic_are_changed_and_taken_back_and_the_guest_shows_it(tour: GuestVM) -> None:
    name = tour.name
    tour.wait(lambda: tour.memory() in OLD_KIB, "the guest has given back what it is not to have")
    assert tour.nics() == ["eth0"]

    tour.kc("vm", "set", name, "spec.parameters.memoryMiB=768", "--message", "the sale begins")
    tour.kc("vm", "nic", "add", name, "--network", name)
    tour.wait(lambda: tour.nics() == ["eth0", "eth1"], "the guest has the new NIC")
    tour.wait(lambda: {entry["network"] for entry in tour.show()["status"]["addresses"]} == {"default", name},
              "the new NIC has an address of its network")  # fmt: skip
    address = next(entry["address"] for entry in tour.show()["status"]["addresses"] if entry["network"] == name)
    assert address in tour.guest("ip -o -4 addr show dev eth1")
    tour.wait(lambda: tour.memory() in NEW_KIB, "the guest has more memory")
    assert tour.show()["status"]["pendingRestart"] == []

    patch = json.loads(tour.kc("vm", "diff", name, "1", "-o", "json"))
    assert [(change["op"], change["path"]) for change in patch] == [
        ("add", "/spec/parameters/memoryMiB"), ("add", "/spec/nics/1"),
    ]  # fmt: skip

    tour.kc("vm", "reboot", name, "--wait", "ready")
    tour.wait(lambda: tour.memory() in NEW_KIB, "it has it after a reboot, too")
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


def test_a_deleted_vm_comes_back_with_what_its_guest_has_written(tour: GuestVM) -> None:
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
