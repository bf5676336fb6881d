"""Drift: where a domain's persistent definition is not its plan, because somebody else was at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

import libvirt

from backend.hypervisor.domain_xml import CRASH_ACTIONS, Placement, build_label, read_owner
from backend.hypervisor.domains import Domains, find
from backend.hypervisor.link import Link
from backend.hypervisor.live_devices_xml import LiveNic, is_same
from backend.hypervisor.live_xml import LiveDomain, find_surplus_nics, read_live
from backend.hypervisor.machine_xml import firmware_of, maximum_cpus, maximum_memory
from backend.hypervisor.plan import Difference, DomainPlan, NicPlan
from backend.hypervisor.xml import NAMESPACE, child_text, parse, render
from backend.text import sanitise

ABSENT = "absent"
DESCRIPTION_LENGTH = 2000
_VALUE_LENGTH = 400
_LABEL = f"metadata/{{{NAMESPACE}}}vm"
_METADATA = f"{{{NAMESPACE}}}metadata"
# What libvirt does where the definition says nothing.
_ON_CRASH_DEFAULT = "destroy"


class _Definition(NamedTuple):
    """A domain's persistent definition, and what libvirt keeps beside it."""

    root: Element
    live: LiveDomain
    autostart: bool
    is_active: bool


def find_drift(link: Link, domains: Domains, plan: DomainPlan, placement: Placement) -> tuple[Difference, ...]:
    """Return where the persistent definition is not the plan; see `Hypervisor.differences`."""

    def fetch(connection: libvirt.virConnect) -> _Definition | str:
        domain = find(connection, plan.uid)
        if domain is None:
            return ABSENT
        if not domain.isPersistent():
            return "not persistent: it is gone when it goes off"
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return _Definition(parse(xml), read_live(xml), bool(domain.autostart()), bool(domain.isActive()))

    found = link.observe(domains.name(plan.uid), fetch)
    if isinstance(found, str):
        return (Difference("definition", "defined", found),)
    return tuple(_compare(found, plan, placement))


def same_description(plan: DomainPlan, found: str) -> bool:
    """Return whether a description is a plan's; line breaks and the like are not in a plan's."""
    return sanitise(found, DESCRIPTION_LENGTH).strip() == sanitise(plan.description, DESCRIPTION_LENGTH).strip()


def _compare(found: _Definition, plan: DomainPlan, placement: Placement) -> Iterator[Difference]:
    root, live = found.root, found.live
    yield from _compare_label(found, plan)
    yield from _compare_size(live, plan)
    yield from _compare_nics(live, plan)
    if not plan.adopted:
        if live.firmware != firmware_of(plan):
            yield Difference("firmware", firmware_of(plan), live.firmware)
        yield from _compare_disks(live, plan, placement)
        on_crash = child_text(root, "on_crash") or _ON_CRASH_DEFAULT
        if on_crash != CRASH_ACTIONS[plan.on_crash]:
            words = {action: word for word, action in CRASH_ACTIONS.items()}
            yield Difference("on-crash", plan.on_crash, words.get(on_crash, sanitise(on_crash)))
    if found.autostart != plan.autostart:
        yield Difference("autostart", _yes(plan.autostart), _yes(found.autostart))
    description = child_text(root, "description")
    if not same_description(plan, description):
        yield Difference("description", sanitise(plan.description, _VALUE_LENGTH), sanitise(description, _VALUE_LENGTH))


def _compare_label(found: _Definition, plan: DomainPlan) -> Iterator[Difference]:
    label = found.root.find(_LABEL)
    owner = read_owner(render(label)) if label is not None else None
    if owner is None or owner.owner != plan.owner:
        who = (owner.label or owner.owner) if owner is not None else ""
        yield Difference("owner", plan.owner_label or plan.owner, who or "nobody")
    # One that is on is called as it was started until it is off: that waits, and is no drift.
    is_waiting = found.is_active and label is not None and label.get("name") == build_label(plan).get("name")
    if found.live.name != plan.name and not is_waiting:
        yield Difference("name", plan.name, sanitise(found.live.name, _VALUE_LENGTH))
    if label is None:
        return
    metadata = label.findtext(_METADATA) or ""
    wanted = build_label(plan).findtext(_METADATA) or ""
    if _read_json(metadata) != _read_json(wanted):
        yield Difference("metadata", sanitise(wanted, _VALUE_LENGTH), sanitise(metadata, _VALUE_LENGTH))


