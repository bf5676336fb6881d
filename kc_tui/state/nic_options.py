"""What one NIC is asked to be beside its network: addresses, guards, rates; as fields of a form and as a document."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from backend.model.addressing import FAMILIES
from backend.model.documents import Document, name_of
from kc_tui.state.addressing import MODES, TITLES, complain_about_addressing, plan_address, read_choice, split_choice
from kc_tui.state.draft import Nic
from kc_tui.state.form_field import ADVANCED, FormField
from kc_tui.state.network_values import format_rate, parse_rate

LEAST_RATE: Final = 8192
"""Bytes a second."""
ANTI_SPOOF: Final = ("network", "auto", "address", "mac", "off")
_GUARD: Final = ("network", "auto", "on", "off")
GUARDS: Final = {
    "anti_spoof": ("antiSpoof", "Anti-spoofing", ANTI_SPOOF),
    "dhcp_guard": ("dhcpGuard", "DHCP guard", _GUARD),
    "ra_guard": ("raGuard", "RA guard", _GUARD),
    "isolated": ("isolated", "Isolation", ("network", "on", "off")),
}
"""By the field of a `Nic`: the field of the document, what it is called, what it may be."""
RATES: Final = {"receive": ("receiveBytesPerSecond", "Receive"), "send": ("sendBytesPerSecond", "Send")}
_MEANINGS: Final = {
    "network": "as the network",
    "auto": "auto: what breaks nothing",
    "address": "its own addresses",
    "mac": "its own MAC",
}


def complain_about_rate(text: str) -> str:
    """Return what is wrong with a rate; an empty one is none."""
    if not text:
        return ""
    try:
        rate = parse_rate(text)
    except ArgumentTypeError:
        return "such as 10MB, 8MiB or 100Mbit"
    return "" if rate >= LEAST_RATE else f"at least {LEAST_RATE} bytes a second"


def show_rate(count: object) -> str:
    """Return bytes a second as a text that `parse_rate` takes for the same; empty where there is no limit."""
    if not isinstance(count, int) or not count:
        return ""
    text = format_rate(count).replace(" ", "").removesuffix("/s")
    return text if parse_rate(text) == count else f"{count}"


def list_fields(network: Mapping[str, Any], nic: Nic, *, is_one: bool = True) -> list[FormField]:
    """Return the fields for a NIC on a network (a document), holding what `nic` says."""
    return [*(_address_field(family, network, nic, is_one=is_one) for family in FAMILIES), *list_advanced(nic)]


def _address_field(family: str, network: Mapping[str, Any], nic: Nic, *, is_one: bool) -> FormField:
    mode = str(network.get("spec", {}).get(family, {}).get("mode", "none"))
    choice = getattr(nic, family)
    return FormField(
        family,
        TITLES[family],
        "" if choice == "network" else choice,
        hint=f"empty: as the network, {mode}",
        complain=partial(complain_about_addressing, family=family, is_one=is_one),
        suggestions=tuple(mode for mode in MODES[family] if mode != "network"),
    )


def list_advanced(nic: Nic) -> list[FormField]:
    """Return the fields that are folded away: guards and rates, and before them the one that unfolds them."""
    is_open = "yes" if has_advanced(nic) else "no"
    labels = {"no": "folded", "yes": "shown below"}
    fields = [FormField(ADVANCED, "Advanced", is_open, ("no", "yes"), labels)]
    for name, (_, title, options) in GUARDS.items():
        fields.append(FormField(name, title, getattr(nic, name), options, _MEANINGS, advanced=True))
    for name, (_, title) in RATES.items():
        hint = "a second; empty: as the network"
        text = getattr(nic, name)
        fields.append(FormField(name, title, text, hint=hint, complain=complain_about_rate, advanced=True))
    return fields


def has_advanced(nic: Nic) -> bool:
    """Return whether a NIC says anything of guards or rates."""
    return replace(nic, network="", ipv4="network", ipv6="network") != Nic("")


def take_values(nic: Nic, values: Mapping[str, str]) -> Nic:
    """Return a NIC with what the fields hold."""
    families = {family: values[family] or "network" for family in FAMILIES if family in values}
    rest = {name: values[name] for name in (*GUARDS, *RATES) if name in values}
    return replace(nic, **families, **rest)


def build_nic(nic: Nic) -> Document:
    """Return a NIC as it stands in a document; what is as the network says is left out."""
    guard = {GUARDS[name][0]: getattr(nic, name) for name in GUARDS if getattr(nic, name) != "network"}
    rates = {field: parse_rate(getattr(nic, name)) for name, (field, _) in RATES.items() if getattr(nic, name)}
    return {
        "network": nic.network,
        "ipv4": plan_address(nic.ipv4),
        "ipv6": plan_address(nic.ipv6),
        **({"guard": guard} if guard else {}),
        **({"rateLimit": rates} if rates else {}),
    }


def read_nic(document: Mapping[str, Any]) -> Nic:
    """Return a NIC of a document."""
    guard, rates = document.get("guard") or {}, document.get("rateLimit") or {}
    addresses: dict[str, str] = {family: read_choice(document.get(family, {})) for family in FAMILIES}
    guards = {name: str(guard.get(field, "network")) for name, (field, _, _) in GUARDS.items()}
    limits = {name: show_rate(rates.get(field)) for name, (field, _) in RATES.items()}
    return take_values(Nic(name_of(document.get("network"))), {**addresses, **guards, **limits})


_WORDS: Final = {"anti_spoof": "antispoof", "dhcp_guard": "dhcp-guard", "ra_guard": "ra-guard"}
_ISOLATED: Final = {"on": "yes", "off": "no"}


def list_words(nic: Nic) -> list[str]:
    """Return what follows a NIC's network on the command line: `ipv4=static`, `reserve=10.0.0.5/24`, `isolated=yes`."""
    words = []
    for family in FAMILIES:
        mode, address = split_choice(getattr(nic, family))
        if address and mode != "static":
            words.append(f"reserve={address}")
        elif mode != "network":
            words.append(f"{family}={address or mode}")
    words += [f"{word}={getattr(nic, name)}" for name, word in _WORDS.items() if getattr(nic, name) != "network"]
    words += [f"isolated={_ISOLATED[nic.isolated]}"] if nic.isolated != "network" else []
    return words + [f"rate-{name}={getattr(nic, name)}" for name in RATES if getattr(nic, name)]


def describe_advanced(nic: Nic) -> str:
    """Return what a NIC says of guards and rates in a few words; empty where it leaves all to the network."""
    parts = [f"{GUARDS[name][1].lower()} {getattr(nic, name)}" for name in GUARDS if getattr(nic, name) != "network"]
    parts += [f"{RATES[name][1].lower()} {getattr(nic, name)}/s" for name in RATES if getattr(nic, name)]
    return ", ".join(parts)
