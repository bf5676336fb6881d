"""Real etcd clusters on loopback: members of one's own to start, kill and start again."""

from __future__ import annotations

import atexit
import functools
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_START_SECONDS = 30


def check_etcd() -> None:
    """Skip the test where there is no etcd."""
    if not shutil.which("etcd"):
        pytest.skip("no etcd here: Debian has it as etcd-server")


def find_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Member:
    """One etcd process with a data folder of its own, which outlives it."""

    def __init__(self, name: str, folder: Path, ports: tuple[int, int], *options: str) -> None:
        self.name = name
        self.port, self.peer_port = ports
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self, cluster: str, scheme: str) -> None:
        client, peer = f"{scheme}://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        log = (self._folder / f"{self.name}.log").open("ab")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        self._process = subprocess.Popen(
            [
                "etcd", "--name", self.name, "--data-dir", self._folder / self.name,
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", cluster, "--logger", "zap", "--log-level", "error", *self._options,
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
        )  # fmt: skip
        log.close()

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut of its machine would, as far as others can see."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


class Cluster:
    """Some members that are one etcd."""

    def __init__(self, folder: Path, size: int = 1, *options: str, scheme: str = "http") -> None:
        ports = find_ports(2 * size)
        self.folder = folder
        self._scheme = scheme
        self.members = [
            Member(f"m{number}", folder, (ports[2 * number], ports[2 * number + 1]), *options)
            for number in range(size)
        ]  # fmt: skip
        self._cluster = ",".join(f"{each.name}=http://127.0.0.1:{each.peer_port}" for each in self.members)

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    def url(self, prefix: str = "kc") -> str:
        return f"{'etcds' if self._scheme == 'https' else 'etcd'}://{self.hosts}/{prefix}"

    def start(self) -> None:
        """Start those that do not run, and wait until all of them can read and write."""
        for member in self.members:
            if not member.is_running:
                member.start(self._cluster, self._scheme)
        deadline = time.monotonic() + _START_SECONDS
        for member in self.members:
            while not self._answers(member):
                assert time.monotonic() < deadline, (self.folder / f"{member.name}.log").read_text()[-3000:]
                time.sleep(0.02)

    def stop(self) -> None:
        for member in self.members:
            member.kill()

    def find_leader(self) -> Member:
        """Return the member that leads; asks those that run until one does."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            for member in self.members:
                status = ask(member.port, "/v3/maintenance/status") if member.is_running else {}
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return member
            time.sleep(0.02)
        message = "no member leads"
        raise AssertionError(message)

    def _answers(self, member: Member) -> bool:
        if self._scheme == "https":
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex(("127.0.0.1", member.port)) == 0
        return "header" in ask(member.port, "/v3/kv/range", {"key": "AA=="})


def ask(port: int, path: str, request: dict[str, object] | None = None) -> dict[str, object]:
    """Return what a member answers; empty where it does not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("POST", path, json.dumps(request or {}))
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()


@functools.cache
def share_cluster(size: int) -> Cluster:
    """Return the cluster of this size that all tests of a session use, each under a prefix of its own."""
    check_etcd()
    folder = Path(tempfile.mkdtemp(prefix="kc-etcd-"))
    fast = ("--heartbeat-interval", "50", "--election-timeout", "500") if size > 1 else ()
    cluster = Cluster(folder, size, *fast)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(cluster.stop)
    cluster.start()
    return cluster


def make_url(size: int, folder: Path) -> str:
    """Return the address of the store that belongs to a folder, on the shared cluster of this size."""
    return share_cluster(size).url(f"t-{hashlib.sha256(str(folder).encode()).hexdigest()[:20]}")
