"""A chain of real authenticators by a settings file: Apache's files, codes, tokens, and what refusals tell."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pyotp
import pytest
from support.authenticators import REQUEST, basic, bearer

from backend.audit import AuditTrail
from backend.auth.chain import FAILURE_SECONDS, Chain
from backend.auth.enrolment import Enrolments
from backend.auth.keys import open_master_key
from backend.auth.opening import open_chain
from backend.auth.protocol import Scope
from backend.auth.tokens import end_session, mint_session
from backend.settings import load_settings
from backend.store.opening import open_store
from backend.store.protocol import Store

CONFIG = """
[[auth.chain]]
type = "tokens"

[[auth.chain]]
type = "all"
name = "staff"
of = [{ type = "htpasswd", file = "staff" }, { type = "otp" }]

[[auth.grants]]
subject = "alice"
actions = ["*"]

[[auth.grants]]
actions = ["vm.read"]
selector = "owner={subject}"
"""
PASSWORDS = CONFIG.replace("""type = "all"
name = "staff"
of = [{ type = "htpasswd", file = "staff" }, { type = "otp" }]""", """type = "htpasswd"
file = "staff"
""")  # fmt: skip


class Rig:
    """A chain by a settings file, and what it is made from."""

    def __init__(self, home: Path, config: str) -> None:
        self.file = home / "config" / "config.toml"
        self.file.parent.mkdir(parents=True)
        self.file.write_text(config)
        for option, user in (("-cbB", "alice"), ("-bm", "bob"), ("-bs", "carol")):
            users = home / "config" / "staff"
            subprocess.run(["htpasswd", option, users, user, f"pw-{user}"], check=True, capture_output=True)
        settings = load_settings(environment={"KC_HOME": str(home)})
        self.store: Store = open_store(settings.store_url)
        self.key = open_master_key(settings)
        self.audit = AuditTrail(home / "audit")
        self.chain: Chain = open_chain(settings, self.store, self.audit)

    async def close(self) -> None:
        await self.chain.close()
        self.audit.close()
        self.store.close()


@pytest.fixture
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "home", getattr(request, "param", CONFIG))
    yield made
    await made.close()


async def test_a_password_and_a_code_let_in_once_and_make_a_session(rig: Rig) -> None:
    enrolments = Enrolments(rig.store, rig.key)
    totp = pyotp.TOTP(enrolments.begin("alice").secret)
    now = time.time()
    enrolments.activate("alice", totp.at(now - 30), now=now - 30)
    credential = basic("alice", f"pw-alice{totp.at(now)}")
    first = await rig.chain.decide(credential)
    assert (first.outcome, first.subject, first.authenticator) == ("allow", "alice", "staff")
    assert first.scopes == (Scope(("*",)), Scope(("vm.read",), 'owner="alice"'))
    again = await rig.chain.decide(credential)
    assert (again.outcome, again.status) == ("challenge", 401)
    # The password alone, and whom nobody has enrolled, come in neither.
    assert (await rig.chain.decide(basic("alice", "pw-alice"))).status == 401
    assert (await rig.chain.decide(basic("bob", "pw-bob123456"))).status == 401

    secret, document = mint_session(rig.store, rig.key, first)
    session = await rig.chain.decide(bearer(secret))
    assert (session.subject, session.scopes) == ("alice", first.scopes)
    before = await rig.chain.refresh()
    end_session(rig.store, document["uid"], by="alice")
    async with asyncio.timeout(2):
        while await rig.chain.refresh() == before:  # noqa: ASYNC110 - the chain is what is asked
            await asyncio.sleep(0.05)
    assert (await rig.chain.decide(bearer(secret))).status == 401
    rig.audit.flush()
    lines = "".join(path.read_text() for path in rig.audit.folder.iterdir())
    assert lines.count('"staff"') >= 4
    for hidden in (secret, "pw-alice", credential.parameters.decode()):
        assert hidden not in lines


@pytest.mark.parametrize("rig", [PASSWORDS], indirect=True, ids=["passwords"])
async def test_unknown_users_and_wrong_passwords_take_the_same_time(rig: Rig) -> None:
    users = ("alice", "bob", "carol", "mallory")
    took: dict[str, list[float]] = {user: [] for user in users}
    answers = set()

    async def guess(user: str) -> None:
        began = time.monotonic()
        decision = await rig.chain.decide(basic(user, "pw-wrong"))
        took[user].append(time.monotonic() - began)
        answers.add((decision.outcome, decision.status, decision.reason, decision.challenges))

    for _ in range(5):
        await asyncio.gather(*map(guess, users))
    assert len(answers) == 1
    medians = [statistics.median(times) for times in took.values()]
    assert min(medians) >= FAILURE_SECONDS
    assert max(medians) - min(medians) < 0.01


@pytest.mark.parametrize("rig", [PASSWORDS], indirect=True, ids=["passwords"])
async def test_sixteen_at_once_are_one_hash_and_a_changed_file_counts_at_once(rig: Rig) -> None:
    decisions = await asyncio.gather(*(rig.chain.decide(basic("alice", "pw-alice")) for _ in range(16)))
    assert {decision.subject for decision in decisions} == {"alice"}
    users = rig.file.parent / "staff"
    subprocess.run(["htpasswd", "-D", users, "alice"], check=True, capture_output=True)  # noqa: ASYNC221 - it is short
    async with asyncio.timeout(2):
        while (await rig.chain.decide(basic("alice", "pw-alice"))).allowed:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("rig", [""], indirect=True, ids=["no settings"])
async def test_without_settings_a_network_has_no_access_until_there_is_a_token(rig: Rig) -> None:
    for request in (REQUEST, basic("alice", "pw-alice"), bearer("x")):
        assert (await rig.chain.decide(request)).status == 401
    assert [entry.name for entry in rig.chain.entries] == ["tokens", "ssh-keys", "peer"]
