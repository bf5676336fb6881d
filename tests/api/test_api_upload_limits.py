"""Whose uploads are whose, what nobody may, and how much of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.stream_app import Running, stream_server
from support.tus_requests import DISK, PIECE, begin, connect, offset_of, send, tell

from backend.api import staging as staging_module
from backend.auth.protocol import Scope


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with connect(running, running.headers) as connected:
        yield connected


def test_anothers_upload_is_as_one_that_is_not_there(running: Running, client: httpx.Client) -> None:
    where = begin(client)
    missing = f"/v1/uploads/{'0' * 32}"
    with connect(running, running.chain.allow("alice")) as other:
        for method in ("HEAD", "PATCH", "DELETE"):
            headers = {"Upload-Offset": "0", "Content-Type": PIECE}
            theirs, none = (other.request(method, path, headers=headers) for path in (where, missing))
            assert theirs.status_code == none.status_code == 404
            assert [key for key in theirs.headers if key != "x-request-id"] == [
                key for key in none.headers if key != "x-request-id"
            ]
            if method != "HEAD":
                assert theirs.json() | {"requestId": ""} == none.json() | {"requestId": ""}
    assert offset_of(client, where) == 0


@pytest.mark.parametrize("identity", ["x", "..", "%2e%2e%2fkc.db", "A" * 32, "lock"])
def test_an_identity_is_no_path(client: httpx.Client, identity: str) -> None:
    assert client.head(f"/v1/uploads/{identity}").status_code in (400, 404, 405)


def test_another_method_in_a_header_changes_nothing(client: httpx.Client) -> None:
    where = begin(client)
    answer = client.post(where, headers={"X-HTTP-Method-Override": "DELETE"})
    assert answer.status_code == 405
    assert offset_of(client, where) == 0


def test_nobody_uploads_what_they_may_not(running: Running) -> None:
    headers = running.chain.allow("alice", Scope(("image.upload", "image.read"), 'tenant="acme"'))
    with connect(running, headers) as alice:
        for metadata in ("{}", '{"tenant": "bob"}'):
            told = {"Upload-Length": "512", "Upload-Metadata": tell(name="mine", metadata=metadata)}
            assert alice.post("/v1/uploads", headers=told).status_code == 403
        where = begin(alice, metadata='{"tenant": "acme"}')
        running.chain.allow("alice", Scope(("image.upload", "image.read"), 'tenant="other"'))
        refused = send(alice, where, 0, DISK)
        assert refused.status_code == 403
        assert alice.get("/v1/images/mine").status_code == 404
        running.chain.allow("alice", Scope(("image.upload", "image.read"), 'tenant="acme"'))
        assert offset_of(alice, where) == len(DISK) - 1
        assert send(alice, where, len(DISK) - 1, DISK[-1:]).status_code == 204
        assert alice.get("/v1/images/mine").status_code == 200


def test_what_is_no_image_is_refused_and_gone(running: Running, client: httpx.Client) -> None:
    where = begin(client, length=1024, format="qcow2")
    answer = send(client, where, 0, b"x" * 1024)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.head(where).status_code == 404
    assert [path.name for path in running.uploads.iterdir()] == ["lock"]


def test_files_are_for_the_server_alone(running: Running, client: httpx.Client) -> None:
    before = os.umask(0)
    try:
        where = begin(client)
        send(client, where, 0, DISK[:1000])
    finally:
        os.umask(before)
    assert stat.S_IMODE(running.uploads.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in running.uploads.iterdir()} == {0o600}


def test_one_owner_has_so_many_at_once(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_module, "MAXIMUM_EACH", 3)
    for round_ in range(3):
        begin(client, name=f"mine{round_}")
    headers = {"Upload-Length": "512", "Upload-Metadata": tell(name="mine")}
    assert client.post("/v1/uploads", headers=headers).status_code == 429


def test_room_that_is_promised_is_not_promised_twice(client: httpx.Client, running: Running) -> None:
    volume = os.statvfs(running.uploads.parent if running.uploads.parent.exists() else "/")
    half = min(volume.f_bavail * volume.f_frsize * 6 // 10, staging_module.LARGEST_BYTES)
    if volume.f_bavail * volume.f_frsize - staging_module.SPARE_BYTES < half:
        pytest.skip("the disk is too full to promise more than half of it")
    begin(client, length=half, name="one")
    headers = {"Upload-Length": str(half), "Upload-Metadata": tell(name="two")}
    assert client.post("/v1/uploads", headers=headers).status_code == 507