def _read_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _compare_size(live: LiveDomain, plan: DomainPlan) -> Iterator[Difference]:
    # Whoever made an adopted domain may have left it more room than its type asks for.
    cpus = max(plan.cpus, plan.max_cpus, live.maximum_cpus) if plan.adopted else maximum_cpus(plan)
    if (live.cpus, live.maximum_cpus) != (plan.cpus, cpus):
        yield Difference("cpus", _room(plan.cpus, cpus), _room(live.cpus, live.maximum_cpus))
    memory = maximum_memory(plan)
    if plan.adopted:
        memory = max(memory, live.maximum_memory_mib)
    if (live.memory_mib, live.maximum_memory_mib) != (plan.memory_mib, memory):
        found = _room(live.memory_mib, live.maximum_memory_mib, " MiB")
        yield Difference("memory", _room(plan.memory_mib, memory, " MiB"), found)


def _room(now: int, maximum: int, unit: str = "") -> str:
    return f"{now}{unit}" if now == maximum else f"{now}{unit}, up to {maximum}{unit}"


def _compare_nics(live: LiveDomain, plan: DomainPlan) -> Iterator[Difference]:
    wanted = {nic.id or nic.mac.lower(): _describe_plan(nic) for nic in plan.nics}
    found: dict[str, str] = {}
    for nic in plan.nics:
        name = nic.id or nic.mac.lower()
        there = live.find_nic(nic)
        if there is not None:
            same = is_same(there, nic, adopted=plan.adopted)
            found[name] = wanted[name] if same else _describe_nic(there)
    for surplus in find_surplus_nics(live, plan):
        # One whose MAC was changed has its id still.
        found.setdefault(surplus.id, _describe_nic(surplus))
    yield from _pair("nic", wanted, found)


def _describe_plan(nic: NicPlan) -> str:
    kind, source = ("bridge", nic.bridge) if nic.bridge else ("network" if nic.network else "user", nic.network)
    if not source:
        return _describe(kind, source, nic.mac.lower())
    return _describe(kind, source, nic.mac.lower(), mtu=nic.mtu, isolated=nic.isolated)


def _describe_nic(nic: LiveNic) -> str:
    return _describe(nic.kind, nic.source, nic.mac, mtu=nic.mtu, isolated=nic.isolated, is_up=nic.is_up)


def _describe(
    kind: str, source: str, mac: str, *, mtu: int = 0, isolated: bool = False, is_up: bool = True
) -> str:  # fmt: skip
    alone = "isolated" if isolated else ""
    parts = (f"{kind} {source}".strip(), mac, f"MTU {mtu}" if mtu else "", alone, "" if is_up else "line down")
    return sanitise(", ".join(filter(None, parts)), _VALUE_LENGTH)


def _compare_disks(live: LiveDomain, plan: DomainPlan, placement: Placement) -> Iterator[Difference]:
    wanted = {disk.id: chain[0].path for disk, chain in zip(plan.disks, placement.disks, strict=True)}
    names = {path: name for name, path in wanted.items()}
    found: dict[str, str] = {}
    for disk in live.disks:
        found.setdefault(names.get(disk.path, disk.id), disk.path or "another kind of source")
    yield from _pair("disk", wanted, found)
    disc = placement.cdrom.path if placement.cdrom is not None else ""
    inside = live.cdrom.path if live.cdrom is not None else None
    if inside != disc:
        shown = "no drive" if inside is None else sanitise(inside, _VALUE_LENGTH) or "no disc"
        yield Difference("cdrom", disc or "no disc", shown)


def _pair(kind: str, wanted: dict[str, str], found: dict[str, str]) -> Iterator[Difference]:
    for name in dict.fromkeys((*wanted, *found)):
        pair = wanted.get(name, ABSENT), found.get(name, ABSENT)
        if pair[0] != pair[1]:
            yield Difference(f"{kind}:{sanitise(name)}", *(sanitise(value, _VALUE_LENGTH) for value in pair))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
