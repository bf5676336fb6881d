"""What a network is to be, and what guards a VM's NICs, in the words of all that show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backend.model.addressing import FAMILIES
from backend.model.documents import Document
from kc_tui.state.network_values import format_rate, format_seconds

_ANTI_SPOOF = {"mac": "its own MAC only", "address": "its own MAC and addresses only", "off": "any sender"}

Facts = Iterator[tuple[str, str]]


def describe_facts(document: Document) -> Facts:
    """Yield what a network is to be: uplink, addresses, gateway, names, size of packets, guards."""
    spec, status = document["spec"], document.get("status", {})
    yield "uplink", describe_uplink(spec)
    yield from _describe_vxlan(spec.get("vxlan"))
    for family in FAMILIES:
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


def describe_uplink(spec: Document) -> str:
    """Return by what a network reaches the outside: `nat`, `isolated, vxlan 100`."""
    vxlan = spec.get("vxlan")
    if not isinstance(vxlan, dict):
        return str(spec.get("uplink", ""))
    joined = "vxlan" if vxlan.get("vni") is None else f"vxlan {vxlan['vni']}"
    return joined if spec.get("uplink") == "isolated" else f"{spec.get('uplink', '')}, {joined}"


def describe_gateway(document: Document) -> str:
    """Return who routes for a network: the document's word, the addresses, and whether they answer."""
    given = str(document.get("spec", {}).get("gateway", ""))
    found = document.get("status", {}).get("gateway") or {}
    addresses = [str(found[family]) for family in FAMILIES if found.get(family)]
    shown = [] if ",".join(addresses) == given else addresses
    return join_words([given, *shown, found.get("state", "")])


def _describe_vxlan(vxlan: Any) -> Facts:
    if not isinstance(vxlan, dict):
        return
    peers = [str(peer) for peer in vxlan.get("peers") or ()]
    yield (
        "vxlan",
        join_words(
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


def _describe_side(family: str, side: Document) -> Facts:
    """Yield what one family of addresses is, and what DHCP and advertisements tell VMs of it."""
    if not side.get("subnet"):
        yield family, "none"
        return
    lease = side.get("leaseSeconds")
    lent = f"lent for {format_seconds(lease)}" if lease and side.get("mode") in ("dhcp", "dhcpv6") else ""
    yield family, join_words([side["subnet"], side.get("mode", ""), lent])
    ranges = [f"{each.get('start', '')}-{each.get('end', '')}" for each in side.get("ranges") or ()]
    if ranges:
        yield f"{family} range", ", ".join(ranges)
    for each in side.get("reservations") or ():
        whom = [each.get(field, "") for field in ("mac", "duid", "hostname")]
        yield f"{family} reserved", "  ".join([each.get("address", ""), *(word for word in whom if word)])
    for each in side.get("routes") or ():
        yield f"{family} route", f"{each.get('to', '')} via {each.get('via', '')}"
    if side.get("ntp"):
        yield f"{family} ntp", ", ".join(map(str, side["ntp"]))


def _describe_link(spec: Document, status: Document) -> Facts:
    if status.get("bridge"):
        yield "bridge", str(status["bridge"])
    wanted, found = spec.get("mtu"), status.get("mtu")
    if wanted and found and wanted != found:
        yield "mtu", f"{found}, wanted {wanted}"
    elif wanted or found:
        yield "mtu", str(wanted or found)


def _describe_safety(spec: Document) -> Facts:
    guard, limit = spec.get("guard"), spec.get("rateLimit") or {}
    if isinstance(guard, dict):
        yield (
            "guard",
            join_words(
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
    return join_words([f"{verb} at most {format_rate(count)}" for verb, count in words if count])


def describe_guards(document: Document) -> Facts:
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
            join_words(
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


def join_words(parts: Sequence[object], between: str = ", ") -> str:
    """Return the parts that say something as one text."""
    return between.join(str(part) for part in parts if part)
