"""Killed at any point of any step, an operation is brought to its end by whatever KC comes next.

Every plan that there is, is killed after each of its steps; a plan without a scenario fails. What is left is compared
with what is left where nobody was killed: documents, domains, volumes, networks, trash and leases, all of them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import crash
from support.boot_sector import make_disk
from support.crash import SCENARIOS, Bench, Scenario, clear, settle
from support.kc import Kc, pool_volumes, virsh
from support.private import PrivateHost

from backend.local import open_service
from backend.local.initialising import MACHINE_TYPES
from backend.operations.planning import PLANS
from backend.settings import load_settings

pytestmark = [pytest.mark.libvirt]

_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_TAP = r"\bkt[0-9a-f]{10}\b"
_NETWORK = re.compile(r"kc-[0-9a-f]{10}$")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_KINDS = ("VM", "Network", "Image", "MachineType", "Trash")
# What tells when something was made, and how often something was changed before.
_PASSING = frozenset(
    {"version", "appliedVersion", "createdAt", "updatedAt", "uid", "addresses", "usedBytes", "display"}
)

Die = Callable[[str, str, str], int]


def points_of(plan: str, scenario: Scenario) -> list[tuple[str, str]]:
    """Return where to die: before anything, after each step, which the journal does not know, and short of the end."""
    steps = PLANS[plan].undo if scenario.undo else PLANS[plan].steps
    return [("begun", steps[0].id), *(("worked", step.id) for step in steps), ("passed", steps[-1].id)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Die]]:
    """A KC on a host of its own, and processes that die there."""
    if os.geteuid() != 0:
        pytest.skip("namespaces of its own need root")
    files = tmp_path_factory.mktemp("c")
    for name in ("boot", "spare"):
        (files / f"{name}.raw").write_bytes(make_disk(name.encode()))
    host = PrivateHost(tmp_path_factory.mktemp("h"))
    environment = {"KC_HOME": str(files / "home"), "KC_LIBVIRT_URI": host.uri}
    service = open_service(load_settings(environment=environment))
    paths = os.pathsep.join(sys.path)
    with (files / "log").open("wb") as log:
        mortals = subprocess.Popen(
            [sys.executable, crash.__file__], env={**os.environ, **environment, "PYTHONPATH": paths},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip

    def die(scenario: str, point: str, step: str) -> int:
        assert mortals.stdin is not None
        assert mortals.stdout is not None
        order = {"point": point, "step": step, "scenario": scenario, "files": str(files)}
        mortals.stdin.write(json.dumps(order) + "\n")
        mortals.stdin.flush()
        status = int(mortals.stdout.readline())
        assert status == -9, (order, (files / "log").read_text())
        return status

    try:
        service.hypervisor.ensure_pool()
        # More memory than it has takes a restart.
        tiny = MACHINE_TYPES["tiny"]
        bit = {**tiny, "hardware": {**tiny["hardware"], "maxMemoryMiB": 0}}
        service.create({"kind": "MachineType", "name": "bit", "spec": bit})
        lab = {"uplink": "isolated", "ipv4": {"subnet": "10.78.1.0/24", "mode": "dhcp"}}
        settle(service, service.create({"kind": "Network", "name": "lab", "spec": lab}))
        upload = service.upload_image("boot", files / "boot.raw", metadata={}, declared={"format": "raw"})
        settle(service, upload)
        yield Bench(service, host.virsh, files), die
    finally:
        mortals.stdin.close()  # type: ignore[union-attr] # it is a pipe
        mortals.wait(20)
        mortals.stdout.close()  # type: ignore[union-attr] # as above
        service.close()
        host.close()


def take_picture(bench: Bench) -> list[str]:
    """Return all that there is, in words that are the same however often it was made."""
    service = bench.service
    known: dict[str, str] = {}

    def give_name(found: re.Match[str]) -> str:
        return str(known.setdefault(found[0], f"<{len(known)}>"))

    lines = [f"{len(service.store.leases())} leases"]
    for kind in _KINDS:
        for item in service.list_documents(kind).items:
            shown = service.get(kind, item["name"]) if kind == "VM" else item
            # An entry of the trash has a part of its uid in its name.
            name = "" if kind == "Trash" else shown["name"]
            known[item["uid"]] = f"<{kind} {name}>"
            if kind == "Trash":
                known[item["spec"]["target"]["uid"]] = f"<deleted {item['spec']['target']['name']}>"
            lines += [f"{kind} {name}{line}" for line in flatten({**shown, "name": name})]
    for name in sorted(bench.virsh("list", "--all", "--name").split()):
        xml = bench.virsh("dumpxml", name, "--inactive")
        lines.append(f"{name} is {bench.virsh('domstate', name).strip()}")
        lines += re.sub("version=.[0-9]+.", "", xml).splitlines()
        lines.append(bench.virsh("snapshot-list", name, "--name").strip())
    bench.virsh("pool-refresh", "kc")
    volumes = [line.split()[0] for line in bench.virsh("vol-list", "kc").splitlines() if line.strip()]
    lines += sorted(re.sub(_UID, give_name, line) for line in volumes)
    lines += sorted(re.sub(_NETWORK, "<network>", line) for line in bench.virsh("net-list", "--all", "--name").split())
    for pattern, word in ((_TIME, "<time>"), (_MAC, "<mac>"), (_TAP, "<tap>")):
        lines = [re.sub(pattern, word, line) for line in lines]
    return [re.sub(_UID, give_name, line) for line in lines]


def flatten(value: Any) -> Iterator[str]:
    """Yield every value in a document with its path."""
    if isinstance(value, dict):
        for key in sorted(value.keys() - _PASSING):
            yield from (f".{key}{line}" for line in flatten(value[key]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from (f".{index}{line}" for line in flatten(item))
    else:
        yield f" = {value!r}"


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_has_a_scenario(plan: str) -> None:
    assert SCENARIOS.get(plan), f"no scenario for plan {plan}"


@pytest.mark.parametrize(
    ("plan", "number"), [(plan, number) for plan in PLANS for number in range(len(SCENARIOS.get(plan, ())))]
)
def test_an_operation_that_was_killed_ends_as_if_nothing_had_happened(
    bench: tuple[Bench, Die], plan: str, number: int
) -> None:
    world, die = bench
    scenario, service = SCENARIOS[plan][number], world.service
    scenario.prepare(world)
    accepted = scenario.begin(service, world.files)
    assert accepted.operation is not None
    state = service.wait(accepted.operation["name"], timeout=60)["status"]["state"]
    assert (accepted.operation["spec"]["type"], state) == (plan, "failed" if scenario.undo else "succeeded")
    expected = take_picture(world)
    for point, step in points_of(plan, scenario):
        scenario.prepare(world)
        die(f"{plan}#{number}", point, step)
        service.resume()
        found = take_picture(world)
        assert found == expected, (f"killed when {step} had {point}", *difflib.unified_diff(expected, found, n=0))
    newest = max(service.list_documents("Operation").items, key=lambda item: item["createdAt"])
    assert (newest["spec"]["type"], newest["status"]["state"]) == (plan, state)
    clear(world)
    left = take_picture(world)
    assert [line for line in left if line.startswith(("VM", "Trash")) or " is " in line] == []


def test_a_failed_creation_leaves_nothing(ready_kc: Kc) -> None:
    # A bridge that is not there lets everything up to the start succeed, and the start fail.
    name = f"crash-{uuid.uuid4().hex[:6]}"
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
