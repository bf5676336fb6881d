"""Disks that come, grow and go, and the disc in the CD-ROM drive, while their guest runs."""

from __future__ import annotations

import re

import libvirt

from backend.hypervisor.domain_xml import Placement
from backend.hypervisor.errors import message_of
from backend.hypervisor.live_devices_xml import add_disk, change_disc
from backend.hypervisor.live_domain import LIVE, RunningDomain
from backend.hypervisor.live_xml import (
    LiveDomain,
    find_missing_disks,
    find_place,
    find_small_disks,
    find_surplus_disks,
    read_live,
    read_places,
)
from backend.hypervisor.plan import DomainPlan

_FORCE = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
_IS_LOCKED = r"\b(tray|locked)\b"


def change_disks(domain: RunningDomain, plan: DomainPlan, placement: Placement, live: LiveDomain) -> None:
    """Add, grow and remove disks; the first one stays, and what a guest holds stays."""
    for index in find_missing_disks(live, plan, placement):
        _plug(domain, plan, placement, index)
    now = domain.look({chain[0].path for chain in placement.disks})
    if now is None:
        return
    for found, disk in find_small_disks(now, plan, placement):
        _grow(domain, found.target, disk.capacity_bytes)
    domain.release(find_surplus_disks(now, plan, placement))


def change_cdrom(domain: RunningDomain, placement: Placement, live: LiveDomain) -> None:
    """Put the plan's disc into the drive, or take out what is in it.

    A guest that has locked the drive is asked first, and libvirt waits for it some seconds; then the disc is taken.
    """
    disc = placement.cdrom
    if live.cdrom is None or live.cdrom.path == (disc.path if disc is not None else ""):
        return
    xml = change_disc(live.cdrom, disc)
    refusal = domain.attempt(
        lambda handle: handle.updateDeviceFlags(xml, LIVE), lambda error: bool(re.search(_IS_LOCKED, message_of(error)))
    )  # fmt: skip
    if refusal is not None:
        domain.control(lambda handle: handle.updateDeviceFlags(xml, LIVE | _FORCE))


def _plug(domain: RunningDomain, plan: DomainPlan, placement: Placement, index: int) -> None:
    """Add a disk where it will be after the next start, or where there is room; without room it waits."""
    disk, chain = plan.disks[index], placement.disks[index]
    path = chain[0].path

    def build(handle: libvirt.virDomain, now: str) -> str:
        place = find_place(now, path, read_places(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
        return add_disk(disk, chain, index, read_live(now).targets, place)

    domain.attach(build, lambda live: live.find_disk(path) is not None)


def _grow(domain: RunningDomain, target: str, size_bytes: int) -> None:
    """Make a disk larger, never smaller: another process may have made it larger still."""

    def resize(handle: libvirt.virDomain) -> None:
        if handle.blockInfo(target)[0] < size_bytes:
            handle.blockResize(target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    domain.control(resize)
