"""A booted guest that tells what it sees, over SSH."""

from __future__ import annotations

import json
import random
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.kc import run_kc

OPTIONS = (
    "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "ConnectTimeout=10", "BatchMode=yes",
    "ServerAliveInterval=5", "ServerAliveCountMax=3",
)  # fmt: skip


class GuestVM:
    """A VM of the smallest type, a second network of its name, and its guest's shell."""

    def __init__(self, home: Path, folder: Path, stem: str) -> None:
        self.home = home
        self.key = folder / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True, timeout=30)
        self.name = f"{stem}-{uuid.uuid4().hex[:6]}"
        subnet = f"10.214.{random.randrange(256)}.0/24"
        self.kc("network", "create", self.name, "--uplink", "isolated", "--ipv4", subnet)
        self.kc(
            "vm", "create", self.name, "--image", "starter", "--network", "default", "--type", "tiny",
            "--ssh-key", f"{self.key}.pub", "--wait", "ready",
        )  # fmt: skip

    def kc(self, *arguments: str) -> str:
        """Return what a `kc` command prints; fail where it does."""
        done = run_kc(self.home, *arguments)
        assert done.status == 0, done.stderr
        return done.stdout

    def show(self) -> Any:
        """Return the VM's document."""
        return json.loads(self.kc("vm", "show", self.name, "-o", "json"))

    def guest(self, command: str) -> str:
        """Return what a command in the guest prints, asked for until the guest answers."""
        deadline = time.monotonic() + 120
        while True:
            addresses = [entry for entry in self.show()["status"]["addresses"] if entry["network"] == "default"]
            for address in (entry["address"] for entry in addresses if entry["family"] == "ipv4"):
                options = [part for option in OPTIONS for part in ("-o", option)]
                done = subprocess.run(
                    ["ssh", *options, "-i", str(self.key), f"root@{address}", command],
                    capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
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

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait a minute at most for something to come true."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {what}"
            time.sleep(0.5)

    def end(self) -> None:
        """Delete the VM and its network for good."""
        run_kc(self.home, "vm", "delete", self.name, "--yes", "--now")
        run_kc(self.home, "network", "delete", self.name, "--yes", "--now")
