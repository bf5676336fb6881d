"""VXLAN devices and the ports of bridges, as a host's kernel has them; by iproute2 and nftables.

Everything may be repeated, and by several processes at once. A device is KC's by its alias; another's is never touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from backend.errors import ConflictError, FailedError, KCError, RefusedError
from backend.network.plan import Vxlan
from backend.network.shell import Finished, Shell, failure
from backend.text import sanitise

Link = dict[str, Any]
"""What `ip -j -d address show` says of a device."""
Entry = dict[str, Any]
"""What `bridge -j fdb show` says of a forwarding entry."""

_LOOK_AT_LINKS = ("ip", "-j", "-d", "address", "show")
_LOOK_AT_ENTRIES = ("bridge", "-j", "fdb", "show", "dev")
TTL = 64
"""The kernel's own for a multicast group is 1, which no router passes on."""
# The address under which a device keeps where frames go of which nobody knows the receiver's host.
_EVERYONE = "00:00:00:00:00:00"
_LISTED = 6
# In one command, as the way to a host may be long. A port of a bridge needs no address, and without one it sends
# nothing of its own into the segment. Below an MTU of 1280 it has no IPv6 that could be told so, and above gets an
# address at once where it is up.
_SETTLE = """
set -e
ip link set dev "$1" alias "$2"
[ "$3" = 0 ] || ip link set dev "$1" mtu "$3"
{ ip link set dev "$1" addrgenmode none && ip -6 address flush dev "$1"; } 2>/dev/null || :
exec ip link set dev "$1" master "$4" up
"""
_HINTS = (
    ("Address already in use", "another program has that UDP port: choose another vxlan.port"),
    ("Unknown device type", "the host's kernel has no VXLAN: `modprobe vxlan`"),
    ("Operation not supported", "the host's kernel has no VXLAN: `modprobe vxlan`"),
)


class _Shape(NamedTuple):
    """What of a VXLAN device cannot be changed while it is there, or not in full."""

    vni: int
    port: int
    local: str
    group: str
    underlay: str
    learning: bool = True


def underlay_mtu(shell: Shell, local: str, device: str = "") -> int:
    """Return the MTU of `device`, or of the device that has the address `local`; RefusedError where there is none."""
    links = _read(shell, _LOOK_AT_LINKS)
    holder = _holder(shell, links, local)
    found = _find(links, device) if device else holder
    if found is None:
        raise RefusedError(
            f"the VXLAN's device {sanitise(device, 60)}", f"{shell.where} has no such device", _ends(links)
        )
    return int(found["mtu"])


def ensure_vxlan(shell: Shell, vxlan: Vxlan, *, bridge: str, mtu: int, alias: str) -> None:
    """Have a VXLAN device be there as planned, a port of `bridge`, and up; an `mtu` of 0 leaves it to the kernel.

    Peers are added and removed while it is in use; where they are known, nobody else's frames are let in. A device that
    differs in what cannot be changed is made anew. Raises ConflictError where the name, or the VNI on that port, is
    another's, RefusedError where no device has the local address or the underlay is not there.
    """
    what = f"VXLAN {vxlan.vni}"
    links = _read(shell, _LOOK_AT_LINKS)
    there = _find(links, vxlan.device)
    if there is not None and not _is_ours(there, vxlan, alias):
        raise _foreign(shell, what, there)
    present = None if there is None else _shape_of(there)
    shape = _shape_wanted(shell, vxlan, links, present)
    if there is not None and present != shape:
        ensure_no_vxlan(shell, vxlan.device, str(there.get("ifalias", "")))
        there = None
    _admit(shell, vxlan)
    if there is None:
        _check_clash(shell, vxlan, links)
        _make(shell, vxlan, shape, alias)
    settled = shell.run(("sh", "-c", _SETTLE, "sh", vxlan.device, alias, str(mtu), bridge))
    if settled.code:
        raise _failed(shell, what, settled)
    _ensure_peers(shell, vxlan, shape.underlay)


