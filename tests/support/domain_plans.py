"""Plans of domains for tests that need no host, where their volumes would be, and libvirt's own grammar."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from lxml import etree

from backend.hypervisor.domain_xml import Placement, Source
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan

SCHEMAS = Path("/usr/share/libvirt/schemas")
POOL = "/var/lib/libvirt/images/kc"
UID = "4cac02f2-4624-4a25-baba-ad7227406426"


@functools.cache
def grammar(name: str) -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(SCHEMAS / f"{name}.rng")))


def check_grammar(xml: str, name: str = "domain") -> etree._Element:
    """Return the root of a document that libvirt's grammar has."""
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
    """Return where a plan's volumes would be."""

    def source(volume: str, volume_format: str) -> Source:
        return Source(f"{POOL}/{volume}", volume_format, is_block)

    def chain(disk: DiskPlan) -> tuple[Source, ...]:
        top = source(disk.volume, disk.format)
        return (top, source(disk.base_volume, disk.base_format)) if disk.base_volume else (top,)

    return Placement(
        disks=tuple(chain(disk) for disk in plan.disks),
        seed=source(plan.seed, "raw") if plan.seed else None,
        console_log=f"{POOL}/{plan.console_log}" if log else "",
        cdrom=source(plan.cdrom, "raw") if plan.cdrom else None,
    )
