"""One-time codes: each counts once, guesses are few, and what cannot be written down lets nobody in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from support.authenticating import basic_request, decide, make_context, raw_request, ticking

from backend.auth.context import AuthContext
from backend.auth.enrolment import Enrolments, split_code
from backend.auth.otp import ALL_GUESSES, GUESSES, Limiter, Otp
from backend.errors import RefusedError, UnreachableError

NOW = 1_900_000_000.0
"""Ten seconds before a code changes."""


class Rig:
    """An enrolled alice, whose clock and KC's stand at `NOW`."""

    def __init__(self, home: Path) -> None:
        self.context = make_context(home)
        self.enrolments = Enrolments(self.context.store, self.context.key)
        self.totp = pyotp.TOTP(self.enrolments.begin("alice").secret)
        self.recovery = self.enrolments.activate("alice", self.totp.at(NOW - 300), now=NOW - 300)
        self.authenticator = self.open()

    def open(self, context: AuthContext | None = None, **settings: Any) -> Otp:
        authenticator = Otp(context or self.context, {"type": "otp", **settings})
        authenticator.clock = lambda: NOW
        return authenticator

    async def ask(self, code: str, user: str = "alice") -> str:
        decision = await decide(self.authenticator, user, code)
        return f"{decision.outcome} {decision.status}" if decision.status else decision.outcome


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await made.authenticator.close()
    made.context.store.close()


async def test_a_code_lets_in_once(rig: Rig) -> None:
    decision = await decide(rig.authenticator, "alice", rig.totp.at(NOW))
    assert (decision.outcome, decision.subject, decision.ttl) == ("allow", "alice", 0.0)
    assert Otp.cache_scope == "none"
    again = await decide(rig.authenticator, "alice", rig.totp.at(NOW))
    assert (again.outcome, again.reason) == ("challenge", "wrong or used one-time code")


async def test_an_older_code_than_the_last_one_counts_no_more(rig: Rig) -> None:
    assert await rig.ask(rig.totp.at(NOW)) == "allow"
    assert await rig.ask(rig.totp.at(NOW - 30)) == "challenge"
    assert await rig.ask(rig.totp.at(NOW + 30)) == "allow"


@pytest.mark.parametrize(
    ("off", "outcome"), [(-60, "challenge"), (-30, "allow"), (0, "allow"), (30, "allow"), (60, "challenge")]
)
async def test_a_clock_may_be_half_a_minute_off(rig: Rig, off: int, outcome: str) -> None:
    assert await rig.ask(rig.totp.at(NOW + off)) == outcome


async def test_how_far_clocks_may_be_off_is_a_setting(rig: Rig) -> None:
    rig.authenticator = rig.open(drift=0)
    assert await rig.ask(rig.totp.at(NOW - 30)) == "challenge"
    rig.authenticator = rig.open(drift=60)
    assert await rig.ask(rig.totp.at(NOW - 60)) == "allow"


