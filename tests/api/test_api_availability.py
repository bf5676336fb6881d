"""What is sent to keep the server from serving others: slow, many, deep, long; and authenticators that say nothing."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from support.api_server import ApiServer, make_token, running_server
from support.ldap_server import tarpit

from backend.api import wire
from backend.api.gate import Options

QUICK_SECONDS = 0.1
STREAMS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home: Path = tmp_path_factory.mktemp("available")
    with running_server(home, options=Options(streams=STREAMS)) as running:
        running.make_vm("web", tenant="acme", note="a" * 2000)
        yield running


def open_lines(stack: ExitStack, server: ApiServer, count: int, head: str, *headers: str) -> list[socket.socket]:
    """Open connections, each of which has sent that one request."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    text = "\r\n".join([head, f"Host: {host}:{port}", *headers, "", ""]).encode("latin-1")
    lines = []
    for _ in range(count):
        line = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        line.sendall(text)
        lines.append(line)
    return lines


def read_status(line: socket.socket) -> tuple[int, bytes]:
    """Return the status of the answer, and the beginning of it."""
    received = b""
    while b"\r\n\r\n" not in received:
        block = line.recv(65536)
        if not block:
            break
        received += block
    return int(received.split(b" ", 2)[1]), received


class Pulse:
    """How long /healthz takes meanwhile, and what it answers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()


@contextmanager
def taking_the_pulse(server: ApiServer) -> Iterator[Pulse]:
    pulse, stop = Pulse(), threading.Event()

    def work() -> None:
        with server.client("") as client:
            while not stop.is_set():
                began = time.perf_counter()
                pulse.statuses[client.get("/healthz").status_code] += 1
                pulse.seconds.append(time.perf_counter() - began)
                stop.wait(0.005)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def check_pulse(pulse: Pulse) -> None:
    """See that it answered all the time; a machine that is busy with other things may hold up a few."""
    assert set(pulse.statuses) == {200}, pulse.statuses
    assert len(pulse.seconds) >= 3
    assert sorted(pulse.seconds)[int(len(pulse.seconds) * 0.95)] < QUICK_SECONDS, sorted(pulse.seconds)[-20:]
    assert max(pulse.seconds) < 1.0


# --- authenticators that do not answer


def test_servers_that_say_nothing_hold_up_none_but_those_who_ask_them(tmp_path: Path) -> None:
    with tarpit() as webhook, tarpit() as directory:
        config = f"""
