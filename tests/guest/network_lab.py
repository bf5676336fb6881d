"""Nine segments of every kind with two booted guests on each, and what those guests see there."""

from __future__ import annotations

import json
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from support.guest_vm import Elsewhere, Guest, make_key
from support.kc import run_kc

FAMILIES = ("ipv4", "ipv6")
UNDERLAY_MTU = 1400


@dataclass
class Seen:
    """What a guest sees on one NIC; `told` is what each source said of names and times, as lines."""

    device: str
    mtu: int
    mac: str
    addresses: list[dict[str, Any]]
    routes: list[dict[str, Any]]
    told: dict[str, list[str]] = field(default_factory=dict)

    def of(self, family: str) -> list[str]:
        """Return the addresses of a family that others can use, in CIDR form."""
        kernel = {"ipv4": "inet", "ipv6": "inet6"}[family]
        return [
            f"{each['local']}/{each['prefixlen']}"
            for each in self.addresses
            if each["family"] == kernel and each["scope"] == "global"
        ]

    def routes_of(self, family: str) -> dict[str, list[str]]:
        """Return by way of which addresses each destination is reached."""
        found: dict[str, list[str]] = {}
        for route in self.routes:
            if "gateway" in route and (":" in route["gateway"]) == (family == "ipv6"):
                found.setdefault(route["dst"], []).append(route["gateway"])
        return found


class Lab:
    """The segments by a short name each, and the guests `a` and `b`."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.stem = f"net{uuid.uuid4().hex[:5]}"
        self.key = make_key(folder)
        self.four = f"10.{random.randrange(226, 246)}.{{}}"
        self.six = f"fd{uuid.uuid4().hex[:2]}:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}:{{:x}}::"
        self.start = random.randrange(0, 240)
        self.underlay = f"kcu{uuid.uuid4().hex[:6]}"
        self.guests = {name: Guest(home, f"{self.stem}-{name}") for name in ("a", "b")}
        self.sights: dict[str, dict[str, Seen]] = {}
        self.networks: dict[str, Any] = {}
        self.vms: dict[str, Any] = {}
        self.elsewhere: Elsewhere | None = None

    # --- names and numbers
    def subnet4(self, number: int) -> str:
        return f"{self.four.format(self.start + number)}.0/24"

    def subnet6(self, number: int) -> str:
        return f"{self.six.format(self.start + number)}/64"

    def host4(self, number: int, host: int) -> str:
        return str(ip_network(self.subnet4(number))[host])

    def host6(self, number: int, host: int) -> str:
        return str(ip_network(self.subnet6(number))[host])

    def name(self, segment: str) -> str:
        return f"{self.stem}-{segment}"

    # --- making and unmaking
    def build(self) -> None:
        """Make all of it: the segments one by one, the guests side by side."""
        Elsewhere.ip("link", "add", self.underlay, "mtu", str(UNDERLAY_MTU), "type", "bridge")
        Elsewhere.ip("address", "add", f"{self.host4(9, 1)}/24", "dev", self.underlay)
        Elsewhere.ip("link", "set", self.underlay, "up")
        for number, (segment, (options, _, _)) in enumerate(self.segments().items()):
            self._kc("network", "create", self.name(segment), *self._subnets(number, segment), *options)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._boot, self.guests))
        self.networks = {segment: self._show("network", self.name(segment)) for segment in self.segments()}
        self.vms = {name: self._show("vm", guest.name) for name, guest in self.guests.items()}

    def segments(self) -> dict[str, tuple[list[str], str, str]]:
        """Return each segment's options, and how the NICs of `a` and `b` join it."""
        dns = ["--dns", self.host4(9, 53), "--dns", self.host6(9, 0x53), "--search", "kc.test"]
        more = [
            *("--ntp", self.host4(9, 123), "--ntp", self.host6(9, 0x123)),
            *("--route", f"{self.subnet4(10)},via={{four}}", "--route", f"{self.subnet6(10)},via={{six}}"),
        ]

        def routes(number: int) -> list[str]:
            return [each.format(four=self.host4(number, 9), six=self.host6(number, 9)) for each in more]

        isolated, routed = ["--uplink", "isolated"], ["--uplink", "routed"]
        reserved = f",reserve={self.host4(0, 20)}/24"
        both = f",reserve={self.host4(2, 20)}/24,reserve={self.host6(2, 0x20)}/64"
        given = f",ipv4={self.host4(1, 20)}/24,ipv6={self.host6(1, 0x20)}/64"
        static = ["--ipv4-mode", "static", "--ipv6-mode", "static"]
        vxlan = ["--vxlan", f"vni={random.randrange(1, 1 << 24)},local={self.host4(9, 1)},peer={self.host4(9, 2)}"]
        return {
            "lease": ([], "", reserved),
            "fixed": ([*static, *dns, *routes(1)[4:]], "", given),
            "routed": ([*routed, "--ipv6-mode", "dhcpv6", *dns, *routes(2)], "", both),
            "stateless": ([*isolated, "--ipv6-mode", "stateless", *dns, *routes(3)], "", ",ipv4=static,ipv6=static"),
            "four": (isolated, "", f",ipv4={self.host4(4, 20)}/24"),
            "slaac": ([*isolated, *dns[2:]], "", f",ipv6={self.host6(5, 0x20)}/64"),
            "six": ([*isolated, "--ipv6-mode", "stateless", *dns[2:], *routes(6)[2:4]], "", ""),
            "leased": ([*isolated, "--ipv6-mode", "dhcpv6"], "", f",reserve={self.host6(7, 0x20)}/64"),
            "wide": ([*isolated, *vxlan], "", ",ipv4=static,ipv6=static"),
        }

    def _subnets(self, number: int, segment: str) -> list[str]:
        four = [] if segment in ("slaac", "six", "leased") else ["--ipv4", self.subnet4(number)]
        return four if segment == "four" else [*four, "--ipv6", self.subnet6(number)]

    def _boot(self, name: str) -> None:
        which = 1 + sorted(self.guests).index(name)
        joined = [f"--network={self.name(segment)}{each[which]}" for segment, each in self.segments().items()]
        guest = self.guests[name]
        self._kc("vm", "create", guest.name, "--image", "starter", "--type", "tiny", *joined, "--wait", "ready")

    def remove(self) -> None:
        """Remove all of it, also what is there in part."""
        if self.elsewhere is not None:
            self.elsewhere.close()
        run_kc(self.home, "vm", "delete", "-l", f"name~{self.stem}-*", "--yes", "--now")
        run_kc(self.home, "network", "delete", "-l", f"name~{self.stem}-*", "--yes", "--now")
        Elsewhere.ip("link", "delete", self.underlay)

    def _kc(self, *arguments: str) -> str:
        done = run_kc(self.home, *arguments)
        assert done.status == 0, (arguments, done.stderr)
        return done.stdout

    def _show(self, kind: str, name: str) -> Any:
        return run_kc(self.home, kind, "show", name, "-o", "json").json()

    # --- looking
    def nic(self, guest: str, segment: str) -> Any:
        """Return how the document has a guest's NIC on a segment."""
        return self.vms[guest]["spec"]["nics"][list(self.segments()).index(segment)]

    def mode(self, guest: str, segment: str, family: str) -> str:
        """Return how a NIC comes to an address: its own wish, or the network's."""
        wish = self.nic(guest, segment)[family]["mode"]
        return str(self.networks[segment]["spec"][family]["mode"] if wish == "network" else wish)

    def look(self, guest: str, segment: str, *, again: bool = False) -> Seen:
        """Return what a guest sees on its NIC there; `again`: now, and not when somebody last looked."""
        if again or guest not in self.sights:
            self.sights[guest] = read_sights(self.guests[guest].output(LOOK))
        return self.sights[guest][self.nic(guest, segment)["mac"]]


