"""A client on a segment: a network namespace of the host's, with a cable into the segment's bridge."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from backend.network.shell import Shell

INTERFACE = "eth0"
_TELL = """#!/bin/sh
[ "$1" = bound ] && env >"{told}"
exit 0
"""
_IPV6 = Path(__file__).with_name("station_ipv6.py")


class Station:
    """A client with a MAC; `folder` is one that it and the host see."""

    def __init__(self, shell: Shell, folder: Path, mac: str = "") -> None:
        token = uuid.uuid4().hex[:8]
        self.mac = mac or f"52:54:00:{token[0:2]}:{token[2:4]}:{token[4:6]}"
        self.cable = f"kn{token}"
        self._shell = shell
        self._name = f"kct-{token}"
        self._told = folder / f"told-{token}"
        self._script = folder / f"tell-{token}"
        self._script.write_text(_TELL.format(told=self._told))
        self._script.chmod(0o755)
        self._do("ip", "netns", "add", self._name)
        self._do(
            "ip", "link", "add", self.cable, "type", "veth",
            "peer", "name", INTERFACE, "address", self.mac, "netns", self._name,
        )  # fmt: skip
        # Nobody else has its addresses; waiting to find out takes two seconds.
        self.run("sysctl", "-qw", f"net.ipv6.conf.{INTERFACE}.accept_dad=0")
        self.run("ip", "link", "set", INTERFACE, "up")

    def plug(self, bridge: str) -> None:
        """Put the cable into a bridge."""
        self._do("ip", "link", "set", self.cable, "master", bridge, "up")

    def close(self) -> None:
        """Remove it."""
        self._shell.run(("ip", "link", "delete", self.cable))
        self._shell.run(("ip", "netns", "delete", self._name))

    def ask_dhcp(self, tries: int = 6) -> dict[str, str]:
        """Return what a DHCP server says, in udhcpc's words; {} where none gives an address.

        A server takes three seconds to find out whether somebody has an address already.
        """
        self._told.unlink(missing_ok=True)
        self.run(
            "busybox", "udhcpc", "-i", INTERFACE, "-f", "-n", "-q", "-t", str(tries), "-T", "1",
            "-s", str(self._script), "-O", "search", "-O", "mtu", "-O", "ntpsrv", "-O", "staticroutes", check=False,
        )  # fmt: skip
        if not self._told.exists():
            return {}
        pairs = (line.split("=", 1) for line in self._told.read_text().splitlines() if "=" in line)
        return {name: value for name, value in pairs if name.islower()}

    def hear_router(self) -> dict[str, Any] | None:
        """Return what a router advertises; None where there is none."""
        return self._ask_ipv6("ra")

    def ask_dhcpv6(self, kind: str, duid: str = "", name: str = "") -> dict[str, Any] | None:
        """Return what a DHCPv6 server answers to `information` or `solicit`; None where there is none."""
        return self._ask_ipv6(kind, duid, name)

    def addresses(self) -> set[str]:
        """Return the global IPv6 addresses that the kernel gave itself."""
        links = json.loads(self.run("ip", "-j", "-6", "addr", "show", "dev", INTERFACE, "scope", "global"))
        found = (each for link in links for each in link.get("addr_info", ()) if "local" in each)
        return {f"{each['local']}/{each['prefixlen']}" for each in found}

    def has_default_route(self) -> bool:
        """Return whether the kernel took an advertisement's router for its gateway."""
        return bool(json.loads(self.run("ip", "-j", "-6", "route", "show", "default") or "[]"))

    def run(self, *command: str, check: bool = True) -> str:
        """Return what a command prints there."""
        return self._do("ip", "netns", "exec", self._name, *command, check=check)

    def _ask_ipv6(self, *words: str) -> Any:
        return json.loads(self.run(sys.executable, str(_IPV6), words[0], INTERFACE, *words[1:]))

    def _do(self, *command: str, check: bool = True) -> str:
        done = self._shell.run(command, seconds=30)
        assert not check or done.code == 0, (command, done)
        return done.output
