"""The volumes of the hypervisor in memory: their bytes, what lies below them, and who uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.hypervisor.memory_guest import FOLDER
from backend.hypervisor.memory_networks import MemoryNetworks
from backend.hypervisor.plan import DomainPlan, Volume

CHUNK_BYTES = 1 << 20
OVERLAY_BYTES = 196_608
# A copy tells of its progress this often, however small it is.
COPY_STEPS = 4


class MemoryVolumes(MemoryNetworks):
    """The host's pool; `volumes` (what is seen of one, and its bytes) may be changed from outside."""

    def __init__(self, capacity_bytes: int) -> None:
        super().__init__()
        self.volumes: dict[str, tuple[Volume, bytes]] = {}
        self.capacity_bytes = capacity_bytes
        self._bases: dict[str, str] = {}

    def ensure_pool(self) -> None:
        """Do nothing: there is one pool."""
        self._enter("ensure_pool")

    def free_bytes(self) -> int:
        """Return what is left of the capacity."""
        self._enter("free_bytes")
        return self._free()

    def _free(self) -> int:
        return self.capacity_bytes - sum(len(data) for _, data in self.volumes.values())

    def find_volume(self, name: str) -> Volume | None:
        """Return one volume, or None."""
        self._enter("find_volume")
        found = self.volumes.get(name)
        return found[0] if found is not None and found[0].whole else None

    def list_volumes(self, prefix: str = "") -> list[Volume]:
        """Return the volumes whose names begin with `prefix`."""
        self._enter("list_volumes")
        with self._guard:
            return [volume for name, (volume, _) in sorted(self.volumes.items()) if name.startswith(prefix)]

    def ensure_overlay(self, name: str, *, base: str, base_format: str, capacity_bytes: int) -> Volume:
        """Make a volume over another."""
        self._enter("ensure_overlay")
        with self._guard:
            if name not in self.volumes:
                if base not in self.volumes:
                    raise NotFoundError(f"volume {base}", "it is not in the pool", "upload the image again")
                if base_format == "raw" and capacity_bytes < self.volumes[base][0].capacity_bytes:
                    raise RefusedError(f"volume {name}", "the disk is smaller than its image", "give it more room")
                self._keep(name, b"", capacity_bytes, OVERLAY_BYTES)
                self._bases[name] = base
            return self._existing(name)

    def ensure_blank(self, name: str, capacity_bytes: int) -> Volume:
        """Make an empty volume."""
        self._enter("ensure_blank")
        with self._guard:
            if name not in self.volumes:
                self._keep(name, b"", capacity_bytes, OVERLAY_BYTES)
            return self._existing(name)

    def _existing(self, name: str) -> Volume:
        volume = self.volumes[name][0]
        if not volume.whole:
            raise ConflictError(f"volume {name}", "it is being written", "wait; or restore or copy it again")
        return volume

    def _keep(self, name: str, data: bytes, capacity_bytes: int, allocation_bytes: int, kind: str = "qcow2") -> Volume:
        volume = Volume(name, f"{FOLDER}{name}", kind, capacity_bytes, allocation_bytes)
        self.volumes[name] = (volume, data)
        return volume

    def ensure_capacity(self, name: str, capacity_bytes: int) -> Volume:
        """Grow a volume that no running domain has open."""
        self._enter("ensure_capacity")
        with self._guard:
            volume = self._require(name)
            if capacity_bytes <= volume.capacity_bytes:
                return volume
            for domain in self.domains.values():
                if domain.is_on and name in self._chains(domain.volumes(now=True)):
                    raise ConflictError(f"volume {name}", f"{domain.name} has it open", "stop it first")
            return self._grow(name, capacity_bytes)

    def _grow(self, name: str, capacity_bytes: int) -> Volume:
        volume, data = self.volumes[name]
        volume = volume._replace(capacity_bytes=max(volume.capacity_bytes, capacity_bytes))
        self.volumes[name] = (volume, data)
        return volume

    def _require(self, name: str) -> Volume:
        if name not in self.volumes or not self.volumes[name][0].whole:
            raise NotFoundError(f"volume {name}", "it is not, or not wholly, in the pool")
        return self.volumes[name][0]

    def ensure_copy(self, name: str, source: str, *, report: Callable[[int, int], None] | None = None) -> Volume:
        """Copy a volume; one that is given up is removed again."""
        self._enter("ensure_copy")
        with self._guard:
            if name in self.volumes and self.volumes[name][0].whole:
                return self.volumes[name][0]
            copied, data = self._require(source), self.volumes[source][1]
            if self._free() < len(data):
                raise FailedError(f"volume {name}", "no room in the pool", "make room")
            volume = copied._replace(name=name, path=f"{FOLDER}{name}", whole=False)
            self.volumes[name] = (volume, data)
            if source in self._bases:
                self._bases[name] = self._bases[source]
        total = max(len(data), copied.allocation_bytes)
        is_whole = False
        try:
            for step in range(1, COPY_STEPS + 1):
                if report is not None:
                    report(total * step // COPY_STEPS, total)
            is_whole = True
        finally:
            with self._guard:
                if is_whole:
                    volume = volume._replace(whole=True)
                    self.volumes[name] = (volume, data)
                else:
                    self._remove(name)
        return volume

    def _remove(self, name: str) -> None:
        self.volumes.pop(name, None)
        self._bases.pop(name, None)

    def upload(
        self,
        name: str,
        source: BinaryIO,
        size_bytes: int,
        *,
        volume_format: str = "raw",
        report: Callable[[int], None] | None = None,
    ) -> Volume:
        """Keep the bytes."""
        self._enter("upload")
        self.volumes.pop(name, None)
        data = bytearray()
        source.seek(0)
        while len(data) < size_bytes:
            chunk = source.read(min(CHUNK_BYTES, size_bytes - len(data)))
            if not chunk:
                raise FailedError(f"volume {name}", "the source ended too early", "has it changed? try again")
            data += chunk
            if self.free_bytes() < len(data):
                raise FailedError(f"volume {name}", "no room in the pool", "make room")
            if report is not None:
                report(len(data))
        return self._keep(name, bytes(data), size_bytes, size_bytes, volume_format)

    def read_volume(self, name: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a volume."""
        self._enter("read_volume")
        if name not in self.volumes:
            return b""
        data = self.volumes[name][1]
        start = max(0, len(data) + offset) if offset < 0 else offset
        return data[start : start + length] if length else data[start:]

    def read_log(self, name: str, limit_bytes: int) -> bytes:
        """Return the last bytes of a console's log, which is never rotated here."""
        self._enter("read_log")
        return self.volumes[name][1][-limit_bytes:] if name in self.volumes and limit_bytes > 0 else b""

    def ensure_volume_gone(self, name: str) -> None:
        """Delete a volume that nobody uses."""
        self._enter("ensure_volume_gone")
        with self._guard:
            users = self.volume_users(name)
            if users:
                raise ConflictError(f"volume {name}", f"in use by {', '.join(users)}", "delete what uses it first")
            self._remove(name)

    def volume_users(self, name: str) -> list[str]:
        """Return the domains that use a volume, and the overlays of it that no domain has."""
        self._enter("volume_users")
        with self._guard:
            users, served = [], set()
            for domain in self.domains.values():
                chains = self._chains(domain.volumes())
                bases = {disk.base_volume for disk in domain.plan.disks} if domain.plan is not None else set()
                if name in chains | bases:
                    users.append(domain.name)
                    served |= chains
            overlays = [overlay for overlay, base in self._bases.items() if base == name and overlay not in served]
            return [*users, *(f"volume {overlay}" for overlay in overlays)]

    def _chains(self, volumes: set[str]) -> set[str]:
        """Return volumes with all that lies below them."""
        found = set(volumes)
        while below := {self._bases[name] for name in found if name in self._bases} - found:
            found |= below
        return found

    def _check_volumes(self, plan: DomainPlan) -> None:
        names = (name for disk in plan.disks for name in (disk.volume, disk.base_volume))
        for name in (plan.seed, plan.cdrom, *names):
            if name and name not in self.volumes:
                raise NotFoundError(f"volume {name}", "it is not in the pool")
        for disk in plan.disks:
            if disk.base_volume and self._bases.get(disk.volume, disk.base_volume) != disk.base_volume:
                raise FailedError(f"volume {disk.volume}", f"it is no overlay of {disk.base_volume}")