def ensure_no_vxlan(shell: Shell, device: str, alias: str) -> None:
    """Remove a VXLAN device and who was let in to it; absent is fine, and one of another's alias stays."""
    there = _find(_read(shell, _LOOK_AT_LINKS), device)
    if there is not None and there.get("ifalias", "") == alias:
        gone = shell.run(("ip", "link", "delete", "dev", device))
        if gone.code and _find(_read(shell, _LOOK_AT_LINKS), device) is not None:
            raise failure(shell, f"device {device}", gone)
    _load(shell, f"device {device}", _no_table(device))


def attach_ports(shell: Shell, bridge: str, taps: Sequence[str], isolated: Iterable[str] | None = None) -> None:
    """Have devices be ports of a bridge, with its MTU; those of them in `isolated` do not reach one another.

    A device that is no longer there is left out: its VM has been stopped meanwhile. An `isolated` of None leaves that
    as it is; a device that was no port of the bridge is not isolated then.
    """
    links = _read(shell, _LOOK_AT_LINKS)
    above = _find(links, bridge)
    if above is None:
        raise FailedError(f"bridge {bridge}", f"{shell.where} has no such device")
    there = [tap for tap in taps if _find(links, tap) is not None]
    apart = None if isolated is None else set(isolated)
    ports = "".join(f"link set dev {tap} master {bridge} mtu {above['mtu']}\n" for tap in there)
    flags = "".join(
        f"link set dev {tap} isolated {'on' if tap in apart else 'off'}\n" for tap in there if apart is not None
    )
    done = [
        shell.run((program, "-force", "-batch", "-"), stdin=lines)
        for program, lines in (("ip", ports), ("bridge", flags))
        if lines
    ]
    for link in _read(shell, _LOOK_AT_LINKS):
        name = link["ifname"]
        if name in there and not _is_port(link, bridge, None if apart is None else name in apart):
            said = "\n".join(each.errors for each in done)
            raise failure(shell, f"port {name} of bridge {bridge}", Finished(1, "", said))


def _is_port(link: Link, bridge: str, is_isolated: bool | None) -> bool:
    flags = link.get("linkinfo", {}).get("info_slave_data", {})
    return link.get("master") == bridge and is_isolated in (None, flags.get("isolated"))


def _shape(vxlan: Vxlan, holder: str) -> _Shape:
    """Return what a device must be; unless it has to, it is bound to no device, so that routes may choose the way."""
    local = ip_address(vxlan.local)
    is_bound = bool(vxlan.group) or local.is_link_local
    underlay = vxlan.underlay or (holder if is_bound else "")
    return _Shape(vxlan.vni, vxlan.port, str(local), _plain(vxlan.group), underlay)


def _shape_wanted(shell: Shell, vxlan: Vxlan, links: Sequence[Link], there: _Shape | None) -> _Shape:
    """Return what the device must be; one that is there stays as it is while its underlay's address is gone."""
    if vxlan.underlay and _find(links, vxlan.underlay) is None:
        raise _no_device(shell, links, vxlan.underlay)
    if there is not None and _find_holder(links, vxlan.local) is None:
        return _shape(vxlan, there.underlay)
    return _shape(vxlan, str(_holder(shell, links, vxlan.local)["ifname"]))


def _shape_of(link: Link) -> _Shape | None:
    """Return the shape of a device, None for one that is no VXLAN."""
    info = link.get("linkinfo", {})
    if info.get("info_kind") != "vxlan":
        return None
    data = info.get("info_data", {})
    return _Shape(
        int(data.get("id", 0)),
        int(data.get("port", 0)),
        _plain(data.get("local6") or data.get("local", "")),
        _plain(data.get("group6") or data.get("group", "")),
        str(data.get("link", "")),
        bool(data.get("learning")),
    )


def _is_ours(link: Link, vxlan: Vxlan, alias: str) -> bool:
    """Return whether a device is KC's: it says so, or KC was killed before it could say it."""
    if link.get("ifalias", "") == alias:
        return True
    shape = _shape_of(link)
    is_unused = "ifalias" not in link and "master" not in link and "UP" not in link["flags"]
    return is_unused and shape is not None and shape[:3] == _shape(vxlan, "")[:3]


