"""A domain that is on brought near to its plan: by what libvirt says it is, never by what was done before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import libvirt

from backend.hypervisor.domain_xml import Placement, build_label
from backend.hypervisor.domains import Domains, find
from backend.hypervisor.errors import is_code, message_of
from backend.hypervisor.link import Link
from backend.hypervisor.live_xml import (
    LiveDomain,
    LiveNic,
    add_nic,
    find_differences,
    find_place,
    find_surplus,
    is_in_place,
    move_nic,
    read_live,
    read_places,
)
from backend.hypervisor.plan import DomainPlan, NicPlan
from backend.hypervisor.xml import NAMESPACE, render
from backend.text import sanitise

# How long a guest may take to let go of a NIC, and how often it is asked: one that boots hears nothing at first.
UNPLUG_SECONDS = 20.0
ASK_SECONDS = 5.0
# How long memory may stand still on its way before the guest is taken to have no driver for it.
MEMORY_SECONDS = 3.0
CHANGE_SECONDS = 30.0
POLL_SECONDS = 0.1
KIB_PER_MIB = 1024
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
_NO_PORT = r"No more available PCI slots|no free PCI|No PCI buses available"
_IS_LEAVING = r"already in the process of unplug|already being (re|un)"
_NO_MOVE = (
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
)


class LiveChange:
    """One domain, one plan."""

    def __init__(self, link: Link, domains: Domains, plan: DomainPlan, placement: Placement) -> None:
        self._link = link
        self._domains = domains
        self._plan = plan
        self._placement = placement
        self._what = f"VM {plan.name}"

    def apply(self) -> tuple[str, ...]:
        """Do what can be done, and return what waits; see `Hypervisor.apply_live`."""
        live = self._look()
        if live is None:
            return ()
        self._mirror()
        self._change_cpus(live)
        self._change_memory(live)
        self._change_nics(live)
        live = self._look()
        return tuple(find_differences(live, self._plan, self._placement)) if live is not None else ()

    def _look(self) -> LiveDomain | None:
        """Return what the domain is; None when it is off. Raises ConflictError for another owner's."""

        def fetch(connection: libvirt.virConnect) -> str:
            domain = find(connection, self._plan.uid)
            if domain is None:
                return ""
            self._domains.check_owner(domain, self._plan)
            return domain.XMLDesc() if domain.isActive() else ""

        xml = self._link.observe(self._what, fetch)
        return read_live(xml) if xml else None

    def _control(self, function: Callable[[libvirt.virDomain], object], deadline: float = CHANGE_SECONDS) -> None:
        """Do something to the domain, unless it has gone off."""

        def act(connection: libvirt.virConnect) -> None:
            domain = find(connection, self._plan.uid)
            if domain is None or not domain.isActive():
                return
            try:
                function(domain)
            except libvirt.libvirtError as error:
                if not is_code(error, *_GONE) or domain.isActive():
                    raise

        self._link.control(self._what, act, deadline)

    def _mirror(self) -> None:
        """Write the document's metadata and description on the domain."""
        element = build_label(self._plan)
        # libvirt puts all of it into the namespace by itself, and refuses what is there already.
        for part in element.iter():
            part.tag = part.tag.rpartition("}")[2]
        label = render(element)
        text = sanitise(self._plan.description)

        def write(domain: libvirt.virDomain) -> None:
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, label, "kc", NAMESPACE, _LIVE)
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, text or None, None, None, _LIVE)

        self._control(write)

    def _change_cpus(self, live: LiveDomain) -> None:
        """Add CPUs as far as there is room; none is taken away, as guests give them up badly or not at all."""
        wanted = min(self._plan.cpus, live.maximum_cpus)
        if wanted > live.cpus:
            self._control(lambda domain: domain.setVcpusFlags(wanted, _LIVE))

    def _change_memory(self, live: LiveDomain) -> None:
        """Have the guest give memory back, or take again what it gave, and wait as long as it is at it."""
        wanted = min(self._plan.memory_mib, live.maximum_memory_mib)
        if wanted == live.memory_mib:
            return
        self._control(lambda domain: domain.setMemoryFlags(wanted * KIB_PER_MIB, _LIVE))
        now: LiveDomain | None = live
        ends = time.monotonic() + MEMORY_SECONDS
        while now is not None and now.memory_mib != wanted and time.monotonic() < ends and self._is_running():
            time.sleep(POLL_SECONDS)
            before, now = now.memory_mib, self._look()
            if now is not None and now.memory_mib != before:
                ends = time.monotonic() + MEMORY_SECONDS

    def _is_running(self) -> bool:
        found = self._domains.observe(self._plan.uid)
        return found is not None and found.power == "running"

    def _change_nics(self, live: LiveDomain) -> None:
        """Move, add and remove NICs; what stands in the way of a new one goes first, what a guest holds stays."""
        surplus = find_surplus(live, self._plan)
        replaced = [nic for nic in self._plan.nics if (found := live.find_nic(nic)) and not self._move(found, nic)]
        taken = {nic.id for nic in surplus}
        blocked = [nic for nic in self._plan.nics if live.find_nic(nic) is None and nic.id in taken] + replaced
        for nic in self._plan.nics:
            if live.find_nic(nic) is None and nic not in blocked:
                self._plug(nic)
        leaving = surplus + [found for nic in replaced if (found := live.find_nic(nic))]
        held = self._unplug(leaving) if leaving else set()
        for nic in blocked:
            if not {nic.id, nic.mac.lower()} & held:
                self._plug(nic)

    def _move(self, found: LiveNic, nic: NicPlan) -> bool:
        """Bring a NIC to its network; False where it can only be replaced."""
        if is_in_place(found, nic):
            return True
        try:
            # The line goes down with the move and up after it, so that the guest asks for an address again.
            self._update(move_nic(found, nic, is_up=False))
            self._update(move_nic(found, nic, is_up=True))
        except _ImmovableError:
            return False
        return True

    def _update(self, xml: str) -> None:
        def update(domain: libvirt.virDomain) -> None:
            try:
                domain.updateDeviceFlags(xml, _LIVE)
            except libvirt.libvirtError as error:
                if is_code(error, *_NO_MOVE):
                    raise _ImmovableError from error
                raise

        self._control(update)

    def _plug(self, nic: NicPlan) -> None:
        """Add a NIC where it will be after the next start, or where there is room; without room it waits."""

        def attach(domain: libvirt.virDomain) -> None:
            now = domain.XMLDesc()
            places = read_places(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            try:
                domain.attachDeviceFlags(add_nic(nic, find_place(now, nic.mac, places)), _LIVE)
            except libvirt.libvirtError as error:
                # Another process may have been faster.
                is_there = read_live(domain.XMLDesc()).find_nic(nic) is not None
                if not is_there and not re.search(_NO_PORT, message_of(error)):
                    raise

        self._control(attach)

    def _unplug(self, nics: list[LiveNic]) -> set[str]:
        """Ask the guest to let go of NICs until it has or the time is over; return ids and MACs of what it holds."""
        ends = time.monotonic() + UNPLUG_SECONDS
        ask_at = 0.0
        while True:
            live = self._look()
            held = [nic for nic in live.nics if any(nic.mac == one.mac for one in nics)] if live is not None else []
            now = time.monotonic()
            # A guest that stands still lets go of nothing; asked now, it would do so later, whatever is wanted then.
            if not held or now >= ends or not self._is_running():
                return {name for nic in held for name in (nic.id, nic.mac)}
            if now >= ask_at:
                ask_at = now + ASK_SECONDS
                for nic in held:
                    self._control(lambda domain, nic=nic: _ask_to_let_go(domain, nic))  # type: ignore[misc]
            time.sleep(POLL_SECONDS)


class _ImmovableError(Exception):
    """A NIC of this kind cannot be moved."""


def _ask_to_let_go(domain: libvirt.virDomain, nic: LiveNic) -> None:
    try:
        domain.detachDeviceAlias(nic.alias, _LIVE)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_DEVICE_MISSING) or re.search(_IS_LEAVING, message_of(error)):
            return
        raise
