"""Guards of NICs in the kernel of a host: one nftables table for each KC store, and one that watches for servers.

A guard names its NIC's device, so it can be there before the device is, and holds whenever it comes back. Every change
is one transaction: at no time is a NIC half guarded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from backend.network.guard_rules import (
    DROPS,
    REASONS,
    Port,
    build_frame,
    build_port,
    is_guarding,
    plain_uid,
    read_port,
    remove_port,
    table_of,
)
from backend.network.plan import PortDrops, PortGuard, Server
from backend.network.shell import Finished, Shell, failure
from backend.text import sanitise

WATCH_SECONDS = 3600
"""How long a server is remembered that is not heard any more."""
_WATCH = "kc_watch"
_ABSENT = "No such file or directory"
_NO_NFTABLES = "nftables for bridges is missing: modprobe nf_tables, or a kernel with CONFIG_NF_TABLES_BRIDGE"
# Behind the guards: what they drop serves nobody. A DHCP answer is told by its ports, and op 2 (RFC 2131).
_WATCHED = (
    ("dhcp4", "ipv4_addr", "meta protocol ip udp sport 67 udp dport 68 @th,64,8 2", "ip saddr"),
    ("dhcp6", "ipv6_addr", "meta protocol ip6 udp sport 547 udp dport 546", "ip6 saddr"),
    ("router", "ipv6_addr", "meta protocol ip6 meta l4proto ipv6-icmp icmpv6 type nd-router-advert", "ip6 saddr"),
)
_MOST_SERVERS = 1024


def ensure(shell: Shell, owner: str, uid: str, guards: Sequence[PortGuard]) -> None:
    """Have the guards of a VM's NICs be these and no others; see `Hypervisor.ensure_guards`."""
    table, vm = table_of(owner), plain_uid(uid)
    found = {port for port in _read_ports(shell, table) if port.uid == vm}
    guarding = [guard for guard in guards if is_guarding(guard)]
    wanted = {Port(vm, guard.tap) for guard in guarding}
    if not found and not wanted:
        return
    lines = build_frame(table)
    for guard in guarding:
        lines += build_port(table, vm, guard)
    for port in sorted(found - wanted):
        lines += remove_port(table, port)
    _apply(shell, lines)


def drops(shell: Shell, owner: str, uid: str) -> list[PortDrops]:
    """Return how many frames the guards of a VM's NICs have dropped, by what they look at; see `PortDrops`."""
    table, vm = table_of(owner), plain_uid(uid)
    taps = sorted(port.tap for port in _read_ports(shell, table) if port.uid == vm)
    counted: dict[str, list[tuple[str, int]]] = {tap: [] for tap in taps}
    for element in _read_elements(shell, table, DROPS) if taps else ():
        tap, number = element["val"]["concat"]
        if tap in counted:
            counted[tap].append((REASONS[number], element["counter"]["packets"]))
    there = _read_masters(shell) if taps else {}
    return [
        PortDrops(tap, tuple(sorted(counted[tap], key=lambda pair: REASONS.index(pair[0]))), tap in there)
        for tap in taps
    ]


def ensure_none_but(shell: Shell, owner: str, uids: Iterable[str]) -> None:
    """Remove the guards of an owner's VMs but of those with these uids; where none is left, the owner's table."""
    table, kept = table_of(owner), {plain_uid(uid) for uid in uids}
    if not kept:
        _apply(shell, [f"add table bridge {table}", f"delete table bridge {table}"])
        return
    surplus = sorted(port for port in _read_ports(shell, table) if port.uid not in kept)
    if surplus:
        _apply(shell, [*build_frame(table), *(line for port in surplus for line in remove_port(table, port))])


def ensure_watch(shell: Shell) -> None:
    """Have the host note who serves DHCP, or announces itself as a router, on any of its bridges; changes no frame."""
    chain = f"bridge {_WATCH} watch"
    lines = [f"add table bridge {_WATCH}"]
    for name, kind, _, _ in _WATCHED:
        lines.append(
            f"add set bridge {_WATCH} {name} {{ type ifname . ether_addr . {kind}; flags dynamic, timeout; "
            f"timeout {WATCH_SECONDS}s; size {_MOST_SERVERS}; }}"
        )
    lines += [
        f"add chain {chain} {{ type filter hook prerouting priority -200; policy accept; }}",
        f"flush chain {chain}",
    ]
    for name, _, match, source in _WATCHED:
        lines.append(f"add rule {chain} {match} update @{name} {{ iifname . ether saddr . {source} }}")
    _apply(shell, lines)


def read_servers(shell: Shell) -> dict[str, list[Server]]:
    """Return who was noted since `ensure_watch`, by the bridge that the server's port is in now; {} without a watch.

    The host's own servers are not noted: their frames come in by no port.
    """
    noted = [
        (item["set"]["name"], *element["elem"]["val"]["concat"])
        for item in _list(shell, "table", "bridge", _WATCH)
        for element in item.get("set", {}).get("elem", ())
    ]
    masters = _read_masters(shell) if noted else {}
    found: dict[str, set[Server]] = {}
    for name, port, mac, address in noted:
        if masters.get(port):
            server = Server("router" if name == "router" else "dhcp", sanitise(mac), sanitise(address))
            found.setdefault(masters[port], set()).add(server)
    return {bridge: sorted(servers) for bridge, servers in sorted(found.items())}


def _read_masters(shell: Shell) -> dict[str, str]:
    """Return every device, with the bridge that it is a port of."""
    finished = shell.run(["ip", "-j", "link", "show"])
    if finished.code:
        raise failure(shell, "the host's links", finished)
    return {link["ifname"]: link.get("master", "") for link in json.loads(finished.output or "[]", strict=False)}


def _read_ports(shell: Shell, table: str) -> set[Port]:
    """Return the NICs that have guards in a table; none where there is no table."""
    chains = [item["chain"] for item in _list(shell, "chains", "bridge") if "chain" in item]
    ports = (read_port(chain["name"]) for chain in chains if chain["table"] == table)
    return {port for port in ports if port is not None}


def _read_elements(shell: Shell, table: str, name: str) -> list[dict[str, Any]]:
    """Return what is in a set; nothing where there is none."""
    return [
        element["elem"]
        for item in _list(shell, "set", "bridge", table, name)
        for element in item.get("set", {}).get("elem", ())
    ]


def _list(shell: Shell, *what: str) -> list[dict[str, Any]]:
    finished = shell.run(["nft", "-j", "list", *what])
    if finished.code:
        if _ABSENT in finished.errors:
            return []
        raise _failed(shell, finished)
    items: list[dict[str, Any]] = json.loads(finished.output, strict=False)["nftables"]
    return items


def _apply(shell: Shell, lines: Sequence[str]) -> None:
    finished = shell.run(["nft", "-f", "-"], stdin="\n".join(lines) + "\n", seconds=30)
    if finished.code:
        raise _failed(shell, finished)


def _failed(shell: Shell, finished: Finished) -> Exception:
    # nftables shows the place under its words.
    errors = [line for line in finished.errors.splitlines() if "rror:" in line] or [finished.errors]
    return failure(shell, "the guards of NICs", finished._replace(errors=errors[0]), _NO_NFTABLES)
