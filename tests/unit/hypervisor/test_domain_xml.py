"""Domains as XML: as libvirt's own grammar has it, as it was meant, and hostile text only ever as text."""

from __future__ import annotations

import functools
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from backend.errors import RefusedError
from backend.hypervisor.domain_xml import Placement, Source, build_domain, build_probe, read_owner
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan

SCHEMAS = Path("/usr/share/libvirt/schemas")
GOLDEN = Path(__file__).with_name("golden")
NAMESPACES = {"kc": "urn:kc:1"}
POOL = "/var/lib/libvirt/images/kc"
UID = "4cac02f2-4624-4a25-baba-ad7227406426"


@functools.cache
def grammar(name: str) -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(SCHEMAS / f"{name}.rng")))


def check(xml: str, name: str = "domain") -> etree._Element:
    root = etree.fromstring(xml.encode())
    schema = grammar(name)
    assert schema.validate(root), schema.error_log
    return root


def make_plan(**changes: Any) -> DomainPlan:
    plan = DomainPlan(
        uid=UID, name="web-1", version=7, owner="7f0e5d0a", owner_label="kraut@host:/store",
        metadata='{"tenant":"acme"}', arch="x86_64", cpus=2, memory_mib=2048, firmware="bios", accelerator="qemu",
        disks=(DiskPlan("root", f"kc-{UID}-root", "qcow2", "kc-image-1", "raw"),),
        nics=(NicPlan("nic0", "52:54:00:12:34:56", network="kc-default"),),
        seed=f"kc-{UID}-seed", console_log=f"kc-{UID}-console.log", description="the first",
    )  # fmt: skip
    return plan._replace(**changes)


def place(plan: DomainPlan, *, is_block: bool = False, log: bool = True) -> Placement:
    def source(volume: str, volume_format: str) -> Source:
        return Source(f"{POOL}/{volume}", volume_format, is_block)

    def chain(disk: DiskPlan) -> tuple[Source, ...]:
        top = source(disk.volume, disk.format)
        return (top, source(disk.base_volume, disk.base_format)) if disk.base_volume else (top,)

    return Placement(
        disks=tuple(chain(disk) for disk in plan.disks),
        seed=source(plan.seed, "raw") if plan.seed else None,
        console_log=f"{POOL}/{plan.console_log}" if log else "",
    )


CASES = {
    "bios-emulated": (make_plan(), {}),
    "uefi-kvm": (make_plan(firmware="uefi", accelerator="kvm"), {}),
    "aarch64-emulated": (make_plan(arch="aarch64", firmware="uefi", cpus=12), {}),
    "block-and-bridge": (
        make_plan(
            disks=(DiskPlan("root", "root", "raw"), DiskPlan("data", "data", "raw")),
            nics=(NicPlan("wan", "52:54:00:12:34:57", bridge="br0", mtu=9000), NicPlan("", "52:54:00:12:34:58")),
            seed="",
        ),
        {"is_block": True, "log": False},
    ),
}


@pytest.mark.libvirt
@pytest.mark.parametrize("case", CASES)
def test_a_domain_is_as_it_was_meant_and_as_libvirts_grammar_has_it(case: str) -> None:
    plan, options = CASES[case]
    root = check(build_domain(plan, place(plan, **options)))
    etree.indent(root)
    text = etree.tostring(root, encoding="unicode") + "\n"
    golden = GOLDEN / f"{case}.xml"
    assert text == golden.read_text(), f"what was meant is in {golden.name}"


hostile = st.text(st.characters(exclude_categories=()), max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | hostile, lambda inner: st.dictionaries(hostile, inner, max_size=3)
)
ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
volumes = st.text("abcdefghijklmnopqrstuvwxyz0123456789-&'<>é ", min_size=1, max_size=40)
disks = st.builds(
    DiskPlan, id=ids, volume=volumes, format=st.sampled_from(["raw", "qcow2"]), base_volume=st.just("") | volumes,
    base_format=st.sampled_from(["raw", "qcow2"]),
)  # fmt: skip
macs = st.integers(0, 0xFFFFFF).map(
    lambda number: f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
)
nics = st.builds(
    NicPlan, id=ids, mac=macs, network=st.just("") | ids, bridge=st.just("") | ids, mtu=st.sampled_from([0, 1400, 9000])
)
plans = st.builds(
    DomainPlan, uid=st.uuids().map(str), name=ids, version=st.integers(1, 10_000), owner=ids, owner_label=hostile,
    metadata=json_values.map(lambda value: json.dumps(value, ensure_ascii=False)),
    arch=st.sampled_from(["x86_64", "aarch64"]), cpus=st.integers(1, 64), memory_mib=st.integers(16, 1 << 20),
    firmware=st.sampled_from(["bios", "uefi"]), accelerator=st.sampled_from(["kvm", "qemu"]),
    disks=st.lists(disks, max_size=4).map(tuple), nics=st.lists(nics, max_size=4).map(tuple),
    seed=st.just("") | volumes, console_log=ids, description=hostile, max_cpus=st.integers(0, 128),
)  # fmt: skip