def _check_clash(shell: Shell, vxlan: Vxlan, links: Sequence[Link]) -> None:
    """Raise ConflictError where another device has the VNI on that port: the kernel keeps one for each family."""
    version = ip_address(vxlan.local).version
    for link in links:
        shape = _shape_of(link)
        if link.get("ifname") == vxlan.device or shape is None or shape[:2] != (vxlan.vni, vxlan.port):
            continue
        if _version_of(shape) == version:
            name = sanitise(link["ifname"], 60)
            owner = f" ({sanitise(link['ifalias'], 120)})" if link.get("ifalias") else ""
            raise ConflictError(
                f"VXLAN {vxlan.vni}",
                f"the device {name}{owner} of {shell.where} has this VNI on port {vxlan.port}",
                f"choose another vxlan.vni or vxlan.port, or remove it: `ip link delete {name}`",
                device=name,
            )


def _version_of(shape: _Shape) -> int:
    text = shape.local or shape.group
    return ip_address(text).version if text else 4


def _make(shell: Shell, vxlan: Vxlan, shape: _Shape, alias: str) -> None:
    optional = (("group", shape.group), ("dev", shape.underlay))
    made = shell.run((
        "ip", "link", "add", "name", vxlan.device, "type", "vxlan", "id", str(shape.vni), "local", shape.local,
        *(word for name, value in optional if value for word in (name, value)),
        "dstport", str(shape.port), "ttl", str(TTL), "learning",
    ))  # fmt: skip
    if made.code == 0:
        return
    # Another process may have made it meanwhile.
    there = _find(_read(shell, _LOOK_AT_LINKS), vxlan.device)
    if there is None or _shape_of(there) != shape or not _is_ours(there, vxlan, alias):
        raise _failed(shell, f"VXLAN {vxlan.vni}", made)


def _foreign(shell: Shell, what: str, link: Link) -> ConflictError:
    name = sanitise(link["ifname"], 60)
    owner = f"its alias is {sanitise(link['ifalias'], 120)}" if link.get("ifalias") else "it has no alias"
    return ConflictError(
        what,
        f"the device {name} of {shell.where} is not KC's: {owner}",
        f"rename it, or remove it: `ip link delete {name}`",
        device=name,
    )


# --- peers


def _ensure_peers(shell: Shell, vxlan: Vxlan, underlay: str) -> None:
    """Bring the forwarding entries to the plan: one for each peer, and none that leads to anybody else."""
    look = (*_LOOK_AT_ENTRIES, vxlan.device)
    changes = _entry_changes(vxlan, underlay, _read(shell, look))
    if not changes:
        return
    # One that was learned may be forgotten meanwhile: what counts is how it is in the end.
    done = shell.run(("bridge", "-force", "-batch", "-"), stdin="".join(f"{line}\n" for line in changes))
    if _entry_changes(vxlan, underlay, _read(shell, look)):
        raise _failed(shell, f"the peers of VXLAN {vxlan.vni}", done)


def _entry_changes(vxlan: Vxlan, underlay: str, entries: Iterable[Entry]) -> list[str]:
    """Return the lines for `bridge` that add what lacks, and remove what is too much."""
    wanted = {(end, underlay) for end in _peers(vxlan)}
    there = [(str(each["mac"]), (_plain(each["dst"]), str(each.get("viaIf", "")))) for each in entries if "dst" in each]
    known = {end for mac, end in there if mac == _EVERYONE}
    surplus = [
        (mac, end)
        for mac, end in there
        if (end not in wanted if mac == _EVERYONE else not vxlan.group and end[0] not in _peers(vxlan))
    ]
    return [
        f"fdb {verb} {mac} dev {vxlan.device} dst {address}{f' via {device}' if device else ''}"
        for verb, ends in (("append", [(_EVERYONE, end) for end in sorted(wanted - known)]), ("del", surplus))
        for mac, (address, device) in ends
    ]


