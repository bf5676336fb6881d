"""A password and a code in one credential: who sees what, and that both must be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.authenticators import REQUEST, Scripted, basic, bearer, make_context

from backend.auth.basic import Basic, read_basic
from backend.auth.both import All
from backend.auth.protocol import ABSTAIN, EVERYTHING, AuthRequest, Decision, challenge, deny, fail
from backend.errors import RefusedError

ALICE = Decision("allow", subject="alice", ttl=30)


def both(folder: Path, first: Scripted, *others: Scripted, types: tuple[str, ...] = ("htpasswd", "otp")) -> All:
    parts = iter((first, *others))
    context = make_context(folder, lambda _: next(parts))
    return All(context, {"type": "all", "of": [{"type": kind} for kind in types]})


def seen(part: Scripted) -> Basic | None:
    return read_basic(part.asked[0]) if part.asked else None


async def test_each_part_sees_its_own_share_alone(tmp_path: Path) -> None:
    password, code = Scripted(ALICE, "basic"), Scripted(ALICE, "basic")
    decision = await both(tmp_path, password, code).decide(basic("alice", "hunter2:x123456"))
    assert (decision.outcome, decision.subject) == ("allow", "alice")
    assert seen(password) == Basic("alice", b"hunter2:x")
    assert seen(code) == Basic("alice", b"123456")


@pytest.mark.parametrize(
    "answer", [challenge("Basic", "wrong"), deny("locked"), fail("down"), ABSTAIN], ids=lambda answer: answer.outcome
)
async def test_whatever_one_part_says_but_yes_decides(tmp_path: Path, answer: Decision) -> None:
    password, code = Scripted(answer, "basic"), Scripted(ALICE, "basic")
    decision = await both(tmp_path, password, code).decide(basic("alice", "hunter2123456"))
    assert decision.outcome == answer.outcome
    assert code.asked == []
    password, code = Scripted(ALICE, "basic"), Scripted(answer, "basic")
    decision = await both(tmp_path, password, code).decide(basic("alice", "hunter2123456"))
    # Who is not enrolled has no second factor: that is wrong, and nobody else's to say.
    assert decision.outcome == ("challenge" if answer is ABSTAIN else answer.outcome)


async def test_the_code_is_asked_last_whatever_the_order(tmp_path: Path) -> None:
    code, password = Scripted(ALICE, "basic"), Scripted(challenge("Basic", "wrong"), "basic")
    composite = both(tmp_path, code, password, types=("otp", "ldap"))
    assert (await composite.decide(basic("alice", "hunter2123456"))).outcome == "challenge"
    assert (len(password.asked), code.asked) == (1, [])


async def test_the_parts_must_agree_on_who_it_is(tmp_path: Path) -> None:
    composite = both(tmp_path, Scripted(ALICE, "basic"), Scripted(replace(ALICE, subject="bob"), "basic"))
    assert (await composite.decide(basic("alice", "hunter2123456"))).outcome == "deny"


@pytest.mark.parametrize("password", ["hunter2", "123456", "hunter212345x", "12345", "hunter2\u0661\u0662\u0663456"])
async def test_a_password_without_a_code_is_wrong_and_shown_to_nobody(tmp_path: Path, password: str) -> None:
    parts = Scripted(ALICE, "basic"), Scripted(ALICE, "basic")
    composite = both(tmp_path, *parts)
    assert composite.accepts(basic("alice", password))
    assert (await composite.decide(basic("alice", password))).outcome == "challenge"
    assert [part.asked for part in parts] == [[], []]


@pytest.mark.parametrize(
    "request_", [REQUEST, bearer("x123456"), bearer("kct_x"), basic("x", "kct_x123456")],
    ids=["none", "bearer", "token", "token in basic"],
)  # fmt: skip
def test_other_credentials_are_not_its_own(tmp_path: Path, request_: AuthRequest) -> None:
    assert not both(tmp_path, Scripted(ALICE, "basic"), Scripted(ALICE, "basic")).accepts(request_)


async def test_without_a_code_every_part_sees_all_of_it(tmp_path: Path) -> None:
    first, second = Scripted(ALICE), Scripted(replace(ALICE, groups=("staff",)))
    composite = both(tmp_path, first, second, types=("forward", "webhook"))
    assert composite.accepts(bearer("x"))
    assert not composite.accepts(basic("alice", "x"))
    decision = await composite.decide(bearer("x"))
    assert decision.groups == ("staff",)
    assert [part.asked for part in (first, second)] == [[bearer("x")]] * 2


@pytest.mark.parametrize(
    ("scopes", "whole"),
    [
        (("credential", "none"), "none"),
        (("credential", "request"), "request"),
        (("credential", "credential"), "credential"),
    ],
)
def test_what_one_part_does_not_keep_is_not_kept(tmp_path: Path, scopes: tuple[str, str], whole: str) -> None:
    first, second = (Scripted(ALICE, "basic", cache_scope=scope) for scope in scopes)
    assert both(tmp_path, first, second).cache_scope == whole


async def test_the_shortest_time_and_the_one_list_of_scopes_hold(tmp_path: Path) -> None:
    first = replace(ALICE, ttl=60, expires_at=0, revalidate_after=30)
    second = replace(ALICE, ttl=5, expires_at=9e9, revalidate_after=7, scopes=EVERYTHING, token="t")
    decision = await both(tmp_path, Scripted(first, "basic"), Scripted(second, "basic")).decide(basic("a", "b123456"))
    assert (decision.ttl, decision.expires_at, decision.revalidate_after) == (5, 9e9, 7)
    assert (decision.scopes, decision.token) == (EVERYTHING, "t")
    third = replace(ALICE, scopes=())
    decision = await both(tmp_path, Scripted(third, "basic"), Scripted(second, "basic")).decide(basic("a", "b123456"))
    assert decision.outcome == "error"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "of has fewer than two"),
        ({"of": [{"type": "htpasswd"}]}, "of has fewer than two"),
        ({"of": "htpasswd"}, "of is no list"),
        ({"of": [{"type": "otp"}, {"type": "otp"}]}, "more than one otp"),
        ({"of": [], "parts": []}, "parts is no setting"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: Mapping[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        All(make_context(tmp_path, lambda _: Scripted()), {"type": "all", **settings})


async def test_health_and_end_are_those_of_the_parts(tmp_path: Path) -> None:
    class Ill(Scripted):
        async def check_health(self) -> str:
            return "down"

    first, second = Ill(name="users"), Scripted()
    composite = both(tmp_path, first, second)
    assert await composite.check_health() == "users: down"
    await composite.close()
    assert (first.closed, second.closed) == (1, 1)