@pytest.mark.libvirt
@settings(max_examples=150, deadline=None)
@given(plans, st.booleans(), st.booleans(), st.sampled_from(["", "qemu64"]))
def test_any_plan_makes_a_domain_of_libvirts_grammar(plan: DomainPlan, is_block: bool, log: bool, model: str) -> None:
    root = check(build_domain(plan, place(plan, is_block=is_block, log=log), model))
    assert root.findtext("name") == plan.name
    assert root.findtext("uuid") == plan.uid
    label = root.find("metadata/kc:vm", NAMESPACES)
    assert label is not None
    # Nothing of the customer's metadata is lost, whatever is in it.
    assert json.loads(label.findtext("kc:metadata", namespaces=NAMESPACES) or "") == json.loads(plan.metadata)
    owner = read_owner(etree.tostring(label, encoding="unicode"))
    assert (owner.owner, owner.version) == (plan.owner, plan.version)
    assert len(root.findall("devices/disk[@device='disk']")) == len(plan.disks)
    assert len(root.findall("devices/interface")) == len(plan.nics)


def test_every_disk_says_where_its_chain_ends() -> None:
    plan = make_plan()
    root = etree.fromstring(build_domain(plan, place(plan)))
    for disk in root.findall("devices/disk"):
        assert disk.findall(".//backingStore")[-1].find("source") is None


@pytest.mark.parametrize("count", [1, 26, 27, 60])
def test_disks_and_nics_have_names_of_their_own_and_ports_to_spare(count: int) -> None:
    plan = make_plan(
        disks=tuple(DiskPlan(f"d{index}", f"v{index}", "raw") for index in range(count)),
        nics=tuple(NicPlan(f"n{index}", f"52:54:00:00:00:{index:02x}", network="net") for index in range(count)),
    )
    root = etree.fromstring(build_domain(plan, place(plan)))
    devices = [target.get("dev") for target in root.findall("devices/disk/target")]
    aliases = [alias.get("name") for alias in root.findall("devices//alias")]
    assert len(set(devices)) == count + 1
    assert len(set(aliases)) == 2 * count
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
    plan = make_plan(**changes)
    root = etree.fromstring(build_domain(plan, place(plan)))
    assert (root.findtext("vcpu"), root.find("vcpu").get("current")) == vcpu
    assert root.find("cpu/topology").get("cores") == cores


def test_a_nic_and_a_disk_may_have_the_same_id() -> None:
    plan = make_plan(nics=(NicPlan("root", "52:54:00:12:34:56", network="net"),))
    aliases = [alias.get("name") for alias in etree.fromstring(build_domain(plan, place(plan))).findall(".//alias")]
    assert sorted(aliases) == ["ua-disk-root", "ua-root"]


@pytest.mark.parametrize("wrong", [{"arch": "mips"}, {"firmware": "openboot"}])
def test_what_this_driver_does_not_know_is_refused(wrong: dict[str, str]) -> None:
    plan = make_plan(**wrong)
    with pytest.raises(RefusedError):
        build_domain(plan, place(plan))


@pytest.mark.libvirt
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_probe_writes_to_nothing(arch: str) -> None:
    root = check(build_probe(f"kc-probe-{uuid.uuid4().hex[:8]}", Source("/pool/starter", "raw"), arch, "kvm"))
    assert root.find("devices/disk/readonly") is not None


def test_a_label_of_another_make_is_read_with_care() -> None:
    owner = read_owner('<x:vm xmlns:x="urn:kc:1" owner="a&#155;31m&#8238;" version="many"/>')
    assert owner.owner == "a\ufffd31m\ufffd"
    assert (owner.label, owner.version) == ("", 0)
