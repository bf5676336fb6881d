"""Consoles and screens over WebSockets, by an independent client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.memory_kc import settle, vm_document
from support.socket_lines import read_close, read_until
from support.stream_app import Running, stream_server
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from backend.api import sockets as sockets_module
from backend.api import streaming as streaming_module
from backend.auth.protocol import Scope


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path) as server:
        settle(server.service, server.service.create(vm_document("web", metadata={"tenant": "acme"})))
        yield server


def open_line(
    server: Running, what: str = "console", headers: dict[str, str] | None = None, **more: Any
) -> ClientConnection:
    return connect(
        f"{server.socket_url}/v1/vms/web/{what}", additional_headers=headers or server.headers, open_timeout=10,
        compression=None, **more,
    )  # fmt: skip


def refuse(server: Running, **more: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as raised:
        open_line(server, **more)
    response = raised.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)


def test_what_was_said_comes_first_and_keys_reach_the_guest(running: Running) -> None:
    with open_line(running) as line:
        assert line.subprotocol is None
        read_until(line, b"KC starter: up")
        line.send(b"ls\r")
        read_until(line, b"ls\r\n# ")
        line.send("typed as text\r")
        read_until(line, b"typed as text")


def test_several_look_on(running: Running) -> None:
    with open_line(running) as first, open_line(running) as second:
        for line in (first, second):
            read_until(line, b"KC starter: up")
        second.send(b"from the second\r")
        read_until(first, b"from the second")
        read_until(second, b"from the second")


def test_a_screen_speaks_vnc(running: Running) -> None:
    with open_line(running, "display") as line:
        assert read_until(line, b"RFB 003.008\n") == b"RFB 003.008\n"


def test_a_vm_that_is_off_is_a_problem_before_the_websocket(running: Running) -> None:
    settle(running.service, running.service.act("web", "stop", {"force": True}))
    for what in ("console", "display"):
        status, problem = refuse(running, what=what)
        assert (status, problem["code"]) == (409, "conflict")
        assert "off" in problem["detail"] or "stopped" in problem["detail"]


def test_whoever_may_not_is_told_before_the_websocket(running: Running) -> None:
    assert refuse(running, headers={"X-Nobody": "1"})[0] == 401
    readers = running.chain.allow("alice", Scope(("vm.read",), "tenant=acme"))
    assert refuse(running, headers=readers)[0] == 403
    strangers = running.chain.allow("bob", Scope(("vm.*",), "tenant=bob"))
    status, problem = refuse(running, headers=strangers)
    assert (status, problem["detail"]) == (404, "no such VM")


def test_the_console_ends_with_the_guest(running: Running) -> None:
    with open_line(running) as line:
        read_until(line, b"KC starter: up")
        settle(running.service, running.service.act("web", "stop", {"force": True}))
        assert read_close(line)[0] == 1000


def test_a_message_that_is_too_large_ends_it(running: Running) -> None:
    with open_line(running) as line:
        line.send(b"x" * (sockets_module.LARGEST_MESSAGE + 1))
        assert read_close(line)[0] == 1009


def test_keys_come_no_faster_than_a_rate(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets_module, "INPUT_BYTES_A_SECOND", 10_000)
    monkeypatch.setattr(sockets_module, "INPUT_BURST", 1000)
    with open_line(running) as line:
        read_until(line, b"KC starter: up")
        began = time.monotonic()
        for _ in range(10):
            line.send(b"y" * 1000)
        line.send(b"end\r")
        read_until(line, b"end")
        assert time.monotonic() - began > 0.8


def test_revocation_and_lost_rights_close_it(running: Running) -> None:
    alice = running.chain.allow("alice", Scope(("vm.*",), "tenant=acme"))
    with open_line(running, headers=alice) as line:
        began = time.monotonic()
        running.chain.revoke("alice")
        assert read_close(line) == (4401, "no such credential")
        assert time.monotonic() - began < 2.0
    alice = running.chain.allow("alice", Scope(("vm.*",), "tenant=acme"))
    with open_line(running, headers=alice) as line:
        running.chain.allow("alice", Scope(("vm.read",), "tenant=acme"))
        running.chain.generation += 1
        assert read_close(line)[0] == 4403


def test_a_vm_that_is_given_to_another_tenant_closes_it(running: Running) -> None:
    alice = running.chain.allow("alice", Scope(("vm.*",), "tenant=acme"), revalidate_after=0.5)
    with open_line(running, headers=alice) as line:
        document = running.service.get("VM", "web", observe=False)
        settle(running.service, running.service.update({**document, "metadata": {"tenant": "bob"}}))
        assert read_close(line)[0] == 4403


def test_a_credential_that_expires_closes_it(running: Running) -> None:
    alice = running.chain.allow("alice", expires_at=time.time() + 1.0)
    with open_line(running, headers=alice) as line:
        assert read_close(line) == (4401, "it has expired")


def test_a_server_that_ends_says_so(running: Running) -> None:
    with open_line(running) as line:
        read_until(line, b"KC starter: up")
        running.on_loop(running.application.end)
        assert read_close(line)[0] == 1012


def test_a_viewer_that_takes_nothing_is_let_go(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets_module, "STALL_SECONDS", 0.5)
    uid = running.service.get("VM", "web", observe=False)["uid"]
    with open_line(running, max_queue=1) as line:
        said = threading.Event()

        def talk() -> None:
            for _ in range(400):
                running.service.hypervisor.say(uid, b"z" * 65_536)
                if said.wait(0.005):
                    return

        talker = threading.Thread(target=talk)
        talker.start()
        ends = time.monotonic() + 10
        while running.application._streams and time.monotonic() < ends:
            time.sleep(0.05)
        said.set()
        talker.join()
        assert running.application._streams == 0
        line.close_timeout = 0.1


def test_so_many_consoles_are_open_at_once(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_module, "MAXIMUM_LINES_EACH", 2)
    with open_line(running) as first, open_line(running):
        status, problem = refuse(running)
        assert (status, problem["code"]) == (503, "unreachable")
        with open_line(running, headers=running.chain.allow("alice")):
            first.close()
        ends = time.monotonic() + 5
        while running.application._streams > 1 and time.monotonic() < ends:
            time.sleep(0.02)
        with open_line(running):
            pass


def test_plain_http_is_told_to_upgrade(running: Running) -> None:
    answer = httpx.get(f"{running.url}/v1/vms/web/console", headers=running.headers)
    assert answer.status_code == 426
