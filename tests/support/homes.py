"""The three homes of the service: in this process, held to a decision, and over HTTP; each over one host in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.actor import Actor
from backend.api.app import Application, create_app
from backend.api.listeners import bind_tcp, bind_unix
from backend.api.server import Server
from backend.auth.guarded import GuardedService
from backend.auth.protocol import EVERYTHING, AuthRequest, Decision, challenge
from backend.local import LocalService
from backend.remote.address import parse_address
from backend.remote.options import RemoteOptions
from backend.remote.service import RemoteService

HOMES = ("local", "guarded", "remote")
ONLY_LOCAL = pytest.mark.parametrize("place", ["local"])
"""For a test of what is behind the protocol."""
GOD = Decision("allow", "god", scopes=EVERYTHING, authenticator="test")
_START_SECONDS = 10.0


class OpenChain:
    """Lets in whoever shows the credential that a test wants, if it wants any, and allows them what it says."""

    def __init__(self, credential: bytes = b"", decision: Decision = GOD) -> None:
        self.credential = credential
        self.decision = decision
        self.generation = 0
        self.fault = ""
        self.asked: list[AuthRequest] = []

    async def decide(self, request: AuthRequest) -> Decision:
        self.asked.append(request)
        if request.credential != self.credential:
            return challenge('Bearer realm="kc"', "unknown token")
        return self.decision

    async def refresh(self) -> int:
        return self.generation

    def invalidate(self) -> None:
        self.generation += 1

    async def close(self) -> None:
        pass


class RunningServer:
    """A server on a thread of its own; `address` is where, `restart` brings it back at the same place."""

    def __init__(self, service: Any, folder: Path, *, unix: bool = False, chain: OpenChain | None = None) -> None:
        self.service = service
        self.chain = chain or OpenChain()
        self._folder = folder
        self._unix = folder / "kc.sock" if unix else None
        self._place = "127.0.0.1:0"
        self._server: Server | None = None
        self.application: Application | None = None
        self._thread: threading.Thread | None = None
        self.url = ""
        self.start()

    def start(self) -> None:
        if self._unix is not None:
            listeners = [bind_unix(self._unix)]
            self.url = f"unix:{self._unix}"
        else:
            listeners = bind_tcp(self._place, is_secure=False, is_insecure=False)
            port = listeners[0].socket.getsockname()[1]
            self._place = f"127.0.0.1:{port}"
            self.url = f"http://{self._place}"
        chain: Any = self.chain
        ready = threading.Event()

        async def run() -> None:
            application = create_app(self.service, chain, uploads=self._folder / "uploads")
            # Lists are rendered anew each time: what follows the feed for them takes a second to end.
            application.server.lists.start = lambda: None
            self.application = application
            self._server = Server(application, listeners)
            await self._server.run(ready.set)

        self._thread = threading.Thread(target=asyncio.run, args=(run(),), name="kc-test-server", daemon=True)
        self._thread.start()
        assert ready.wait(_START_SECONDS), "the server did not start"

    def stop(self) -> None:
        """End it in order; a second call does nothing."""
        if self._server is None or self._thread is None:
            return
        self._server.stop()
        self._thread.join(_START_SECONDS)
        assert not self._thread.is_alive(), "the server did not end"
        self._server = self._thread = None

    def open(self, folder: Path | None = None, credential: str = "") -> RemoteService:
        """Return a client of it."""
        cache = (folder or self._folder) / "client-cache"
        options = RemoteOptions(parse_address(self.url), cache, find_credential=lambda: credential)
        return RemoteService(options)


@contextmanager
def serving(service: Any, folder: Path, **more: Any) -> Iterator[RunningServer]:
    """Run a server inside the block."""
    server = RunningServer(service, folder, **more)
    try:
        yield server
    finally:
        server.stop()


class Behind:
    """A home as tests use it: the protocol by one service, all else (`store`, `runner`…) of the local one behind it."""

    def __init__(self, front: Any, local: LocalService) -> None:
        self._front = front
        self._local = local

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front if name in PROTOCOL else self._local, name)

    def close(self) -> None:
        """Let go of both."""
        self._front.close()
        self._local.close()


PROTOCOL = frozenset(name for name in vars(RemoteService) if not name.startswith("_")) - {"resume", "close"}


@contextmanager
def opened(home: str, local: LocalService, folder: Path) -> Iterator[Any]:
    """Yield a home of that kind on a local service, which is closed at the end."""
    if home == "local":
        yield local
    elif home == "guarded":
        yield Behind(GuardedService(local, GOD, Actor("god")), local)
    else:
        with serving(local, folder / "server") as server:
            remote = server.open()
            yield Behind(remote, local)
            remote.close()
    local.close()


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
