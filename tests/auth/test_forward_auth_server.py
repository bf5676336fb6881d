"""KC as what reverse proxies ask: a real nginx and a real Caddy, unchanged, protect something else with it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from support.api_server import ApiServer, bearer, running_server
from support.caddy import run_caddy
from support.nginx import run_nginx

from backend.auth.protocol import AuthRequest

SUBJECT = "token:acme"
CONFIG = '[auth]\ntrustedProxies = ["127.0.0.2", "unix"]\n[serve]\nforwarded = "{}"\n'
"""A proxy that is believed comes from 127.0.0.2, or over the unix socket; all else comes from 127.0.0.1."""


# --- what is protected


@dataclass
class Site:
    """Something else than KC, which believes what is in front of it; `seen` are the heads of requests."""

    seen: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve_site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.seen.append((self.path, [(key.lower(), value) for key, value in self.headers.items()]))
            site.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        site.url = f"127.0.0.1:{listening.server_port}"
        yield site
        listening.shutdown()
        thread.join()


NGINX_SITE = """
location / {{ auth_request /_kc; {passed} }}
location /start/ {{ auth_request /_start; {passed} }}
location /pause/ {{ auth_request /_pause; {passed} }}
location = /_kc {{ proxy_pass http://{kc}/v1/auth/check; {asking} }}
location = /_start {{ proxy_pass http://{kc}/v1/auth/check?action=vm.start&kind=vm&name=ours; {asking} }}
location = /_pause {{ proxy_pass http://{kc}/v1/auth/check?action=vm.pause&kind=vm&name=ours; {asking} }}
"""
NGINX_PASSED = """
auth_request_set $kc_user $upstream_http_remote_user; auth_request_set $kc_groups $upstream_http_remote_groups;
proxy_set_header Remote-User $kc_user; proxy_set_header Remote-Groups $kc_groups; proxy_set_header Authorization "";
proxy_pass http://{site};
"""
NGINX_ASKING = """
internal; proxy_bind 127.0.0.2; proxy_pass_request_body off; proxy_set_header Content-Length "";
proxy_set_header Host $http_host;
proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Original-Method $request_method;
proxy_set_header X-Forwarded-For $remote_addr;
"""
CADDY_SITE = """
route {{
    request_header -Remote*
    @start path /start/*
    forward_auth @start unix/{socket} {{
        uri /v1/auth/check?action=vm.start&kind=vm&name=ours
        copy_headers Remote-User Remote-Groups
    }}
    @pause path /pause/*
    forward_auth @pause unix/{socket} {{
        uri /v1/auth/check?action=vm.pause&kind=vm&name=ours
        copy_headers Remote-User Remote-Groups
    }}
    @other not path /start/* /pause/*
    forward_auth @other unix/{socket} {{
        uri /v1/auth/check?
        copy_headers Remote-User Remote-Groups
    }}
    request_header -Authorization
    reverse_proxy {site}
}}
"""


class Guarded(NamedTuple):
    """A site behind a proxy that asks KC; `asked` is what KC's authenticators were asked."""

    url: str
    proxy: str
    kc: ApiServer
    site: Site
    asked: list[AuthRequest]


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, proxy = tmp_path_factory.mktemp("guarded"), str(request.param)
    config = CONFIG.format({"nginx": "nginx", "caddy": "traefik"}[proxy])
    with running_server(folder / "kc", config=config) as kc, serve_site() as site:
        kc.make_vm("ours", tenant="acme")
        asked: list[AuthRequest] = []
        chain: Any = kc.server.application.server.chain
        decide = chain.decide

        async def listen(question: AuthRequest) -> Any:
            asked.append(question)
            return await decide(question)

        chain.decide = listen
        if proxy == "nginx":
            address = kc.url.removeprefix("http://")
            passed = NGINX_PASSED.format(site=site.url)
            lines = NGINX_SITE.format(kc=address, passed=passed, asking=NGINX_ASKING)
            running = run_nginx(folder / "proxy", lines)
        else:
            running = run_caddy(folder / "proxy", CADDY_SITE.format(socket=kc.socket, site=site.url))
        with running as port:
            yield Guarded(f"http://127.0.0.1:{port}", proxy, kc, site, asked)


def ask(guarded: Guarded, path: str, token: str = "", method: str = "GET", **options: Any) -> httpx.Response:
    """Ask the proxy for something of the site, as a client at an address that nobody trusts."""
    headers = {**(bearer(token) if token else {}), **options.pop("headers", {})}
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(transport=transport, base_url=guarded.url, timeout=20) as client:
        return client.request(method, path, headers=headers, **options)


def identities(guarded: Guarded) -> list[tuple[str, str]]:
    """Return what the last request to the site says of who it is, by any spelling that a server may read as another."""
    found = [(re.sub(r"[^a-z]", "-", key), value) for key, value in guarded.site.seen[-1][1]]
    return [(key, value) for key, value in found if key.startswith("remote") and value]


def test_a_token_opens_what_is_protected_and_says_whose_it_is(guarded: Guarded) -> None:
    assert ask(guarded, "/cart?color=red&action=vm.pause", guarded.kc.acme).status_code == 200
    path, headers = guarded.site.seen[-1]
    assert path == "/cart?color=red&action=vm.pause"
    assert identities(guarded) == [("remote-user", SUBJECT)]
    assert guarded.kc.acme not in str(headers)
    question = guarded.asked[-1]
    assert (question.method, question.path, question.host) == ("GET", "/cart", guarded.url.removeprefix("http://"))
    assert question.client.address == "127.0.0.9"


def test_a_body_goes_to_the_site_and_not_to_whoever_decides(guarded: Guarded) -> None:
    body = b"x" * 300_000
    assert ask(guarded, "/cart", guarded.kc.acme, "POST", content=body).status_code == 200
    assert guarded.site.bodies[-1] == body
    assert guarded.asked[-1].method == "POST"


def test_without_a_credential_the_answer_says_what_is_asked_for(guarded: Guarded) -> None:
    before = len(guarded.site.seen)
    for token in ("", "kcg_" + "A" * 49):
        answer = ask(guarded, "/cart", token)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(guarded.site.seen) == before


def test_an_action_that_the_proxy_asks_for_is_what_decides(guarded: Guarded) -> None:
    acme, god = guarded.kc.acme, guarded.kc.god
    assert ask(guarded, "/start/now", acme).status_code == 200
    before = len(guarded.site.seen)
    for query in ("", "?action=vm.start", "?action=vm.start&kind=vm&name=ours", "?x#", "?%26action=vm.start"):
        assert ask(guarded, f"/pause/now{query}", acme).status_code == 403, query
    assert len(guarded.site.seen) == before
    assert ask(guarded, "/pause/now?action=nonsense", god).status_code == 200
    assert ask(guarded, "/pause/now").status_code == 401


SPOOFED = [
    "Remote-User: root", "Remote_User: root", "Remote.User: root", "Remote-Groups: admins", "Remote_Groups: admins",
    "X-Original-URI: /healthz", "X-Original-Method: OPTIONS", "X_Original_URI: /healthz", "X-Forwarded-Uri: /healthz",
    "X-Forwarded-Method: OPTIONS", "X-Forwarded-For: 127.0.0.2", "X-Real-IP: 127.0.0.2", "Forwarded: for=127.0.0.2",
    "X-Forwarded-User: root", "Origin: https://evil.example", "X-Forwarded-Host: evil.example",
    "X-Request-Id: mine",
]  # fmt: skip


@pytest.mark.parametrize("header", SPOOFED)
def test_what_a_client_says_of_itself_changes_nothing(guarded: Guarded, header: str) -> None:
    headers = dict([header.split(": ", 1)])
    assert ask(guarded, "/cart", headers=headers).status_code == 401
    assert ask(guarded, "/pause/x", guarded.kc.acme, headers=headers).status_code == 403
    assert ask(guarded, "/cart", guarded.kc.acme, headers=headers).status_code == 200
    assert identities(guarded) == [("remote-user", SUBJECT)]
    question = guarded.asked[-1]
    assert (question.method, question.path, question.host) == ("GET", "/cart", guarded.url.removeprefix("http://"))
    assert question.client.address == "127.0.0.9"


@pytest.mark.parametrize("target", ["//shop/healthz", "//[/x", "/a%2f..%2fb", "/;x", "/cart/../start/x"])
def test_a_target_stays_what_was_sent(guarded: Guarded, target: str) -> None:
    line = HTTPConnection(guarded.url.removeprefix("http://"), timeout=20)
    line.request("GET", f"{target}?a=/b", headers=dict(bearer(guarded.kc.acme)))
    status = line.getresponse().status
    line.close()
    assert status == 200
    assert (guarded.asked[-1].path, guarded.asked[-1].host) == (target, guarded.url.removeprefix("http://"))


def test_an_upgrade_is_the_sites_own_affair(guarded: Guarded) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert ask(guarded, "/cart", headers=headers).status_code == 401
    assert ask(guarded, "/pause/now", guarded.kc.acme, headers=headers).status_code == 403
    assert ask(guarded, "/cart", guarded.kc.acme, headers=headers).status_code == 200


def test_what_asks_two_things_at_once_is_not_let_through(guarded: Guarded) -> None:
    before = len(guarded.site.seen)
    answer = ask(guarded, "/cart", guarded.kc.acme, headers={"X-Original-URL": "https://shop.example/healthz"})
    if guarded.proxy == "nginx":
        # The proxy sets X-Original-URI alone: of the two, KC cannot know which one is its own.
        assert answer.status_code == 500
        assert len(guarded.site.seen) == before
    else:
        assert answer.status_code == 200
        assert guarded.asked[-1].path == "/cart"


def test_a_proxy_on_the_socket_is_not_taken_for_those_it_speaks_for(guarded: Guarded, tmp_path: Path) -> None:
    lines = NGINX_SITE.format(
        kc=f"unix:{guarded.kc.socket}:", passed=NGINX_PASSED.format(site=guarded.site.url),
        asking=NGINX_ASKING.replace("proxy_bind 127.0.0.2;", "").replace("X-Forwarded-For $remote_addr", 'X-None ""'),
    )  # fmt: skip
    with run_nginx(tmp_path / "proxy", lines) as port:
        there = guarded._replace(url=f"http://127.0.0.1:{port}")
        # The kernel says that it is this very user who asks; it asks for others.
        assert ask(there, "/cart").status_code == 401
        assert ask(there, "/cart", guarded.kc.acme).status_code == 200
