"""Domains as XML, as they were meant."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from support.domain_plans import check_grammar, make_plan, place

from backend.errors import RefusedError
from backend.hypervisor.domain_xml import Source, build_cdrom, build_domain, build_probe, read_owner
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan

GOLDEN = Path(__file__).with_name("golden")

CASES = {
    "bios-emulated": (make_plan(), {}),
    "uefi-kvm": (make_plan(firmware="uefi", accelerator="kvm"), {}),
    "secure-boot-headroom": (
        make_plan(
            firmware="uefi", secure_boot=True, max_cpus=4, max_memory_mib=4096, cdrom="kc-image-2", on_crash="preserve"
        ),
        {},
    ),
    "aarch64-emulated": (make_plan(arch="aarch64", firmware="uefi", cpus=12, max_cpus=16, on_crash="stop"), {}),
    "block-and-bridge": (
        make_plan(
            disks=(DiskPlan("root", "root", "raw"), DiskPlan("data", "data", "raw")),
            nics=(
                NicPlan("wan", "52:54:00:12:34:57", bridge="br0", mtu=9000, tap="kt0123456789", isolated=True),
                NicPlan("", "52:54:00:12:34:58", tap="kt9876543210", isolated=True),
            ),
            seed="",
        ),
        {"is_block": True, "log": False},
    ),
}


def build(plan: DomainPlan, **options: Any) -> etree._Element:
    return etree.fromstring(build_domain(plan, place(plan), **options).encode())


@pytest.mark.libvirt
@pytest.mark.parametrize("case", CASES)
def test_a_domain_is_as_it_was_meant_and_as_libvirts_grammar_has_it(case: str) -> None:
    plan, options = CASES[case]
    root = check_grammar(build_domain(plan, place(plan, **options)))
    etree.indent(root)
    text = etree.tostring(root, encoding="unicode") + "\n"
    golden = GOLDEN / f"{case}.xml"
    assert text == golden.read_text(), f"what was meant is in {golden.name}"


def test_every_disk_says_where_its_chain_ends() -> None:
    for disk in build(make_plan(cdrom="disc")).findall("devices/disk"):
        assert disk.findall(".//backingStore")[-1].find("source") is None


@pytest.mark.parametrize("count", [1, 26, 27, 60])
def test_disks_and_nics_have_names_of_their_own_and_ports_to_spare(count: int) -> None:
    root = build(
        make_plan(
            disks=tuple(DiskPlan(f"d{index}", f"v{index}", "raw") for index in range(count)),
            nics=tuple(NicPlan(f"n{index}", f"52:54:00:00:00:{index:02x}", network="net") for index in range(count)),
            cdrom="disc",
        )
    )
    devices = [target.get("dev") for target in root.findall("devices/disk/target")]
    aliases = [alias.get("name") for alias in root.findall("devices//alias")]
    orders = [int(boot.get("order")) for boot in root.findall("devices/disk/boot")]
    # The seed and the drive for discs too, of which only the drive has an alias and its turn, the last.
    assert len(set(devices)) == count + 2
    assert len(set(aliases)) == 2 * count + 1
    assert orders == sorted(set(orders))
    assert len(orders) == count + 1
    assert len(root.findall("devices/controller[@model='pcie-root-port']")) >= 2 * count + 3 + 1 + 8


@pytest.mark.parametrize(
    ("changes", "vcpu", "cores"),
    [
        ({"max_cpus": 8}, ("8", "2"), "8"),
        ({"max_cpus": 1}, ("2", None), "2"),
        # This machine takes no CPUs while it runs.
        ({"max_cpus": 8, "arch": "aarch64", "firmware": "uefi"}, ("2", None), "2"),
    ],
)
def test_there_is_room_for_as_many_cpus_as_wanted(
    changes: dict[str, Any], vcpu: tuple[str, str | None], cores: str
) -> None:
    root = build(make_plan(**changes))
    assert (root.findtext("vcpu"), root.find("vcpu").get("current")) == vcpu
    assert root.find("cpu/topology").get("cores") == cores


def test_cpus_have_room_to_grow_into() -> None:
    vcpu = build(make_plan(cpus=2, max_cpus=4)).find("vcpu")
    assert vcpu is not None
    assert (vcpu.text, vcpu.get("current")) == ("4", "2")
    alone = build(make_plan(cpus=4, arch="aarch64", firmware="uefi")).find("vcpu")
    assert alone is not None
    assert (alone.text, alone.get("current")) == ("4", None)


@pytest.mark.parametrize(("maximum", "memory"), [(0, "2048"), (1024, "2048"), (8192, "8192")])
def test_there_is_room_for_as_much_memory_as_wanted(maximum: int, memory: str) -> None:
    root = build(make_plan(max_memory_mib=maximum))
    assert (root.findtext("memory"), root.findtext("currentMemory")) == (memory, "2048")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("disc", [None, Source("/pool/disc", "raw"), Source("/dev/disc", "raw", is_block=True)])
def test_the_drive_is_there_with_a_disc_or_without(arch: str, disc: Source | None) -> None:
    drive = build_cdrom(arch, disc)
    source = drive.find("source")
    assert drive.get("type") == ("block" if disc is not None and disc.is_block else "file")
    assert (None if source is None else source.get("file") or source.get("dev")) == (disc and disc.path)
    # An empty one is nothing to start from: SeaBIOS would wait for it.
    assert (drive.find("boot") is None) == (disc is None)
    plan = make_plan(seed="", arch=arch, firmware="uefi")
    root = build(plan)
    assert root.find("devices/controller[@model='virtio-scsi']") is not None
    assert root.find("devices/disk/alias[@name='ua-cdrom']") is not None


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_secure_boot_has_keys_and_variables_of_its_own(arch: str) -> None:
    plan = make_plan(firmware="uefi", arch=arch)
    plain, secure = build(plan), build(plan._replace(secure_boot=True))
    features = {item.get("name"): item.get("enabled") for item in secure.findall("os/firmware/feature")}
    assert features == {"enrolled-keys": "yes", "secure-boot": "yes"}
    assert (secure.find("features/smm") is not None) == (arch == "x86_64")
    assert plain.find("features/smm") is None
    assert plain.findtext("os/nvram") != secure.findtext("os/nvram")
    # Named after the uid: another name changes nothing, and no other domain finds it.
    assert build(plan._replace(name="web-2")).findtext("os/nvram") == plain.findtext("os/nvram")
    assert plan.uid in plain.findtext("os/nvram")


@pytest.mark.parametrize(
    ("policy", "action"), [("restart", "restart"), ("stop", "destroy"), ("preserve", "preserve")]
)  # fmt: skip
def test_a_crash_is_told_and_answered(policy: str, action: str) -> None:
    root = build(make_plan(on_crash=policy))
    assert root.findtext("on_crash") == action
    assert root.find("devices/panic").get("model") == "isa"


@pytest.mark.parametrize(
    ("model", "changes", "mode", "name"),
    [
        ("", {}, "maximum", None),
        ("", {"accelerator": "kvm"}, "host-model", None),
        ("", {"arch": "aarch64", "firmware": "uefi"}, "custom", "cortex-a57"),
        ("", {"arch": "aarch64", "firmware": "uefi", "accelerator": "kvm"}, "host-passthrough", None),
        ("Skylake-Client", {}, "custom", "Skylake-Client"),
        ("host-passthrough", {"accelerator": "kvm"}, "host-passthrough", None),
        ("maximum", {"arch": "aarch64", "firmware": "uefi"}, "maximum", None),
    ],
)
def test_a_cpu_is_a_model_or_a_mode(model: str, changes: dict[str, str], mode: str, name: str | None) -> None:
    cpu = build(make_plan(**changes), cpu_model=model).find("cpu")
    assert (cpu.get("mode"), cpu.findtext("model") or None) == (mode, name)
    assert cpu.find("topology") is not None


def test_a_domain_that_is_on_keeps_its_name_and_its_label_has_the_new_one() -> None:
    root = build(make_plan(name="new"), name="old")
    assert root.findtext("name") == "old"
    assert root.find("metadata/{urn:kc:1}vm").get("name") == "new"


def test_a_nic_and_a_disk_may_have_the_same_id() -> None:
    plan = make_plan(nics=(NicPlan("root", "52:54:00:12:34:56", network="net"),))
    aliases = [alias.get("name") for alias in build(plan).findall(".//alias")]
    assert sorted(aliases) == ["ua-cdrom", "ua-disk-root", "ua-root"]


@pytest.mark.parametrize(
    "wrong", [{"arch": "mips"}, {"firmware": "openboot"}, {"secure_boot": True}, {"on_crash": "pray"}]
)
def test_what_this_driver_does_not_know_is_refused(wrong: dict[str, Any]) -> None:
    plan = make_plan(**wrong)
    with pytest.raises(RefusedError) as caught:
        build_domain(plan, place(plan))
    assert caught.value.hint


@pytest.mark.libvirt
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_probe_writes_to_nothing(arch: str) -> None:
    xml = build_probe(f"kc-probe-{uuid.uuid4().hex[:8]}", Source("/pool/starter", "raw"), arch, "kvm")
    assert check_grammar(xml).find("devices/disk/readonly") is not None


def test_a_label_of_another_make_is_read_with_care() -> None:
    owner = read_owner('<x:vm xmlns:x="urn:kc:1" owner="a&#155;31m&#8238;" version="many"/>')
    assert owner.owner == "a\ufffd31m\ufffd"
    assert (owner.label, owner.version) == ("", 0)
