"""Documents over HTTP: conditions, merge patches, pages, keys, and JSON that is read strictly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.api_server import ApiServer, running_server

from backend.api.conditions import read_tags
from backend.errors import UsageError

PATCH = {"Content-Type": "application/merge-patch+json"}
TYPE_SPEC = {"hardware": {"cpus": 1, "memoryMiB": 256, "diskGiB": 1}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home: Path = tmp_path_factory.mktemp("documents")
    with running_server(home) as running:
        running.make_vm("web", tenant="acme")
        yield running


@pytest.fixture
def client(server: ApiServer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@pytest.fixture
def small(client: httpx.Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A machine type of its own: it changes without an operation."""
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    made = client.post("/v1/machine-types", json={"name": name, "metadata": {"a": 1}, "spec": TYPE_SPEC})
    assert made.status_code == 201, made.text
    yield f"/v1/machine-types/{name}"
    client.delete(f"/v1/machine-types/{name}?now=true")


# --- reading


def test_a_document_has_its_version_as_entity_tag(client: httpx.Client) -> None:
    answer = client.get("/v1/vms/web")
    assert (answer.status_code, answer.headers["etag"]) == (200, f'"{answer.json()["version"]}"')
    assert answer.headers["kc-api"] == "1"
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("known", "status"), [('"1"', 304), ('W/"1"', 304), ("*", 304), ('"7", "1"', 304), ('"7"', 200)]
)
def test_what_is_known_is_not_sent_again(client: httpx.Client, known: str, status: int) -> None:
    answer = client.get("/v1/vms/web", headers={"If-None-Match": known})
    assert answer.status_code == status
    assert bool(answer.content) == (status == 200)


def test_head_is_get_without_its_body(client: httpx.Client) -> None:
    whole, head = client.get("/v1/networks/default?observe=false"), client.head("/v1/networks/default?observe=false")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_pages_follow_one_another(client: httpx.Client) -> None:
    whole = [item["name"] for item in client.get("/v1/machine-types").json()["items"]]
    found, after = [], ""
    while True:
        page = client.get("/v1/machine-types", params={"limit": 1, "continue": after}).json()
        found += [item["name"] for item in page["items"]]
        after = page["continue"]
        if not after:
            break
    assert len(found) > 2
    assert found == whole


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=10001", "limit=x", "limit=1&limit=2", "all=yes", "nonsense=1", "limit", "selector=%ff", "a=%zz"],
)
def test_a_query_that_the_table_lacks_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/vms?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_another_method_is_told_which_there_are(client: httpx.Client) -> None:
    answer = client.post("/v1/samples")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    options = client.options("/v1/vms/web")
    assert (options.status_code, options.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
    assert not [name for name in options.headers if name.startswith("access-control")]


def test_an_object_may_be_named_like_a_word_of_the_interface(server: ApiServer, client: httpx.Client) -> None:
    for name in ("preview", "check"):
        made = client.post("/v1/machine-types", json={"name": name, "spec": TYPE_SPEC})
        assert made.status_code == 201
        assert client.get(f"/v1/machine-types/{name}").json()["name"] == name
        assert client.delete(f"/v1/machine-types/{name}").status_code == 200


# --- writing


def test_a_vm_is_made_with_an_operation_that_is_found_at_its_place(client: httpx.Client) -> None:
    spec = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}]}
    made = client.post("/v1/vms", json={"name": "made", "spec": spec})
    assert made.status_code == 202, made.text
    operation = made.json()["operation"]["name"]
    assert made.headers["location"] == f"/v1/operations/{operation}"
    with client.stream("GET", f"/v1/operations/{operation}/wait?timeout=20") as events:
        last = [line for line in events.iter_lines() if line.startswith("event:")][-1]
    assert last == "event: end"
    assert client.get("/v1/vms/made").json()["status"]["power"] == "running"
    assert client.delete("/v1/vms/made?now=true").status_code == 202


