"""Who is the gateway of a network: the host, nobody, an address, or whatever address a VM has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.model.addressing import FAMILIES, Family, gateway_addresses, given_address, host_address, plain
from backend.model.documents import Document, is_readable
from backend.model.kinds import NETWORK, VM
from backend.model.networks import is_own

if TYPE_CHECKING:
    from backend.store.protocol import Store

VM_PREFIX = "vm:"


def resolve_gateway(store: Store, network: Document, vm: Document | None = None) -> dict[Family, str]:
    """Return the address of a network's gateway in each family, plain; empty where there is none.

    `vm` is what the gateway VM is about to be; by default it is as the store has it.
    """
    spec = network["spec"]
    gateway: str = spec["gateway"]
    if gateway == "host":
        # A segment without an uplink leads nowhere, and a bridge's host is no router for all we know.
        routes = is_own(network) and spec["uplink"] != "isolated"
        return {family: host_address(spec, family) if routes else "" for family in FAMILIES}
    if gateway.startswith(VM_PREFIX):
        found = vm or find_gateway_vm(store, network)
        return addresses_on(found, network) if found is not None else dict.fromkeys(FAMILIES, "")
    addresses = gateway_addresses(spec)
    return {
        "ipv4": next((address for address in addresses if ":" not in address), ""),
        "ipv6": next((address for address in addresses if ":" in address), ""),
    }


def find_gateway_vm(store: Store, network: Document) -> Document | None:
    """Return the VM that is a network's gateway: the one that it is pinned to, else the one of that name."""
    reference = network["spec"].get("gatewayReference")
    if not reference:
        return None
    vm = store.get(VM.name, reference["uid"]) if reference["uid"] else store.find(VM.name, reference["name"])
    return vm if vm is not None and is_readable(vm) else None


def addresses_on(vm: Document, network: Document) -> dict[Family, str]:
    """Return the addresses that a gateway VM has on its network: on the NIC that is named, else on its first there."""
    reference = network["spec"].get("gatewayReference") or {}
    nics = [nic for nic in vm["spec"]["nics"] if nic["network"]["uid"] == network["uid"]]
    wanted = reference.get("nic", "")
    found: dict[Family, str] = dict.fromkeys(FAMILIES, "")
    for nic in nics:
        if wanted and nic["id"] != wanted:
            continue
        for family in FAMILIES:
            found[family] = found[family] or plain(given_address(nic, network, family))
    return found


def is_gateway(nic: Document, vm: Document, network: Document) -> bool:
    """Return whether a VM's NIC is the gateway of its network, by reference or by an address that it is given."""
    spec = network["spec"]
    if str(spec["gateway"]).startswith(VM_PREFIX):
        reference = spec.get("gatewayReference") or {}
        is_it = reference.get("uid") == vm["uid"] if reference.get("uid") else reference.get("name") == vm["name"]
        return bool(is_it and reference.get("nic", "") in ("", nic["id"]))
    return any(plain(given_address(nic, network, family)) in gateway_addresses(spec) for family in FAMILIES)


def networks_routed_by(store: Store, vm: Document) -> list[Document]:
    """Return the networks whose gateway is this VM, by reference."""
    from backend.model.selectors import parse  # noqa: PLC0415 - the list of VMs needs none

    found: dict[str, Document] = {}
    for term in (f"uid={vm['uid']}", f"name={vm['name']}"):
        for network in store.list_documents(NETWORK.name, where=parse(f"spec.gatewayReference.{term}")).items:
            reference = network["spec"]["gatewayReference"]
            if is_readable(network) and reference["uid"] in ("", vm["uid"]):
                found[network["uid"]] = network
    return list(found.values())
