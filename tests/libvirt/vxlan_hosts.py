"""Hosts that are network namespaces, each with an underlay, a bridge and a guest; and packets from guest to guest."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

from backend.network import links
from backend.network.plan import Vxlan
from backend.network.shell import LocalShell

DEVICE = "kx0123456789"
ALIAS = "kc 5f0c5c2e network backend"
VNI = 4242
LOOK = ("ip", "-j", "-d", "address", "show")
UNDERLAY_MTU = 1500
GUEST_MTU = 1500
# A guest whose MTU nobody has set: what does not fit is lost on the way, not refused in the guest itself.

# Answers each datagram with the size that it had.
ECHO = """
import socket, sys
line = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
line.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
line.bind(("::", 7))
print("ready", flush=True)
while True:
    data, sender = line.recvfrom(65536)
    line.sendto(str(len(data)).encode(), sender)
"""
# Says whether a packet of a size in bytes, IP header and all, that no router may split, is answered within seconds.
PROBE = """
import socket, sys, time
address, size, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
is_ipv6 = ":" in address
payload = size - (48 if is_ipv6 else 28)
line = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
# IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, PMTUDISC_PROBE: with DF, and no path MTU that was learned stops us.
line.setsockopt(*((41, 23) if is_ipv6 else (0, 10)), 3)
line.settimeout(0.2)
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    line.sendto(bytes(payload), (address, 7))
    try:
        if line.recv(100) == str(payload).encode(): sys.exit(0)
    except TimeoutError: pass
