"""Who is let in to what: before a byte of the body, by the operation and never by the spelling of a path."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.api_server import ApiServer, running_server

from backend.api.table import ROWS
from backend.api.table_whole import OWN_ACTIONS
from backend.model.actions import list_actions

CONFIG = """
[auth]
trustedProxies = ["127.0.0.2"]

[serve]
forwarded = "nginx"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home: Path = tmp_path_factory.mktemp("access")
    with running_server(home, config=CONFIG) as running:
        running.make_vm("ours", tenant="acme")
        running.make_vm("theirs", tenant="other")
        yield running


def raw(server: ApiServer, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Return the first answer to bytes as they are."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10, source_address=(source, 0)) as line:
        line.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = line.recv(65536)
            if not chunk:
                break
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (int(part.split(b":")[1]) for part in head.split(b"\r\n") if part.startswith(b"content-length")), 0
        )
        while len(body) < length and (chunk := line.recv(65536)):
            body += chunk
    return head + b"\r\n\r\n" + body


def ask(
    server: ApiServer, target: str, *headers: str, token: str = "", method: str = "GET", source: str = "127.0.0.1"
) -> int:
    """Return the status of a request whose target and headers are sent as they are."""
    own = (
        [f"Host: {server.url.removeprefix('http://')}"]
        if not any(h.lower().startswith("host:") for h in headers)
        else []
    )
    if token:
        own.append(f"Authorization: Bearer {token}")
    lines = [f"{method} {target} HTTP/1.1", *own, *headers, "Connection: close", "", ""]
    return int(raw(server, "\r\n".join(lines).encode("latin-1"), source).split(b" ", 2)[1])


# --- the table


def test_every_operation_has_an_action() -> None:
    known = {*list_actions(), *OWN_ACTIONS}
    assert {row.operation_id for row in ROWS if row.action not in known} == {"healthz", "openapi"}
    assert {row.operation_id for row in ROWS if row.public} == {"healthz", "openapi"}


def test_every_operation_has_a_handler_and_a_name_of_its_own() -> None:
    assert all(callable(row.function) for row in ROWS)
    assert len({row.operation_id for row in ROWS}) == len(ROWS)


def test_without_a_credential_no_operation_answers(server: ApiServer) -> None:
    with server.client("") as nobody:
        found = {
            row.operation_id: nobody.request(
                row.method, row.path.replace("{name}", "ours").replace("{kind}", "vm")
            ).status_code
            for row in ROWS
            if not (row.public or row.socket)
        }
    assert set(found.values()) == {401}, found


def test_a_refusal_says_what_is_asked_for(server: ApiServer) -> None:
    with server.client("") as nobody:
        answer = nobody.get("/v1/vms")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert nobody.get("/healthz").json() == {"status": "ok"}
        assert nobody.get("/openapi.json").status_code == 200
        assert nobody.get("/metrics").status_code == 401
    with server.client("kcg_" + "A" * 49) as wrong:
        assert wrong.get("/v1/vms").status_code == 401


# --- tenants


def test_what_is_another_tenants_is_not_there(server: ApiServer) -> None:
    with server.client(server.acme) as acme:
        for method, path, body in (
            ("GET", "", None), ("GET", "/versions", None), ("DELETE", "", None), ("PATCH", "", {"metadata": {}}),
            ("POST", "/undo", {}), ("POST", "/rollback", {"version": 1}), ("POST", "/actions/start", {}),
            ("POST", "/actions/clone", {"name": "x"}), ("GET", "/console-log", None), ("GET", "/wait?timeout=1", None),
        ):  # fmt: skip
            theirs = acme.request(method, f"/v1/vms/theirs{path}", json=body)
            nothing = acme.request(method, f"/v1/vms/absent{path}", json=body)
            assert (theirs.status_code, nothing.status_code) in ((404, 404), (403, 403)), (method, path)
            said, known = theirs.json(), nothing.json()
            said.pop("requestId", None)
            known.pop("requestId", None)
            assert json.dumps(said).replace("theirs", "absent") == json.dumps(known), (method, path)
        assert acme.post("/v1/vms/ours/actions/pause", json={}).status_code == 403
        assert acme.get("/v1/doctor").status_code == 403
        assert acme.get("/v1/export").status_code == 403


