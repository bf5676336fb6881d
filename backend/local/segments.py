"""A network's document beside all others: its gateway found, its VNI chosen, its addresses nobody else's."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from backend.errors import ConflictError, RefusedError
from backend.model.addressing import FAMILIES, VXLAN_OVERHEAD, host_address, mode_of, plain
from backend.model.documents import Document, complete, format_time, is_readable
from backend.model.kinds import NETWORK, VM
from backend.model.network_spec import LARGEST_MTU, LARGEST_VNI, SMALLEST_IPV6_MTU, list_overlaps
from backend.model.networks import is_own
from backend.model.selectors import parse
from backend.operations.addresses import Given, list_given
from backend.operations.gateways import VM_PREFIX, addresses_on, networks_routed_by, resolve_gateway

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
    from backend.store.protocol import Store, Transaction


# --- the gateway
def prepare_network(store: Store, body: Document, live: Document | None = None) -> None:
    """Pin a network's gateway to the VM that it names; raise RefusedError for one that KC cannot make.

    A VM that is not there yet is taken when it comes; the network's status says so until then.
    """
    spec, what = body["spec"], f"network {body['name']}"
    gateway: str = spec["gateway"]
    former = complete(live)["spec"]["gatewayReference"] if live is not None else None
    spec["gatewayReference"] = None
    if gateway.startswith("router:"):
        why = "spec.gateway: this KC makes no routers yet"
        raise RefusedError(what, why, "a VM with two NICs can be it: vm:NAME")
    if not gateway.startswith(VM_PREFIX):
        return
    name, _, nic = gateway.removeprefix(VM_PREFIX).partition("/")
    vm = store.find(VM.name, name)
    if vm is None and former and former["name"] == name:
        vm = store.get(VM.name, former["uid"])
    uid = vm["uid"] if vm is not None else ""
    spec["gatewayReference"] = {"kind": VM.name, "name": name, "uid": uid, "nic": nic, "addresses": []}
    if vm is None or not is_readable(vm):
        return
    if nic and all(each["id"] != nic for each in vm["spec"]["nics"]):
        raise RefusedError(what, f"spec.gateway: VM {name} has no NIC {nic}", f"see kc vm nic list {name}")
    network = {**body, "spec": spec}
    _check_reachable(complete(vm), network, what)
    spec["gatewayReference"]["addresses"] = _list_addresses(complete(vm), network)


def _list_addresses(vm: Document, network: Document) -> list[str]:
    return [address for address in addresses_on(vm, network).values() if address]


def _check_reachable(vm: Document, network: Document, what: str) -> None:
    """Raise RefusedError for a gateway VM that is on the network without an address which is known beforehand."""
    on_it = [nic for nic in vm["spec"]["nics"] if nic["network"]["uid"] == network.get("uid")]
    wanted = [family for family in FAMILIES if network["spec"][family]["subnet"]]
    if not on_it or not wanted or any(addresses_on(vm, network).values()):
        return
    # An IPv6 gateway tells of itself: its advertisements name it by its link-local address.
    if wanted == ["ipv6"] and network["spec"]["ipv6"]["mode"] in ("slaac", "stateless", "dhcpv6"):
        return
    if any(mode_of(nic, network, family) == "static" for nic in on_it for family in wanted):
        return  # KC chooses the address when the VM is written next
    why = f"spec.gateway: {on_it[0]['id']} of VM {vm['name']} has no address there that is known beforehand"
    raise RefusedError(what, why, "give it one: static, or one that DHCP keeps for it")


def check_routed(store: Store, live: Document, body: Document) -> None:
    """Raise ConflictError where a change of a VM would take the gateway from a network, or from static VMs on it."""
    for network in map(complete, networks_routed_by(store, live)):
        before, after = addresses_on(live, network), addresses_on(body, network)
        what = f"VM {live['name']}"
        for family in FAMILIES:
            if before[family] and not after[family]:
                why = f"it is the gateway of network {network['name']}, and would have no address there"
                raise ConflictError(what, why, f"kc network set {network['name']} spec.gateway=none, or another, first")
            if not before[family] or before[family] == after[family]:
                continue
            static = sorted(
                {
                    each.vm
                    for each in list_given(store, network)
                    if each.family == family and each.vm_uid != live["uid"] and _is_static(store, each, network)
                }
            )
            if static:
                why = (
                    f"it is the gateway of network {network['name']}, and VM {', '.join(static[:3])} has its address "
                    f"{before[family]} by a static configuration"
                )
                raise ConflictError(what, why, "leave the address as it is, or take their static addresses away first")


def _is_static(store: Store, given: Given, network: Document) -> bool:
    vm = store.get(VM.name, given.vm_uid)
    nics = vm["spec"]["nics"] if vm is not None else []
    return any(nic["id"] == given.nic and mode_of(nic, network, given.family) == "static" for nic in nics)


def check_no_gateway(store: Store, vm: Document) -> None:
    """Raise ConflictError where a VM that is to be deleted is a network's gateway."""
    routed = [
        network["name"] for network in networks_routed_by(store, vm) if network["spec"]["gatewayReference"]["uid"]
    ]
    if routed:
        hint = f"kc network set {routed[0]} spec.gateway=none, or another, first"
        raise ConflictError(f"VM {vm['name']}", f"it is the gateway of network {', '.join(routed)}", hint)


