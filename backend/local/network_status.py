"""From a network's document and what its host's kernel says to its status; nothing of it is stored.

`state` is `up`, `degraded` (it is there, but something is wrong), `down` or `unknown` (the host does not answer; then
`reason` says why); `problems` are `{code, message, hint}`. A list has these, `bridge`, `mtu` and `gateway`; a close
look has `leases`, `addresses`, `free` and `vms` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from backend.errors import KCError
from backend.local.network_addresses import inspect_addresses
from backend.model.addressing import FAMILIES, VXLAN_OVERHEAD, host_address
from backend.model.documents import Document, complete, is_readable
from backend.model.kinds import NETWORK, VM
from backend.model.networks import is_own, libvirt_name
from backend.operations.gateways import VM_PREFIX, addresses_on, find_gateway_vm, resolve_gateway
from backend.operations.networks import plan_network
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.hypervisor.plan import ObservedNetwork
    from backend.hypervisor.protocol import Hypervisor
    from backend.network.plan import NetworkPlan, NetworkState, Server
    from backend.store.protocol import Store

Problem = dict[str, str]
_DOWN = ("inactive", "bridge-missing", "bridge-down")


def describe_networks(store: Store, hypervisor: Hypervisor, networks: list[Document]) -> list[Document]:
    """Return networks with their states; what the host does not tell is no error.

    Two questions to the host however many networks there are, and one for each VM that is a gateway.
    """
    return _describe(store, hypervisor, networks, thorough=False)


def inspect_network(store: Store, hypervisor: Hypervisor, network: Document) -> Document:
    """Return a network with what a close look tells: its gateway is asked, its addresses and VMs are told."""
    (shown,) = _describe(store, hypervisor, [network], thorough=True)
    if not is_readable(network):
        return shown
    return {**shown, "status": {**shown["status"], **inspect_addresses(store, hypervisor, complete(network))}}


def _describe(store: Store, hypervisor: Hypervisor, networks: list[Document], *, thorough: bool) -> list[Document]:
    known = [complete(network) for network in networks if is_readable(network)]
    plans = {network["uid"]: plan_network(store, network, with_clients=False) for network in known}
    observed: dict[str, ObservedNetwork] | None = None
    states: Mapping[str, NetworkState] = {}
    reason = ""
    try:
        observed = {each.name: each for each in hypervisor.list_networks()}
        found = hypervisor.network_states(list(plans.values()), thorough=thorough) if plans else []
        states = dict(zip(plans, found, strict=True))
    except KCError as error:
        reason = sanitise(str(error), 400)
    overlaps = _find_overlaps(store.list_documents(NETWORK.name).items) if known else {}
    shown = {}
    for network in known:
        uid = network["uid"]
        look = _Look(store, network, plans[uid], states.get(uid))
        problems = look.find_problems(hypervisor, observed)
        problems += [_overlap(network, name) for name in sorted(overlaps.get(uid, ()))]
        shown[uid] = _status(look, problems, reason)
    return [_show(network, shown.get(network["uid"])) for network in networks]


def _show(network: Document, status: Document | None) -> Document:
    kept = network.get("status", {})
    return {**network, "status": {**kept, **(status or {"state": "unknown", "problems": []})}}


def _status(look: _Look, problems: list[Problem], reason: str) -> Document:
    state = look.state
    codes = {problem["code"] for problem in problems}
    if codes.intersection(_DOWN):
        word = "down"
    elif state is None:
        word = "unknown"
    else:
        word = "degraded" if problems else "up"
    return {
        "state": word,
        "problems": problems,
        "bridge": sanitise(state.bridge, 60) if state else "",
        "mtu": state.mtu if state else 0,
        "gateway": {**look.gateway, "state": _gateway_state(look.gateway, state)},
        **({"reason": reason} if reason else {}),
    }


def _gateway_state(gateway: Mapping[Any, str], state: NetworkState | None) -> str:
    if not any(gateway.values()):
        return ""
    said = {word for _, word in state.gateways} if state else set()
    return "silent" if "silent" in said else "answers" if said == {"answers"} else "unknown"


def _problem(network: Document, code: str, message: str, hint: str = "") -> Problem:
    hint = hint or f"kc network reconcile {network['name']}"
    return {"code": code, "message": sanitise(message, 400), "hint": sanitise(hint, 400)}


class _Look:
    """One network: its document, what it is to be, and what the kernel says of it (None: nothing)."""

    def __init__(self, store: Store, network: Document, plan: NetworkPlan, state: NetworkState | None) -> None:
        self.gateway = resolve_gateway(store, network)
        self.state = state
        self._store = store
        self._network = network
        self._plan = plan

    def find_problems(self, hypervisor: Hypervisor, observed: Mapping[str, ObservedNetwork] | None) -> list[Problem]:
        """Return what is wrong; `observed` are libvirt's networks, None where it does not answer."""
        problems = []
        if observed is not None and is_own(self._network):
            found = observed.get(self._plan.name)
            if found is None or not found.active:
                why = "libvirt has no such network" if found is None else "its libvirt network is not started"
                problems = [self._problem("inactive", f"{why}: {self._plan.name}")]
        if not problems and self.state is not None:
            problems = [*self._check_bridge(self.state), *self._check_vxlan(self.state), *self._check_mtu(self.state)]
        if observed is not None:
            problems += self._check_gateway(hypervisor)
        if self.state is not None:
            problems += self._check_servers(self.state.servers)
        return problems

    def _problem(self, code: str, message: str, hint: str = "") -> Problem:
        return _problem(self._network, code, message, hint)

    def _check_bridge(self, state: NetworkState) -> Iterator[Problem]:
        bridge = state.bridge
        hint = "" if is_own(self._network) else f"ip link add {bridge} type bridge && ip link set {bridge} up"
        if not state.mtu:
            yield self._problem("bridge-missing", f"the host has no bridge {bridge}", hint)
        elif not state.up:
            yield self._problem("bridge-down", f"the bridge {bridge} is off", f"ip link set {bridge} up")
        if state.dnsmasq is False:
            yield self._problem("dnsmasq-dead", "its DHCP and DNS server (dnsmasq) does not run")

    def _check_vxlan(self, state: NetworkState) -> Iterator[Problem]:
        vxlan = self._plan.vxlan
        if vxlan is None or not state.mtu:
            return  # without the bridge there is nothing that it could be a port of
        said = {
            "missing": "is not there",
            "down": "is off",
            "different": "is not what the document says: VNI, ends, port, MTU, or the bridge that it belongs to",
        }
        if state.vxlan in said:
            yield self._problem(f"vxlan-{state.vxlan}", f"the VXLAN device {vxlan.device} {said[state.vxlan]}")

    def _check_mtu(self, state: NetworkState) -> Iterator[Problem]:
        wanted, vxlan = self._plan.mtu, self._plan.vxlan
        if wanted and state.mtu and state.mtu != wanted:
            yield self._problem("mtu-mismatch", f"the bridge {state.bridge} has MTU {state.mtu}, not {wanted}")
        if vxlan is None:
            return
        room = state.underlay_mtu - VXLAN_OVERHEAD[ip_address(vxlan.local).version]
        if not state.underlay_mtu:
            message = f"no device of the host has {vxlan.underlay or vxlan.local}, by which the VXLAN is to send"
            yield self._problem("underlay-missing", message, "ip address show")
        elif (wanted or state.mtu) > room:
            message = (
                f"the VXLAN's underlay has MTU {state.underlay_mtu}, which leaves {room}; {wanted or state.mtu} is set"
            )
            yield self._problem("mtu-mismatch", message, f"kc network set {self._network['name']} spec.mtu={room}")

    def _check_gateway(self, hypervisor: Hypervisor) -> list[Problem]:
        said = [self._problem("gateway-unset", why, hint) for why, hint in self._gateway_vm(hypervisor)]
        silent = [address for address, word in self.state.gateways if word == "silent"] if self.state else []
        if said or not silent or not self.state or not self.state.up:
            return said
        message = f"the gateway {' and '.join(silent)} does not answer on the segment"
        own = self._network["spec"]["gateway"] == "host"
        return [self._problem("gateway-silent", message, "" if own else "see that it is on, and has this address")]

    def _gateway_vm(self, hypervisor: Hypervisor) -> Iterator[tuple[str, str]]:
        """Yield (why, hint) for a gateway VM that cannot be one."""
        spec = self._network["spec"]
        if not spec["gateway"].startswith(VM_PREFIX):
            return
        name = spec["gateway"].removeprefix(VM_PREFIX).partition("/")[0]
        other = f"kc network set {self._network['name']} spec.gateway=host"
        vm = find_gateway_vm(self._store, self._network)
        if vm is None:
            yield f"its gateway, the VM {name}, is not there", other
            return
        addresses = addresses_on(vm, self._network)
        for family in FAMILIES:
            # An IPv6 router announces itself; only a static configuration needs to know its address.
            modes = ("static", "dhcp") if family == "ipv4" else ("static",)
            if spec[family]["mode"] in modes and not addresses[family]:
                title = family.replace("ip", "IP")
                yield f"its gateway, the VM {name}, is given no {title} address on it", f"kc vm nic list {vm['name']}"
        try:
            domain = hypervisor.observe(vm["uid"])
        except KCError:
            return
        if domain is None or domain.power != "running":
            power = domain.power if domain is not None else "absent"
            yield f"its gateway, the VM {vm['name']}, is {power}", f"kc vm start {vm['name']}"

    def _check_servers(self, servers: Sequence[Server]) -> Iterator[Problem]:
        spec = self._network["spec"]
        for server in servers:
            family = "ipv6" if ":" in server.address else "ipv4"
            if (
                server.kind == "dhcp"
                and is_own(self._network)
                and spec[family]["mode"] in ("dhcp", "dhcpv6", "stateless")
            ):
                message = f"{self._name(server)} answers DHCP too, besides the host"
                hint = f"kc network set {self._network['name']} spec.guard.dhcpGuard=on"
                yield self._problem("duplicate-dhcp", message, hint)
            elif server.kind == "router" and self._is_rogue(server):
                message = f"{self._name(server)} announces itself as an IPv6 router, and is not the gateway"
                hint = f"kc network set {self._network['name']} spec.guard.raGuard=on"
                yield self._problem("rogue-router", message, hint)

    def _is_rogue(self, server: Server) -> bool:
        """Return whether a router has no business there; one whose address nobody knows may be the gateway that is."""
        spec = self._network["spec"]
        if not is_own(self._network) or spec["ipv6"]["mode"] == "none":
            return False
        if spec["gateway"].startswith(VM_PREFIX):
            vm = find_gateway_vm(self._store, self._network)
            nics = vm["spec"]["nics"] if vm is not None else []
            macs = {nic["mac"] for nic in nics if nic["network"]["uid"] == self._network["uid"]}
            return server.mac.lower() not in macs
        if not self.gateway["ipv6"] or spec["gateway"] == "host":
            return True
        gateway = ip_address(self.gateway["ipv6"])
        return gateway.is_link_local and gateway != ip_address(server.address)

    def _name(self, server: Server) -> str:
        """Return who a server is: one of our VMs by its MAC, or the MAC."""
        from backend.model.selectors import parse  # noqa: PLC0415 - a healthy list needs none

        who = f"{sanitise(server.mac, 20)} ({sanitise(server.address, 64)})"
        wanted = parse(f"spec.nics.network.uid={self._network['uid']}")
        for vm in filter(is_readable, self._store.list_documents(VM.name, where=wanted).items):
            for nic in vm["spec"]["nics"]:
                if nic["mac"] == server.mac.lower():
                    return f"the VM {vm['name']} ({nic['id']}, {who})"
        return who


def _overlap(network: Document, other: str) -> Problem:
    message = f"its subnet overlaps that of the network {other}"
    return _problem(network, "subnet-overlap", message, f"give one of the two another subnet: kc network edit {other}")


def _find_overlaps(networks: Iterable[Document]) -> dict[str, set[str]]:
    """Return, by uid, the names of networks in which the host has an address and whose subnets overlap.

    Those behind which stands one libvirt network are one segment.
    """
    found: dict[str, set[str]] = {}
    for family in FAMILIES:
        sides = []
        for network in filter(is_readable, networks):
            if host_address(network["spec"], family):
                subnet = ip_network(network["spec"][family]["subnet"])
                sides.append((int(subnet[0]), int(subnet[-1]), network))
        # Of subnets, the one that overlaps is within the other: it begins before that one ends.
        open_ones: list[tuple[int, Document]] = []
        for first, last, network in sorted(sides, key=lambda side: (side[0], -side[1])):
            open_ones = [(end, other) for end, other in open_ones if end >= first]
            for _, other in open_ones:
                if libvirt_name(other) != libvirt_name(network):
                    found.setdefault(network["uid"], set()).add(other["name"])
                    found.setdefault(other["uid"], set()).add(network["name"])
            open_ones.append((last, network))
    return found
