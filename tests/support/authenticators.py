"""Authenticators that tests put into chains, and a server that decides for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from backend.auth.basic import write_basic
from backend.auth.context import AuthContext
from backend.auth.keys import MasterKey
from backend.auth.links import Lineup, Link, Origin
from backend.auth.protocol import ABSTAIN, Authenticator, AuthRequest, Client, Decision, Peer
from backend.paths import find_paths
from backend.store.opening import open_store

REQUEST = AuthRequest("r-1", "vm.read", Client("tcp", "192.0.2.7"), method="GET", path="/v1/vms", host="kc.test:8470")


def bearer(secret: str, **fields: Any) -> AuthRequest:
    """Return a request with a bearer token."""
    return replace(REQUEST, credential=b"Bearer " + secret.encode(), **fields)


def basic(user: str, password: str, **fields: Any) -> AuthRequest:
    """Return a request with a user and a password."""
    return replace(REQUEST, credential=write_basic(user, password.encode()), **fields)


def from_peer(uid: int, **fields: Any) -> AuthRequest:
    """Return a request over the unix socket."""
    return replace(REQUEST, client=Client("unix", "", Peer(4711, uid, uid)), **fields)


@dataclass
class Scripted:
    """Answers what it is told to, after what it is told to do first; counts who asked at one time."""

    answer: Any = ABSTAIN
    scheme: str = "bearer"
    name: str = "scripted"
    cache_scope: Any = "none"
    before: Callable[[], Any] | None = None
    challenges: tuple[str, ...] = ()
    asked: list[AuthRequest] = field(default_factory=list)
    most: int = 0
    closed: int = 0
    _running: int = 0

    def accepts(self, request: AuthRequest) -> bool:
        """Claim the credentials of one scheme, and no credential for the empty one."""
        return request.scheme == self.scheme

    async def decide(self, request: AuthRequest) -> Decision:
        """Answer."""
        self.asked.append(request)
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            if self.before is not None:
                await self.before()
        finally:
            self._running -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(request) if callable(self.answer) else self.answer

    async def check_health(self) -> str:
        """Be well."""
        return ""

    async def close(self) -> None:
        """Count it."""
        self.closed += 1


def link(authenticator: Authenticator, name: str = "", **limits: Any) -> Link:
    """Return an authenticator's place in a chain."""
    return Link(authenticator, name or authenticator.name, Origin("scripted", "kc-test", "1"), **limits)


def line_up(*authenticators: Authenticator, **parts: Any) -> Lineup:
    """Return a chain's inside; each authenticator is called after its place."""
    links = tuple(link(each, f"{each.name}-{place}") for place, each in enumerate(authenticators, 1))
    return Lineup(links, **parts)


def make_context(folder: Path, build: Callable[[Mapping[str, Any]], Authenticator] | None = None) -> AuthContext:
    """Return what authenticators are made with, in an empty home."""
    paths = find_paths({"KC_HOME": str(folder)})
    paths.config.mkdir(parents=True, exist_ok=True)

    def refuse(_: Mapping[str, Any]) -> Authenticator:
        raise AssertionError("nothing to build with")

    return AuthContext(paths, open_store(f"tinydb:{paths.store_file}"), MasterKey(paths.data / "key"), build or refuse)


# --- an HTTP server that decides


@dataclass
class AuthServer:
    """What a server of a test's own answers: `answer` takes the request's headers and gives status and headers."""

    answer: Callable[[Mapping[str, str]], tuple[int, dict[str, str]]]
    body: bytes = b""
    seen: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve_auth(server: AuthServer) -> Iterator[AuthServer]:
    """Run a server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = dict(self.headers.items())
            server.seen.append(headers)
            status, fields = server.answer(headers)
            self.send_response(status)
            for key, value in fields.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...  # a client that closes early is no news

    listening = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_port}/check"
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