def test_put_makes_what_is_missing_and_changes_what_is_there(client: httpx.Client) -> None:
    path = "/v1/machine-types/put"
    made = client.put(path, json={"spec": TYPE_SPEC})
    assert (made.status_code, made.headers["location"]) == (201, path)
    again = client.put(path, json={"metadata": {"b": 2}, "spec": TYPE_SPEC})
    assert (again.status_code, again.headers["etag"]) == (200, '"2"')
    assert client.put(path, json={"spec": TYPE_SPEC}, headers={"If-None-Match": "*"}).status_code == 412
    assert client.put(path, json={"name": "other", "spec": TYPE_SPEC}).status_code == 422
    assert client.delete(path).status_code == 200
    assert client.put(path, json={"spec": TYPE_SPEC}, headers={"If-Match": '"1"'}).status_code == 412


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"1"', 200),
        ("*", 200),
        ('"9", "1"', 200),
        ('"9"', 412),
        ('W/"1"', 412),
        ('"x"', 412),
        ("1", 400),
        ('"1" "2"', 400),
    ],
)
def test_a_stale_version_is_a_failed_precondition(
    client: httpx.Client, small: str, condition: str, status: int
) -> None:
    answer = client.patch(small, json={"metadata": {"a": 2}}, headers={**PATCH, "If-Match": condition})
    assert answer.status_code == status, answer.text
    assert client.get(small).json()["metadata"] == {"a": 2 if status == 200 else 1}


def test_a_stale_version_in_the_document_is_a_conflict(client: httpx.Client, small: str) -> None:
    assert client.patch(small, json={"version": 5, "metadata": {"a": 2}}, headers=PATCH).status_code == 409
    assert client.put(small, json={"version": 5, "spec": TYPE_SPEC}).status_code == 409


def test_a_merge_patch_changes_adds_and_takes_away(client: httpx.Client, small: str) -> None:
    change = {"metadata": {"a": None, "b": {"c": [1]}}, "spec": {"hardware": {"cpus": 2}}}
    answer = client.patch(small, json=change, headers=PATCH)
    assert answer.status_code == 200, answer.text
    document = answer.json()["document"]
    assert document["metadata"] == {"b": {"c": [1]}}
    assert (document["spec"]["hardware"]["cpus"], document["spec"]["hardware"]["memoryMiB"]) == (2, 256)
    assert client.patch(small, json={"status": {}}, headers=PATCH).status_code == 422
    assert client.patch(small, json={"metadata": None}, headers=PATCH).status_code == 422


def test_patches_of_several_at_once_are_all_there(server: ApiServer, small: str) -> None:
    answers: list[httpx.Response] = []

    def change(number: int) -> None:
        with server.client() as own:
            answers.append(own.patch(small, json={"metadata": {f"k{number}": number}}, headers=PATCH))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    with server.client() as own:
        assert own.get(small).json()["metadata"] == {"a": 1, **{f"k{number}": number for number in range(4)}}


def test_versions_are_listed_gone_back_to_and_undone(client: httpx.Client, small: str) -> None:
    client.patch(small, json={"metadata": {"a": 2}}, headers=PATCH)
    assert [entry["version"] for entry in client.get(f"{small}/versions").json()["items"]] == [1, 2]
    assert client.get(f"{small}?version=1").json()["metadata"] == {"a": 1}
    assert client.post(f"{small}/rollback", json={"version": 1}).json()["document"]["metadata"] == {"a": 1}
    assert client.post(f"{small}/undo").json()["document"]["metadata"] == {"a": 2}
    assert client.post(f"{small}/rollback", json={"version": 77}).status_code == 404
    assert client.post(f"{small}/undo", headers={"If-Match": '"1"'}).status_code == 412


def test_a_deleted_object_comes_back(client: httpx.Client, small: str) -> None:
    assert client.delete(small, headers={"If-Match": '"3"'}).status_code == 412
    assert client.delete(small, headers={"If-Match": '"1"'}).status_code == 200
    assert client.get(small).status_code == 404
    assert client.post(f"{small}/restore").json()["document"]["metadata"] == {"a": 1}


