"""CPUs and memory that come and go while their guest runs."""

from __future__ import annotations

import time

import libvirt

from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.live_domain import LIVE, POLL_SECONDS, RunningDomain
from backend.hypervisor.live_xml import LiveDomain, is_memory_on_its_way
from backend.hypervisor.plan import DomainPlan

# libvirt adds CPUs one by one, and waits five seconds for a guest to let go of one.
CPU_SECONDS = 60.0
# How long an agent may take to meet CPUs that were just added.
MEET_SECONDS = 10.0
# How long memory may stand still on its way before the guest is taken to have no driver for it.
MEMORY_SECONDS = 3.0
KIB_PER_MIB = 1024
_AGENT_SECONDS = 2
_SLOW_AGENT = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED)
_NO_BALLOON = (
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
)


def change_cpus(domain: RunningDomain, plan: DomainPlan, live: LiveDomain) -> None:
    """Add CPUs as far as there is room, or take those that can go; have the guest use as many as the plan says.

    A CPU that cannot go stays idle in a guest whose agent does so, until the next start.
    """
    wanted = max(min(plan.cpus, live.maximum_cpus), live.minimum_cpus)
    if wanted < live.cpus:
        _take(domain, wanted)
    elif wanted > live.cpus:
        domain.control(lambda handle: handle.setVcpusFlags(wanted, LIVE), CPU_SECONDS)
    # Asked each time: an earlier process may have been killed before it told the guest.
    if max(wanted, live.cpus) > 1 and domain.has_agent():
        _have_used(domain, min(plan.cpus, live.maximum_cpus))


def _take(domain: RunningDomain, wanted: int) -> None:
    """Ask the guest to give up CPUs until it has, refuses, or the time is over."""
    ends = time.monotonic() + domain.patience
    while time.monotonic() < ends and domain.is_running():
        refusal = domain.attempt(
            lambda handle: handle.setVcpusFlags(wanted, LIVE), lambda error: not is_lost(error), CPU_SECONDS
        )
        if refusal is None or not is_code(refusal, libvirt.VIR_ERR_OPERATION_TIMEOUT):
            return
        now = domain.look()
        if now is None or now.cpus <= wanted:
            return


def _have_used(domain: RunningDomain, wanted: int) -> None:
    """Have the guest's agent use so many CPUs as soon as it sees them; where it cannot, the guest is left to itself."""
    used: list[int] = []

    def tell(handle: libvirt.virDomain) -> None:
        handle.agentSetResponseTimeout(_AGENT_SECONDS)
        used.append(handle.vcpusFlags(LIVE | libvirt.VIR_DOMAIN_VCPU_GUEST))
        if used[-1] != wanted:
            handle.setVcpusFlags(wanted, LIVE | libvirt.VIR_DOMAIN_VCPU_GUEST)

    ends = time.monotonic() + MEET_SECONDS
    while time.monotonic() < ends:
        refusal = domain.attempt(tell, lambda error: not is_lost(error))
        # A guest that is just meeting a CPU may be slow to answer.
        if refusal is None or not (used or is_code(refusal, *_SLOW_AGENT)):
            return
        time.sleep(POLL_SECONDS)


def change_memory(domain: RunningDomain, plan: DomainPlan, live: LiveDomain) -> None:
    """Have the guest give memory back, or take again what it gave, and wait as long as it is at it."""
    wanted = min(plan.memory_mib, live.maximum_memory_mib)
    if wanted == live.memory_mib:
        return
    refusal = domain.attempt(
        lambda handle: handle.setMemoryFlags(wanted * KIB_PER_MIB, LIVE),
        lambda error: not live.has_balloon and is_code(error, *_NO_BALLOON),
    )
    now: LiveDomain | None = live if refusal is None and not is_memory_on_its_way(live, plan) else None
    ends = time.monotonic() + MEMORY_SECONDS
    while now is not None and now.memory_mib != wanted and time.monotonic() < ends and domain.is_running():
        time.sleep(POLL_SECONDS)
        before, now = now.memory_mib, domain.look()
        if now is not None and now.memory_mib != before:
            ends = time.monotonic() + MEMORY_SECONDS
