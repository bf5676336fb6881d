"""Domains that somebody else made: what they are, KC's label on them, and the little of them that KC changes."""

from __future__ import annotations

import uuid
from typing import NamedTuple
from xml.etree.ElementTree import Element

import libvirt

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.hypervisor.domain_xml import MANAGED_KINDS, build_label
from backend.hypervisor.domains import (
    DEFINE_SECONDS,
    Domains,
    check_name,
    check_owner,
    find,
    find_by_name,
    read_owner_of,
    rename,
    set_autostart,
)
from backend.hypervisor.drift import same_description
from backend.hypervisor.foreign_xml import describe_untouched
from backend.hypervisor.link import Link
from backend.hypervisor.live_devices_xml import add_nic, is_in_place, move_nic
from backend.hypervisor.live_xml import LiveDomain, find_surplus_nics, read_live
from backend.hypervisor.plan import DomainPlan, FoundDomain, FoundNic
from backend.hypervisor.states import describe
from backend.hypervisor.xml import NAMESPACE, attribute, child_text, parse, render
from backend.text import sanitise, sanitise_lines

_CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_KIB_PER_MIB = 1024


def find_adoptable(link: Link, name: str) -> FoundDomain | None:
    """Return what KC could manage of the domain of that name or uuid; None where there is none."""

    def fetch(connection: libvirt.virConnect) -> FoundDomain | None:
        domain = find_by_name(connection, name) or _find_by_uuid(connection, name)
        return None if domain is None else _read(domain)

    return link.observe(f"domain {sanitise(name, 100)}", fetch)


def adopt(link: Link, domains: Domains, uid: str, plan: DomainPlan) -> None:
    """Put KC's label on a domain; see `Hypervisor.adopt`."""

    def label(connection: libvirt.virConnect) -> None:
        domain = domains.require(connection, uid)
        found = read_owner_of(domain)
        if found.owner:
            check_owner(domains.name(uid), found, plan.owner)
        _check_persistent(domain, domains.name(uid))
        _write_label(domain, plan, _CONFIG | (_LIVE if domain.isActive() else 0))

    link.control(domains.name(uid), label)


def disown(link: Link, domains: Domains, uid: str, owner: str) -> None:
    """Take KC's label off a domain; see `Hypervisor.disown`."""

    def remove(connection: libvirt.virConnect) -> None:
        domain = find(connection, uid)
        if domain is None:
            return
        found = read_owner_of(domain)
        if not found.owner:
            return
        check_owner(domains.name(uid), found, owner)
        flags = (_CONFIG if domain.isPersistent() else 0) | (_LIVE if domain.isActive() else 0)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, NAMESPACE, flags)

    link.control(domains.name(uid), remove)


def redefine(link: Link, domains: Domains, plan: DomainPlan) -> None:
    """Have an adopted domain be as its plan says when it is started next; see `Hypervisor.ensure_defined`.

    Each thing is changed by libvirt's own call for it, so that everything else stays word for word as it is.
    """
    what = f"VM {plan.name}"

    def change(connection: libvirt.virConnect) -> None:
        domain = find(connection, plan.uid)
        if domain is None:
            why = "its domain is gone, and KC, which has adopted it, cannot make it anew"
            raise NotFoundError(what, why, "define it again with virsh, or delete the VM")
        domains.check_owner(domain, plan)
        _check_persistent(domain, what)
        check_name(connection, plan)
        rename(domain, plan.name)
        root = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        _write_label(domain, plan, _CONFIG)
        if not same_description(plan, child_text(root, "description")):
            text = sanitise(plan.description) or None
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, text, None, None, _CONFIG)
        live = read_live(render(root))
        _change_cpus(domain, plan, live, has_topology=root.find("cpu/topology") is not None)
        is_divided = root.find("cpu/numa") is not None or root.find("devices/memory") is not None
        _change_memory(domain, plan, live, is_divided=is_divided)
        _change_nics(domain, plan, live)
        set_autostart(domain, wanted=plan.autostart)

    link.control(what, change, DEFINE_SECONDS)


def _find_by_uuid(connection: libvirt.virConnect, text: str) -> libvirt.virDomain | None:
    try:
        return find(connection, str(uuid.UUID(text)))
    except ValueError:
        return None


