"""A hypervisor to hold to the protocol, real or in memory, and what a test does to it behind its back."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.memory import MemoryHypervisor
from backend.hypervisor.memory_guest import MemoryDomain
from backend.hypervisor.plan import (
    DiskPlan,
    DomainOwner,
    DomainPlan,
    FoundDomain,
    FoundNic,
)
from backend.hypervisor.protocol import Hypervisor
from backend.hypervisor.xml import NAMESPACE
from backend.model.samples import Sample
from backend.network.plan import NetworkPlan
from backend.service import ConsoleStream
from support.boot_sector import SIZE, make_disk
from support.network_sides import serve

GREETING = b"KC test guest is up\r\n"
URI = os.environ.get("KC_LIBVIRT_URI", "qemu:///system")
MIB = 1 << 20


@dataclass
class Rig:
    """A hypervisor, names that nobody else has, and guests of 512 bytes."""

    hypervisor: Hypervisor
    prefix: str
    subnet: str

    def disk(self, content: bytes = b"") -> str:
        """Upload a bootable disk and return its volume."""
        name = f"kc-{uuid.uuid4()}-root"
        data = content or make_disk(GREETING)
        self.hypervisor.upload(name, io.BytesIO(data), len(data))
        return name

    def plan(self, name: str = "vm", **changes: Any) -> DomainPlan:
        """Return the plan of a small domain, with a disk that is there."""
        uid = str(uuid.uuid4())
        plan = DomainPlan(
            uid=uid, name=f"{self.prefix}-{name}", version=3, owner="owner-1", owner_label="kraut@host:/store",
            metadata='{"tenant":"acme & söhne","note":"<b>]]>\\u0007"}', arch="x86_64", cpus=1, memory_mib=32,
            firmware="bios", accelerator="qemu", disks=(), nics=(), seed="", console_log=f"kc-{uid}-console.log",
        )  # fmt: skip
        if "disks" not in changes:
            changes["disks"] = (DiskPlan("root", self.disk(), "raw"),)
        return plan._replace(**changes)

    def defined(self, name: str = "vm", **changes: Any) -> DomainPlan:
        """Define a small domain."""
        plan = self.plan(name, **changes)
        self.hypervisor.ensure_defined(plan)
        return plan

    def running(self, name: str = "vm", **changes: Any) -> DomainPlan:
        """Define a small domain, start it, and wait until its guest is up."""
        plan = self.defined(name, **changes)
        self.hypervisor.ensure_running(plan.uid)
        self.wait(lambda: GREETING in self.hypervisor.read_log(plan.console_log, 4096), "the guest is up")
        return plan

    def deaf(self, **changes: Any) -> DomainPlan:
        """Start a domain whose guest hears no power button."""
        if isinstance(self.hypervisor, MemoryHypervisor):
            self.hypervisor.boots = False
        plan = self.defined("deaf", disks=(DiskPlan("root", self.disk(b"\0" * SIZE), "raw"),), **changes)
        self.hypervisor.ensure_running(plan.uid)
        return plan

    def blank(self, capacity_bytes: int = 8 * MIB, uid: str = "") -> str:
        """Make an empty qcow2 volume and return it."""
        name = f"kc-{uid or uuid.uuid4()}-data"
        self.hypervisor.ensure_blank(name, capacity_bytes)
        return name

    def overlay(self, capacity_bytes: int = 8 * MIB, uid: str = "") -> DiskPlan:
        """Make a bootable qcow2 disk over a raw one."""
        base, name = self.disk(), f"kc-{uid or uuid.uuid4()}-root"
        self.hypervisor.ensure_overlay(name, base=base, base_format="raw", capacity_bytes=capacity_bytes)
        return DiskPlan("root", name, "qcow2", base, "raw")

    def write(self, volume: str, byte: int) -> None:
        """Write a block of a volume that is not in use, as a guest would."""
        if isinstance(self.hypervisor, MemoryHypervisor):
            self.hypervisor.volumes[volume] = (self.hypervisor.volumes[volume][0], bytes([byte]))
        else:
            self._qemu_io(volume, f"write -P {byte} 1M 64k")

    def holds(self, volume: str, byte: int) -> bool:
        """Return whether a volume that is not in use holds what was written."""
        if isinstance(self.hypervisor, MemoryHypervisor):
            return self.hypervisor.volumes[volume][1] == bytes([byte])
        return "verification failed" not in self._qemu_io(volume, f"read -P {byte} 1M 64k")

    def _qemu_io(self, volume: str, command: str) -> str:
        found = self.hypervisor.find_volume(volume)
        assert found is not None
        done = subprocess.run(
            ["qemu-io", "-f", found.format, "-c", command, found.path],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "64 KiB" in done.stdout, done
        return done.stdout

    def foreign(self, nics: tuple[FoundNic, ...] = ()) -> str:
        """Have a domain that no KC made, with a disk, two CPUs, a sound card and NICs; return its uid."""
        uid, name, disk = str(uuid.uuid4()), f"{self.prefix}-foreign", self.disk()
        volume = self.hypervisor.find_volume(disk)
        assert volume is not None
        if isinstance(self.hypervisor, MemoryHypervisor):
            found = FoundDomain(
                uid, name, DomainOwner(), "stopped", "x86_64", "bios", 2, 64, "theirs", autostart=False, nics=nics,
                disks=(volume.path,), untouched=("sound card ich9",),
            )  # fmt: skip
            self.hypervisor.domains[uid] = MemoryDomain(uid, name, None, found=found)
        else:
            virsh_with(_foreign_xml(uid, name, volume.path, nics), "define")
        return uid

    def meddle(self, plan: DomainPlan, word: str) -> None:
        """Change what a domain is defined as behind the hypervisor's back."""
        if isinstance(self.hypervisor, MemoryHypervisor):
            fields: dict[str, dict[str, Any]] = {
                "cpus": {"cpus": 1}, "memory": {"memory_mib": 24},
                "description": {"description": "theirs"}, "autostart": {"autostart": True},
                "nic": {"nics": plan.nics[1:]}, "disk": {"disks": plan.disks[:1]}, "on-crash": {"on_crash": "preserve"},
                "cdrom": {"cdrom": ""}, "owner": {"owner": "", "owner_label": ""},
            }  # fmt: skip
            self.hypervisor.tamper(plan.uid, **fields[word])
        elif word == "on-crash":
            xml = virsh("dumpxml", "--inactive", plan.uid)
            assert "<on_crash>restart<" in xml
            virsh_with(xml.replace("<on_crash>restart<", "<on_crash>preserve<"), "define")
        else:
            for command in self._commands(plan, word):
                virsh(*command, check=True)

    def _commands(self, plan: DomainPlan, word: str) -> list[list[str]]:
        target = {
            words[3]: words[2] for line in virsh("domblklist", "--inactive", "--details", plan.uid).splitlines()
            if len(words := line.split()) > 3
        }  # fmt: skip
        named = {path.rpartition("/")[2]: place for path, place in target.items()}
        return {
            "cpus": [["setvcpus", plan.uid, "1", "--config"]],
            "memory": [["setmem", plan.uid, "24M", "--config"]],
            "description": [["desc", plan.uid, "--config", "theirs"]],
            "autostart": [["autostart", plan.uid]],
            "nic": [["detach-interface", plan.uid, "network", "--mac", nic.mac, "--config"] for nic in plan.nics[:1]],
            "disk": [["detach-disk", plan.uid, named[disk.volume], "--config"] for disk in plan.disks[1:]],
            "cdrom": [["change-media", plan.uid, named[plan.cdrom], "--eject", "--config"]] if plan.cdrom else [],
            "owner": [["metadata", plan.uid, "--uri", NAMESPACE, "--remove", "--config"]],
        }[word]

    def sample(self, plan: DomainPlan) -> Sample:
        """Return a domain's counters."""
        return next(sample for sample in self.hypervisor.samples() if sample.uid == plan.uid)

    def network(self, name: str = "net", **changes: Any) -> NetworkPlan:
        """Return the plan of an isolated network with DHCP."""
        plan = NetworkPlan(f"{self.prefix}-{name}", str(uuid.uuid4()), "isolated", ipv4=serve(self.subnet))
        return plan._replace(**changes)

    def power(self, plan: DomainPlan) -> str:
        """Return a domain's state; empty for one that is not there."""
        observed = self.hypervisor.observe(plan.uid)
        return observed.power if observed is not None else ""

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        """Wait until a condition holds."""
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, f"never came true: {what}"
            time.sleep(0.05)