async def test_of_fifty_at_once_with_one_code_one_comes_in(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.auth.otp.GUESSES", 1000)
    code = rig.totp.at(NOW)
    async with ticking() as ticker:
        decisions = await asyncio.gather(*(decide(rig.authenticator, "alice", code) for _ in range(50)))
    assert sorted(decision.outcome for decision in decisions) == ["allow", *["challenge"] * 49]
    assert ticker.longest < 0.1


async def test_of_fifty_at_once_only_a_few_are_looked_at(rig: Rig) -> None:
    code = rig.totp.at(NOW)
    decisions = await asyncio.gather(*(decide(rig.authenticator, "alice", code) for _ in range(50)))
    found = [decision.status or decision.outcome for decision in decisions]
    assert (found.count("allow"), found.count("challenge"), found.count(429)) == (1, GUESSES - 1, 50 - GUESSES)


async def test_a_used_code_stays_used_after_a_restart(rig: Rig, tmp_path: Path) -> None:
    assert await rig.ask(rig.totp.at(NOW)) == "allow"
    rig.context.store.close()
    rig.context = make_context(tmp_path)
    rig.authenticator = rig.open()
    assert await rig.ask(rig.totp.at(NOW)) == "challenge"


async def test_the_code_that_put_an_enrolment_in_force_is_used(rig: Rig) -> None:
    bob = pyotp.TOTP(rig.enrolments.begin("bob").secret)
    assert await rig.ask(bob.at(NOW), "bob") == "challenge"
    rig.enrolments.activate("bob", bob.at(NOW), now=NOW)
    assert await rig.ask(bob.at(NOW), "bob") == "challenge"
    assert await rig.ask(bob.at(NOW + 30), "bob") == "allow"


async def test_nobody_comes_in_with_the_code_of_somebody_else(rig: Rig) -> None:
    assert await rig.ask(rig.totp.at(NOW), "bob") == "challenge"
    assert await rig.ask(rig.totp.at(NOW), "Alice") == "challenge"
    assert await rig.ask(rig.totp.at(NOW)) == "allow"


@pytest.mark.parametrize("code", ["12345", "1234567", "１２３４５６", "12 456", "-12345", "+12345", "0x1234", "abcdef"])
async def test_what_has_not_the_form_of_a_code_is_not_claimed(rig: Rig, code: str) -> None:
    assert not rig.authenticator.accepts(basic_request("alice", code))
    assert await rig.ask(code) == "challenge"


def test_codes_in_basic_credentials_are_claimed(rig: Rig) -> None:
    assert rig.authenticator.accepts(basic_request("alice", "123456"))
    assert rig.authenticator.accepts(basic_request("alice", rig.recovery[0]))
    assert not rig.authenticator.accepts(raw_request(b"Bearer 123456"))
    assert not rig.authenticator.accepts(basic_request("alice", "password123456"))


# --- recovery


async def test_each_recovery_code_works_once_and_for_its_own_user_alone(rig: Rig) -> None:
    first, second, *others = rig.recovery
    assert len({first, second, *others}) == 10
    assert await rig.ask(first, "bob") == "challenge"
    assert await rig.ask(first) == "allow"
    assert await rig.ask(first) == "challenge"
    assert await rig.ask(second) == "allow"
    assert rig.enrolments.list_all()[0].recovery_codes == 8
    assert await rig.ask(rig.totp.at(NOW)) == "allow"


async def test_of_many_with_one_recovery_code_one_comes_in(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.auth.otp.GUESSES", 1000)
    outcomes = await asyncio.gather(*(rig.ask(rig.recovery[0]) for _ in range(30)))
    assert sorted(outcomes) == ["allow", *["challenge"] * 29]


async def test_two_different_recovery_codes_at_once_both_work(rig: Rig) -> None:
    assert await asyncio.gather(*(rig.ask(code) for code in rig.recovery[:4])) == ["allow"] * 4


def test_a_code_is_cut_off_the_end_of_a_password(rig: Rig) -> None:
    recovery = rig.recovery[0].encode()
    assert split_code(b"s3cret123456") == (b"s3cret", b"123456")
    assert split_code(b"s3cret" + recovery) == (b"s3cret", recovery)
    assert split_code(b"123456") == (b"", b"123456")
    assert split_code(b"1234567890") == (b"1234", b"567890")
    assert split_code(b"\xff\xfe123456") == (b"\xff\xfe", b"123456")
    assert split_code(b"s3cret") is None
    assert split_code(b"s3cret12345\n") is None
    assert split_code(b"") is None


# --- guesses


async def test_the_sixth_guess_in_a_minute_is_not_looked_at_and_were_it_right(rig: Rig) -> None:
    for _ in range(GUESSES):
        assert await rig.ask("000000") == "challenge"
    decision = await decide(rig.authenticator, "alice", rig.totp.at(NOW))
    assert (decision.outcome, decision.status) == ("deny", 429)
    assert 0 < decision.retry_after <= 60
    bob = pyotp.TOTP(rig.enrolments.begin("bob").secret)
    rig.enrolments.activate("bob", bob.at(NOW - 300), now=NOW - 300)
    assert await rig.ask(bob.at(NOW), "bob") == "allow"


async def test_all_users_together_have_a_limit_too(rig: Rig) -> None:
    outcomes = [await rig.ask("000000", f"user-{number}") for number in range(ALL_GUESSES + 1)]
    assert outcomes == ["challenge"] * ALL_GUESSES + ["deny 429"]


def test_guesses_are_forgotten_after_a_minute_and_good_codes_are_none() -> None:
    now = 1000.0
    limiter = Limiter(lambda: now)
    assert [limiter.take("alice") for _ in range(GUESSES)] == [0.0] * GUESSES
    now += 20
    assert limiter.take("alice") == 40.0
    limiter.give_back("alice")
    assert limiter.take("alice") == 0.0
    assert limiter.take("alice") == 40.0
    now += 40
    assert [limiter.take("alice") for _ in range(GUESSES - 1)] == [0.0] * (GUESSES - 1)
    assert limiter.take("alice") == 20.0
    limiter.give_back("nobody")


# --- trouble


async def test_a_store_that_does_not_answer_is_an_error_and_no_wrong_code(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise UnreachableError("store", "it does not answer")

    for method in ("transaction", "find"):
        monkeypatch.setattr(type(rig.context.store), method, fail)
        for _ in range(GUESSES + 1):  # none of them counts as a guess
            assert await rig.ask(rig.totp.at(NOW)) == "error"
    monkeypatch.undo()
    assert await rig.ask(rig.totp.at(NOW)) == "allow"


async def test_without_the_key_nobody_comes_in_and_health_says_so(rig: Rig, tmp_path: Path) -> None:
    assert await rig.authenticator.check_health() == ""
    (tmp_path / "data" / "auth.key").unlink()
    rig.authenticator = rig.open(make_context(tmp_path, rig.context.store))
    assert await rig.ask(rig.totp.at(NOW)) == "error"
    assert "does not open it" in await rig.authenticator.check_health()


async def test_a_seed_that_was_put_under_another_name_is_worth_nothing(rig: Rig) -> None:
    store = rig.context.store
    bob = pyotp.TOTP(rig.enrolments.begin("bob").secret)
    rig.enrolments.activate("bob", bob.at(NOW - 300), now=NOW - 300)
    alice, seed = store.find("Enrolment", "alice"), store.find("Enrolment", "bob")["spec"]["seed"]
    for spec in ({"seed": seed}, {"seed": seed, "subject": "bob"}, {"seed": "!"}):
        body = {key: value for key, value in alice.items() if key not in ("version", "status")}
        with store.transaction() as transaction:
            transaction.put({**body, "spec": {**body["spec"], **spec}})
        assert await rig.ask(bob.at(NOW)) == "error"


@pytest.mark.parametrize("settings", [{"drift": 500}, {"drift": "30"}, {"digits": 8}])
def test_bad_otp_settings_are_refused(rig: Rig, settings: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        rig.open(**settings)
