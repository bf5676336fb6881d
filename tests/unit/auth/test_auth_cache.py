"""Decisions that are kept: which, for how long, for whom, and what they are found by."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from support.authenticators import REQUEST, bearer

from backend.auth.cache import MAXIMUM_TTL, DecisionCache
from backend.auth.protocol import AuthRequest, Client, Decision, Peer, Resource, deny, fail

ALLOW = Decision("allow", subject="alice", ttl=30)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asked:
    def __init__(self, answer: Decision = ALLOW) -> None:
        self.answer = answer
        self.times = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Decision:
        self.times += 1
        await self.gate.wait()
        return self.answer


def key(
    cache: DecisionCache, request: AuthRequest, scope: str = "credential", name: str = "a", header: str = "h"
) -> bytes:
    return cache.make_key(name, header, scope, request)  # type: ignore[arg-type]


async def test_an_allow_is_kept_for_its_time() -> None:
    clock, asked = Clock(), Asked()
    cache = DecisionCache(clock=clock)
    for _ in range(3):
        assert await cache.find_or_ask(b"k", asked) == ALLOW
    assert asked.times == 1
    clock.now += 30
    await cache.find_or_ask(b"k", asked)
    assert asked.times == 2


async def test_no_time_is_longer_than_the_longest() -> None:
    clock, asked = Clock(), Asked(replace(ALLOW, ttl=86400))
    cache = DecisionCache(clock=clock)
    await cache.find_or_ask(b"k", asked)
    clock.now += MAXIMUM_TTL - 0.1
    await cache.find_or_ask(b"k", asked)
    assert asked.times == 1
    clock.now += 0.2
    await cache.find_or_ask(b"k", asked)
    assert asked.times == 2


async def test_a_credential_that_expires_is_kept_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = Clock(), Asked(replace(ALLOW, expires_at=time.time() + 5))
    cache = DecisionCache(clock=clock)
    await cache.find_or_ask(b"k", asked)
    clock.now += 4
    await cache.find_or_ask(b"k", asked)
    assert asked.times == 1
    clock.now += 1.1
    await cache.find_or_ask(b"k", asked)
    assert asked.times == 2
    # The wall's clock was set forward: what has expired by it has expired.
    later = time.time() + 60
    monkeypatch.setattr("backend.auth.cache.time.time", lambda: later)
    await cache.find_or_ask(b"k", asked)
    assert asked.times == 3


@pytest.mark.parametrize(
    "answer",
    [deny("no"), fail("down"), Decision("abstain", ttl=30), Decision("challenge", ttl=30), replace(ALLOW, ttl=0),
     replace(ALLOW, ttl=-1), replace(ALLOW, ttl=float("nan")), replace(ALLOW, expires_at=1.0)],
    ids=["deny", "error", "abstain", "challenge", "no time", "negative", "nan", "expired"],
)  # fmt: skip
async def test_nothing_else_is_kept(answer: Decision) -> None:
    cache, asked = DecisionCache(), Asked(answer)
    for _ in range(2):
        assert await cache.find_or_ask(b"k", asked) is answer
    assert asked.times == 2
    assert len(cache) == 0


async def test_sixteen_first_requests_ask_once() -> None:
    cache, asked = DecisionCache(), Asked()
    asked.gate.clear()
    waiting = [asyncio.ensure_future(cache.find_or_ask(b"k", asked)) for _ in range(16)]
    await asyncio.sleep(0)
    asked.gate.set()
    assert await asyncio.gather(*waiting) == [ALLOW] * 16
    assert asked.times == 1


async def test_who_asked_first_may_leave() -> None:
    cache, asked = DecisionCache(), Asked()
    asked.gate.clear()
    first = asyncio.ensure_future(cache.find_or_ask(b"k", asked))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(cache.find_or_ask(b"k", asked))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    asked.gate.set()
    assert await second == ALLOW
    assert first.cancelled()
    assert asked.times == 1


async def test_what_is_revoked_counts_no_more_even_while_it_is_asked() -> None:
    cache, asked = DecisionCache(), Asked()
    await cache.find_or_ask(b"k", asked)
    before = cache.generation
    cache.invalidate()
    assert cache.generation > before
    asked.gate.clear()
    old = asyncio.ensure_future(cache.find_or_ask(b"k", asked))
    await asyncio.sleep(0)
    cache.invalidate()
    # Who comes after the revocation is not given what was asked before it.
    new = asyncio.ensure_future(cache.find_or_ask(b"k", asked))
    await asyncio.sleep(0)
    asked.gate.set()
    await asyncio.gather(old, new)
    assert asked.times == 3
    assert len(cache) == 1


async def test_an_answer_from_before_a_revocation_is_not_kept() -> None:
    cache, asked = DecisionCache(), Asked()
    asked.gate.clear()
    old = asyncio.ensure_future(cache.find_or_ask(b"k", asked))
    await asyncio.sleep(0)
    cache.invalidate()
    asked.gate.set()
    await old
    assert len(cache) == 0


async def test_the_least_used_goes_first() -> None:
    cache, asked = DecisionCache(limit=3), Asked()
    for name in (b"1", b"2", b"3", b"1", b"4"):
        await cache.find_or_ask(name, asked)
    assert (len(cache), asked.times) == (3, 4)
    await cache.find_or_ask(b"1", asked)
    assert asked.times == 4
    await cache.find_or_ask(b"2", asked)
    assert asked.times == 5


async def test_closing_ends_what_is_being_asked() -> None:
    cache, asked = DecisionCache(), Asked()
    asked.gate.clear()
    waiting = asyncio.ensure_future(cache.find_or_ask(b"k", asked))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# --- keys


def test_a_key_tells_nothing_and_differs_by_process() -> None:
    request = bearer("hunter2")
    one, other = DecisionCache(), DecisionCache()
    assert key(one, request) == key(one, request)
    assert key(one, request) != key(other, request)
    assert b"hunter2" not in key(one, request)
    assert "hunter2" not in repr(vars(one))


def test_parts_never_run_into_one_another() -> None:
    cache = DecisionCache()
    keys = {
        key(cache, replace(REQUEST, credential=credential), name=name, header=header)
        for name, header, credential in [
            ("a", "bc", b"d"), ("ab", "c", b"d"), ("a", "b", b"cd"), ("", "abc", b"d"), ("a", "bcd", b""),
        ]
    }  # fmt: skip
    assert len(keys) == 5


def test_a_credential_is_the_same_from_wherever_and_a_request_is_not() -> None:
    cache = DecisionCache()
    base = bearer("x", resource=Resource("vm", "web", "u-1", {"tenant": "acme"}))
    others = [
        replace(base, action="vm.start"), replace(base, method="POST"), replace(base, path="/v1/vms/web"),
        replace(base, query="a=b"), replace(base, host="other"), replace(base, phase="renew"),
        replace(base, client=Client("tls", "192.0.2.7")), replace(base, client=Client("tcp", "192.0.2.8")),
        replace(base, client=Client("unix", "192.0.2.7", Peer(1, 2, 3))),
        replace(base, client=base.client._replace(tls_fingerprint="SHA256:x")),
        replace(base, client=base.client._replace(ssh_fingerprint="SHA256:x")),
        replace(base, resource=None), replace(base, resource=Resource("image", "web", "u-1", {"tenant": "acme"})),
        replace(base, resource=Resource("vm", "db", "u-1", {"tenant": "acme"})),
        replace(base, resource=Resource("vm", "web", "u-2", {"tenant": "acme"})),
        replace(base, resource=Resource("vm", "web", "u-1", {"tenant": "other"})),
        replace(base, resource=Resource("vm", "web", "u-1")),
    ]  # fmt: skip
    assert {key(cache, other) for other in others} == {key(cache, base)}
    assert len({key(cache, other, "request") for other in [base, *others]}) == len(others) + 1
    assert key(cache, replace(base, request_id="r-2"), "request") == key(cache, base, "request")
    assert key(cache, bearer("y")) != key(cache, base)
