"""An sshd of a test's own, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

START_SECONDS = 10


class Daemon(NamedTuple):
    """Where an sshd listens, whose key it has (`known_hosts`), and whose it lets in (`key`)."""

    port: int
    key: Path
    stranger: Path
    known_hosts: Path


@contextlib.contextmanager
def ssh_daemon(folder: Path, prefix: Sequence[str] = (), port: int = 0) -> Iterator[Daemon]:
    """Run an sshd, by way of `prefix` in a namespace of its own, on any free port or the one that is given."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs root and openssh-server")
    folder.mkdir(exist_ok=True)
    for key in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=30)
    port = port or free_port()
    config = folder / "sshd_config"
    config.write_text(
        f'Port {port}\nListenAddress 127.0.0.1\nHostKey "{folder}/host"\nPidFile none\nUsePAM no\nStrictModes no\n'
        f'AuthorizedKeysFile "{folder}/user.pub"\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n'
    )
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = folder / "log"
    process = subprocess.Popen([*prefix, program, "-D", "-E", str(log), "-f", str(config)])
    try:
        ends = time.monotonic() + START_SECONDS
        while not (log.exists() and "Server listening" in log.read_text()):
            assert time.monotonic() < ends, "sshd does not listen"
            time.sleep(0.02)
        yield Daemon(port, folder / "user", folder / "stranger", known)
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