def read_until(console: ConsoleStream, words: bytes, seconds: float = 10) -> bytes:
    said = b""
    ends = time.monotonic() + seconds
    while words not in said:
        data = console.read(0.5)
        assert data != b"", f"ended after {said!r}"
        assert time.monotonic() < ends, f"only {said!r}"
        said += data or b""
    return said


def virsh(*arguments: str, check: bool = False) -> str:
    return subprocess.run(
        ["virsh", "-q", "-c", URI, *arguments], capture_output=True, text=True, timeout=60, check=check
    ).stdout  # fmt: skip


def virsh_with(xml: str, *arguments: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(xml)
        file.flush()
        virsh(*arguments, file.name, check=True)


def _foreign_xml(uid: str, name: str, disk: str, nics: tuple[FoundNic, ...]) -> str:
    interfaces = "".join(
        f"<interface type='{nic.kind}'><mac address='{nic.mac}'/><source {nic.kind}='{nic.source}'/>"
        f"<model type='{nic.model}'/></interface>"
        for nic in nics
    )
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{uid}</uuid><description>theirs</description>"
        "<memory unit='MiB'>64</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>"
        f"<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{escape(disk)}'/>"
        f"<target dev='vda' bus='virtio'/></disk>{interfaces}<sound model='ich9'/></devices></domain>"
    )


def clear(rig: Rig, pool: str) -> None:
    """Remove everything that a test made on a real host, through virsh alone."""
    rig.hypervisor.close()
    for name in [line for line in virsh("list", "--all", "--name").split() if line.startswith(rig.prefix)]:
        virsh("destroy", name)
        virsh("undefine", name, "--nvram", "--managed-save", "--snapshots-metadata")
    for name in [line for line in virsh("net-list", "--all", "--name").split() if line.startswith(rig.prefix)]:
        virsh("net-destroy", name)
        virsh("net-undefine", name)
    virsh("pool-refresh", pool)
    for line in virsh("vol-list", pool).splitlines():
        virsh("vol-delete", "--pool", pool, line.split()[0])
    virsh("pool-destroy", pool)
    virsh("pool-delete", pool)
    virsh("pool-undefine", pool)


@contextmanager
def open_rig(kind: str, folder: Path) -> Iterator[Rig]:
    """Make a rig, `memory` or `libvirt`, and leave nothing of it."""
    prefix = f"kct-{uuid.uuid4().hex[:8]}"
    subnet = f"10.{random.randrange(200, 250)}.{random.randrange(256)}.0/24"
    if kind == "memory":
        hypervisor = MemoryHypervisor()
        hypervisor.boot_text = GREETING
        yield Rig(hypervisor, prefix, subnet)
        return
    made = Rig(open_hypervisor(URI, prefix, folder), prefix, subnet)
    try:
        made.hypervisor.ensure_pool()
        yield made
    finally:
        clear(made, prefix)
