"""Snapshots: within the disks by libvirt, and where it takes none, copies of the disks."""

from __future__ import annotations

import contextlib
import time

import libvirt

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError, TimedOutError
from backend.hypervisor.domains import Domains, find
from backend.hypervisor.errors import is_code, is_lost, message_of
from backend.hypervisor.link import Link
from backend.hypervisor.plan import Snapshot
from backend.hypervisor.snapshot_copies import SnapshotCopies
from backend.hypervisor.snapshot_xml import (
    NAME_LIMIT,
    Disk,
    build_snapshot,
    has_added_cpus,
    has_pflash,
    read_disks,
    read_snapshot,
    read_snapshot_disks,
)
from backend.hypervisor.volumes import Volumes
from backend.hypervisor.xml import NAMESPACE
from backend.text import sanitise

# A snapshot with memory writes all of it to the disk; the guest stands still meanwhile.
SNAPSHOT_SECONDS = 600.0
LIST_SECONDS = 10.0
_METADATA_ONLY = libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
POLL_SECONDS = 0.1
# The first version that takes one within the disks of a domain with UEFI.
UEFI_VERSION = 10_009_000
_UNABLE = (
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
)


class Snapshots:
    """The snapshots of one host's domains."""

    def __init__(self, link: Link, domains: Domains, volumes: Volumes) -> None:
        self._link = link
        self._domains = domains
        self._volumes = volumes
        self._copies = SnapshotCopies(link, domains, volumes)

    def list_all(self, uid: str) -> list[Snapshot]:
        """Return a domain's snapshots, the oldest first; [] for one that is not there."""

        def fetch(connection: libvirt.virConnect) -> list[Snapshot]:
            domain = find(connection, uid)
            if domain is None:
                return []
            return [read_snapshot(snapshot.getXMLDesc()) for snapshot in domain.listAllSnapshots()]

        internal = self._link.observe(self._domains.name(uid), fetch, LIST_SECONDS)
        return sorted([*internal, *self._copies.list_all(uid)], key=lambda snapshot: (snapshot.at, snapshot.name))

    def take(self, uid: str, name: str, description: str = "") -> Snapshot:
        """Take a snapshot; one of that name is returned. See `Hypervisor.take_snapshot`."""
        self._await_job(uid)
        existing = self._find(uid, name)
        if existing is not None:
            return existing
        reason = self._take_within(uid, build_snapshot(name, description))
        if reason:
            self._copies.take(uid, name, reason)
        made = self._find(uid, name)
        if made is None:
            raise FailedError(self._domains.name(uid), f"snapshot {name} was deleted while it was taken", "try again")
        return made

    def restore(self, uid: str, name: str) -> None:
        """Bring a domain back to a snapshot; see `Hypervisor.restore_snapshot`.

        A disk that has grown since stays as large as it is, unless the domain is on then: its disks are as large as
        the guest's memory says.
        """
        found = self._find(uid, name)
        if found is None:
            raise NotFoundError(self._domains.name(uid), f"it has no snapshot {sanitise(name)}", "list its snapshots")
        if found.method == "external":
            raise RefusedError(
                self._domains.name(uid), f"snapshot {found.name} is in files of their own, made without KC",
                "bring it back with the tool that made it",
            )  # fmt: skip
        sizes = self._copies.find_sizes(uid)
        if found.method == "copy":
            self._copies.restore(uid, name)
        else:
            self._link.control(self._domains.name(uid), lambda raw: self._revert(raw, uid, name), SNAPSHOT_SECONDS)
        if not self._is_active(uid):
            for volume, size in sizes.items():
                self._volumes.ensure_capacity(volume, size)

    def ensure_gone(self, uid: str, name: str) -> None:
        """Remove a snapshot, of either kind; absent is fine.

        What libvirt cannot remove from the disks, as one of them has gone since, stays in the others unseen.
        """

        def remove(connection: libvirt.virConnect) -> None:
            domain = find(connection, uid)
            snapshot = _find_handle(domain, name) if domain is not None else None
            if domain is None or snapshot is None:
                return
            try:
                snapshot.delete(0 if _has_disks_of(domain, snapshot.getXMLDesc()) else _METADATA_ONLY)
            except libvirt.libvirtError:
                # Another process may have been faster.
                if _find_handle(domain, name) is not None:
                    raise

        self._link.control(self._domains.name(uid), remove, SNAPSHOT_SECONDS)
        self._copies.ensure_gone(uid, name)

    def _find(self, uid: str, name: str) -> Snapshot | None:
        return next((snapshot for snapshot in self.list_all(uid) if snapshot.name == sanitise(name, NAME_LIMIT)), None)

    def _is_active(self, uid: str) -> bool:
        observed = self._domains.observe(uid)
        return observed is not None and observed.power not in ("stopped", "crashed")

    def _await_job(self, uid: str) -> None:
        """Wait while a domain is busy: libvirt lists a snapshot that a killed process has asked for before it is whole.

        Raises TimedOutError.
        """
        ends = time.monotonic() + SNAPSHOT_SECONDS

        def is_busy(connection: libvirt.virConnect) -> bool:
            domain = self._domains.require(connection, uid)
            try:
                return domain.isActive() == 1 and domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID):
                    return False
                raise

        while self._link.observe(self._domains.name(uid), is_busy):
            if time.monotonic() > ends:
                raise TimedOutError(self._domains.name(uid), "libvirt is busy with it", "wait until that is done")
            time.sleep(POLL_SECONDS)

    def _take_within(self, uid: str, xml: str) -> str:
        """Have libvirt take a snapshot; return why it cannot, empty where it has."""

        def take(connection: libvirt.virConnect) -> str:
            domain = self._domains.require(connection, uid)
            xml_now = domain.XMLDesc()
            if domain.isActive() and has_added_cpus(xml_now):
                why = "it was given CPUs while it ran, and QEMU could not read its memory back"
                hint = "take it while the VM is off, or stop and start it first"
                raise RefusedError(self._domains.name(uid), why, hint)
            if connection.getLibVersion() < UEFI_VERSION and has_pflash(xml_now):
                return "libvirt before 10.9 takes no snapshots of VMs with UEFI that run"
            try:
                domain.snapshotCreateXML(xml)
            except libvirt.libvirtError as error:
                if is_lost(error) or not is_code(error, *_UNABLE):
                    raise
                return message_of(error)
            return ""

        return self._link.control(self._domains.name(uid), take, SNAPSHOT_SECONDS, repeat=False)

    def _revert(self, connection: libvirt.virConnect, uid: str, name: str) -> None:
        domain = self._domains.require(connection, uid)
        snapshot = _find_handle(domain, name)
        if snapshot is None:
            raise NotFoundError(self._domains.name(uid), f"it has no snapshot {sanitise(name)}", "list its snapshots")
        self._check_disks(domain, snapshot.getXMLDesc(), uid)
        label = _read_label(domain)
        try:
            domain.revertToSnapshot(snapshot)
        except libvirt.libvirtError as error:
            # Older ones want to be told that the running QEMU may be ended for it. What could be lost by that, the
            # disks, is checked.
            if not is_code(error, libvirt.VIR_ERR_SNAPSHOT_REVERT_RISKY):
                raise
            domain.revertToSnapshot(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE)
        _write_label(domain, label)

    def _check_disks(self, domain: libvirt.virDomain, xml: str, uid: str) -> None:
        """Raise ConflictError where a domain does not have the disks that it had."""
        what = self._domains.name(uid)
        then = read_snapshot_disks(xml)
        if then is None:
            raise RefusedError(what, "libvirt does not know which disks it had then", "restore it with virsh")
        now = read_disks(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        compare_disks(what, then, now)
        if domain.isActive():
            compare_disks(what, then, read_disks(domain.XMLDesc()))


def compare_disks(what: str, then: list[Disk], now: list[Disk]) -> None:
    """Raise ConflictError where disks have come or gone."""
    before, after = ({disk.path for disk in disks} for disks in (then, now))
    added, removed = sorted(after - before), sorted(before - after)
    if not added and not removed:
        return
    changes = [*(f"{_base(path)} was added" for path in added), *(f"{_base(path)} was removed" for path in removed)]
    raise ConflictError(
        what, f"it had other disks then: {', '.join(changes[:4])}", "give it the disks that it had, then restore"
    )


def _has_disks_of(domain: libvirt.virDomain, xml: str) -> bool:
    """Return whether a domain still has all disks of a snapshot: libvirt 9.0 dies of one that it looks for in vain."""
    then = read_snapshot_disks(xml)
    if then is None:
        return False
    flags = (libvirt.VIR_DOMAIN_XML_INACTIVE, 0) if domain.isActive() else (libvirt.VIR_DOMAIN_XML_INACTIVE,)
    return all(disk in read_disks(domain.XMLDesc(flag)) for flag in flags for disk in then)


def _base(path: str) -> str:
    return sanitise(path.rpartition("/")[2], 100)


def _find_handle(domain: libvirt.virDomain, name: str) -> libvirt.virDomainSnapshot | None:
    wanted = sanitise(name, NAME_LIMIT)
    snapshots = domain.listAllSnapshots()
    exact = [snapshot for snapshot in snapshots if snapshot.getName() == name]
    return next(iter(exact or [one for one in snapshots if sanitise(one.getName(), NAME_LIMIT) == wanted]), None)


def _read_label(domain: libvirt.virDomain) -> str:
    with contextlib.suppress(libvirt.libvirtError):
        return domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    return ""


def _write_label(domain: libvirt.virDomain, label: str) -> None:
    """Put back what says whose the domain is: libvirt brings the whole definition back to what it was."""
    if not label:
        return
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, label, "kc", NAMESPACE, flags)
