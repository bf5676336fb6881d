"""What must not be lost on the way to a decision: news of a revocation, and whose decision it was."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from support.authenticators import Scripted, from_peer, line_up

from backend.auth.chain import Chain, Look
from backend.auth.links import Lineup
from backend.auth.opening import open_chain
from backend.auth.protocol import EVERYTHING, AuthRequest, Decision, Scope
from backend.errors import RefusedError, UnreachableError
from backend.settings import load_settings
from backend.store.opening import open_store

CONFIG = """
[[auth.chain]]
type = "peer"
everything = []
users = ["uid:{uid}"]
[[auth.grants]]
actions = ["{action}"]
"""


class BadSettings:
    """Settings that cannot be taken, changed in the moment in which something was revoked."""

    def __init__(self) -> None:
        self.news = [Look(settings=True, revoked=True)]

    def look(self) -> Look:
        return self.news.pop() if self.news else Look()

    def build(self) -> Lineup:
        raise RefusedError("settings", "half written")


async def test_a_revocation_counts_though_the_settings_beside_it_are_bad() -> None:
    chain = Chain(line_up(Scripted()), source=BadSettings())
    before = chain.generation
    assert await chain.refresh() > before
    assert chain.fault
    await chain.close()


async def test_a_change_of_settings_outlives_a_store_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backend.auth.chain.REFRESH_SECONDS", 0.0)
    settings_file = tmp_path / "config" / "config.toml"
    settings_file.parent.mkdir()
    settings_file.write_text(CONFIG.format(uid=os.geteuid(), action="vm.*"))
    store = open_store(f"tinydb:{tmp_path / 'kc.db'}")
    chain = open_chain(load_settings(environment={"KC_HOME": str(tmp_path)}), store, None)
    assert (await chain.decide(from_peer(os.geteuid()))).scopes == (Scope(("vm.*",)),)

    def fail() -> int:
        raise UnreachableError("store", "it does not answer")

    settings_file.write_text(CONFIG.format(uid=os.geteuid(), action="vm.read"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "revision", fail)
        await chain.refresh()
    assert "it cannot be told what was revoked" in caplog.text
    assert (await chain.decide(from_peer(os.geteuid()))).scopes == (Scope(("vm.read",)),)
    await chain.close()
    store.close()


async def test_who_came_without_a_credential_gets_nobody_elses_decision() -> None:
    def name_peer(request: AuthRequest) -> Decision:
        peer = request.client.peer
        return Decision("allow", subject=f"uid:{peer.uid if peer else ''}", scopes=EVERYTHING, ttl=60)

    chain = Chain(line_up(Scripted(name_peer, scheme="", cache_scope="credential")))
    found = [(await chain.decide(from_peer(uid))).subject for uid in (1000, 1001, 1000)]
    at_once = await asyncio.gather(*(chain.decide(from_peer(uid)) for uid in (2000, 2001)))
    assert found == ["uid:1000", "uid:1001", "uid:1000"]
    assert [decision.subject for decision in at_once] == ["uid:2000", "uid:2001"]
    await chain.close()
