"""Whether KVM really works: what is listed, what a device node promises and what boots are three things."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

import libvirt

from backend.errors import KCError
from backend.hypervisor.console import SerialConsole, attach_console
from backend.hypervisor.domain_xml import ARCHITECTURES, Source, build_probe
from backend.hypervisor.facts import (
    KVM_DEVICE,
    Capabilities,
    HostCache,
    has_virtualisation_flag,
    machine_state,
    read_capabilities,
    read_cpu_choice,
)
from backend.hypervisor.link import Link
from backend.hypervisor.plan import DomainPlan

PROBE_SECONDS = 20.0
START_SECONDS = 60.0
# Only a kernel that has left real mode says these; a broken KVM gets as far as the firmware.
MARKERS = (b"Linux version", b"KC starter", b"login:")
KVM = "kvm"
TCG = "qemu"
# `host-model` aborts QEMU on some hosts that a plain model starts on.
CPU_MODELS = ("", "qemu64")
_HOST_MODES = frozenset({"host-passthrough", "host-model"})
_MODES = {KVM: _HOST_MODES | {"maximum"}, TCG: frozenset({"maximum"})}


class Verdict(NamedTuple):
    """What guests of an architecture run on: `kvm` or `qemu`, with which named CPU (""), and why not KVM."""

    accelerator: str
    cpu_model: str = ""
    reason: str = ""


class Accelerators:
    """What one host runs guests on, found out once."""

    def __init__(self, link: Link, cache: HostCache) -> None:
        self._link = link
        self._cache = cache
        self._known: dict[str, Verdict] = {}

    def choose(self, arch: str, find_source: Callable[[], Source] | None) -> Verdict:
        """Return the verdict for an architecture; `find_source` gives the disk to probe with, None: no probe."""
        known = self._known.get(arch) or self.look(arch)
        if known is None and find_source is not None:
            capabilities = read_capabilities(self._link, self._cache)
            known = self._probe_all(arch, find_source())
            self._cache.store(self._name(arch), self._key(capabilities), list(known))
        if known is None:
            return Verdict(TCG, reason="not proven yet")
        self._known[arch] = known
        return known

    def choose_cpu(self, plan: DomainPlan) -> str:
        """Return the first CPU model or mode of a plan that this host can do; empty: the driver's choice."""
        given = self.choose(plan.arch, None).cpu_model if plan.accelerator == KVM else ""
        if not plan.cpu_models or plan.arch not in ARCHITECTURES:
            return given
        choice = read_cpu_choice(self._link, self._cache, plan.arch, plan.accelerator)
        # Where a guest with the host's own CPU did not boot, what libvirt says about such CPUs is not true.
        modes = choice.modes & _MODES[plan.accelerator] - (_HOST_MODES if given else set())
        return next((model for model in plan.cpu_models if model in modes | choice.models), given)

    def look(self, arch: str) -> Verdict | None:
        """Return the verdict where it is known without a probe, else None."""
        link = self._link
        if link.is_local:
            # The usual cases, without a question to the daemon.
            if arch != os.uname().machine:
                return Verdict(TCG, reason=f"{arch} is emulated on {os.uname().machine}")
            if arch == "x86_64" and not has_virtualisation_flag():
                return Verdict(TCG, reason="the CPU shows neither vmx nor svm")
            if not KVM_DEVICE.exists():
                return Verdict(TCG, reason=f"there is no {KVM_DEVICE}")
        capabilities = read_capabilities(link, self._cache)
        if arch != capabilities.arch:
            return Verdict(TCG, reason=f"{arch} is emulated on {capabilities.arch}")
        if arch not in capabilities.kvm_archs:
            return Verdict(TCG, reason="libvirt lists no KVM")
        if not link.is_local and arch == "x86_64" and not capabilities.has_virtualisation:
            return Verdict(TCG, reason="the CPU shows neither vmx nor svm")
        stored = self._cache.load(self._name(arch), self._key(capabilities))
        return Verdict(*stored) if isinstance(stored, list) else None

    def _probe_all(self, arch: str, source: Source) -> Verdict:
        reason = ""
        for model in CPU_MODELS:
            reason = probe(self._link, source, arch, KVM, model)
            if not reason:
                return Verdict(KVM, model)
        return Verdict(TCG, reason=reason)

    def _name(self, arch: str) -> str:
        return f"accelerator {arch} {self._link.uri}"

    def _key(self, capabilities: Capabilities) -> list[object]:
        host = [capabilities.hostname, capabilities.libvirt_version, capabilities.qemu_version]
        return [*host, *machine_state(self._link)]


def probe(link: Link, source: Source, arch: str, accelerator: str, cpu_model: str = "") -> str:
    """Boot a disk, read-only, in a guest that leaves nothing behind; return why it failed, empty where it came up."""
    name = f"kc-probe-{uuid.uuid4().hex[:8]}"
    xml = build_probe(name, source, arch, accelerator, cpu_model)

    def start(raw: libvirt.virConnect) -> libvirt.virDomain:
        # It dies with the connection, whatever becomes of this process.
        return raw.createXML(xml, libvirt.VIR_DOMAIN_START_AUTODESTROY)

    try:
        console = attach_console(link, name, start, START_SECONDS)
    except KCError as error:
        return error.why
    try:
        return "" if _says(console, MARKERS, PROBE_SECONDS) else f"a guest did not boot within {PROBE_SECONDS:.0f} s"
    finally:
        console.close()


def _says(console: SerialConsole, markers: tuple[bytes, ...], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    said = b""
    while (left := ends - time.monotonic()) > 0:
        data = console.read(left)
        if data == b"":
            return False
        said += data or b""
        if any(marker in said for marker in markers):
            return True
    return False
