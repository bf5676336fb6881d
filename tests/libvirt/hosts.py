"""A libvirtd of a test's own, and waiting for what it does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 60
# What the smallest guests say when they are up.
GREETING = b"KC test guest is up\r\n"


def wait_until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail with `what` where it does not."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"never came true: {what}"
        time.sleep(0.02)


class PrivateHost:
    """A libvirtd that a test may stop, kill and start again without anybody else noticing."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"qemu+unix:///system?socket={folder}/libvirt-sock"
        self._socket = folder / "libvirt-sock"
        script = Path(__file__).with_name("private_host.py")
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", "-mnpfu", "--mount-proc", "--kill-child", sys.executable, str(script), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        try:
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == "ready\n", (folder / "log").read_text()
            self.wait_for_daemon()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process whose namespaces the host has, as this machine numbers it."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def wait_for_daemon(self) -> None:
        """Wait until libvirtd answers."""

        def answers() -> bool:
            done = subprocess.run(["virsh", "-c", self.uri, "version"], capture_output=True, timeout=60, check=False)
            return done.returncode == 0

        wait_until(lambda: self._socket.exists() and answers(), "libvirtd answers", START_SECONDS)

    def tell(self, line: str) -> None:
        """Have a command done: `signal libvirtd STOP`, `start libvirtd`, `qemu DOMAIN STOP`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def run(self, *command: str) -> None:
        """Run a command in the host's namespaces."""
        self.tell(f"run {' '.join(command)}")

    def virsh(self, *arguments: str) -> str:
        """Return what virsh prints."""
        return subprocess.run(
            ["virsh", "-q", "-c", self.uri, *arguments], capture_output=True, text=True, timeout=60, check=True
        ).stdout  # fmt: skip

    def close(self) -> None:
        """End the daemon and everything that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()
        self._log.close()
