"""What a host's kernel says of its networks, whatever libvirt remembers: one look for any number of them.

A network of libvirt's stays "active" after its bridge, its DHCP server or its VXLAN is gone. Sources: iproute2's ip(8)
and bridge(8), whose JSON has the names used below; proc(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from backend.errors import FailedError, KCError
from backend.network.obstacles import find_obstacles
from backend.network.plan import NetworkPlan, NetworkState, Server, Vxlan

if TYPE_CHECKING:
    from backend.network.shell import Shell

__all__ = ["find_obstacles", "look"]

SECONDS = 10.0
_JSON = json.JSONDecoder(strict=False)
_DHCP_MODES = ("dhcp", "dhcpv6")
_UNSETTLED = ("PERMANENT", "NOARP", "STALE", "DELAY")
"""States of a neighbour (ip-neighbour(8)) that tell nothing of whether it is there now."""

# $1: what `ip` is asked, a line each; the others: `ADDRESS dev BRIDGE` of gateways. A frame of unknown destination goes
# to where the VXLAN keeps an entry without a MAC; such lines, and those of neighbours, have no words of anybody's. Only
# servers in our network namespace count: a container's libvirt may have networks of the same names. A gateway is asked
# as the kernel asks for a neighbour, whether or not it is known, and one that an operator has set is left alone: by one
# command, or, where that ends at something it cannot do (`use` is iproute2's since 5.16), one by one.
_SCRIPT = r"""
for program in ip bridge; do command -v $program >/dev/null || { echo @missing; echo $program; exit 0; }; done
echo @bridges; ip -j -d link show type bridge
echo @vxlans; ip -j -d link show type vxlan
echo @ports; bridge -j link show
echo @peers; bridge fdb show | grep '^00:00:00:00:00:00 '
echo @devices; printf '%s\n' "$1" | ip -j -force -batch - 2>/dev/null
shift
echo @configured; for file in /var/lib/libvirt/dnsmasq/*.conf; do echo "$file"; done
echo @served
for found in $(grep -lsx dnsmasq /proc/[0-9]*/comm); do
    process=${found%/comm}
    [ -e "$process/ns/net" ] && ! [ "$process/ns/net" -ef /proc/self/ns/net ] || echo "$process/cmdline"
