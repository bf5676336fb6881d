"""Killed at any point of any step, an operation is brought to its end by whatever KC command comes next."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kc import URI, Kc, pool_volumes, run_kc, virsh

from backend.operations.planning import PLANS

pytestmark = [pytest.mark.libvirt]

CRASH = Path(__file__).parent.parent / "support" / "crash.py"
POINTS = ("begun", "worked", "passed")


def points_of(operation_type: str) -> list[tuple[str, str]]:
    return [(point, step.id) for step in PLANS[operation_type].steps for point in POINTS]


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
    run_kc(ready_home, "vm", "delete", name, "--yes")


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
