"""A lab to look at: VMs in every state, an operation half-way, images, networks; the same in every run.

Documents go straight into the store, with times and uids of their own choice; the host is in memory.
"""

from __future__ import annotations

import copy
import importlib
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.errors import UnreachableError
from backend.hypervisor.memory import MemoryDomain, MemoryHypervisor, fail_with
from backend.hypervisor.plan import Address, Volume
from backend.local import LocalService
from backend.local.creation import prepare
from backend.model.changes import remove_path, set_path
from backend.model.documents import Document, format_time, parse_time
from backend.model.kinds import OPERATION, VM, find_kind
from backend.model.samples import Sample
from backend.operations import journal
from backend.operations.domain_plan import plan_domain
from backend.operations.guards import ensure_guards
from support.memory_kc import furnish, make_service

NOW = 1_767_366_245.0
"""2026-01-02 15:04:05 UTC: the clock of the lab."""
_SPACE = uuid.UUID("6b632d6c-6162-4d65-8000-6b632d746573")
HARDWARE = {
    "tiny": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2, "arch": "x86_64", "firmware": "bios"},
    "small": {"cpus": 1, "memoryMiB": 2048, "diskGiB": 10, "arch": "x86_64", "firmware": "bios"},
    "medium": {"cpus": 2, "memoryMiB": 4096, "diskGiB": 20, "arch": "x86_64", "firmware": "bios"},
    "large": {"cpus": 4, "memoryMiB": 8192, "diskGiB": 40, "arch": "x86_64", "firmware": "bios"},
}


class _Clock:
    """The `time` module of one that stands still."""

    def __init__(self, at: float) -> None:
        self._at = at

    def time(self) -> float:
        return self._at

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def standing_at(at: float) -> Iterator[None]:
    """Let what the backend writes be written at a moment (Unix seconds); leases and waits go on with the real time."""
    importlib.import_module("backend.local.deleting")  # it is imported when something is deleted
    modules: list[Any] = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("backend.store.", "backend.local.", "backend.model.")) and hasattr(module, "time")
    ]
    before = [module.time for module in modules]
    for module in modules:
        module.time = _Clock(at)
    try:
        yield
    finally:
        for module, clock in zip(modules, before, strict=True):
            module.time = clock


def uid_of(name: str) -> str:
    """Return the uid of the thing of that name."""
    return str(uuid.uuid5(_SPACE, name))


