"""Requests of tus 1.0, written by hand, so that what is wrong in them is meant."""

from __future__ import annotations

import base64
import os
import socket
import time
from typing import Any

import httpx

from support.boot_sector import make_disk
from support.stream_app import Running

DISK = make_disk() + os.urandom(512) * 6144
PIECE = "application/offset+octet-stream"


def connect(running: Running, headers: dict[str, str]) -> httpx.Client:
    return httpx.Client(base_url=running.url, headers={**headers, "Tus-Resumable": "1.0.0"}, timeout=20)


def tell(**words: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items())


def begin(client: httpx.Client, length: int = len(DISK), name: str = "mine", **words: str) -> str:
    headers = {"Upload-Length": str(length), "Upload-Metadata": tell(name=name, **words)}
    made = client.post("/v1/uploads", headers=headers)
    assert made.status_code == 201, made.text
    assert made.headers["tus-resumable"] == "1.0.0"
    return made.headers["location"]


def send(client: httpx.Client, where: str, offset: int, data: Any, **headers: str) -> httpx.Response:
    return client.patch(where, content=data, headers={"Upload-Offset": str(offset), "Content-Type": PIECE, **headers})


def offset_of(client: httpx.Client, where: str) -> int:
    answer = client.head(where)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


def cut_piece(running: Running, where: str, data: bytes, length: int, extra: str = "") -> None:
    """Send a part of a piece and cut the line."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(
            f"PATCH {where} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer root\r\nTus-Resumable: 1.0.0\r\n"
            f"Upload-Offset: 0\r\nContent-Type: {PIECE}\r\nContent-Length: {length}\r\n{extra}\r\n".encode()
            + data
        )
        wait_for_size(running, where, len(data) >> 20 << 20)


def wait_for_size(running: Running, where: str, size: int) -> None:
    path = running.uploads / where.rpartition("/")[2]
    ends = time.monotonic() + 10
    while path.stat().st_size < size:
        assert time.monotonic() < ends
        time.sleep(0.01)


def wait_until_free(client: httpx.Client, where: str, offset: int, data: bytes) -> httpx.Response:
    ends = time.monotonic() + 10
    while (answer := send(client, where, offset, data)).status_code == 423:
        assert time.monotonic() < ends
    return answer
