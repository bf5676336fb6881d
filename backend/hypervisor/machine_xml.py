"""The machine of a domain: its firmware, CPUs, memory and clock."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element

from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.xml import element

GIC3_CPUS = 8
CPU_MODES = ("host-passthrough", "host-model", "maximum")


class Machine(NamedTuple):
    """What differs between the architectures; `panic` is the device by which a guest tells that it crashed."""

    machine: str
    emulated_cpu: str
    video: str
    disc_bus: str
    panic: str
    has_bios: bool
    takes_cpus: bool


MACHINES = {
    "x86_64": Machine("q35", "", "vga", "scsi", "isa", has_bios=True, takes_cpus=True),
    # This CPU is four times faster under emulation than `maximum`; the machine takes no CPUs while it runs.
    "aarch64": Machine("virt", "cortex-a57", "virtio", "scsi", "", has_bios=False, takes_cpus=False),
}


def maximum_cpus(plan: DomainPlan) -> int:
    """Return how many CPUs a domain can have without a start."""
    return max(plan.cpus, plan.max_cpus) if MACHINES[plan.arch].takes_cpus else plan.cpus


def maximum_memory(plan: DomainPlan) -> int:
    """Return how much memory a domain can have without a start, in MiB."""
    return max(plan.memory_mib, plan.max_memory_mib)


def build_memory(plan: DomainPlan) -> tuple[Element, Element]:
    """Return the memory that the guest is started with, and what its balloon leaves it of that."""
    maximum, current = str(maximum_memory(plan)), str(plan.memory_mib)
    return element("memory", text=maximum, unit="MiB"), element("currentMemory", text=current, unit="MiB")


def build_cpus(plan: DomainPlan) -> Element:
    """Return how many CPUs there are and may be.

    Those that it is started with do not go: a CPU that can is not there yet when QEMU reads a snapshot's memory, which
    then fails.
    """
    maximum = maximum_cpus(plan)
    current = str(plan.cpus) if maximum > plan.cpus else ""
    return element("vcpu", text=str(maximum), placement="static", current=current)


def firmware_of(plan: DomainPlan) -> str:
    """Return a plan's firmware in words: `bios`, `uefi`, or `uefi with secure boot`."""
    if plan.firmware == "bios" and MACHINES[plan.arch].has_bios:
        return "bios"
    return "uefi with secure boot" if plan.secure_boot else "uefi"


def build_system(plan: DomainPlan, nvram: str = "") -> Element:
    """Return the firmware; libvirt chooses its file, and keeps the guest's own variables in `nvram`, or by its name."""
    machine = MACHINES[plan.arch]
    kind = element("type", text="hvm", arch=plan.arch, machine=machine.machine)
    if plan.firmware == "bios" and machine.has_bios:
        return element("os", kind)
    if plan.secure_boot:
        # Without the keys of those who sign, the firmware would start anything.
        keys = element("feature", enabled="yes", name="enrolled-keys")
        features = element("firmware", keys, element("feature", enabled="yes", name="secure-boot"))
    else:
        features = element("firmware", element("feature", enabled="no", name="secure-boot"))
    return element("os", kind, features, element("nvram", text=nvram) if nvram else None, firmware="efi")


def build_features(plan: DomainPlan) -> Element:
    """Return what the machine has."""
    if plan.arch == "x86_64":
        # Nothing but the firmware may write its variables.
        guard = element("smm", state="on") if plan.secure_boot else None
        return element("features", element("acpi"), element("apic"), guard)
    # The second version of the interrupt controller, QEMU's choice under emulation, serves eight CPUs.
    return element("features", element("acpi"), element("gic", version="3") if plan.cpus > GIC3_CPUS else None)


def build_cpu(plan: DomainPlan, model: str) -> Element:
    """Return the kind of CPU: a model of libvirt, one of `CPU_MODES`, or (empty) what suits the accelerator."""
    topology = element("topology", sockets="1", dies="1", cores=str(maximum_cpus(plan)), threads="1")
    mode = model if model in CPU_MODES else ""
    if not model and plan.accelerator == "kvm":
        mode = "host-model" if plan.arch == "x86_64" else "host-passthrough"
    elif not model:
        model = MACHINES[plan.arch].emulated_cpu
        mode = "" if model else "maximum"
    if mode == "host-model":
        return element("cpu", element("model", fallback="allow"), topology, mode=mode, check="partial")
    if mode:
        return element("cpu", topology, mode=mode)
    return element("cpu", element("model", text=model), topology, mode="custom", match="exact", check="none")


def build_clock(plan: DomainPlan) -> Element:
    """Return the clocks."""
    if plan.arch != "x86_64":
        return element("clock", offset="utc")
    return element(
        "clock",
        element("timer", name="rtc", tickpolicy="catchup"),
        element("timer", name="pit", tickpolicy="delay"),
        element("timer", name="hpet", present="no"),
        offset="utc",
    )


def build_suspending(plan: DomainPlan) -> Element | None:
    """Return that a guest cannot put itself to sleep, where its machine knows sleep at all."""
    if plan.arch != "x86_64":
        return None
    return element("pm", element("suspend-to-mem", enabled="no"), element("suspend-to-disk", enabled="no"))
