"""An HTTP server as KC's authenticator: a real nginx that knows nothing of KC, and servers that behave badly."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.authenticating import ticking
from support.authenticators import (
    REQUEST,
    AuthServer,
    basic,
    bearer,
    line_up,
    make_context,
    serve_auth,
)
from support.ldap_server import full_backlog, tarpit
from support.nginx import run_nginx
from support.ssh_daemon import free_port

from backend.auth.chain import Chain
from backend.auth.forward import MAXIMUM_ANSWER, Forward
from backend.auth.protocol import Client, Decision, Resource, Scope
from backend.errors import RefusedError

PASSWORD = "correct horse"
LONGEST_STALL = 0.1


def forward(folder: Path, url: str, **settings: Any) -> Forward:
    return Forward(make_context(folder / "home"), {"type": "forward", "url": url, **settings})


def answering(status: int, **headers: str) -> AuthServer:
    fields = {key.replace("_", "-"): value for key, value in headers.items()}
    return AuthServer(lambda _: (status, fields))


async def ask(folder: Path, server: AuthServer, request: Any = None, **settings: Any) -> Decision:
    with serve_auth(server):
        authenticator = forward(folder, server.url, **settings)
        try:
            return await authenticator.decide(request or basic("alice", PASSWORD))
        finally:
            await authenticator.close()


# --- nginx


class Nginx(NamedTuple):
    url: str
    log: Path

    def count(self) -> int:
        """Return how many requests it has answered."""
        return len(self.log.read_text().splitlines())


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "check").write_text("ok\n")
    subprocess.run(["htpasswd", "-bcm", tmp_path / "users", "alice", PASSWORD], check=True, capture_output=True)
    server = (
        f'root {tmp_path}/www; auth_basic "staff"; auth_basic_user_file {tmp_path}/users;\n'
        f"location = /check {{ expires 2s; }} location = /broken {{ return 500; }}"
    )
    with run_nginx(tmp_path / "nginx", server) as port:
        yield Nginx(f"http://127.0.0.1:{port}", tmp_path / "nginx" / "access.log")


@contextmanager
def chain_to(folder: Path, url: str, **settings: Any) -> Iterator[tuple[Chain, Forward]]:
    authenticator = forward(folder, url, subject="basic", **settings)
    yield Chain(line_up(authenticator), failure_seconds=0), authenticator


async def test_an_nginx_that_knows_nothing_of_kc_decides(nginx: Nginx, tmp_path: Path) -> None:
    with chain_to(tmp_path, f"{nginx.url}/check") as (chain, authenticator):
        good = await chain.decide(basic("alice", PASSWORD))
        assert (good.outcome, good.subject, good.scopes) == ("allow", "alice", ())
        assert 0 < good.ttl <= 2
        wrong = await chain.decide(basic("alice", "battery staple"))
        assert (wrong.status, wrong.challenges[-1]) == (401, 'Basic realm="staff"')
        assert (await chain.decide(basic("mallory", PASSWORD))).status == 401
        assert await authenticator.check_health() == ""
        await chain.close()


async def test_its_answer_is_kept_for_max_age_and_no_longer(nginx: Nginx, tmp_path: Path) -> None:
    with chain_to(tmp_path, f"{nginx.url}/check") as (chain, _):
        before, began = nginx.count(), time.monotonic()
        for _ in range(5):
            assert (await chain.decide(basic("alice", PASSWORD))).allowed
        assert nginx.count() - before == 1
        # Another question, and a wrong password, are asked each time.
        assert (await chain.decide(basic("alice", PASSWORD, action="vm.start"))).allowed
        for _ in range(2):
            assert not (await chain.decide(basic("alice", "x"))).allowed
        assert nginx.count() - before == 4
        await asyncio.sleep(began + 2.1 - time.monotonic())
        assert (await chain.decide(basic("alice", PASSWORD))).allowed
        assert nginx.count() - before == 5
        await chain.close()


async def test_a_broken_server_and_a_dead_port_let_nobody_in(nginx: Nginx, tmp_path: Path) -> None:
    for url in (f"{nginx.url}/broken", f"http://127.0.0.1:{free_port()}/check"):
        with chain_to(tmp_path, url) as (chain, _):
            decision = await chain.decide(basic("alice", PASSWORD))
            assert (decision.outcome, decision.status) == ("error", 503)
            assert decision.retry_after >= 1
            await chain.close()


# --- black holes


@pytest.mark.parametrize("hole", [tarpit, full_backlog], ids=["silent", "full"])
async def test_a_black_hole_costs_its_own_requests_their_time_and_nobody_else(hole: Any, tmp_path: Path) -> None:
    with hole() as port, chain_to(tmp_path, f"http://127.0.0.1:{port}/check") as (chain, _):
        # What is loaded once is not what is measured.
        await forward(tmp_path, f"http://127.0.0.1:{free_port()}/", timeout=0.1).check_health()
        stalls = []
        # A machine that is busy stalls a loop now and then; what KC does itself it does each time.
        while len(stalls) < 3 and min(stalls, default=1.0) >= LONGEST_STALL:
            began = time.monotonic()
            async with ticking() as ticker:
                decisions = await asyncio.gather(*(chain.decide(basic(f"user{n}", "x")) for n in range(8)))
            stalls.append(ticker.longest)
            assert [decision.status for decision in decisions] == [503] * 8
            assert 1.5 < time.monotonic() - began < 3
        assert min(stalls) < LONGEST_STALL
        await chain.close()


# --- what it is sent

EXPECTED = {
    "Host", "Authorization", "X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Uri",
    "X-Forwarded-For", "X-Original-Method", "X-Original-URI", "X-Original-URL", "X-KC-Action", "X-KC-Resource",
    "X-KC-Resource-Uid", "X-Request-Id",
}  # fmt: skip


async def test_its_headers_are_made_from_nothing(tmp_path: Path) -> None:
    server = answering(200, Remote_User="alice")
    request = basic(
        "alice", PASSWORD, action="vm.start", method="POST", path="/v1/vms/wëb%2f..", query="a=b&c",
        client=Client("tls", "192.0.2.7"), resource=Resource("vm", "web 1", "u-1", {"tenant": "acme"}),
    )  # fmt: skip
    assert (await ask(tmp_path, server, request)).allowed
    (seen,) = server.seen
    assert set(seen) == EXPECTED
    assert seen["Authorization"] == request.credential.decode()
    assert seen["X-Forwarded-Uri"] == seen["X-Original-URI"] == "/v1/vms/w%C3%ABb%2f..?a=b&c"
    assert seen["X-Original-URL"] == "https://kc.test:8470/v1/vms/w%C3%ABb%2f..?a=b&c"
    assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-For"], seen["X-Forwarded-Method"]) == (
        "https",
        "192.0.2.7",
        "POST",
    )
    assert (seen["X-KC-Action"], seen["X-KC-Resource"], seen["X-KC-Resource-Uid"]) == ("vm.start", "vm/web%201", "u-1")


HOSTILE = "x\r\nRemote-User: root\r\nX-KC-Action: auth.check"


@pytest.mark.parametrize("field", ["path", "query", "host", "method", "request_id"])
async def test_nothing_of_a_request_becomes_a_header_of_its_own(tmp_path: Path, field: str) -> None:
    server = answering(200, Remote_User="alice")
    assert (await ask(tmp_path, server, replace(basic("alice", PASSWORD), **{field: HOSTILE}))).allowed
    (seen,) = server.seen
    assert set(seen) <= EXPECTED
    assert seen["X-KC-Action"] == "vm.read"


async def test_names_and_addresses_cannot_either(tmp_path: Path) -> None:
    server = answering(200, Remote_User="alice")
    request = basic("alice", PASSWORD, client=Client("tcp", HOSTILE), resource=Resource("vm", HOSTILE, HOSTILE))
    assert (await ask(tmp_path, server, request)).allowed
    assert set(server.seen[0]) <= EXPECTED


async def test_one_users_cookie_is_never_sent_with_anothers_credential(tmp_path: Path) -> None:
    server = answering(200, Remote_User="alice", Set_Cookie="session=alice; Path=/")
    with serve_auth(server):
        authenticator = forward(tmp_path, server.url)
        for user in ("alice", "bob"):
            await authenticator.decide(basic(user, PASSWORD))
        await authenticator.close()
    assert [headers.get("Cookie") for headers in server.seen] == [None, None]


@pytest.mark.parametrize(
    "request_",
    [bearer("kcg_x"), bearer("kct_x"), bearer("kcs_x"), basic("token", "kcg_x"), basic("kcs_x", "y"),
     replace(REQUEST, credential=b"kct_x"), replace(REQUEST, credential=b"Negotiate YWJj"), REQUEST],
    ids=["god", "limited", "session", "as password", "as user", "bare", "another scheme", "none"],
)  # fmt: skip
def test_what_is_not_its_own_is_never_shown_to_it(tmp_path: Path, request_: Any) -> None:
    assert not forward(tmp_path, "http://127.0.0.1/check").accepts(request_)
    assert forward(tmp_path, "http://127.0.0.1/check").accepts(bearer("eyJ"))


def test_claims_name_the_schemes(tmp_path: Path) -> None:
    authenticator = forward(tmp_path, "http://127.0.0.1/check", claims=["Bearer"])
    assert authenticator.accepts(bearer("eyJ"))
    assert not authenticator.accepts(basic("alice", PASSWORD))
    assert authenticator.challenges == ('Bearer realm="KC"',)


# --- what its answer means


@pytest.mark.parametrize(
    ("status", "headers", "outcome", "said"),
    [
        (204, {"Remote_User": "alice"}, "allow", ""),
        (200, {"X_Auth_Request_User": "alice"}, "allow", ""),
        (200, {}, "error", "does not say who"),
        (401, {}, "challenge", "not accepted"),
        (403, {"Remote_User": "alice"}, "deny", "not allowed"),
        (302, {"Location": "https://login.test/?a=b"}, "deny", "log in at https://login.test/?a=b first"),
        (302, {"Location": "javascript:alert(1)"}, "deny", "log in first"),
        (429, {"Retry_After": "7"}, "deny", "too many"),
        (400, {"Remote_User": "alice"}, "error", "answered 400"),
        (500, {"Remote_User": "alice"}, "error", "answered 500"),
        (503, {}, "error", "answered 503"),
    ],
)
async def test_the_status_decides(
    tmp_path: Path, status: int, headers: dict[str, str], outcome: str, said: str
) -> None:
    decision = await ask(tmp_path, answering(status, **headers))
    assert decision.outcome == outcome
    assert said in f"{decision.reason} {decision.detail}"
    assert decision.scopes is None
    if status == 429:
        assert (decision.status, decision.retry_after) == (429, 7)


async def test_who_it_is_says_the_server_and_the_credential_only_where_that_is_configured(tmp_path: Path) -> None:
    assert (await ask(tmp_path, answering(200), subject="basic")).subject == "alice"
    told = answering(200, Remote_User="a.smith", Remote_Groups="staff, ops,,staff")
    decision = await ask(tmp_path, told, subject="basic")
    assert (decision.subject, decision.groups) == ("a.smith", ("staff", "ops"))
    own = answering(200, X_Login="bob", X_Teams="a", Remote_User="root", Remote_Groups="wheel")
    decision = await ask(tmp_path, own, subjectHeaders=["X-Login"], groupsHeaders=["X-Teams"])
    assert (decision.subject, decision.groups) == ("bob", ("a",))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("max-age=5", 5), ("private, max-age=30", 30), ("max-age=86400", 60), ("no-store, max-age=5", 0),
     ("max-age=-1", 0), ("max-age=x", 0), ("", 0), ("max-age=" + "9" * 5000, 0)],
    ids=["plain", "among others", "long", "no-store", "negative", "text", "none", "endless"],
)  # fmt: skip
async def test_how_long_it_holds_says_max_age(tmp_path: Path, value: str, seconds: float) -> None:
    assert (await ask(tmp_path, answering(200, Remote_User="a", Cache_Control=value))).ttl == seconds


SCOPES = '[{"actions": ["vm.read"], "selector": "tenant=acme"}]'


async def test_scopes_are_believed_where_their_header_is_configured_alone(tmp_path: Path) -> None:
    server = answering(200, Remote_User="alice", X_KC_Scopes=SCOPES)
    assert (await ask(tmp_path, server)).scopes is None
    assert (await ask(tmp_path, server, scopesHeader="X-KC-Scopes")).scopes == (Scope(("vm.read",), "tenant=acme"),)
    assert (await ask(tmp_path, answering(200, Remote_User="alice"), scopesHeader="X-KC-Scopes")).scopes == ()


@pytest.mark.parametrize("value", ["x", "3", "{}", '["*"]', '[{"actions": "*"}]', '[{"actions": [1]}]', "null", '"*"'])
async def test_scopes_of_another_form_are_an_error(tmp_path: Path, value: str) -> None:
    server = answering(200, Remote_User="alice", X_KC_Scopes=value)
    decision = await ask(tmp_path, server, scopesHeader="X-KC-Scopes")
    assert decision.outcome == "error" or decision.scopes == ()
    assert decision.scopes in (None, ())


async def test_an_answer_beyond_its_measure_is_none(tmp_path: Path) -> None:
    server = answering(200, Remote_User="alice")
    server.body = b"x" * MAXIMUM_ANSWER
    assert (await ask(tmp_path, server)).allowed
    server.body += b"x"
    decision = await ask(tmp_path, server)
    assert (decision.outcome, "longer than" in decision.detail) == ("error", True)


async def test_a_unix_socket_is_a_place_too(tmp_path: Path) -> None:
    path = tmp_path / "auth.sock"
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nRemote-User: alice\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    authenticator = forward(tmp_path, f"http://unix:{path}:/check")
    assert (await authenticator.decide(basic("alice", PASSWORD))).subject == "alice"
    assert seen[0].startswith(b"GET /check HTTP/1.1\r\nHost: localhost\r\n")
    await authenticator.close()
    server.close()
    await server.wait_closed()


# --- secrets and settings


async def test_no_log_has_a_credential(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for status in (200, 401, 500):
        await ask(tmp_path, answering(status, Remote_User="alice"))
    assert "correct horse" not in caplog.text
    assert basic("alice", PASSWORD).parameters.decode() not in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": ""}, "url is missing"),
        ({"url": "ftp://127.0.0.1/"}, "url is missing"),
        ({"url": "http://[::1"}, "url is no URL"),
        ({"url": "http://127.0.0.1:99999/"}, "url is no URL"),
        ({"url": "http://alice:x@127.0.0.1/"}, "no plain URL"),
        ({"url": "http://auth.example/check"}, "in the clear"),
        ({"url": "https://auth.example/check", "ca": "missing.pem"}, "ca cannot be read"),
        ({"header": "a b"}, "header is no name"),
        ({"subject": "x"}, "subject is none of them"),
        ({"cache": "for ever"}, "cache is none"),
        ({"uri": "x"}, "uri is no setting"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: Mapping[str, Any], said: str) -> None:
    with pytest.raises(RefusedError) as error:
        forward(tmp_path, **{"url": "http://localhost/check", **settings})
    assert said in str(error.value)


async def test_what_is_configured_openly_is_taken(tmp_path: Path) -> None:
    authenticator = forward(tmp_path, "http://auth.example/check", insecure=True)
    assert authenticator.cache_scope == "request"
    await authenticator.close()