def _peers(vxlan: Vxlan) -> frozenset[str]:
    """Return where frames go of which nobody knows the receiver's host."""
    return frozenset(_plain(end) for end in ((vxlan.group,) if vxlan.group else vxlan.peers))


def _admit(shell: Shell, vxlan: Vxlan) -> None:
    """Let in the peers of a VXLAN and nobody else; anybody where a group is meant.

    The kernel takes frames of a VNI from every sender, and learns to answer there: so a peer that is removed here, and
    not there, would stay one.
    """
    lines = _no_table(vxlan.device)
    if not vxlan.group:
        version = ip_address(vxlan.local).version
        family, kind = ("ip", "ipv4_addr") if version == 4 else ("ip6", "ipv6_addr")  # noqa: PLR2004 - IP's versions
        known = ", ".join(sorted(_peers(vxlan)))
        elements = f"elements = {{ {known} }};" if known else ""
        # The VNI is what comes after the 8 bytes of UDP's header, and 4 of VXLAN's (RFC 7348, section 5).
        lines += (
            f"table inet {_table(vxlan.device)} {{\n"
            f"  set peers {{ type {kind}; {elements} }}\n"
            "  chain input {\n"
            "    type filter hook input priority -300; policy accept;\n"
            f"    udp dport {vxlan.port} @th,96,24 {vxlan.vni} {family} saddr != @peers drop\n"
            "  }\n}\n"
        )
    _load(shell, f"the peers of VXLAN {vxlan.vni}", lines)


def _table(device: str) -> str:
    return f"kc_{device}"


def _no_table(device: str) -> str:
    """Return what removes a table, whether or not it is there."""
    return f"table inet {_table(device)} {{}}\ndelete table inet {_table(device)}\n"


def _load(shell: Shell, what: str, rules: str) -> None:
    done = shell.run(("nft", "-f", "-"), stdin=rules)
    if done.code:
        raise failure(shell, what, done)


# --- what is there


def _read(shell: Shell, command: Sequence[str]) -> list[dict[str, Any]]:
    done = shell.run(command)
    if done.code:
        raise failure(shell, " ".join(command), done)
    try:
        return [each for each in json.loads(done.output or "[]", strict=False) if each]
    except ValueError as error:
        raise FailedError(" ".join(command), f"{shell.where} answers something that is no JSON") from error


def _failed(shell: Shell, what: str, done: Finished) -> KCError:
    return failure(shell, what, done, next((hint for words, hint in _HINTS if words in done.errors), ""))


def _find(links: Iterable[Link], name: str) -> Link | None:
    return next((link for link in links if link.get("ifname") == name), None)


def _addresses(links: Iterable[Link]) -> Iterable[tuple[IPv4Address | IPv6Address, Link]]:
    return (
        (ip_address(each["local"]), link) for link in links for each in link.get("addr_info", ()) if "local" in each
    )


def _find_holder(links: Sequence[Link], local: str) -> Link | None:
    wanted = ip_address(local)
    return next((link for address, link in _addresses(links) if address == wanted), None)


def _holder(shell: Shell, links: Sequence[Link], local: str) -> Link:
    """Return the device that has an address; RefusedError where none has it."""
    found = _find_holder(links, local)
    if found is None:
        raise RefusedError(f"the VXLAN's local address {local}", f"no device of {shell.where} has it", _ends(links))
    return found


def _no_device(shell: Shell, links: Sequence[Link], device: str) -> RefusedError:
    return RefusedError(f"the VXLAN's device {sanitise(device, 60)}", f"{shell.where} has no such device", _ends(links))


def _ends(links: Sequence[Link]) -> str:
    """Return the addresses that a VXLAN could be given, for somebody who gave another."""
    usable = [
        f"{address} ({link['ifname']})"
        for address, link in _addresses(links)
        if not (address.is_loopback or address.is_link_local)
    ]
    more = ", …" if len(usable) > _LISTED else ""
    return f"it has {sanitise(', '.join(usable[:_LISTED]))}{more}" if usable else ""


def _plain(address: str) -> str:
    return str(ip_address(address)) if address else ""
