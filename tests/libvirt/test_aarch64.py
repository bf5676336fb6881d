"""A guest of another architecture, emulated, comes as far as its firmware's console, which KC shows."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hosts import PrivateHost
from support.boot_sector import SIZE

from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.protocol import Hypervisor
from backend.service import ConsoleStream

pytestmark = pytest.mark.libvirt

FIRMWARE_SECONDS = 120.0


def read_until(console: ConsoleStream, words: bytes) -> bytes:
    said = b""
    ends = time.monotonic() + FIRMWARE_SECONDS
    while words not in said:
        left = ends - time.monotonic()
        assert left > 0, f"never said {words!r}, but {said!r}"
        data = console.read(min(left, 1.0))
        assert data != b"", f"the console ended after {said!r}"
        said += data or b""
    return said


def test_an_aarch64_guest_reaches_its_firmwares_console(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan]
) -> None:
    if "aarch64" not in hypervisor.facts().guest_archs:
        pytest.skip("no QEMU for aarch64 here")
    plan = make(disk=bytes(SIZE), arch="aarch64", firmware="uefi", memory_mib=256, cpus=2, max_cpus=4, cdrom="")
    assert hypervisor.accelerator("aarch64") == "qemu"
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    console = hypervisor.console(plan.uid)
    try:
        # Nothing on the blank disk starts it; the firmware goes through what it may start from, the disk first.
        # Its very first words may have come before there was a reader.
        assert b"Boot0001" in read_until(console, b"BdsDxe: starting")
    finally:
        console.close()
    assert "cortex-a57" in private_host.virsh("dumpxml", plan.name)
    assert hypervisor.differences(plan) == ()