class Lab:
    """A service on a store in `home` with a host in memory, and what a test puts into it."""

    def __init__(self, home: Path, *, furnished: bool = True) -> None:
        self.home = home
        self.host = MemoryHypervisor()
        # What is written at the lab's own time is old by the runner's clock, and is to stay all the same.
        config = home / "config" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("[operations]\nkeepDays = 0\n")
        self.host.fail = fail_with(UnreachableError("host", "its figures are the test's own"), "samples")
        self.service: LocalService = make_service(home, self.host)
        if furnished:
            furnish(self.service)
            self._forget_operations()

    def _forget_operations(self) -> None:
        store = self.service.store
        with store.transaction() as transaction:
            for operation in store.list_documents(OPERATION.name).items:
                transaction.delete(OPERATION.name, operation["uid"])

    def put(self, body: Document, status: Document | None = None) -> Document:
        """Write a document as it is."""
        with standing_at(parse_time(body["createdAt"])), self.service.store.transaction() as transaction:
            written = transaction.put(body, expect=0)
            if status is not None:
                transaction.put_status(body["kind"], body["uid"], status)
        return written

    def add(self, kind: str, name: str, spec: Document, metadata: Document | None = None) -> Document:
        """Add any document that no operation has to make."""
        body = prepare(self.service.store, {"kind": kind, "name": name, "spec": spec, "metadata": metadata or {}})
        return self.put(body | {"uid": uid_of(f"{kind}/{name}")} | _times(NOW - 86_400))

    def add_vm(self, name: str, power: str = "running", **more: Any) -> Document:
        """Add a VM that is as it is; `address`, `type`, `metadata`, `image`, `age` (seconds) where they matter."""
        machine_type = more.get("type", "small")
        document = {
            "kind": VM.name,
            "name": name,
            "metadata": more.get("metadata", {}),
            "spec": {
                "image": more.get("image", "starter"),
                "type": machine_type,
                "nics": [{"network": network} for network in more.get("networks", ("default",))],
                "power": more.get("wanted", power if power in ("running", "paused") else "stopped"),
            },
        }
        uid = uid_of(name)
        body = prepare(self.service.store, document) | {"uid": uid} | _times(NOW - more.get("age", 200_000))
        for index, nic in enumerate(body["spec"]["nics"]):
            nic["mac"] = f"52:54:{uid[0:2]}:{uid[2:4]}:{uid[4:6]}:0{index}"
        status = {"power": power, "hardware": HARDWARE[machine_type], "accelerator": "kvm"}
        written = self.put(body, status)
        if power != "absent":
            self._add_domain(body, power, more.get("address", ""))
        return written

    def _add_domain(self, body: Document, power: str, address: str) -> None:
        nics = body["spec"]["nics"]
        plan = plan_domain(self.service.store, body | {"version": 1}, owner_label="lab", accelerator="kvm")
        for disk in plan.disks:
            self._add_volume(disk.volume, disk.format, disk.capacity_bytes, disk.capacity_bytes // 8)
            self._add_volume(disk.base_volume, disk.base_format, disk.capacity_bytes, 180_000_000)
        self._add_volume(plan.seed, "raw", 1 << 20, 1 << 20)
        domain = MemoryDomain(body["uid"], body["name"], plan, power, agent=power == "running")
        if address and power == "running":
            family, prefix = ("ipv6", 64) if ":" in address else ("ipv4", 24)
            domain.addresses = [Address(address, prefix, family, nics[0]["mac"], "lease")]
        self.host.domains[body["uid"]] = domain
        ensure_guards(self.service.store, self.host, body)

    def _add_volume(self, name: str, kind: str, capacity: int, used: int) -> None:
        self.host.volumes.setdefault(name, (Volume(name, f"/memory/{name}", kind, capacity, used), b""))

    def change(self, document: Document, ago: float, by: str = "root", message: str = "", **values: Any) -> Document:
        """Write another version of a document, `ago` seconds before the lab's now; `spec__power="stopped"` sets a path.

        A value of None takes away what is at its path.
        """
        body = copy.deepcopy({key: value for key, value in document.items() if key not in ("status", "message")})
        for name, value in values.items():
            path = tuple(name.split("__"))
            if value is None:
                remove_path(body, path)
            else:
                set_path(body, path, value)
        body |= {"updatedAt": format_time(NOW - ago), "updatedBy": by} | ({"message": message} if message else {})
        with standing_at(NOW - ago), self.service.store.transaction() as transaction:
            return transaction.put(body, expect=document["version"])

    def throw_away(
        self, document: Document, ago: float, by: str = "root", hours: float = 24.0, message: str = ""
    ) -> None:
        """Put an object into the trash, `ago` seconds before the lab's now."""
        live = self.service.store.get(document["kind"], document["uid"])
        assert live is not None
        uid = uid_of(f"trash/{document['name']}")
        spec = {
            "target": {key: live[key] for key in ("kind", "name", "uid", "version")},
            "document": {key: value for key, value in live.items() if key != "status"},
            "until": format_time(NOW - ago + hours * 3600),
        }
        name = f"{find_kind(live['kind']).command}-{live['name']}-{uid[:4]}"
        entry = {"apiVersion": "kc/v1", "kind": "Trash", "name": name, "uid": uid, "metadata": live["metadata"]}
        with standing_at(NOW - ago), self.service.store.transaction() as transaction:
            transaction.put(entry | {"spec": spec} | _times(NOW - ago) | {"updatedBy": by}, expect=0)
            transaction.delete(live["kind"], live["uid"], by=by, message=message)
        self.host.domains.pop(document["uid"], None)

    def add_foreign(self, name: str, power: str = "running") -> None:
        """Add a domain that no KC made."""
        self.host.domains[uid_of(name)] = MemoryDomain(uid_of(name), name, None, power)

    def add_operation(self, target: Document, operation_type: str, status: Document, age: float = 5.0) -> Document:
        """Add an operation as it is; one that has not ended is held by a process that lives."""
        operation = journal.new_operation(operation_type, target, {}, "root")
        uid = uid_of(f"{operation_type}/{target['name']}/{age}")
        operation |= {"uid": uid, "name": f"op-{uid.replace('-', '')[:10]}"} | _times(NOW - age)
        whole = {"percent": 0, "steps": [], "queuedAt": format_time(NOW - age)} | status
        written = self.put(operation, whole)
        if whole["state"] not in journal.ENDED:
            claim = journal.Owner().claim(1) | {"target": target["uid"], "expiresAt": NOW * 2}
            with self.service.store.transaction() as transaction:
                transaction.put_lease(uid, claim)
        return written


def _times(at: float) -> dict[str, str]:
    return {"createdAt": format_time(at), "updatedAt": format_time(at), "updatedBy": "root"}


def make_steps(titles: Iterable[str], done: int, started: float, *, failed: bool = False) -> list[Document]:
    """Return a journal's steps of which `done` are done, the next one running or failed."""
    steps = []
    for index, title in enumerate(titles):
        step: Document = {"id": title.rpartition(" ")[2], "title": title, "state": "pending"}
        if index < done:
            step |= {"state": "done", "endedAt": format_time(started + 0.4 * index + 0.3)}
        elif index == done:
            step["state"] = "failed" if failed else "running"
        if index <= done:
            step |= {"startedAt": format_time(started + 0.4 * index), "attempt": 1}
        steps.append(step)
    return steps


CREATE = (
    "bringing the networks up",
    "finding the image",
    "making the disk",
    "writing the cloud-init seed",
    "defining the domain",
    "starting the domain",
)


def make_samples(loads: dict[str, tuple[float, ...]], memory: dict[str, float]) -> list[list[Sample]]:
    """Return bulk samples, one after another, that give the VMs these loads (1.0 is all CPUs) and memories (GiB)."""
    length = max(map(len, loads.values()))
    used = dict.fromkeys(loads, 0.0)
    samples = []
    for tick in range(length + 1):
        batch = []
        for name, shares in loads.items():
            if tick:
                used[name] += shares[min(tick - 1, len(shares) - 1)] * 2.0
            batch.append(
                Sample(
                    uid_of(name), 100.0 + 2.0 * tick, "running", cpus=1, cpu_time_ns=int(used[name] * 1e9),
                    memory_used_bytes=int(memory.get(name, 0.3) * (1 << 30)),
                    disk_read_bytes=int(used[name] * 3e6), disk_written_bytes=int(tick * 7e5 + used[name] * 1e6),
                    received_bytes=int(used[name] ** 2 * 4e5), sent_bytes=tick * 90_000,
                )
            )  # fmt: skip
        samples.append(batch)
    return samples