# --- before the body


def test_nothing_is_uploaded_by_whom_nobody_knows(server: ApiServer) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = (
        f"POST /v1/vms HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: 50000000\r\nExpect: 100-continue\r\n\r\n"
    ).encode()
    answer = raw(server, head)
    assert answer.startswith(b"HTTP/1.1 401"), answer
    known = head.replace(b"\r\nExpect", f"\r\nAuthorization: Bearer {server.god}\r\nExpect".encode())
    assert raw(server, known).startswith(b"HTTP/1.1 413")
    small = known.replace(b"50000000", b"20")
    assert raw(server, small).startswith(b"HTTP/1.1 100")


# --- paths


@pytest.mark.parametrize(
    "target",
    [
        "//v1/vms", "/v1//vms", "/v1/vms/", "/v1/./vms", "/v1/../v1/vms", "/v1/%2e/vms", "/v1/%2e%2e/v1/vms",
        "/v1%2fvms",
        "/v1/vms;x", "/v1/vms/ours/..", "/v1/vms/ours/%2e%2e", "/v1/vms/%2e", "/V1/vms", "/v1/vms%00", "/v1/vms.json",
        "/v1/vms/ours%2fversions", "/v1/vms/..%2ftheirs", "/v1/vms/ours;/", "/v1/vms/ours%3fversion=1", "/v1/vms/ours.",
    ],
)  # fmt: skip
def test_no_spelling_reaches_another_operation(server: ApiServer, target: str) -> None:
    assert ask(server, target, token=server.god) == 404


@pytest.mark.parametrize("target", ["/v1/vms/%zz", "/v1/vms/%ff", "/v1/vms/%", "/v1/vms/ours%2"])
def test_a_path_that_is_no_text_is_refused(server: ApiServer, target: str) -> None:
    assert ask(server, target, token=server.god) == 400


def test_an_escaped_letter_is_that_letter_for_the_decision_too(server: ApiServer) -> None:
    assert ask(server, "/v1/%76ms/%6furs", token=server.acme) == 200
    assert ask(server, "/v1/vms/%74heirs", token=server.acme) == 404
    assert ask(server, "/v1/vms/ours?x#/v1/vms/theirs", token=server.acme) in (400, 404)


def test_the_method_is_the_one_that_was_sent(server: ApiServer) -> None:
    assert ask(server, "/v1/vms/ours", "X-HTTP-Method-Override: DELETE", token=server.god) == 200
    assert ask(server, "/v1/vms/ours", "X-HTTP-Method: DELETE", token=server.god, method="HEAD") == 200
    assert ask(server, "/v1/vms/ours", token=server.god, method="TRACE") == 405


# --- headers


def test_of_two_credentials_none_is_taken(server: ApiServer) -> None:
    assert ask(server, "/v1/vms", "Authorization: Bearer x", token=server.god) == 400
    assert ask(server, "/v1/vms", "authorization: Bearer x", token=server.god) == 400
    assert ask(server, "/v1/vms", f"Authorization:\t Bearer {server.god}") == 200


