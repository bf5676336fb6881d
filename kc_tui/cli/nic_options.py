"""What is said of a NIC after its network's name: `lab,ipv4=static,dhcp-guard=off,rate-send=10MB`."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any

from backend.model.documents import Document
from kc_tui.state.network_values import parse_rate

NIC_OPTIONS = """ipv4=MODE or CIDR, ipv6=MODE or CIDR (MODE: network, none, static, dhcp, slaac, stateless, dhcpv6;
CIDR: a static address, static alone lets KC choose one), reserve=CIDR (what DHCP keeps for it), mac=M,
antispoof=network, auto, off, mac or address, dhcp-guard= and ra-guard=network, auto, on or off, isolated=yes, no or
network, rate-receive= and rate-send=RATE (10MB, 8MiB, 100Mbit) or none, rate=network"""
"""What the help of every command says that takes them."""

_GUARDS = {
    "antispoof": ("antiSpoof", ("network", "auto", "off", "mac", "address")),
    "dhcp-guard": ("dhcpGuard", ("network", "auto", "on", "off")),
    "ra-guard": ("raGuard", ("network", "auto", "on", "off")),
}
_ISOLATED = {"yes": "on", "no": "off", "network": "network"}
_RATES = {"rate-receive": "receiveBytesPerSecond", "rate-send": "sendBytesPerSecond"}
_SERVED = {"ipv4": "dhcp", "ipv6": "dhcpv6"}

Option = tuple[tuple[str, ...], Any]
"""A path in a NIC's document, and the value that stands there."""


def parse_nic(text: str) -> Document:
    """Return the NIC that `N[,OPTION…]` asks for; raise ArgumentTypeError."""
    network, *words = text.split(",")
    if not network or "=" in network:
        msg = f"{text!r} does not begin with a network's name"
        raise ArgumentTypeError(msg)
    nic: Document = {"network": network}
    apply_options(nic, parse_options(words))
    return nic


def parse_options(words: Sequence[str]) -> list[Option]:
    """Return what words such as `ipv4=static` say; raise ArgumentTypeError for other words, and for one said twice."""
    options: dict[tuple[str, ...], Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _PARSERS or not value:
            msg = f"{word!r} is none of {', '.join(f'{known}=…' for known in _PARSERS)}"
            raise ArgumentTypeError(msg)
        for path, parsed in _PARSERS[key](key, value):
            if path in options and not _is_part_of(parsed, options[path]) and not _is_part_of(options[path], parsed):
                msg = f"{path[0] if path[0] in _SERVED else key} is there twice"
                raise ArgumentTypeError(msg)
            if path not in options or _is_part_of(options[path], parsed):
                options[path] = parsed
    return list(options.items())


def _is_part_of(less: Any, more: Any) -> bool:
    """Return whether one plan says what another says, but its address: `ipv4=dhcp` beside `reserve=10.0.0.9/24`."""
    return isinstance(less, dict) and isinstance(more, dict) and less != more and {**more, **less} == more


def apply_options(nic: Document, options: Sequence[Option]) -> None:
    """Write options into a NIC's document, in place; what else it says stays."""
    for path, value in options:
        inside = nic
        for part in path[:-1]:
            if not isinstance(inside.get(part), dict):
                inside[part] = {}
            inside = inside[part]
        inside[path[-1]] = value


# --- one option each


def _parse_mac(_key: str, value: str) -> list[Option]:
    return [(("mac",), value.lower())]


def _parse_plan(key: str, value: str) -> list[Option]:
    # Every address has a dot or a colon, no mode has.
    is_address = "." in value or ":" in value
    return [((key,), {"mode": "static", "address": value} if is_address else {"mode": value})]


def _parse_reservation(_key: str, value: str) -> list[Option]:
    family = "ipv6" if ":" in value else "ipv4"
    if "/" not in value:
        msg = f"{value!r} is not a CIDR: write reserve=10.0.0.9/24, with the length of the network's prefix"
        raise ArgumentTypeError(msg)
    return [((family,), {"mode": _SERVED[family], "address": value})]


def _parse_guard(key: str, value: str) -> list[Option]:
    field, words = _GUARDS[key]
    if value not in words:
        msg = f"{key}={value} is none of {', '.join(words)}"
        raise ArgumentTypeError(msg)
    return [(("guard", field), value)]


def _parse_isolated(_key: str, value: str) -> list[Option]:
    if value not in _ISOLATED:
        msg = f"isolated={value} is none of {', '.join(_ISOLATED)}"
        raise ArgumentTypeError(msg)
    return [(("guard", "isolated"), _ISOLATED[value])]


def _parse_rate(key: str, value: str) -> list[Option]:
    return [(("rateLimit", _RATES[key]), None if value == "none" else parse_rate(value))]


def _parse_rates(_key: str, value: str) -> list[Option]:
    if value != "network":
        msg = f"rate={value}: only network goes here; rate-receive= and rate-send= take a rate"
        raise ArgumentTypeError(msg)
    return [(("rateLimit",), None)]


_PARSERS: dict[str, Callable[[str, str], list[Option]]] = {
    "ipv4": _parse_plan,
    "ipv6": _parse_plan,
    "reserve": _parse_reservation,
    "mac": _parse_mac,
    **dict.fromkeys(_GUARDS, _parse_guard),
    "isolated": _parse_isolated,
    **dict.fromkeys(_RATES, _parse_rate),
    "rate": _parse_rates,
}
