"""The networks of the hypervisor in memory, and the state that all of it shares."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_network

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.hypervisor.memory_guest import MemoryDomain
from backend.hypervisor.network_changes import compare_network
from backend.hypervisor.network_xml import build_network, find_clash, read_network
from backend.hypervisor.plan import DomainPlan, ObservedNetwork
from backend.hypervisor.protocol import Hint
from backend.network.plan import NetworkPlan, NetworkState, Obstacle, PortDrops, PortGuard, Side

UNDERLAY_MTU = 1500


class MemoryNetworks:
    """The host's networks, its domains, and who listens; all that is public may be changed from outside.

    `network_plans` are what the networks were made by. `network_state` of a network's name takes the place of what
    follows from its plan; `missing_bridges` are bridges of the host's own that are not there. `guards` are those of
    each (owner, VM's uid), `dropped` what those of a tap have dropped, by the reason.
    """

    def __init__(self) -> None:
        self.domains: dict[str, MemoryDomain] = {}
        self.networks: dict[str, ObservedNetwork] = {}
        self.network_plans: dict[str, NetworkPlan] = {}
        self.network_state: dict[str, NetworkState] = {}
        self.missing_bridges: set[str] = set()
        self.obstacles: list[Obstacle] = []
        self.guards: dict[tuple[str, str], tuple[PortGuard, ...]] = {}
        self.dropped: dict[str, dict[str, int]] = {}
        self.fail: Callable[[str], None] = lambda _call: None
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
        """Have the network up."""
        self._enter("ensure_network")
        if plan.uplink.startswith("bridge:"):
            return self._find_bridge(plan)
        build_network(plan)
        with self._guard:
            found = self.networks.get(plan.name)
            if found is None:
                self._check_clash(plan)
                self._keep_network(plan)
            elif found.uid == plan.uid or plan.shared:
                self._keep_clients(plan)
        self._tell("network", plan.name)
        return self.ensure_network_started(plan.name)

    def replace_network(self, plan: NetworkPlan) -> ObservedNetwork:
        """Make the network match a changed plan, and start it."""
        self._enter("replace_network")
        if plan.uplink.startswith("bridge:"):
            bridge = self._find_bridge(plan)
            self.ensure_network_gone(plan._replace(uplink="isolated"))
            return bridge
        build_network(plan)
        with self._guard:
            found = self.networks.get(plan.name)
            if found is None:
                return self.ensure_network(plan)
            if found.uid != plan.uid:
                why = "the libvirt network of that name is another one"
                raise ConflictError(f"network {plan.name}", why, "it is not touched")
            self._check_clash(plan)
            self._keep_network(plan._replace(bridge=plan.bridge or found.bridge))
        self._tell("network", plan.name)
        return self.networks[plan.name]

    def would_cut(self, plan: NetworkPlan) -> tuple[str, ...]:
        """Return the running domains on a network of which more changes than can be changed under them."""
        self._enter("would_cut")
        with self._guard:
            found = self.networks.get(plan.name)
            if found is None or not found.active or found.uid != plan.uid or plan.uplink.startswith("bridge:"):
                return ()
            before = self.network_plans.get(plan.name) or _guess_plan(found)
            if compare_network(build_network(before), plan) is not None:
                return ()
            users = (one for one in self.domains.values() if one.is_on and plan.name in one.networks(now=True))
            return tuple(sorted(one.name for one in users))

    def ensure_network_started(self, name: str) -> ObservedNetwork:
        """Start an existing network."""
        self._enter("ensure_network_started")
        if name not in self.networks:
            raise NotFoundError(f"network {name}", "the host has no such libvirt network")
        self.networks[name] = self.networks[name]._replace(active=True)
        return self.networks[name]

    def ensure_network_gone(self, plan: NetworkPlan) -> None:
        """Remove a network that no domain uses."""
        self._enter("ensure_network_gone")
        with self._guard:
            found = self.networks.get(plan.name)
            if found is None or plan.uplink.startswith("bridge:"):
                return
            if found.uid != plan.uid:
                raise ConflictError(f"network {plan.name}", "the libvirt network of that name is another one")
            users = [domain.name for domain in self.domains.values() if plan.name in domain.networks()]
            if users:
                why = f"in use by {', '.join(users)}"
                raise ConflictError(f"network {plan.name}", why, "delete what uses it first")
            del self.networks[plan.name]
            self.network_plans.pop(plan.name, None)
        self._tell("network", plan.name)

    def network_states(self, plans: Sequence[NetworkPlan], *, thorough: bool = False) -> list[NetworkState]:
        """Return what was set for each network, else what a healthy host would say."""
        self._enter("network_states")
        return [self.network_state.get(plan.name) or self._healthy(plan, thorough=thorough) for plan in plans]

    def network_obstacles(self, plans: Sequence[NetworkPlan]) -> list[Obstacle]:
        """Return what was set."""
        self._enter("network_obstacles")
        return list(self.obstacles) if plans else []

    def underlay_mtu(self, local: str, device: str = "") -> int:
        """Return that of Ethernet."""
        self._enter("underlay_mtu")
        if not (local or device):
            raise RefusedError("the VXLAN's device", "neither an address nor a name is given")
        return UNDERLAY_MTU

    def ensure_guards(self, owner: str, uid: str, guards: Sequence[PortGuard]) -> None:
        """Have the guards of a VM's NICs be these."""
        self._enter("ensure_guards")
        with self._guard:
            if guards:
                self.guards[owner, uid] = tuple(guards)
            else:
                self.guards.pop((owner, uid), None)

    def guard_drops(self, owner: str, uid: str) -> list[PortDrops]:
        """Return what was set for the taps of a VM."""
        self._enter("guard_drops")
        guards = self.guards.get((owner, uid), ())
        return [PortDrops(guard.tap, tuple(sorted(self.dropped.get(guard.tap, {}).items()))) for guard in guards]

    def ensure_no_guards(self, owner: str, keep: Sequence[str]) -> None:
        """Remove the guards of an owner's other VMs."""
        self._enter("ensure_no_guards")
        with self._guard:
            self.guards = {key: each for key, each in self.guards.items() if key[0] != owner or key[1] in keep}

    def release_lease(self, network: str, mac: str) -> None:
        """Do nothing: leases go with their guests."""
        self._enter("release_lease")
        del network, mac

    def _check_clash(self, plan: NetworkPlan) -> None:
        clash = find_clash(plan, self.networks.values())
        if clash:
            why = f"its subnet is that of the libvirt network {clash}"
            raise ConflictError(f"network {plan.name}", why, "choose another subnet")

    def _find_bridge(self, plan: NetworkPlan) -> ObservedNetwork:
        bridge = plan.uplink.removeprefix("bridge:")
        if bridge in self.missing_bridges:
            raise NotFoundError(f"bridge {bridge}", "the host has no such bridge")
        return ObservedNetwork(plan.name, plan.uid, active=True, bridge=bridge, uplink=plan.uplink)

    def _keep_network(self, plan: NetworkPlan) -> None:
        kept = plan._replace(bridge=plan.bridge or plan.name[:15])
        self.network_plans[plan.name] = kept
        self.networks[plan.name] = read_network(build_network(kept), active=True)

    def _keep_clients(self, plan: NetworkPlan) -> None:
        """Bring what DHCP keeps for clients to the plan, and nothing else; of a shared network nothing goes."""
        before = self.network_plans.get(plan.name) or _guess_plan(self.networks[plan.name])
        sides = []
        for old, new in ((before.ipv4, plan.ipv4), (before.ipv6, plan.ipv6)):
            known = {host.mac or host.duid or host.hostname for host in new.hosts}
            others = [host for host in old.hosts if (host.mac or host.duid or host.hostname) not in known]
            sides.append(old._replace(hosts=(*(others if plan.shared else ()), *new.hosts)))
        self.network_plans[plan.name] = before._replace(ipv4=sides[0], ipv6=sides[1], vxlan=plan.vxlan)

    def _healthy(self, plan: NetworkPlan, *, thorough: bool) -> NetworkState:
        is_own = not plan.uplink.startswith("bridge:")
        found = self.networks.get(plan.name) if is_own else None
        bridge = (found.bridge if found is not None else "") if is_own else plan.uplink.removeprefix("bridge:")
        is_up = found.active if found is not None else not is_own and bridge not in self.missing_bridges
        gateways = [side.gateway for side in (plan.ipv4, plan.ipv6) if side.gateway] if thorough else []
        return NetworkState(
            bridge=bridge,
            up=is_up,
            mtu=(plan.mtu or UNDERLAY_MTU) if is_up else 0,
            ports=self._taps(plan) if is_up else (),
            dnsmasq=is_up if is_own and (plan.ipv4.host or plan.ipv6.host) else None,
            vxlan="" if plan.vxlan is None else "up" if is_up else "missing",
            underlay_mtu=UNDERLAY_MTU if plan.vxlan is not None else 0,
            gateways=tuple((gateway, "answers" if is_up else "silent") for gateway in gateways),
        )

    def _taps(self, plan: NetworkPlan) -> tuple[str, ...]:
        running = [domain.now() for domain in self.domains.values() if domain.is_on]
        return tuple(nic.tap for each in running if each for nic in each.nics if nic.network == plan.name and nic.tap)


def _guess_plan(network: ObservedNetwork) -> NetworkPlan:
    """Return the plan of a network that was put there from outside."""
    return NetworkPlan(
        network.name, network.uid, network.uplink if network.uplink in ("nat", "routed") else "isolated",
        network.bridge, _guess_side(network.ipv4_subnet, network.ipv4_mode),
        _guess_side(network.ipv6_subnet, network.ipv6_mode),
    )  # fmt: skip


def _guess_side(subnet: str, mode: str) -> Side:
    host = str(ip_network(subnet)[1]) if subnet else ""
    return Side(subnet=subnet, host=host, mode=mode, gateway=host)
