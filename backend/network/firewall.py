"""What becomes of a packet in a host's nftables rules: read from `nft -j`, and walked through as the kernel would.

Three answers are enough: a rule's match holds, does not, or cannot be told. A packet that some rule may accept counts
as accepted, and one that some rule may drop does not count as dropped: what is told to hinder does hinder. Source of
the JSON: libnftables-json(5). Rules of the older iptables, which nft does not see, are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal, NamedTuple

Verdict = Literal["accept", "drop", ""]
_DEEPEST = 32
"""The kernel's own limit of jumps (NFT_JUMP_STACK_SIZE is 16); for a ruleset that we have misread."""
_ENDS: dict[str, Verdict] = {
    "accept": "accept", "drop": "drop", "reject": "drop", "queue": "accept", "masquerade": "accept", "snat": "accept",
}  # fmt: skip
_TARGETS: dict[str, Verdict] = {"REJECT": "drop", "DROP": "drop", "MASQUERADE": "accept", "SNAT": "accept"}
# What iptables asks of a connection is in the JSON without what it asks; of a new one, nearly always whether it is not.
_NOT_OF_NEW = ("conntrack", "state")


class Packet(NamedTuple):
    """The first packet of a connection: devices that are "" are not known; neither are addresses that are None."""

    iif: str
    oif: str
    version: int
    protocol: str
    port: int
    source: IPv4Address | IPv6Address | None = None
    target: IPv4Address | IPv6Address | None = None


class Chain(NamedTuple):
    """A base chain, by which the kernel begins."""

    family: str
    table: str
    name: str


