"""What a running guest tells: its agent's answer, and its addresses."""

from __future__ import annotations

import libvirt

from backend.hypervisor.addresses import read_address
from backend.hypervisor.domains import Domains
from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.link import Link
from backend.hypervisor.plan import Address

AGENT_SECONDS = 2
# The best source first: what the guest says, what it was given, what was seen of it.
_SOURCES = (
    (libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, "agent"),
    (libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, "lease"),
    (libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, "arp"),
)


def answers(link: Link, domains: Domains, uid: str) -> bool:
    """Return whether the guest agent answers a ping within 2 s."""
    import libvirt_qemu  # noqa: PLC0415 - most commands never talk to an agent

    def ping(connection: libvirt.virConnect) -> bool:
        domain = domains.require(connection, uid)
        try:
            libvirt_qemu.qemuAgentCommand(domain, '{"execute": "guest-ping"}', AGENT_SECONDS, 0)
        except libvirt.libvirtError as error:
            if is_lost(error):
                raise
            return False
        return True

    return link.observe(domains.name(uid), ping, AGENT_SECONDS + 3)


def find_addresses(link: Link, domains: Domains, uid: str) -> list[Address]:
    """Return a guest's addresses, each once with its best source; [] when it is off."""

    def fetch(connection: libvirt.virConnect) -> list[Address]:
        domain = domains.require(connection, uid)
        found: dict[str, Address] = {}
        if not domain.isActive():
            return []
        for source, name in _SOURCES:
            for address in _ask(domain, source, name):
                found.setdefault(address.address, address)
        return list(found.values())

    return link.observe(domains.name(uid), fetch, AGENT_SECONDS + 5)


def _ask(domain: libvirt.virDomain, source: int, name: str) -> list[Address]:
    try:
        if name == "agent":
            domain.agentSetResponseTimeout(AGENT_SECONDS)
        interfaces = domain.interfaceAddresses(source)
    except libvirt.libvirtError as error:
        # No agent, no lease, no neighbours: each is the usual case somewhere.
        if is_lost(error) or is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return []
    return [
        address
        for interface in interfaces.values()
        for entry in interface.get("addrs") or ()
        for address in read_address(entry.get("addr"), entry.get("prefix"), interface.get("hwaddr"), name)
    ]