done | xargs cat /dev/null 2>/dev/null | tr '\0' '\n' | sed -n 's/^--conf-file=//p'
[ $# -gt 0 ] || exit 0
among() { ip neigh show "$@" | cut -d ' ' -f 1-3; }
asked=$(printf '%s\n' "$@")
ours=$(echo "$asked" | grep -vxF -e "$(among nud permanent)")
known=$(among nud reachable nud stale nud delay nud probe)
{
    { echo "$ours" | grep -xF -e "$known" | sed 's/..*/neigh change & nud probe/'
    echo "$ours" | grep -vxF -e "$known" | sed 's/..*/neigh replace & use/'; } | ip -force -batch - ||
    echo "$ours" | while read -r address dev bridge; do
        ip neigh change $address dev $bridge nud probe || ip neigh replace $address dev $bridge use ||
            ping -c 1 -W 1 -I $bridge $address &
    done
} >/dev/null 2>&1
left=12
answers() { among nud reachable | grep -cxF -e "$asked"; }
while [ "$(answers)" -lt $# ] && [ $left -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
echo @neighbours; ip neigh show | grep -F -e "$asked"
"""


class _Seen(NamedTuple):
    """What the kernel told: devices by their names, their ports, a VXLAN's peers, servers by their networks' names."""

    bridges: dict[str, dict[str, Any]]
    vxlans: dict[str, dict[str, Any]]
    ports: dict[str, list[str]]
    peers: dict[str, set[str]]
    devices: list[dict[str, Any]]
    configured: set[str]
    served: set[str]
    neighbours: dict[tuple[str, str], str]


def look(
    shell: Shell, plans: Sequence[tuple[NetworkPlan, str]], *, thorough: bool, servers: bool = True
) -> list[NetworkState]:
    """Return what the kernel says of each (plan, name of its bridge), in their order.

    One command, however many, and those that read who else serves there, without `servers` not. A `thorough` look asks
    the gateways too, all at once, and takes 1.5 s at most where one is silent. Raises FailedError where programs are
    missing, and what the shell raises.
    """
    if not plans:
        return []
    gateways = _gateways(plans) if thorough else []
    questions = [*_underlays(plans), *(f"addr show to {address}" for address, _, is_own in gateways if is_own)]
    asked = [f"{address} dev {bridge}" for address, bridge, is_own in gateways if not is_own]
    command = ["sh", "-c", _SCRIPT, "kc", "\n".join(dict.fromkeys(questions)), *dict.fromkeys(asked)]
    seen = _read(shell, shell.run(command, seconds=SECONDS).output)
    others = _read_servers(shell) if servers else {}
    return [
        _judge(plan, bridge, seen, others.get(bridge, ()))._replace(
            gateways=tuple(_ask(gateway, seen) for gateway in _gateways([(plan, bridge)])) if thorough else ()
        )
        for plan, bridge in plans
    ]


def _read_servers(shell: Shell) -> dict[str, list[Server]]:
    """Return who else serves on each bridge; {} where nobody watches for them."""
    from backend.network.guards import read_servers  # noqa: PLC0415 - it is on the way of no list

    with suppress(KCError):
        return read_servers(shell)
    return {}


def _gateways(plans: Iterable[tuple[NetworkPlan, str]]) -> list[tuple[str, str, bool]]:
    """Return each gateway's address, the bridge that it is behind, and whether it is the host itself."""
    return [
        (side.gateway, bridge, side.gateway == side.host)
        for plan, bridge in plans
        for side in (plan.ipv4, plan.ipv6)
        if side.gateway and _is_word(side.gateway) and _is_word(bridge)
    ]


def _underlays(plans: Iterable[tuple[NetworkPlan, str]]) -> list[str]:
    """Return what `ip` is asked about the devices below VXLANs."""
    return [
        f"link show dev {vxlan.underlay}" if vxlan.underlay else f"addr show to {vxlan.local}"
        for plan, _ in plans
        if (vxlan := plan.vxlan) and _is_word(vxlan.underlay or vxlan.local)
    ]


def _is_word(text: str) -> bool:
    """Return whether a name is one word to `ip`, whose lines a blank would part, and no option."""
    return text.split() == [text] and not text.startswith("-")


def _read(shell: Shell, output: str) -> _Seen:
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output.splitlines():
        if line.startswith("@"):
            lines = sections[line[1:]] = []
        else:
            lines.append(line)
    if "missing" in sections:
        missing = f"the program {sections['missing'][0]} is missing"
        raise FailedError(f"the networks of {shell.where}", missing, "apt-get install iproute2")
    try:
        values = {name: _values(sections[name]) for name in ("bridges", "vxlans", "ports", "devices")}
        return _Seen(
            bridges={link["ifname"]: link for link in values["bridges"]},
            vxlans={link["ifname"]: link for link in values["vxlans"]},
            ports=_read_ports(values["ports"]),
            peers=_read_peers(sections["peers"]),
            devices=values["devices"],
            configured={PurePosixPath(path).stem for path in sections["configured"]},
            served={path.stem for path in map(PurePosixPath, sections["served"]) if path.parent.name == "dnsmasq"},
            neighbours=_read_neighbours(sections.get("neighbours", [])),
        )
    except (ValueError, KeyError, TypeError) as error:
        # busybox has an `ip` of its own, which says things otherwise.
        why = "its `ip` or `bridge` gives no JSON that KC knows"
        raise FailedError(f"the networks of {shell.where}", why, "apt-get install iproute2") from error


def _values(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the objects of JSON lists that follow one another, without those that stand for what was filtered out."""
    text = "\n".join(lines).strip()
    values: list[dict[str, Any]] = []
    while text:
        found, end = _JSON.raw_decode(text)
        values += [each for each in found if each]
        text = text[end:].lstrip()
    return values


def _read_ports(links: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    ports: dict[str, list[str]] = {}
    for link in links:
        ports.setdefault(link.get("master", ""), []).append(link["ifname"])
    return ports


def _read_peers(lines: Iterable[str]) -> dict[str, set[str]]:
    """Return where each VXLAN sends what it does not know: `MAC dev NAME dst ADDRESS …`."""
    peers: dict[str, set[str]] = {}
    for line in lines:
        match line.split():
            case [_, "dev", device, "dst", address, *_]:
                peers.setdefault(device, set()).add(address)
    return peers


def _read_neighbours(lines: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the state of each (address, device): `ADDRESS dev NAME … STATE`."""
    states = {}
    for line in lines:
        match line.split():
            case [address, "dev", device, *_, state]:
                states[address, device] = state
    return states


def _judge(plan: NetworkPlan, bridge: str, seen: _Seen, servers: Sequence[Server]) -> NetworkState:
    link = seen.bridges.get(bridge, {})
    return NetworkState(
        bridge=bridge,
        up="UP" in link.get("flags", ()),
        mtu=link.get("mtu", 0),
        ports=tuple(seen.ports.get(bridge, ())),
        dnsmasq=_has_server(plan, seen),
        vxlan=_judge_vxlan(plan, bridge, seen),
        underlay_mtu=_underlay_mtu(plan.vxlan, seen.devices) if plan.vxlan else 0,
        servers=tuple(servers),
    )


def _has_server(plan: NetworkPlan, seen: _Seen) -> bool | None:
    """Return whether the DHCP and DNS server of a network runs; None where libvirt has none for it."""
    if plan.name in seen.served:
        return True
    serves = any(side.mode in _DHCP_MODES for side in (plan.ipv4, plan.ipv6))
    is_own = not plan.uplink.startswith("bridge:")
    return False if is_own and (serves or plan.name in seen.configured) else None


def _judge_vxlan(plan: NetworkPlan, bridge: str, seen: _Seen) -> str:
    vxlan = plan.vxlan
    if vxlan is None:
        return ""
    link = seen.vxlans.get(vxlan.device)
    if link is None:
        return "missing"
    data = link.get("linkinfo", {}).get("info_data", {})
    found = (
        data.get("id"), data.get("local", data.get("local6", "")), data.get("group", data.get("group6", "")),
        data.get("port"), link.get("master", ""), link["mtu"] if plan.mtu else 0,
        data.get("link", "") if vxlan.underlay else "",
        () if vxlan.group else tuple(sorted(seen.peers.get(vxlan.device, ()))),
    )  # fmt: skip
    wanted = (
        vxlan.vni, vxlan.local, vxlan.group, vxlan.port, bridge, plan.mtu, vxlan.underlay, tuple(sorted(vxlan.peers)),
    )  # fmt: skip
    if found != wanted:
        return "different"
    return "up" if "UP" in link.get("flags", ()) else "down"


def _underlay_mtu(vxlan: Vxlan, devices: Iterable[dict[str, Any]]) -> int:
    """Return the MTU of the device below a VXLAN; 0 where it is not there."""
    for link in devices:
        if vxlan.underlay:
            is_it = link.get("ifname") == vxlan.underlay
        else:
            is_it = any(each.get("local") == vxlan.local for each in link.get("addr_info", ()))
        if is_it:
            return int(link.get("mtu", 0))
    return 0


def _ask(gateway: tuple[str, str, bool], seen: _Seen) -> tuple[str, str]:
    """Return a gateway's address, and whether it `answers`, is `silent`, or nobody can tell (`unknown`)."""
    address, bridge, is_own = gateway
    if is_own:
        has = any(
            link.get("ifname") == bridge
            and any(each.get("local") == address and not each.get("dadfailed") for each in link.get("addr_info", ()))
            for link in seen.devices
        )
        return address, "answers" if has else "silent"
    state = seen.neighbours.get((address, bridge), "")
    return address, "answers" if state == "REACHABLE" else "unknown" if state in _UNSETTLED else "silent"