@pytest.mark.parametrize(
    "header",
    [
        "Remote-User: root", "Remote_User: root", "Remote.User: root", "X-Remote-User: root", "X-Forwarded-User: root",
        "X-Forwarded-For: 127.0.0.2", "Forwarded: for=127.0.0.2;by=127.0.0.2", "X-Original-URL: /healthz",
        "X-Original-URI: /healthz", "X-Forwarded-Uri: /healthz", "X-Rewrite-URL: /healthz",
        "X-Forwarded-Prefix: /healthz",
        "X-Forwarded-Client-Cert: Hash=1", "X-Auth-Request-User: root",
    ],
)  # fmt: skip
def test_nobody_becomes_somebody_by_a_header(server: ApiServer, header: str) -> None:
    assert ask(server, "/v1/vms", header) == 401
    with server.client(server.acme, headers=dict([header.split(": ", 1)])) as acme:
        assert acme.get("/v1/session").json()["subject"] == acme.get("/v1/session").json()["subject"] != "root"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/vms HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a\r\n b\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer a\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /v1/vms HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/vms HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/vms HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/vms\r\n\r\n",
    ],
    ids=["fold", "space", "nul", "large", "many", "target", "both-lengths", "two-lengths", "coding", "0.9"],
)
def test_a_head_that_two_could_read_differently_is_refused(server: ApiServer, data: bytes) -> None:
    status = raw(server, data.replace(b"Host: h", f"Host: {server.url[7:]}".encode())).split(b" ", 2)[1]
    assert status in (b"400", b"414", b"421", b"431"), status


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8470", "127.0.0.1.evil.example", "a/b?c", "[::2]", ""])
def test_a_name_that_was_pointed_here_is_not_served(server: ApiServer, host: str) -> None:
    assert ask(server, "/v1/vms", f"Host: {host}", token=server.god) in (400, 421)


def test_loopback_has_several_names(server: ApiServer) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80"):
        assert ask(server, "/v1/vms", f"Host: {host}", token=server.god) == 200
    assert ask(server, "/v1/vms", "Host: localhost", "Host: evil.example", token=server.god) == 400


def test_a_page_of_another_site_is_not_served(server: ApiServer) -> None:
    own = server.url
    assert ask(server, "/v1/vms", "Origin: https://evil.example", token=server.god) == 403
    assert ask(server, "/v1/vms", "Origin: null", token=server.god) == 403
    assert ask(server, "/v1/vms", "Sec-Fetch-Site: cross-site", token=server.god) == 403
    assert ask(server, "/v1/vms", "Sec-Fetch-Site: same-site", token=server.god) == 403
    assert ask(server, "/v1/vms", f"Origin: {own}", "Sec-Fetch-Site: same-origin", token=server.god) == 200


def test_only_a_proxy_that_is_trusted_names_the_request(server: ApiServer) -> None:
    head = f"GET /healthz HTTP/1.1\r\nHost: {server.url[7:]}\r\nX-Request-Id: mine-1\r\n\r\n".encode()
    assert b"mine-1" not in raw(server, head)
    assert b"x-request-id: mine-1" in raw(server, head, source="127.0.0.2")
    assert b"a b" not in raw(server, head.replace(b"mine-1", b"a b"), source="127.0.0.2")


def test_the_audit_trail_has_the_address_that_is_believed(server: ApiServer) -> None:
    credential = f"Authorization: Bearer {server.acme}"
    assert ask(server, "/v1/vms", "X-Forwarded-For: 192.0.2.77", credential) == 200
    assert ask(server, "/v1/vms", "X-Forwarded-For: 192.0.2.66, 192.0.2.88", credential, source="127.0.0.2") == 200
    until = time.monotonic() + 10
    with server.client() as god:

        def seen(address: str) -> list[object]:
            return list(god.get("/v1/audit", params={"selector": f"client={address}"}).json()["items"])

        # What was read is written down a little later.
        while not seen("192.0.2.88") and time.monotonic() < until:
            time.sleep(0.05)
        assert seen("192.0.2.88")
        assert not seen("192.0.2.77")
        assert not seen("192.0.2.66")
        text = god.get("/v1/audit?limit=1000").text
    assert server.acme not in text
    assert server.god not in text


# --- a reverse proxy's questions


