"""Every rule of tus 1.0 that KC speaks, by a plain HTTP client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from support.stream_app import Running, stream_server
from support.tus_requests import (
    DISK,
    PIECE,
    begin,
    connect,
    cut_piece,
    offset_of,
    send,
    tell,
    wait_for_size,
    wait_until_free,
)  # fmt: skip

from backend.api import staging as staging_module
from backend.api import streaming as streaming_module
from backend.api import uploads as uploads_module


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with connect(running, running.headers) as connected:
        yield connected


def test_the_server_says_what_it_can(client: httpx.Client) -> None:
    answer = client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    extensions = "creation,creation-with-upload,expiration,checksum,termination"
    assert answer.headers["tus-extension"] == extensions
    assert "sha256" in answer.headers["tus-checksum-algorithm"].split(",")
    assert int(answer.headers["tus-max-size"]) > 1 << 30


def test_an_image_comes_in_pieces_and_is_stored(running: Running, client: httpx.Client) -> None:
    metadata = json.dumps({"tenant": "acme"})
    where = begin(
        client,
        metadata=metadata,
        title="A disk",
        filename="/home/bob/disk.img",
        sha256=hashlib.sha256(DISK).hexdigest(),
    )
    middle = len(DISK) // 2
    first = send(client, where, 0, DISK[:middle])
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(middle))
    assert "kc-operation" not in first.headers
    answer = client.head(where)
    assert answer.headers["upload-offset"] == str(middle)
    assert answer.headers["upload-length"] == str(len(DISK))
    assert answer.headers["cache-control"] == "no-store"
    assert "name " in answer.headers["upload-metadata"]
    last = send(client, where, middle, DISK[middle:])
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(DISK)))
    path = last.headers["kc-operation"]
    assert path.startswith("/v1/operations/op-")
    running.service.wait(path.rpartition("/")[2], timeout=20)
    image = client.get("/v1/images/mine").json()
    assert image["spec"]["digest"] == f"sha256:{hashlib.sha256(DISK).hexdigest()}"
    assert image["spec"]["source"] == "file:disk.img"
    assert (image["spec"]["title"], image["metadata"]) == ("A disk", {"tenant": "acme"})
    assert image["updatedBy"] == "root"
    assert client.head(where).headers["kc-operation"] == path


def test_what_was_stored_leaves_the_staging_folder(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    operation = send(client, where, 0, DISK).headers["kc-operation"].rpartition("/")[2]
    running.service.wait(operation, timeout=20)
    running.application.state.streams.staging.tidy()
    assert not (running.uploads / where.rpartition("/")[2]).exists()
    assert offset_of(client, where) == len(DISK)  # whoever has not heard of the end may still ask
    old = time.time() - 2 * staging_module.KEPT_SECONDS
    for path in running.uploads.glob("*.json"):
        os.utime(path, (old, old))
    running.application.state.streams.staging.tidy()
    assert client.head(where).status_code == 404
    assert not list(running.uploads.glob("*.json"))


def test_an_acceptance_that_was_not_noted_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_module, "TIDY_SECONDS", 60.0)
    with stream_server(tmp_path) as running, connect(running, running.headers) as client:
        where = begin(client)
        operation = send(client, where, 0, DISK).headers["kc-operation"]
        # As a server that is killed between the two leaves it.
        sidecar = running.uploads / f"{where.rpartition('/')[2]}.json"
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"operation": ""}))
        answer = client.head(where)
        assert (answer.headers["upload-offset"], answer.headers["kc-operation"]) == (str(len(DISK)), operation)
        again = send(client, where, len(DISK), b"")
        assert (again.status_code, again.headers["kc-operation"]) == (204, operation)
        running.service.wait(operation.rpartition("/")[2], timeout=20)
        assert client.get("/v1/images/mine").status_code == 200


def test_bytes_that_were_not_accepted_are_asked_for_again(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    send(client, where, 0, DISK[:1000])
    # As a server that is killed after the last byte and before the image is accepted leaves it.
    with (running.uploads / where.rpartition("/")[2]).open("ab") as file:
        file.write(DISK[1000:])
    assert offset_of(client, where) == len(DISK) - 1
    last = send(client, where, len(DISK) - 1, DISK[-1:])
    assert last.status_code == 204
    running.service.wait(last.headers["kc-operation"].rpartition("/")[2], timeout=20)
    digest = client.get("/v1/images/mine").json()["spec"]["digest"]
    assert digest == f"sha256:{hashlib.sha256(DISK).hexdigest()}"


def test_creation_may_bring_bytes_along(running: Running, client: httpx.Client) -> None:
    headers = {"Upload-Length": str(len(DISK)), "Upload-Metadata": tell(name="mine"), "Content-Type": PIECE}
    made = client.post("/v1/uploads", headers=headers, content=DISK[:1000])
    assert (made.status_code, made.headers["upload-offset"]) == (201, "1000")
    assert send(client, made.headers["location"], 1000, DISK[1000:]).status_code == 204
    headers["Upload-Metadata"] = tell(name="whole")
    made = client.post("/v1/uploads", headers=headers, content=DISK)
    assert (made.status_code, made.headers["upload-offset"]) == (201, str(len(DISK)))
    assert "kc-operation" in made.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": "ten"}, 400),
        ({"Upload-Length": "0"}, 422),
        ({"Upload-Length": str(1 << 50)}, 413),
        ({"Upload-Length": str(900 << 30)}, 507),
        ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Concat": "partial", "Upload-Length": "10"}, 400),
        ({"Upload-Length": "10", "Upload-Metadata": "name"}, 422),
        ({"Upload-Length": "10", "Upload-Metadata": "name ***"}, 400),
        ({"Upload-Length": "10", "Upload-Metadata": "name bWluZQ==,name bWluZQ=="}, 400),
        ({"Upload-Length": "10", "Upload-Metadata": tell(name="../etc")}, 422),
        ({"Upload-Length": "10", "Upload-Metadata": tell(name="mine", metadata="[1]")}, 400),
        ({"Upload-Length": "10", "Upload-Metadata": tell(name="starter")}, 409),
        ({"Upload-Length": "10", "Content-Length": "2", "Content-Type": "text/plain"}, 415),
    ],
    ids=[
        "missing", "negative", "word", "empty", "too-large", "no-room", "deferred", "concatenation", "no-name",
        "no-base64", "twice", "path", "no-object", "name-taken", "type",
    ],
)  # fmt: skip
def test_a_bad_creation_is_refused(
    running: Running, client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    headers = {"Upload-Metadata": tell(name="mine"), **headers}
    content = b"ab" if "Content-Length" in headers else b""
    answer = client.post("/v1/uploads", headers=headers, content=content)
    assert answer.status_code == status, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert not list(running.uploads.glob("*.json"))


def test_another_version_of_tus_is_refused(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    for version in ("0.2.2", ""):
        for method, path in (("POST", "/v1/uploads"), ("HEAD", where), ("PATCH", where), ("DELETE", where)):
            answer = client.request(method, path, headers={"Tus-Resumable": version})
            assert answer.status_code == 412
            assert answer.headers["tus-version"] == "1.0.0"
    assert offset_of(client, where) == 0


def test_a_piece_at_another_offset_is_a_conflict(client: httpx.Client) -> None:
    where = begin(client)
    assert send(client, where, 10, b"x").status_code == 409
    send(client, where, 0, DISK[:100])
    for offset in (0, 50, 99, 101):
        assert send(client, where, offset, b"x").status_code == 409
    assert offset_of(client, where) == 100


def test_a_piece_of_another_type_or_form_is_refused(client: httpx.Client) -> None:
    where = begin(client)
    assert client.patch(where, content=b"x", headers={"Upload-Offset": "0"}).status_code == 415
    assert send(client, where, 0, b"x", **{"Content-Encoding": "gzip"}).status_code == 415
    headers = {"Content-Type": PIECE}
    assert client.patch(where, content=b"x", headers=headers).status_code == 400
    assert offset_of(client, where) == 0


def test_more_than_the_length_is_refused(client: httpx.Client) -> None:
    where = begin(client, length=1000)
    assert send(client, where, 0, b"x" * 1001).status_code == 413
    assert offset_of(client, where) == 0
    assert send(client, where, 0, iter([b"x" * 600, b"x" * 600])).status_code == 413
    assert offset_of(client, where) == 0


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_checksum_is_verified(client: httpx.Client, algorithm: str) -> None:
    where = begin(client)
    good = base64.b64encode(hashlib.new(algorithm, DISK[:1000]).digest()).decode()
    bad = send(client, where, 0, DISK[1:1001], **{"Upload-Checksum": f"{algorithm} {good}"})
    assert bad.status_code == 460
    assert offset_of(client, where) == 0
    assert send(client, where, 0, DISK[:1000], **{"Upload-Checksum": f"{algorithm} {good}"}).status_code == 204
    assert offset_of(client, where) == 1000


@pytest.mark.parametrize(
    "value", ["crc32 AAAA", "sha256", "sha256 ???", "sha256 AAAA"], ids=["unknown", "none", "text", "short"]
)
def test_a_checksum_that_is_none_is_refused(client: httpx.Client, value: str) -> None:
    where = begin(client)
    assert send(client, where, 0, b"x", **{"Upload-Checksum": value}).status_code == 400
    assert offset_of(client, where) == 0


def test_what_came_before_a_cut_is_kept(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    cut_piece(running, where, DISK[:2_500_000], len(DISK))
    wait_for_size(running, where, 2_500_000)
    assert offset_of(client, where) == 2_500_000
    assert wait_until_free(client, where, 2_500_000, DISK[2_500_000:]).status_code == 204


def test_what_came_before_a_cut_is_not_kept_without_its_checksum(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    cut_piece(running, where, DISK[:2_500_000], len(DISK), f"Upload-Checksum: md5 {'A' * 22}==\r\n")
    assert offset_of(client, where) == 0
    assert wait_until_free(client, where, 0, DISK).status_code == 204


def test_one_writes_at_a_time(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(
            f"PATCH {where} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer root\r\nTus-Resumable: 1.0.0\r\n"
            f"Upload-Offset: 0\r\nContent-Type: {PIECE}\r\nContent-Length: {len(DISK)}\r\n\r\n".encode()
            + DISK[: 1 << 20]
        )
        wait_for_size(running, where, 1 << 20)
        assert send(client, where, 1 << 20, b"x").status_code == 423
        assert client.delete(where).status_code == 423
        line.sendall(DISK[1 << 20 :])
        assert line.recv(100).startswith(b"HTTP/1.1 204")


def test_a_client_that_sends_nothing_is_let_go(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "IDLE_SECONDS", 0.3)
    where = begin(client)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.settimeout(5)
        line.sendall(
            f"PATCH {where} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer root\r\nTus-Resumable: 1.0.0\r\n"
            f"Upload-Offset: 0\r\nContent-Type: {PIECE}\r\nContent-Length: {len(DISK)}\r\n\r\nabc".encode()
        )
        assert line.recv(100).startswith(b"HTTP/1.1 408")
    assert offset_of(client, where) == 3


def test_an_upload_can_be_given_up(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    send(client, where, 0, DISK[:1000])
    assert client.delete(where).status_code == 204
    assert client.head(where).status_code == 404
    assert client.delete(where).status_code == 404
    assert send(client, where, 1000, b"x").status_code == 404
    assert [path.name for path in running.uploads.iterdir()] == ["lock"]


def test_an_abandoned_upload_expires(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    send(client, where, 0, DISK[:1000])
    said = parsedate_to_datetime(client.head(where).headers["upload-expires"]).timestamp()
    assert 0 < said - time.time() - staging_module.KEPT_SECONDS + 60 < 120
    staging = running.application.state.streams.staging
    staging.tidy()
    assert offset_of(client, where) == 1000
    old = time.time() - staging_module.KEPT_SECONDS - 10
    os.utime(running.uploads / where.rpartition("/")[2], (old, old))
    staging.tidy()
    assert client.head(where).status_code == 404
    assert [path.name for path in running.uploads.iterdir()] == ["lock"]
