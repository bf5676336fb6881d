"""What of a host stands in the way of its networks: forwarding, firewalls, kernel, programs; changes nothing there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from backend.network.firewall import Chain, Packet, Ruleset
from backend.network.plan import NetworkPlan, Obstacle, Side
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.network.shell import Shell

SECONDS = 10.0
_JSON = json.JSONDecoder(strict=False)
_NAMES_LISTED = 3
_PACKAGES = {"ip": "iproute2", "bridge": "iproute2", "nft": "nftables", "dnsmasq": "dnsmasq-base"}
_DHCP_PORTS = {4: 67, 6: 547}
_SOMEWHERE = {4: ip_address("9.9.9.9"), 6: ip_address("2620:fe::fe")}
"""Addresses of the internet at large, as rules may stop private or reserved ones; nothing is sent there."""

# A dry run of nft (`-c`) tells whether the kernel has tables of bridges. A module that is built in is known to modprobe
# by the kernel's files, and to /sys without them.
_SCRIPT = r"""
show() { echo "@$1"; cat "$2" 2>/dev/null; }
show forwarding4 /proc/sys/net/ipv4/ip_forward
show forwarding6 /proc/sys/net/ipv6/conf/all/forwarding
show bridged4 /proc/sys/net/bridge/bridge-nf-call-iptables
show bridged6 /proc/sys/net/bridge/bridge-nf-call-ip6tables
show legacy /proc/net/ip_tables_names
echo @missing; for program in ip bridge nft dnsmasq; do command -v $program >/dev/null || echo $program; done
echo @modules
[ -d /sys/module/vxlan ] || modprobe -n -q vxlan || echo vxlan
nft -c add table bridge kc-dry-run 2>&1 | grep -qi 'not supported' && echo nf_tables
echo @bridges; ip -o link show type bridge 2>/dev/null | cut -d: -f2
echo @uplinks; ip -o -4 route show default 2>/dev/null; ip -o -6 route show default 2>/dev/null
echo @accepting; grep -s . /proc/sys/net/ipv6/conf/*/accept_ra
for family in ip ip6 inet; do echo "@rules $family"; nft -j list ruleset $family 2>/dev/null; done
exit 0
"""


class _Host(NamedTuple):
    """What a host says of itself; `uplinks` is the device of its default route, by the version of IP."""

    sections: dict[str, list[str]]
    rules: Ruleset | None
    uplinks: dict[int, str]

    def word(self, section: str) -> str:
        return next(iter(self.sections.get(section, [])), "")


def find_obstacles(shell: Shell, plans: Sequence[NetworkPlan]) -> list[Obstacle]:
    """Return what stands in the way of networks on a host, each with the command that mends it; none of a healthy host.

    A plan without the name of its bridge is looked at less closely. One command. Raises what the shell raises.
    """
    if not plans:
        return []
    host = _read(shell.run(["sh", "-c", _SCRIPT, "kc"], seconds=SECONDS).output)
    return [
        *_check_programs(host, plans),
        *_check_modules(host, plans),
        *_check_forwarding(host, plans),
        *_check_advertisements(host, plans),
        *_check_firewall(host, plans),
    ]


def _read(output: str) -> _Host:
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    objects: list[dict[str, Any]] = []
    for line in output.splitlines():
        if line.startswith("@"):
            lines = sections[line[1:]] = []
        elif line.strip():
            lines.append(line.strip())
    tables = [line for name, found in sections.items() if name.startswith("rules ") for line in found]
    for line in tables:
        try:
            objects += _JSON.decode(line).get("nftables", [])
        except (ValueError, AttributeError):
            continue  # an nft without JSON
    uplinks: dict[int, str] = {}
    for line in sections.get("uplinks", []):
        words = line.split()
        if "dev" in words[:-1]:
            # A route of IPv6 says which it is only by its gateway, or by a preference.
            version = 6 if any(":" in word for word in words) or "pref" in words else 4
            uplinks.setdefault(version, words[words.index("dev") + 1])
    return _Host(sections, Ruleset(objects) if tables else None, uplinks)


def _is_own(plan: NetworkPlan) -> bool:
    return not plan.uplink.startswith("bridge:")


def _bridge(plan: NetworkPlan) -> str:
    """Return the name of a segment's bridge; empty where only libvirt knows."""
    return plan.bridge if _is_own(plan) else plan.uplink.removeprefix("bridge:")


def _routes(plan: NetworkPlan, side: Side) -> bool:
    """Return whether the host is to pass on what comes from a segment."""
    return plan.uplink in ("nat", "routed") and bool(side.host)


def _sides(plan: NetworkPlan) -> tuple[tuple[int, Side], tuple[int, Side]]:
    return (4, plan.ipv4), (6, plan.ipv6)


def _name(plans: Iterable[NetworkPlan]) -> str:
    """Return the names of networks, the first few of many."""
    names = sorted({sanitise(plan.name, 60) for plan in plans})
    more = f" and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else ""
    return ", ".join(names[:_NAMES_LISTED]) + more


def _check_programs(host: _Host, plans: Sequence[NetworkPlan]) -> Iterator[Obstacle]:
    needs_server = any(_is_own(plan) and side.host for plan in plans for _, side in _sides(plan))
    for program in host.sections.get("missing", []):
        if program == "dnsmasq" and not needs_server:
            continue
        yield Obstacle(
            "program-missing",
            program,
            f"the program {program} is not installed",
            f"apt-get install {_PACKAGES[program]}",
        )


def _check_modules(host: _Host, plans: Sequence[NetworkPlan]) -> Iterator[Obstacle]:
    missing = host.sections.get("modules", [])
    joined = [plan for plan in plans if plan.vxlan]
    if "vxlan" in missing and joined:
        why = f"the kernel has no module vxlan, which {_name(joined)} needs"
        yield Obstacle("module-missing", "vxlan", why, "modprobe vxlan")
    if "nf_tables" in missing:
        why = "the kernel has no nftables for bridges: NICs cannot be guarded"
        yield Obstacle("module-missing", "nf_tables", why, "modprobe nf_tables")


def _check_forwarding(host: _Host, plans: Sequence[NetworkPlan]) -> Iterator[Obstacle]:
    settings = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    for version, setting in settings.items():
        waiting = [plan for plan in plans for v, side in _sides(plan) if v == version and _routes(plan, side)]
        if waiting and host.word(f"forwarding{version}") == "0":
            why = f"{setting} is 0, so that nothing leaves {_name(waiting)} over IPv{version}"
            yield Obstacle("forwarding-off", f"IPv{version} forwarding", why, f"sysctl -w {setting}=1")


def _check_advertisements(host: _Host, plans: Sequence[NetworkPlan]) -> Iterator[Obstacle]:
    """Yield what a forwarding host loses: routes by router advertisements, which it takes only where it is told to."""
    routed = [plan for plan in plans if _routes(plan, plan.ipv6)]
    accepting = {line.split("/")[6]: line.rpartition(":")[2] for line in host.sections.get("accepting", [])}
    device = host.uplinks.get(6, "")
    by_advertisement = any(f"dev {device} " in line and "proto ra" in line for line in host.sections.get("uplinks", []))
    if routed and by_advertisement and accepting.get(device) == "1":
        why = f"{device} has its route from router advertisements, which a host that forwards takes no more"
        setting = f"net.ipv6.conf.{device.replace('.', '/')}.accept_ra"
        yield Obstacle("advertisements-off", f"the IPv6 route of {device}", why, f"sysctl -w {setting}=2")


def _check_firewall(host: _Host, plans: Sequence[NetworkPlan]) -> Iterator[Obstacle]:
    rules = host.rules
    if rules is None:
        return
    present = set(host.sections.get("bridges", []))
    stopped: dict[tuple[str, Chain, str], list[NetworkPlan]] = {}
    for plan in plans:
        bridge = _bridge(plan)
        if bridge and bridge not in present:
            continue  # what is down has no rules yet
        for purpose, hook, packet in _packets(plan, host):
            for chain in rules.stops(hook, packet):
                stopped.setdefault((purpose, chain, bridge), []).append(plan)
        guest = _guest(plan.ipv4)
        packet = Packet(bridge, host.uplinks.get(4, ""), 4, "tcp", 443, guest, _SOMEWHERE[4])
        is_bare = plan.uplink == "nat" and plan.ipv4.host and bridge and not host.sections.get("legacy")
        if is_bare and not rules.translates(packet):
            why = f"no rule gives what {_name([plan])} sends out the host's address: somebody flushed libvirt's rules"
            yield Obstacle("nat-missing", f"NAT of {_name([plan])}", why, "systemctl reload libvirtd")
    for (purpose, chain, bridge), found in stopped.items():
        yield _explain(rules, purpose, chain, bridge, _name(found))


def _guest(side: Side) -> IPv4Address | IPv6Address | None:
    """Return an address that a guest may have."""
    return ip_network(side.subnet)[2] if side.subnet else None


def _packets(plan: NetworkPlan, host: _Host) -> Iterator[tuple[str, str, Packet]]:
    """Yield (purpose, hook, packet) for what a segment's guests must be able to send."""
    for version, side in _sides(plan):
        guest, outside, bridge = _guest(side), _SOMEWHERE[version], _bridge(plan)
        if _routes(plan, side):
            uplink = host.uplinks.get(version, "")
            yield "forward", "forward", Packet(bridge, uplink, version, "tcp", 443, guest, outside)
        if _is_own(plan) and (side.mode == "dhcp" or side.mode in ("dhcpv6", "stateless")):
            yield "dhcp", "input", Packet(bridge, "", version, "udp", _DHCP_PORTS[version])
        if _is_own(plan) and side.host and not plan.dns:
            yield "dns", "input", Packet(bridge, "", version, "udp", 53, guest, ip_address(side.host))
        if bridge and host.word(f"bridged{version}") == "1":
            yield "bridged", "forward", Packet(bridge, bridge, version, "tcp", 443, guest)


def _explain(rules: Ruleset, purpose: str, chain: Chain, bridge: str, names: str) -> Obstacle:
    """Return the obstacle that a chain is, with the command that its owner would mend it by."""
    where, device = f"{chain.family} {chain.table} {chain.name}", bridge or "BRIDGE"
    if purpose == "bridged":
        families = [family for family in ("ip", "ip6") if chain.family in (family, "inet")]
        settings = " ".join(f"net.bridge.bridge-nf-call-{family}tables=0" for family in families)
        why = f"what VMs of {names} send one another passes the host's firewall, and {where} drops it"
        return Obstacle("bridge-filtered", f"traffic on {device}", why, f"sysctl -w {settings}")
    lost = {"forward": "leaves it for the outside", "dhcp": "asks for an address", "dns": "asks for a name"}[purpose]
    owner, mend = _owner(rules, purpose, chain, device)
    why = f"{where}{f' ({owner})' if owner else ''} drops what of {names} {lost}"
    return Obstacle(f"firewall-{purpose}", f"the firewall, {sanitise(chain.table, 60)}", sanitise(why, 300), mend)


def _owner(rules: Ruleset, purpose: str, chain: Chain, device: str) -> tuple[str, str]:
    """Return who keeps a chain, and how it is told to let a bridge's traffic pass."""
    if chain.table == "firewalld":
        return "firewalld", f"firewall-cmd --permanent --zone=libvirt --add-interface={device} && firewall-cmd --reload"
    has = [prefix for prefix in ("ufw", "DOCKER") if rules.has_chain(chain.family, chain.table, prefix)]
    if "ufw" in has:
        return "ufw", f"ufw route allow in on {device}" if purpose == "forward" else f"ufw allow in on {device}"
    iptables = "ip6tables" if chain.family == "ip6" else "iptables"
    if "DOCKER" in has and purpose == "forward":
        inside = f"{iptables} -I DOCKER-USER -i {device} -j ACCEPT"
        return "Docker", f"{inside} && {iptables} -I DOCKER-USER -o {device} -j ACCEPT"
    if chain.family != "inet" and chain.name in ("FORWARD", "INPUT"):
        inside = f"{iptables} -I {chain.name} -i {device} -j ACCEPT"
        outside = f" && {iptables} -I {chain.name} -o {device} -j ACCEPT" if purpose == "forward" else ""
        return "", inside + outside
    insert = f"nft insert rule {chain.family} {chain.table} {chain.name}"
    outside = f" && {insert} oifname {device} accept" if purpose == "forward" else ""
    return "", f"{insert} iifname {device} accept{outside}"
