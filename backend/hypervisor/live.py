"""A domain that is on brought near to its plan: by what libvirt says it is, never by what was done before."""

from __future__ import annotations

import libvirt

from backend.hypervisor.domain_xml import Placement, build_label
from backend.hypervisor.domains import Domains
from backend.hypervisor.link import Link
from backend.hypervisor.live_disks import change_cdrom, change_disks
from backend.hypervisor.live_domain import LIVE, RunningDomain
from backend.hypervisor.live_nics import change_nics
from backend.hypervisor.live_resources import change_cpus, change_memory
from backend.hypervisor.live_xml import find_differences
from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.xml import NAMESPACE, render
from backend.text import sanitise

# How long a guest may take to let go of a NIC, a disk or a CPU.
UNPLUG_SECONDS = 20.0


class LiveChange:
    """One domain, one plan."""

    def __init__(self, link: Link, domains: Domains, plan: DomainPlan, placement: Placement) -> None:
        self._domain = RunningDomain(link, domains, plan, UNPLUG_SECONDS)
        self._plan = plan
        self._placement = placement

    def apply(self) -> tuple[str, ...]:
        """Do what can be done, and return what waits; see `Hypervisor.apply_live`."""
        live = self._domain.look(())
        if live is None:
            return ()
        self._domain.control(self._mirror)
        change_cpus(self._domain, self._plan, live)
        change_memory(self._domain, self._plan, live)
        change_nics(self._domain, self._plan, live)
        if not self._plan.adopted:
            change_disks(self._domain, self._plan, self._placement, live)
            change_cdrom(self._domain, self._placement, live)
        live = self._domain.look({chain[0].path for chain in self._placement.disks})
        return tuple(find_differences(live, self._plan, self._placement)) if live is not None else ()

    def _mirror(self, domain: libvirt.virDomain) -> None:
        """Write the document's metadata and description on the domain."""
        element = build_label(self._plan)
        # libvirt puts all of it into the namespace by itself, and refuses what is there already.
        for part in element.iter():
            part.tag = part.tag.rpartition("}")[2]
        text = sanitise(self._plan.description)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, render(element), "kc", NAMESPACE, LIVE)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, text or None, None, None, LIVE)
