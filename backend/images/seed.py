"""The cloud-init seed: a NoCloud ISO with `meta-data`, `user-data` and `network-config`.

Source: cloud-init's NoCloud data source and network configuration, version 2. `meta-data` and `network-config` are
JSON, which is YAML too, with one key on a line so that a guest without a YAML parser can read them. Equal input gives
equal bytes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import Any

from backend.errors import RefusedError
from backend.images.iso_dates import settle_dates
from backend.images.user_data import check_ssh_key, join_user_data
from backend.text import sanitise

VOLUME_ID = "cidata"

_WHAT = "cloud-init seed"
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.IGNORECASE)
_NIC_ID = re.compile(r"[a-z][a-z0-9]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INSTANCE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_IPV4_MODES = ("none", "static", "dhcp")
_IPV6_MODES = ("none", "static", "slaac", "stateless", "dhcpv6")
_MTUS = range(68, 65536)
_DOMAIN_LIMIT = 253  # RFC 1035
# What JSON lets stand and YAML does not read, or reads as the end of a line.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class SeedNic:
    """How one NIC is set up; it is found by its `mac`, and keeps the name that the guest gives it.

    Addresses are in CIDR form, gateways and `dns` plain; empty where the mode is not `static` or there is none.
    `routes` are (to, via), the first in CIDR form. An `mtu` of 0 leaves it to the guest.
    """

    id: str
    mac: str
    ipv4_mode: str = "none"
    ipv4_address: str = ""
    ipv4_gateway: str = ""
    ipv6_mode: str = "none"
    ipv6_address: str = ""
    ipv6_gateway: str = ""
    dns: tuple[str, ...] = ()
    mtu: int = 0
    search: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()


def build_seed(
    *,
    hostname: str,
    instance_id: str,
    ssh_keys: Sequence[str],
    user_data: str,
    nics: Sequence[SeedNic],
    password_hash: str = "",
) -> bytes:
    """Return the ISO image of a seed.

    `ssh_keys` are public keys, one line each; they go into `meta-data`, and into the user-data where that is empty or
    cloud-config. `password_hash` is the default user's, and always goes there. Raises RefusedError for a value that
    cloud-init could not read.
    """
    keys = [check_ssh_key(key) for key in ssh_keys]
    return _write_iso(
        {
            "meta-data": _as_yaml(_describe_instance(hostname, instance_id, keys)),
            "user-data": join_user_data(user_data, keys, password_hash).encode(),
            "network-config": _as_yaml(_describe_network(nics)),
        }
    )


def _describe_instance(hostname: str, instance_id: str, keys: list[str]) -> dict[str, Any]:
    _require(_HOSTNAME.fullmatch(hostname) and len(hostname) <= _DOMAIN_LIMIT, "host name", hostname)
    _require(_INSTANCE_ID.fullmatch(instance_id), "instance id", instance_id)
    return {"instance-id": instance_id, "local-hostname": hostname, "public-keys": keys}


def _describe_network(nics: Sequence[SeedNic]) -> dict[str, Any]:
    """Return network configuration of version 2."""
    for field in ("id", "mac"):
        values = [getattr(nic, field) for nic in nics]
        _require(len(set(values)) == len(values), f"NICs with the same {field}", ", ".join(values))
    return {"version": 2, "ethernets": {nic.id: _describe_nic(nic) for nic in nics}}


def _describe_nic(nic: SeedNic) -> dict[str, Any]:
    _require(_NIC_ID.fullmatch(nic.id), "NIC id", nic.id)
    _require(_MAC.fullmatch(nic.mac), "MAC address (lower-case)", nic.mac)
    _require(nic.ipv4_mode in _IPV4_MODES, "IPv4 mode", nic.ipv4_mode)
    _require(nic.ipv6_mode in _IPV6_MODES, "IPv6 mode", nic.ipv6_mode)
    _require(nic.mtu == 0 or nic.mtu in _MTUS, "MTU", str(nic.mtu))
    # No `set-name`: a guest that renames its interfaces can lose them on the way.
    described: dict[str, Any] = {
        "match": {"macaddress": nic.mac},
        "dhcp4": nic.ipv4_mode == "dhcp",
        # Version 2 has no word for stateless, and needs none: who accepts advertisements asks DHCPv6 for the rest where
        # their O flag says so (systemd-networkd, NetworkManager). `dhcp6` would have a guest wait for an address.
        "dhcp6": nic.ipv6_mode == "dhcpv6",
        # DHCPv6 gives no route: that comes with the router's advertisement. To a static NIC, a router that advertises
        # itself, whoever it is, gives no second address and no other way out than the one that is written here.
        "accept-ra": nic.ipv6_mode in ("slaac", "stateless", "dhcpv6"),
    }
    addresses = _static_addresses(nic)
    routes = _routes(nic)
    if addresses:
        described["addresses"] = addresses
    if routes:
        described["routes"] = routes
    nameservers = {"addresses": [_parse(ip_address, server) for server in nic.dns], "search": _domains(nic.search)}
    if any(nameservers.values()):
        described["nameservers"] = {key: value for key, value in nameservers.items() if value}
    if nic.mtu:
        described["mtu"] = nic.mtu
    if nic.ipv4_mode == nic.ipv6_mode == "none":
        # Nothing will come up here, so nothing waits for it.
        described["optional"] = True
    return described


def _static_addresses(nic: SeedNic) -> list[str]:
    addresses = []
    for mode, address, parser in (
        (nic.ipv4_mode, nic.ipv4_address, IPv4Interface),
        (nic.ipv6_mode, nic.ipv6_address, IPv6Interface),
    ):
        if mode == "static":
            _require("/" in address, "address in CIDR form", address)
            addresses.append(_parse(parser, address))
    return addresses


def _routes(nic: SeedNic) -> list[dict[str, str]]:
    """Return the gateways of static addresses, and such routes as the network itself does not tell.

    DHCP tells a client the routes of IPv4 (option 121). For IPv6 nobody does: DHCPv6 has no routes, and dnsmasq
    advertises none.
    """
    routes = []
    for mode, extra, gateway, default, parser, subnet_parser in (
        (nic.ipv4_mode, nic.ipv4_mode == "static", nic.ipv4_gateway, "0.0.0.0/0", IPv4Address, IPv4Network),
        (nic.ipv6_mode, nic.ipv6_mode != "none", nic.ipv6_gateway, "::/0", IPv6Address, IPv6Network),
    ):
        if mode == "static" and gateway:
            routes.append({"to": default, "via": _parse(parser, gateway)})
        if extra:
            of_family = [(to, via) for to, via in nic.routes if (":" in to) == (parser is IPv6Address)]
            routes += [{"to": _parse(subnet_parser, to), "via": _parse(parser, via)} for to, via in of_family]
    return routes


def _domains(domains: tuple[str, ...]) -> list[str]:
    for domain in domains:
        _require(_HOSTNAME.fullmatch(domain) and len(domain) <= _DOMAIN_LIMIT, "search domain", domain)
    return list(domains)


def _parse(parser: Any, text: str) -> str:
    """Return an address in its canonical form; one with a zone means nothing to another machine."""
    try:
        if "%" not in text:
            return str(parser(text))
    except ValueError:
        pass
    raise RefusedError(_WHAT, f"not an address: {sanitise(text, 80)}")


def _require(condition: object, name: str, value: str) -> None:
    if not condition:
        raise RefusedError(_WHAT, f"not a usable {name}: {sanitise(value, 80)!r}")


def _as_yaml(value: Any) -> bytes:
    """Return JSON that every YAML parser reads as the same value, with each key on a line of its own."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    return (_NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode()


def _write_iso(files: dict[str, bytes]) -> bytes:
    """Return an ISO 9660 image with these files in its root, under their names by Rock Ridge and Joliet."""
    import pycdlib  # noqa: PLC0415 - only who builds a seed pays for it

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_ID)
    for number, (name, content) in enumerate(files.items()):
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100444,
        )
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return settle_dates(image.getbuffer())
