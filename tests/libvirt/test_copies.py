"""A copy is whole and as its source was at one moment, or it is not there, whoever dies when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import Disks, root_of
from hosts import PrivateHost, wait_until
from support.writing_guest import DISK_BYTES, make_writer
from test_ssh import remote as remote  # noqa: PLC0414 - a fixture

from backend.errors import ConflictError, FailedError, NotFoundError, UnreachableError
from backend.hypervisor import copying
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt

MIB = 1 << 20
LARGE = 64 * MIB
# Copies a volume, says so when the first bytes are reported, and waits for a line.
COPIER = """
import sys
from pathlib import Path
from backend.hypervisor import copying
from backend.hypervisor.host import open_hypervisor
uri, cache, name, source = sys.argv[1:5]
copying.DEAD_SECONDS = 2.0
driver = open_hypervisor(uri, "kc", Path(cache))
has_waited = False
def report(done, total):
    global has_waited
    if not has_waited and total:
        has_waited = True
        print("there", flush=True)
        sys.stdin.readline()
print(driver.ensure_copy(name, source, report=report).whole, flush=True)
"""


class GivenUpError(Exception):
    """Somebody cancels."""


@pytest.fixture
def disks(private_host: PrivateHost, hypervisor: Hypervisor, tmp_path: Path) -> Disks:
    return Disks(private_host, tmp_path)


@pytest.fixture
def name(hypervisor: Hypervisor, make: object) -> Iterator[str]:
    # Depends on `make` so that copies go before what they are over.
    name = f"kc-copy-{uuid.uuid4().hex}"
    yield name
    for volume in hypervisor.list_volumes(name):
        hypervisor.ensure_volume_gone(volume.name)


@pytest.fixture
def resting(hypervisor: Hypervisor, disks: Disks, make: Callable[..., DomainPlan], tmp_path: Path) -> DomainPlan:
    """A VM that is off, with something on its disk."""
    plan = make()
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_capacity(root_of(plan), LARGE)
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(MIB) * 24)
    disks.do(f"qemu-io -f qcow2 -c 'write -s {noise} 2M 24M' {root_of(plan)}")
    return plan


@pytest.fixture
def counting(hypervisor: Hypervisor, disks: Disks, make: Callable[..., DomainPlan]) -> DomainPlan:
    """A VM that counts on its disk."""
    plan = make(make_writer())
    hypervisor.ensure_capacity(root_of(plan), DISK_BYTES)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    wait_until(lambda: disks.counts(root_of(plan))[0] > 10, "the guest counts", 30)
    return plan


@pytest.fixture(autouse=True)
def soon_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "DEAD_SECONDS", 2.0)


def start_copier(host: PrivateHost, folder: Path, name: str, source: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COPIER, host.uri, str(folder), name, source],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=20)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    end(process)


def has_leftovers(host: PrivateHost) -> bool:
    return "mirror" in "".join(host.virsh("dumpxml", name) for name in host.virsh("list", "--name").split()) or (
        ".part" in host.virsh("vol-list", "kc") or "kc-copy-" in host.virsh("list", "--all")
    )


def test_the_copy_of_an_overlay_is_an_overlay_of_the_same_base(
    hypervisor: Hypervisor, disks: Disks, resting: DomainPlan, private_host: PrivateHost, name: str
) -> None:
    reports: list[tuple[int, int]] = []
    source = root_of(resting)
    copy = hypervisor.ensure_copy(name, source, report=lambda done, total: reports.append((done, total)))
    assert (copy.name, copy.format, copy.capacity_bytes, copy.whole) == (name, "qcow2", LARGE, True)
    info = disks.info(name)
    assert info["backing-filename"] == disks.info(source)["backing-filename"]
    assert info["backing-filename-format"] == "raw"
    assert disks.read(name) == disks.read(source)
    assert copy.allocation_bytes <= hypervisor.list_volumes(source)[0].allocation_bytes + MIB
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1] > 0
    assert f"volume {name}" in hypervisor.volume_users(resting.disks[0].base_volume)
    assert not has_leftovers(private_host)
    changed = disks.read(name)
    disks.write(source, 9)
    assert hypervisor.ensure_copy(name, source) == hypervisor.find_volume(name)
    assert disks.read(name) == changed  # a whole one is left as it is


def test_a_raw_volume_is_copied_as_it_is_also_under_a_vm_that_runs_on_it(
    hypervisor: Hypervisor, disks: Disks, counting: DomainPlan, name: str
) -> None:
    base = counting.disks[0].base_volume
    assert hypervisor.ensure_copy(name, base).format == "raw"
    assert disks.read(name, "raw") == disks.read(base, "raw")
    assert "backing-filename" not in disks.info(name)


def test_a_raw_disk_that_pretends_to_be_an_overlay_is_copied_byte_for_byte(
    hypervisor: Hypervisor, disks: Disks, make: Callable[..., DomainPlan], name: str
) -> None:
    plan = make()
    trap = f"{name}-trap"
    disks.do(f"qemu-img create -q -u -f qcow2 -b /etc/passwd -F raw {trap} 1M; truncate -s 1M {trap}")
    hypervisor.list_volumes()
    raw = plan.disks[0]._replace(volume=trap, format="raw", base_volume="", base_format="")
    hypervisor.ensure_defined(plan._replace(disks=(raw,)))
    copy = hypervisor.ensure_copy(name, trap)
    assert disks.read(name, "raw") == disks.read(trap, "raw")
    assert copy.capacity_bytes == MIB
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_volume_gone(trap)


def test_what_is_not_there_is_not_copied(hypervisor: Hypervisor, name: str) -> None:
    with pytest.raises(NotFoundError):
        hypervisor.ensure_copy(name, "kc-nothing")
    assert hypervisor.list_volumes(name) == []


def test_the_disk_of_a_guest_that_writes_is_copied_as_it_was_at_one_moment(
    hypervisor: Hypervisor, disks: Disks, counting: DomainPlan, private_host: PrivateHost, name: str
) -> None:
    before = disks.counts(root_of(counting))[0]
    hypervisor.ensure_copy(name, root_of(counting))
    first, second = disks.counts(name)
    assert first >= before
    assert first - second in (0, 1)
    wait_until(lambda: disks.counts(root_of(counting))[0] > first, "the guest goes on counting")
    assert disks.counts(name) == (first, second)
    assert disks.info(name)["backing-filename"].endswith(counting.disks[0].base_volume)
    assert not has_leftovers(private_host)


@pytest.mark.parametrize("vm", ["resting", "counting"])
def test_a_copy_that_is_given_up_leaves_nothing(
    request: pytest.FixtureRequest, hypervisor: Hypervisor, private_host: PrivateHost, name: str, vm: str
) -> None:
    plan: DomainPlan = request.getfixturevalue(vm)

    def give_up(_done: int, _total: int) -> None:
        raise GivenUpError

    with pytest.raises(GivenUpError):
        hypervisor.ensure_copy(name, root_of(plan), report=give_up)
    assert hypervisor.list_volumes(name) == []
    assert not has_leftovers(private_host)


@pytest.mark.parametrize("vm", ["resting", "counting"])
def test_a_killed_copy_is_no_volume_and_the_next_one_is_whole(
    request: pytest.FixtureRequest,
    hypervisor: Hypervisor,
    disks: Disks,
    private_host: PrivateHost,
    tmp_path: Path,
    name: str,
    vm: str,
) -> None:
    plan: DomainPlan = request.getfixturevalue(vm)
    kill(start_copier(private_host, tmp_path, name, root_of(plan)))
    assert hypervisor.find_volume(name) is None
    assert [volume.whole for volume in hypervisor.list_volumes(name)] == [False]
    assert hypervisor.ensure_copy(name, root_of(plan)).whole
    assert not has_leftovers(private_host)
    if vm == "resting":
        assert disks.read(name) == disks.read(root_of(plan))
    else:
        first, second = disks.counts(name)
        assert first - second in (0, 1)


def test_a_killed_copy_under_a_running_guest_can_be_cleared_away(
    hypervisor: Hypervisor, counting: DomainPlan, private_host: PrivateHost, tmp_path: Path, name: str
) -> None:
    kill(start_copier(private_host, tmp_path, name, root_of(counting)))
    assert has_leftovers(private_host)
    hypervisor.ensure_volume_gone(name)
    assert not has_leftovers(private_host)
    assert name not in private_host.virsh("vol-list", "kc")


def test_a_copy_takes_the_turn_of_a_killed_one_of_the_same_disk(
    hypervisor: Hypervisor, disks: Disks, counting: DomainPlan, private_host: PrivateHost, tmp_path: Path, name: str
) -> None:
    kill(start_copier(private_host, tmp_path, f"{name}-other", root_of(counting)))
    hypervisor.ensure_copy(name, root_of(counting))
    first, second = disks.counts(name)
    assert first - second in (0, 1)


def test_two_copies_of_one_running_disk_wait_for_each_other(
    hypervisor: Hypervisor, disks: Disks, counting: DomainPlan, name: str
) -> None:
    names = [name, f"{name}-two", f"{name}-three"]
    threads = [threading.Thread(target=hypervisor.ensure_copy, args=(one, root_of(counting))) for one in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in names:
        first, second = disks.counts(one)
        assert first - second in (0, 1)
        assert first > 0


def test_two_that_make_the_same_copy_end_with_one(
    hypervisor: Hypervisor, disks: Disks, resting: DomainPlan, private_host: PrivateHost, tmp_path: Path, name: str
) -> None:
    process = start_copier(private_host, tmp_path, name, root_of(resting))
    made: list[object] = []
    reports: list[int] = []
    thread = threading.Thread(
        target=lambda: made.append(
            hypervisor.ensure_copy(name, root_of(resting), report=lambda done, _: reports.append(done))
        )
    )
    copying.DEAD_SECONDS = 30.0
    thread.start()
    wait_until(lambda: reports, "the second one waits and tells so")
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    thread.join(30)
    end(process)
    assert made == [hypervisor.find_volume(name)]
    assert disks.read(name) == disks.read(root_of(resting))
    assert not has_leftovers(private_host)


def test_a_vm_that_goes_off_under_its_copy_is_copied_all_the_same(
    hypervisor: Hypervisor, disks: Disks, counting: DomainPlan, private_host: PrivateHost, name: str
) -> None:
    killed: list[int] = []

    def report(done: int, _total: int) -> None:
        if not killed:
            killed.append(done)
            private_host.tell(f"qemu {counting.name} KILL")
            wait_until(lambda: counting.name not in private_host.virsh("list", "--name"), "it is off")

    hypervisor.ensure_copy(name, root_of(counting), report=report)
    assert killed
    assert disks.read(name) == disks.read(root_of(counting))


def test_a_copy_whose_daemon_dies_fails_and_the_next_one_is_whole(
    hypervisor: Hypervisor, disks: Disks, resting: DomainPlan, private_host: PrivateHost, name: str
) -> None:
    killed: list[int] = []

    def report(done: int, _total: int) -> None:
        if not killed:
            killed.append(done)
            private_host.tell("signal libvirtd KILL")

    began = time.monotonic()
    try:
        with pytest.raises(UnreachableError):
            hypervisor.ensure_copy(name, root_of(resting), report=report)
        assert time.monotonic() - began < 15
    finally:
        private_host.tell("start libvirtd")
        private_host.wait_for_daemon()
    assert hypervisor.find_volume(name) is None
    assert hypervisor.ensure_copy(name, root_of(resting)).whole
    assert disks.read(name) == disks.read(root_of(resting))
    assert not has_leftovers(private_host)


def test_no_room_is_said_and_nothing_stays(private_host: PrivateHost, tmp_path: Path) -> None:
    private_host.virsh("pool-define-as", "tight", "dir", "--target", "/var/lib/libvirt/small")
    driver = open_hypervisor(private_host.uri, "tight", tmp_path)
    driver.ensure_pool()
    driver.ensure_blank("source", 64 * MIB)
    Disks(private_host, tmp_path).do("qemu-io -f qcow2 -c 'write -P 7 0 5M' /var/lib/libvirt/small/source")
    with pytest.raises(FailedError, match="no room"):
        driver.ensure_copy("copy", "source")
    assert [volume.name for volume in driver.list_volumes()] == ["source"]
    driver.ensure_volume_gone("source")
    driver.close()


def test_another_s_block_job_is_not_ended(
    hypervisor: Hypervisor, counting: DomainPlan, private_host: PrivateHost, name: str
) -> None:
    target = f"/var/lib/libvirt/images/{name}"
    copy = ["blockcopy", counting.name, "vda", target, "--transient-job", "--shallow", "--format", "qcow2"]
    private_host.virsh(*copy)
    with pytest.raises(ConflictError, match="by somebody else"):
        hypervisor.ensure_copy(name, root_of(counting))
    assert target in private_host.virsh("dumpxml", counting.name)
    assert hypervisor.list_volumes(name) == []
    private_host.virsh("blockjob", counting.name, "vda", "--abort")


def test_a_copy_is_made_over_ssh(
    remote: str, hypervisor: Hypervisor, disks: Disks, resting: DomainPlan, tmp_path: Path, name: str
) -> None:
    driver = open_hypervisor(remote, "kc", tmp_path)
    assert driver.ensure_copy(name, root_of(resting)).whole
    driver.close()
    assert disks.read(name) == disks.read(root_of(resting))
