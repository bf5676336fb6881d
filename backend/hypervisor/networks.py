"""libvirt's networks: made, changed, mended and removed, with the running domains that are on them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import libvirt

from backend.errors import ConflictError, FailedError, NotFoundError, TimedOutError, UnreachableError
from backend.hypervisor import network_objects as objects
from backend.hypervisor.link import Link
from backend.hypervisor.network_changes import Update, compare_hosts, compare_network
from backend.hypervisor.network_kernel import NetworkKernel, Port, names_of, running_ports
from backend.hypervisor.network_xml import build_network, find_clash
from backend.hypervisor.plan import ObservedNetwork
from backend.network.plan import NetworkPlan, NetworkState

if TYPE_CHECKING:
    from backend.network.shell import Shell

START_SECONDS = 30.0


class _Found(NamedTuple):
    """A network that is there: `updates` are what makes its two sides the plan's, None where more differs."""

    network: ObservedNetwork
    updates: list[tuple[int, list[Update]]] | None


class _Up(NamedTuple):
    """A network that was brought up: `is_new` to the bridge's ports, `is_ours` to change, `is_settled` before."""

    network: ObservedNetwork
    is_new: bool
    is_ours: bool
    is_settled: bool


class Networks:
    """The libvirt networks of one host; `open_shell` leads to its kernel."""

    def __init__(self, link: Link, open_shell: Callable[[], Shell]) -> None:
        self._link = link
        self._kernel = NetworkKernel(open_shell)

    def list_all(self) -> list[ObservedNetwork]:
        """Return every network."""
        return self._link.observe("the host's networks", objects.list_all)

    def with_bridges(self, plans: Iterable[NetworkPlan]) -> list[NetworkPlan]:
        """Return the plans with the names of their bridges; empty for one that is not there."""
        known = {network.name: network.bridge for network in self.list_all()}
        return [plan._replace(bridge=_bridge_named(plan) or known.get(plan.name, "")) for plan in plans]

    def ensure(self, plan: NetworkPlan) -> ObservedNetwork:
        """Have the network up; see `Hypervisor.ensure_network`.

        Raises ConflictError where an address of the plan is another's, FailedError where it does not start.
        """
        if _bridge_named(plan):
            return self._find_bridge(plan)
        build_network(plan)  # a plan that cannot be is refused before the host is asked
        what = f"network {plan.name}"
        up = self._link.control(what, lambda connection: _bring_up(connection, plan, what), START_SECONDS)
        state = None if up.is_new else self._kernel.look(plan, up.network.bridge)
        if state is not None and _is_broken(state):
            self._mend(plan, state)
            up, state = up._replace(is_new=True), None
        if up.is_new or not up.is_settled:
            self._kernel.watch()
            if self._kernel.try_attach(up.network.bridge, self._ports(up.network)):
                self._settle(up)
        if plan.vxlan is not None and (state is None or state.vxlan != "up"):
            self._kernel.ensure_vxlan(plan, up.network.bridge)
        return up.network

    def replace(self, plan: NetworkPlan) -> ObservedNetwork:
        """Make the network match a changed plan, and start it; see `Hypervisor.replace_network`."""
        if _bridge_named(plan):
            bridge = self._find_bridge(plan)
            self.ensure_gone(plan._replace(uplink="isolated"))
            return bridge
        build_network(plan)
        what = f"network {plan.name}"
        found = self._link.control(what, lambda connection: _examine(connection, plan, what), START_SECONDS)
        if found is None:
            return self.ensure(plan)
        state = self._kernel.look(plan, found.network.bridge) if found.network.active else None
        if found.updates is None:
            self._make_anew(plan, found.network, state)
        elif state is not None and _is_broken(state):
            self._mend(plan, state)
        up = self._link.control(what, lambda connection: _bring_to(connection, plan, what), START_SECONDS)
        if up.is_new or not up.is_settled or state is not None:
            self._reattach(up, state)
        self._settle(up)
        self._kernel.watch()
        self._kernel.ensure_vxlan(plan, up.network.bridge)
        return up.network

    def would_cut(self, plan: NetworkPlan) -> tuple[str, ...]:
        """Return the names of the running domains that `replace` would leave without a line for a moment."""
        if _bridge_named(plan):
            return ()
        what = f"network {plan.name}"

        def look(connection: libvirt.virConnect) -> tuple[str, ...]:
            network = objects.find(connection, plan.name)
            if network is None or not network.isActive() or network.UUIDString() != plan.uid:
                return ()
            if _updates(network, plan) is not None:
                return ()
            return names_of(running_ports(connection, plan.name, network.bridgeName()))

        return self._link.observe(what, look)

    def ensure_started(self, name: str) -> ObservedNetwork:
        """Start a network unless it is active; raise NotFoundError."""
        what = f"network {name}"

        def start(connection: libvirt.virConnect) -> ObservedNetwork:
            network = objects.find(connection, name)
            if network is None:
                raise NotFoundError(what, "the host has no such libvirt network", "make it anew, or run `kc init`")
            objects.start(network, what)
            return objects.look(network)

        return self._link.control(what, start, START_SECONDS)

    def ensure_gone(self, plan: NetworkPlan) -> None:
        """Remove a network and its VXLAN; raise ConflictError for another uuid and for one that a domain uses."""
        if _bridge_named(plan):
            return
        what = f"network {plan.name}"
        self._link.control(what, lambda connection: objects.remove(connection, plan, what), START_SECONDS)
        self._kernel.ensure_no_vxlan(plan)

    def _find_bridge(self, plan: NetworkPlan) -> ObservedNetwork:
        bridge = _bridge_named(plan)
        state = self._kernel.look(plan, bridge)
        if state is not None and not state.mtu:
            raise NotFoundError(
                f"bridge {bridge}", "the host has no such bridge", f"`ip link add {bridge} type bridge`"
            )
        return ObservedNetwork(plan.name, plan.uid, active=True, bridge=bridge, uplink=plan.uplink)

    def _ports(self, network: ObservedNetwork) -> list[Port]:
        return self._link.observe(
            f"network {network.name}", lambda connection: running_ports(connection, network.name, network.bridge)
        )

    def _reattach(self, up: _Up, before: NetworkState | None) -> None:
        """Put every tap of a running domain, and what else was on the bridge before, back where it is missing."""
        ports, others = self._ports(up.network), before.ports if before is not None else ()
        if not (up.is_new or not up.is_settled):
            ports, others = [port for port in ports if port.tap not in others], ()
        if ports or others:
            self._kernel.attach(up.network.bridge, ports, others)

    def _settle(self, up: _Up) -> None:
        """Have the network start with the host, which says too that all that was on it is on it again."""
        if up.is_ours and not up.is_settled:
            self._link.control(
                f"network {up.network.name}", lambda connection: _start_with_host(connection, up.network)
            )

    def _make_anew(self, plan: NetworkPlan, old: ObservedNetwork, state: NetworkState | None) -> None:
        """Replace a network under its running domains; the old one is put back where the new one does not start.

        Ended at any point, the next call goes on: the network then differs, is inactive or absent, or does not start
        with the host yet, and each of these has the taps looked after.
        """
        what = f"network {plan.name}"
        ports = self._ports(old)
        if ports and old.active:
            self._check_way_back(what, old, state, ports)
        try:
            self._link.control(what, lambda connection: objects.make_anew(connection, plan, what), START_SECONDS)
        except (ConflictError, FailedError):
            if old.active:
                self._kernel.attach(old.bridge, ports, state.ports if state is not None else ())
                if plan.vxlan is not None and state is not None and state.vxlan not in ("", "missing"):
                    self._kernel.ensure_vxlan(plan, old.bridge)
            raise

    def _check_way_back(self, what: str, old: ObservedNetwork, state: NetworkState | None, ports: list[Port]) -> None:
        """Raise ConflictError where the taps could not be put back, which putting them where they are shows."""
        names = ", ".join(names_of(ports))
        if state is None:
            raise ConflictError(what, f"in use by {names}, which run, and KC cannot ask the host's kernel", "stop them")
        if not _is_broken(state):
            try:
                self._kernel.attach(old.bridge, ports)
            except (FailedError, UnreachableError, TimedOutError) as error:
                why = f"in use by {names}, which run, and KC may not put them back: {error.why}"
                raise ConflictError(what, why, error.hint or "stop them first") from error

    def _mend(self, plan: NetworkPlan, state: NetworkState) -> None:
        """Have a network that libvirt takes for active be so."""
        what = f"network {plan.name}"

        def mend(connection: libvirt.virConnect) -> None:
            network = objects.find(connection, plan.name)
            if network is None:
                return
            if state.up:
                # Its server alone is gone, and comes back under its running domains.
                objects.restart_server(network)
            else:
                objects.start_again(connection, network, what)

        self._link.control(what, mend, START_SECONDS)
        if state.up:
            now = self._kernel.look(plan, state.bridge)
            if now is not None and _is_broken(now):
                self._mend(plan, state._replace(up=False))


