"""Domains as libvirt keeps them: with headroom, a drive and secure boot, and where they are not what they were."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest
from hosts import PrivateHost, wait_until
from support.boot_sector import SIZE, make_disk

from backend.errors import ConflictError, RefusedError
from backend.hypervisor import domain_xml, domains
from backend.hypervisor.host import LibvirtHost
from backend.hypervisor.plan import Difference, DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import NetworkPlan

pytestmark = pytest.mark.libvirt

Make = Callable[..., DomainPlan]
MAC = "52:54:00:77:50:01"


def inactive(host: PrivateHost, plan: DomainPlan) -> Element:
    return fromstring(host.virsh("dumpxml", "--inactive", plan.uid))


def says(hypervisor: Hypervisor, plan: DomainPlan, words: bytes, seconds: float = 60) -> None:
    wait_until(lambda: words in hypervisor.read_log(plan.console_log, 1 << 16), f"it says {words!r}", seconds)


def redefine(host: PrivateHost, plan: DomainPlan, tmp_path: Path, change: Callable[[Element], None]) -> None:
    """Edit a domain as `virsh edit` does."""
    root = inactive(host, plan)
    change(root)
    file = tmp_path / "edited.xml"
    file.write_text(tostring(root, encoding="unicode"))
    host.virsh("define", str(file))


# --- what it is started with
def test_a_domain_starts_with_headroom_and_a_drive_for_discs(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    plan = make(max_cpus=4, cpus=2, max_memory_mib=128)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    root = fromstring(private_host.virsh("dumpxml", plan.name))
    assert (root.findtext("vcpu"), root.find("vcpu").get("current")) == ("4", "2")  # type: ignore[union-attr]
    assert root.findtext("memory") == str(128 << 10)
    assert root.find("devices/disk/alias[@name='ua-cdrom']") is not None
    private_host.virsh("setvcpus", plan.name, "4", "--live")
    assert hypervisor.differences(plan) == ()


def test_a_blank_disk_lets_a_disc_start_the_guest(hypervisor: Hypervisor, make: Make) -> None:
    plan = make(disk=bytes(SIZE), cdrom="kc-disc")
    # El Torito's no-emulation boot wants an ISO; the boot sector is found on it as on a floppy.
    iso = make_iso(make_disk(b"started from the disc\r\n"))
    hypervisor.upload("kc-disc", io.BytesIO(iso), len(iso))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    says(hypervisor, plan, b"started from the disc")


def test_cpu_models_are_tried_in_their_order(hypervisor: Hypervisor, private_host: PrivateHost, make: Make) -> None:
    def cpu(*models: str, **changes: Any) -> tuple[str, str]:
        plan = make(cpu_models=models, **changes)
        hypervisor.ensure_defined(plan)
        found = inactive(private_host, plan).find("cpu")
        assert found is not None
        return found.get("mode", ""), found.findtext("model") or ""

    assert cpu("no-such-model", "qemu64") == ("custom", "qemu64")
    # Nothing of the host's own CPU is there for a guest that is emulated.
    assert cpu("host-passthrough", "host-model", "maximum", "qemu64") == ("maximum", "")
    assert cpu("no-such-model") == ("maximum", "")
    if "aarch64" in hypervisor.facts().guest_archs:
        assert cpu("qemu64", "cortex-a72", arch="aarch64", firmware="uefi") == ("custom", "cortex-a72")


def test_a_crash_of_the_guest_does_what_the_policy_says(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    for policy, power in (("stop", "stopped"), ("preserve", "crashed")):
        plan = make(disk=make_panic(), on_crash=policy)
        hypervisor.ensure_defined(plan)
        hypervisor.ensure_running(plan.uid)
        wait_until(lambda: hypervisor.observe(plan.uid).power == power, f"{policy} leaves it {power}", 30)  # type: ignore[union-attr]  # noqa: B023


# --- secure boot
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_secure_boot_starts_with_keys_and_guarded_variables(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make, arch: str
) -> None:
    if arch not in hypervisor.facts().guest_archs:
        pytest.skip("no QEMU for it here")
    plan = make(arch=arch, firmware="uefi", secure_boot=True, memory_mib=256, cpus=2)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    root = fromstring(private_host.virsh("dumpxml", plan.name))
    assert (root.find("os/nvram").text or "").endswith(f"kc-{plan.uid}-secure.fd")  # type: ignore[union-attr]
    assert "_VARS" in root.find("os/nvram").get("template", "")  # type: ignore[union-attr]
    if arch == "x86_64":
        assert root.find("os/loader").get("secure") == "yes"  # type: ignore[union-attr]
        assert root.find("features/smm[@state='on']") is not None
    assert hypervisor.differences(plan) == ()
    # What nobody signed is not started: the boot sector of the disk is no EFI program, so the firmware says so.
    says(hypervisor, plan, b"BdsDxe" if arch == "x86_64" else b"UEFI firmware", 120)


def test_variables_go_with_the_domain_whatever_it_is_called(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    plan = make(firmware="uefi", memory_mib=128)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    variables = f"kc-{plan.uid}-nvram.fd"
    kept = hypervisor.read_volume(variables)
    assert len(kept) > 1 << 16
    renamed = plan._replace(name=f"{plan.name}-new")
    hypervisor.ensure_defined(renamed)
    hypervisor.ensure_running(plan.uid)
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    assert [volume.name for volume in hypervisor.list_volumes(variables)] == [variables]
    hypervisor.ensure_undefined(plan.uid, plan.owner)
    assert hypervisor.list_volumes(variables) == []


def test_a_firmware_that_the_host_has_not_is_refused_before_anything_is_defined(
    hypervisor: Hypervisor, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine has no firmware with secure boot and SMM.
    old = domain_xml.MACHINES["x86_64"]._replace(machine="pc")
    monkeypatch.setitem(domain_xml.MACHINES, "x86_64", old)
    plan = make(firmware="uefi", secure_boot=True)
    with pytest.raises(RefusedError, match="no firmware with secure boot") as caught:
        hypervisor.ensure_defined(plan)
    assert "apt-get install" in caught.value.hint
    assert hypervisor.observe(plan.uid) is None


# --- power
def test_a_domain_is_paused_once_and_only_where_it_is_on(hypervisor: Hypervisor, make: Make) -> None:
    plan = make()
    hypervisor.ensure_defined(plan)
    with pytest.raises(ConflictError, match="does not run"):
        hypervisor.ensure_paused(plan.uid)
    hypervisor.ensure_running(plan.uid)
    for _ in range(2):
        hypervisor.ensure_paused(plan.uid)
        assert hypervisor.observe(plan.uid).power == "paused"  # type: ignore[union-attr]
    hypervisor.ensure_running(plan.uid)
    assert hypervisor.observe(plan.uid).power == "running"  # type: ignore[union-attr]


def test_a_reboot_without_an_agent_waits_for_none(
    hypervisor: Hypervisor, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "REBOOT_SECONDS", 3600.0)
    plan = make()
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    says(hypervisor, plan, b"guest is up", 20)
    hypervisor.reboot(plan.uid, force=True)
    wait_until(lambda: hypervisor.read_log(plan.console_log, 1 << 16).count(b"guest is up") == 2, "up again", 20)


def test_a_domain_starts_with_the_host_where_that_is_wanted(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    plan = make(autostart=True)
    for wanted in (True, True, False):
        hypervisor.ensure_defined(plan._replace(autostart=wanted))
        assert hypervisor.differences(plan._replace(autostart=wanted)) == ()
        listed = private_host.virsh("list", "--all", "--autostart", "--uuid").split()
        assert (plan.uid in listed) == wanted


# --- drift
MACHINES = {
    "bios": {},
    "headroom": {"cpus": 2, "max_cpus": 4, "memory_mib": 65, "max_memory_mib": 129},
    "uefi": {"firmware": "uefi", "on_crash": "stop"},
    "secure-boot": {"firmware": "uefi", "secure_boot": True, "on_crash": "preserve"},
    "aarch64": {"arch": "aarch64", "firmware": "bios", "cpus": 2, "max_cpus": 4},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_was_just_defined_has_no_drift(
    hypervisor: Hypervisor, network: NetworkPlan, make: Make, machine: str
) -> None:
    changes = MACHINES[machine]
    if changes.get("arch", "x86_64") not in hypervisor.facts().guest_archs:
        pytest.skip("no QEMU for it here")
    plan = make(
        nics=(NicPlan("wan", MAC.upper(), network.name, mtu=1400), NicPlan("user", "52:54:00:77:50:02", mtu=1400)),
        description=" a\nb\t\x07<c>& \u202e ",
        metadata='{"a": "<x>&\\u0007 \u2028é", "b": [1.50, null]}',
        **changes,
    )
    hypervisor.ensure_defined(plan)
    assert hypervisor.differences(plan) == ()
    hypervisor.ensure_running(plan.uid)
    assert hypervisor.differences(plan) == ()
    # What waits for the next start is in the persistent definition, and so is no drift; nor is another version.
    wanted = plan._replace(
        version=9,
        name=f"{plan.name}-new",
        cpus=3,
        memory_mib=80,
        nics=plan.nics[:1],
        description="other",
        autostart=True,
    )
    assert hypervisor.differences(wanted) != ()
    hypervisor.ensure_defined(wanted)
    assert hypervisor.differences(wanted) == ()
    assert hypervisor.differences(wanted._replace(version=10)) == ()


def test_drift_has_a_word_and_both_values_for_whatever_virsh_changed(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make, tmp_path: Path
) -> None:
    hypervisor.upload("kc-drift-disc", io.BytesIO(bytes(4096)), 4096)
    hypervisor.ensure_blank("kc-drift-data", 1 << 20)
    nics = (NicPlan("lan", MAC, network.name), NicPlan("wan", "52:54:00:77:50:02", network.name))
    plan = make(nics=nics, cdrom="kc-drift-disc", max_cpus=4)
    plan = plan._replace(disks=(*plan.disks, DiskPlan("data", "kc-drift-data")))
    hypervisor.ensure_defined(plan)
    virsh = private_host.virsh
    data = next(volume.path for volume in hypervisor.list_volumes("kc-drift-data"))
    disc = next(volume.path for volume in hypervisor.list_volumes("kc-drift-disc"))
    virsh("setvcpus", plan.name, "3", "--config")
    virsh("setmaxmem", plan.name, "32M", "--config")
    virsh("detach-interface", plan.name, "network", "--mac", nics[1].mac, "--config")
    virsh("attach-interface", plan.name, "bridge", "br9", "--mac", "52:54:00:77:50:03", "--config")
    virsh("domif-setlink", plan.name, MAC, "down", "--config")
    virsh("detach-disk", plan.name, "vdb", "--config")
    virsh("change-media", plan.name, "sdb", "--eject", "--config")
    virsh("autostart", plan.name)
    virsh("desc", plan.name, "--config", "--new-desc", "mine now")
    virsh("domrename", plan.name, f"{plan.name}-mine")

    def edit(root: Element) -> None:
        root.find("on_crash").text = "coredump-restart"  # type: ignore[union-attr]
        root.find("metadata/{urn:kc:1}vm/{urn:kc:1}metadata").text = '{"tenant":"mine"}'  # type: ignore[union-attr]
        root.find("metadata/{urn:kc:1}vm").set("owner", "other")  # type: ignore[union-attr]

    redefine(private_host, plan._replace(name=f"{plan.name}-mine"), tmp_path, edit)
    try:
        assert set(hypervisor.differences(plan)) == {
            Difference("owner", "tests", "tests"),
            Difference("name", plan.name, f"{plan.name}-mine"),
            Difference("metadata", "{}", '{"tenant":"mine"}'),
            Difference("cpus", "1, up to 4", "3, up to 4"),
            Difference("memory", "64 MiB", "32 MiB"),
            Difference("nic:lan", f"network {network.name}, {MAC}", f"network {network.name}, {MAC}, line down"),
            Difference("nic:wan", f"network {network.name}, {nics[1].mac}", "absent"),
            Difference("nic:52:54:00:77:50:03", "absent", "bridge br9, 52:54:00:77:50:03"),
            Difference("disk:data", data, "absent"),
            Difference("cdrom", disc, "no disc"),
            Difference("autostart", "no", "yes"),
            Difference("description", "", "mine now"),
            Difference("on-crash", "restart", "coredump-restart"),
        }
    finally:
        redefine(private_host, plan, tmp_path, lambda root: root.find("metadata/{urn:kc:1}vm").set("owner", "owner"))  # type: ignore[union-attr]
    hypervisor.ensure_defined(plan)
    assert hypervisor.differences(plan) == ()
    hypervisor.ensure_defined(plan._replace(cdrom="", disks=plan.disks[:1]))
    for volume in ("kc-drift-data", "kc-drift-disc"):
        hypervisor.ensure_volume_gone(volume)


def test_a_disk_with_another_volume_and_a_nic_with_another_mac_are_one_difference_each(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Make, tmp_path: Path
) -> None:
    plan = make(nics=(NicPlan("lan", MAC, network.name),))
    hypervisor.ensure_defined(plan)

    def edit(root: Element) -> None:
        root.find("devices/disk/source").set("file", "/elsewhere")  # type: ignore[union-attr]
        root.find("devices/interface/mac").set("address", "52:54:00:77:50:99")  # type: ignore[union-attr]

    redefine(private_host, plan, tmp_path, edit)
    (nic, disk) = hypervisor.differences(plan)
    assert (nic.word, nic.found) == ("nic:lan", f"network {network.name}, 52:54:00:77:50:99")
    assert (disk.word, disk.found) == ("disk:root", "/elsewhere")


@pytest.mark.parametrize(
    ("change", "found"), [({"firmware": "uefi"}, "bios"), ({"firmware": "uefi", "secure_boot": True}, "bios")]
)
def test_another_firmware_is_drift(hypervisor: Hypervisor, make: Make, change: dict[str, Any], found: str) -> None:
    plan = make()
    hypervisor.ensure_defined(plan)
    (difference,) = hypervisor.differences(plan._replace(**change))
    assert (difference.word, difference.found) == ("firmware", found)
    assert ("secure boot" in difference.wanted) == change.get("secure_boot", False)


def test_a_domain_that_is_gone_or_will_be_has_no_definition(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Make
) -> None:
    plan = make()
    assert hypervisor.differences(plan) == (Difference("definition", "defined", "absent"),)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    private_host.virsh("undefine", plan.name)
    (difference,) = hypervisor.differences(plan)
    assert difference.word == "definition"
    assert "not persistent" in difference.found
    hypervisor.ensure_defined(plan)
    assert hypervisor.differences(plan) == ()


def test_looking_for_drift_asks_for_no_cpus(
    hypervisor: LibvirtHost, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(cpu_models=("qemu64",))
    hypervisor.ensure_defined(plan)
    monkeypatch.setattr("backend.hypervisor.accelerator.read_cpu_choice", None)
    assert hypervisor.differences(plan) == ()


def make_panic() -> bytes:
    """Return a disk whose guest says through the panic device that it has crashed: outb(0x505, 1)."""
    code = bytes.fromhex("ba0505b001eef4ebfd")
    return (code.ljust(510, b"\0") + b"\x55\xaa").ljust(SIZE, b"\0")


def make_iso(floppy: bytes) -> bytes:
    """Return an ISO that starts a boot sector as a floppy (El Torito), by the project's own ISO library."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new()
    image = floppy[: 1440 << 10].ljust(1440 << 10, b"\0")
    iso.add_fp(io.BytesIO(image), len(image), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1", media_name="floppy")
    made = io.BytesIO()
    iso.write_fp(made)
    return made.getvalue()
