"""The whole life of a VM on a real host: each change is what the booted guest itself reports."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guest_vm import GuestVM
from support.kc import pool_volumes, run_kc, virsh

pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

SECTORS_PER_GIB = 1 << 21


@pytest.fixture(scope="module")
def vm(ready_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestVM]:
    vm = GuestVM(ready_home, tmp_path_factory.mktemp("life"), "life")
    yield vm
    vm.end()


def sectors(vm: GuestVM, disk: str) -> int:
    text = vm.guest(f"cat /sys/block/{disk}/size 2>/dev/null || echo 0")
    return int(text)


def status(vm: GuestVM) -> dict[str, Any]:
    found: dict[str, Any] = vm.show()["status"]
    return found


def test_cpus_and_memory_change_while_the_guest_runs(vm: GuestVM) -> None:
    assert vm.guest("nproc").strip() == "1"
    before = vm.memory()
    vm.kc("vm", "resize", vm.name, "--cpus", "2", "--memory", "768")
    vm.wait(lambda: vm.guest("nproc").strip() == "2", "the guest uses the second CPU")
    vm.wait(lambda: vm.memory() > before + 200_000, "the guest has more memory")
    assert not status(vm).get("pendingRestart")
    vm.kc("vm", "undo", vm.name)
    vm.wait(lambda: vm.memory() < before + 50_000, "the guest has given the memory back")


def test_disks_come_grow_go_and_come_back_with_their_data(vm: GuestVM) -> None:
    vm.kc("vm", "disk", "add", vm.name, "--size", "1")
    vm.wait(lambda: sectors(vm, "vdb") == SECTORS_PER_GIB, "the guest has the disk")
    vm.guest("printf brass | dd of=/dev/vdb bs=512 conv=sync 2>/dev/null && sync")
    vm.kc("vm", "disk", "grow", vm.name, "disk1", "--size", "2")
    vm.wait(lambda: sectors(vm, "vdb") == 2 * SECTORS_PER_GIB, "the guest sees the new size")
    vm.kc("vm", "resize", vm.name, "--disk", "3")
    vm.wait(lambda: sectors(vm, "vda") == 3 * SECTORS_PER_GIB, "the guest sees the first disk's new size")
    assert "disk" not in json.dumps(status(vm).get("pendingRestart"))

    vm.kc("vm", "disk", "remove", vm.name, "disk1", "--yes")
    vm.wait(lambda: sectors(vm, "vdb") == 0, "the disk is gone from the guest")
    vm.kc("vm", "undo", vm.name)
    vm.wait(lambda: sectors(vm, "vdb") == 2 * SECTORS_PER_GIB, "the disk is back")
    assert vm.guest("dd if=/dev/vdb bs=5 count=1 2>/dev/null") == "brass"
    assert [disk["id"] for disk in status(vm)["disks"]] == ["root", "disk1"]


def test_a_disc_is_in_the_drive_until_it_is_ejected(vm: GuestVM) -> None:
    vm.kc("vm", "cd", "insert", vm.name, "starter")
    size = json.loads(vm.kc("image", "show", "starter", "-o", "json"))["spec"]["virtualSizeBytes"]
    drive = "for d in /sys/block/sr*; do cat $d/size; done"
    vm.guest("for d in /dev/sr*; do dd if=$d of=/dev/null bs=2048 count=1 2>/dev/null; done; true")
    vm.wait(lambda: str(size // 512) in vm.guest(drive).split(), "the guest sees the disc")
    vm.kc("vm", "cd", "eject", vm.name)
    assert vm.show()["spec"]["cdrom"] is None
    assert "cdrom" not in json.dumps(status(vm).get("pendingRestart", []))


def test_a_snapshot_takes_the_running_guest_back(vm: GuestVM) -> None:
    refused = run_kc(vm.home, "vm", "snapshot", "create", vm.name, "early")
    assert refused.status == 8
    assert "it was given CPUs while it ran" in refused.stderr
    assert status(vm)["pendingRestart"] == ["spec.parameters.cpus"]
    vm.kc("vm", "reboot", vm.name, "--wait", "ready")
    vm.guest("echo before > /tmp/note")
    vm.kc("vm", "snapshot", "create", vm.name, "clean")
    vm.guest("echo after > /tmp/note; printf steel | dd of=/dev/vdb bs=512 conv=sync,notrunc 2>/dev/null; sync")
    vm.kc("vm", "snapshot", "restore", vm.name, "clean", "--yes")
    assert vm.guest("cat /tmp/note") == "before\n"
    assert vm.guest("echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vdb bs=5 count=1 2>/dev/null") == "brass"
    vm.kc("vm", "snapshot", "delete", vm.name, "clean", "--yes")
    assert status(vm)["snapshots"] == []


def test_a_paused_guest_stands_still_until_it_is_resumed(vm: GuestVM) -> None:
    vm.kc("vm", "pause", vm.name)
    assert status(vm)["power"] == "paused"
    vm.kc("vm", "set", vm.name, "spec.description=still")
    assert status(vm)["power"] == "paused"
    vm.kc("vm", "resume", vm.name)
    assert vm.guest("echo on") == "on\n"


def test_the_screen_is_a_picture_and_a_vnc_server(vm: GuestVM, tmp_path: Path) -> None:
    picture = tmp_path / "screen.png"
    vm.kc("vm", "screenshot", vm.name, str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert status(vm)["display"].startswith("vnc")
    viewer = subprocess.Popen(
        [sys.executable, "-m", "kc_tui", "vm", "viewer", vm.name, "--print"], stdout=subprocess.PIPE, text=True,
        env={"PATH": "/usr/bin:/bin", "KC_HOME": str(vm.home)},
    )  # fmt: skip
    try:
        assert viewer.stdout is not None
        port = int(viewer.stdout.readline().strip().rpartition(":")[2].rstrip("/"))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.settimeout(10)
            assert connection.recv(12).startswith(b"RFB 003.")
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.wait(timeout=20)
        assert viewer.stdout is not None
        viewer.stdout.close()


def test_what_virsh_changed_is_shown_and_mended(vm: GuestVM) -> None:
    assert status(vm)["drift"] == []
    virsh("autostart", "--disable", vm.show()["uid"])
    virsh("desc", "--config", vm.show()["uid"], "meddled")
    assert {line["path"] for line in status(vm)["drift"]} == {"spec.autostart", "spec.description"}
    vm.kc("vm", "reconcile", vm.name)
    assert status(vm)["drift"] == []


def test_a_clone_of_a_running_vm_boots_with_its_disks_and_a_name_of_its_own(vm: GuestVM) -> None:
    other = f"{vm.name}-b"
    try:
        vm.guest("printf brass | dd of=/dev/vdb bs=512 conv=sync,notrunc 2>/dev/null; sync")
        vm.kc("vm", "clone", vm.name, other, "--start", "--wait", "ready")
        clone = GuestVM.__new__(GuestVM)
        clone.home, clone.key, clone.name = vm.home, vm.key, other
        assert clone.guest("hostname").strip() == other
        assert clone.guest("dd if=/dev/vdb bs=5 count=1 2>/dev/null") == "brass"
        assert clone.guest("cat /sys/class/net/eth0/address") != vm.guest("cat /sys/class/net/eth0/address")
        uid = clone.show()["uid"]
        vm.kc("vm", "delete", other, "--yes", "--now")
        assert pool_volumes(f"kc-{uid}") == []
    finally:
        run_kc(vm.home, "vm", "delete", other, "--yes", "--now")


def test_a_renamed_vm_has_its_name_everywhere_after_a_restart(vm: GuestVM) -> None:
    old, new = vm.name, f"{vm.name}-x"
    vm.kc("vm", "rename", old, new)
    vm.name = new
    assert "name" in status(vm)["pendingRestart"]
    vm.kc("vm", "reboot", new, "--wait", "ready")
    assert new in virsh("list", "--name").split()
    vm.kc("vm", "rename", new, old)
    vm.name = old
