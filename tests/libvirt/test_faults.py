"""Daemons that stop, die and come back; QEMUs that hang; connections that break in the middle."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import PrivateHost, wait_until
from support.boot_sector import SIZE, make_disk

from backend.errors import KCError, TimedOutError, UnreachableError
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DiskPlan, DomainPlan
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt


def make_domain(hypervisor: Hypervisor, name: str, disk: bytes | None = None) -> DomainPlan:
    uid = str(uuid.uuid4())
    hypervisor.upload(f"kc-{uid}-root", io.BytesIO(disk or make_disk()), SIZE)
    plan = DomainPlan(
        uid=uid, name=name, version=1, owner="owner", owner_label="tests", metadata="{}", arch="x86_64", cpus=1,
        memory_mib=32, firmware="bios", accelerator="qemu", disks=(DiskPlan("root", f"kc-{uid}-root", "raw"),), nics=(),
        seed="", console_log=f"kc-{uid}-console.log",
    )  # fmt: skip
    hypervisor.ensure_defined(plan)
    return plan


@pytest.fixture
def domain(hypervisor: Hypervisor) -> Iterator[DomainPlan]:
    plan = make_domain(hypervisor, f"guest-{uuid.uuid4().hex[:6]}")
    yield plan
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    hypervisor.ensure_undefined(plan.uid, plan.owner)
    for volume in hypervisor.list_volumes(f"kc-{plan.uid}"):
        hypervisor.ensure_volume_gone(volume.name)


@pytest.fixture
def frozen(private_host: PrivateHost) -> Iterator[Callable[[], None]]:
    """Stops libvirtd when called; it goes on after the test."""
    yield lambda: private_host.tell("signal libvirtd STOP")
    private_host.tell("signal libvirtd CONT")


def seconds_of(function: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        function()
    assert caught.value.hint
    return time.monotonic() - began


def kc_threads() -> int:
    return sum(thread.name.startswith("kc-libvirt") for thread in threading.enumerate())


def test_a_frozen_daemon_is_unreachable_in_bounded_time_and_forgiven(
    hypervisor: Hypervisor, domain: DomainPlan, frozen: Callable[[], None], private_host: PrivateHost
) -> None:
    hypervisor.ensure_running(domain.uid)
    frozen()
    assert seconds_of(hypervisor.inventory) < 8
    assert seconds_of(lambda: hypervisor.reboot(domain.uid, force=True)) < 13
    private_host.tell("signal libvirtd CONT")
    wait_until(lambda: answers(hypervisor), "the driver recovers by itself", 15)
    assert [found.power for found in hypervisor.inventory() if found.uid == domain.uid] == ["running"]


def answers(hypervisor: Hypervisor) -> bool:
    try:
        hypervisor.inventory()
        hypervisor.ensure_pool()
    except KCError:
        return False
    return True


def test_many_calls_to_a_frozen_daemon_cost_few_threads(
    private_host: PrivateHost, tmp_path: Path, frozen: Callable[[], None]
) -> None:
    driver = open_hypervisor(private_host.uri, "kc", tmp_path)
    driver.inventory()
    frozen()
    before = kc_threads()
    errors: list[KCError] = []

    def ask() -> None:
        for _ in range(2):
            try:
                driver.inventory()
            except KCError as error:
                errors.append(error)

    callers = [threading.Thread(target=ask) for _ in range(12)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(40)
    assert time.monotonic() - began < 25
    assert len(errors) == 24
    assert kc_threads() - before <= 19
    private_host.tell("signal libvirtd CONT")
    wait_until(lambda: answers(driver), "the driver recovers by itself", 15)
    wait_until(lambda: kc_threads() - before <= 6, "the threads that hung have ended", 15)
    driver.close()


def test_a_daemon_that_is_frozen_from_the_start_is_unreachable(
    private_host: PrivateHost, tmp_path: Path, frozen: Callable[[], None]
) -> None:
    frozen()
    driver = open_hypervisor(private_host.uri, "kc", tmp_path)
    assert seconds_of(driver.inventory) < 8
    hints: list[tuple[str, str]] = []
    began = time.monotonic()
    driver.subscribe(lambda *hint: hints.append(hint))
    assert time.monotonic() - began < 5
    assert ("connection", "lost") in hints
    private_host.tell("signal libvirtd CONT")
    wait_until(lambda: ("connection", "back") in hints, "the subscriber hears that it is back", 30)
    driver.close()


def test_a_daemon_that_died_is_unreachable_at_once_and_found_again(
    hypervisor: Hypervisor, domain: DomainPlan, private_host: PrivateHost
) -> None:
    hypervisor.ensure_running(domain.uid)
    private_host.tell("signal libvirtd KILL")
    try:
        assert seconds_of(hypervisor.inventory) < 2
        assert seconds_of(hypervisor.ensure_pool) < 2
    finally:
        private_host.tell("start libvirtd")
        private_host.wait_for_daemon()
    # Its QEMU has lived on, and no handle of the old connection is in anybody's way.
    assert hypervisor.ensure_stopped(domain.uid, grace_seconds=10, force=False)


def test_a_daemon_that_was_restarted_between_two_calls_is_not_noticed(
    hypervisor: Hypervisor, domain: DomainPlan, private_host: PrivateHost
) -> None:
    hypervisor.inventory()
    hypervisor.ensure_running(domain.uid)
    private_host.tell("signal libvirtd KILL")
    private_host.tell("start libvirtd")
    private_host.wait_for_daemon()
    assert domain.uid in [found.uid for found in hypervisor.inventory()]
    hypervisor.ensure_running(domain.uid)


def test_subscribers_hear_of_loss_and_return_and_then_of_everything_again(
    hypervisor: Hypervisor, domain: DomainPlan, private_host: PrivateHost
) -> None:
    hints: list[tuple[str, str]] = []
    unsubscribe = hypervisor.subscribe(lambda *hint: hints.append(hint))
    hypervisor.ensure_running(domain.uid)
    wait_until(lambda: ("domain", domain.uid) in hints, "a start is heard of")
    private_host.tell("signal libvirtd KILL")
    wait_until(lambda: ("connection", "lost") in hints, "the loss is heard of")
    private_host.tell("start libvirtd")
    private_host.wait_for_daemon()
    wait_until(lambda: ("connection", "back") in hints, "the return is heard of", 20)
    hints.clear()
    private_host.virsh("suspend", domain.name)
    wait_until(lambda: ("domain", domain.uid) in hints, "events come again")
    private_host.virsh("resume", domain.name)
    wait_until(lambda: hints.count(("domain", domain.uid)) >= 2, "each event comes")
    assert hints.count(("domain", domain.uid)) <= 4  # and not once for each connection that there ever was
    unsubscribe()
    hints.clear()
    private_host.virsh("suspend", domain.name)
    time.sleep(0.3)
    assert hints == []


def test_a_qemu_that_hangs_stops_nobody_else(
    hypervisor: Hypervisor, domain: DomainPlan, private_host: PrivateHost
) -> None:
    other = make_domain(hypervisor, f"other-{uuid.uuid4().hex[:6]}")
    hypervisor.ensure_running(domain.uid)
    hypervisor.ensure_running(other.uid)
    private_host.tell(f"qemu {domain.name} STOP")
    began = time.monotonic()
    samples = {sample.uid: sample for sample in hypervisor.samples()}
    assert time.monotonic() - began < 8
    assert samples[other.uid].cpu_time_ns > 0
    began = time.monotonic()
    samples = {sample.uid: sample for sample in hypervisor.samples()}
    assert time.monotonic() - began < 2  # the one that hangs is known by now
    assert samples[domain.uid].power == "running"
    with pytest.raises(TimedOutError):
        hypervisor.reboot(domain.uid, force=True)
    began = time.monotonic()
    assert {found.uid for found in hypervisor.inventory()} >= {domain.uid, other.uid}
    assert hypervisor.ensure_stopped(other.uid, grace_seconds=5, force=False)
    assert time.monotonic() - began < 6
    assert hypervisor.ensure_stopped(domain.uid, grace_seconds=0, force=True)
    hypervisor.ensure_undefined(other.uid, other.owner)


SCRIPT = """
import sys
from pathlib import Path
from backend.hypervisor.host import open_hypervisor
driver = open_hypervisor(sys.argv[1], "kc", Path(sys.argv[2]))
driver.inventory()
driver.list_networks()
driver.subscribe(lambda kind, uid: None)
driver.ensure_pool()
print("open", flush=True)
sys.stdin.readline()
"""


def test_a_process_ends_at_once_although_the_daemon_is_frozen(
    private_host: PrivateHost, tmp_path: Path, frozen: Callable[[], None]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, private_host.uri, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    frozen()
    began = time.monotonic()
    _, errors = process.communicate("\n", timeout=10)
    assert time.monotonic() - began < 2
    assert (process.returncode, errors) == (0, "")


def test_closing_does_not_wait_for_a_frozen_daemon(
    private_host: PrivateHost, tmp_path: Path, frozen: Callable[[], None]
) -> None:
    driver = open_hypervisor(private_host.uri, "kc", tmp_path)
    driver.inventory()
    driver.ensure_pool()
    frozen()
    began = time.monotonic()
    driver.close()
    assert time.monotonic() - began < 5


def test_a_console_ends_with_its_daemon_and_closes_without_it(
    hypervisor: Hypervisor, domain: DomainPlan, private_host: PrivateHost
) -> None:
    hypervisor.ensure_running(domain.uid)
    console = hypervisor.console(domain.uid)
    frozen_console = hypervisor.console(domain.uid)
    wait_until(lambda: console.read(1) == b"", "the first reader loses the console to the second")
    console.close()
    private_host.tell("signal libvirtd STOP")
    try:
        began = time.monotonic()
        frozen_console.close()
        assert time.monotonic() - began < 5
        assert frozen_console.read(0) == b""
    finally:
        private_host.tell("signal libvirtd CONT")
    wait_until(lambda: answers(hypervisor), "the driver recovers by itself", 15)
    console = hypervisor.console(domain.uid)
    private_host.tell("signal libvirtd KILL")
    try:
        wait_until(lambda: console.read(1) == b"", "the console ends with the daemon")
    finally:
        private_host.tell("start libvirtd")
        private_host.wait_for_daemon()
    console.close()
