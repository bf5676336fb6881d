"""A disk copied by QEMU itself: by that of the domain that has it open, else by one that stands still and only reads.

libvirt's own copy of a volume (`virStorageVolCreateXMLFrom`) writes the whole chain into one file whatever it is told,
and cannot be broken off; a block job can, tells its bytes, and ends with the domain that does it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

import libvirt
import libvirt_qemu

from backend.hypervisor.domain_xml import Source, build_disk
from backend.hypervisor.domains import find
from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.link import Channel
from backend.hypervisor.plan import DiskPlan
from backend.hypervisor.xml import attribute, element, parse, render

HELPER_PREFIX = "kc-copy-"
HELPER_DISK = "vda"
HELPER_MIB = 16
START_SECONDS = 120.0
ABORT_SECONDS = 60.0
AGENT = "org.qemu.guest_agent.0"
PING_SECONDS = 2
FREEZE_SECONDS = 10
THAW_TRIES = 5
_COPY = (
    libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW
    | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
    | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
)
_NO_ANSWER = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
)
_OVER = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INVALID_ARG)


class Writer(NamedTuple):
    """A domain that is on and may write to a volume: its uuid, its disk's name in libvirt, and the disk's format."""

    uid: str
    disk: str
    format: str


class Progress(NamedTuple):
    """How far a copy is, in bytes, and whether it now follows each write of the guest."""

    done: int
    total: int
    is_ready: bool


def find_writer(connection: libvirt.virConnect, path: str) -> Writer | None:
    """Return which domain has the volume at a path open for writing, or None."""
    for domain, root in _running(connection):
        for disk in root.iterfind("devices/disk"):
            source = _path(disk.find("source"))
            if source == path and disk.find("readonly") is None:
                return Writer(domain.UUIDString(), attribute(disk, "target", "dev"), attribute(disk, "driver", "type"))
    return None


def find_format(connection: libvirt.virConnect, path: str) -> str:
    """Return the format that a domain uses the volume at a path in; empty where none does.

    libvirt's storage pools go by the volume's first bytes, which for a raw disk are the guest's to write.
    """
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):
            root = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            for disk in root.iterfind("devices/disk"):
                if _path(disk.find("source")) == path:
                    return attribute(disk, "driver", "type")
    return ""


def stop_mirrors(connection: libvirt.virConnect, path: str, tokens: tuple[str, ...]) -> None:
    """End every copy to the volume at a path, and the helpers of `tokens`; a guest that was frozen for it is thawed."""
    helpers = {HELPER_PREFIX + token for token in tokens}
    for domain, root in _running(connection):
        name = domain.name()
        disks = [disk for disk in root.iterfind("devices/disk") if path and _path(disk.find("mirror/source")) == path]
        with contextlib.suppress(libvirt.libvirtError):
            if name in helpers or (disks and name.startswith(HELPER_PREFIX)):
                domain.destroy()
                continue
            for disk in disks:
                domain.blockJobAbort(attribute(disk, "target", "dev"))
                thaw(domain)


def start_helper(connection: libvirt.virConnect, token: str, chain: tuple[Source, ...]) -> str:
    """Start a domain that has a disk open to read, and runs nothing; it dies with the connection. Return its uuid."""
    disk = build_disk(DiskPlan("", "", chain[0].format), chain, 0)
    disk.append(element("readonly"))
    xml = render(
        element(
            "domain",
            element("name", text=f"{HELPER_PREFIX}{token}"),
            element("memory", text=str(HELPER_MIB), unit="MiB"),
            element("vcpu", text="1"),
            element("os", element("type", text="hvm")),
            element(
                "devices",
                disk,
                element("controller", type="usb", model="none"),
                element("memballoon", model="none"),
            ),
            type="qemu",
        )
    )
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    return connection.createXML(xml, flags).UUIDString()


class Mirror:
    """A copy that a domain makes of its disk."""

    def __init__(self, channel: Channel, what: str, uid: str, disk: str) -> None:
        self._channel = channel
        self.what = what
        self._uid = uid
        self._disk = disk

    def start(self, chain: tuple[Source, ...]) -> bool:
        """Begin to copy to the volume that heads `chain`; False while the disk is copied elsewhere.

        What backs the volume stays what it is.
        """
        xml = render(build_disk(DiskPlan("", "", chain[0].format), chain, 0))

        def begin(connection: libvirt.virConnect) -> bool:
            try:
                connection.lookupByUUIDString(self._uid).blockCopy(self._disk, xml, None, _COPY)
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE):
                    return False
                raise
            return True

        return self._channel.call(self.what, begin, START_SECONDS)

    def find_target(self) -> str:
        """Return where the disk is being copied to; empty where it is not."""
        return self._channel.call(self.what, lambda connection: _find_target(connection, self._uid, self._disk))

    def look(self) -> Progress | None:
        """Return how far it is; None where there is no such copy (any more)."""
        return self._channel.call(self.what, lambda connection: _look(connection, self._uid, self._disk))

    def is_on(self) -> bool:
        """Return whether the domain still is on."""

        def ask(connection: libvirt.virConnect) -> bool:
            domain = find(connection, self._uid)
            return domain is not None and domain.isActive() == 1

        return self._channel.call(self.what, ask)

    def finish(self) -> None:
        """Let go of a copy that is ready: it is the disk as it is at this moment."""

        def end(connection: libvirt.virConnect) -> None:
            connection.lookupByUUIDString(self._uid).blockJobAbort(self._disk)

        self._channel.call(self.what, end, ABORT_SECONDS)

    def freeze(self) -> None:
        """Have the guest write out and then hold back what it writes, where its agent answers in time."""

        def ask(connection: libvirt.virConnect) -> None:
            domain = connection.lookupByUUIDString(self._uid)
            if not _has_agent(domain):
                return
            with contextlib.suppress(libvirt.libvirtError):
                libvirt_qemu.qemuAgentCommand(domain, '{"execute": "guest-ping"}', PING_SECONDS, 0)
                domain.agentSetResponseTimeout(FREEZE_SECONDS)
                domain.fsFreeze()

        self._channel.call(self.what, ask, FREEZE_SECONDS + PING_SECONDS + 10)

    def thaw(self) -> None:
        """Let a guest write again; one without an agent never stopped."""

        def ask(connection: libvirt.virConnect) -> None:
            domain = find(connection, self._uid)
            if domain is not None:
                thaw(domain)

        self._channel.call(self.what, ask, THAW_TRIES * (FREEZE_SECONDS + 10))

    def destroy(self) -> None:
        """End the helper; that it is gone is fine."""

        def end(connection: libvirt.virConnect) -> None:
            domain = find(connection, self._uid)
            if domain is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    domain.destroy()

        self._channel.call(self.what, end, ABORT_SECONDS)


def _look(connection: libvirt.virConnect, uid: str, disk: str) -> Progress | None:
    """Return how far the copy of a domain's disk is; None where there is none."""
    domain = find(connection, uid)
    try:
        info = domain.blockJobInfo(disk) if domain is not None else {}
        if domain is None or not info:
            return None
        is_ready = info["cur"] == info["end"] and _is_ready(domain, disk)
    except libvirt.libvirtError as error:
        if is_code(error, *_OVER) and not is_lost(error):
            return None
        raise
    return Progress(info["cur"], info["end"], is_ready)


