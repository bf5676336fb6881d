"""What a host's networks are asked to be, and what they are seen to be; plain values.

Named tuples, as they are on the way of every command. Addresses are plain, subnets and what routes lead to in CIDR
form; an empty text means that there is none.
"""

from __future__ import annotations

from typing import NamedTuple


class DhcpHost(NamedTuple):
    """An address that the DHCP server keeps for one client, known by its `mac` (IPv4) or its `duid` or name (IPv6)."""

    mac: str
    address: str
    hostname: str = ""
    duid: str = ""


class Route(NamedTuple):
    """A route that guests are told: to a subnet (CIDR), by way of an address on the segment."""

    to: str
    via: str


class Side(NamedTuple):
    """One family of addresses on a segment, as the host serves it.

    `mode` is `none`, `static`, `dhcp`, `slaac`, `stateless` (SLAAC, the rest by DHCPv6) or `dhcpv6`. `host` is the
    host's own address. `gateway` is what guests are told to route by: `host` where the host routes, another address, or
    none; for IPv6 any other than `host` means that the host's advertisements name no default router. `ranges` are
    (first, last) of what DHCP may give; `hosts` is what it keeps.
    """

    subnet: str = ""
    host: str = ""
    mode: str = "none"
    gateway: str = ""
    ranges: tuple[tuple[str, str], ...] = ()
    hosts: tuple[DhcpHost, ...] = ()
    routes: tuple[Route, ...] = ()
    ntp: tuple[str, ...] = ()
    lease_seconds: int = 3600


class Vxlan(NamedTuple):
    """A VXLAN device (RFC 7348) that is a port of the segment's bridge.

    `device` is its name; `underlay` the device that it sends by (empty: the one that has `local`). What is not known
    is sent to each of `peers`, or to the multicast `group`.
    """

    device: str
    vni: int
    local: str
    peers: tuple[str, ...] = ()
    group: str = ""
    port: int = 4789
    underlay: str = ""


class NetworkPlan(NamedTuple):
    """A segment: `uplink` is `nat`, `routed`, `isolated` or `bridge:NAME`; an `mtu` of 0 leaves it to the host.

    `bridge` names the bridge; empty: libvirt chooses. `dns` are what guests are told to ask; empty: the host. A
    `shared` segment is others' too: what its DHCP keeps for clients is added to, and nothing is taken from it.
    """

    name: str
    uid: str
    uplink: str
    bridge: str = ""
    ipv4: Side = Side()
    ipv6: Side = Side()
    mtu: int = 0
    dns: tuple[str, ...] = ()
    search_domain: str = ""
    vxlan: Vxlan | None = None
    shared: bool = False


class PortGuard(NamedTuple):
    """What is let through between one NIC and its segment; `tap` is the NIC's device on the host.

    `mac_only`: frames from the guest must come from `mac`. `ipv4` and `ipv6` are the only addresses that it may use,
    in IP, ARP and neighbour discovery (link-local IPv6 apart, which must be that of the MAC where `strict`); None: any.
    `no_dhcp_server` and `no_router` stop what only a server, or a router, sends. `isolated` says that the bridge keeps
    the port from others that are (`NicPlan.isolated`; it is no rule here). Rates in bytes a second, as the guest sees
    them; 0: no limit.
    """

    tap: str
    mac: str
    mac_only: bool = False
    ipv4: tuple[str, ...] | None = None
    ipv6: tuple[str, ...] | None = None
    strict: bool = False
    no_dhcp_server: bool = False
    no_router: bool = False
    receive_rate: int = 0
    send_rate: int = 0
    isolated: bool = False


class PortDrops(NamedTuple):
    """How many frames a NIC's guard has dropped since it was set up, by the reason.

    `present` says whether its device is there: a VM that is off has none.

    Reasons: `mac`, `protocol` (what cannot be checked), `ipv4`, `ipv6`, `dhcp-server`, `router`, `receive-rate`,
    `send-rate`.
    """

    tap: str
    drops: tuple[tuple[str, int], ...] = ()
    present: bool = True


class Server(NamedTuple):
    """Somebody on a segment who served DHCP, or announced itself as a router, and is not this host."""

    kind: str  # "dhcp" or "router"
    mac: str
    address: str


class NetworkState(NamedTuple):
    """What a host's kernel says of a segment.

    `bridge` is the name of its bridge, `up` whether that is there and up, `mtu` its MTU (0: no bridge), `ports` the
    devices in it. `dnsmasq`: whether its server runs (None: nobody can tell, or none is wanted). `vxlan` is empty where
    none is wanted, else `up`, `down`, `missing` or `different`; `underlay_mtu` is that of the device below it.
    `gateways` says of each gateway address `answers`, `silent` or `unknown`; only a thorough look asks them.
    """

    bridge: str
    up: bool
    mtu: int = 0
    ports: tuple[str, ...] = ()
    dnsmasq: bool | None = None
    vxlan: str = ""
    underlay_mtu: int = 0
    gateways: tuple[tuple[str, str], ...] = ()
    servers: tuple[Server, ...] = ()


class Obstacle(NamedTuple):
    """What of a host stands in the way of its networks, and the command that mends it; `code` is for programs."""

    code: str
    what: str
    why: str
    mend: str