# Lists of JSON on a line each; what a source told has the name of its file before it.
LOOK = """ip -j address; ip -j route; ip -j -6 route
awk '{ print FILENAME "\\t" $0 }' /run/kc/nic/*/dns.* /run/kc/nic/*/ntp.* 2>/dev/null || true"""


def read_sights(text: str) -> dict[str, Seen]:
    """Return what a guest sees, by the MAC of each NIC."""
    lists = [json.loads(line) for line in text.splitlines() if line.startswith("[")]
    links, routes = lists[0], [route for routes in lists[1:] for route in routes]
    seen = {
        link["ifindex"]: Seen(
            link["ifname"],
            link["mtu"],
            link["address"],
            link["addr_info"],
            [route for route in routes if route["dev"] == link["ifname"]],
        )
        for link in links
    }
    for line in (line for line in text.splitlines() if line.startswith("/")):
        path, _, said = line.partition("\t")
        _, index, source = path.rsplit("/", 2)
        # Each router has a file of its own.
        seen[int(index)].told.setdefault(".".join(source.split(".")[:2]), []).append(said)
    return {each.mac: each for each in seen.values()}


def eui64(subnet: str, mac: str) -> str:
    """Return the address that a MAC gives by SLAAC (RFC 4291, appendix A), in CIDR form."""
    raw = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return f"{IPv6Address(int(IPv6Network(subnet).network_address) + int.from_bytes(identifier, 'big'))}/64"


def first_host(subnet: str) -> str:
    """Return where the host itself is on a segment that it is the gateway of."""
    return str(ip_network(subnet)[1])


def plain(address: str) -> str:
    """Return an address without its prefix, in canonical form."""
    return str(ip_interface(address).ip)


def canonical(text: str) -> str:
    """Return an address as everybody writes it."""
    return str(ip_address(text))
