"""The networks of the hypervisor in memory, and the state that all of it shares."""

from __future__ import annotations

import threading
from collections.abc import Callable

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.memory_guest import MemoryDomain
from backend.hypervisor.network_changes import compare_network, keep_bridge
from backend.hypervisor.network_xml import build_network, find_clash
from backend.hypervisor.plan import DomainPlan, NetworkPlan, ObservedNetwork
from backend.hypervisor.protocol import Hint


class MemoryNetworks:
    """The host's networks, its domains, and who listens; `networks` and `domains` may be changed from outside."""

    def __init__(self) -> None:
        self.domains: dict[str, MemoryDomain] = {}
        self.networks: dict[str, ObservedNetwork] = {}
        self.fail: Callable[[str], None] = lambda _call: None
        self._network_plans: dict[str, NetworkPlan] = {}
        self._hints: list[Hint] = []
        self._guard = threading.RLock()

    def _enter(self, call: str) -> None:
        self.fail(call)

    def _domain(self, uid: str) -> MemoryDomain:
        try:
            return self.domains[uid]
        except KeyError:
            raise NotFoundError(f"domain {uid}", "the host has no such domain") from None

    def _check_networks(self, before: DomainPlan, plan: DomainPlan) -> None:
        """Raise NotFoundError or ConflictError for a network that a NIC could not come to now."""
        present = {(nic.mac, nic.network) for nic in before.nics}
        for nic in plan.nics:
            if not nic.network or (nic.mac, nic.network) in present:
                continue
            what = f"network {nic.network}"
            if nic.network not in self.networks:
                raise NotFoundError(what, "the host has no such libvirt network")
            if not self.networks[nic.network].active:
                raise ConflictError(what, "it is not active", "start it")

    def _tell(self, kind: str, uid: str) -> None:
        for hint in list(self._hints):
            hint(kind, uid)

    def list_networks(self) -> list[ObservedNetwork]:
        """Return every network."""
        self._enter("list_networks")
        return list(self.networks.values())

    def ensure_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Define and start the network."""
        self._enter("ensure_network")
        build_network(plan)
        with self._guard:
            if plan.name not in self.networks:
                clash = find_clash(plan, self.networks.values())
                if clash:
                    why = f"its subnet is that of the libvirt network {clash}"
                    raise ConflictError(f"network {plan.name}", why, "choose another subnet")
                self._keep_network(plan)
        self._tell("network", plan.name)
        return self.ensure_network_started(plan.name)

    def replace_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Make the network match a changed plan, and start it."""
        self._enter("replace_network")
        what = f"network {plan.name}"
        with self._guard:
            found = self.networks.get(plan.name)
            if found is None:
                return self.ensure_network(plan)
            if found.uid != plan.uid:
                raise ConflictError(what, "the libvirt network of that name is another one", "it is not touched")
            clash = find_clash(plan, self.networks.values())
            if clash:
                raise ConflictError(what, f"its subnet is that of the libvirt network {clash}", "choose another subnet")
            before = self._network_plans.get(plan.name) or _guess_plan(found)
            users = [one.name for one in self.domains.values() if one.is_on and plan.name in one.networks(now=True)]
            if compare_network(build_network(before), plan) is None and users:
                raise ConflictError(what, f"running on it: {', '.join(users)}", "stop them first")
            self._keep_network(keep_bridge(build_network(before), plan))
        self._tell("network", plan.name)
        return self.networks[plan.name]

    def _keep_network(self, plan: NetworkPlan) -> None:
        self._network_plans[plan.name] = plan
        self.networks[plan.name] = ObservedNetwork(
            plan.name, plan.uid, active=True, bridge=_bridge(plan), uplink=plan.uplink,
            ipv4_subnet=plan.ipv4_subnet, ipv6_subnet=plan.ipv6_subnet, ipv4_mode=plan.ipv4_mode,
            ipv6_mode=plan.ipv6_mode,
        )  # fmt: skip

    def ensure_network_started(self, name: str) -> ObservedNetwork:
        """Start an existing network."""
        self._enter("ensure_network_started")
        if name not in self.networks:
            raise NotFoundError(f"network {name}", "the host has no such libvirt network")
        self.networks[name] = self.networks[name]._replace(active=True)
        return self.networks[name]

    def ensure_network_gone(self, name: str, uid: str) -> None:
        """Remove a network that no domain uses."""
        self._enter("ensure_network_gone")
        with self._guard:
            found = self.networks.get(name)
            if found is None:
                return
            if found.uid != uid:
                raise ConflictError(f"network {name}", "the libvirt network of that name is another one")
            users = [domain.name for domain in self.domains.values() if name in domain.networks()]
            if users:
                raise ConflictError(f"network {name}", f"in use by {', '.join(users)}", "delete what uses it first")
            del self.networks[name]
            self._network_plans.pop(name, None)
        self._tell("network", name)

    def release_lease(self, network: str, mac: str) -> None:
        """Do nothing: leases go with their guests."""
        self._enter("release_lease")
        del network, mac


def _bridge(plan: NetworkPlan) -> str:
    if plan.uplink.startswith("bridge:"):
        return plan.uplink.removeprefix("bridge:")
    return plan.bridge or plan.name[:15]


def _guess_plan(network: ObservedNetwork) -> NetworkPlan:
    """Return the plan of a network that was put there from outside."""
    return NetworkPlan(
        network.name, network.uid, network.uplink, network.bridge, network.ipv4_subnet, network.ipv4_mode,
        network.ipv6_subnet, network.ipv6_mode,
    )  # fmt: skip
