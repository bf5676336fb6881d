"""A real server for tests: uvicorn on a loopback port and a unix socket, over a KC whose host is in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from backend.actor import Actor, acting_as
from backend.api.gate import Options
from backend.api.listeners import bind_tcp, bind_unix
from backend.api.server import Server, build_application
from backend.hypervisor.memory import MemoryHypervisor
from backend.local.service import LocalService
from backend.settings import load_settings
from backend.store.opening import open_store
from support.memory_kc import furnish, settle, vm_document

ACME_ACTIONS = ["vm.read", "vm.start", "vm.stop", "vm.create", "vm.update", "vm.delete", "vm.restore", "vm.console"]
WAIT_SECONDS = 20.0


@dataclass
class ApiServer:
    """A running server: `god` may do everything, `acme` some things to what has `tenant=acme`; both are tokens."""

    url: str
    socket: Path
    god: str
    acme: str
    service: LocalService
    server: Server
    home: Path

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """Return a client over TCP; the god token's by default, without a credential for an empty one."""
        given = self.god if token is None else token
        headers = {**({"Authorization": f"Bearer {given}"} if given else {}), **options.pop("headers", {})}
        return httpx.Client(base_url=self.url, headers=headers, timeout=WAIT_SECONDS, trust_env=False, **options)

    def unix_client(self, token: str = "", **options: Any) -> httpx.Client:
        """Return a client over the unix socket, without a credential by default."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url="http://kc", headers=headers, transport=transport, timeout=WAIT_SECONDS, trust_env=False, **options
        )

    def make_vm(self, name: str, **metadata: Any) -> None:
        """Make a VM, and wait until it runs."""
        settle(self.service, self.service.create(vm_document(name, metadata=metadata)))


def make_token(service: LocalService, name: str, **spec: Any) -> str:
    """Return the secret of a new token."""
    document = {"kind": "Token", "name": name, "metadata": {}, "spec": spec}
    with acting_as(Actor("test")):
        return str(service.create(document).document["token"])


@contextmanager
def running_server(
    home: Path,
    *,
    config: str = "",
    options: Options | None = None,
    hypervisor: MemoryHypervisor | None = None,
    tls: Any = None,
) -> Iterator[ApiServer]:
    """Yield a server on a port and a socket of its own, furnished like after `kc init`; `config` is its config.toml."""
    settings_file = home / "config" / "config.toml"
    if config:
        settings_file.parent.mkdir(parents=True, exist_ok=True)
        settings_file.write_text(config)
    settings = load_settings(environment={"KC_HOME": str(home)})
    service = LocalService(open_store(settings.store_url), hypervisor or MemoryHypervisor(), settings)
    try:
        if service.store.find("Network", "default") is None:
            furnish(service)
        god = make_token(service, "god", type="god")
        acme = make_token(
            service,
            "acme",
            type="limited",
            scopes=[
                {"actions": ACME_ACTIONS, "selector": "tenant=acme"},
                {"actions": ["image.read", "network.read", "type.read"], "selector": ""},
            ],
        )
        with _serving(service, settings, home, options or Options(), tls) as (server, url):
            yield ApiServer(url, home / "kc.sock", god, acme, service, server, home)
    finally:
        service.close()


@contextmanager
def _serving(
    service: LocalService, settings: Any, home: Path, options: Options, tls: Any
) -> Iterator[tuple[Server, str]]:
    (tcp,) = bind_tcp("127.0.0.1:0", is_secure=tls is not None, is_insecure=False)
    unix = bind_unix(home / "kc.sock")
    ready = threading.Event()
    made: list[Server] = []
    faults: list[BaseException] = []

    async def run() -> None:
        server = Server(build_application(service, settings, options), [tcp, unix], tls)
        made.append(server)
        await server.run(ready.set)

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:
            faults.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    try:
        assert ready.wait(WAIT_SECONDS)
        if faults:
            raise faults[0]
        yield made[0], tcp.label
    finally:
        if made:
            made[0].stop()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive(), "the server did not end"


def bearer(token: str) -> Mapping[str, str]:
    """Return the header that has a token."""
    return {"Authorization": f"Bearer {token}"}