def follow_gateway(store: Store, transaction: Transaction, body: Document) -> None:
    """Have the networks whose gateway is this VM say so by its uid, its name and the addresses that it has now."""
    for network in map(complete, networks_routed_by(store, body)):
        former = network["spec"]["gatewayReference"]
        addresses = _list_addresses(body, network)
        reference = former | {"uid": body["uid"], "name": body["name"], "addresses": addresses}
        if reference == former:
            continue
        nic = f"/{reference['nic']}" if reference["nic"] else ""
        spec = network["spec"] | {"gateway": f"{VM_PREFIX}{body['name']}{nic}", "gatewayReference": reference}
        rest = {key: value for key, value in network.items() if key not in ("version", "status", "message")}
        change = {"spec": spec, "updatedAt": format_time(), "updatedBy": body["updatedBy"]}
        # The host's own address may have to give way to the gateway's.
        _check_given(store, {**rest, "spec": spec}, f"network {network['name']}")
        transaction.put({**rest, **change, "message": f"its gateway is VM {body['name']}"}, expect=network["version"])


# --- what is one network's alone
def settle_network(store: Store, body: Document) -> None:
    """Choose a VNI where the document leaves it to KC, and raise ConflictError for what is another network's.

    Asked inside the transaction that writes the network.
    """
    others = [
        complete(network)
        for network in store.list_documents(NETWORK.name).items
        if network["uid"] != body["uid"] and is_readable(network)
    ]
    what, spec = f"network {body['name']}", body["spec"]
    if spec["vxlan"] is not None:
        _settle_vni(spec["vxlan"], [other for other in others if other["spec"]["vxlan"] is not None], what)
    for family in FAMILIES:
        subnet = spec[family]["subnet"]
        if subnet and is_own(body):
            theirs = [
                (other["name"], text) for other in others if is_own(other) and (text := other["spec"][family]["subnet"])
            ]
            found = list_overlaps(subnet, theirs)
            if found:
                why = f"spec.{family}.subnet: {subnet} overlaps that of network {found[0]}"
                raise ConflictError(what, why, "choose another subnet")
    _check_given(store, body, what)


def _settle_vni(vxlan: Document, others: list[Document], what: str) -> None:
    taken = {other["spec"]["vxlan"]["vni"]: other["name"] for other in others}
    if vxlan["vni"] is None:
        vxlan["vni"] = next(number for number in range(1, LARGEST_VNI + 1) if number not in taken)
    elif vxlan["vni"] in taken:
        why = f"spec.vxlan.vni: {vxlan['vni']} is that of network {taken[vxlan['vni']]}"
        raise ConflictError(what, why, "choose another, or leave it out and KC chooses")