def _bridge_named(plan: NetworkPlan) -> str:
    """Return the bridge of the host's own that a plan means; empty where the segment is one that KC makes."""
    return plan.uplink.removeprefix("bridge:") if plan.uplink.startswith("bridge:") else ""


def _is_broken(state: NetworkState) -> bool:
    return not state.up or state.dnsmasq is False


def _bring_up(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> _Up:
    """Define and start a network; of one that is there, start it and bring what DHCP keeps to the plan."""
    network = objects.find(connection, plan.name)
    if network is None:
        _check_clash(connection, plan, what)
        network = objects.define(connection, plan, what)
        try:
            objects.start(network, what)
        except (ConflictError, FailedError):
            # It never ran, so nobody uses it.
            network.undefine()
            raise
        is_ours = network.UUIDString() == plan.uid
        return _Up(objects.look(network), is_new=True, is_ours=is_ours, is_settled=bool(network.autostart()))
    is_ours = network.UUIDString() == plan.uid
    if is_ours or plan.shared:
        for flag, xml in objects.sides(network):
            objects.apply(network, compare_hosts(xml, plan), flag)
    return _started(network, what, is_ours=is_ours)


def _bring_to(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> _Up:
    """Bring what a network's DHCP gives to the plan, where nothing else differs, and start it."""
    network = objects.find(connection, plan.name)
    if network is None:
        raise ConflictError(what, "somebody else removed it meanwhile", "try again")
    for flag, updates in _updates(network, plan) or ():
        objects.apply(network, updates, flag)
    return _started(network, what, is_ours=True)


def _started(network: libvirt.virNetwork, what: str, *, is_ours: bool) -> _Up:
    was_active = bool(network.isActive())
    objects.start(network, what)
    is_settled = not is_ours or bool(network.autostart())
    return _Up(objects.look(network), is_new=not was_active, is_ours=is_ours, is_settled=is_settled)


def _examine(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> _Found | None:
    """Return a network and what differs; raise ConflictError where it is not ours, or a subnet is another's."""
    network = objects.find(connection, plan.name)
    if network is None:
        return None
    if network.UUIDString() != plan.uid:
        raise ConflictError(what, "the libvirt network of that name is another one", "it is not touched")
    _check_clash(connection, plan, what)
    return _Found(objects.look(network), _updates(network, plan))


def _check_clash(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> None:
    clash = find_clash(plan, objects.list_all(connection))
    if clash:
        raise ConflictError(what, f"its subnet is that of the libvirt network {clash}", "choose another subnet")


def _updates(network: libvirt.virNetwork, plan: NetworkPlan) -> list[tuple[int, list[Update]]] | None:
    """Return the updates of each side of a network, by libvirt's flag for it; None where one differs in more."""
    found = []
    for flag, xml in objects.sides(network):
        updates = compare_network(xml, plan)
        if updates is None:
            return None
        found.append((flag, updates))
    return found


def _start_with_host(connection: libvirt.virConnect, seen: ObservedNetwork) -> None:
    network = objects.find(connection, seen.name)
    if network is not None:
        with contextlib.suppress(libvirt.libvirtError):
            network.setAutostart(1)  # a comfort: whoever needs the network starts it
