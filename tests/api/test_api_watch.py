"""The watch: what each client is told, in which order, from where on, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.event_reader import Told, read_events
from support.memory_kc import make_service, settle, vm_document
from support.stream_app import Running, stream_server

from backend.api import feed as feed_module
from backend.api import sse
from backend.auth.protocol import Scope
from backend.local.initialising import MACHINE_TYPES
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path) as server:
        yield server


def make_vm(server: Running, name: str, **metadata: Any) -> None:
    settle(server.service, server.service.create(vm_document(name, metadata=metadata)))


def is_about(name: str, event: str = "") -> Any:
    def matches(told: Told) -> bool:
        return told.data["document"]["name"] == name and event in ("", told.event)

    return matches


def set_metadata(server: Running, name: str, **metadata: Any) -> int:
    document = server.service.get("VM", name, observe=False)
    accepted = server.service.update({**document, "metadata": metadata})
    if accepted.operation is not None:
        settle(server.service, accepted)
    return accepted.document["version"]


def test_changes_come_as_events_with_the_revision_as_their_id(running: Running) -> None:
    with read_events(f"{running.url}/v1/watch?kinds=vm", running.headers) as events:
        assert events.response.headers["content-type"].startswith("text/event-stream")
        assert events.response.headers["cache-control"].startswith("no-store")
        make_vm(running, "web")
        created = events.find(is_about("web", "created"))
        assert created.identifier == str(created.data["revision"])
        assert created.data["type"] == "created"
        assert created.data["document"]["spec"]["type"]["name"] == "tiny"
        events.find(lambda told: told.event == "status" and told.data["document"]["status"]["power"] == "running")
        set_metadata(running, "web", tenant="acme")
        assert events.find(is_about("web", "updated")).data["document"]["metadata"] == {"tenant": "acme"}
        settle(running.service, running.service.delete("VM", "web", now=True))
        events.find(is_about("web", "deleted"))


def test_a_comment_comes_each_second_while_nothing_happens(running: Running) -> None:
    with read_events(f"{running.url}/v1/watch", running.headers) as events:
        began = time.monotonic()
        for _ in range(4):
            assert events.next(2.0).event == ":"
        assert time.monotonic() - began < 4.0


def test_other_kinds_and_other_documents_than_asked_for_are_left_out(running: Running) -> None:
    with read_events(f"{running.url}/v1/watch?kinds=vm&selector=tenant%3Dacme", running.headers) as events:
        make_vm(running, "hers", tenant="bob")
        make_vm(running, "mine", tenant="acme")
        told = events.gather_until(is_about("mine", "created"))
        assert {each.data["document"]["name"] for each in told} == {"mine"}
        set_metadata(running, "mine", tenant="bob")
        assert events.find(is_about("mine", "left")).data["document"]["metadata"] == {"tenant": "bob"}


def test_what_happened_since_a_revision_comes_first(running: Running) -> None:
    with read_events(f"{running.url}/v1/watch?kinds=vm", running.headers) as events:
        make_vm(running, "one")
        seen = events.find(is_about("one", "created"))
    set_metadata(running, "one", round=1)
    set_metadata(running, "one", round=2)
    url = f"{running.url}/v1/watch?kinds=vm"
    for where, headers in ((f"{url}&since={seen.identifier}", {}), (url, {"Last-Event-ID": seen.identifier})):
        with read_events(where, running.headers | headers) as events:
            written = [
                told.data["document"]["metadata"]
                for told in events.gather_until(lambda told: told.data["document"]["metadata"] == {"round": 2})
                if told.event == "updated"
            ]
            assert written == [{"round": 1}, {"round": 2}]


def test_a_client_of_an_earlier_server_goes_on_where_it_was(tmp_path: Path) -> None:
    with stream_server(tmp_path) as first:
        make_vm(first, "one")
        since = first.service.list_documents("VM", observe=False).revision
        set_metadata(first, "one", round=1)
        first.service.close()
    with (
        stream_server(tmp_path, make_service(tmp_path)) as second,
        read_events(f"{second.url}/v1/watch?kinds=vm&since={since}", second.headers) as events,
    ):
        assert events.find(is_about("one", "updated")).data["document"]["metadata"] == {"round": 1}
        set_metadata(second, "one", round=2)
        told = events.gather_until(lambda told: told.data["document"]["metadata"] == {"round": 2})
        assert [each.data["revision"] for each in told] == sorted(each.data["revision"] for each in told)


def test_a_revision_that_was_never_written_is_gone(running: Running) -> None:
    answer = httpx.get(f"{running.url}/v1/watch?since=999999", headers=running.headers)
    assert answer.status_code == 410
    assert answer.json()["compacted"] is True
    assert httpx.get(f"{running.url}/v1/watch", headers={**running.headers, "Last-Event-ID": "x"}).status_code == 400


def test_a_revision_whose_successors_are_dropped_is_gone(tmp_path: Path) -> None:
    service = make_service(tmp_path)
    since = service.list_documents("VM", observe=False).revision
    for round_ in range(4):
        document = {
            "kind": "MachineType",
            "name": "brief",
            "metadata": {"round": round_},
            "spec": MACHINE_TYPES["tiny"],
        }
        (service.update if round_ else service.create)(document)
    with closing(open_store(service.store.url, retentions=Retentions(Retention(versions=1)))) as store:
        assert store.compact().versions == 3
    with stream_server(tmp_path, service) as running:
        answer = httpx.get(f"{running.url}/v1/watch?since={since}", headers=running.headers)
        assert answer.status_code == 410
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["compacted"] is True


def test_a_tenant_hears_of_its_own_and_of_what_it_loses_as_it_was(running: Running) -> None:
    headers = running.chain.allow("alice", Scope(("vm.*",), 'tenant="acme"'))
    with read_events(f"{running.url}/v1/watch", headers) as events:
        make_vm(running, "hers", tenant="bob")
        make_vm(running, "mine", tenant="acme")
        told = events.gather_until(is_about("mine", "created"))
        assert {each.data["document"]["name"] for each in told if each.data["document"]["kind"] == "VM"} == {"mine"}
        set_metadata(running, "mine", tenant="bob", secret="theirs")
        left = events.find(is_about("mine", "left"))
        assert left.data["document"]["metadata"] == {"tenant": "acme"}
        set_metadata(running, "mine", tenant="bob", secret="more")
        make_vm(running, "last", tenant="acme")
        told = events.gather_until(is_about("last", "created"))
        assert "theirs" not in json.dumps([each.data for each in told])
        assert "mine" not in {each.data["document"]["name"] for each in told}


def test_whoever_may_see_nothing_hears_nothing(running: Running) -> None:
    headers = running.chain.allow("carol", Scope(("vm.read",), "tenant=nobody"))
    with read_events(f"{running.url}/v1/watch", headers) as events:
        make_vm(running, "web")
        for _ in range(3):
            assert events.next().event == ":"


def test_a_slow_client_is_told_and_can_go_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "KEPT_EVENTS", 20)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(f"GET /v1/watch HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer root\r\n\r\n".encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 200")
        make_vm(running, "web", filler="x" * 200_000)
        for round_ in range(60):
            set_metadata(running, "web", filler="x" * 200_000, round=round_)
        line.settimeout(10)
        received = b""
        while b"event: error" not in received[-4000:]:
            received += (some := line.recv(1 << 20))
            assert some
        problem = json.loads(received[received.rindex(b"event: error") :].split(b"data: ")[1].split(b"\n")[0])
        assert "too slow" in problem["detail"]
        assert received.count(b"event: ") < 60


def test_a_client_that_takes_nothing_is_let_go(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "STALL_SECONDS", 1.0)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(f"GET /v1/watch HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer root\r\n\r\n".encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 200")
        assert running.application._streams == 1
        make_vm(running, "web", filler="x" * 200_000)
        for round_ in range(40):
            set_metadata(running, "web", filler="x" * 200_000, round=round_)
        ends = time.monotonic() + 8
        while running.application._streams and time.monotonic() < ends:
            time.sleep(0.05)
        assert running.application._streams == 0


def test_the_server_says_that_it_ends(running: Running) -> None:
    with read_events(f"{running.url}/v1/watch", running.headers) as events:
        events.next()
        running.on_loop(running.application.end)
        ends = time.monotonic() + 3
        while events.next() != Told(":", "end", ""):
            assert time.monotonic() < ends
        with pytest.raises(StopIteration):
            events.next()


def test_a_client_that_leaves_leaves_nothing_behind(running: Running) -> None:
    for _ in range(5):
        with read_events(f"{running.url}/v1/watch", running.headers) as events:
            events.next()
    ends = time.monotonic() + 5
    while running.application._streams and time.monotonic() < ends:
        time.sleep(0.02)
    assert running.application._streams == 0


async def test_two_hundred_watchers_all_hear_of_it_and_cost_little(running: Running) -> None:
    limits = httpx.Limits(max_connections=250)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        heard = 0
        ready = asyncio.Semaphore(0)

        async def watch() -> None:
            nonlocal heard
            async with client.stream("GET", f"{running.url}/v1/watch?kinds=vm", headers=running.headers) as response:
                async for line in response.aiter_lines():
                    if line.startswith(":") and not line[1:]:
                        ready.release()
                    if line.startswith("data: ") and '"name":"web"' in line:
                        heard += 1
                        return

        tasks = [asyncio.create_task(watch()) for _ in range(200)]
        async with asyncio.timeout(30):
            for _ in range(200):
                await ready.acquire()
            assert threading.active_count() < 60
            await asyncio.to_thread(make_vm, running, "web")
            await asyncio.gather(*tasks)
        assert heard == 200


def test_an_operation_is_followed_to_its_end(running: Running) -> None:
    accepted = running.service.create(vm_document("web"))
    url = f"{running.url}/v1/operations/{accepted.operation['name']}/wait"
    with read_events(url, running.headers) as events:
        end = events.find(lambda told: told.event == "end")
    assert end.data["status"]["state"] == "succeeded"
    with read_events(url, running.headers) as events:
        assert events.find(lambda told: told.event == "end").data["name"] == accepted.operation["name"]


def test_a_wait_for_a_vm_ends_when_it_is_ready_or_the_time_is_over(running: Running) -> None:
    make_vm(running, "web")
    with read_events(f"{running.url}/v1/vms/web/wait?state=ready&timeout=20", running.headers) as events:
        told = events.gather_until(lambda told: told.event == "end")
    assert told[-1].data["name"] == "web"
    settle(running.service, running.service.act("web", "pause"))
    began = time.monotonic()
    with read_events(f"{running.url}/v1/vms/web/wait?state=running&timeout=1.2", running.headers) as events:
        error = events.find(lambda told: told.event == "error")
    assert error.data["code"] == "timed-out"
    assert "after 1.2 s" in error.data["detail"]
    assert 1.0 < time.monotonic() - began < 4.0


def test_a_wait_for_what_is_not_there_is_a_plain_problem(running: Running) -> None:
    for path in ("operations/op-0000000000", "vms/nobody"):
        answer = httpx.get(f"{running.url}/v1/{path}/wait", headers=running.headers)
        assert answer.status_code == 404
        assert answer.json()["code"] == "not-found"
