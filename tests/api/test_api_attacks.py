"""Attacks of a tenant on what is not theirs: every operation of the table, and every probe that might tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from support.api_server import ApiServer, make_token, running_server
from support.event_reader import read_events
from support.tenants import SECRETS, STRANGER, make_world
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from backend.api.rows import Row
from backend.api.table import ROWS
from backend.hypervisor.memory import MemoryHypervisor

ABSENT = "nothing"
UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
SHARED = {"actions": ["image.read", "network.read", "type.read"], "selector": "shared=true"}
OWN_HEADERS = frozenset({"x-request-id", "date", "content-length"})
"""Headers that may differ between two answers: by time, by count, and by how long a name is."""
PROBES: dict[str, list[dict[str, str]]] = {
    "GET": [{}, {"If-None-Match": '"1"'}, {"If-None-Match": "*"}],
    "HEAD": [{}, {"If-None-Match": '"1"'}],
    "POST": [{}, {"If-Match": '"1"'}, {"If-Match": '"9"'}, {"Idempotency-Key": "theirs"}],
    "PUT": [{"If-Match": '"1"'}, {"If-Match": '"1", "2"'}, {"If-Match": "*", "Idempotency-Key": "theirs"}],
    "PATCH": [{}, {"If-Match": '"1"'}, {"If-Match": '"1", "2"'}, {"If-Match": "*", "Idempotency-Key": "theirs"}],
    "DELETE": [{}, {"If-Match": '"1"'}, {"If-Match": '"9"'}, {"If-Match": "*"}, {"Idempotency-Key": "theirs"}],
}


class Stage(NamedTuple):
    """A server of two tenants; `whole` may do everything to what is acme's, `meagre` may read and start it."""

    server: ApiServer
    whole: str
    meagre: str
    theirs: dict[str, list[str]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home: Path = tmp_path_factory.mktemp("attacks")
    host = MemoryHypervisor()
    make_world(home, host).close()
    with running_server(home, hypervisor=host) as server:
        service = server.service
        whole = make_token(
            service, "whole", type="limited", scopes=[{"actions": ["*"], "selector": "tenant=acme"}, SHARED]
        )
        meagre = make_token(
            service, "meagre", type="limited", scopes=[{"actions": ["vm.start"], "selector": "tenant=acme"}, SHARED]
        )
        with server.client(headers={"Tus-Resumable": "1.0.0"}) as god:
            begun = god.post("/v1/uploads", headers={"Upload-Length": "512", "Upload-Metadata": "name bWluZQ=="})
            assert begun.status_code == 201, begun.text
        theirs = {
            "vms": ["db", "stranger", STRANGER, "lost"], "images": ["gimage"], "networks": ["gnet"],
            "machine-types": ["gtype"], "tokens": ["god"],
            "operations": [
                item["name"] for item in service.list_documents("Operation", selector="tenant=globex").items[:2]
            ],
            "trash": [item["name"] for item in service.list_documents("Trash", selector="tenant=globex").items],
            "uploads": [begun.headers["location"].rpartition("/")[2]],
        }  # fmt: skip
        assert all(theirs.values()), theirs
        yield Stage(server, whole, meagre, theirs)


def read_answer(answer: httpx.Response, name: str) -> tuple[int, dict[str, str], str]:
    """Return all of an answer that tells anything, a name in it made the one that nobody has."""
    headers = {key: value for key, value in answer.headers.items() if key not in OWN_HEADERS}
    text = re.sub(r'"requestId":"[^"]*"', "", answer.text)
    return answer.status_code, headers, text.replace(name, ABSENT)


def list_probes() -> Iterator[tuple[Row, str, dict[str, str]]]:
    for row in ROWS:
        if "{name}" not in row.path:
            continue
        for method in (
            (row.method, "HEAD") if row.method == "GET" and not (row.socket or row.streams) else (row.method,)
        ):
            for headers in [{**UPGRADE}] if row.socket else PROBES[method]:
                yield row, method, headers


def ask(client: httpx.Client, row: Row, method: str, name: str, headers: dict[str, str]) -> httpx.Response:
    """Send a request to an operation on a name, with the body that the table shows."""
    collection = row.path.split("/")[2]
    more = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"} if collection == "uploads" else {}
    data = None
    if row.body is not None:
        more["Content-Type"] = row.body.media[0]
        example = row.body.example
        if isinstance(example, dict) and "spec" in example:
            example = {**example, "name": name}
        data = b"" if example is None else json.dumps(example).encode()
    path = row.path.replace("{name}", name) + ("?timeout=0.1" if row.path.endswith("/wait") else "")
    return client.request(method, path, content=data, headers={**headers, **more})


@pytest.mark.parametrize("token", ["whole", "meagre"])
def test_no_operation_tells_what_another_tenant_has(stage: Stage, token: str) -> None:
    tried = set()
    with stage.server.client(getattr(stage, token)) as client:
        for row, method, headers in list_probes():
            collection = row.path.split("/")[2]
            absent = "0" * 32 if collection == "uploads" else ABSENT
            nothing = read_answer(ask(client, row, method, absent, headers), absent)
            for name in stage.theirs[collection]:
                found = ask(client, row, method, name, headers)
                assert read_answer(found, name) == nothing, (method, row.path, headers, name)
                assert found.status_code in (403, 404, 412), (method, row.path, headers, found.text)
                assert (found.status_code == 412) <= ("If-Match" in headers and method == "PUT")
            tried.add(row)
    assert tried == {row for row in ROWS if "{name}" in row.path}


def find_secrets(text: str) -> list[str]:
    # Between colons it is a part of a MAC address.
    return [word for word in SECRETS if re.search(rf"(?<![\w:]){word}(?![\w:])", text)]


@pytest.mark.parametrize("token", ["whole", "meagre"])
def test_what_is_about_many_shows_ones_own_alone(stage: Stage, token: str) -> None:
    seen = ""
    with stage.server.client(getattr(stage, token)) as client:
        for row in ROWS:
            if row.method != "GET" or "{" in row.path or row.streams or row.public:
                continue
            for query in ("?all=true&observe=true", "?all=true&observe=false", "?selector=tenant%3Dglobex", ""):
                answer = client.get(row.path + query)
                assert answer.status_code in (200, 204, 400, 403), (row.path, answer.text)
                assert not find_secrets(answer.text + str(answer.headers)), (row.path, query)
                seen += answer.text
        for path in ("/v1/trash", "/v1/operations"):
            assert client.get(path).json()["filtered"] is True
    assert "web" in seen


def test_the_feed_from_the_beginning_tells_of_ones_own_alone(stage: Stage) -> None:
    headers = {"Authorization": f"Bearer {stage.whole}"}
    for query in ("since=0", "since=0&kinds=vm,op,trash,token,network,image", "since=0&selector=tenant%3Dglobex"):
        with read_events(f"{stage.server.url}/v1/watch?{query}", headers) as events:
            told = [events.next()]
            while not (told[-1].event == ":" and len(told) > 1):
                told.append(events.next())
        text = json.dumps([(each.event, each.data) for each in told])
        assert not find_secrets(text), query
        if "globex" not in query:
            assert '"web"' in text


@pytest.mark.parametrize("path", ["console", "display"])
def test_a_page_of_another_site_opens_no_line(stage: Stage, path: str) -> None:
    url = f"{stage.server.url.replace('http:', 'ws:')}/v1/vms/web/{path}"
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        given = {"Authorization": f"Bearer {stage.server.god}", **headers}
        with pytest.raises(InvalidStatus) as caught, connect(url, additional_headers=given, open_timeout=10):
            pass
        assert caught.value.response.status_code == 403


def test_a_taken_name_is_all_that_whoever_may_make_one_is_told(stage: Stage) -> None:
    wish = {"name": "db", "metadata": {"tenant": "acme"}, "spec": {"image": "aimage", "type": "atype", "nics": []}}
    with stage.server.client(stage.whole) as whole, stage.server.client(stage.meagre) as meagre:
        for method, path, body in (
            ("POST", "/v1/vms", wish), ("POST", "/v1/vms/check", wish), ("PUT", "/v1/vms/db", wish),
            ("POST", "/v1/vms/web/actions/clone", {"name": "db"}),
            ("POST", "/v1/vms/web/actions/rename", {"name": "db"}),
        ):  # fmt: skip
            answer = whole.request(method, path, json=body)
            assert answer.status_code in (409, 422), (path, answer.text)
            assert [word for word in find_secrets(answer.text) if word != "db"] == []
            assert stage.server.service.get("VM", "db")["uid"] not in answer.text
            # Who may make none learns nothing at all.
            said = json.loads(json.dumps(body).replace('"db"', f'"{ABSENT}"'))
            refused = meagre.request(method, path, json=body)
            nothing = meagre.request(method, path.replace("/db", f"/{ABSENT}"), json=said)
            assert read_answer(refused, "db") == read_answer(nothing, "db"), path
            assert refused.status_code in (403, 404), (path, refused.text)


@pytest.mark.parametrize("kind", ["vms", "images", "networks", "machine-types", "operations", "trash", "tokens"])
def test_a_forged_cursor_tells_nothing(stage: Stage, kind: str) -> None:
    theirs = next(iter(stage.theirs[kind]))
    cursors = [theirs, "d", "g:db", "0", "-1", "9" * 400, "\x00", "a" * 2000, "../../x", "eyJhIjoxfQ==", '{"a":1}', "%"]
    with stage.server.client(stage.whole) as client:
        for cursor in cursors:
            answer = client.get(f"/v1/{kind}", params={"continue": cursor, "limit": 1, "all": "true"})
            assert answer.status_code in (200, 400, 422), (cursor, answer.text)
            assert find_secrets(answer.text) in ([], [cursor]), cursor


def test_a_proxys_question_tells_no_more_than_the_service(stage: Stage) -> None:
    with stage.server.client(stage.whole) as client:
        for kind, collection in (
            ("vm", "vms"),
            ("image", "images"),
            ("network", "networks"),
            ("type", "machine-types"),
        ):
            nothing = client.get(f"/v1/auth/check?action={kind}.read&kind={kind}&name={ABSENT}")
            for name in stage.theirs[collection]:
                found = client.get(f"/v1/auth/check?action={kind}.read&kind={kind}&name={name}")
                assert read_answer(found, name) == read_answer(nothing, ABSENT)
                assert found.status_code == 403
