"""How a NIC gets its addresses, as people choose and write it.

A choice of one family is `network` (as the network does it), another mode, an address in CIDR form (static), or a mode
with the address that the server keeps for it: `dhcp 10.0.0.5/24`. `static` alone leaves the address to KC.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any, Final

TITLES: Final = {"ipv4": "IPv4", "ipv6": "IPv6"}
MODES: Final = {
    "ipv4": ("network", "dhcp", "none", "static"),
    "ipv6": ("network", "slaac", "stateless", "dhcpv6", "none", "static"),
}
KEEPING: Final = ("static", "dhcp", "dhcpv6")
"""Modes that may go with an address."""
_EXAMPLES: Final = {"ipv4": "10.0.0.5/24", "ipv6": "fd00::5/64"}
_PREFIXES: Final = {"ipv4": 24, "ipv6": 64}


def split_choice(choice: str) -> tuple[str, str]:
    """Return the mode and the address of a choice."""
    words = choice.split()
    if len(words) == 1 and _is_address(words[0]):
        return "static", words[0]
    return words[0] if words else "network", " ".join(words[1:])


def _is_address(text: str) -> bool:
    # Every address has a dot, a colon or a prefix, no mode has.
    return any(sign in text for sign in "./:")


def join_choice(mode: str, address: str) -> str:
    """Return the choice of a mode with an address."""
    if mode == "static":
        return address or mode
    return f"{mode} {address}" if address and mode in KEEPING else mode


def read_choice(plan: dict[str, Any]) -> str:
    """Return the choice that a NIC's plan of one family is."""
    return join_choice(str(plan.get("mode", "network")), str(plan.get("address") or ""))


def plan_address(choice: str) -> dict[str, str]:
    """Return the plan of one family for what `complain_about_addressing` had nothing against."""
    mode, address = split_choice(choice)
    return {"mode": mode, "address": str(ip_interface(address))} if address else {"mode": mode}


def complain_about_address(text: str, family: str) -> str:
    """Return what is wrong with an address in CIDR form; `family` is `ipv4` or `ipv6`."""
    try:
        interface = ip_interface(text)
    except ValueError:
        return f"such as {_EXAMPLES[family]}"
    if interface.version != (4 if family == "ipv4" else 6):
        return f"no {TITLES[family]} address"
    return "" if "/" in text else f"add a prefix: /{_PREFIXES[family]}"


def complain_about_addressing(text: str, family: str, *, is_one: bool = True) -> str:
    """Return what is wrong with a choice; an empty one is as the network does it."""
    if not text:
        return ""
    mode, address = split_choice(text)
    if mode not in MODES[family] or (address and mode not in KEEPING):
        modes = ", ".join(mode for mode in MODES[family] if mode != "network")
        return f"{modes}, or an address such as {_EXAMPLES[family]}"
    if not address:
        return ""
    return complain_about_address(address, family) or ("" if is_one else "several VMs cannot have one address")


def describe_choice(choice: str) -> str:
    """Return a choice as it reads: `static, KC chooses`, `10.0.0.5/24`, `dhcp 10.0.0.5/24`, `slaac`."""
    return "static, KC chooses" if choice == "static" else choice