sys.exit(1)
"""


class VxlanHost:
    """A host with the underlay addresses 10.99.0.N and fd99::N, and a guest with 10.77.0.N and fd77::N."""

    def __init__(self, number: int, *, underlay_mtu: int = UNDERLAY_MTU) -> None:
        self.name, self.guest = f"kcv{number}{uuid.uuid4().hex[:6]}", f"kcg{number}{uuid.uuid4().hex[:6]}"
        self.shell = LocalShell(("ip", "netns", "exec", self.name))
        self.local = {4: f"10.99.0.{number}", 6: f"fd99::{number}"}
        self.address = {4: f"10.77.0.{number}", 6: f"fd77::{number}"}
        for name in (self.name, self.guest):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self._echo: subprocess.Popen[bytes] | None = None
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("link", "set", "br0", "up")
        self.ip("link", "add", "tap0", "type", "veth", "peer", "name", "eth0", "netns", self.guest)
        self.ip("link", "set", "tap0", "master", "br0", "up")
        run("ip", "-n", self.guest, "link", "set", "eth0", "mtu", str(GUEST_MTU), "up")
        run("ip", "-n", self.guest, "address", "add", f"{self.address[4]}/24", "dev", "eth0")
        run("ip", "-n", self.guest, "address", "add", f"{self.address[6]}/64", "dev", "eth0", "nodad")

    def join(self, other: VxlanHost, mtu: int = UNDERLAY_MTU) -> None:
        """Lay the underlay between two hosts."""
        self.ip("link", "add", "under", "type", "veth", "peer", "name", "under", "netns", other.name)
        for host in (self, other):
            host.ip("link", "set", "under", "mtu", str(mtu), "up")
            host.ip("address", "add", f"{host.local[4]}/24", "dev", "under")
            host.ip("address", "add", f"{host.local[6]}/64", "dev", "under", "nodad")

    def ip(self, *arguments: str) -> None:
        """Run `ip` on the host."""
        run("ip", "-n", self.name, *arguments)

    def plan(self, *peers: VxlanHost, version: int = 4, **changes: Any) -> Vxlan:
        """Return the plan of this host's VXLAN device."""
        ends = tuple(peer.local[version] for peer in peers)
        return Vxlan(DEVICE, VNI, self.local[version], ends)._replace(**changes)

    def ensure(self, vxlan: Vxlan, mtu: int = 0, alias: str = ALIAS) -> None:
        """Have the VXLAN device be there, and the bridge's MTU be its."""
        mtu = mtu or UNDERLAY_MTU - (70 if ":" in vxlan.local else 50)
        self.ip("link", "set", "br0", "mtu", str(mtu))
        links.ensure_vxlan(self.shell, vxlan, bridge="br0", mtu=mtu, alias=alias)

    def look(self, *command: str) -> list[dict[str, Any]]:
        """Return what a command says in JSON."""
        found: list[dict[str, Any]] = json.loads(self.shell.run(command).output)
        return found

    def device(self, name: str = DEVICE) -> dict[str, Any]:
        """Return what the kernel says of a device; {} where there is none."""
        return next((link for link in self.look(*LOOK) if link["ifname"] == name), {})

    def vxlans(self) -> list[dict[str, Any]]:
        """Return what the kernel says of its VXLAN devices."""
        return [link for link in self.look(*LOOK) if link.get("linkinfo", {}).get("info_kind") == "vxlan"]

    def entries(self) -> list[dict[str, Any]]:
        """Return the forwarding entries of the VXLAN device."""
        return self.look("bridge", "-j", "fdb", "show", "dev", DEVICE)

    def has(self, vxlan: Vxlan) -> bool:
        """Return whether the VXLAN device is as it should be: shape, bridge, peers, and who is let in."""
        device = self.device()
        if not device:
            return False
        data = device["linkinfo"].get("info_data", {})
        below = vxlan.underlay or ("under" if vxlan.group or vxlan.local.startswith("fe80") else "")
        shape = [data.get(name, "") for name in ("id", "port", "link", "learning")]
        ends = [data.get(name) or data.get(f"{name}6", "") for name in ("local", "group")]
        peers = [(each["dst"], each.get("viaIf", "")) for each in self.entries() if each["mac"] == "00:00:00:00:00:00"]
        let_in = self.shell.run(("nft", "-j", "list", "set", "inet", f"kc_{DEVICE}", "peers"))
        known = next((each["set"].get("elem", []) for each in parse(let_in.output) if "set" in each), None)
        return (
            shape == [vxlan.vni, vxlan.port, below, True]
            and ends == [vxlan.local, vxlan.group]
            and (device.get("master"), device.get("ifalias"), "UP" in device["flags"]) == ("br0", ALIAS, True)
            and sorted(peers) == sorted((end, below) for end in (vxlan.peers or [vxlan.group]) if end)
            and (known is None if vxlan.group else set(known or []) == set(vxlan.peers) and known is not None)
        )

    def listen(self) -> None:
        """Have the guest answer from now on."""
        command = ["ip", "netns", "exec", self.guest, sys.executable, "-c", ECHO]
        self._echo = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._echo.stdout is not None
        assert self._echo.stdout.readline() == b"ready\n"

    def reaches(self, other: VxlanHost, size: int = 100, version: int = 4, seconds: float = 5.0) -> bool:
        """Return whether a packet of `size` bytes gets from guest to guest whole, and its answer back."""
        command = ["ip", "netns", "exec", self.guest, sys.executable, "-c", PROBE]
        return run(*command, other.address[version], str(size), str(seconds), check=False) == 0

    def is_cut_from(self, other: VxlanHost, size: int = 100, version: int = 4) -> bool:
        """Return whether no packet of three, in 0.6 s, gets from guest to guest and back."""
        return not self.reaches(other, size, version, 0.6)

    def close(self) -> None:
        """Remove everything."""
        if self._echo is not None:
            self._echo.kill()
            self._echo.communicate()
        for name in (self.name, self.guest):
            run("ip", "netns", "delete", name)


def parse(output: str) -> list[dict[str, Any]]:
    """Return what `nft -j` says; [] where there is nothing."""
    found: list[dict[str, Any]] = json.loads(output)["nftables"] if output.strip() else []
    return found


def run(*command: str, check: bool = True) -> int:
    """Return a command's exit code."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.returncode
