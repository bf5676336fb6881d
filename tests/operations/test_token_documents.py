"""Tokens as documents: a secret told once and kept nowhere, narrowed and never widened, gone for good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import close_services, make_service

from backend.auth.keys import open_master_key
from backend.auth.protocol import EVERYTHING, Decision
from backend.auth.secrets import digest_of, has_checksum, read_macaroon, uid_of, uid_of_god
from backend.auth.tokens import mint_session
from backend.errors import ConflictError, NotFoundError, RefusedError, UsageError
from backend.local import LocalService
from backend.model.documents import format_time

SCOPES = [{"actions": ["vm.start", "vm.stop"], "selector": "tenant=acme"}]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LocalService]:
    yield make_service(tmp_path)
    close_services()


def wish(name: str = "ci", **spec: Any) -> dict[str, Any]:
    whole = {"type": "limited", "scopes": SCOPES, **spec}
    return {"kind": "Token", "name": name, "metadata": {"tenant": "acme"}, "spec": whole}


def session_of(service: LocalService) -> dict[str, Any]:
    decision = Decision("allow", subject="alice", scopes=EVERYTHING, from_grants=True)
    return mint_session(service.store, open_master_key(service.settings), decision)[1]


def test_the_secret_is_told_once_and_kept_nowhere(service: LocalService, tmp_path: Path) -> None:
    accepted = service.create(wish())
    secret = accepted.document["token"]
    found = read_macaroon(secret)
    assert found is not None
    assert accepted.operation is None
    assert uid_of(found) == accepted.document["uid"] == service.get("Token", "ci")["uid"]
    god = service.create({"kind": "Token", "name": "root", "spec": {"type": "god"}}).document
    assert has_checksum(god["token"])
    assert (god["uid"], god["spec"]["digest"]) == (uid_of_god(god["token"]), digest_of(god["token"]))
    kept = [service.get("Token", "ci"), *service.list_documents("Token").items, *service.export()]
    kept += [entry.document for entry in service.history("Token", "root")]
    assert all("token" not in document for document in kept)
    service.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"kc.db", "auth.key"} <= {path.name for path in files}
    for text in (secret, secret[4:], god["token"], god["token"][4:47], found.signature.hex()):
        assert not [path for path in files if text.encode() in path.read_bytes()]
    assert not [path for path in files if found.signature in path.read_bytes()]


@pytest.mark.parametrize(
    ("document", "error", "words"),
    [
        (wish(type="session", scopes=None), UsageError, "logging in"),
        (wish(expiresAt="2020-01-01T00:00:00Z"), RefusedError, "it has passed"),
        ({**wish(), "spec": {"type": "god", "digest": "5" * 64}}, RefusedError, "KC makes the secret"),
        ({**wish(), "spec": {"type": "god", "scopes": SCOPES}}, RefusedError, "everything"),
        (wish(scopes=[{"actions": ["vm.fly"]}]), RefusedError, "no action"),
        (wish("../x"), RefusedError, "not a valid name"),
        (wish("taken"), ConflictError, "taken"),
    ],
    ids=["session", "past", "digest", "scopes", "action", "name", "taken"],
)
def test_what_makes_no_token_writes_nothing(
    service: LocalService, document: dict[str, Any], error: type[Exception], words: str
) -> None:
    service.create(wish("taken"))
    before = service.store.revision()
    for call in (service.create, service.check, service.preview):
        if document["name"] == "taken" and call == service.preview:
            continue  # that is a change of the one that is there
        with pytest.raises(error, match=words):
            call(document)
    assert service.store.revision() == before


def test_asking_again_with_a_key_makes_no_second_and_tells_no_secret(service: LocalService) -> None:
    first = service.create(wish(), key="k1").document
    again = service.create(wish(), key="k1").document
    assert again["uid"] == first["uid"]
    assert "token" not in again
    assert "shown then" in again["status"]["warnings"][0]
    assert "warnings" not in first["status"]
    with pytest.raises(ConflictError, match="something else"):
        service.create(wish("other"), key="k1")
    assert len(service.list_documents("Token").items) == 1
    everything = [str(record) for record in service.export()]
    assert not any(first["token"] in text for text in everything)


def test_a_token_is_only_narrowed(service: LocalService) -> None:
    service.create(wish())
    live = service.get("Token", "ci")

    def update(**spec: Any) -> dict[str, Any]:
        return service.update({"kind": "Token", "name": "ci", "spec": spec}).document

    for spec, words in (
        ({"scopes": [{"actions": ["vm.*"], "selector": "tenant=acme"}]}, "more than before"),
        ({"scopes": [*SCOPES, {"actions": ["image.read"]}]}, "more than before"),
        ({"scopes": [{"actions": ["vm.start"]}]}, "more than before"),
        ({"scopes": [{"actions": ["vm.start"], "selector": "tenant=bob"}]}, "more than before"),
        ({"type": "god", "scopes": None}, "spec.type cannot change"),
        ({"digest": "5" * 64}, "digest"),
        ({"subject": "alice"}, "subject"),
    ):
        with pytest.raises(RefusedError, match=words):
            update(**spec)
    assert service.get("Token", "ci") == live
    less = [{"actions": ["vm.start"], "selector": "tenant=acme,name=web"}]
    assert update(scopes=less)["spec"] == {**live["spec"], "scopes": less}
    with pytest.raises(RefusedError, match="more than before"):
        update(scopes=SCOPES)
    later = format_time(time.time() + 1e7)
    assert update(expiresAt=later)["spec"]["expiresAt"] == later
    assert update(expiresAt=None)["spec"]["expiresAt"] is None
    changed = service.update({"kind": "Token", "name": "ci", "metadata": {"tier": 1}}).document
    assert (changed["metadata"], changed["spec"]["scopes"], changed["version"]) == ({"tier": 1}, less, 5)
    assert service.preview({"kind": "Token", "name": "ci", "metadata": {}}).changes


def test_what_a_token_was_once_it_is_not_again(service: LocalService) -> None:
    service.create(wish())
    service.update({"kind": "Token", "name": "ci", "spec": {"scopes": [{**SCOPES[0], "actions": ["vm.start"]}]}})
    live = service.get("Token", "ci")
    for call in (lambda: service.undo("Token", "ci"), lambda: service.rollback("Token", "ci", 1)):
        with pytest.raises(UsageError, match="only narrowed"):
            call()
    assert service.get("Token", "ci") == live
    assert [entry.version for entry in service.history("Token", "ci")] == [1, 2]


@pytest.mark.parametrize("now", [True, False], ids=["now", "plainly"])
def test_a_deleted_token_is_gone_for_good(service: LocalService, now: bool) -> None:
    service.create(wish())
    uid = service.get("Token", "ci")["uid"]
    accepted = service.delete("Token", "ci", now=now, message="leaked")
    assert accepted.operation is None
    assert service.list_documents("Trash").items == []
    with pytest.raises(NotFoundError):
        service.get("Token", "ci")
    with pytest.raises(UsageError, match="cannot be brought back"):
        service.restore("Token", "ci")
    for call in (lambda: service.undo("Token", "ci"), lambda: service.rollback("Token", "ci", 1)):
        with pytest.raises(NotFoundError):
            call()
    assert [entry.message for entry in service.history("Token", "ci")][-1] == "leaked"
    again = service.create(wish()).document
    assert again["uid"] != uid


def test_sessions_are_hidden_and_end_by_name(service: LocalService) -> None:
    document = session_of(service)
    service.create(wish())
    assert [item["name"] for item in service.list_documents("Token").items] == ["ci"]
    assert [item["name"] for item in service.list_documents("Token", selector="tenant=acme").items] == ["ci"]
    everything = service.list_documents("Token", everything=True).items
    assert [item["name"] for item in everything] == ["ci", document["name"]]
    with pytest.raises(RefusedError, match="stays as it is"):
        service.update({"kind": "Token", "name": document["name"], "spec": {"expiresAt": None}})
    with pytest.raises(RefusedError):
        service.update({"kind": "Token", "name": document["name"], "spec": {"scopes": [{"actions": ["*"]}]}})
    service.update({"kind": "Token", "name": document["name"], "metadata": {"note": "lent"}})
    service.delete("Token", document["name"])
    assert [item["name"] for item in service.list_documents("Token", everything=True).items] == ["ci"]


def test_a_watch_tells_of_tokens_and_no_secret(service: LocalService) -> None:
    since = service.store.revision()
    secret = service.create(wish()).document["token"]
    service.delete("Token", "ci")
    feed = service.watch(["Token"], since=since)
    events = [event for event in (next(feed), next(feed)) if event is not None]
    assert [event.type for event in events][-1] == "deleted"
    assert secret not in str(events)
    feed.close()


def test_tokens_move_with_an_export(service: LocalService, tmp_path: Path) -> None:
    service.create(wish(expiresAt=format_time(time.time() + 1)))
    service.create({"kind": "Token", "name": "root", "spec": {"type": "god"}})
    other = make_service(tmp_path / "other")
    other.load(service.export())
    assert other.list_documents("Token").items == service.list_documents("Token").items
