"""Codes as oathtool makes them, and one code from several processes at once."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.authenticating import decide, make_context

from backend.auth.enrolment import Enrolments
from backend.auth.otp import Otp

NOW = 1_900_000_000
RFC_SEED = b"12345678901234567890"
WORKER = Path(__file__).with_name("otp_worker.py")


def oathtool(secret: str, at: int, *options: str) -> str:
    """Return the code that oathtool makes of a base32 secret for a moment."""
    command = ["oathtool", "--totp", "-b", f"--now=@{at}", *options, secret]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


class Enrolled:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.context = make_context(home)
        self.enrolments = Enrolments(self.context.store, self.context.key)
        self.secret = self.enrolments.begin("alice").secret
        self.enrolments.activate("alice", oathtool(self.secret, NOW - 300), now=NOW - 300)
        self.authenticator = Otp(self.context, {"type": "otp"})
        self.authenticator.clock = lambda: float(NOW)


@pytest.fixture
async def enrolled(tmp_path: Path) -> AsyncIterator[Enrolled]:
    made = Enrolled(tmp_path)
    yield made
    await made.authenticator.close()
    made.context.store.close()


async def test_a_code_of_oathtools_is_let_in_once(enrolled: Enrolled) -> None:
    code = oathtool(enrolled.secret, NOW)
    assert (await decide(enrolled.authenticator, "alice", code)).allowed
    assert not (await decide(enrolled.authenticator, "alice", code)).allowed


@pytest.mark.parametrize(("off", "allowed"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
async def test_oathtools_clock_may_be_half_a_minute_off(enrolled: Enrolled, off: int, allowed: bool) -> None:
    code = oathtool(enrolled.secret, NOW + off)
    assert (await decide(enrolled.authenticator, "alice", code)).allowed is allowed


async def test_a_code_of_this_very_moment(enrolled: Enrolled) -> None:
    enrolled.authenticator.clock = time.time
    earlier = int(time.time()) - 300
    secret = enrolled.enrolments.begin("bob").secret
    enrolled.enrolments.activate("bob", oathtool(secret, earlier), now=earlier)
    assert (await decide(enrolled.authenticator, "bob", oathtool(secret, int(time.time())))).allowed


def test_the_test_values_of_rfc_6238(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = base64.b32encode(RFC_SEED).decode()
    assert oathtool(secret, 59, "--digits=8") == "94287082"
    monkeypatch.setattr("pyotp.random_base32", lambda: secret)
    context = make_context(tmp_path)
    enrolments = Enrolments(context.store, context.key)
    assert enrolments.begin("alice").secret == secret
    assert enrolments.activate("alice", "287082", now=59)
    # Each is from appendix B, its last six digits: 1111111109, 1234567890, 20000000000.
    for at, code in ((1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert not enrolments.use("alice", code, now=at + 120)
        assert enrolments.use("alice", code, now=at)
    context.store.close()


@pytest.mark.parametrize("attempt", range(3))
def test_one_code_in_two_processes_at_once_lets_one_in(enrolled: Enrolled, attempt: int) -> None:
    now = NOW + 300 * attempt
    code = oathtool(enrolled.secret, now)
    command = [sys.executable, str(WORKER), str(enrolled.home), "alice", code, str(now)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(2)
        ]
        for worker in workers:
            stack.callback(worker.kill)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = [worker.communicate(timeout=60)[0].split(maxsplit=1) for worker in workers]
    assert [trouble.strip() for _, trouble in said] == ["[]", "[]"]
    assert sum(int(count) for count, _ in said) == 1
    # Nor does it count in a third one, which comes after both.
    assert not enrolled.enrolments.use("alice", code, now=now)
