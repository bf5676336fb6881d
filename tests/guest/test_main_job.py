"""The main job, end to end: an image, a network and a machine type make a VM that answers."""

from __future__ import annotations

import subprocess
import urllib.request
import uuid
from pathlib import Path

import pytest
from support.kc import Kc, pool_volumes, virsh

pytestmark = [pytest.mark.libvirt, pytest.mark.guest]


def ssh(key: Path, address: str, *command: str, identity: bool = True) -> subprocess.CompletedProcess[str]:
    options = ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "ConnectTimeout=10", "BatchMode=yes"]
    if not identity:
        options += ["PubkeyAuthentication=no"]
    arguments = [part for option in options for part in ("-o", option)]
    return subprocess.run(
        ["ssh", *arguments, "-i", str(key), f"root@{address}", *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_vm_is_made_answers_and_leaves_nothing(ready_kc: Kc, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
    name = f"web-{uuid.uuid4().hex[:6]}"
    made = ready_kc(
        "vm", "create", name, "--image", "starter", "--network", "default", "--type", "tiny", "--set", "cpus=1",
        "--meta", "tenant=acme", "--ssh-key", f"{key}.pub", "--wait", "ready", "-o", "json",
    )  # fmt: skip
    assert made.status == 0, made.stderr
    vm = made.json()
    assert vm["name"] == name
    assert vm["metadata"] == {"tenant": "acme"}
    assert vm["status"]["power"] == "running"
    address = next(item["address"] for item in vm["status"]["addresses"] if item["family"] == "ipv4")
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
        assert name in answer.read().decode()
    assert ssh(key, address, "hostname").stdout.strip() == name
    assert ssh(key, address, "true", identity=False).returncode != 0

    listed = ready_kc("vm", "list", "-l", "tenant=acme", "-o", "json").json()["items"]
    assert [item["name"] for item in listed] == [name]
    shown = next(item for item in listed[0]["status"]["addresses"] if item["address"] == address)
    assert shown["source"] == "lease"
    assert "tenant" in virsh("metadata", name, "--uri", "urn:kc:1")

    log = ready_kc("vm", "console", name, "--log").stdout
    assert "KC starter" in log
    assert name in log

    assert ready_kc("vm", "stop", name).status == 0
    stopped = ready_kc("vm", "show", name, "-o", "json").json()
    assert stopped["status"]["power"] == "stopped"
    assert stopped["version"] == vm["version"] + 1
    assert ready_kc("vm", "start", name).status == 0
    assert ready_kc("vm", "reboot", name, "--force").status == 0

    assert ready_kc("vm", "delete", name, "--now", "--yes").status == 0
    assert name not in virsh("list", "--all", "--name").split()
    assert pool_volumes(f"kc-{vm['uid']}") == []
    mac = vm["spec"]["nics"][0]["mac"]
    assert mac not in virsh("net-dhcp-leases", "kc-default")
    assert ready_kc("vm", "show", name).status == 3


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"--image": "nothing"}, 3, "no image nothing"),
        ({"--network": "nowhere"}, 3, "no network nowhere"),
        ({"--type": "huge"}, 3, "no machine type huge"),
        ({"--set": "cpus=99"}, 8, "cpus"),
        ({"--set": "speed=9"}, 8, "speed"),
        ({"NAME": "../etc"}, 8, "name"),
        ({"NAME": "n" * 200}, 8, "name"),
    ],
)
def test_wrong_input_is_one_clear_line(ready_kc: Kc, change: dict[str, str], status: int, words: str) -> None:
    arguments = {"NAME": "wrong", "--image": "starter", "--network": "default", "--type": "tiny", **change}
    name = arguments.pop("NAME")
    options = [part for item in arguments.items() for part in item]
    done = ready_kc("vm", "create", name, *options)
    assert done.status == status
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("kc: ")
    assert words in lines[0]


def test_a_name_that_is_taken_is_a_conflict(ready_kc: Kc) -> None:
    name = f"twin-{uuid.uuid4().hex[:6]}"
    options = ("--image", "starter", "--network", "default", "--type", "tiny", "--no-start")
    assert ready_kc("vm", "create", name, *options).status == 0
    again = ready_kc("vm", "create", name, *options)
    assert again.status == 4
    assert "taken" in again.stderr
    assert ready_kc("vm", "delete", name, "--now", "--yes").status == 0


def test_another_home_sees_a_foreign_vm_and_cannot_touch_it(ready_kc: Kc, kc: Kc) -> None:
    name = f"alien-{uuid.uuid4().hex[:6]}"
    options = ("--image", "starter", "--network", "default", "--type", "tiny", "--no-start")
    assert ready_kc("vm", "create", name, *options).status == 0
    assert kc("init").status == 0
    listed = {item["name"]: item for item in kc("vm", "list", "-o", "json").json()["items"]}
    assert listed[name]["status"]["foreign"] is True
    taken = kc("vm", "create", name, *options)
    assert taken.status == 4
    assert "VM of" in taken.stderr
    for verb in ("start", "stop", "reboot"):
        assert kc("vm", verb, name).status == 4
    assert kc("vm", "delete", name, "--now", "--yes").status == 4
    assert ready_kc("vm", "delete", name, "--now", "--yes").status == 0


def test_init_is_safe_to_repeat_and_takes_up_what_another_home_left(ready_kc: Kc, kc: Kc) -> None:
    first = {item["name"]: item for item in ready_kc("image", "list", "-o", "json").json()["items"]}
    done = kc("init")
    assert done.status == 0
    again = kc("init")
    assert again.status == 0
    second = {item["name"]: item for item in kc("image", "list", "-o", "json").json()["items"]}
    assert second["starter"]["spec"]["digest"] == first["starter"]["spec"]["digest"]
    networks = kc("network", "list", "-o", "json").json()["items"]
    assert networks[0]["spec"]["ipv4"] == ready_kc("network", "show", "default", "-o", "json").json()["spec"]["ipv4"]


def test_an_unreachable_libvirt_is_said_at_once_and_writes_nothing(kc: Kc, tmp_path: Path) -> None:
    nowhere = f"qemu+unix:///system?socket={tmp_path}/none"
    done = kc("vm", "list", "-o", "json", KC_LIBVIRT_URI=nowhere)
    assert done.status == 0
    assert done.json()["items"] == []
    assert "libvirt" in done.stderr
    assert kc("init", KC_LIBVIRT_URI=nowhere).status == 6
