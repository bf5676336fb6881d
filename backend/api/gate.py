"""From a request's head to a question for the authenticators: where it comes from, and what of that is believed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from backend.api.problems import HttpError
from backend.auth.protocol import Client, Peer
from backend.auth.proxies import client_address, parse_proxies
from backend.errors import DeniedError, UsageError
from backend.text import sanitise

if TYPE_CHECKING:
    from starlette.types import Scope

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,100}")
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_ONCE = (b"host", b"origin", b"content-type", b"content-length", b"if-match", b"if-none-match", b"idempotency-key")
_MAXIMUM_CREDENTIAL = 16 << 10
_LONGEST_QUESTION = 4096
# An id joins what belongs together; it need not be hard to guess.
_PROCESS = secrets.token_hex(5)
_NUMBERS = count(1)
_FORWARDING = frozenset(
    {b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip", b"x-forwarded-uri", b"x-original-uri", b"x-original-url"}
)
CHECK_PATH = "/v1/auth/check"


class Options(NamedTuple):
    """How the application is to behave.

    `header` has the credential; `trusted_proxies` are networks whose X-Forwarded-For and X-Request-Id are believed
    (`unix`: whoever speaks over a unix socket). `forwarded` is `nginx`, `traefik` or empty: which proxies ask at
    /v1/auth/check. `hosts` are names that a request may be for, beside those of loopback. `concurrency` requests and
    `streams` are served at once, half of the streams to one subject at most, while `undecided` ones wait to be let in;
    `threads` calls are made at once; a request has `seconds`.
    """

    header: str = "authorization"
    trusted_proxies: tuple[str, ...] = ()
    forwarded: str = ""
    hosts: tuple[str, ...] = ()
    open_metrics: bool = False
    undecided: int = 1000
    concurrency: int = 200
    streams: int = 1000
    threads: int = 32
    seconds: float = 60.0


class Head(NamedTuple):
    """What the gate read of a request; of a proxy's question, what the proxy itself was asked for."""

    credential: bytes
    method: str
    path: str
    host: str

    def __repr__(self) -> str:
        """Say what was asked for, and nothing that is secret."""
        return f"Head({self.method!r}, {self.path!r})"


class Caller(NamedTuple):
    """Where a request comes from, under which id; `trusted`: by way of a proxy that is believed."""

    client: Client
    request_id: str
    trusted: bool


class Gate:
    """Reads heads of requests."""

    def __init__(self, options: Options) -> None:
        """Raise RefusedError for a proxy that is no address."""
        self._header = options.header.lower().encode("latin-1")
        self._trusted = options.trusted_proxies
        self._proxies = parse_proxies(options.trusted_proxies)
        self._forwarded = options.forwarded
        self._hosts = frozenset(name.lower() for name in options.hosts)

    def identify(self, scope: Scope) -> Caller:
        """Return who asks, and the id: the one that a trusted proxy gave, where it is a plain word, or a new one."""
        client, trusted = self._find_client(scope)
        return Caller(client, _find_request_id(dict(scope["headers"]), trusted=trusted), trusted)

    def read(self, scope: Scope, caller: Caller) -> Head:
        """Return what a head says; raise HttpError, UsageError, DeniedError for one that is not to be served."""
        headers = self._collect(scope["headers"])
        credential = headers.get(self._header, b"")
        if len(credential) > _MAXIMUM_CREDENTIAL:
            raise HttpError(431, "credential", "it is too long", "no credential of KC's is that long")
        if caller.trusted and self._forwarded and scope["path"] == CHECK_PATH:
            # It is of another site that the proxy asks, in that site's name.
            return self._read_question(headers, credential)
        host = self._check_host(scope, headers, caller.client)
        _check_origin(headers, host)
        return Head(credential, scope.get("method", "GET"), scope.get("raw_path", b"").decode("latin-1"), host)

    def _read_question(self, headers: Mapping[bytes, bytes], credential: bytes) -> Head:
        """Return what a trusted proxy asks about, by the one convention that is configured."""

        def text(name: bytes) -> str:
            return headers.get(name, b"").decode("latin-1")[:_LONGEST_QUESTION]

        if self._forwarded == "nginx":
            url, target = text(b"x-original-url"), text(b"x-original-uri")
            host, found = _split_url(url) if url else ("", target)
            if target and found != target:
                # A proxy that sets one of them passes on what the client makes of the other.
                why = "X-Original-URL and X-Original-URI tell of two"
                raise UsageError("request", why, "have the proxy set one, and clear the other")
            return Head(credential, text(b"x-original-method"), found.partition("?")[0], host or text(b"host"))
        path = text(b"x-forwarded-uri").partition("?")[0]
        return Head(credential, text(b"x-forwarded-method"), path, text(b"x-forwarded-host"))

    def _collect(self, headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        collected = dict(headers)
        if len(collected) < len(headers):
            names = [name for name, _ in headers]
            for name in (self._header, *_ONCE):
                if names.count(name) > 1:
                    # Of two, a proxy in front may have read the one and KC would read the other.
                    raise UsageError("request", f"two {sanitise(name.decode('latin-1'), 40)} headers", "send one")
        return collected

    def _find_client(self, scope: Scope) -> tuple[Client, bool]:
        state: Mapping[str, Any] = scope.get("state", {})
        peer: Peer | None = state.get("peer")
        transport = "unix" if peer is not None else "tls" if scope["scheme"] in ("https", "wss") else "tcp"
        address = "" if transport == "unix" else (scope.get("client") or ("none",))[0]
        if peer is not None and any(name in _FORWARDING for name, _ in scope["headers"]):
            peer = None  # whoever speaks for others is not whom the kernel names
        if not self._proxies.has(address):
            return Client(transport, address, peer, state.get("tls_fingerprint", "")), False
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if not forwarded:
            return Client(transport, address, peer, state.get("tls_fingerprint", "")), True
        # Whom a proxy speaks for has neither its uid nor its certificate.
        return Client(
            "tcp" if transport == "unix" else transport, client_address(address, forwarded, self._trusted)
        ), True

    def _check_host(self, scope: Scope, headers: Mapping[bytes, bytes], client: Client) -> str:
        """Return the host; raise HttpError where it is not KC's.

        A page whose name was made to point at this machine (DNS rebinding) would otherwise read what it likes here.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        name = _strip_port(host).lower()
        if client.transport == "unix" or name in self._hosts:
            return host
        server = (scope.get("server") or ("",))[0]
        is_local = server.startswith("127.") or server == "::1"
        if (name in _LOCAL_NAMES or name.strip("[]") == server) if is_local else not self._hosts:
            return host
        raise HttpError(421, "request", f"it is for host {sanitise(host, 80)!r}", "kc serve --host NAME takes it")


def _split_url(url: str) -> tuple[str, str]:
    """Return the host of an absolute URL, and what is asked for there, as it stands: `//a` is a path, too."""
    host, slash, rest = url.partition("://")[2].partition("/")
    return host, slash + rest


def _check_origin(headers: Mapping[bytes, bytes], host: str) -> None:
    """Raise DeniedError for what another site's page made a browser send."""
    site = headers.get(b"sec-fetch-site", b"none")
    origin = headers.get(b"origin")
    is_foreign = origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host.lower()
    if site not in (b"none", b"same-origin") or is_foreign:
        raise DeniedError("request", "another site's page sent it", "KC serves no pages of others")


def _find_request_id(headers: Mapping[bytes, bytes], *, trusted: bool) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1") if trusted else ""
    return given if _REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):06x}"


def _strip_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