[[auth.chain]]
type = "tokens"
[[auth.chain]]
type = "forward"
url = "http://127.0.0.1:{webhook}/"
claims = ["bearer"]
[[auth.chain]]
type = "ldap"
url = "ldap://127.0.0.1:{directory}"
bindDn = "uid={{user}},dc=example,dc=org"
startTls = false
"""
        with running_server(tmp_path, config=config) as server, ExitStack() as stack:
            waiting: list[socket.socket] = []
            began = time.monotonic()
            with taking_the_pulse(server) as pulse, server.client() as known:
                for number in range(150):
                    pair = base64.b64encode(f"user{number}:wrong".encode()).decode()
                    for credential in (f"Bearer unknown-{number}", f"Basic {pair}"):
                        waiting += open_lines(stack, server, 1, "GET /v1/vms HTTP/1.1", f"Authorization: {credential}")
                while time.monotonic() - began < 2:
                    # Whose credential is KC's own waits for neither of both.
                    at = time.perf_counter()
                    assert known.get("/v1/vms").status_code == 200
                    assert time.perf_counter() - at < 1.0
                found = Counter(read_status(line)[0] for line in waiting)
            assert found == {503: 300}
            assert time.monotonic() - began < 12
            check_pulse(pulse)


def test_wrong_credentials_take_no_place_of_others(tmp_path: Path) -> None:
    with running_server(tmp_path, options=Options(concurrency=4, streams=4)) as server, ExitStack() as stack:
        with taking_the_pulse(server) as pulse, server.client() as known:
            for target in ("/v1/vms", "/v1/watch"):
                guesses = open_lines(stack, server, 60, f"GET {target} HTTP/1.1", "Authorization: Bearer wrong")
                # Each is held back for half a second, so that all of them wait by now.
                assert known.get("/v1/vms").status_code == 200
                assert Counter(read_status(line)[0] for line in guesses) == {401: 60}
        assert set(pulse.statuses) == {200}


# --- many streams


def test_one_subject_takes_half_of_the_streams_and_all_are_given_back(server: ApiServer) -> None:
    watch, other = "GET /v1/watch HTTP/1.1", make_token(server.service, "other", type="god")
    god = f"Authorization: Bearer {server.god}"
    with ExitStack() as stack, taking_the_pulse(server) as pulse, server.client() as client:
        answers = [read_status(line) for line in open_lines(stack, server, STREAMS, watch, god)]
        assert Counter(status for status, _ in answers) == {200: STREAMS // 2, 503: STREAMS // 2}
        refused = next(text for status, text in answers if status == 503).lower()
        assert b"\r\nretry-after:" in refused
        assert b"application/problem+json" in refused
        acme = open_lines(stack, server, STREAMS // 2, watch, f"Authorization: Bearer {server.acme}")
        assert {read_status(line)[0] for line in acme} == {200}
        full = open_lines(stack, server, 1, watch, f"Authorization: Bearer {other}")
        assert read_status(full[0])[0] == 503
        assert client.get("/v1/vms").status_code == 200
    check_pulse(pulse)
    ends = time.monotonic() + 10
    with ExitStack() as stack:
        while read_status(open_lines(stack, server, 1, watch, god)[0])[0] != 200:
            assert time.monotonic() < ends, "the places are not given back"
            time.sleep(0.05)


def test_a_thousand_watchers_are_taken_or_told(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, ExitStack() as stack, server.client() as client:
        lines = open_lines(stack, server, 1000, "GET /v1/watch HTTP/1.1", f"Authorization: Bearer {server.god}")
        assert Counter(read_status(line)[0] for line in lines) == {200: 500, 503: 500}
        assert client.get("/v1/vms").status_code == 200
        assert client.get("/healthz").status_code == 200


# --- slow heads and bodies


@pytest.mark.parametrize("text", ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", "GET /"])
def test_whoever_sends_a_head_for_too_long_is_let_go(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.5)
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        began = time.monotonic()
        line.sendall(text.encode())
        line.settimeout(0.05)
        while True:
            # A byte now and then is no reason to wait any longer.
            try:
                if text:
                    line.sendall(b"a")
                if line.recv(1024) == b"":
                    break
            except TimeoutError:
                assert time.monotonic() - began < 5
            except ConnectionError:
                break
        assert 0.3 < time.monotonic() - began < 5


def test_a_body_that_does_not_come_ends_with_its_request(tmp_path: Path) -> None:
    with running_server(tmp_path, options=Options(seconds=0.5)) as server, ExitStack() as stack:
        lines = open_lines(
            stack, server, 20, "POST /v1/vms HTTP/1.1", f"Authorization: Bearer {server.god}",
            "Content-Type: application/json", "Content-Length: 1000",
        )  # fmt: skip
        assert {read_status(line)[0] for line in lines} == {504}
        with server.client() as client:
            assert client.get("/v1/vms").status_code == 200


# --- long, deep, hard to read


@pytest.mark.parametrize(
    ("credential", "statuses"),
    [
        ("Bearer " + "a" * (64 << 10), {400, 431}),
        ("Bearer " + "a" * (17 << 10), {431}),
        ("Bearer kct_" + "A" * (15 << 10), {401}),
        ("Bearer kcg_" + "A" * 4096, {401}),
        ("Basic " + base64.b64encode(b"a" * 9000 + b":b").decode(), {401}),
        ("Bearer \xe4\xf6", {401}),
        ("Bearer", {401}),
        ("Basic ====", {401}),
    ],
    ids=["64k", "17k", "macaroon", "god", "basic", "latin-1", "empty", "base64"],
)
def test_a_credential_that_is_none_costs_little(server: ApiServer, credential: str, statuses: set[int]) -> None:
    with ExitStack() as stack:
        began = time.perf_counter()
        line = open_lines(stack, server, 1, "GET /v1/vms HTTP/1.1", f"Authorization: {credential}")[0]
        status, text = read_status(line)
        assert status in statuses, text
        assert time.perf_counter() - began < 2
        assert credential[-50:].encode("latin-1") not in text or len(credential) < 20


GLOB = "*a" * 200 + "b"


@pytest.mark.parametrize(
    "selector",
    [
        f"note~{GLOB}", "note~" + "*" * 2000, "note~" + "?*" * 900, ",".join(["note~*a*a*a*b"] * 250), "(" * 4000,
        "a." * 2000 + "a=1", "note in (" + "a," * 2000 + "a)", "!" * 4000, "x=" + '"' * 3001, "x=" + "\\" * 4000,
        "x>" + "9" * 4000, "a=1," * 1000, "x" * 4097,
    ],
    ids=["stars", "only-stars", "marks", "many", "brackets", "path", "in", "not", "quotes", "slashes", "number",
         "terms", "long"],
)  # fmt: skip
def test_no_selector_holds_the_server_up(server: ApiServer, selector: str) -> None:
    with taking_the_pulse(server) as pulse, server.client() as client:
        began = time.perf_counter()
        answer = client.get("/v1/vms", params={"selector": selector})
        assert answer.status_code in (200, 400, 422), answer.text
        assert time.perf_counter() - began < 2
    assert max(pulse.seconds, default=0.0) < 1.0


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/vms"), ("PATCH", "/v1/vms/web"), ("PUT", "/v1/vms/web")])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["list", "object"])
def test_ten_thousand_deep_is_refused(server: ApiServer, method: str, path: str, opening: bytes) -> None:
    deep = b'{"metadata": {"a": ' + opening * 10_000 + b"1" + (b"]" if opening == b"[" else b"}") * 10_000 + b"}}"
    with server.client(headers={"Content-Type": "application/json"}) as client:
        answer = client.request(method, path, content=deep)
        assert (answer.status_code, answer.json()["status"]) == (400, 400)
        assert "a" * 30 not in answer.text


@pytest.mark.parametrize(
    "metadata",
    ["[" * 20_000, '{"a":' * 6000, '{"a":' + "[" * 70 + "]" * 70 + "}", '{"a": NaN}', '{"a": 1e999}', "9" * 9000],
)
def test_deep_metadata_of_an_upload_is_refused(server: ApiServer, metadata: str) -> None:
    told = f"name bWluZQ==,metadata {base64.b64encode(metadata.encode()).decode()}"
    with server.client(headers={"Tus-Resumable": "1.0.0"}) as client:
        answer = client.post("/v1/uploads", headers={"Upload-Length": "512", "Upload-Metadata": told})
        assert answer.status_code in (400, 422), answer.text


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: ApiServer) -> None:
    with ExitStack() as stack:
        credential = f"Authorization: Bearer {server.god}"
        media = "Content-Type: application/json"
        for path in ("/v1/vms", "/v1/vms/web/actions/start", "/v1/auth/explain", "/v1/store/check", "/v1/session"):
            head = f"POST {path} HTTP/1.1"
            line = open_lines(stack, server, 1, head, credential, media, f"Content-Length: {1 << 40}")[0]
            assert read_status(line)[0] == 413, path
            chunked = open_lines(stack, server, 1, head, credential, media, "Transfer-Encoding: chunked")[0]
            block = b"10000\r\n" + b" " * 65536 + b"\r\n"
            try:
                for _ in range(64):
                    chunked.sendall(block)
            except ConnectionError:
                continue
            assert read_status(chunked)[0] == 413, path


def test_what_kc_answers_has_no_line_that_a_caller_made(server: ApiServer) -> None:
    with server.client() as client:
        for name in ("%0d%0aSet-Cookie:%20a=b", "%0aX-Evil:1", "a%0d%0a%0d%0a<script>"):
            for method in ("GET", "DELETE", "POST"):
                answer = client.request(method, f"/v1/vms/{name}")
                assert answer.status_code in (400, 404, 405)
                assert "set-cookie" not in answer.headers
                assert "x-evil" not in answer.headers
                assert answer.headers["content-type"] == "application/problem+json"
                assert json.loads(answer.text)["status"] == answer.status_code


def test_a_client_of_http_2_or_of_nothing_is_told_or_let_go(server: ApiServer) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    for data in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 1000,
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=12) as line:
            line.sendall(data)
            received = line.recv(65536)
            assert received[:10] in (b"HTTP/1.1 4", b""), received
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
