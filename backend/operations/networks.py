"""The steps that make a host match a network's document."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from backend.errors import ConflictError
from backend.hypervisor.plan import NetworkPlan
from backend.hypervisor.protocol import Hypervisor
from backend.images.seed import SeedNic
from backend.model.documents import Document
from backend.model.networks import libvirt_name, libvirt_uid
from backend.operations.steps import Context, Step


def plan_network(network: Document) -> NetworkPlan:
    """Return the libvirt network that a document wants."""
    spec = network["spec"]
    return NetworkPlan(
        name=libvirt_name(network),
        uid=libvirt_uid(network),
        uplink=spec["uplink"],
        ipv4_subnet=spec["ipv4"]["subnet"],
        ipv4_mode=spec["ipv4"]["mode"],
        ipv6_subnet=spec["ipv6"]["subnet"],
        ipv6_mode=spec["ipv6"]["mode"],
        mtu=spec["mtu"] or 0,
        dns=tuple(spec["dns"]),
    )


def ensure_network(hypervisor: Hypervisor, network: Document) -> None:
    """Have the libvirt network of a document up; a bridge of the host's own is the operator's affair."""
    if not network["spec"]["uplink"].startswith("bridge:"):
        hypervisor.ensure_network(plan_network(network))


def seed_nic(nic: Document, network: Document) -> SeedNic:
    """Return how the guest is to configure a NIC: its own wish first, the network's mode otherwise."""
    spec = network["spec"]
    modes = {
        family: spec[family]["mode"] if nic[family]["mode"] == "network" else nic[family]["mode"]
        for family in ("ipv4", "ipv6")
    }
    # A network may leave addresses to be static without one being given here: then the NIC has none.
    for family, mode in modes.items():
        if mode == "static" and not nic[family]["address"]:
            modes[family] = "none"
    return SeedNic(
        id=nic["id"],
        mac=nic["mac"],
        ipv4_mode=modes["ipv4"],
        ipv4_address=nic["ipv4"]["address"],
        ipv4_gateway=_gateway(spec, "ipv4", nic["ipv4"]["address"]),
        ipv6_mode=modes["ipv6"],
        ipv6_address=nic["ipv6"]["address"],
        ipv6_gateway=_gateway(spec, "ipv6", nic["ipv6"]["address"]),
        dns=tuple(spec["dns"]),
        mtu=spec["mtu"] or 0,
    )


def _gateway(spec: Document, family: str, address: str) -> str:
    """Return the gateway of a static address: the first host of the network's subnet where the host is the gateway."""
    subnet, gateway = spec[family]["subnet"], spec["gateway"]
    if not address or gateway == "none" or spec["uplink"] == "isolated":
        return ""
    if gateway != "host":
        return str(gateway) if (":" in gateway) == (family == "ipv6") else ""
    if not subnet or ip_interface(address).ip not in ip_network(subnet):
        return ""
    return str(ip_network(subnet).network_address + 1)


def make_network(context: Context) -> None:
    """Define and start the libvirt network."""
    ensure_network(context.hypervisor, context.target)


def change_network(context: Context) -> None:
    """Make the libvirt network what the document says now."""
    if not context.target["spec"]["uplink"].startswith("bridge:"):
        context.hypervisor.replace_network(plan_network(context.target))


def remove_network(context: Context) -> None:
    """Remove the libvirt network, unless a domain of the host, or another KC, may still use it."""
    network = context.target
    if network["spec"]["uplink"].startswith("bridge:"):
        return
    try:
        context.hypervisor.ensure_network_gone(libvirt_name(network), libvirt_uid(network))
    except ConflictError:
        # A segment of several KCs stays for the others; one of ours alone is refused to the caller.
        if not network["spec"]["libvirtNetwork"]:
            raise


PRESENT = (Step("network", "bringing the network up", make_network),)
CHANGED = (Step("network", "changing the network", change_network),)
ABSENT = (Step("network", "removing the network", remove_network),)
