"""Domains as the host reports them, in bulk: what a list needs, and counters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import libvirt

from backend.errors import TimedOutError
from backend.hypervisor.link import Link
from backend.hypervisor.plan import ObservedDomain
from backend.model.samples import Sample
from backend.text import sanitise

NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
COUNTERS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
SAMPLE_SECONDS = 5.0
_POWERS = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "stopped",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
}
# (state, reason) of virDomainState; the usual reasons need no words.
_REASONS = {
    (libvirt.VIR_DOMAIN_SHUTDOWN, 0): "shutting down",
    (libvirt.VIR_DOMAIN_SHUTDOWN, 1): "shutting down",
    (libvirt.VIR_DOMAIN_PMSUSPENDED, 0): "suspended by the guest",
    (libvirt.VIR_DOMAIN_PAUSED, 2): "migrating",
    (libvirt.VIR_DOMAIN_PAUSED, 3): "saving",
    (libvirt.VIR_DOMAIN_PAUSED, 5): "I/O error",
    (libvirt.VIR_DOMAIN_PAUSED, 6): "watchdog",
    (libvirt.VIR_DOMAIN_PAUSED, 9): "snapshot",
    (libvirt.VIR_DOMAIN_PAUSED, 10): "crashed",
    (libvirt.VIR_DOMAIN_PAUSED, 11): "starting up",
    (libvirt.VIR_DOMAIN_PAUSED, 13): "migration failed",
    (libvirt.VIR_DOMAIN_SHUTOFF, 3): "crashed",
    (libvirt.VIR_DOMAIN_SHUTOFF, 4): "migrated",
    (libvirt.VIR_DOMAIN_SHUTOFF, 5): "saved",
    (libvirt.VIR_DOMAIN_SHUTOFF, 6): "start failed",
    (libvirt.VIR_DOMAIN_CRASHED, 1): "guest panic",
}


def describe(uid: str, name: str, state: int, reason: int) -> ObservedDomain:
    """Return a domain in KC's words."""
    return ObservedDomain(
        uid=uid,
        name=name if name.isascii() and name.isprintable() else sanitise(name),
        power=_POWERS.get(state, "unknown"),
        reason=_REASONS.get((state, reason), ""),
    )


def list_domains(link: Link) -> list[ObservedDomain]:
    """Return every domain of the host by one call, which waits for no QEMU."""

    def fetch(connection: libvirt.virConnect) -> list[ObservedDomain]:
        return [
            describe(domain.UUIDString(), domain.name(), stats.get("state.state", 0), stats.get("state.reason", 0))
            for domain, stats in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, NOWAIT)
        ]

    return link.observe("the host's domains", fetch)


def take_samples(link: Link) -> list[Sample]:
    """Return the counters of all domains; of one whose QEMU hangs only the state.

    The call that meets a hung QEMU first hangs with it, and holds its domain: the next one then passes it by.
    """
    try:
        return link.observe("the host's counters", _fetch_samples, SAMPLE_SECONDS / 2)
    except TimedOutError:
        return link.observe("the host's counters", _fetch_samples, SAMPLE_SECONDS)


def _fetch_samples(connection: libvirt.virConnect) -> list[Sample]:
    at = time.monotonic()
    return [
        _read_sample(domain.UUIDString(), at, stats) for domain, stats in connection.getAllDomainStats(COUNTERS, NOWAIT)
    ]


def _read_sample(uid: str, at: float, stats: Mapping[str, Any]) -> Sample:
    def total(group: str, counter: str) -> int:
        return sum(
            int(stats.get(f"{group}.{index}.{counter}", 0)) for index in range(int(stats.get(f"{group}.count", 0)))
        )

    kib = 1024
    # What the guest says it could still give away, else what it leaves free, else what the host holds for it.
    memory = int(stats.get("balloon.current", 0))
    available = int(stats.get("balloon.available", 0))
    free = stats.get("balloon.usable", stats.get("balloon.unused"))
    used = available - int(free) if available and free is not None else min(int(stats.get("balloon.rss", 0)), memory)
    return Sample(
        uid=uid,
        at=at,
        power=_POWERS.get(int(stats.get("state.state", 0)), "unknown"),
        cpus=int(stats.get("vcpu.current", 0)),
        cpu_time_ns=int(stats.get("cpu.time", 0)),
        memory_used_bytes=max(used, 0) * kib,
        memory_bytes=memory * kib,
        disk_read_bytes=total("block", "rd.bytes"),
        disk_written_bytes=total("block", "wr.bytes"),
        received_bytes=total("net", "rx.bytes"),
        sent_bytes=total("net", "tx.bytes"),
    )
