"""NICs that move, come and go while their guest runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import libvirt

from backend.hypervisor.errors import is_code
from backend.hypervisor.live_devices_xml import (
    LiveNic,
    add_nic,
    is_in_place,
    is_isolated_as,
    isolate_nic,
    move_nic,
)
from backend.hypervisor.live_domain import LIVE, RunningDomain
from backend.hypervisor.live_xml import LiveDomain, find_place, find_surplus_nics, read_places
from backend.hypervisor.plan import DomainPlan, NicPlan

# How long the line of a NIC that moves is down: a guest that looks at it only when it is up again sees nothing.
LINE_SECONDS = 0.5
_NO_MOVE = (
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
)
# A host that has no say over its bridges' ports: the next start, which needs it, tells why.
_NO_ISOLATION = (*_NO_MOVE, libvirt.VIR_ERR_SYSTEM_ERROR)


def change_nics(domain: RunningDomain, plan: DomainPlan, live: LiveDomain) -> None:
    """Move, add and remove NICs; what stands in the way of a new one goes first, what a guest holds stays."""
    surplus = find_surplus_nics(live, plan)
    replaced = [nic for nic in plan.nics if (found := live.find_nic(nic)) and not _move(domain, found, nic)]
    for nic in plan.nics:
        found = live.find_nic(nic)
        if found and is_in_place(found, nic) and not is_isolated_as(found, nic, adopted=plan.adopted):
            _update(domain, isolate_nic(found, isolated=nic.isolated), _NO_ISOLATION)
    taken = {nic.id for nic in surplus}
    blocked = [nic for nic in plan.nics if live.find_nic(nic) is None and nic.id in taken] + replaced
    for nic in plan.nics:
        if live.find_nic(nic) is None and nic not in blocked:
            _plug(domain, nic)
    leaving = surplus + [found for nic in replaced if (found := live.find_nic(nic))]
    held = {name for nic in domain.release(leaving) for name in (nic.id, nic.key)}
    for nic in blocked:
        if not {nic.id, nic.mac.lower()} & held:
            _plug(domain, nic)


def _move(domain: RunningDomain, found: LiveNic, nic: NicPlan) -> bool:
    """Bring a NIC to its network; False where it can only be replaced."""
    if is_in_place(found, nic):
        return True
    # The line goes down with the move and up after it, so that the guest asks for an address again.
    if not _update(domain, move_nic(found, nic, is_up=False)):
        return False
    time.sleep(LINE_SECONDS)
    return _update(domain, move_nic(found, nic, is_up=True))


def _update(domain: RunningDomain, xml: str, refusals: Sequence[int] = _NO_MOVE) -> bool:
    """Change a NIC; False where one of its kind cannot be changed."""
    refusal = domain.attempt(
        lambda handle: handle.updateDeviceFlags(xml, LIVE), lambda error: is_code(error, *refusals)
    )  # fmt: skip
    return refusal is None


def _plug(domain: RunningDomain, nic: NicPlan) -> None:
    """Add a NIC where it will be after the next start, or where there is room; without room it waits."""

    def build(handle: libvirt.virDomain, now: str) -> str:
        next_start = read_places(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        return add_nic(nic, find_place(now, nic.mac.lower(), next_start))

    domain.attach(build, lambda live: live.find_nic(nic) is not None)
