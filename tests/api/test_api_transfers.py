"""The store as a whole over HTTP, and what makes a new KC ready."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.event_reader import read_events
from support.memory_kc import make_service, settle, vm_document
from support.stream_app import Running, stream_server

from backend.api import transfers as transfers_module
from backend.auth.protocol import Scope
from backend.errors import FailedError

LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path / "full") as server:
        settle(server.service, server.service.create(vm_document("web", metadata={"filler": "x" * 100_000})))
        yield server


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path / "empty", make_service(tmp_path / "empty")) as server:
        yield server


def fetch(server: Running) -> bytes:
    answer = httpx.get(f"{server.url}/v1/export", headers=server.headers, timeout=20)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return answer.content


def test_a_store_moves_whole_from_one_server_to_another(running: Running, empty: Running) -> None:
    for round_ in range(10):  # more than is sent at once
        document = running.service.get("VM", "web", observe=False)
        settle(running.service, running.service.update({**document, "metadata": {"filler": str(round_) * 100_000}}))
    exported = fetch(running)
    records = [json.loads(line) for line in exported.splitlines()]
    assert records[1:] == list(running.service.export())[1:]  # the first has the time
    assert len(exported) > 4 * transfers_module.SENT_BYTES

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(exported), 70_001):
            yield exported[start : start + 70_001]

    answer = httpx.post(f"{empty.url}/v1/import", headers={**empty.headers, **LINES}, content=pieces(), timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"entries": records[-1]["entries"]}
    assert [line for line in fetch(empty).splitlines()[1:] if b'"lease"' not in line] == exported.splitlines()[1:]


@pytest.mark.parametrize(
    "content", [b"{", b"[1]\n", b'{"kc": "export"}\nno\n', b"\xff\n"], ids=["cut", "list", "text", "bytes"]
)
def test_what_is_no_export_changes_nothing(empty: Running, content: bytes) -> None:
    answer = httpx.post(f"{empty.url}/v1/import", headers={**empty.headers, **LINES}, content=content)
    assert answer.status_code == 422, answer.text
    assert len(fetch(empty).splitlines()) == 2


def test_an_import_that_is_cut_or_too_large_changes_nothing(
    running: Running, empty: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = fetch(running)
    answer = httpx.post(
        f"{empty.url}/v1/import", headers={**empty.headers, **LINES}, content=exported[: len(exported) // 2]
    )
    assert answer.status_code == 422
    monkeypatch.setattr(transfers_module, "LARGEST_IMPORT", 1000)
    answer = httpx.post(f"{empty.url}/v1/import", headers={**empty.headers, **LINES}, content=exported)
    assert answer.status_code == 413
    assert len(fetch(empty).splitlines()) == 2


def test_an_import_of_another_type_or_into_a_full_store_is_refused(running: Running) -> None:
    exported = fetch(running)
    assert httpx.post(f"{running.url}/v1/import", headers=running.headers, content=exported).status_code == 415
    assert (
        httpx.post(f"{running.url}/v1/import", headers={**running.headers, **LINES}, content=exported).status_code
        == 409
    )


def test_the_whole_store_is_for_those_alone_who_may_have_it(running: Running) -> None:
    headers = running.chain.allow("alice", Scope(("vm.*", "store.export", "store.import"), "tenant=acme"))
    assert httpx.get(f"{running.url}/v1/export", headers=headers).status_code == 403
    assert httpx.post(f"{running.url}/v1/import", headers={**headers, **LINES}, content=b"").status_code == 403


def test_a_client_that_leaves_an_export_ends_it(running: Running) -> None:
    with httpx.Client() as client, client.stream("GET", f"{running.url}/v1/export", headers=running.headers) as answer:
        next(answer.iter_bytes(10))
    with httpx.Client(timeout=10) as client:
        assert client.get(f"{running.url}/healthz").status_code == 200


def test_making_a_kc_ready_tells_line_by_line(empty: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def initialise(report: object) -> list[str]:
        for line in ("network default", "machine type tiny"):
            report(line)
        return ["network default", "machine type tiny"]

    monkeypatch.setattr(empty.service, "initialise", initialise)
    with read_events(f"{empty.url}/v1/init", empty.headers, "POST") as events:
        told = events.gather_until(lambda told: told.event == "end")
    assert [(each.event, each.data) for each in told] == [
        ("line", "network default"),
        ("line", "machine type tiny"),
        ("end", ["network default", "machine type tiny"]),
    ]


def test_what_fails_while_a_kc_is_made_ready_is_told(empty: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def initialise(report: object) -> list[str]:
        report("network default")
        raise FailedError("network default", "the host has no room", "make some")

    monkeypatch.setattr(empty.service, "initialise", initialise)
    with read_events(f"{empty.url}/v1/init", empty.headers, "POST") as events:
        told = events.gather_until(lambda told: told.event == "error")
    assert [each.event for each in told] == ["line", "error"]
    assert told[-1].data["detail"] == "the host has no room"
