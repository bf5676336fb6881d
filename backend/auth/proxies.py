"""Where a request that came by way of proxies began: nobody's word is taken but that of proxies named as trusted."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from backend.errors import RefusedError
from backend.text import sanitise

UNIX: Final = "unix"
"""How a proxy at the other end of the unix socket is named among the trusted ones."""
_MAXIMUM_HOPS = 50

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies(NamedTuple):
    """The networks whose addresses are proxies, and whether whoever comes over the unix socket is one."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def has(self, address: str) -> bool:
        """Return whether an address, or the peer of a unix socket (an empty one), is a trusted proxy."""
        if address in ("", UNIX):
            return self.unix
        found = _parse_address(address)
        return found is not None and any(found in network for network in self.networks)


def client_address(peer_address: str, forwarded_for_values: Sequence[str], trusted: Sequence[str]) -> str:
    """Return the address that a request began at: the right-most one that no trusted proxy has.

    `peer_address` is where the connection comes from, empty or `unix` for a unix socket; the values are those of all
    `X-Forwarded-For` headers in their order; `trusted` are addresses, networks in CIDR notation, or `unix`. What is
    left of the first address that is not trusted, or is none, could be anybody's invention and is never looked at.
    Raises RefusedError for a bad entry of `trusted`.
    """
    proxies = parse_proxies(tuple(trusted))
    address = "" if peer_address == UNIX else peer_address
    if not proxies.has(address):
        return address
    hops = [hop for value in forwarded_for_values for hop in value.split(",")]
    for hop in reversed(hops[-_MAXIMUM_HOPS:]):
        found = _parse_address(_strip_port(hop.strip()))
        if found is None:
            break
        address = str(found)
        if not proxies.has(address):
            break
    return address


@lru_cache(maxsize=16)
def parse_proxies(trusted: tuple[str, ...]) -> TrustedProxies:
    """Return what a list of trusted proxies says; raise RefusedError for one that is no address, or everybody's."""
    networks: list[Network] = []
    for text in trusted:
        if text == UNIX:
            continue
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise _refuse(
                text, "is no address and no network", "write 10.0.0.1, 10.0.0.0/24, fd00::/64 or unix"
            ) from error
        if network.prefixlen == 0:
            raise _refuse(text, "is everybody", "name the proxies' own addresses")
        networks.append(network)
    return TrustedProxies(tuple(networks), UNIX in trusted)


def _refuse(text: str, why: str, hint: str) -> RefusedError:
    return RefusedError("settings trustedProxies", f"{sanitise(text, 80)!r} {why}", hint)


def _parse_address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket of IPv6 shows clients of IPv4 so; both forms are one address.
    return getattr(address, "ipv4_mapped", None) or address


def _strip_port(text: str) -> str:
    """Return an address without the port that some proxies write after it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    head, colon, rest = text.partition(":")
    return head if colon and ":" not in rest else text
