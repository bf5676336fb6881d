"""What the NICs of a VM may not do, from its document and its networks' to the guards of their ports."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from backend.errors import FailedError, UnreachableError
from backend.model.addressing import effective_guard, effective_rates
from backend.model.documents import Document, complete
from backend.model.kinds import NETWORK
from backend.model.networks import tap_device
from backend.network.plan import PortGuard
from backend.operations.gateways import is_gateway

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
    from backend.store.protocol import Store


def plan_guards(store: Store, vm: Document) -> list[tuple[str, PortGuard]]:
    """Return the guards of a VM's NICs, each with the NIC's id; the ports of an adopted one are somebody else's."""
    if vm["spec"]["adopted"]:
        return []
    guards = []
    for nic in vm["spec"]["nics"]:
        network = store.get(NETWORK.name, nic["network"]["uid"])
        if network is not None:
            guards.append((nic["id"], plan_guard(nic, vm, complete(network))))
    return guards


def plan_guard(nic: Document, vm: Document, network: Document) -> PortGuard:
    """Return the guard of one NIC of a VM."""
    gateway = is_gateway(nic, vm, network)
    guard = effective_guard(nic, network, is_gateway=gateway)
    receive, send = effective_rates(nic, network)
    return PortGuard(
        tap=tap_device(vm["uid"], nic["id"]),
        mac=nic["mac"],
        mac_only=guard["antiSpoof"] != "off",
        ipv4=None if guard["ipv4"] is None else tuple(guard["ipv4"]),
        ipv6=None if guard["ipv6"] is None else tuple(guard["ipv6"]),
        strict=guard["strict"],
        no_dhcp_server=guard["dhcpGuard"],
        no_router=guard["raGuard"],
        receive_rate=receive,
        send_rate=send,
        # Whoever others are to reach may not be kept from them.
        isolated=guard["isolated"] and not gateway,
    )


def ensure_guards(store: Store, hypervisor: Hypervisor, vm: Document) -> None:
    """Have the guards of a VM's NICs set up.

    Where the host cannot, what nobody asked for by name is let go (the VM's status tells); what somebody did raises
    FailedError or UnreachableError.
    """
    try:
        hypervisor.ensure_guards(store.identity, vm["uid"], [guard for _, guard in plan_guards(store, vm)])
    except (FailedError, UnreachableError):
        if _is_demanded(store, vm):
            raise


def drop_guards(store: Store, hypervisor: Hypervisor, vm: Document) -> None:
    """Remove the guards of a VM that goes; where nobody can, they stay, for a device that never comes back."""
    with suppress(FailedError, UnreachableError):
        hypervisor.ensure_guards(store.identity, vm["uid"], ())


def _is_demanded(store: Store, vm: Document) -> bool:
    """Return whether anything of the guards goes beyond `auto`."""
    for nic in vm["spec"]["nics"]:
        network = store.get(NETWORK.name, nic["network"]["uid"])
        if network is None:
            continue
        network = complete(network)
        wishes: dict[str, Any] = {
            field: own if (own := nic["guard"][field]) != "network" else network["spec"]["guard"][field]
            for field in ("antiSpoof", "dhcpGuard", "raGuard")
        }
        if any(effective_rates(nic, network)) or any(wish not in ("auto", "off") for wish in wishes.values()):
            return True
    return False
