"""The order of the chain, what ends it, and that it is shut whenever it is in doubt."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from support.authenticators import REQUEST, Scripted, basic, bearer, from_peer, line_up, link

from backend.auth.chain import Chain
from backend.auth.claims import MAXIMUM_CREDENTIAL
from backend.auth.grants import read_grants
from backend.auth.links import Lineup
from backend.auth.protocol import ABSTAIN, EVERYTHING, AuthRequest, Decision, Resource, Scope, challenge, deny, fail
from backend.auth.verdicts import MAXIMUM_SUBJECT
from backend.errors import RefusedError

ALICE = Decision("allow", subject="alice", groups=("staff",), scopes=EVERYTHING)
WRONG = challenge('Bearer realm="KC"', "unknown token")


class Trail:
    """What would be in the audit trail."""

    def __init__(self) -> None:
        self.written = threading.Event()
        self.entries: list[tuple[dict[str, Any], bool]] = []

    def record(self, entry: dict[str, Any], *, durable: bool) -> None:
        self.entries.append((dict(entry), durable))
        self.written.set()


def chain_of(*authenticators: Any, **parts: Any) -> Chain:
    keywords = {key: parts.pop(key) for key in ("audit",) if key in parts}
    return Chain(line_up(*authenticators, **parts), failure_seconds=0, **keywords)


TOKEN = bearer("x")


async def decide(*authenticators: Any, request: AuthRequest = TOKEN, **parts: Any) -> Decision:
    return await chain_of(*authenticators, **parts).decide(request)


# --- order


@pytest.mark.parametrize("answer", [ALICE, deny("no"), WRONG, fail("down")], ids=lambda answer: answer.outcome)
async def test_the_first_that_does_not_abstain_decides(answer: Decision) -> None:
    before, first, second = Scripted(), Scripted(answer), Scripted(replace(ALICE, subject="mallory"))
    decision = await decide(before, first, second)
    assert decision.outcome == answer.outcome
    assert decision.authenticator == "scripted-2"
    assert (len(before.asked), len(second.asked)) == (1, 0)


async def test_a_credential_is_shown_to_nobody_who_does_not_claim_it() -> None:
    other, own = Scripted(ALICE, "basic"), Scripted(ALICE)
    assert (await decide(other, own)).authenticator == "scripted-2"
    assert other.asked == []


async def test_where_all_abstain_all_challenges_ask() -> None:
    one = Scripted(replace(ABSTAIN, challenges=('Bearer realm="KC"',)), challenges=('Bearer realm="KC"',))
    decision = await decide(one, Scripted(scheme="basic", challenges=('Basic realm="KC"',)))
    assert (decision.outcome, decision.status) == ("challenge", 401)
    assert decision.challenges == ('Bearer realm="KC"', 'Basic realm="KC"')


async def test_without_a_credential_everything_is_asked_for() -> None:
    decision = await decide(Scripted(ALICE, challenges=('Basic realm="KC"',)), request=REQUEST)
    assert (decision.outcome, decision.challenges) == ("challenge", ('Basic realm="KC"',))
    assert (await decide(request=REQUEST)).challenges == ('Bearer realm="KC"',)


# --- failures


def fail_to_accept(request: AuthRequest) -> bool:
    raise ValueError(request.credential)


@pytest.mark.parametrize(
    "answer",
    [ValueError("hunter2"), RefusedError("x", "hunter2"), TimeoutError("hunter2"), None, True, "allow",
     asyncio.CancelledError(), Decision("maybe"), SystemError("hunter2")],  # type: ignore[arg-type]
    ids=["ValueError", "KCError", "TimeoutError", "None", "True", "text", "cancelled", "no outcome", "SystemError"],
)  # fmt: skip
async def test_whatever_fails_ends_the_chain_with_503(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    after = Scripted(ALICE)
    decision = await decide(Scripted(answer), after, request=bearer("hunter2"))
    assert (decision.outcome, decision.status, decision.scopes) == ("error", 503, ())
    assert decision.retry_after >= 1
    assert after.asked == []
    assert "scripted-1 failed" in caplog.text
    assert "hunter2" not in caplog.text + repr(decision)


async def test_claiming_that_fails_ends_it_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = Scripted(ALICE)
    first.accepts = fail_to_accept  # type: ignore[method-assign]
    decision = await decide(first, Scripted(ALICE), request=bearer("hunter2"))
    assert decision.status == 503
    assert "ValueError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_one_that_does_not_answer_in_time_is_an_error() -> None:
    slow, after = Scripted(ALICE, before=lambda: asyncio.sleep(60)), Scripted(ALICE)
    chain = Chain(Lineup((link(slow, timeout=0.05), link(after))), failure_seconds=0)
    began = time.monotonic()
    decision = await chain.decide(bearer("x"))
    assert (decision.status, decision.detail) == (503, "no answer in 0.05 s")
    assert time.monotonic() - began < 1
    assert after.asked == []
    assert chain.entries[0].health == "no answer in 0.05 s"


async def test_the_whole_chain_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.auth.chain.CHAIN_SECONDS", 0.1)
    slow = [Scripted(ABSTAIN, before=lambda: asyncio.sleep(0.08)) for _ in range(5)]
    chain = Chain(Lineup(tuple(link(each, str(n), timeout=0.1) for n, each in enumerate(slow))), failure_seconds=0)
    decision = await chain.decide(bearer("x"))
    assert (decision.status, decision.detail) == (503, "the chain took too long")


async def test_no_more_ask_at_one_time_than_may() -> None:
    gate = asyncio.Event()
    authenticator = Scripted(ALICE, before=gate.wait)
    chain = Chain(Lineup((link(authenticator, concurrency=2),)), failure_seconds=0)
    waiting = [asyncio.ensure_future(chain.decide(bearer(str(n)))) for n in range(30)]
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    # 2 at work, 16 in the queue, and the rest know at once.
    assert [(task.result()).status for task in done] == [503] * 12
    gate.set()
    decisions = await asyncio.gather(*waiting)
    assert sum(decision.allowed for decision in decisions) == 18
    assert authenticator.most == 2


async def test_a_client_that_leaves_ends_its_question() -> None:
    authenticator = Scripted(ALICE, before=lambda: asyncio.sleep(60))
    chain = chain_of(authenticator)
    task = asyncio.ensure_future(chain.decide(bearer("x")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert authenticator._running == 0


async def test_a_credential_beyond_all_measure_is_shown_to_nobody() -> None:
    authenticator = Scripted(ALICE)
    decision = await decide(authenticator, request=bearer("x" * MAXIMUM_CREDENTIAL))
    assert (decision.status, authenticator.asked) == (401, [])


# --- final answers


async def test_grants_say_what_a_subject_may_do() -> None:
    grants = read_grants([{"group": "staff", "actions": ["vm.read"], "selector": "owner={subject}"}], "x")
    decision = await decide(Scripted(replace(ALICE, scopes=None)), grants=grants)
    assert decision.scopes == (Scope(("vm.read",), 'owner="alice"'),)


async def test_who_has_no_grant_may_do_nothing() -> None:
    decision = await decide(Scripted(replace(ALICE, scopes=None)))
    assert (decision.outcome, decision.scopes, decision.status) == ("allow", (), 0)


@pytest.mark.parametrize(
    "subject", ["", "a\nb", "a\x1b[2J", "x" * (MAXIMUM_SUBJECT + 1), "\u202eroot", "root\u200b", None],
    ids=["empty", "line", "escape", "long", "override", "zero width", "none"],
)  # fmt: skip
async def test_a_subject_that_could_be_taken_for_another_is_refused(subject: Any) -> None:
    decision = await decide(Scripted(replace(ALICE, subject=subject)))
    assert (decision.outcome, decision.status, decision.scopes, decision.groups) == ("deny", 403, (), ())
    assert decision.reason == "the name of the subject cannot be used"


async def test_groups_that_cannot_be_shown_are_none() -> None:
    decision = await decide(Scripted(replace(ALICE, groups=("staff", "a\nb", "", "x" * 300))))
    assert decision.groups == ("staff",)


@pytest.mark.parametrize(
    "scope", [Scope(("vm.fly",)), Scope(("*",), "tenant>"), Scope(("*",), "status.power=off")], ids=str
)
async def test_scopes_that_are_none_let_nobody_in(scope: Scope) -> None:
    decision = await decide(Scripted(replace(ALICE, scopes=(Scope(("vm.read",)), scope))))
    assert (decision.outcome, decision.status, decision.authenticator) == ("error", 503, "scripted-1")


async def test_an_allow_that_has_ended_is_none() -> None:
    decision = await decide(Scripted(replace(ALICE, expires_at=time.time() - 1)))
    assert (decision.outcome, decision.status) == ("challenge", 401)


@pytest.mark.parametrize(
    ("answer", "status", "retry"),
    [
        (Decision("deny", status=429, retry_after=7), 429, 7),
        (Decision("deny", status=200), 403, 0),
        (Decision("error", status=429), 429, 1),
        (Decision("error", status=200, retry_after=float("inf")), 503, 1),
        (Decision("challenge", status=503), 401, 0),
    ],
)
async def test_a_refusal_has_a_status_that_refuses(answer: Decision, status: int, retry: float) -> None:
    decision = await decide(Scripted(answer))
    assert (decision.status, decision.retry_after, decision.allowed) == (status, retry, False)


async def test_texts_of_authenticators_cannot_leave_their_place() -> None:
    hostile = 'Basic realm="x"\r\nSet-Cookie: a=b'
    answer = Decision("challenge", challenges=(hostile, "Basic é", 'Basic realm="KC"'), reason="a\x1b[2Jb\n" * 500)
    decision = await decide(Scripted(answer), request=bearer("kcg_x"))
    assert decision.challenges == ('Basic realm="KC"',)
    assert "\x1b" not in decision.reason
    assert len(decision.reason) <= 300


# --- what a refusal tells


@pytest.mark.parametrize(
    "answer",
    [ABSTAIN, challenge("Basic", "unknown user"), challenge("Basic", "wrong password")],
    ids=lambda a: a.reason,
)
async def test_refusals_of_passwords_look_alike_and_come_late(answer: Decision) -> None:
    authenticator = Scripted(answer, "basic", challenges=("Basic",))
    chain = Chain(line_up(authenticator), failure_seconds=0.2)
    began = time.monotonic()
    decision = await chain.decide(basic("alice", "x"))
    assert 0.2 <= time.monotonic() - began < 0.35
    assert (decision.reason, decision.challenges) == ("the credential is not accepted", ("Basic",))


@pytest.mark.parametrize("request_", [REQUEST, bearer("kct_x"), from_peer(1)], ids=["none", "token", "peer"])
async def test_what_cannot_be_guessed_is_refused_at_once(request_: AuthRequest) -> None:
    began = time.monotonic()
    decision = await Chain(line_up(Scripted(WRONG)), failure_seconds=5).decide(request_)
    assert not decision.allowed
    assert time.monotonic() - began < 1


# --- audit


async def test_every_decision_is_in_the_audit_trail() -> None:
    trail = Trail()
    chain = chain_of(Scripted(replace(ALICE, token="t-1")), audit=trail)
    resource = Resource("vm", "web", "u-1", {"tenant": "acme"})
    await chain.decide(bearer("hunter2", action="vm.start", resource=resource))
    await chain.decide(bearer("hunter2"))
    await chain.decide(REQUEST)
    await chain.decide(basic("bob", "hunter2"))
    (start, _), (read, _), (nobody, _), _ = trail.entries
    assert start == {
        "event": "decision", "requestId": "r-1", "subject": "alice", "authenticator": "scripted-1",
        "outcome": "allow", "action": "vm.start", "kind": "vm", "name": "web", "uid": "u-1", "transport": "tcp",
        "client": "192.0.2.7", "token": "t-1", "reason": "",
    }  # fmt: skip
    assert (read["action"], nobody["outcome"]) == ("vm.read", "challenge")
    # What waits for a disk here holds every request up; what is changed is on it before it happens.
    assert [durable for _, durable in trail.entries] == [False] * 4
    assert "hunter2" not in repr(trail.entries)


async def test_who_leaves_before_the_refusal_is_in_the_trail() -> None:
    trail = Trail()
    chain = Chain(line_up(Scripted(WRONG, "basic")), audit=trail, failure_seconds=60)  # type: ignore[arg-type]
    task = asyncio.ensure_future(chain.decide(basic("alice", "guess")))
    assert await asyncio.to_thread(trail.written.wait, 5)
    task.cancel()
    assert trail.entries[0][0]["reason"] == "unknown token"


# --- the cache in the chain


@pytest.mark.parametrize(("scope", "times"), [("none", 4), ("credential", 1), ("request", 2)])
async def test_decisions_are_kept_as_far_as_their_authenticator_says(scope: str, times: int) -> None:
    authenticator = Scripted(replace(ALICE, ttl=30), cache_scope=scope)
    chain = chain_of(authenticator)
    for action in ("vm.read", "vm.start"):
        for _ in range(2):
            assert (await chain.decide(bearer("x", action=action))).subject == "alice"
    assert len(authenticator.asked) == times
    chain.invalidate()
    await chain.decide(bearer("x"))
    assert len(authenticator.asked) == times + 1


async def test_sixteen_at_once_are_one_question() -> None:
    authenticator = Scripted(replace(ALICE, ttl=30), cache_scope="credential", before=lambda: asyncio.sleep(0.05))
    chain = chain_of(authenticator)
    decisions = await asyncio.gather(*(chain.decide(bearer("x")) for _ in range(16)))
    assert all(decision.allowed for decision in decisions)
    assert len(authenticator.asked) == 1


# --- explanations and entries


async def test_an_explanation_says_who_said_what() -> None:
    chain = chain_of(Scripted(scheme="basic"), Scripted(), Scripted(deny("locked")), Scripted(ALICE))
    found = await chain.explain(bearer("x"))
    assert found.decision.reason == "locked"
    outcomes = [(answer.name, answer.decision.outcome if answer.decision else "") for answer in found.answers]
    assert outcomes == [("scripted-1", ""), ("scripted-2", "abstain"), ("scripted-3", "deny")]


async def test_entries_tell_what_is_in_the_chain_and_how_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Ill(Scripted):
        async def check_health(self) -> str:
            raise ConnectionError("hunter2")

        async def close(self) -> None:
            raise ConnectionError("hunter2")

    well = Scripted()
    chain = chain_of(Ill(), well)
    assert chain.entries[0][:4] == ("scripted-1", "scripted", "kc-test", "1")
    first, second = await chain.check_health()
    assert first.health.startswith("ConnectionError at ")
    assert second.health == ""
    with caplog.at_level(logging.WARNING):
        await chain.close()
    await chain.close()
    assert well.closed
    assert "scripted-1 does not close" in caplog.text
    assert "hunter2" not in caplog.text
