"""Sides of network plans as most tests want them: the host is the first of the subnet, and the gateway."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from backend.network.plan import Side

LARGEST_OFFSET = 0xFFFF


def serve(subnet: str, mode: str = "", **changes: Any) -> Side:
    """Return a side that the host serves and routes for; by default with DHCP for IPv4 and SLAAC for IPv6."""
    network = ip_network(subnet)
    mode = mode or ("dhcp" if network.version == 4 else "slaac")
    first, last = (2, network.num_addresses - 2) if network.version == 4 else (0x100, network.num_addresses - 1)
    ranges = ((str(network[first]), str(network[min(last, LARGEST_OFFSET)])),) if "dhcp" in mode else ()
    host = str(network[1])
    return Side(subnet=subnet, host=host, mode=mode, gateway=host, ranges=ranges)._replace(**changes)
