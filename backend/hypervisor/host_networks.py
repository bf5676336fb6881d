"""The networks of the real hypervisor: libvirt's, and what of them is the kernel's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backend.hypervisor.host_parts import HostParts, Part
from backend.hypervisor.plan import Address, ObservedNetwork

if TYPE_CHECKING:
    from backend.hypervisor.networks import Networks
    from backend.network.plan import NetworkPlan, NetworkState, Obstacle, PortDrops, PortGuard
    from backend.network.shell import Shell

# ruff: noqa: PLC0415 - a list of VMs needs none of these


class HostNetworks(HostParts):
    """The methods of a host that concern networks; each is as the protocol says."""

    @Part
    def _networks(self) -> Networks:
        from backend.hypervisor.networks import Networks

        return Networks(self._link, lambda: self._shell)

    @Part
    def _shell(self) -> Shell:
        from backend.network.shell import open_shell

        return open_shell(self._link.uri)

    def leases(self, networks: list[str]) -> list[Address]:
        """Return the DHCP leases of libvirt networks."""
        from backend.hypervisor.leases import list_leases

        return list_leases(self._link, networks)

    def release_lease(self, network: str, mac: str) -> None:
        """Have the DHCP server forget the leases of `mac`."""
        from backend.hypervisor.leases import release_lease

        release_lease(self._link, network, mac)

    def list_networks(self) -> list[ObservedNetwork]:
        """Return every libvirt network."""
        return self._networks.list_all()

    def ensure_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Have the network up."""
        return self._networks.ensure(plan)

    def replace_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Make the network match a changed plan."""
        return self._networks.replace(plan)

    def would_cut(self, plan: NetworkPlan) -> tuple[str, ...]:
        """Return whom a change would leave without a line for a moment."""
        return self._networks.would_cut(plan)

    def ensure_network_started(self, name: str) -> ObservedNetwork:
        """Start an existing network."""
        return self._networks.ensure_started(name)

    def ensure_network_gone(self, plan: NetworkPlan) -> None:
        """Remove the network."""
        self._networks.ensure_gone(plan)

    def network_states(self, plans: Sequence[NetworkPlan], *, thorough: bool = False) -> list[NetworkState]:
        """Return what the kernel says of segments."""
        from backend.network.truth import look

        if not plans:
            return []
        return look(
            self._shell, [(plan, plan.bridge) for plan in self._networks.with_bridges(plans)], thorough=thorough
        )

    def network_obstacles(self, plans: Sequence[NetworkPlan]) -> list[Obstacle]:
        """Return what stands in the way of networks on the host."""
        from backend.network.obstacles import find_obstacles

        return find_obstacles(self._shell, self._networks.with_bridges(plans)) if plans else []

    def underlay_mtu(self, local: str, device: str = "") -> int:
        """Return the MTU of a device."""
        from backend.network.links import underlay_mtu

        return underlay_mtu(self._shell, local, device)

    def ensure_guards(self, owner: str, uid: str, guards: Sequence[PortGuard]) -> None:
        """Have the guards of a VM's NICs be these."""
        from backend.network.guards import ensure

        ensure(self._shell, owner, uid, guards)

    def guard_drops(self, owner: str, uid: str) -> list[PortDrops]:
        """Return what the guards of a VM's NICs have dropped."""
        from backend.network.guards import drops

        return drops(self._shell, owner, uid)

    def ensure_no_guards(self, owner: str, keep: Sequence[str]) -> None:
        """Remove the guards of an owner's VMs but of those to keep."""
        from backend.network.guards import ensure_none_but

        ensure_none_but(self._shell, owner, keep)
