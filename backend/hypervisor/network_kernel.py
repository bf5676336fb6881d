"""What of a segment is the kernel's affair: ports of its bridge, its VXLAN device, and whether all of it is there.

libvirt puts a tap into a bridge when its domain starts, and has no word for doing it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import libvirt

from backend.errors import FailedError, TimedOutError, UnreachableError
from backend.hypervisor.errors import is_code
from backend.hypervisor.xml import attribute, parse
from backend.network.plan import NetworkPlan, NetworkState
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.network.shell import Shell

# ruff: noqa: PLC0415 - a network that has no VXLAN and loses nothing needs few of these

VXLAN_PREFIX = "kx"
_CANNOT_ASK = (UnreachableError, FailedError, TimedOutError)


class Port(NamedTuple):
    """A running domain's device on a segment; `isolated` from others that are."""

    domain: str
    tap: str
    isolated: bool


def running_ports(connection: libvirt.virConnect, network: str, bridge: str = "") -> list[Port]:
    """Return what of running domains is on a libvirt network, or was put onto its bridge by name."""
    ports = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        try:
            text = domain.XMLDesc()
        except libvirt.libvirtError as error:
            # Gone since it was listed.
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                continue
            raise
        for interface in parse(text).iterfind("devices/interface"):
            source = interface.find("source")
            if source is None or not (source.get("network") == network or (bridge and source.get("bridge") == bridge)):
                continue
            tap, isolated = attribute(interface, "target", "dev"), attribute(interface, "port", "isolated") == "yes"
            ports.append(Port(sanitise(domain.name()), tap, isolated))
    return ports


def names_of(ports: Iterable[Port]) -> tuple[str, ...]:
    """Return the names of the domains that ports belong to, each once."""
    return tuple(sorted({port.domain for port in ports}))


def owner_mark(plan: NetworkPlan) -> str:
    """Return the alias by which a VXLAN device is known for a network's."""
    return f"kc:{plan.uid}"


class NetworkKernel:
    """The kernel of the host, as far as somebody lets us ask it."""

    def __init__(self, open_shell: Callable[[], Shell]) -> None:
        self._shell = open_shell

    def look(self, plan: NetworkPlan, bridge: str) -> NetworkState | None:
        """Return what the kernel says of a segment; None where it cannot be asked."""
        from backend.network.truth import look

        try:
            return look(self._shell(), [(plan, bridge)], thorough=False, servers=False)[0]
        except _CANNOT_ASK:
            return None

    def watch(self) -> None:
        """Have the host note who else serves on its segments, where it can."""
        from backend.network.guards import ensure_watch

        with contextlib.suppress(*_CANNOT_ASK):
            ensure_watch(self._shell())

    def attach(self, bridge: str, ports: Iterable[Port], others: Iterable[str] = ()) -> None:
        """Put the taps of domains, and other devices, back into a bridge; what is no longer there is left out."""
        from backend.network.links import attach_ports

        taps = {port.tap: port.isolated for port in ports if port.tap}
        if taps:
            attach_ports(self._shell(), bridge, list(taps), [tap for tap, isolated in taps.items() if isolated])
        rest = [name for name in others if name not in taps and not name.startswith(VXLAN_PREFIX)]
        if rest:
            attach_ports(self._shell(), bridge, rest)

    def try_attach(self, bridge: str, ports: Iterable[Port]) -> bool:
        """Put taps back into a bridge where that can be done; return whether it was."""
        try:
            self.attach(bridge, ports)
        except _CANNOT_ASK:
            return False
        return True

    def ensure_vxlan(self, plan: NetworkPlan, bridge: str) -> None:
        """Have the segment's VXLAN device be as planned, a port of its bridge; without one planned, remove it."""
        from backend.network.links import ensure_vxlan

        if plan.vxlan is None:
            self.ensure_no_vxlan(plan)
        else:
            ensure_vxlan(self._shell(), plan.vxlan, bridge=bridge, mtu=plan.mtu, alias=owner_mark(plan))

    def ensure_no_vxlan(self, plan: NetworkPlan) -> None:
        """Remove the segment's VXLAN device, the one planned or one left behind.

        Where nobody can look and none is planned, none is taken to be there.
        """
        from backend.network.links import ensure_no_vxlan

        device = plan.vxlan.device if plan.vxlan else f"{VXLAN_PREFIX}{plan.uid.replace('-', '')[:10]}"
        try:
            ensure_no_vxlan(self._shell(), device, owner_mark(plan))
        except _CANNOT_ASK:
            if plan.vxlan is not None:
                raise
