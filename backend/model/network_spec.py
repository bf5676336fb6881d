"""The shape of a network: a layer-2 segment, how addresses come to be on it, who routes for it, what guards it.

What is wrong is said with the path of the field: a validator's message that begins with `.` goes on with the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from backend.model.base import Model
from backend.text import sanitise

# A device's name as the kernel takes it (IFNAMSIZ), and as no path, flag or word of sysctl's can be meant.
DEVICE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}"
GATEWAY_PATTERN = (
    r"^(host|none|[0-9a-fA-F.:]+(,[0-9a-fA-F.:]+)?"
    r"|(vm|router):[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(/[a-z][a-z0-9]{0,14})?)$"
)
_DOMAIN = r"^(([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"
_MAC = r"^([0-9a-f][02468ace](:[0-9a-f]{2}){5})?$"
_DUID = r"^([0-9a-f]{2}(:[0-9a-f]{2}){1,127})?$"
# Devices that KC names itself, and words that stand for every device in /proc/sys/net.
_RESERVED_DEVICES = re.compile(r"^(kx|kt)[0-9a-f]{10}$|^(all|default|lo)$")
SMALLEST_IPV6_MTU = 1280
"""RFC 8200, section 5."""
LARGEST_MTU = 9216
LARGEST_VNI = (1 << 24) - 1
_SLAAC_PREFIX = 64
_DHCPV6_ROOM = 4

Switch = Literal["auto", "on", "off"]
AntiSpoof = Literal["auto", "off", "mac", "address"]


def _fail(path: str, why: str) -> ValueError:
    return ValueError(f".{path}: {why}")


class Range(Model):
    """Addresses from `start` to `end`, both in it."""

    start: str
    end: str


class Reservation(Model):
    """An address that DHCP keeps for one client: by MAC for IPv4; by DUID or host name for IPv6."""

    address: str
    mac: Annotated[str, StringConstraints(pattern=_MAC)] = ""
    duid: Annotated[str, StringConstraints(pattern=_DUID)] = ""
    hostname: Annotated[str, StringConstraints(pattern=_DOMAIN, max_length=253)] = ""


class Route(Model):
    """A route that VMs are told."""

    to: str
    via: str


class Subnet(Model):
    """The addresses of one family on a network."""

    subnet: str = ""
    mode: str = "none"
    ranges: list[Range] = Field(
        default_factory=list, max_length=16, description="what DHCP may give; empty: the upper three quarters"
    )
    reservations: list[Reservation] = Field(default_factory=list, max_length=1024)
    lease_seconds: Annotated[int, Field(ge=120, le=365 * 86400)] = 3600
    routes: list[Route] = Field(default_factory=list, max_length=32)
    ntp: list[str] = Field(default_factory=list, max_length=4)

    def check(self, version: int) -> None:
        """Raise ValueError, with its path, for what cannot be."""
        subnet = _parse_network("subnet", self.subnet, version) if self.subnet else None
        if subnet is None:
            for field in ("ranges", "reservations"):
                if getattr(self, field):
                    raise _fail(field, "there is no subnet")
            if self.mode != "none":
                raise _fail("mode", "an address mode needs a subnet")
        else:
            self._check_ranges(subnet)
            self._check_reservations(subnet)
            self.subnet = str(subnet)
        for number, route in enumerate(self.routes):
            route.to = str(_parse_network(f"routes.{number}.to", route.to, version))
            route.via = _parse_address(f"routes.{number}.via", route.via, version)
        self.ntp = [_parse_address(f"ntp.{number}", server, version) for number, server in enumerate(self.ntp)]

    def _check_ranges(self, subnet: IPv4Network | IPv6Network) -> None:
        taken: list[tuple[int, int]] = []
        for number, each in enumerate(self.ranges):
            each.start = _parse_address(f"ranges.{number}.start", each.start, subnet.version)
            each.end = _parse_address(f"ranges.{number}.end", each.end, subnet.version)
            for field, text in (("start", each.start), ("end", each.end)):
                _check_inside(f"ranges.{number}.{field}", text, subnet)
            first, last = int(ip_address(each.start)), int(ip_address(each.end))
            if first > last:
                raise _fail(f"ranges.{number}", f"{each.start} comes after {each.end}")
            if any(first <= end and start <= last for start, end in taken):
                raise _fail(f"ranges.{number}", "it overlaps another range")
            taken.append((first, last))

    def _check_reservations(self, subnet: IPv4Network | IPv6Network) -> None:
        seen: dict[str, set[str]] = {"address": set(), "mac": set(), "duid": set()}
        for number, each in enumerate(self.reservations):
            path = f"reservations.{number}"
            each.address = _parse_address(f"{path}.address", each.address, subnet.version)
            _check_inside(f"{path}.address", each.address, subnet)
            if subnet.version == 4 and not each.mac:  # noqa: PLR2004 - the version of the protocol
                raise _fail(f"{path}.mac", "it is missing: DHCP knows a client by its MAC")
            if subnet.version == 6 and not (each.duid or each.hostname):  # noqa: PLR2004 - as above
                raise _fail(f"{path}.duid", "a DUID or a hostname is missing: DHCPv6 knows no MAC")
            for field, known in seen.items():
                value = getattr(each, field)
                if value and value in known:
                    raise _fail(f"{path}.{field}", f"{value} is there twice")
                known.add(value)


class IPv4Subnet(Subnet):
    """The IPv4 side of a network."""

    mode: Literal["none", "static", "dhcp"] = "none"

    @model_validator(mode="after")
    def _check_subnet(self) -> Self:
        self.check(4)
        if self.subnet and IPv4Network(self.subnet).prefixlen > 30:  # noqa: PLR2004 - two usable addresses
            raise _fail("subnet", f"{self.subnet} has no room for a host and a guest; the longest prefix is /30")
        return self


class IPv6Subnet(Subnet):
    """The IPv6 side of a network; `stateless` is SLAAC with everything but the address by DHCPv6."""

    mode: Literal["none", "static", "slaac", "stateless", "dhcpv6"] = "none"

    @model_validator(mode="after")
    def _check_subnet(self) -> Self:
        self.check(6)
        if not self.subnet:
            return self
        subnet = IPv6Network(self.subnet)
        if self.mode in ("slaac", "stateless") and subnet.prefixlen != _SLAAC_PREFIX:
            # RFC 4862 wants 64 bits of interface identifier.
            raise _fail("subnet", f"SLAAC needs a /64, {subnet} is none")
        if subnet.num_addresses < _DHCPV6_ROOM:
            raise _fail("subnet", f"{subnet} has no room for a host and a guest; the longest prefix is /126")
        if subnet.is_link_local or subnet.is_multicast:
            raise _fail("subnet", f"{subnet} is no subnet that guests can have")
        return self


class Vxlan(Model):
    """A VXLAN (RFC 7348) that joins the segment to others; KC chooses a `vni` where none is given."""

    vni: Annotated[int, Field(ge=1, le=LARGEST_VNI)] | None = None
    local: str = Field(description="this host's address on the underlay")
    peers: list[str] = Field(default_factory=list, max_length=64, description="the other hosts' addresses")
    group: str = Field(default="", description="a multicast group in the place of peers")
    port: Annotated[int, Field(ge=1, le=65535)] = 4789
    dev: Annotated[str, StringConstraints(pattern=rf"^({DEVICE})?$")] = Field(
        default="", description="the device below it; empty: the one that has `local`"
    )

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        local = _parse_any("local", self.local)
        if local.is_multicast or local.is_unspecified:
            raise _fail("local", f"{local} is no address of a host")
        self.local = str(local)
        if self.peers and self.group:
            raise _fail("group", "either peers or a multicast group, not both")
        peers = [_parse_any(f"peers.{number}", peer) for number, peer in enumerate(self.peers)]
        for number, peer in enumerate(peers):
            self._check_end(f"peers.{number}", peer, local)
            if peer.is_multicast or peer.is_unspecified:
                raise _fail(f"peers.{number}", f"{peer} is no address of a host")
            if peer == local or peer in peers[:number]:
                raise _fail(f"peers.{number}", f"{peer} is {'this host' if peer == local else 'there twice'}")
        self.peers = [str(peer) for peer in peers]
        if self.group:
            group = _parse_any("group", self.group)
            self._check_end("group", group, local)
            if not group.is_multicast:
                raise _fail("group", f"{group} is no multicast address")
            self.group = str(group)
        if _RESERVED_DEVICES.match(self.dev):
            raise _fail("dev", f"{self.dev} cannot be a VXLAN's underlay")
        return self

    @staticmethod
    def _check_end(path: str, end: IPv4Address | IPv6Address, local: IPv4Address | IPv6Address) -> None:
        if end.version != local.version:
            raise _fail(path, f"{end} is IPv{end.version}, local is IPv{local.version}")


class Guard(Model):
    """What the NICs of a segment may not do, unless they say otherwise; `auto` is on where it breaks nothing."""

    anti_spoof: AntiSpoof = "auto"
    dhcp_guard: Switch = "auto"
    ra_guard: Switch = "auto"
    isolated: bool = Field(default=False, description="VMs reach the gateway, and not one another")


class NicGuard(Model):
    """What one NIC may not do; `network` leaves it to the network."""

    anti_spoof: Literal["network", "auto", "off", "mac", "address"] = "network"
    dhcp_guard: Literal["network", "auto", "on", "off"] = "network"
    ra_guard: Literal["network", "auto", "on", "off"] = "network"
    isolated: Literal["network", "on", "off"] = "network"


_Rate = Annotated[int, Field(ge=8192, le=1 << 40)]


class RateLimit(Model):
    """How much a NIC may receive and send, as its guest sees it; null: no limit."""

    receive_bytes_per_second: _Rate | None = None
    send_bytes_per_second: _Rate | None = None


class GatewayReference(Model):
    """Whom a gateway given by reference is pinned to; KC fills it in."""

    kind: Literal["VM", "Router"]
    name: str
    uid: str = ""
    nic: str = ""
    addresses: list[str] = Field(default_factory=list, description="what it has on this network")


class NetworkSpec(Model):
    """A layer-2 segment."""

    uplink: Annotated[str, StringConstraints(pattern=rf"^(nat|isolated|routed|bridge:{DEVICE})$")] = "nat"
    ipv4: IPv4Subnet = IPv4Subnet()
    ipv6: IPv6Subnet = IPv6Subnet()
    gateway: Annotated[str, StringConstraints(pattern=GATEWAY_PATTERN)] = Field(
        default="host", description="host, none, an address (or one of each family), vm:NAME[/NIC] or router:NAME"
    )
    gateway_reference: GatewayReference | None = Field(default=None, description="KC's: whom `gateway` means")
    dns: list[str] = Field(default_factory=list, max_length=16)
    search_domain: Annotated[str, StringConstraints(pattern=_DOMAIN, max_length=253)] = ""
    vxlan: Vxlan | None = None
    mtu: Annotated[int, Field(ge=576, le=LARGEST_MTU)] | None = Field(
        default=None, description="the largest packet in bytes; with VXLAN KC fills in what fits"
    )
    guard: Guard = Guard()
    rate_limit: RateLimit = RateLimit()
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    libvirt_network: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,50}$")] = Field(
        default="", description="an existing libvirt network that is this segment; empty: KC makes one of its own"
    )

    @field_validator("dns")
    @classmethod
    def _check_servers(cls, servers: list[str]) -> list[str]:
        return [str(_parse_any(str(number), server)) for number, server in enumerate(servers)]

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        bridge = self.uplink.removeprefix("bridge:") if self.uplink.startswith("bridge:") else ""
        if bridge in (".", "..") or _RESERVED_DEVICES.match(bridge):
            raise _fail("uplink", f"{bridge} is a name that KC or the kernel needs itself")
        if self.vxlan is not None and bridge:
            raise _fail("vxlan", "a bridge of the host is the operator's: put the VXLAN into it there")
        if self.vxlan is not None and self.libvirt_network:
            raise _fail("vxlan", "the segment is shared with others: it stays as it is")
        if self.mtu is not None and self.ipv6.mode != "none" and self.mtu < SMALLEST_IPV6_MTU:
            raise _fail("mtu", f"IPv6 needs {SMALLEST_IPV6_MTU} at least, {self.mtu} is less")
        self._check_gateway(bridge)
        return self

    def _check_gateway(self, bridge: str) -> None:
        if bridge and self.gateway == "host" and "static" in (self.ipv4.mode, self.ipv6.mode):
            raise _fail("gateway", "KC does not know the gateway behind a bridge: give its address, or none")
        if self.gateway in ("host", "none") or self.gateway.startswith(("vm:", "router:")):
            return
        addresses = [_parse_any("gateway", text) for text in self.gateway.split(",")]
        if len({address.version for address in addresses}) < len(addresses):
            raise _fail("gateway", "one address of each family at most")
        for address in addresses:
            side = self.ipv4 if address.version == 4 else self.ipv6  # noqa: PLR2004 - the version of the protocol
            if address.is_link_local:
                continue
            if not side.subnet:
                raise _fail("gateway", f"{address} is IPv{address.version}, and the network has no such subnet")
            _check_inside("gateway", str(address), ip_network(side.subnet))
        self.gateway = ",".join(str(address) for address in sorted(addresses, key=lambda each: each.version))


def _parse_any(path: str, text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise _fail(path, f"{sanitise(text, 60)} is no IP address") from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise _fail(path, f"{sanitise(text, 60)} has a zone, which means nothing elsewhere")
    return address


def _parse_address(path: str, text: str, version: int) -> str:
    address = _parse_any(path, text)
    if address.version != version:
        raise _fail(path, f"{address} is no IPv{version} address")
    return str(address)


def _parse_network(path: str, text: str, version: int) -> IPv4Network | IPv6Network:
    """Return a subnet; one whose address has host bits is an error, as either of two may be meant."""
    try:
        return IPv4Network(text) if version == 4 else IPv6Network(text)  # noqa: PLR2004 - the version of the protocol
    except ValueError as error:
        example = "10.0.0.0/24" if version == 4 else "fd00:1::/64"  # noqa: PLR2004 - as above
        why = "it has host bits set" if "host bits" in str(error) else f"it is no IPv{version} subnet"
        raise _fail(path, f"{sanitise(text, 60)}: {why}; write it like {example}") from None


def _check_inside(path: str, text: str, subnet: IPv4Network | IPv6Network) -> None:
    address = ip_address(text)
    if address not in subnet:
        raise _fail(path, f"{address} is not in {subnet}")
    if address == subnet.network_address or (subnet.version == 4 and address == subnet.broadcast_address):  # noqa: PLR2004
        raise _fail(path, f"{address} is not an address that a machine can have in {subnet}")


def list_overlaps(subnet: str, others: Iterable[tuple[str, str]]) -> list[str]:
    """Return which of `others`, as (name, subnet), overlap a subnet, as `NAME (SUBNET)`."""
    mine: Any = ip_network(subnet)
    found = []
    for name, text in others:
        theirs: Any = ip_network(text)
        if mine.version == theirs.version and mine.overlaps(theirs):
            found.append(f"{name} ({text})")
    return found
