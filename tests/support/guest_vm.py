"""Booted guests that tell what they see: over SSH, or by their agent where no network of theirs is to be trusted."""

from __future__ import annotations

import base64
import json
import random
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.kc import run_kc, virsh

OPTIONS = (
    "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "ConnectTimeout=10", "BatchMode=yes",
    "ServerAliveInterval=5", "ServerAliveCountMax=3",
)  # fmt: skip


def make_key(folder: Path) -> Path:
    """Return a new private key; the public one is beside it with `.pub`."""
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
    return key


def wait_until(condition: Callable[[], object], what: Callable[[], object] | str, seconds: float = 60) -> None:
    """Wait for something to come true; fail with `what`, which may say how it is then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what if isinstance(what, str) else what()}"
        time.sleep(0.1)


class Guest:
    """A VM of KC's that runs the starter image, told by its agent what to do."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name

    def kc(self, *arguments: str) -> str:
        """Return what a `kc` command prints; fail where it does."""
        done = run_kc(self.home, *arguments)
        assert done.status == 0, done.stderr
        return done.stdout

    def show(self) -> Any:
        """Return the VM's document."""
        return json.loads(self.kc("vm", "show", self.name, "-o", "json"))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait a minute at most for something to come true."""
        wait_until(condition, what)

    def run(self, command: str, seconds: float = 60) -> tuple[int, str]:
        """Run a shell command by the agent; return its exit code and both outputs together."""
        argument = ["-c", f"{{ {command}\n}} 2>&1"]
        pid = self._ask("guest-exec", path="/bin/sh", arg=argument, **{"capture-output": True})["pid"]
        done: dict[str, Any] = {}
        wait_until(lambda: done.update(self._ask("guest-exec-status", pid=pid)) or done["exited"], command, seconds)
        return done.get("exitcode", -1), base64.b64decode(done.get("out-data", "")).decode(errors="replace")

    def wait_for_agent(self, seconds: float = 180) -> None:
        """Wait until the guest can be told what to do."""
        request = json.dumps({"execute": "guest-ping"})

        def answers() -> bool:
            try:
                virsh("qemu-agent-command", self.name, request, "--timeout", "10")
            except subprocess.CalledProcessError:
                return False
            return True

        wait_until(answers, f"the agent of {self.name} answers", seconds)

    def output(self, command: str, seconds: float = 60) -> str:
        """Return what a shell command that must succeed prints, asked for by the agent."""
        code, text = self.run(command, seconds)
        assert code == 0, f"{self.name}: {command}: {code}: {text}"
        return text

    def write(self, path: str, content: str) -> None:
        """Write a file in the guest."""
        self.output(f"printf %s {shlex.quote(content)} >{shlex.quote(path)}")

    def json(self, command: str) -> Any:
        """Return the JSON value that a command in the guest prints."""
        return json.loads(self.output(command))

    def pings(self, device: str, address: str, count: int = 1) -> bool:
        """Return whether an address answers over a NIC; three tries, as the first may only have found the neighbour."""
        command = f"ping -c {count} -W 2 -I {device} {address} >/dev/null"
        return any(self.run(command)[0] == 0 for _ in range(3))

    def devices(self) -> dict[str, str]:
        """Return what the guest calls each NIC, by the NIC's id."""
        names = {link["address"]: link["ifname"] for link in self.json("ip -j link")}
        return {nic["id"]: names[nic["mac"]] for nic in self.show()["spec"]["nics"]}

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"execute": command, "arguments": arguments})
        answer = virsh("qemu-agent-command", self.name, request, "--timeout", "30")
        found: dict[str, Any] = json.loads(answer)["return"]
        return found


class GuestVM(Guest):
    """A VM of the smallest type, a second network of its name, and its guest's shell."""

    def __init__(self, home: Path, folder: Path, stem: str) -> None:
        super().__init__(home, f"{stem}-{uuid.uuid4().hex[:6]}")
        self.key = make_key(folder)
        subnet = f"10.214.{random.randrange(256)}.0/24"
        self.kc("network", "create", self.name, "--uplink", "isolated", "--ipv4", subnet)
        self.kc(
            "vm", "create", self.name, "--image", "starter", "--network", "default", "--type", "tiny",
            "--ssh-key", f"{self.key}.pub", "--wait", "ready",
        )  # fmt: skip

    def guest(self, command: str) -> str:
        """Return what a command in the guest prints, asked for over SSH until the guest answers."""
        deadline = time.monotonic() + 120
        while True:
            addresses = [entry for entry in self.show()["status"]["addresses"] if entry["network"] == "default"]
            for address in (entry["address"] for entry in addresses if entry["family"] == "ipv4"):
                done = ssh(self.key, address, command)
                if done.returncode == 0:
                    return done.stdout
                assert time.monotonic() < deadline, done.stderr
            assert time.monotonic() < deadline, "the guest has no address"

    def memory(self) -> int:
        """Return the KiB of memory that the guest has."""
        return int(self.guest("grep MemTotal /proc/meminfo").split()[1])

    def nics(self) -> list[str]:
        """Return the names of the guest's NICs."""
        return [name for name in self.guest("ls /sys/class/net").split() if name != "lo"]

    def end(self) -> None:
        """Delete the VM and its network for good."""
        run_kc(self.home, "vm", "delete", self.name, "--yes", "--now")
        run_kc(self.home, "network", "delete", self.name, "--yes", "--now")


def ssh(key: Path, address: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root in the guest that has an address."""
    options = [part for option in OPTIONS for part in ("-o", option)]
    return subprocess.run(
        ["ssh", *options, "-i", str(key), f"root@{address}", command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class Elsewhere:
    """A namespace that stands for what is beyond: on a line to this host, or at a segment's bridge."""

    def __init__(self, *addresses: str, bridge: str = "") -> None:
        stem = uuid.uuid4().hex[:6]
        self.name, self.line, self.end_there = f"kcelse{stem}", f"kce{stem}", f"kci{stem}"
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self.line, "type", "veth", "peer", "name", self.end_there, "netns", self.name)
        if bridge:
            self.ip("link", "set", self.line, "master", bridge)
        self.ip("link", "set", self.line, "up")
        for device in ("lo", self.end_there):
            self.ip("-n", self.name, "link", "set", device, "up")
        for address in addresses:
            self.ip("-n", self.name, "address", "add", address, "dev", self.end_there, *self._at_once(address))

    def address_here(self, address: str) -> None:
        """Give this host's end of the line an address."""
        self.ip("address", "add", address, "dev", self.line, *self._at_once(address))

    def route(self, to: str, via: str) -> None:
        """Have it reach a subnet by way of an address."""
        self.ip("-n", self.name, "route", "add", to, "via", via)

    def close(self) -> None:
        """Remove it, with its line."""
        self.ip("netns", "delete", self.name)

    @staticmethod
    def _at_once(address: str) -> list[str]:
        return ["nodad"] if ":" in address else []

    @staticmethod
    def ip(*arguments: str) -> str:
        """Run `ip` here; fail where it does."""
        done = subprocess.run(["ip", *arguments], timeout=20, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout
