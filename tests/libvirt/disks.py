"""What is on a private host's volumes, by QEMU's own tools."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from hosts import PrivateHost
from support.writing_guest import read_counts

from backend.hypervisor.plan import DomainPlan

POOL = "/var/lib/libvirt/images/kc"


class Disks:
    """The volumes of the pool `kc` of a private host."""

    def __init__(self, host: PrivateHost, folder: Path) -> None:
        self._host = host
        self._folder = folder

    def do(self, script: str) -> None:
        """Run a shell script in the pool's folder."""
        file = self._folder / f"script-{uuid.uuid4().hex}"
        file.write_text(f"set -e\ncd {POOL}\n{script}\n")
        self._host.run("sh", str(file))

    def info(self, name: str) -> dict[str, Any]:
        """Return what `qemu-img info` tells of a volume."""
        file = self._folder / f"info-{uuid.uuid4().hex}"
        self.do(f"qemu-img info -U --output json {name} > {file}")
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def write(self, name: str, pattern: int, offset: str = "1M", length: str = "128k", form: str = "qcow2") -> None:
        """Fill a part of a volume that nobody has open."""
        self.do(f"qemu-io -f {form} -c 'write -P {pattern} {offset} {length}' {name}")

    def read(self, name: str, form: str = "qcow2") -> bytes:
        """Return what a guest would see of a volume."""
        file = self._folder / f"disk-{uuid.uuid4().hex}"
        self.do(f"qemu-img convert -U -f {form} -O raw {name} {file}")
        return file.read_bytes()

    def counts(self, name: str) -> tuple[int, int]:
        """Return the numbers that a counting guest has written."""
        return read_counts(self.read(name))

    def domains(self) -> list[str]:
        """Return the names of the host's domains."""
        return self._host.virsh("list", "--all", "--name").split()


def root_of(plan: DomainPlan) -> str:
    """Return the name of a plan's first volume."""
    return plan.disks[0].volume