def test_a_proxy_learns_who_it_is(server: ApiServer) -> None:
    with server.client(server.acme) as acme:
        answer = acme.get("/v1/auth/check")
        assert answer.status_code == 204
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["remote-user"]
        assert acme.get("/v1/auth/check?action=vm.start&kind=vm&name=ours").status_code == 204
        assert acme.get("/v1/auth/check?action=vm.start&kind=vm&name=theirs").status_code == 403
        assert acme.get("/v1/auth/check?action=vm.pause&kind=vm&name=ours").status_code == 403
        assert acme.get("/v1/auth/check?action=vm.start&kind=vm&name=absent").status_code == 403
        assert acme.get("/v1/auth/check?action=nonsense").status_code == 400
    with server.client("") as nobody:
        assert nobody.get("/v1/auth/check").status_code == 401


def test_a_trusted_proxy_asks_in_another_sites_name_and_nobody_else_does(server: ApiServer) -> None:
    site = ("Host: shop.example", "Origin: https://evil.example", "X-Original-URI: /cart", "X-Original-Method: POST")
    assert ask(server, "/v1/auth/check", *site, token=server.acme, source="127.0.0.2") == 204
    assert ask(server, "/v1/auth/check", *site, token=server.acme) == 421
    assert ask(server, "/v1/vms", *site, token=server.acme, source="127.0.0.2") == 421


def test_a_decision_is_explained_to_whom_may_ask(server: ApiServer) -> None:
    body = {"action": "vm.start", "kind": "vm", "name": "ours", "credential": f"Bearer {server.acme}"}
    with server.client() as god, server.client(server.acme) as acme:
        assert acme.post("/v1/auth/explain", json=body).status_code == 403
        found = god.post("/v1/auth/explain", json=body).json()
        assert (found["outcome"], found["permitted"]) == ("allow", True)
        assert [each["outcome"] for each in found["answers"]] == ["allow"]
        refused = god.post("/v1/auth/explain", json={**body, "name": "theirs"}).json()
        assert (refused["outcome"], refused["permitted"]) == ("allow", False)
        assert server.acme not in json.dumps(found)


# --- sessions and the unix socket


def test_a_token_makes_no_session(server: ApiServer) -> None:
    with server.client(server.acme) as acme:
        assert acme.post("/v1/session").status_code == 403


def test_who_speaks_over_the_socket_is_known_by_the_kernel(server: ApiServer) -> None:
    with server.unix_client() as own:
        assert own.get("/v1/session").json()["scopes"] == [{"actions": ["*"], "selector": ""}]
        made = own.post("/v1/session")
        assert made.status_code == 201, made.text
        # Whoever passes on what others ask is not whom the kernel names.
        assert own.get("/v1/session", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 401
        assert own.get("/v1/session", headers={"Forwarded": "for=192.0.2.1"}).status_code == 401
    with server.client(made.json()["token"]) as session:
        assert session.get("/v1/session").json()["subject"] == made.json()["subject"]
        assert session.delete("/v1/session").status_code == 204
        assert session.get("/v1/session").status_code == 401


def test_a_websocket_is_refused_before_it_is_one(server: ApiServer) -> None:
    upgrade = (
        "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
    )  # fmt: skip
    lines = ["GET /v1/vms/ours/console HTTP/1.1", f"Host: {server.url[7:]}", "Connection: Upgrade", *upgrade, "", ""]
    assert raw(server, "\r\n".join(lines).encode()).startswith(b"HTTP/1.1 401")
    theirs = [*lines[:3], f"Authorization: Bearer {server.acme}", *lines[3:]]
    theirs[0] = theirs[0].replace("ours", "theirs")
    assert raw(server, "\r\n".join(theirs).encode()).startswith(b"HTTP/1.1 404")
    with httpx.Client(base_url=server.url, trust_env=False) as plain:
        answer = plain.get("/v1/vms/ours/console", headers={"Authorization": f"Bearer {server.god}"})
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
