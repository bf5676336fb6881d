"""Authenticators made as the chain makes them, and asked as it asks them; what they need runs on loopback."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from backend.auth.basic import write_basic
from backend.auth.context import AuthContext
from backend.auth.keys import MasterKey
from backend.auth.protocol import AuthRequest, Client, Decision
from backend.paths import find_paths
from backend.store.opening import open_store
from backend.store.protocol import Store

START_SECONDS = 10.0


def make_context(home: Path, store: Store | None = None) -> AuthContext:
    """Return what an authenticator of a KC in `home` is made with."""
    paths = find_paths({"KC_HOME": str(home)})
    store = store or open_store(f"tinydb:{paths.store_file}")

    def build(_table: Any) -> Any:
        raise AssertionError("no authenticator here is made of others")

    return AuthContext(paths, store, MasterKey(paths.data / "auth.key"), build)


def basic_request(user: str | bytes, password: str | bytes) -> AuthRequest:
    """Return a request with a Basic credential, whatever bytes it is to have."""
    import base64

    name = user.encode() if isinstance(user, str) else user
    secret = password.encode() if isinstance(password, str) else password
    return raw_request(b"Basic " + base64.b64encode(name + b":" + secret))


def raw_request(credential: bytes) -> AuthRequest:
    """Return a request with any credential."""
    return AuthRequest("request-1", "vm.read", Client("tcp", "127.0.0.1"), credential)


def credential_of(user: str, password: str) -> bytes:
    """Return the header's value as KC's own code makes it."""
    return write_basic(user, password.encode())


async def decide(authenticator: Any, user: str | bytes, password: str | bytes) -> Decision:
    """Return what an authenticator answers to a Basic credential."""
    decision: Decision = await authenticator.decide(basic_request(user, password))
    return decision


class Ticker:
    """Measures how long the event loop stood still at most, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticker]:
    """Tick beside what is measured, every 5 ms."""
    ticker = Ticker()

    async def tick() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            ticker.longest = max(ticker.longest, now - before - 0.005)
            before = now

    task = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    try:
        yield ticker
    finally:
        task.cancel()


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Return once a condition holds; fail with `what` where it does not in time."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"never came true: {what}"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Return whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list[str], *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon in the foreground until the block ends; it is there once its ports answer."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for port in ports:
            wait_until(lambda port=port: process.poll() is not None or answers(port), f"port {port} answers")
        assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
