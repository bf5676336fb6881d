"""A token that is deleted ends what it has let in: with the real chain, tokens and server."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_server import ApiServer, make_token, running_server
from support.event_reader import read_events
from support.socket_lines import read_close
from websockets.sync.client import connect

from backend.actor import Actor, acting_as

LIMIT_SECONDS = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with running_server(tmp_path) as running:
        running.make_vm("web", tenant="acme")
        yield running


def bear(server: ApiServer, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(server.service, name, type='god')}"}


def delete_token(server: ApiServer, name: str) -> float:
    with acting_as(Actor("test")):
        server.service.delete("Token", name, now=True)
    return time.monotonic()


def test_a_watch_ends(server: ApiServer) -> None:
    with read_events(f"{server.url}/v1/watch", bear(server, "brief")) as events:
        events.next()
        began = delete_token(server, "brief")
        problem = events.find(lambda told: told.event == "error").data
        assert time.monotonic() - began < LIMIT_SECONDS
        assert problem["status"] == 401
        with pytest.raises(StopIteration):
            events.next()


def test_a_console_ends(server: ApiServer) -> None:
    url = f"{server.url.replace('http:', 'ws:')}/v1/vms/web/console"
    with connect(url, additional_headers=bear(server, "brief"), open_timeout=10) as line:
        line.recv(timeout=10)
        began = delete_token(server, "brief")
        assert read_close(line)[0] == 4401
        assert time.monotonic() - began < LIMIT_SECONDS


def test_an_upload_ends_and_keeps_what_it_had(server: ApiServer) -> None:
    headers = bear(server, "brief")
    told = f"name {base64.b64encode(b'mine').decode()}"
    told_headers = {**headers, "Tus-Resumable": "1.0.0", "Upload-Length": str(1 << 30), "Upload-Metadata": told}
    with server.client("") as client:
        made = client.post("/v1/uploads", headers=told_headers)
    assert made.status_code == 201, made.text
    host, port = server.url.removeprefix("http://").split(":")
    stop = threading.Event()
    with socket.create_connection((host, int(port))) as line:
        head = (
            f"PATCH {made.headers['location']} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Authorization: {headers['Authorization']}\r\n"
            f"Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
            f"Content-Length: {1 << 30}\r\n\r\n"
        )
        line.sendall(head.encode() + os.urandom(2 << 20))

        def drip() -> None:
            try:
                while not stop.wait(0.05):
                    line.sendall(b"x" * 1000)
            except OSError:
                return

        dripper = threading.Thread(target=drip)
        dripper.start()
        time.sleep(0.3)
        began = delete_token(server, "brief")
        line.settimeout(10)
        answer = line.recv(1 << 16)
        took = time.monotonic() - began
        stop.set()
        dripper.join()
    assert answer.startswith(b"HTTP/1.1 401")
    assert took < LIMIT_SECONDS
    staged = server.home / "data" / "uploads" / made.headers["location"].rpartition("/")[2]
    assert staged.stat().st_size >= 2 << 20
