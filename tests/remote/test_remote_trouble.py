"""What becomes of a client whose server is gone, hangs, is another, or is no KC: it is told, soon, and plainly."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_kc import Asked, Reply, answering, make_certificate, serving_context

from backend.errors import (
    ConflictError,
    DeniedError,
    FailedError,
    KCError,
    RefusedError,
    TimedOutError,
    UnreachableError,
)
from backend.remote import feed, transport
from backend.remote.address import parse_address
from backend.remote.options import RemoteOptions
from backend.remote.service import RemoteService
from backend.remote.tls import look_at

PAGE = {"items": [], "continue": "", "revision": 7, "warnings": [], "filtered": False}
VM = {"kind": "VM", "name": "web", "uid": "u", "version": 1, "metadata": {}, "spec": {}, "status": {}}
OPERATION = {**VM, "kind": "Operation", "name": "op-1", "status": {"state": "running"}}
DONE = {"document": VM, "operation": OPERATION}


def connect(url: str, tmp_path: Path, **more: Any) -> RemoteService:
    more.setdefault("find_credential", lambda: "Bearer canary")
    return RemoteService(RemoteOptions(parse_address(url), tmp_path / "cache", "lab", **more))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[..., RemoteService]]:
    made: list[RemoteService] = []

    def make(url: str, **more: Any) -> RemoteService:
        made.append(connect(url, tmp_path, **more))
        return made[-1]

    yield make
    for service in made:
        service.close()


Client = Callable[..., RemoteService]


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("call", ["list", "watch", "console"])
def test_nobody_listens(client: Client, call: str) -> None:
    service = client(f"http://127.0.0.1:{refused_port()}")
    calls: dict[str, Callable[[], Any]] = {
        "list": lambda: service.list_documents("VM"),
        "watch": lambda: next(service.watch()),
        "console": lambda: service.console("web"),
    }
    with pytest.raises(UnreachableError, match="refused") as raised:
        calls[call]()
    assert "127.0.0.1:" in raised.value.what
    assert raised.value.is_transient
    assert "canary" not in str(raised.value)


def test_a_socket_that_is_not_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="no such file"):
        client(f"unix:{tmp_path}/none.sock").list_documents("VM")


def test_a_server_that_hangs_takes_bounded_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transport.Transport.call, "__kwdefaults__", {**transport.Transport.call.__kwdefaults__, "seconds": 0.3}
    )
    monkeypatch.setattr(RemoteService.ask, "__kwdefaults__", {**RemoteService.ask.__kwdefaults__, "seconds": 0.3})
    monkeypatch.setattr(feed, "SILENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        for call in (lambda: service.list_documents("VM"), lambda: next(service.watch()), service.access):
            started = time.monotonic()
            with pytest.raises(UnreachableError, match="does not answer"):
                call()
            assert time.monotonic() - started < 3


def test_a_read_is_asked_again_where_the_connection_drops_and_a_write_with_a_key(client: Client) -> None:
    def answer(asked: Asked) -> Reply | None:
        nth = sum(earlier.path == asked.path and earlier.method == asked.method for earlier in server.asked)
        if nth == 1:
            return None
        return Reply(DONE if asked.method != "GET" else PAGE)

    with answering(answer) as server:
        service = client(server.url)
        assert service.list_documents("VM").revision == 7
        assert service.create({"kind": "VM", "name": "web", "metadata": {}, "spec": {}}).operation == OPERATION
        keys = [asked.headers["idempotency-key"] for asked in server.asked if asked.method == "POST"]
        assert len(keys) == 2
        assert keys[0] == keys[1]
        assert len(server.asked[-1].body) > 10
        server.asked.clear()
        service.delete("VM", "web", key="mine")
        assert [asked.headers["idempotency-key"] for asked in server.asked] == ["mine", "mine"]


def test_a_write_without_a_key_is_never_sent_twice(client: Client) -> None:
    with answering(lambda _asked: None) as server:
        with pytest.raises(UnreachableError, match="not known"):
            client(server.url).update({"kind": "VM", "name": "web", "version": 1, "metadata": {}, "spec": {}})
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(PAGE, headers={"KC-API": "2", "KC-Version": "9.0"}), UnreachableError, "KC 9.0 and speaks version 2"),
        (Reply(PAGE, is_kc=False), UnreachableError, "not KC: 200"),
        (Reply(b"<h1>Hi</h1>", 404, {"Content-Type": "text/html"}, is_kc=False), UnreachableError, "404, text/html"),
        (Reply(b"", 302, {"Location": "http://evil/x"}, is_kc=False), UnreachableError, "sends to http://evil"),
        (Reply(b"", 502, is_kc=False), UnreachableError, "says 502"),
        (Reply(b"", 401, is_kc=False), DeniedError, "kc login lab"),
        (Reply(b"", 403, is_kc=False), DeniedError, "stands before it"),
        (Reply(b"not json"), FailedError, "no JSON"),
        (Reply([1, 2]), FailedError, "shape"),
        (Reply({"items": 3, "revision": "x"}), FailedError, "shape"),
        (Reply({"code": "denied", "title": "vm", "detail": "no\x1b[31m"}, 403), DeniedError, "vm: no"),
        (Reply({"code": "x", "title": 3, "what": "a", "self": 1}, 500), FailedError, "3"),
        (Reply({"code": "conflict", "title": "feed", "detail": "old"}, 410), ConflictError, "old"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_what_was_asked_for(
    client: Client, reply: Reply, kind: type[KCError], words: str
) -> None:
    headers = reply.headers
    with answering(lambda _asked: reply._replace(headers=headers)) as server:
        with pytest.raises(kind) as raised:
            client(server.url).list_documents("VM")
        assert words in str(raised.value)
        assert "\x1b" not in str(raised.value)
        assert "canary" not in repr(raised.value)


def test_a_feed_that_is_too_old_says_so_in_its_own_way(client: Client) -> None:
    problem = {"code": "conflict", "title": "feed", "detail": "too old"}
    with answering(lambda _asked: Reply(problem, 410)) as server, pytest.raises(ConflictError) as raised:
        next(client(server.url).watch(since=3))
    assert raised.value.details["compacted"] is True


def test_a_feed_that_breaks_off_is_told_and_its_events_are_not_lost(client: Client) -> None:
    body = b': hi\n\nid: 8\nevent: updated\ndata: {"revision":8,"type":"updated",\ndata: "document":{}}\n\nid: 9\n'
    with answering(lambda _asked: Reply(body, headers={"Content-Type": "text/event-stream"})) as server:
        changes = client(server.url).watch(["VM"], since=7, selector="a=b")
        assert next(changes) is None
        event = next(changes)
        assert event is not None
        assert (event.revision, event.type) == (8, "updated")
        with pytest.raises(UnreachableError, match="ended"):
            next(changes)
        assert server.asked[0].headers["last-event-id"] == "7"
        assert server.asked[0].path == "/v1/watch?kinds=vm&since=7&selector=a%3Db"


def test_a_wait_goes_on_over_as_many_connections_as_it_takes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_RETRY_SECONDS", (0.01,))
    steps: list[Reply | None] = [
        None,
        Reply(b'event: progress\ndata: {"percent":1}\n\n'),
        Reply(b"", 502, is_kc=False),
        Reply(b'event: progress\ndata: {"percent":1}\n\nevent: end\ndata: {"percent":2}\n\n'),
    ]
    seen: list[Any] = []
    with answering(lambda _asked: steps.pop(0)) as server:
        assert client(server.url).wait("op-1", timeout=20, progress=seen.append) == {"percent": 2}
    assert seen == [{"percent": 1}, {"percent": 2}]


def test_a_wait_ends_in_time_without_a_server(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_RETRY_SECONDS", (0.05,))
    service = client(f"http://127.0.0.1:{refused_port()}")
    with pytest.raises(TimedOutError):
        service.wait("op-1", timeout=0.3)
    monkeypatch.setattr(feed, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(UnreachableError):
        service.wait("op-1")


def test_what_the_server_tells_of_ends_a_wait(client: Client) -> None:
    problem = b'event: error\ndata: {"code":"unreachable","title":"host","detail":"it is down","transient":true}\n\n'
    with answering(lambda _asked: Reply(problem)) as server, pytest.raises(UnreachableError, match="it is down"):
        client(server.url).wait("op-1", timeout=20)


def test_plain_http_to_another_machine_is_refused(client: Client) -> None:
    with pytest.raises(RefusedError, match="plain HTTP"):
        client("http://lab.example.org")
    assert client("http://lab.example.org", is_insecure=True)


@pytest.mark.parametrize("value", ["Bearer a\nX-Evil: 1", "Bearer \x00", "a\rb"])
def test_a_credential_that_would_break_a_header_is_not_sent(client: Client, value: str) -> None:
    with answering(lambda _asked: Reply(PAGE)) as server:
        with pytest.raises(RefusedError, match="no header can carry") as raised:
            client(server.url, find_credential=lambda: value).list_documents("VM")
        assert server.asked == []
        assert "Evil" not in str(raised.value)


def test_the_credential_is_sent_as_it_is(client: Client) -> None:
    with answering(lambda _asked: Reply(PAGE)) as server:
        client(server.url, find_credential=lambda: "Custom ü=1, b", header="X-Auth").list_documents("VM")
        assert server.asked[0].headers["x-auth"].encode("latin-1").decode() == "Custom ü=1, b"
        assert "authorization" not in server.asked[0].headers


# --- certificates


def test_a_certificate_is_believed_by_its_authority_or_by_its_fingerprint(client: Client, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    with answering(lambda _asked: Reply(PAGE), serving_context(certificate)) as server:
        found = look_at(parse_address(server.url))
        assert found.doubt
        assert client(server.url, ca=str(certificate)).list_documents("VM").revision == 7
        assert client(server.url, fingerprint=found.fingerprint).list_documents("VM").revision == 7
        assert len(server.asked) == 2
        for more in ({}, {"ca": str(make_certificate(tmp_path / "other"))}):
            with pytest.raises(UnreachableError, match="not to be trusted"):
                client(server.url, **more).list_documents("VM")
        assert len(server.asked) == 2


@pytest.mark.parametrize("call", ["list", "watch", "console"])
def test_another_certificate_than_the_pinned_one_is_refused_before_anything_is_said(
    client: Client, tmp_path: Path, call: str
) -> None:
    pinned = "SHA256:" + "A" * 43
    with answering(lambda _asked: Reply(PAGE), serving_context(make_certificate(tmp_path / "tls"))) as server:
        service = client(server.url, fingerprint=pinned)
        calls: dict[str, Callable[[], Any]] = {
            "list": lambda: service.list_documents("VM"),
            "watch": lambda: next(service.watch()),
            "console": lambda: service.console("web"),
        }
        with pytest.raises(DeniedError, match="not the one that was pinned"):
            calls[call]()
        assert server.asked == []


def test_a_certificate_for_another_name_is_refused(client: Client, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls", "other.example.org")
    with answering(lambda _asked: Reply(PAGE), serving_context(certificate)) as server:
        with pytest.raises(UnreachableError, match="not to be trusted"):
            client(server.url, ca=str(certificate)).list_documents("VM")
        assert server.asked == []


def test_old_tls_is_not_spoken(client: Client, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    context = serving_context(certificate)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with answering(lambda _asked: Reply(PAGE), context) as server, pytest.raises(UnreachableError):
        client(server.url, ca=str(certificate)).list_documents("VM")


def test_closing_ends_what_another_thread_reads(client: Client) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    service = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
    errors: list[KCError] = []

    def follow() -> None:
        try:
            for _ in service.watch():
                pass
        except KCError as error:
            errors.append(error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    connection, _ = listener.accept()
    with connection, listener:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nKC-API: 1\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n")
        service.close()
        thread.join(8)
        assert not thread.is_alive()
    assert isinstance(errors[0], UnreachableError)
