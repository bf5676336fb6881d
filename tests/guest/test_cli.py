"""The command line on a real host: what it leaves to the background, consoles, selectors, completion."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kc import URI, Kc, pool_volumes, run_kc, virsh
from support.pty_driver import Terminal

pytestmark = [pytest.mark.libvirt, pytest.mark.guest]

CREATE = ("--image", "starter", "--network", "default", "--type", "tiny")


@pytest.fixture
def name(ready_home: Path) -> Iterator[str]:
    name = f"cli-{uuid.uuid4().hex[:6]}"
    yield name
    run_kc(ready_home, "vm", "delete", "-l", f"name~{name}*", "--now", "--yes")


def wait_until(condition, what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.2)


def test_what_is_not_waited_for_goes_on_without_any_other_command(ready_kc: Kc, name: str) -> None:
    made = ready_kc("vm", "create", name, *CREATE, "--no-wait", "-o", "json")
    assert made.status == 0, made.stderr
    vm = made.json()
    assert vm["status"]["operation"]["type"] == "vm.create"
    assert vm["status"]["operation"]["name"] in made.stderr
    # No other kc looks: virsh alone tells what the detached process does.
    wait_until(lambda: f" {name} " in virsh("list"), "the VM runs")

    def state() -> str:
        return ready_kc("op", "show", vm["status"]["operation"]["name"], "-o", "json").json()["status"]["state"]

    wait_until(lambda: state() == "succeeded", "the operation has succeeded")


def test_a_terminal_speaks_to_the_guest(ready_home: Path, ready_kc: Kc, name: str) -> None:
    assert ready_kc("vm", "create", name, *CREATE, "-q", "-o", "name").stdout == f"{name}\n"
    environment = {**os.environ, "KC_HOME": str(ready_home), "KC_LIBVIRT_URI": URI, "TERM": "xterm-256color"}
    terminal = Terminal([sys.executable, "-m", "kc_tui", "vm", "console", name], environment)
    try:
        terminal.wait_for("ctrl-] leaves")
        terminal.wait_for("KC starter", timeout=180)
        terminal.send("\recho kc$((40+2)) >/dev/tty\r")
        terminal.wait_for("kc42")
        terminal.send("\x1d")
        assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
        assert "left the console" in terminal.text()
    finally:
        terminal.close()
    log = ready_kc("vm", "console", name, "--log")
    assert "kc42" in log.stdout
    assert "\x1b" not in log.stdout


def test_several_at_once_and_by_selector(ready_kc: Kc, name: str) -> None:
    made = ready_kc(
        "vm", "create", name, *CREATE, "--no-start", "--count", "2", "--meta", f"group={name}", "-o", "json"
    )
    assert made.status == 0, made.stderr
    vms = made.json()["items"]
    assert [vm["name"] for vm in vms] == [f"{name}-1", f"{name}-2"]
    assert [vm["status"]["power"] for vm in vms] == ["stopped", "stopped"]
    again = ready_kc("vm", "create", name, *CREATE, "--no-start", "--count", "3")
    assert again.status == 4
    assert f"{name}-3" not in virsh("list", "--all", "--name").split()
    assert ready_kc("vm", "list", "-l", f"group={name}", "-o", "name").stdout.split() == [f"{name}-1", f"{name}-2"]
    completed = ready_kc("__complete", "vm")
    assert {f"{name}-1", f"{name}-2"} <= set(completed.stdout.split())
    assert completed.stderr == ""
    gone = ready_kc("vm", "delete", "-l", f"group={name}", "--now", "--yes", "-o", "json")
    assert [vm["name"] for vm in gone.json()["items"]] == [f"{name}-1", f"{name}-2"]
    assert [volume for vm in vms for volume in pool_volumes(f"kc-{vm['uid']}")] == []


def test_an_image_from_a_file_and_back_out(ready_kc: Kc, tmp_path: Path, name: str) -> None:
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M"], check=True, timeout=30)
    made = ready_kc(
        "image", "upload", str(path), "--name", name, "--format", "qcow2", "--meta", "os=none", "-o", "json"
    )
    assert made.status == 0, made.stderr
    assert made.json()["spec"]["virtualSizeBytes"] == 8 << 20
    assert ready_kc("image", "upload", str(path), "--name", name).status == 4
    assert ready_kc("image", "upload", str(path), "--name", f"{name}-x", "--format", "raw").status == 8
    assert ready_kc("image", "upload", str(path), "--name", f"{name}-x", "--sha256", "0" * 64).status == 8
    assert ready_kc("image", "delete", name, "--now", "--yes", "-q").status == 0
    assert ready_kc("image", "show", name, "-o", "json").status == 3


def test_a_network_and_a_type_from_their_flags(ready_kc: Kc, name: str) -> None:
    made = ready_kc("network", "create", name, "--uplink", "isolated", "--ipv4", "10.213.7.0/24", "-o", "json")
    assert made.status == 0, made.stderr
    ipv4 = made.json()["spec"]["ipv4"]
    assert (ipv4["subnet"], ipv4["mode"]) == ("10.213.7.0/24", "dhcp")
    parameter = '{"cpus": {"type": "integer", "minimum": 1, "maximum": 2, "default": 1}}'
    sizes = ("--cpus", "1", "--memory", "128", "--disk", "1")
    assert ready_kc("type", "create", name, *sizes, "--parameter", parameter).status == 0
    options = ("--image", "starter", "--network", name, "--type", name, "--no-start")
    assert ready_kc("vm", "create", name, *options, "--set", "cpus=3").status == 8
    assert ready_kc("vm", "create", name, *options, "--set", "cpus=2", "-q").status == 0
    assert ready_kc("network", "delete", name, "--now", "--yes").status == 4
    assert ready_kc("type", "delete", name, "--now", "--yes").status == 4
    assert ready_kc("vm", "delete", name, "--now", "--yes", "-q").status == 0
    assert ready_kc("network", "delete", name, "--now", "--yes", "-q").status == 0
    assert ready_kc("type", "delete", name, "--now", "--yes", "-q").status == 0
