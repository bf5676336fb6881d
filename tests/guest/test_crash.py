"""Killed at any point of any step, an operation is brought to its end by whatever KC command comes next."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kc import URI, Kc, pool_volumes, run_kc, virsh

from backend.operations.planning import PLANS

pytestmark = [pytest.mark.libvirt]

CRASH = Path(__file__).parent.parent / "support" / "crash.py"
POINTS = ("begun", "worked")


def points_of(operation_type: str) -> list[tuple[str, str]]:
    """Return where to die: before each step acts, after it, and once all is journalled but the end."""
    steps = PLANS[operation_type].steps
    return [*((point, step.id) for step in steps for point in POINTS), ("passed", steps[-1].id)]


def die(home: Path, point: str, step: str, action: str, name: str) -> None:
    environment = {**os.environ, "KC_HOME": str(home), "KC_LIBVIRT_URI": URI}
    done = subprocess.run(
        [sys.executable, str(CRASH), point, step, action, name],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr


@pytest.fixture
def name(ready_home: Path) -> Iterator[str]:
    name = f"crash-{uuid.uuid4().hex[:6]}"
    yield name
    run_kc(ready_home, "vm", "delete", name, "--now", "--yes")


@pytest.mark.parametrize(("point", "step"), points_of("vm.create"))
def test_a_creation_that_was_killed_ends_as_if_nothing_had_happened(
    ready_home: Path, ready_kc: Kc, name: str, point: str, step: str
) -> None:
    die(ready_home, point, step, "create", name)
    listed = ready_kc("op", "list", "-o", "json")
    assert listed.status == 0, listed.stderr
    vm = ready_kc("vm", "show", name, "-o", "json").json()
    assert vm["status"]["power"] == "running"
    assert "operation" not in vm["status"]
    operations = ready_kc("op", "list", "-o", "json").json()["items"]
    mine = [item for item in operations if item["spec"]["target"]["uid"] == vm["uid"]]
    assert [item["status"]["state"] for item in mine] == ["succeeded"]
    assert virsh("domuuid", name).strip() == vm["uid"]
    prefix = f"kc-{vm['uid']}-"
    volumes = [volume.removeprefix(prefix) for volume in pool_volumes(prefix)]
    assert volumes == ["console.log", "root", "seed"]


@pytest.mark.parametrize(("point", "step"), points_of("vm.delete"))
def test_a_deletion_that_was_killed_leaves_nothing(
    ready_home: Path, ready_kc: Kc, name: str, point: str, step: str
) -> None:
    options = ("--image", "starter", "--network", "default", "--type", "tiny", "--no-start", "-o", "json")
    vm = ready_kc("vm", "create", name, *options).json()
    die(ready_home, point, step, "delete", name)
    assert ready_kc("vm", "show", name).status == 3
    assert name not in virsh("list", "--all", "--name").split()
    assert pool_volumes(f"kc-{vm['uid']}") == []


def in_doubt(operation_type: str) -> list[str]:
    """Return the steps of an operation, to be killed when each has done its work and the journal does not say so."""
    return [step.id for step in PLANS[operation_type].steps]


def show(kc: Kc, name: str) -> dict[str, Any]:
    vm: dict[str, Any] = kc("vm", "show", name, "-o", "json").json()
    return vm


def volumes_of(uid: str) -> list[str]:
    prefix = f"kc-{uid}-"
    return [volume.removeprefix(prefix) for volume in pool_volumes(prefix)]


@pytest.fixture
def vm(ready_kc: Kc, name: str) -> dict[str, Any]:
    made = ready_kc("vm", "create", name, "--image", "starter", "--network", "default", "--type", "tiny", "-o", "json")
    vm: dict[str, Any] = made.json()
    return vm


@pytest.mark.parametrize("step", in_doubt("vm.update"))
def test_a_change_that_was_killed_is_made_all_the_same(
    ready_home: Path, ready_kc: Kc, vm: dict[str, Any], step: str
) -> None:
    die(ready_home, "worked", step, "update", vm["name"])
    assert ready_kc("op", "list").status == 0
    after = show(ready_kc, vm["name"])
    assert (after["version"], after["metadata"], after["status"]["power"]) == (2, {"test": "changed"}, "running")
    assert after["status"]["pendingRestart"] == ["spec.parameters.memoryMiB"]
    assert "operation" not in after["status"]
    macs = [nic["mac"] for nic in after["spec"]["nics"]]
    assert len(set(macs)) == 2
    for xml in (virsh("dumpxml", vm["name"]), virsh("dumpxml", "--inactive", vm["name"])):
        assert [xml.count(mac) for mac in macs] == [1, 1]
    assert str(640 * 1024) in virsh("dumpxml", "--inactive", vm["name"])


# What is between stop and start is the same as in a change.
@pytest.mark.parametrize("step", [in_doubt("vm.restart")[0], in_doubt("vm.restart")[-1]])
def test_a_restart_that_was_killed_ends_with_a_running_vm(
    ready_home: Path, ready_kc: Kc, vm: dict[str, Any], step: str
) -> None:
    settings = ("spec.parameters.memoryMiB=640", "--message", "more")
    assert ready_kc("vm", "set", vm["name"], *settings).status == 0
    die(ready_home, "worked", step, "restart", vm["name"])
    after = show(ready_kc, vm["name"])
    assert (after["status"]["power"], after["status"]["pendingRestart"]) == ("running", [])


@pytest.mark.parametrize("step", in_doubt("vm.delete"))
def test_a_vm_that_was_killed_on_its_way_to_the_trash_is_in_it(
    ready_home: Path, ready_kc: Kc, vm: dict[str, Any], step: str
) -> None:
    die(ready_home, "worked", step, "trash", vm["name"])
    assert ready_kc("vm", "show", vm["name"]).status == 3
    assert vm["name"] not in virsh("list", "--all", "--name").split()
    assert volumes_of(vm["uid"]) == ["root"]
    die(ready_home, "worked", "purge", "purge", vm["name"])
    ready_kc("op", "list")
    assert volumes_of(vm["uid"]) == []
    entries = ready_kc("trash", "list", "-o", "json").json()["items"]
    assert vm["uid"] not in [entry["spec"]["target"]["uid"] for entry in entries]


@pytest.mark.parametrize("step", in_doubt("vm.restore"))
def test_a_restore_that_was_killed_brings_the_vm_back(
    ready_home: Path, ready_kc: Kc, vm: dict[str, Any], step: str
) -> None:
    assert ready_kc("vm", "delete", vm["name"], "--yes").status == 0
    die(ready_home, "worked", step, "restore", vm["name"])
    after = show(ready_kc, vm["name"])
    assert (after["uid"], after["version"], after["status"]["power"]) == (vm["uid"], 3, "running")
    assert volumes_of(vm["uid"]) == ["console.log", "root", "seed"]


def test_a_failed_creation_leaves_nothing(ready_home: Path, ready_kc: Kc, name: str) -> None:
    # A bridge that is not there lets everything up to the start succeed, and the start fail.
    network = f"nobridge-{uuid.uuid4().hex[:6]}"
    assert ready_kc("network", "create", network, "--uplink", "bridge:kcnone0").status == 0
    done = ready_kc("vm", "create", name, "--image", "starter", "--network", network, "--type", "tiny")
    assert done.status == 1
    assert "kcnone0" in done.stderr
    assert name not in virsh("list", "--all", "--name").split()
    assert ready_kc("vm", "show", name).status == 3
    operations = ready_kc("op", "list", "-o", "json").json()["items"]
    failed = next(item for item in operations if item["spec"]["target"]["name"] == name)
    assert failed["status"]["state"] == "failed"
    assert pool_volumes(f"kc-{failed['spec']['target']['uid']}") == []
    assert ready_kc("network", "delete", network, "--yes").status == 0
