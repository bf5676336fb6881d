"""The steps that make a host match a network's document."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from backend.errors import ConflictError
from backend.hypervisor.protocol import Hypervisor
from backend.images.seed import SeedNic
from backend.model.addressing import FAMILIES, Family, dynamic_ranges, host_address, mode_of, plain
from backend.model.documents import Document, complete, is_readable
from backend.model.kinds import NETWORK, VM
from backend.model.networks import is_own, libvirt_name, libvirt_uid, vxlan_device
from backend.model.selectors import parse
from backend.network.plan import DhcpHost, NetworkPlan, Route, Side, Vxlan
from backend.operations.addresses import Given, given_to, list_given
from backend.operations.gateways import resolve_gateway
from backend.operations.guards import ensure_guards
from backend.operations.steps import Context, Step

if TYPE_CHECKING:
    from backend.store.protocol import Store

_DHCP_MODES = ("dhcp", "dhcpv6")
_MOST_ROUNDS = 20


def plan_network(store: Store, network: Document, *, without: str = "", with_clients: bool = True) -> NetworkPlan:
    """Return the segment that a document wants; `without` is the uid of a VM that is about to go.

    Who only looks at a segment needs nothing of what DHCP keeps for VMs, which costs a search: `with_clients`.
    """
    network = complete(network)
    spec = network["spec"]
    gateways = resolve_gateway(store, network)
    serves = with_clients and any(spec[family]["mode"] in _DHCP_MODES for family in ("ipv4", "ipv6"))
    given = [each for each in list_given(store, network) if each.vm_uid != without] if serves else []
    return NetworkPlan(
        name=libvirt_name(network),
        uid=libvirt_uid(network),
        uplink=spec["uplink"],
        ipv4=_plan_side(spec, "ipv4", gateways["ipv4"], given),
        ipv6=_plan_side(spec, "ipv6", gateways["ipv6"], given),
        mtu=spec["mtu"] or 0,
        dns=tuple(spec["dns"]),
        search_domain=spec["searchDomain"],
        vxlan=_plan_vxlan(network),
        shared=bool(spec["libvirtNetwork"]),
    )


def _plan_side(spec: Document, family: Family, gateway: str, given: list[Given]) -> Side:
    side = spec[family]
    hosts = [
        DhcpHost(each["mac"], each["address"], each["hostname"], each["duid"]) for each in side["reservations"]
    ]  # fmt: skip
    if side["mode"] in _DHCP_MODES:
        # A static address is kept too, so that the server gives it to nobody else.
        hosts += [
            DhcpHost(each.mac if family == "ipv4" else "", plain(each.address), each.vm)
            for each in given
            if each.family == family
        ]
    return Side(
        subnet=side["subnet"],
        host=host_address(spec, family),
        mode=side["mode"],
        gateway=gateway,
        ranges=dynamic_ranges(spec, family, (gateway,) if gateway else ()),
        hosts=tuple(hosts),
        routes=tuple(Route(route["to"], route["via"]) for route in side["routes"]),
        ntp=tuple(side["ntp"]),
        lease_seconds=side["leaseSeconds"],
    )


def _plan_vxlan(network: Document) -> Vxlan | None:
    vxlan = network["spec"]["vxlan"]
    if vxlan is None:
        return None
    return Vxlan(
        device=vxlan_device(network),
        vni=vxlan["vni"],
        local=vxlan["local"],
        peers=tuple(vxlan["peers"]),
        group=vxlan["group"],
        port=vxlan["port"],
        underlay=vxlan["dev"],
    )


def ensure_network(store: Store, hypervisor: Hypervisor, network: Document) -> None:
    """Have the segment of a document up, and what its DHCP keeps for clients as the documents say.

    A bridge of the host's own is the operator's affair: it may come later, and its network's status tells.
    """
    if is_own(network):
        _settle(store, network, hypervisor.ensure_network)


def replace_network(store: Store, hypervisor: Hypervisor, network: Document) -> None:
    """Make the segment what its document says."""
    _settle(store, network, hypervisor.replace_network)


def _settle(store: Store, network: Document, apply: Callable[[NetworkPlan], object]) -> None:
    """Apply what the documents say until they say the same before and after.

    Whoever works on another VM of the segment at the same time knows of other documents; the last to apply has seen all
    that were written before.
    """
    plan = plan_network(store, network)
    for _ in range(_MOST_ROUNDS):
        apply(plan)
        now = plan_network(store, store.get(NETWORK.name, network["uid"]) or network)
        if now == plan:
            return
        plan = now


def release_nic(context: Context, network: Document, mac: str) -> None:
    """Have a network forget a NIC of the VM that is about to go: its lease, and what DHCP kept for it."""
    hypervisor, store = context.hypervisor, context.store
    hypervisor.release_lease(libvirt_name(network), mac)
    if not given_to(context.target, network):
        return
    plan = plan_network(store, network, without=context.target["uid"])
    if any(each.name == plan.name and each.active for each in hypervisor.list_networks()):
        hypervisor.ensure_network(plan)


def seed_nic(nic: Document, network: Document, gateways: dict[Family, str]) -> SeedNic:
    """Return how the guest is to configure a NIC: its own wish first, the network's mode otherwise."""
    spec = network["spec"]
    modes: dict[str, str] = {}
    addresses: dict[str, str] = {}
    via: dict[str, str] = {}
    routes: list[tuple[str, str]] = []
    for family in FAMILIES:
        mode, address = mode_of(nic, network, family), nic[family]["address"]
        # A network may leave addresses to be static without one being given here: then the NIC has none.
        modes[family] = "none" if mode == "static" and not address else mode
        addresses[family] = address if modes[family] == "static" else ""
        via[family] = _pick_gateway(spec, family, addresses[family], gateways[family])
        # DHCP tells the routes of IPv4; no router's advertisement of the host's tells those of IPv6.
        if modes[family] == "static" or (family == "ipv6" and modes[family] != "none"):
            routes += [(route["to"], route["via"]) for route in spec[family]["routes"]]
    return SeedNic(
        id=nic["id"],
        mac=nic["mac"],
        ipv4_mode=modes["ipv4"],
        ipv4_address=addresses["ipv4"],
        ipv4_gateway=via["ipv4"],
        ipv6_mode=modes["ipv6"],
        ipv6_address=addresses["ipv6"],
        ipv6_gateway=via["ipv6"],
        dns=_pick_servers(spec, addresses),
        search=(spec["searchDomain"],) if spec["searchDomain"] else (),
        routes=tuple(routes),
        mtu=spec["mtu"] or 0,
    )


