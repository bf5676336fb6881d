"""How rights might be gained by what one may change, and are not: labels, other tokens, and the moment in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import settle
from support.tenants import ACME, guard, make_world

from backend.actor import Actor
from backend.auth.guarded import GuardedService
from backend.auth.protocol import EVERYTHING, Decision, Scope
from backend.errors import ConflictError, DeniedError, NotFoundError
from backend.local import LocalService
from backend.model.documents import format_time

DEVELOPER = (
    Scope(("vm.read", "vm.update", "vm.rename", "vm.start"), "tenant=acme"),
    Scope(("vm.console",), "open=true"),
    Scope(("vm.delete",), "name=scratch"),
)
LIMITED = (Scope(("vm.*",), "tenant=acme"), Scope(("token.*",), "owner=alice"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LocalService]:
    service = make_world(tmp_path)
    yield service
    service.close()


# --- labels
def test_nobody_labels_their_way_to_another_scope(world: LocalService) -> None:
    service = guard(world, DEVELOPER)
    labels = {"tenant": "acme", "open": True}
    with pytest.raises(DeniedError, match=r"gain vm\.console"):
        service.update({"kind": "VM", "name": "web", "metadata": labels})
    with pytest.raises(DeniedError, match=r"gain vm\.console"):
        service.preview({"kind": "VM", "name": "web", "metadata": labels})
    with pytest.raises(DeniedError, match=r"gain vm\.delete"):
        service.rename("web", "scratch")
    assert service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "note": 1}}).document


def test_nor_by_going_back_to_an_old_label(world: LocalService) -> None:
    settle(world, world.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "open": True}}))
    settle(world, world.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme"}}))
    service = guard(world, DEVELOPER)
    opened = next(
        entry.version for entry in world.history("VM", "web") if (entry.document or {})["metadata"].get("open")
    )
    with pytest.raises(DeniedError, match=r"gain vm\.console"):
        service.rollback("VM", "web", opened)
    with pytest.raises(DeniedError, match=r"gain vm\.console"):
        service.undo("VM", "web")


def test_a_label_that_gives_nothing_is_nobodys_matter(world: LocalService) -> None:
    settle(world, world.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "open": True}}))
    service = guard(world, DEVELOPER)
    assert service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "open": True, "n": 1}}).document
    assert guard(world, ACME).update(
        {"kind": "Image", "name": "aimage", "metadata": {"tenant": "acme", "shared": True}}
    )


# --- what is changed between the look and the change
class Moving:
    """A service in which somebody gives a VM to another tenant, right before it is changed."""

    def __init__(self, inner: LocalService, times: int = 1) -> None:
        self._inner = inner
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _move(self) -> None:
        if self._times:
            self._times -= 1
            label = {"tenant": "globex", "moved": self._times}
            settle(self._inner, self._inner.update({"kind": "VM", "name": "web", "metadata": label}))

    def update(self, document: dict[str, Any], **more: Any) -> Any:
        self._move()
        return self._inner.update(document, **more)

    def rollback(self, *arguments: Any, **more: Any) -> Any:
        self._move()
        return self._inner.rollback(*arguments, **more)


def test_who_was_given_a_vm_meanwhile_keeps_it(world: LocalService) -> None:
    service = guard(Moving(world))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme", "mine": True}})
    assert world.get("VM", "web")["metadata"]["tenant"] == "globex"


def test_nor_does_it_come_back_by_a_rollback(world: LocalService) -> None:
    with pytest.raises(ConflictError):
        guard(Moving(world)).rollback("VM", "web", 1)  # type: ignore[arg-type]
    assert world.get("VM", "web")["metadata"]["tenant"] == "globex"


def test_other_changes_meanwhile_are_no_hindrance(world: LocalService) -> None:
    everyone = (Scope(("vm.*",), "tenant in (acme,globex)"),)
    service = guard(Moving(world, 2), everyone)  # type: ignore[arg-type]
    accepted = service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme"}}, key="once")
    assert accepted.document["metadata"] == {"tenant": "acme"}
    again = service.update({"kind": "VM", "name": "web", "metadata": {"tenant": "acme"}}, key="once")
    assert again.document["version"] == accepted.document["version"]


# --- tokens that make tokens
def come_with(world: LocalService, scopes: tuple[Scope, ...], **more: Any) -> GuardedService:
    decision = Decision("allow", subject="token:ci", scopes=scopes, token="uid", **more)
    return GuardedService(world, decision, Actor("token:ci"))


def wish(name: str = "more", **spec: Any) -> dict[str, Any]:
    scopes = [{"actions": ["vm.start"], "selector": "tenant=acme"}]
    spec = {"type": "limited", "scopes": scopes, **spec}
    return {"kind": "Token", "name": name, "metadata": {"owner": "alice"}, "spec": spec}


@pytest.mark.parametrize("scopes", [LIMITED, EVERYTHING], ids=["limited", "everything"])
def test_a_narrowed_token_makes_none_that_is_not(world: LocalService, scopes: tuple[Scope, ...]) -> None:
    soon = format_time(time.time() + 60)
    world.create(wish("old"))
    service = come_with(world, scopes, narrowed=True, expires_at=time.time() + 3600)
    for call in (
        lambda: service.create(wish()),
        lambda: service.create(wish(expiresAt=soon)),
        lambda: service.check(wish()),
        lambda: service.update(wish("old", expiresAt=None)),
    ):
        with pytest.raises(DeniedError, match="narrowed"):
            call()
    assert service.update(wish("old") | {"metadata": {"owner": "alice", "note": 1}}).document["version"] == 2


def test_a_token_makes_none_that_outlives_it_nor_puts_off_its_end(world: LocalService) -> None:
    now = time.time()
    own_end = format_time(now + 3600)
    world.create(wish("ci", expiresAt=own_end))
    service = come_with(world, LIMITED, expires_at=now + 3600)
    for spec in (
        {},
        {"expiresAt": None},
        {"expires_at": None},
        {"expiresAt": format_time(now + 7200)},
        {"expiresAt": "whenever"},
        {"expiresAt": own_end, "expires_at": None},
    ):
        with pytest.raises(DeniedError, match="outlive"):
            service.create(wish(**spec))
        if spec:
            with pytest.raises(DeniedError, match="outlive"):
                service.update(wish("ci", **spec))
    assert service.create(wish(expiresAt=own_end)).document["token"].startswith("kct_")
    assert service.update(wish("ci", expiresAt=format_time(now + 60))).document["version"] == 2


def test_people_and_their_sessions_make_tokens_that_last(world: LocalService) -> None:
    session = come_with(world, LIMITED, expires_at=time.time() + 3600)
    session.decision = replace(session.decision, from_grants=True)
    for number, service in enumerate((session, guard(world, LIMITED), come_with(world, EVERYTHING, expires_at=1e10))):
        assert service.create(wish(f"more-{number}", expiresAt=None)).document["spec"]["expiresAt"] is None
