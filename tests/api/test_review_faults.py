"""What a server must not give away for longer, or to more people, than was decided; and what it says of itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server import ApiServer, make_token, running_server
from support.event_reader import read_events
from support.stream_app import Running, ToyChain, stream_server

from backend.api.streaming import LOOK_SECONDS
from backend.auth.attenuation import narrow_token
from backend.auth.protocol import AuthRequest, Decision, Scope

CONFIG = """
[[auth.chain]]
type = "tokens"
[[auth.chain]]
type = "peer"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with running_server(tmp_path, config=CONFIG) as made:
        yield made


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path) as made:
        yield made


# --- tokens that make tokens
def test_a_narrowed_token_makes_no_other(server: ApiServer) -> None:
    everything = make_token(server.service, "all", type="limited", scopes=[{"actions": ["*"]}])
    lent = narrow_token(everything, [["expires", int(time.time()) + 600], ["client", ["127.0.0.1"]]])
    god: dict[str, Any] = {"name": "more", "metadata": {}, "spec": {"type": "god"}}
    with server.client(lent) as borrower, server.client(everything) as holder:
        assert borrower.get("/v1/vms").status_code == 200
        refused = borrower.post("/v1/tokens", json=god)
        assert (refused.status_code, "narrowed" in refused.text) == (403, True)
        assert borrower.patch("/v1/tokens/all", json={"spec": {"expiresAt": "2999-01-01T00:00:00Z"}}).status_code == 403
        assert borrower.post("/v1/session").status_code == 403
        assert holder.post("/v1/tokens", json=god).status_code == 201


# --- the moment between a decision and what it lets begin
class HastyChain(ToyChain):
    """Takes a credential away while it lets it in, and takes longer for that than until others have heard of it."""

    async def decide(self, request: AuthRequest) -> Decision:
        decision = await super().decide(request)
        if request.credential == b"Bearer brief" and decision.allowed:
            self.revoke("brief")
            await asyncio.sleep(2 * LOOK_SECONDS)
        return decision


def test_a_stream_does_not_miss_a_revocation_while_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.stream_app.ToyChain", HastyChain)
    with stream_server(tmp_path) as running:
        headers = running.chain.allow("brief", revalidate_after=3600.0)
        with read_events(f"{running.url}/v1/watch", headers) as events:
            assert events.find(lambda told: told.event == "error", 3.0).data["status"] == 401


# --- what is asked, and what is written down
@pytest.mark.parametrize(
    ("query", "action"),
    [
        ("", "vm.read"),
        ("?kinds=network", "network.read"),
        ("?kinds=image,vm&since=0", "image.read"),
        ("?since=0&kinds=operations", "op.read"),
        ("?kinds=", "vm.read"),
        ("?kinds=nothing", "vm.read"),
        ("?kinds=network&kinds=vm", "vm.read"),
    ],
)
def test_a_watch_is_asked_as_reading_of_what_it_names(streams: Running, query: str, action: str) -> None:
    def judge(request: AuthRequest) -> Decision:
        return Decision("allow", "alice", scopes=(Scope((action,)),)) if request.action == action else refusal

    refusal = Decision("deny", reason="not this", status=403)
    headers = {"Authorization": "Bearer alice"}
    decide = streams.chain.decide

    async def ask(request: AuthRequest) -> Decision:
        return judge(request) if request.credential == b"Bearer alice" else await decide(request)

    streams.chain.decide = ask  # type: ignore[method-assign]
    with read_events(f"{streams.url}/v1/watch{query}", headers) as events:
        assert events.response.status_code == (400 if "kinds=network&" in query else 404 if "nothing" in query else 200)


def test_refusals_behind_the_decision_are_in_the_trail(server: ApiServer) -> None:
    server.make_vm("ours", tenant="acme")
    server.make_vm("theirs", tenant="globex")
    with server.client(server.acme) as acme, server.client() as god:
        assert acme.post("/v1/vms/ours/actions/pause", json={}).status_code == 403
        assert acme.get("/v1/vms/theirs").status_code == 404
        ends = time.monotonic() + 5
        found: set[tuple[str, str]] = set()
        while len(found) < 2 and time.monotonic() < ends:
            items = god.get("/v1/audit?selector=event=refusal").json()["items"]
            found = {(item["metadata"]["action"], item["metadata"]["name"]) for item in items}
        assert found == {("vm.pause", "ours"), ("vm.read", "theirs")}


# --- settings that are not taken
def test_settings_that_are_not_taken_are_told_to_whoever_may_know(server: ApiServer) -> None:
    (server.home / "config" / "config.toml").write_text(CONFIG + "[[auth.grants]]\nactions = ['vm.fly']\n")
    with server.client() as god, server.client("") as nobody:
        ends = time.monotonic() + 5
        while (health := nobody.get("/healthz")).json() != {"status": "degraded"} and time.monotonic() < ends:
            god.get("/v1/session")
        assert (health.status_code, health.json()) == (200, {"status": "degraded"})
        findings = {item["check"]: item for item in god.get("/v1/doctor").json()["items"]}
        assert findings["authenticators"]["state"] == "failed"
        assert "vm.fly" in findings["authenticators"]["message"]
        (server.home / "config" / "config.toml").write_text(CONFIG)
        while (health := nobody.get("/healthz")).json() != {"status": "ok"} and time.monotonic() < ends + 5:
            god.get("/v1/session")
        assert health.json() == {"status": "ok"}
        assert "authenticators" not in god.get("/v1/doctor").text
