"""Empty volumes, and volumes that grow."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import Disks, root_of
from hosts import PrivateHost

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt

MIB = 1 << 20


@pytest.fixture
def disks(private_host: PrivateHost, hypervisor: Hypervisor, tmp_path: Path) -> Disks:
    return Disks(private_host, tmp_path)


@pytest.fixture
def name(hypervisor: Hypervisor) -> Iterator[str]:
    name = f"kc-growth-{uuid.uuid4().hex}"
    yield name
    hypervisor.ensure_volume_gone(name)


def test_an_empty_volume_is_made_once(hypervisor: Hypervisor, disks: Disks, name: str) -> None:
    made = hypervisor.ensure_blank(name, 3 * MIB)
    assert (made.capacity_bytes, made.format) == (3 * MIB, "qcow2")
    assert hypervisor.ensure_blank(name, 7 * MIB).capacity_bytes == 3 * MIB
    info = disks.info(name)
    assert (info["virtual-size"], info["format"], "backing-filename" in info) == (3 * MIB, "qcow2", False)
    assert info["format-specific"]["data"]["compat"] == "1.1"
    assert disks.read(name) == bytes(3 * MIB)


def test_a_volume_grows_keeps_its_content_and_never_shrinks(hypervisor: Hypervisor, disks: Disks, name: str) -> None:
    hypervisor.ensure_blank(name, 2 * MIB)
    disks.write(name, 7)
    before = disks.read(name)
    assert hypervisor.ensure_capacity(name, 5 * MIB).capacity_bytes == 5 * MIB
    assert hypervisor.ensure_capacity(name, 5 * MIB).capacity_bytes == 5 * MIB
    assert hypervisor.ensure_capacity(name, MIB).capacity_bytes == 5 * MIB
    assert disks.read(name) == before + bytes(3 * MIB)


def test_what_is_not_there_does_not_grow(hypervisor: Hypervisor, name: str) -> None:
    with pytest.raises(NotFoundError):
        hypervisor.ensure_capacity(name, MIB)


def test_the_disk_of_a_vm_that_is_on_is_left_to_it(
    hypervisor: Hypervisor, disks: Disks, make: Callable[..., DomainPlan]
) -> None:
    plan = make()
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    with pytest.raises(ConflictError, match="on has it open"):
        hypervisor.ensure_capacity(root_of(plan), 9 * MIB)
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    assert hypervisor.ensure_capacity(root_of(plan), 9 * MIB).capacity_bytes == 9 * MIB
    info = disks.info(root_of(plan))
    assert info["virtual-size"] == 9 * MIB
    assert info["backing-filename"].endswith(plan.disks[0].base_volume)


def test_a_disk_with_snapshots_grows_and_one_of_the_old_format_says_why_it_does_not(
    hypervisor: Hypervisor, disks: Disks, name: str
) -> None:
    hypervisor.ensure_blank(name, 2 * MIB)
    disks.do(f"qemu-img snapshot -c one {name}")
    assert hypervisor.ensure_capacity(name, 4 * MIB).capacity_bytes == 4 * MIB
    hypervisor.ensure_volume_gone(name)
    hypervisor.ensure_blank(name, 2 * MIB)
    disks.do(f"qemu-img amend -o compat=0.10 {name}; qemu-img snapshot -c one {name}")
    with pytest.raises(ConflictError, match="too old to grow"):
        hypervisor.ensure_capacity(name, 4 * MIB)


def test_a_volume_that_is_being_written_is_not_taken_for_a_disk(
    hypervisor: Hypervisor, disks: Disks, name: str, private_host: PrivateHost
) -> None:
    hypervisor.ensure_blank(name, 2 * MIB)
    private_host.virsh("vol-create-as", "kc", f"{name}.01234567.part", "1")
    with pytest.raises(ConflictError, match="being written"):
        hypervisor.ensure_blank(name, 2 * MIB)
    hypervisor.ensure_volume_gone(name)
    assert hypervisor.list_volumes(name) == []
    assert hypervisor.ensure_blank(name, 2 * MIB).whole