def _read(domain: libvirt.virDomain) -> FoundDomain:
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    root, live = parse(xml), read_live(xml)
    observed = describe(domain.UUIDString(), domain.name(), *domain.state()[:2])
    untouched = describe_untouched(root)
    if not domain.isPersistent():
        untouched = ["the domain is not persistent: define it before it can be adopted", *untouched]
    return FoundDomain(
        uid=observed.uid,
        name=observed.name,
        owner=read_owner_of(domain),
        power=observed.power,
        arch=sanitise(attribute(root, "os/type", "arch")),
        firmware=live.firmware.partition(" ")[0],
        cpus=live.cpus,
        memory_mib=live.memory_mib,
        description=sanitise_lines(child_text(root, "description")),
        autostart=bool(domain.isPersistent() and domain.autostart()),
        nics=tuple(_read_nic(item) for item in root.findall("devices/interface") if item.get("type") in MANAGED_KINDS),
        disks=tuple(sanitise(disk.path) for disk in live.disks if disk.path),
        untouched=tuple(untouched),
    )


def _read_nic(item: Element) -> FoundNic:
    kind = item.get("type", "")
    return FoundNic(
        mac=sanitise(attribute(item, "mac", "address").lower()),
        kind=kind,
        source=sanitise(attribute(item, "source", kind)),
        model=sanitise(attribute(item, "model", "type")),
    )


def _check_persistent(domain: libvirt.virDomain, what: str) -> None:
    if not domain.isPersistent():
        why = "its domain is not persistent: it is gone when it goes off"
        raise RefusedError(what, why, "define it first: `virsh dumpxml NAME > F; virsh define F`")


def _write_label(domain: libvirt.virDomain, plan: DomainPlan, flags: int) -> None:
    label = build_label(plan)
    # libvirt puts all of it into the namespace by itself, and refuses what is there already.
    for part in label.iter():
        part.tag = part.tag.rpartition("}")[2]
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, render(label), "kc", NAMESPACE, flags)


class _Size(NamedTuple):
    """How much there is, and how much there can be without a start."""

    now: int
    maximum: int

    def grow(self, wanted: int, headroom: int, *, is_fixed: bool) -> _Size:
        """Return the size that is wanted; the maximum goes along where it was no headroom, and is not fixed."""
        kept = 0 if self.now == self.maximum and not is_fixed else self.maximum
        return _Size(wanted, max(wanted, headroom, kept))


def _change_cpus(domain: libvirt.virDomain, plan: DomainPlan, live: LiveDomain, *, has_topology: bool) -> None:
    found = _Size(live.cpus, live.maximum_cpus)
    wanted = found.grow(plan.cpus, plan.max_cpus, is_fixed=has_topology)
    if wanted == found:
        return
    if wanted.maximum != found.maximum:
        if has_topology:
            why = f"it has sockets, cores and threads for {found.maximum} CPUs, given by whoever made it"
            raise RefusedError(f"VM {plan.name}", why, "change that first: `virsh edit NAME`, <topology>")
        domain.setVcpusFlags(wanted.maximum, _CONFIG | libvirt.VIR_DOMAIN_VCPU_MAXIMUM)
    domain.setVcpusFlags(wanted.now, _CONFIG)


def _change_memory(domain: libvirt.virDomain, plan: DomainPlan, live: LiveDomain, *, is_divided: bool) -> None:
    found = _Size(live.memory_mib, live.maximum_memory_mib)
    wanted = found.grow(plan.memory_mib, plan.max_memory_mib, is_fixed=is_divided)
    if wanted == found:
        return
    if wanted.maximum != found.maximum:
        if is_divided:
            why = "its memory is divided among NUMA nodes or devices by whoever made it"
            raise RefusedError(f"VM {plan.name}", why, "change that first: `virsh edit NAME`")
        domain.setMemoryFlags(wanted.maximum * _KIB_PER_MIB, _CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
    domain.setMemoryFlags(wanted.now * _KIB_PER_MIB, _CONFIG)


def _change_nics(domain: libvirt.virDomain, plan: DomainPlan, live: LiveDomain) -> None:
    for surplus in find_surplus_nics(live, plan):
        domain.detachDeviceFlags(surplus.xml, _CONFIG)
    for nic in plan.nics:
        found = live.find_nic(nic)
        if found is None:
            domain.attachDeviceFlags(add_nic(nic, None), _CONFIG)
        elif found.kind not in MANAGED_KINDS:
            raise ConflictError(f"VM {plan.name}", f"its NIC {nic.mac} is of another kind", "give it another MAC")
        elif not is_in_place(found, nic):
            domain.updateDeviceFlags(move_nic(found, nic, is_up=True), _CONFIG)