def _check_given(store: Store, body: Document, what: str) -> None:
    """Raise ConflictError where an address that a VM has on the network no longer fits it."""
    spec = body["spec"]
    gateway = resolve_gateway(store, body)
    for each in list_given(store, body):
        address, family = plain(each.address), each.family
        who = f"{each.nic} of VM {each.vm}"
        subnet = spec[family]["subnet"]
        if subnet and ip_interface(each.address).ip not in ip_network(subnet):
            why = f"spec.{family}.subnet: {address} of {who} is not in {subnet}"
            raise ConflictError(what, why, "change the VM first")
        if address == host_address(spec, family):
            why = f"spec.gateway: the host would need {address}, which is that of {who}"
            raise ConflictError(what, why, f"spec.gateway={address} makes that the gateway; or change the VM first")
        for entry in spec[family]["reservations"]:
            if entry["address"] == address and entry["mac"] != each.mac:
                raise ConflictError(what, f"spec.{family}.reservations: {address} is that of {who}", "choose another")
    for family in FAMILIES:
        reserved = {entry["address"] for entry in spec[family]["reservations"]}
        host = host_address(spec, family)
        if host in reserved:
            raise ConflictError(what, f"spec.{family}.reservations: {host} is the host's own", "choose another")
        if gateway[family] and gateway[family] == host and spec["gateway"] != "host":
            raise ConflictError(what, f"spec.gateway: {host} is the host's own", "say host, or another address")


# --- how large a packet may be
def fit_mtu(hypervisor: Hypervisor, body: Document) -> None:
    """Fill in the MTU of a network with VXLAN; raise RefusedError for one that its underlay does not carry."""
    spec, what = body["spec"], f"network {body['name']}"
    vxlan = spec["vxlan"]
    if vxlan is None:
        return
    underlay = hypervisor.underlay_mtu(vxlan["local"], vxlan["dev"])
    overhead = VXLAN_OVERHEAD[ip_address(vxlan["local"]).version]
    most = min(underlay - overhead, LARGEST_MTU)
    if spec["mtu"] is None:
        spec["mtu"] = most
    if spec["mtu"] > most:
        why = f"spec.mtu: the underlay carries {underlay} bytes, VXLAN takes {overhead}: {most} at most"
        raise RefusedError(what, why, f"leave it out, or --mtu {most}")
    if spec["ipv6"]["mode"] != "none" and spec["mtu"] < SMALLEST_IPV6_MTU:
        why = f"spec.mtu: {spec['mtu']} is what the underlay leaves, and IPv6 needs {SMALLEST_IPV6_MTU} at least"
        raise RefusedError(what, why, "take an underlay with a larger MTU, or leave IPv6 out")


def list_warnings(store: Store, body: Document) -> list[str]:
    """Return what a person should know of a network that was just written."""
    reference = body["spec"].get("gatewayReference")
    if not reference or not is_own(body):
        return []
    if not reference["uid"]:
        return [f"gateway: there is no VM {reference['name']} yet; until there is, the network has no gateway"]
    if not any(resolve_gateway(store, body).values()):
        return [
            f"gateway: VM {reference['name']} has no address here yet: kc vm nic add {reference['name']} --network …"
        ]
    return []


def list_static_users(store: Store, network: Document) -> list[str]:
    """Return the names of the VMs whose guests were configured with a network's gateway when they first booted."""
    names = set()
    for vm in store.list_documents(VM.name, where=parse(f"spec.nics.network.uid={network['uid']}")).items:
        if not is_readable(vm):
            continue
        for nic in vm["spec"]["nics"]:
            if nic["network"]["uid"] == network["uid"] and any(
                mode_of(nic, network, family) == "static" for family in FAMILIES
            ):
                names.add(vm["name"])
    return sorted(names)
