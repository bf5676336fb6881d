"""Whatever a plan says, its domain is of libvirt's own grammar, and hostile text is only ever text in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from support.domain_plans import check_grammar, make_plan, place

from backend.hypervisor.domain_xml import build_domain, build_machine, read_owner
from backend.hypervisor.machine_xml import CPU_MODES
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan

pytestmark = pytest.mark.libvirt

NAMESPACES = {"kc": "urn:kc:1"}
# libvirt's grammar itself has no newline in a name, and nothing that XML cannot say gets that far.
NAMES = st.text(st.characters(exclude_characters="\n", exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)

hostile = st.text(st.characters(exclude_categories=()), max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | hostile,
    lambda inner: st.dictionaries(hostile, inner, max_size=3) | st.lists(inner, max_size=3),
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
    NicPlan,
    id=ids,
    mac=macs,
    network=st.just("") | ids,
    bridge=st.just("") | ids,
    mtu=st.sampled_from([0, 1400, 9000]),
    tap=st.sampled_from(["", "kt0123456789"]),
    isolated=st.booleans(),
)
machines = st.sampled_from(
    [
        {"arch": arch, "firmware": firmware, "secure_boot": secure}
        for arch in ("x86_64", "aarch64")
        for firmware, secure in (("bios", False), ("uefi", False), ("uefi", True))
    ]
)
plans = st.builds(
    lambda machine, **rest: DomainPlan(**machine, **rest), machine=machines, uid=st.uuids().map(str),
    name=NAMES, version=st.integers(1, 10_000), owner=ids, owner_label=hostile,
    metadata=json_values.map(lambda value: json.dumps(value, ensure_ascii=False)), cpus=st.integers(1, 64),
    memory_mib=st.integers(16, 1 << 20), accelerator=st.sampled_from(["kvm", "qemu"]),
    disks=st.lists(disks, max_size=16).map(tuple), nics=st.lists(nics, max_size=16).map(tuple),
    seed=st.just("") | volumes, console_log=ids, description=hostile, max_cpus=st.integers(0, 128),
    max_memory_mib=st.integers(0, 1 << 20), cdrom=st.just("") | volumes,
    on_crash=st.sampled_from(["restart", "stop", "preserve"]), autostart=st.booleans(),
)  # fmt: skip
models = st.sampled_from(["", "qemu64", "Skylake-Client-noTSX-IBRS", *CPU_MODES])


@settings(max_examples=200, deadline=None)
@given(plans, st.booleans(), st.booleans(), models)
def test_any_plan_makes_a_domain_of_libvirts_grammar(plan: DomainPlan, is_block: bool, log: bool, model: str) -> None:
    root = check_grammar(build_domain(plan, place(plan, is_block=is_block, log=log), model))
    assert root.findtext("name") == plan.name
    assert root.findtext("uuid") == plan.uid
    label = root.find("metadata/kc:vm", NAMESPACES)
    assert label is not None
    # Nothing of the customer's metadata is lost, whatever is in it.
    assert json.loads(label.findtext("kc:metadata", namespaces=NAMESPACES) or "") == json.loads(plan.metadata)
    owner = read_owner(etree.tostring(label, encoding="unicode"))
    assert (owner.owner, owner.version) == (plan.owner, plan.version)
    assert len(root.findall("devices/disk[@device='disk']")) == len(plan.disks)
    assert len(root.findall("devices/disk[@device='cdrom']")) == (2 if plan.seed else 1)
    assert len(root.findall("devices/interface")) == len(plan.nics)
    check_cpus(root, plan)


def check_cpus(root: etree._Element, plan: DomainPlan) -> None:
    maximum = int(root.findtext("vcpu"))
    assert int(root.find("vcpu").get("current", maximum)) == plan.cpus
    topology = root.find("cpu/topology").attrib
    assert int(topology["sockets"]) * int(topology["cores"]) * int(topology["threads"]) == maximum
    listed = root.findall("vcpus/vcpu")
    assert not listed or [item.get("enabled") == "yes" for item in listed] == [
        index < plan.cpus for index in range(maximum)
    ]
    assert int(root.findtext("memory")) >= int(root.findtext("currentMemory")) == plan.memory_mib


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_question_for_a_firmware_is_of_libvirts_grammar(arch: str) -> None:
    check_grammar(build_machine(make_plan(arch=arch, firmware="uefi", secure_boot=True, cpus=12, max_cpus=16)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cdrom": "disc", "max_cpus": 4, "max_memory_mib": 4096, "accelerator": "kvm"},
        {"firmware": "uefi", "secure_boot": True, "cdrom": "disc"},
        {"arch": "aarch64", "firmware": "uefi", "cpus": 12},
        {"disks": tuple(DiskPlan(f"d{n}", f"v{n}", "raw") for n in range(16)),
         "nics": tuple(NicPlan(f"n{n}", f"52:54:00:12:34:{n:02x}") for n in range(16))},
    ],
    ids=["plain", "headroom", "secure-boot", "aarch64", "sixteen"],
)  # fmt: skip
def test_qemu_has_an_option_for_everything_in_it(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = make_plan(nics=(NicPlan("nic0", "52:54:00:12:34:56"),))._replace(**changes)
    file = tmp_path / "domain.xml"
    file.write_text(build_domain(plan, place(plan)))
    command = ["virsh", "-q", "-c", "qemu:///system", "domxml-to-native", "qemu-argv", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for disk in plan.disks:
        assert f"ua-disk-{disk.id}" in done.stdout
    assert "ua-cdrom" in done.stdout
    assert ("pvpanic" in done.stdout) == (plan.arch == "x86_64")
    assert ("smm=on" in done.stdout) == plan.secure_boot
