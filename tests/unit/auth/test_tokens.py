"""The authenticator for KC's own tokens: what each is let do, and that nothing else is let in."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import close_services, make_service

from backend.auth import caveats
from backend.auth.context import AuthContext
from backend.auth.keys import MasterKey, open_master_key
from backend.auth.macaroon import attenuate, encode, mint
from backend.auth.protocol import EVERYTHING, AuthRequest, Client, Decision, Peer, Scope
from backend.auth.secrets import has_checksum, make_god_token, make_token, read_macaroon, type_of
from backend.auth.tokens import Tokens, end_session, mint_session
from backend.errors import DeniedError, RefusedError, UnreachableError
from backend.local import LocalService
from backend.model.documents import format_time
from backend.model.selector_terms import parse_terms

HERE = Client("tcp", "192.0.2.7")
ALLOWED = Decision("allow", subject="alice", groups=("staff",), scopes=EVERYTHING, from_grants=True)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LocalService]:
    yield make_service(tmp_path)
    close_services()


@pytest.fixture
def tokens(service: LocalService) -> Tokens:
    return Tokens(context_of(service), {"type": "tokens", "name": "own"})


def context_of(service: LocalService, key: MasterKey | None = None) -> AuthContext:
    def build(_table: object) -> Any:
        raise AssertionError

    settings = service.settings
    return AuthContext(settings.paths, service.store, key or open_master_key(settings), build)


def make(service: LocalService, name: str = "ci", **spec: Any) -> str:
    whole = {"type": "limited", "scopes": [{"actions": ["vm.*"], "selector": "tenant=acme"}], **spec}
    if whole["type"] == "god":
        whole = {key: value for key, value in whole.items() if key != "scopes"}
    secret: str = service.create({"kind": "Token", "name": name, "spec": whole}).document["token"]
    return secret


def narrowed(token: str, *entries: Any) -> str:
    found = read_macaroon(token)
    assert found is not None
    return token[:4] + encode(attenuate(found, [caveats.build(*entry) for entry in entries]))


async def ask(tokens: Tokens, token: str, client: Client = HERE, form: str = "Bearer {}") -> Decision:
    request = AuthRequest("1", "vm.read", client, form.format(token).encode())
    assert tokens.accepts(request)
    return await tokens.decide(request)


async def test_a_limited_token_may_do_what_its_document_says(service: LocalService, tokens: Tokens) -> None:
    token = make(service)
    uid = service.get("Token", "ci")["uid"]
    for form in ("Bearer {}", "bearer  {}", "{}"):
        decision = await ask(tokens, token, form=form)
        assert decision.allowed, decision
        assert (decision.subject, decision.groups, decision.token) == ("token:ci", (), uid)
        assert decision.scopes == (Scope(("vm.*",), "tenant=acme"),)
        assert decision.expires_at == pytest.approx(time.time() + 90 * 86400, abs=60)
    for pair in (f"x:{token}", f"{token}:"):
        basic = base64.b64encode(pair.encode()).decode()
        assert (await ask(tokens, basic, form="Basic {}")).token == uid


async def test_a_god_token_may_do_everything(service: LocalService, tokens: Tokens) -> None:
    token = make(service, "root", type="god", expiresAt=None)
    assert has_checksum(token)
    assert len(token) == 53
    decision = await ask(tokens, token)
    assert decision.scopes is EVERYTHING
    assert (decision.subject, decision.expires_at) == ("token:root", 0.0)


async def test_what_kc_did_not_make_gets_one_answer(service: LocalService, tokens: Tokens, tmp_path: Path) -> None:
    limited, god = make(service), make(service, "root", type="god")
    uid = service.get("Token", "ci")["uid"]
    foreign = MasterKey(tmp_path / "other.key")
    last = "A" if god[-1] != "A" else "B"
    wrong = [
        "kct_", "kcg_", "kcs_", "kct_AAAA", "kcg_" + "A" * 49, make_god_token(), god[:-1] + last, god[:-1], god + "A",
        god[:20] + ("A" if god[20] != "A" else "B") + god[21:], limited[:-1], limited + "A", "kcs_" + limited[4:],
        "kcg_" + limited[4:], make_token(foreign, "limited", uid), "kct_" + encode(mint(bytes(32), uid.encode())),
        make_token(tokens._key, "limited", service.get("Token", "root")["uid"]),
        make_token(tokens._key, "limited", "0"),
        "kct_" + encode(mint(tokens._key.derive("token", "../x"), b"../x")), "kct_" + "A" * 5000,
        make_token(tokens._key, "limited", "00000000-0000-4000-8000-000000000000"), limited + "\xff",
    ]  # fmt: skip
    answers = set()
    for token in wrong:
        decision = await ask(tokens, token)
        assert decision.outcome == "challenge", token
        answers.add((decision.challenges, decision.reason, decision.status, decision.token))
        assert token[4:] not in decision.detail or len(token) < 10
    assert answers == {
        (('Bearer realm="KC", error="invalid_token"',), "the token is not known, or was revoked", 0, "")
    }  # fmt: skip


@pytest.mark.parametrize(
    "credential", [b"", b"Bearer x", b"Bearer", b"Basic !!", b"Basic eDp5", b"xkct_a", b"Digest kct_a"]
)
def test_what_is_no_token_is_left_to_others(tokens: Tokens, credential: bytes) -> None:
    assert not tokens.accepts(AuthRequest("1", "vm.read", HERE, credential))


async def test_a_deleted_token_is_worth_nothing_at_once(service: LocalService, tokens: Tokens) -> None:
    token = make(service)
    child = narrowed(token, ("read-only",))
    assert (await ask(tokens, child)).allowed
    service.delete("Token", "ci")
    assert not (await ask(tokens, token)).allowed
    assert not (await ask(tokens, child)).allowed
    make(service)
    assert not (await ask(tokens, token)).allowed


async def test_a_token_ends_when_it_ends(service: LocalService, tokens: Tokens) -> None:
    for name, kind in (("ci", "limited"), ("root", "god")):
        token = make(service, name, type=kind, expiresAt=format_time(time.time() + 0.2))
        assert (await ask(tokens, token)).allowed
        live = service.get("Token", name)
        service.update({**live, "spec": {**live["spec"], "expiresAt": format_time(time.time() - 1)}})
        decision = await ask(tokens, token)
        assert (decision.outcome, decision.reason) == ("challenge", "the token is refused: it has expired")


async def test_caveats_narrow_what_it_may(service: LocalService, tokens: Tokens) -> None:
    token = make(
        service, scopes=[{"actions": ["vm.*"], "selector": "tenant=acme"}, {"actions": ["image.read"], "selector": ""}]
    )

    async def left(*entries: Any) -> tuple[Scope, ...] | None:
        return (await ask(tokens, narrowed(token, *entries))).scopes

    assert await left(("actions", ["vm.start"])) == (Scope(("vm.start",), "tenant=acme"),)
    assert await left(("read-only",)) == (Scope(("vm.read",), "tenant=acme"), Scope(("image.read",)))
    assert await left(("selector", "name=web")) == (
        Scope(("vm.*",), "tenant=acme,name=web"),
        Scope(("image.read",), "name=web"),
    )
    assert await left(("actions", ["vm.start", "vm.stop"]), ("actions", ["vm.stop", "vm.console"])) == (
        Scope(("vm.stop",), "tenant=acme"),
    )
    assert await left(("actions", ["token.create"])) == ()
    assert await left(("selector", ""), ("selector", "tenant=acme")) == (
        Scope(("vm.*",), "tenant=acme"),
        Scope(("image.read",), "tenant=acme"),
    )
    decision = await ask(tokens, narrowed(token, ("expires", 9_999_999_999), ("expires", int(time.time()) + 60)))
    assert decision.expires_at == pytest.approx(time.time() + 60, abs=5)


async def test_caveats_say_when_and_from_where(service: LocalService, tokens: Tokens) -> None:
    token, now = make(service), int(time.time())
    local = Client("unix", peer=Peer(1, 1000, 1000))
    mapped, six = Client("tcp", "::ffff:192.0.2.7"), Client("tcp", "fe80::7%eth0")
    print_, key = "SHA256:" + "A" * 43, "SHA256:" + "B" * 43
    for entry, client, is_allowed in (
        (("expires", now + 60), HERE, True), (("expires", now), HERE, False), (("not-before", now), HERE, True),
        (("not-before", now + 60), HERE, False),
        (("client", ["192.0.2.0/24"]), HERE, True), (("client", ["192.0.2.0/24"]), mapped, True),
        (("client", ["192.0.2.8"]), HERE, False), (("client", ["fe80::/10"]), six, True),
        (("client", ["0.0.0.0/0"]), six, False), (("client", ["0.0.0.0/0", "::/0"]), local, False),
        (("client", ["uid:1000"]), local, True), (("client", ["uid:100"]), local, False),
        (("client", ["uid:1000"]), HERE, False), (("client", ["198.51.100.1", "uid:1000"]), local, True),
        (("bound", "tls", print_), HERE._replace(tls_fingerprint=print_), True),
        (("bound", "tls", print_), HERE._replace(ssh_fingerprint=print_), False),
        (("bound", "ssh", print_), HERE._replace(ssh_fingerprint=print_), True),
        (("bound", "tls", print_), HERE._replace(tls_fingerprint=key), False), (("bound", "tls", print_), HERE, False),
    ):  # fmt: skip
        assert (await ask(tokens, narrowed(token, entry), client)).allowed is is_allowed, (entry, client)


@pytest.mark.parametrize(
    "caveat",
    [
        b"", b"[]", b"{}", b"null", b"expires", b'["unknown"]', b"[1,2]", b'["expires"]', b'["expires",true]',
        b'["expires",1e12]', b'["expires",99999999999999999999]', b'["expires","2026-01-01"]',
        b'["expires",9999999999,1]',
        b'["actions"]', b'["actions",[]]', b'["actions","*"]', b'["actions",["*",1]]', b'["actions",["vm.start;"]]',
        b'["selector"]', b'["selector",null]', b'["selector","a in (b"]', b'["selector","status.power=running"]',
        b'["read-only",false]', b'["client",[]]', b'["client","uid:0"]', b'["client",["10.0.0.1/8"]]',
        b'["client",["example.org"]]', b'["client",["uid:-1"]]', b'["bound","tls"]', b'["bound","x","SHA256:"]',
        b'["read-only"]\xff', b'[["read-only"]]', b'["read-only"] x', b"[" * 2500, b'["not-before",NaN]',
        b'["Expires",1]',
        b'["selector","a~' + b"*x" * 17 + b'"]',
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
async def test_a_caveat_that_is_not_understood_cannot_hold(
    service: LocalService, tokens: Tokens, caveat: bytes
) -> None:  # fmt: skip
    found = read_macaroon(make(service))
    assert found is not None
    decision = await ask(tokens, "kct_" + encode(attenuate(found, [caveat])))
    assert decision.outcome == "challenge"
    assert decision.reason.startswith("the token is refused")
    with pytest.raises(RefusedError):
        caveats.read(caveat)


def test_selectors_one_after_the_other_are_both() -> None:
    odd = [
        "a",
        "!a",
        "a=",
        "a!=",
        "a=(",
        'a="x,y"',
        "a in (b, c)",
        "a notin (1)",
        "a~*)",
        'a."b,c">=3',
        " a = x y ",
        "a.b",
    ]
    for one, other in itertools.product(odd, repeat=2):
        (scope,) = caveats.narrow([Scope(("*",), one)], caveats.Limits(selectors=(other,)))
        both = parse_terms(one) + parse_terms(other)
        assert parse_terms(scope.selector) == (both[:1] if one == other else both)


async def test_selectors_that_are_too_much_together_are_refused(service: LocalService, tokens: Tokens) -> None:
    token = make(service, scopes=[{"actions": ["vm.*"], "selector": ",".join(f"k{n}" for n in range(49))}])
    assert (await ask(tokens, narrowed(token, ("selector", "a")))).allowed
    assert not (await ask(tokens, narrowed(token, ("selector", "a,b")))).allowed
    most = make(service, "most", scopes=[{"actions": ["vm.*"], "selector": f"k={'x' * 1022}"}])
    (scope,) = (
        await ask(tokens, narrowed(most, *((("selector", f"k{n}={'y' * 700}")) for n in range(4))))
    ).scopes or ()
    assert len(parse_terms(scope.selector)) == 5


@pytest.mark.timeout(60)
async def test_what_a_holder_appends_costs_little(service: LocalService, tokens: Tokens) -> None:
    scopes = [{"actions": ["vm.*", "image.*", "network.*"], "selector": f"tenant=t{n},a=1,b=2"} for n in range(32)]
    token = make(service, scopes=scopes)
    long = ",".join(f"k{n}=v" for n in range(40))
    values = ",".join(str(number) for number in range(250))
    for entries in (
        [("selector", long)] * 3,
        [("selector", f"k in ({values})"), ("selector", f"m in ({values})")],
        [("selector", "k~" + "*ab" * 16)],
        [("actions", [f"vm.{letters}" for letters in map("".join, itertools.product("abcdef", repeat=3))])],
        [("client", ["192.0.2.0/24"] * 16)] * 5,
        [("expires", 9999999999)] * 32,
    ):
        bomb = narrowed(token, *entries)
        began = time.perf_counter()
        await ask(tokens, bomb)
        assert time.perf_counter() - began < 0.05, entries
    for bomb in ("kct_" + "A" * 4097, "kct_" + "A" * 10_000, "kct_" + "A" * 4096):
        began = time.perf_counter()
        assert not (await ask(tokens, bomb)).allowed
        assert time.perf_counter() - began < 0.005


async def test_a_session_is_its_subject_until_it_ends(service: LocalService, tokens: Tokens) -> None:
    key = open_master_key(service.settings)
    secret, document = mint_session(service.store, key, ALLOWED, 3600)
    assert type_of(secret) == "session"
    decision = await ask(tokens, secret)
    assert (decision.subject, decision.groups, decision.scopes) == ("alice", ("staff",), None)
    assert decision.token == document["uid"]
    assert decision.expires_at == pytest.approx(time.time() + 3600, abs=5)
    assert [item["name"] for item in service.list_documents("Token", everything=True).items] == [document["name"]]
    assert service.list_documents("Token").items == []
    assert service.list_documents("Token", selector="spec.subject=alice").items == []
    assert (await ask(tokens, narrowed(secret, ("expires", int(time.time()) + 9)))).allowed
    assert not (await ask(tokens, narrowed(secret, ("read-only",)))).allowed
    assert not (await ask(tokens, "kct_" + secret[4:])).allowed
    with pytest.raises(DeniedError, match="a token makes no session"):
        mint_session(service.store, key, decision)
    end_session(service.store, document["uid"], by="alice")
    end_session(service.store, document["uid"], by="alice")
    assert not (await ask(tokens, secret)).allowed


async def test_a_session_keeps_what_its_authenticator_gave(service: LocalService, tokens: Tokens) -> None:
    key = open_master_key(service.settings)
    own = Decision("allow", subject="bob", scopes=(Scope(("vm.read",), "tenant=acme"),), expires_at=time.time() + 50)
    secret, _ = mint_session(service.store, key, own, 3600)
    decision = await ask(tokens, secret)
    assert decision.scopes == own.scopes
    assert decision.expires_at == pytest.approx(own.expires_at, abs=0.01)
    with pytest.raises(DeniedError):
        mint_session(service.store, key, Decision("deny", subject="bob"))


def test_sessions_that_are_over_go_with_the_next_one(service: LocalService) -> None:
    key = open_master_key(service.settings)
    names = [mint_session(service.store, key, ALLOWED, seconds)[1]["name"] for seconds in (-1, 3600, -1, 3600)]
    left = {item["name"] for item in service.store.list_documents("Token").items}
    assert left == {names[1], names[3]}


async def test_ending_a_session_leaves_other_tokens_alone(service: LocalService, tokens: Tokens) -> None:
    token = make(service)
    end_session(service.store, service.get("Token", "ci")["uid"], by="alice")
    assert (await ask(tokens, token)).allowed


async def test_a_store_or_key_that_fails_lets_nobody_in(
    service: LocalService, tokens: Tokens, tmp_path: Path, monkeypatch: Any
) -> None:
    token = make(service)
    assert await tokens.check_health() == ""
    (tmp_path / "bad.key").write_bytes(b"short")
    keyless = Tokens(context_of(service, MasterKey(tmp_path / "bad.key")), {"type": "tokens"})
    assert (await ask(keyless, token)).outcome == "error"
    assert "bad.key" in await keyless.check_health()

    def fail(*_: object) -> None:
        raise UnreachableError("store", "it does not answer")

    monkeypatch.setattr(service.store, "get", fail)
    monkeypatch.setattr(service.store, "revision", fail)
    assert (await ask(tokens, token)).outcome == "error"
    assert "does not answer" in await tokens.check_health()


async def test_what_a_newer_kc_wrote_is_taken_for_nothing(service: LocalService, tokens: Tokens) -> None:
    token = make(service)
    live = service.get("Token", "ci")
    body = {key: value for key, value in live.items() if key not in ("version", "status")}
    with service.store.transaction() as transaction:
        transaction.put({**body, "apiVersion": "kc/v9"})
    assert (await ask(tokens, token)).outcome == "challenge"


def test_settings_that_nobody_reads_are_refused(service: LocalService) -> None:
    assert Tokens(context_of(service), {"type": "tokens", "timeout": 3}).name == "tokens"
    with pytest.raises(RefusedError, match="lifetime"):
        Tokens(context_of(service), {"type": "tokens", "lifetime": 3})
