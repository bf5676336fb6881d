"""What `kc network show` says of a network, and `kc vm show` of what guards a VM's NICs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backend.model.documents import Document
from kc_tui.cli.columns import describe_network_state, describe_uplink
from kc_tui.cli.network_values import format_rate, format_seconds

_FAMILIES = ("ipv4", "ipv6")
_COUNTABLE = 1 << 32
_ANTI_SPOOF = {"mac": "its own MAC only", "address": "its own MAC and addresses only", "off": "any sender"}

Lines = Iterator[tuple[str, str]]


def describe_network(document: Document) -> Lines:
    """Yield all about a network: how it is and what is wrong first, then what it is to be, then who is on it."""
    spec, status = document["spec"], document.get("status", {})
    if status:
        reason = f" ({status['reason']})" if status.get("reason") else ""
        yield "state", f"{describe_network_state(document).text}{reason}"
    for problem in status.get("problems") or ():
        yield "problem", _join([problem.get("message", ""), problem.get("hint", "")], ". ")
    yield "uplink", describe_uplink(spec)
    yield from _describe_vxlan(spec.get("vxlan"))
    for family in _FAMILIES:
        yield from _describe_side(family, spec.get(family, {}))
    yield "gateway", describe_gateway(document)
    if spec.get("dns"):
        yield "dns", ", ".join(map(str, spec["dns"]))
    if spec.get("searchDomain"):
        yield "search domain", str(spec["searchDomain"])
    yield from _describe_link(spec, status)
    yield from _describe_safety(spec)
    if spec.get("libvirtNetwork"):
        yield "libvirt network", spec["libvirtNetwork"]
    if spec.get("description"):
        yield "description", spec["description"]
    yield from _describe_use(status)


def describe_gateway(document: Document) -> str:
    """Return who routes for a network: the document's word, the addresses, and whether they answer."""
    given = str(document.get("spec", {}).get("gateway", ""))
    found = document.get("status", {}).get("gateway") or {}
    addresses = [str(found[family]) for family in _FAMILIES if found.get(family)]
    shown = [] if ",".join(addresses) == given else addresses
    return _join([given, *shown, found.get("state", "")])


def _describe_vxlan(vxlan: Any) -> Lines:
    if not isinstance(vxlan, dict):
        return
    peers = [str(peer) for peer in vxlan.get("peers") or ()]
    yield (
        "vxlan",
        _join(
            [
                "VNI chosen by KC" if vxlan.get("vni") is None else f"VNI {vxlan['vni']}",
                f"local {vxlan.get('local', '')}",
                f"group {vxlan['group']}" if vxlan.get("group") else "",
                f"port {vxlan.get('port', '')}",
                f"device {vxlan['dev']}" if vxlan.get("dev") else "",
            ]
        ),
    )
    if peers:
        yield "peers", ", ".join(peers)


def _describe_side(family: str, side: Document) -> Lines:
    """Yield what one family of addresses is, and what DHCP and advertisements tell VMs of it."""
    if not side.get("subnet"):
        yield family, "none"
        return
    lease = side.get("leaseSeconds")
    lent = f"lent for {format_seconds(lease)}" if lease and side.get("mode") in ("dhcp", "dhcpv6") else ""
    yield family, _join([side["subnet"], side.get("mode", ""), lent])
    ranges = [f"{each.get('start', '')}-{each.get('end', '')}" for each in side.get("ranges") or ()]
    if ranges:
        yield f"{family} range", ", ".join(ranges)
    for each in side.get("reservations") or ():
        whom = [each.get(field, "") for field in ("mac", "duid", "hostname")]
        yield f"{family} reserved", _columns([(each.get("address", ""), *(word for word in whom if word))])
    for each in side.get("routes") or ():
        yield f"{family} route", f"{each.get('to', '')} via {each.get('via', '')}"
    if side.get("ntp"):
        yield f"{family} ntp", ", ".join(map(str, side["ntp"]))