def _pick_gateway(spec: Document, family: Family, address: str, gateway: str) -> str:
    """Return whom a static address is to route by: nobody where that is the machine itself, or out of its reach."""
    subnet = spec[family]["subnet"]
    if not address or not gateway or plain(address) == gateway:
        return ""
    if ip_address(gateway).is_link_local:
        return gateway
    return gateway if subnet and ip_interface(address).ip in ip_network(subnet) else ""


def _pick_servers(spec: Document, addresses: dict[str, str]) -> tuple[str, ...]:
    """Return the DNS servers of a NIC: the network's; else, for a static address, the host, which answers there."""
    if spec["dns"]:
        return tuple(spec["dns"])
    hosts = (host_address(spec, family) for family in FAMILIES if addresses[family])
    return tuple(host for host in hosts if host)


def make_network(context: Context) -> None:
    """Bring the segment up."""
    ensure_network(context.store, context.hypervisor, context.target)


def change_network(context: Context) -> None:
    """Make the segment what the document says now."""
    replace_network(context.store, context.hypervisor, context.target)


def guard_vms(context: Context) -> None:
    """Bring the guards of the NICs on the network to what it says now."""
    where = parse(f"spec.nics.network.uid={context.target['uid']}")
    for vm in context.store.list_documents(VM.name, where=where).items:
        if is_readable(vm):
            ensure_guards(context.store, context.hypervisor, complete(vm))


def remove_network(context: Context) -> None:
    """Remove the segment, unless a domain of the host, or another KC, may still use it."""
    try:
        context.hypervisor.ensure_network_gone(plan_network(context.store, context.target))
    except ConflictError:
        # A segment of several KCs stays for the others; one of ours alone is refused to the caller.
        if not context.target["spec"]["libvirtNetwork"]:
            raise


_CHANGE = Step("network", "changing the network", change_network)
PRESENT = (Step("network", "bringing the network up", make_network),)
CHANGED = (_CHANGE, Step("guards", "guarding its ports", guard_vms))
ABSENT = (Step("network", "removing the network", remove_network),)