def _find_target(connection: libvirt.virConnect, uid: str, disk: str) -> str:
    """Return where a domain's disk is being copied to; empty where it is not."""
    domain = find(connection, uid)
    if domain is None:
        return ""
    found = _find_disk(domain, disk)
    return _path(found.find("mirror/source")) if found is not None else ""


def thaw(domain: libvirt.virDomain) -> None:
    """Let a guest's file systems be written to again; an agent that does not answer is asked again."""
    for _ in range(THAW_TRIES):
        if not _has_agent(domain):
            return
        try:
            domain.agentSetResponseTimeout(FREEZE_SECONDS)
            domain.fsThaw()
        except libvirt.libvirtError as error:
            # It may still be busy with freezing; one that refuses to thaw refused to freeze.
            if not is_code(error, *_NO_ANSWER):
                return
            time.sleep(1)
        else:
            return


def _has_agent(domain: libvirt.virDomain) -> bool:
    try:
        channels = parse(domain.XMLDesc()).iterfind("devices/channel/target")
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        return False
    return any(target.get("name") == AGENT and target.get("state") == "connected" for target in channels)


def _is_ready(domain: libvirt.virDomain, disk: str) -> bool:
    found = _find_disk(domain, disk)
    return found is not None and attribute(found, "mirror", "ready") == "yes"


def _find_disk(domain: libvirt.virDomain, name: str) -> Element | None:
    disks = parse(domain.XMLDesc()).iterfind("devices/disk")
    return next((disk for disk in disks if attribute(disk, "target", "dev") == name), None)


def _path(source: Element | None) -> str:
    return (source.get("file") or source.get("dev") or "") if source is not None else ""


def _running(connection: libvirt.virConnect) -> Iterator[tuple[libvirt.virDomain, Element]]:
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        try:
            root = parse(domain.XMLDesc())
        except libvirt.libvirtError as error:
            # Gone since it was listed.
            if is_lost(error):
                raise
            continue
        yield domain, root
