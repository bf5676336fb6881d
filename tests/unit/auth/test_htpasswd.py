"""Basic credentials against a file: who comes in, who does not, and when the file is not believed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.authenticating import basic_request, decide, make_context, raw_request, ticking, wait_until

from backend.auth import htpasswd as module
from backend.auth.htpasswd import Htpasswd
from backend.auth.htpasswd_file import parse_groups, parse_users
from backend.errors import RefusedError

Make = Callable[..., Htpasswd]


@pytest.fixture(scope="module")
def secret_hash() -> str:
    from passlib.hash import bcrypt

    return str(bcrypt.using(rounds=4, ident="2y").hash(b"secret"))


@pytest.fixture
async def make(tmp_path: Path, secret_hash: str) -> AsyncIterator[Make]:
    """Makes the authenticator of a file with these lines; `HASH` is the hash of "secret"."""
    made: list[Htpasswd] = []
    context = make_context(tmp_path)
    context.paths.config.mkdir()

    def build(*lines: str, **settings: Any) -> Htpasswd:
        path = context.paths.config / "users"
        path.write_bytes("".join(f"{line}\n".replace("HASH", secret_hash) for line in lines).encode("latin-1"))
        made.append(Htpasswd(context, {"type": "htpasswd", "file": "users", **settings}))
        return made[-1]

    yield build
    for each in made:
        await each.close()
    context.store.close()


async def test_a_right_password_is_let_in_under_its_name_and_may_be_kept(make: Make) -> None:
    decision = await decide(make("alice:HASH"), "alice", "secret")
    assert (decision.outcome, decision.subject, decision.ttl, decision.scopes) == ("allow", "alice", 60.0, None)
    assert (await decide(make("alice:HASH", ttl=5), "alice", "secret")).ttl == 5.0
    assert Htpasswd.cache_scope == "credential"


async def test_a_wrong_password_is_asked_for_again_and_an_unknown_user_left_to_the_next(make: Make) -> None:
    authenticator = make("alice:HASH")
    wrong, unknown = await decide(authenticator, "alice", "wrong"), await decide(authenticator, "bob", "secret")
    assert (wrong.outcome, unknown.outcome) == ("challenge", "abstain")
    assert wrong.challenges == unknown.challenges == ('Basic realm="KC", charset="UTF-8"',)
    assert wrong.reason == unknown.reason


@pytest.mark.parametrize(
    "credential",
    [
        b"Basic",
        b"Basic ",
        b"Basic !!!!",
        b"Basic YWxpY2U=",  # no colon
        b"Basic OnNlY3JldA==",  # no user
        b"Basic YWxpY2U6",  # no password
        b"Basic YWxpY2U6c2VjcmV0AA==",  # a NUL behind the password
        b"Basic YWxpY2UAOnNlY3JldA==",  # a NUL behind the user
        b"Basic /2FsaWNlOnNlY3JldA==",  # no UTF-8
        b"Basic GzpzZWNyZXQ=",  # ESC as a user
        b"Basic " + b"YWxpY2U6" + b"QUFB" * 400,
    ],
)
async def test_what_is_no_credential_is_never_let_in(make: Make, credential: bytes) -> None:
    decision = await make("alice:HASH", "\x1b:HASH", "\xff\x61lice:HASH").decide(raw_request(credential))
    assert decision.outcome == "challenge"


def test_it_claims_basic_credentials_alone_and_never_sees_a_token_of_kcs(make: Make) -> None:
    authenticator = make("alice:HASH")
    assert authenticator.accepts(basic_request("alice", "secret"))
    assert authenticator.accepts(raw_request(b"bASIC  YWxpY2U6c2VjcmV0"))
    assert not authenticator.accepts(raw_request(b"Bearer YWxpY2U6c2VjcmV0"))
    assert not authenticator.accepts(raw_request(b""))
    assert not authenticator.accepts(basic_request("token", "kcg_" + "a" * 49))


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("alice:", ""),
        ("alice:!", "!"),
        ("alice:secret", "secret"),
        ("alice:{PLAIN}secret", "secret"),
        ("alice:rqXexS6ZhobKA", "secret"),  # DES
        ("alice:$1$abcdefgh$gJd8A4vUdV4hGsbZy.LZu/", "secret"),
        ("alice:$2y$31$" + "a" * 53, "secret"),  # a day of work
        ("alice:$6$rounds=999999999$salt$" + "a" * 86, "secret"),
        ("alice:$2y$05$short", "secret"),
        ("alice:$apr1$", "secret"),
        ("alice", "secret"),
        (":HASH", "secret"),
        ("#alice:HASH", "secret"),
        (" alice:HASH", "secret"),
        ("alice :HASH", "secret"),
        ("alice: HASH", "secret"),
        ("alice:HASH ", "secret"),
        ("ALICE:HASH", "secret"),
    ],
)
async def test_a_line_without_a_safe_hash_lets_nobody_in_and_spoils_no_other(
    make: Make, line: str, password: str
) -> None:
    authenticator = make(line, "bob:HASH")
    assert not (await decide(authenticator, "alice", password)).allowed
    assert not (await decide(authenticator, "alice", line.partition(":")[2] or "x")).allowed
    assert (await decide(authenticator, "bob", "secret")).allowed


async def test_the_first_line_of_a_user_counts_and_of_it_the_second_field(make: Make) -> None:
    assert not (await decide(make("alice:x", "alice:HASH"), "alice", "secret")).allowed
    assert (await decide(make("alice:HASH:Alice A.", "alice:x"), "alice", "secret")).allowed
    assert (await decide(make("alice:HASH\r", "", "# bob"), "alice", "secret")).allowed


async def test_bcrypt_looks_at_72_bytes_as_it_does_elsewhere(make: Make) -> None:
    from passlib.hash import bcrypt

    stored = bcrypt.using(rounds=4).hash(b"a" * 72)
    authenticator = make(f"alice:{stored}")
    assert (await decide(authenticator, "alice", "a" * 72)).allowed
    assert (await decide(authenticator, "alice", "a" * 72 + "and more")).allowed
    assert not (await decide(authenticator, "alice", "a" * 71)).allowed


async def test_a_changed_file_counts_at_once(make: Make, tmp_path: Path) -> None:
    authenticator = make("alice:HASH")
    path = tmp_path / "config" / "users"
    assert (await decide(authenticator, "alice", "secret")).allowed
    assert (await decide(authenticator, "alice", "secret")).allowed
    content = path.read_bytes()
    # Of the same size, at nearly the same time, and in the same inode.
    path.write_bytes(content.replace(b"alice", b"bobby"))
    assert not (await decide(authenticator, "alice", "secret")).allowed
    assert (await decide(authenticator, "bobby", "secret")).allowed
    replacement = path.with_name("new")
    replacement.write_bytes(content)
    replacement.replace(path)
    assert (await decide(authenticator, "alice", "secret")).allowed
    path.unlink()
    assert (await decide(authenticator, "alice", "secret")).outcome == "error"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
async def test_a_file_that_others_may_write_is_not_believed(make: Make, tmp_path: Path, mode: int) -> None:
    authenticator = make("alice:HASH")
    path = tmp_path / "config" / "users"
    assert (await decide(authenticator, "alice", "secret")).allowed
    path.chmod(mode)
    decision = await decide(authenticator, "alice", "secret")
    assert decision.outcome == "error"
    assert "others may write it" in decision.detail
    assert f"chmod 6{(mode & 0o055) >> 3 & 5}{mode & 5} {path}" in await authenticator.check_health()
    path.chmod(0o640)
    assert (await decide(authenticator, "alice", "secret")).allowed


async def test_what_is_no_file_is_an_error_and_no_hang(make: Make, tmp_path: Path) -> None:
    authenticator = make("alice:HASH")
    path = tmp_path / "config" / "users"
    for make_other in (lambda: None, lambda: os.mkfifo(path, 0o600), path.mkdir):
        path.unlink(missing_ok=True)
        make_other()
        async with asyncio.timeout(2):
            assert (await decide(authenticator, "alice", "secret")).outcome == "error"
            assert await authenticator.check_health()


async def test_groups_come_from_a_file_of_apaches_form(make: Make, tmp_path: Path) -> None:
    groups = tmp_path / "config" / "groups"
    groups.write_text("# who may what\nops: alice bob\nempty:\n\nteam a: alice\r\nops: alice\n")
    authenticator = make("alice:HASH", "carol:HASH", groupFile="groups")
    assert (await decide(authenticator, "alice", "secret")).groups == ("ops", "team a")
    assert (await decide(authenticator, "carol", "secret")).groups == ()
    groups.chmod(0o666)
    assert (await decide(authenticator, "alice", "secret")).outcome == "error"


async def test_health_warns_of_weak_hashes_and_lines_of_no_use(make: Make) -> None:
    weak = "a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
    assert await make("alice:HASH").check_health() == ""
    assert (await make("alice:HASH", weak).check_health()).startswith("warning: 1 of 2 users have a hash that is")
    assert "1 of 2 users cannot come in" in await make("alice:HASH", "b:plain").check_health()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"file": ""}, "file is missing"),
        ({"file": 3}, "file is no text"),
        ({"file": "users", "ttl": -1}, "ttl is no number from 0"),
        ({"file": "users", "weak": ["des_crypt"]}, "weak is no setting"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    context = make_context(tmp_path)
    with pytest.raises(RefusedError, match=said):
        Htpasswd(context, {"type": "htpasswd", "name": "staff", **settings})
    context.store.close()


# --- cost


async def test_hashing_leaves_the_loop_alone_and_too_many_at_once_are_told_to_come_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, running, most = threading.Event(), [], []

    def verify(*_: Any) -> bool:
        running.append(1)
        most.append(len(running))
        gate.wait(10)
        running.pop()
        return True

    monkeypatch.setattr(module, "verify", verify)
    authenticator = make("alice:HASH")
    async with ticking() as ticker:
        asked = [asyncio.create_task(decide(authenticator, "alice", "secret")) for _ in range(100)]
        done, waiting = await asyncio.wait(asked, timeout=0.5)
        assert {(task.result().outcome, task.result().status) for task in done} == {("error", 429)}
        assert all(task.result().retry_after == 1.0 for task in done)
        assert len(waiting) == 34
        gate.set()
        assert [decision.outcome for decision in await asyncio.gather(*waiting)] == ["allow"] * 34
    assert max(most) == 2
    assert ticker.longest < 0.1


async def test_hashes_that_take_too_long_are_given_up_and_their_threads_stay_two(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(module, "verify", lambda *_: gate.wait(10))
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    authenticator = make("alice:HASH")
    before = threading.active_count()
    decisions = await asyncio.gather(*(decide(authenticator, "alice", "secret") for _ in range(20)))
    assert {(decision.outcome, decision.status) for decision in decisions} == {("error", 429)}
    assert threading.active_count() <= before + 2
    gate.set()
    monkeypatch.undo()
    await asyncio.to_thread(wait_until, lambda: authenticator._workers._count == 0, "what was given up has ended")
    assert (await decide(authenticator, "alice", "secret")).allowed


async def test_an_unknown_user_costs_the_commonest_hash_of_the_file(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    monkeypatch.setattr(module, "verify", lambda entry, _password: bool(compared.append(entry.scheme)) or True)
    sha = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
    authenticator = make(f"a:{sha}", "b:HASH", "c:HASH", f"d:{sha}", "e:HASH", "odd:plain")
    assert (await decide(authenticator, "nobody", "x")).outcome == "abstain"
    assert (await decide(authenticator, "odd", "plain")).outcome == "challenge"
    assert compared == ["bcrypt", "bcrypt"]
    assert parse_users(b"").usual is None
    assert (await decide(make(), "nobody", "x")).outcome == "abstain"


def test_a_group_file_is_read_whatever_is_in_it() -> None:
    assert parse_groups(b"\xff:alice\n:bob\nops alice\n") == {"alice": ("\N{REPLACEMENT CHARACTER}",)}