def test_the_same_key_does_the_same_once_for_each_subject(server: ApiServer, client: httpx.Client) -> None:
    body = {"name": "keyed", "spec": TYPE_SPEC}
    first = client.post("/v1/machine-types", json=body, headers={"Idempotency-Key": "k-1"})
    second = client.post("/v1/machine-types", json=body, headers={"Idempotency-Key": "k-1"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["document"]["uid"] == second.json()["document"]["uid"]
    other = client.post("/v1/machine-types", json={**body, "name": "other"}, headers={"Idempotency-Key": "k-1"})
    assert other.status_code == 409
    with server.unix_client() as root:
        assert root.post("/v1/machine-types", json=body, headers={"Idempotency-Key": "k-1"}).status_code == 409
    assert client.post("/v1/machine-types", json=body, headers={"Idempotency-Key": "a b"}).status_code == 400


def test_a_preview_writes_nothing(client: httpx.Client, small: str) -> None:
    name = small.rpartition("/")[2]
    body = {"name": name, "metadata": {"a": 5}, "spec": TYPE_SPEC}
    found = client.post("/v1/machine-types/preview", json=body).json()
    assert [change["path"] for change in found["changes"]] == [["metadata", "a"]]
    checked = client.post("/v1/machine-types/check", json={"name": "new", "spec": TYPE_SPEC})
    assert (checked.status_code, checked.json()["name"]) == (200, "new")
    assert client.get(small).json()["version"] == 1


def test_the_secret_of_a_token_is_in_the_answer_to_its_creation_alone(client: httpx.Client, server: ApiServer) -> None:
    spec = {"type": "limited", "scopes": [{"actions": ["vm.read"], "selector": ""}]}
    made = client.post("/v1/tokens", json={"name": "fresh", "spec": spec})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    secret = made.json()["token"]
    assert secret not in client.get("/v1/tokens/fresh").text + client.get("/v1/tokens").text
    with server.client(secret) as limited:
        assert limited.get("/v1/vms").status_code == 200
        assert limited.post("/v1/tokens", json={"name": "more", "spec": {"type": "god"}}).status_code == 403
        assert client.delete("/v1/tokens/fresh").status_code == 200
        assert limited.get("/v1/vms").status_code == 401


# --- bodies


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b'{"name": "x", "name": "y", "spec": {}}', 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": NaN}}', 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": 1e999}}', 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": 99999999999999999999}}', 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": "\\ud800"}}', 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": "\xff"}}', 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": ' + b"[" * 70 + b"]" * 70 + b"}}", 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": ' + b"[" * 100_000 + b"}}", 400),
        (b'{"name": "x", "spec": {}, "metadata": {"n": "' + b"[" * 100 + b'"}}', 201),
        (b'{"name": "X", "spec": {}}', 422),
        (b'{"name": "x", "spec": {"unknown": 1}}', 422),
        (b'{"name": "x", "spec": {}, "metadata": {"n": "' + b"x" * (1 << 20) + b'"}}', 413),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else f"{value[:48].decode('latin-1')!r}-{len(value)}",
)  # fmt: skip
def test_only_plain_json_is_read(client: httpx.Client, body: bytes, status: int) -> None:
    answer = client.post("/v1/machine-types", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    if status == 201:
        client.delete("/v1/machine-types/x")
    else:
        assert answer.json()["status"] == status


@pytest.mark.parametrize(
    "media",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "multipart/form-data"],
)
def test_a_body_of_another_type_is_not_read(client: httpx.Client, media: str) -> None:
    headers = {"Content-Type": media} if media else {}
    answer = client.post("/v1/machine-types", content=b'{"name": "x", "spec": {}}', headers=headers)
    assert answer.status_code == 415


def test_a_compressed_body_is_not_opened(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post("/v1/machine-types", content=b"x", headers=headers).status_code == 415


# --- lists that are kept


def test_a_list_shows_what_was_written_before_it_was_asked(server: ApiServer, client: httpx.Client) -> None:
    with server.client(server.acme) as acme:
        for number in range(30):
            assert client.patch("/v1/vms/web", json={"metadata": {"n": number}}, headers=PATCH).status_code in (
                200,
                202,
                409,
            )
            wanted = client.get("/v1/vms/web").json()["metadata"]
            for each in (client, acme):
                (found,) = [item for item in each.get("/v1/vms").json()["items"] if item["name"] == "web"]
                assert found["metadata"] == wanted


def test_kept_lists_are_those_of_their_scopes_alone(server: ApiServer, client: httpx.Client) -> None:
    server.make_vm("hidden", tenant="other")
    with server.client(server.acme) as acme:
        for _ in range(3):
            everything, some = client.get("/v1/vms").json(), acme.get("/v1/vms").json()
            assert {item["name"] for item in everything["items"]} >= {"web", "hidden"}
            assert [item["name"] for item in some["items"]] == ["web"]
            assert (everything["filtered"], some["filtered"]) == (False, True)
    assert server.server.application.server.lists.hits > 0


def test_tags_are_read_as_the_standard_says() -> None:
    found: Any = read_tags("If-Match", '"1", W/"2","x"')
    assert (found.strong, found.weak) == ({1}, {2})
    assert read_tags("If-Match", "") is None
    with pytest.raises(UsageError):
        read_tags("If-Match", '"1')
