"""A server of the HTTP interface in this process, over a KC in memory, with credentials that a test gives and takes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from backend.api.app import Application, create_app
from backend.auth.protocol import EVERYTHING, AuthRequest, Decision, Scope
from backend.local import LocalService
from support.memory_kc import furnish, make_service


class ToyChain:
    """Lets in whoever has one of the credentials that a test gave: `Bearer NAME`."""

    def __init__(self) -> None:
        self.generation = 0
        self.fault = ""
        self.decisions: dict[bytes, Decision] = {}
        self.asked: list[AuthRequest] = []

    def allow(self, name: str, *scopes: Scope, **more: Any) -> dict[str, str]:
        """Give a credential, and return the header that has it."""
        self.decisions[f"Bearer {name}".encode()] = Decision("allow", name, scopes=scopes or EVERYTHING, **more)
        return {"Authorization": f"Bearer {name}"}

    def revoke(self, name: str) -> None:
        """Take a credential away."""
        del self.decisions[f"Bearer {name}".encode()]
        self.generation += 1

    async def refresh(self) -> int:
        """See the protocol."""
        return self.generation

    async def decide(self, request: AuthRequest) -> Decision:
        """See the protocol."""
        self.asked.append(request)
        return self.decisions.get(request.credential) or Decision("challenge", reason="no such credential", status=401)


@dataclass
class Running:
    """A server that runs; `headers` are those of somebody who may do everything."""

    url: str
    application: Application
    service: LocalService
    chain: ToyChain
    uploads: Path
    headers: dict[str, str] = field(default_factory=dict)
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def socket_url(self) -> str:
        """Where WebSockets are."""
        return self.url.replace("http:", "ws:")

    def on_loop(self, function: Any) -> None:
        """Have the server's loop call a function."""
        self.loop.call_soon_threadsafe(function)


@contextmanager
def stream_server(home: Path, service: LocalService | None = None) -> Iterator[Running]:
    """Serve a furnished KC in memory on a port of its own."""
    if service is None:
        service = make_service(home)
        furnish(service)
    chain = ToyChain()
    uploads = home / "data" / "uploads"
    application = create_app(service, chain, uploads=uploads)
    line = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_level="error",
        ws="websockets-sansio",
        timeout_graceful_shutdown=10,
        http="httptools",
    )
    server = uvicorn.Server(config)
    running = Running(f"http://127.0.0.1:{line.getsockname()[1]}", application, service, chain, uploads)
    running.headers = chain.allow("root")
    ready = threading.Event()

    async def run() -> None:
        running.loop = asyncio.get_running_loop()
        await application.open()
        ready.set()
        await server.serve(sockets=[line])
        await application.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10)
    try:
        yield running
    finally:
        running.on_loop(application.end)
        server.should_exit = True
        thread.join(20)
        line.close()
        assert not thread.is_alive()