class Ruleset:
    """A host's rules, from the objects that `nft -j list ruleset` gives."""

    def __init__(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Keep chains, rules and sets."""
        self._bases: dict[Chain, Mapping[str, Any]] = {}
        self._rules: dict[Chain, list[list[Any]]] = {}
        self._sets: dict[Chain, list[Any]] = {}
        for each in objects:
            for kind, body in each.items():
                self._keep(kind, body)

    def _keep(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "chain":
            key = Chain(body["family"], body["table"], body["name"])
            self._rules.setdefault(key, [])
            if "hook" in body:
                self._bases[key] = body
        elif kind == "rule":
            self._rules.setdefault(Chain(body["family"], body["table"], body["chain"]), []).append(body["expr"])
        elif kind in ("set", "map"):
            self._sets[Chain(body["family"], body["table"], body["name"])] = body.get("elem", [])

    def has_chain(self, family: str, table: str, prefix: str) -> bool:
        """Return whether a table has a chain whose name begins so."""
        return any(key[:2] == (family, table) and key.name.startswith(prefix) for key in self._rules)

    def stops(self, hook: str, packet: Packet) -> Iterator[Chain]:
        """Yield the base chains at a hook that certainly do not let a packet pass."""
        for chain in self._at(hook, packet.version, "filter"):
            if (self._walk(chain, packet, 0) or self._bases[chain].get("policy", "accept")) == "drop":
                yield chain

    def translates(self, packet: Packet) -> bool:
        """Return whether a packet may get the host's own address as its source."""
        return any(self._walk(chain, packet, 0) == "accept" for chain in self._at("postrouting", packet.version, "nat"))

    def _at(self, hook: str, version: int, kind: str) -> list[Chain]:
        families = ("inet", "ip" if version == 4 else "ip6")  # noqa: PLR2004 - the version of the protocol
        return [
            key
            for key, body in self._bases.items()
            if body["hook"] == hook and body.get("type") == kind and key.family in families
        ]

    def _walk(self, chain: Chain, packet: Packet, depth: int) -> Verdict:
        """Return what a chain's rules say; "" where they let the packet go on."""
        if depth > _DEEPEST:
            return "accept"
        for rule in self._rules.get(chain, []):
            verdict, ends = self._apply(rule, chain, packet, depth)
            if verdict or ends:
                return verdict
        return ""

    def _apply(self, rule: Iterable[Any], chain: Chain, packet: Packet, depth: int) -> tuple[Verdict, bool]:
        """Return what one rule says, and whether its chain ends with it."""
        certain = True
        for statement in rule:
            kind, body = next(iter(statement.items())) if isinstance(statement, dict) else (str(statement), None)
            holds = self._holds(kind, body, chain, packet)
            if holds is False:
                return "", False
            certain = certain and holds is True
            if kind == "vmap":
                verdict, ends = self._map(body, chain, packet, depth)
            else:
                verdict, ends = self._end(kind, body, chain, packet, depth)
            if verdict == "accept" or (certain and (verdict or ends)):
                return verdict, ends
        return "", False

    def _holds(self, kind: str, body: Any, chain: Chain, packet: Packet) -> bool | None:
        """Return whether a statement lets its rule go on; None where that cannot be told."""
        if kind == "match":
            return self._matches(body, chain, packet)
        if kind == "limit":
            return None
        if kind == "xt" and isinstance(body, dict) and body.get("type") == "match":
            return False if body.get("name") in _NOT_OF_NEW else True if body.get("name") == "comment" else None
        return True

    def _end(self, kind: str, body: Any, chain: Chain, packet: Packet, depth: int) -> tuple[Verdict, bool]:
        if kind == "xt" and isinstance(body, dict) and body.get("type") == "target":
            return _TARGETS.get(str(body.get("name")), ""), False
        if kind in ("jump", "goto"):
            return self._walk(chain._replace(name=body["target"]), packet, depth + 1), kind == "goto"
        return _ENDS.get(kind, ""), kind == "return"

    def _map(self, body: Any, chain: Chain, packet: Packet, depth: int) -> tuple[Verdict, bool]:
        """Return what a map from values to verdicts says: `ct state vmap { established : accept, … }`."""
        value, data = _value(body["key"], packet), body["data"]
        entries = data["set"] if isinstance(data, dict) else self._sets.get(chain._replace(name=str(data)[1:]), [])
        for entry in entries:
            key, verdict = entry
            holds = self._is_in(value, key, chain)
            if holds is False:
                continue
            kind, target = next(iter(verdict.items()))
            found, ends = self._end(kind, target, chain, packet, depth)
            if found == "accept" or holds:
                return found, ends
        return "", False

    def _matches(self, body: Mapping[str, Any], chain: Chain, packet: Packet) -> bool | None:
        left = body["left"]
        family = _family(left)
        if family and family != packet.version:
            return False
        found = self._is_in(_value(left, packet), body["right"], chain)
        if found is None or body.get("op") not in ("==", "in", "!="):
            return None
        return not found if body["op"] == "!=" else found

    def _is_in(self, value: Any, wanted: Any, chain: Chain) -> bool | None:
        """Return whether a value is, or is one of, what a rule wants."""
        if value is None:
            return None
        if isinstance(wanted, str) and wanted.startswith("@"):
            elements = self._sets.get(chain._replace(name=wanted[1:]))
            return None if elements is None else self._is_in(value, elements, chain)
        if isinstance(wanted, list):
            answers = [self._is_in(value, each, chain) for each in wanted]
            return True if True in answers else None if None in answers else False
        if isinstance(wanted, dict):
            for nested in ("set", "elem", "val"):
                if nested in wanted:
                    return self._is_in(value, wanted[nested], chain)
            return _is_within(value, wanted)
        return _is_equal(value, wanted)


def _is_within(value: Any, wanted: Mapping[str, Any]) -> bool | None:
    """Return whether a value is in a `prefix` or a `range`."""
    try:
        if "prefix" in wanted and isinstance(value, IPv4Address | IPv6Address):
            return value in ip_network(f"{wanted['prefix']['addr']}/{wanted['prefix']['len']}", strict=False)
        if "range" in wanted:
            first, last = wanted["range"]
            if isinstance(value, int):
                return int(first) <= value <= int(last)
            if isinstance(value, IPv4Address | IPv6Address):
                return int(ip_address(first)) <= int(value) <= int(ip_address(last))
    except (ValueError, KeyError, TypeError):
        return None
    return None


def _is_equal(value: Any, wanted: Any) -> bool | None:
    if wanted == "*":
        return True
    if isinstance(value, IPv4Address | IPv6Address):
        try:
            return value == ip_address(str(wanted))
        except ValueError:
            return None
    if isinstance(wanted, str) and wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return str(value) == str(wanted)


def _family(left: Any) -> int:
    """Return the version of IP that a packet must be of to have a field; 0: any."""
    payload = left.get("payload", {}) if isinstance(left, dict) else {}
    return {"ip": 4, "icmp": 4, "ip6": 6, "icmpv6": 6}.get(payload.get("protocol", ""), 0)


def _value(left: Any, packet: Packet) -> Any:
    """Return what a packet has where a rule looks; None where that is not known."""
    if not isinstance(left, dict):
        return None
    if "meta" in left:
        known = {
            "iifname": packet.iif, "iif": packet.iif, "oifname": packet.oif, "oif": packet.oif,
            "l4proto": packet.protocol, "nfproto": f"ipv{packet.version}",
            "protocol": "ip" if packet.version == 4 else "ip6",  # noqa: PLR2004 - the version of the protocol
        }  # fmt: skip
        return known.get(left["meta"].get("key")) or None
    if "ct" in left:
        return {"state": "new", "direction": "original", "status": None}.get(left["ct"].get("key"))
    if "payload" in left:
        return _field(left["payload"].get("protocol"), left["payload"].get("field"), packet)
    return None


def _field(protocol: Any, field: Any, packet: Packet) -> Any:
    if protocol in ("ip", "ip6"):
        known = {
            "saddr": packet.source,
            "daddr": packet.target,
            "protocol": packet.protocol,
            "nexthdr": packet.protocol,
        }
        return known.get(field)
    if protocol in ("tcp", "udp", "icmp", "icmpv6", "sctp", "th"):
        if protocol not in (packet.protocol, "th"):
            return f"no {protocol}"  # equal to nothing that a rule can want
        return packet.port if field == "dport" else None
    return None
