"""A libvirt host of a test's own."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import GREETING, PrivateHost
from support.boot_sector import SIZE, make_disk
from support.network_sides import serve

from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DiskPlan, DomainPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import NetworkPlan


@pytest.fixture(scope="module")
def private_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHost]:
    """A host of the module's own."""
    if os.geteuid() != 0:
        pytest.skip("namespaces of its own need root")
    host = PrivateHost(tmp_path_factory.mktemp("h"))
    yield host
    host.close()


@pytest.fixture
def hypervisor(private_host: PrivateHost, tmp_path: Path) -> Iterator[Hypervisor]:
    """KC's driver on the private host."""
    made = open_hypervisor(private_host.uri, "kc", tmp_path)
    made.ensure_pool()
    yield made
    made.close()


@pytest.fixture
def make(hypervisor: Hypervisor, private_host: PrivateHost) -> Iterator[Callable[..., DomainPlan]]:
    """Makes plans of domains whose disk and seed are there; everything is removed in the end."""
    plans: list[DomainPlan] = []

    def make_plan(disk: bytes = b"", **changes: Any) -> DomainPlan:
        uid = str(uuid.uuid4())
        hypervisor.upload(f"kc-{uid}-base", io.BytesIO(disk or make_disk(GREETING)), SIZE)
        hypervisor.ensure_overlay(f"kc-{uid}-root", base=f"kc-{uid}-base", base_format="raw", capacity_bytes=SIZE)
        hypervisor.upload(f"kc-{uid}-seed", io.BytesIO(b"seed" * 1024), 4096)
        plan = DomainPlan(
            uid=uid, name=f"vm-{uid[:8]}", version=1, owner="owner", owner_label="tests", metadata="{}", arch="x86_64",
            cpus=1, memory_mib=64, firmware="bios", accelerator="qemu",
            disks=(DiskPlan("root", f"kc-{uid}-root", "qcow2", f"kc-{uid}-base", "raw"),), nics=(),
            seed=f"kc-{uid}-seed", console_log=f"kc-{uid}-console.log",
        )._replace(**changes)  # fmt: skip
        plans.append(plan)
        return plan

    yield make_plan
    for plan in plans:
        hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
        hypervisor.ensure_undefined(plan.uid, plan.owner)
        for suffix in ("root", "base", "seed"):
            hypervisor.ensure_volume_gone(f"kc-{plan.uid}-{suffix}")
        for volume in hypervisor.list_volumes(f"kc-{plan.uid}"):
            hypervisor.ensure_volume_gone(volume.name)


@pytest.fixture
def network(hypervisor: Hypervisor, private_host: PrivateHost) -> Iterator[NetworkPlan]:
    plan = NetworkPlan(
        f"net-{uuid.uuid4().hex[:6]}", str(uuid.uuid4()), "nat", ipv4=serve("10.77.1.0/24"),
        ipv6=serve("fd00:77::/64"),
    )  # fmt: skip
    hypervisor.ensure_network(plan)
    yield plan
    hypervisor.ensure_network_gone(plan)
