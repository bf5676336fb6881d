"""libvirt's networks: defined, started, removed, and what their DHCP servers gave away."""

from __future__ import annotations

import contextlib
import re

import libvirt

from backend.errors import ConflictError, FailedError, NotFoundError
from backend.hypervisor.errors import is_code, is_lost, message_of
from backend.hypervisor.link import Link
from backend.hypervisor.network_changes import compare_network, keep_bridge
from backend.hypervisor.network_xml import build_network, find_clash, read_network
from backend.hypervisor.plan import NetworkPlan, ObservedNetwork
from backend.hypervisor.usage import network_users, running_users

START_SECONDS = 30.0
_COMMANDS = {"add": libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, "delete": libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE}


def find(connection: libvirt.virConnect, name: str) -> libvirt.virNetwork | None:
    """Return the handle of a network, or None."""
    try:
        return connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_NETWORK):
            return None
        raise


class Networks:
    """The libvirt networks of one host."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def list_all(self) -> list[ObservedNetwork]:
        """Return every network."""
        return self._link.observe("the host's networks", _list)

    def ensure(self, plan: NetworkPlan) -> ObservedNetwork:
        """Define and start the network; one of that name is started and returned as it is.

        Raises ConflictError where an address of the plan is another's, FailedError where it does not start.
        """
        xml = build_network(plan)
        what = f"network {plan.name}"

        def make(connection: libvirt.virConnect) -> ObservedNetwork:
            network = find(connection, plan.name)
            if network is not None:
                _start(network, what)
                return _look(network)
            clash = find_clash(plan, _list(connection))
            if clash:
                raise ConflictError(what, f"its subnet is that of the libvirt network {clash}", "choose another subnet")
            network = _define(connection, plan, xml, what)
            try:
                _start(network, what)
            except (ConflictError, FailedError):
                # It never ran, so nobody uses it.
                network.undefine()
                raise
            _start_with_host(network)
            return _look(network)

        return self._link.control(what, make, START_SECONDS)

    def replace(self, plan: NetworkPlan) -> ObservedNetwork:
        """Make the network match a changed plan, and start it; see `Hypervisor.replace_network`."""
        build_network(plan)  # a plan that cannot be is refused before the host is asked
        what = f"network {plan.name}"

        def change(connection: libvirt.virConnect) -> ObservedNetwork | None:
            network = find(connection, plan.name)
            if network is None:
                return None
            if network.UUIDString() != plan.uid:
                raise ConflictError(what, "the libvirt network of that name is another one", "it is not touched")
            clash = find_clash(plan, _list(connection))
            if clash:
                raise ConflictError(what, f"its subnet is that of the libvirt network {clash}", "choose another subnet")
            if not _change_ranges(network, plan):
                network = _make_anew(connection, network, plan, what)
            _start(network, what)
            _start_with_host(network)
            return _look(network)

        return self._link.control(what, change, START_SECONDS) or self.ensure(plan)

    def ensure_started(self, name: str) -> ObservedNetwork:
        """Start a network unless it is active; raise NotFoundError."""
        what = f"network {name}"

        def start(connection: libvirt.virConnect) -> ObservedNetwork:
            network = find(connection, name)
            if network is None:
                raise NotFoundError(what, "the host has no such libvirt network", "make it anew, or run `kc init`")
            _start(network, what)
            return _look(network)

        return self._link.control(what, start, START_SECONDS)

    def ensure_gone(self, name: str, uid: str) -> None:
        """Remove a network; raise ConflictError for another uuid and for one that a domain uses."""
        what = f"network {name}"

        def remove(connection: libvirt.virConnect) -> None:
            network = find(connection, name)
            if network is None:
                return
            if network.UUIDString() != uid:
                raise ConflictError(what, "the libvirt network of that name is another one", "it is not touched")
            users = network_users(connection, name)
            if users:
                raise ConflictError(what, f"in use by {', '.join(users[:3])}", "delete what uses it first")
            try:
                if network.isActive():
                    network.destroy()
                network.undefine()
            except libvirt.libvirtError as error:
                # Another process may have removed it meanwhile.
                if not is_code(error, libvirt.VIR_ERR_NO_NETWORK):
                    raise

        self._link.control(what, remove, START_SECONDS)


def _list(connection: libvirt.virConnect) -> list[ObservedNetwork]:
    found = []
    for network in connection.listAllNetworks():
        try:
            found.append(_look(network))
        except libvirt.libvirtError as error:
            # Removed since it was listed.
            if not is_code(error, libvirt.VIR_ERR_NO_NETWORK):
                raise
    return found


def _look(network: libvirt.virNetwork) -> ObservedNetwork:
    return read_network(network.XMLDesc(), active=bool(network.isActive()))


def _define(connection: libvirt.virConnect, plan: NetworkPlan, xml: str, what: str) -> libvirt.virNetwork:
    try:
        return connection.networkDefineXML(xml)
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        # Another process may have been faster; then its network serves as well.
        network = find(connection, plan.name)
        if network is not None:
            return network
        if is_code(error, libvirt.VIR_ERR_OPERATION_FAILED):
            raise ConflictError(what, message_of(error), "choose another name") from error
        raise


def _start(network: libvirt.virNetwork, what: str) -> None:
    if network.isActive():
        return
    try:
        network.create()
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        if network.isActive():
            return
        raise _explain_start(error, what) from error


def _change_ranges(network: libvirt.virNetwork, plan: NetworkPlan) -> bool:
    """Bring the DHCP ranges to the plan, where nothing else differs; False where it does, with nothing changed."""
    sides = [(libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG, network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))]
    if network.isActive():
        sides.append((libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE, network.XMLDesc()))
    changes = [(flag, compare_network(xml, plan)) for flag, xml in sides]
    if any(found is None for _, found in changes):
        return False
    for flag, found in changes:
        for change in found or ():
            command = _COMMANDS[change.verb]
            network.update(command, libvirt.VIR_NETWORK_SECTION_IP_DHCP_RANGE, change.position, change.xml, flag)
    return True


def _make_anew(
    connection: libvirt.virConnect, network: libvirt.virNetwork, plan: NetworkPlan, what: str
) -> libvirt.virNetwork:
    """Replace a network that no running domain is on; the old one is put back where the new one does not start.

    It goes for a moment, so that what its DHCP server knew goes with it. Ended there, the next call makes it.
    """
    users = running_users(connection, plan.name)
    if users:
        raise ConflictError(what, f"in use by {', '.join(users)}, which run", "stop them first")
    old = network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)
    was_active = network.isActive()
    xml = build_network(keep_bridge(old, plan))
    if was_active:
        network.destroy()
    network.undefine()
    made = connection.networkDefineXML(xml)
    try:
        _start(made, what)
    except (ConflictError, FailedError):
        made.undefine()
        former = connection.networkDefineXML(old)
        if was_active:
            _start(former, what)
        _start_with_host(former)
        raise
    return made


def _start_with_host(network: libvirt.virNetwork) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        network.setAutostart(1)  # a comfort: whoever needs the network starts it


def _explain_start(error: libvirt.libvirtError, what: str) -> ConflictError | FailedError:
    why = message_of(error)
    interface = re.search(r"already in use by interface (\S+)", why)
    if interface:
        return ConflictError(
            what, f"its subnet is in use by the host's interface {interface[1]}", "choose another subnet"
        )
    if re.search(r"[Pp]ermission denied|not permitted|not supported", why):
        return FailedError(what, why, "a session's libvirt may make no networks; use qemu:///system")
    if "dnsmasq" in why:
        return FailedError(what, why, "install it: `apt-get install dnsmasq-base`, and see which server has port 53")
    if re.search(r"iptables|nft|firewall", why):
        return FailedError(what, why, "install it: `apt-get install iptables nftables`, and restart libvirtd")
    return FailedError(what, why, "`kc doctor` tells more")