def _describe_link(spec: Document, status: Document) -> Lines:
    if status.get("bridge"):
        yield "bridge", str(status["bridge"])
    wanted, found = spec.get("mtu"), status.get("mtu")
    if wanted and found and wanted != found:
        yield "mtu", f"{found}, wanted {wanted}"
    elif wanted or found:
        yield "mtu", str(wanted or found)


def _describe_safety(spec: Document) -> Lines:
    guard, limit = spec.get("guard"), spec.get("rateLimit") or {}
    if isinstance(guard, dict):
        yield (
            "guard",
            _join(
                [
                    f"anti-spoofing {guard.get('antiSpoof', 'auto')}",
                    f"DHCP guard {guard.get('dhcpGuard', 'auto')}",
                    f"RA guard {guard.get('raGuard', 'auto')}",
                    "VMs isolated from one another" if guard.get("isolated") else "",
                ]
            ),
        )
    rates = _describe_rates(limit)
    if rates:
        yield "rate", f"each NIC {rates}"


def _describe_rates(limit: Document) -> str:
    words = [("receives", limit.get("receiveBytesPerSecond")), ("sends", limit.get("sendBytesPerSecond"))]
    return _join([f"{verb} at most {format_rate(count)}" for verb, count in words if count])


def _describe_use(status: Document) -> Lines:
    """Yield who is on a network: VMs, addresses with their owners, leases, and what is free."""
    users = status.get("vms")
    if isinstance(users, list):
        yield "vms", ", ".join(map(str, users)) or "none"
    fields = ("address", "owner", "source")
    rows = [tuple(str(entry.get(field, "")) for field in fields) for entry in status.get("addresses") or ()]
    if rows:
        yield "in use", _columns(rows)
    rows = [_show_lease(entry) for entry in status.get("leases") or ()]
    if rows:
        yield "leases", _columns(rows)
    free = status.get("free") or {}
    counts = [f"{_count(free[family])} {family}" for family in _FAMILIES if isinstance(free.get(family), int)]
    if counts:
        yield "free", ", ".join(counts)


def _count(number: int) -> str:
    """Return a figure that one can read; nobody reads all the digits of an IPv6 subnet's."""
    return f"{number:,}" if number < _COUNTABLE else f"about 2^{(number - 1).bit_length()}"


def _show_lease(lease: Document) -> tuple[str, ...]:
    owner = "/".join(str(lease[field]) for field in ("vm", "nic") if lease.get(field))
    fields = (lease.get("address"), lease.get("mac"), lease.get("hostname"), f"VM {owner}" if owner else "")
    return tuple(str(field or "") for field in fields)


def describe_guards(document: Document) -> Lines:
    """Yield, for each NIC of a VM, what it may not do, how much it may move, and what was dropped of it."""
    status = document.get("status", {})
    for entry in status.get("guards") or ():
        rates = {field: entry.get(field) for field in ("receiveBytesPerSecond", "sendBytesPerSecond")}
        spoof = str(entry.get("antiSpoof", ""))
        counts = [f"{count} {reason}" for reason, count in (entry.get("drops") or {}).items() if count]
        dropped = f"dropped {', '.join(counts)}" if counts else "nothing dropped"
        if not entry.get("active", True):
            dropped = "not in force on the host" if status.get("power") == "running" else ""
        yield (
            f"guard {entry.get('nic', '')}",
            _join(
                [
                    _ANTI_SPOOF.get(spoof, spoof),
                    "no DHCP server" if entry.get("dhcpGuard") else "",
                    "no router" if entry.get("raGuard") else "",
                    "isolated" if entry.get("isolated") else "",
                    _describe_rates(rates),
                    dropped,
                ]
            ),
        )


def _join(parts: Sequence[object], between: str = ", ") -> str:
    return between.join(str(part) for part in parts if part)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines whose parts stand below each other."""
    from kc_tui.cli.table import Column, render  # noqa: PLC0415 - most networks need none

    count = max(map(len, rows))
    filled = [(*row, *[""] * (count - len(row))) for row in rows]
    return "\n".join(render([Column("")] * count, filled)[1:])
