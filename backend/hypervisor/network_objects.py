"""What is done to one libvirt network on a connection; every step may meet another process that does the same."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import libvirt

from backend.errors import ConflictError, FailedError
from backend.hypervisor.errors import is_code, is_lost, message_of
from backend.hypervisor.network_changes import Update, is_same_subnets, rebuild_network
from backend.hypervisor.network_xml import build_network, read_network
from backend.hypervisor.plan import ObservedNetwork
from backend.hypervisor.usage import network_users
from backend.network.plan import NetworkPlan

_ADD, _DELETE = libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE
_COMMANDS = {"add": _ADD, "delete": _DELETE}
_SECTIONS = {
    "range": libvirt.VIR_NETWORK_SECTION_IP_DHCP_RANGE,
    "host": libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST,
}
_CONFIG, _LIVE = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG, libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
# Text records are read by dnsmasq at its start alone, so libvirt starts it anew for each.
_RECORD = "<txt name='kc-restart' value='kc'/>"


def find(connection: libvirt.virConnect, name: str) -> libvirt.virNetwork | None:
    """Return the handle of a network, or None."""
    try:
        return connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_NETWORK):
            return None
        raise


def list_all(connection: libvirt.virConnect) -> list[ObservedNetwork]:
    """Return every network of a host."""
    found = []
    for network in connection.listAllNetworks():
        try:
            found.append(look(network))
        except libvirt.libvirtError as error:
            # Removed since it was listed.
            if not is_code(error, libvirt.VIR_ERR_NO_NETWORK):
                raise
    return found


def look(network: libvirt.virNetwork) -> ObservedNetwork:
    """Return what a network serves."""
    return read_network(network.XMLDesc(), active=bool(network.isActive()))


def sides(network: libvirt.virNetwork) -> list[tuple[int, str]]:
    """Return a network's XML as it will start next, and as it is, each with libvirt's flag for it."""
    found = []
    if network.isPersistent():
        found.append((_CONFIG, network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)))
    if network.isActive():
        found.append((_LIVE, network.XMLDesc()))
    return found


def define(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> libvirt.virNetwork:
    """Define a network; one that another process has just made serves as well."""
    try:
        return connection.networkDefineXML(build_network(plan))
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        network = find(connection, plan.name)
        if network is not None:
            return network
        if is_code(error, libvirt.VIR_ERR_OPERATION_FAILED):
            raise ConflictError(what, message_of(error), "choose another name") from error
        raise


def start(network: libvirt.virNetwork, what: str) -> None:
    """Start a network unless it is active."""
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


def apply(network: libvirt.virNetwork, updates: Sequence[Update], flag: int) -> None:
    """Update one side of a network; what another process has done already is done."""
    for update in updates:
        try:
            network.update(_COMMANDS[update.verb], _SECTIONS[update.section], update.position, update.xml, flag)
        except libvirt.libvirtError as error:
            # It is there already, or no longer.
            if not is_code(error, libvirt.VIR_ERR_OPERATION_INVALID):
                raise


def restart_server(network: libvirt.virNetwork) -> None:
    """Have libvirt start the network's dnsmasq anew, which its bridge and what is on it do not feel."""
    for command in (_ADD, _DELETE):
        try:
            network.update(command, libvirt.VIR_NETWORK_SECTION_DNS_TXT, -1, _RECORD, _LIVE)
        except libvirt.libvirtError as error:
            # Another process is at it too, or was ended at it.
            if not is_code(error, libvirt.VIR_ERR_OPERATION_INVALID):
                raise


def start_again(connection: libvirt.virConnect, network: libvirt.virNetwork, what: str) -> None:
    """Stop a network and start it as it was."""
    xml, is_persistent = network.XMLDesc(), network.isPersistent()
    if network.isActive():
        network.destroy()
    start(network if is_persistent else connection.networkDefineXML(xml), what)


def make_anew(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> None:
    """Replace a network; the old one is put back where the new one does not start.

    What its DHCP server knows of leases stays, unless the subnets change.
    """
    network = find(connection, plan.name)
    if network is None:
        start(define(connection, plan, what), what)
        return
    old = network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)
    xml = rebuild_network(old, plan)
    was_active = network.isActive()
    # A new definition that libvirt does not take changes nothing.
    made = connection.networkDefineXML(xml)
    made.setAutostart(0)
    if was_active:
        made.destroy()
    if not is_same_subnets(old, plan):
        made.undefine()
        made = connection.networkDefineXML(xml)
    try:
        start(made, what)
    except (ConflictError, FailedError):
        former = connection.networkDefineXML(old)
        if was_active:
            start(former, what)
        with contextlib.suppress(libvirt.libvirtError):
            former.setAutostart(1)
        raise


def remove(connection: libvirt.virConnect, plan: NetworkPlan, what: str) -> None:
    """Remove a network; raise ConflictError for another uuid and for one that a domain uses."""
    network = find(connection, plan.name)
    if network is None:
        return
    if network.UUIDString() != plan.uid:
        raise ConflictError(what, "the libvirt network of that name is another one", "it is not touched")
    users = network_users(connection, plan.name)
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


def _explain_start(error: libvirt.libvirtError, what: str) -> ConflictError | FailedError:
    why = message_of(error)
    interface = re.search(r"already in use by interface (\S+)", why)
    if interface:
        return ConflictError(
            what, f"its subnet is in use by the host's interface {interface[1]}", "choose another subnet"
        )
    if re.search(r"[Pp]ermission denied|not permitted|not supported", why):
        return FailedError(what, why, "a session's libvirt may make no networks; use qemu:///system")
    if "bad option" in why:
        return FailedError(what, why, "install dnsmasq 2.90 or newer: `apt-get install dnsmasq-base`")
    if "dnsmasq" in why:
        return FailedError(what, why, "install it: `apt-get install dnsmasq-base`, and see which server has port 53")
    if re.search(r"iptables|nft|firewall", why):
        return FailedError(what, why, "install it: `apt-get install iptables nftables`, and restart libvirtd")
    return FailedError(what, why, "`kc doctor` tells more")
