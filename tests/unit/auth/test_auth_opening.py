"""From a settings file to a chain: what is refused, what is loaded, and what is taken up while KC runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from support.authenticators import REQUEST, Scripted, bearer, from_peer

from backend.auth import opening
from backend.auth.chain import Chain
from backend.auth.changes import RevocationWatch, find_files
from backend.auth.context import AuthContext
from backend.auth.opening import load_auth_settings, load_factory, open_chain
from backend.auth.protocol import EVERYTHING, Decision
from backend.errors import RefusedError, UnreachableError
from backend.model.documents import Document, format_time
from backend.settings import Settings, load_settings
from backend.store.opening import open_store
from backend.store.protocol import Store

OWN = os.geteuid()
PEER = '[[auth.chain]]\ntype = "peer"\n'


class Plugin:
    """A distribution's code: makes authenticators that tell what they were made with."""

    api_version = 1

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.made: list[tuple[AuthContext, dict[str, Any], Scripted]] = []

    def __call__(self, context: AuthContext, settings: dict[str, Any]) -> Scripted:
        if self.error:
            raise self.error
        answer = Decision("allow", subject=str(settings.get("subject", "alice")), scopes=EVERYTHING, ttl=30)
        authenticator = Scripted(answer, name=settings["name"], cache_scope="credential")
        self.made.append((context, settings, authenticator))
        return authenticator


class Home:
    """A home with a settings file, a store, and plugins that are installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.file = folder / "config" / "config.toml"
        self.file.parent.mkdir(parents=True)
        self.plugins: dict[str, Any] = {}
        self.loaded: list[str] = []
        self.store: Store = open_store(f"tinydb:{folder / 'kc.db'}")
        self.chains: list[Chain] = []
        self._real = opening.entry_points
        monkeypatch.setattr(opening, "entry_points", self.find_points)
        monkeypatch.setattr("backend.auth.chain.REFRESH_SECONDS", 0.0)

    def find_points(self, group: str, name: str = "") -> list[Any]:
        home = self

        class Point(EntryPoint):
            dist = None

            def load(self) -> Any:
                home.loaded.append(self.name)
                return home.plugins[self.name]

        points = [Point(each, f"plugin_{each}:Plugin", group) for each in self.plugins]
        found = [*self._real(group=group), *points]
        return [point for point in found if not name or point.name == name]

    def write(self, text: str) -> None:
        temporary = self.file.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.file)

    def settings(self) -> Settings:
        return load_settings(environment={"KC_HOME": str(self.folder)})

    def open(self, text: str = "") -> Chain:
        if text:
            self.write(text)
        chain = open_chain(self.settings(), self.store, None)
        self.chains.append(chain)
        return chain


@pytest.fixture
async def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    made = Home(tmp_path / "home", monkeypatch)
    yield made
    for chain in made.chains:
        await chain.close()
    made.store.close()


# --- what is loaded


async def test_only_what_the_settings_name_is_loaded(own: Home) -> None:
    own.plugins = {"one": Plugin(), "two": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "one"\nname = "staff"\nsubject = "bob"\nlist = [1]\n')
    assert own.loaded == ["one"]
    ((context, settings, _),) = own.plugins["one"].made
    assert settings == {"type": "one", "name": "staff", "subject": "bob", "list": [1]}
    assert (context.store, context.paths) == (own.store, own.settings().paths)
    assert chain.entries[0][:2] == ("staff", "one")
    assert (await chain.decide(bearer("x"))).subject == "bob"


async def test_an_authenticator_can_build_others_of_tables(own: Home) -> None:
    own.plugins = {"one": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "all"\nof = [{type = "one"}, {type = "one"}]\n')
    assert [settings["name"] for _, settings, _ in own.plugins["one"].made] == ["all.one", "all.one"]
    assert (await chain.decide(bearer("x"))).subject == "alice"


async def test_kinds_of_nobody_are_refused_with_those_there_are(own: Home) -> None:
    with pytest.raises(RefusedError, match=r"no authenticator of type 'kerberos' is installed.*htpasswd.*peer"):
        own.open('[[auth.chain]]\ntype = "kerberos"\n')


def version_two() -> Plugin:
    plugin = Plugin()
    plugin.api_version = 2
    return plugin


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (version_two(), "speaks version 2 of the protocol"),
        (object(), "speaks version none of the protocol"),
        (Plugin(ImportError("No module named 'kerberos'")), "cannot be made: ImportError: No module named"),
        (Plugin(KeyError("x")), "cannot be made: KeyError"),
        (Plugin(RefusedError("settings auth.chain (one)", "url is missing", "name it")), "url is missing. name it"),
    ],
    ids=["version", "none", "import", "key", "settings"],
)
async def test_a_plugin_that_does_not_fit_is_refused_with_its_place(own: Home, plugin: Any, said: str) -> None:
    own.plugins = {"one": plugin}
    with pytest.raises(RefusedError) as error:
        own.open('[[auth.chain]]\ntype = "one"\n')
    assert said in str(error.value)
    assert error.value.what == f"settings {own.file}: auth.chain[1]"


async def test_what_cannot_be_imported_says_what_to_install(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_load(point: EntryPoint) -> Any:
        raise ImportError("No module named 'ldap'")

    monkeypatch.setattr(EntryPoint, "load", fail_to_load)
    with pytest.raises(RefusedError) as error:
        load_factory("ldap", "x")
    assert "No module named 'ldap'" in error.value.why
    assert error.value.hint == "install what it needs: pip install 'kc-tui[ldap]'"


async def test_two_of_one_name_are_no_choice(own: Home) -> None:
    own.plugins = {"peer": Plugin()}
    with pytest.raises(RefusedError, match="both bring a type 'peer'"):
        own.open(PEER)


# --- the file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[auth]\nheaders = 'x'", "auth: headers is no setting. known are chain, grants, header, keyFile"),
        ("[auth]\nheader = 'a b'", "header is no name"),
        ("[auth]\nheader = 3", "header is no text"),
        ("[auth]\nchain = []", "chain is empty"),
        ("[auth]\nchain = 'peer'", "chain is no list"),
        ("[auth]\ntrustedProxies = ['0.0.0.0/0']", "is everybody"),
        ("[auth]\ntrustedProxies = 'x'", "trustedProxies is no list"),
        ("[[auth.chain]]\nname = 'x'", "auth.chain[1]: type is missing"),
        ("[[auth.chain]]\ntype = 'peer'\nuser = 'x'", "auth.chain[1]: user is no setting"),
        ("[[auth.chain]]\ntype = 'peer'\ntimeout = 11", "timeout is no number from 0.05 to 10"),
        ("[[auth.chain]]\ntype = 'peer'\nconcurrency = 0", "concurrency is no number"),
        ("[[auth.chain]]\ntype = 'peer'\nname = 'a b'", "name is none"),
        (PEER + PEER, "auth.chain[2]: name 'peer' is another one's too"),
        (PEER + "[[auth.grants]]\nactions = ['vm.fly']", "auth.grants[1]: actions are wrong: no action 'vm.fly'"),
        ("[[auth.chain]]\ntype = 'peer'\nusers = ['nobody-has-this-name']", "there is no such user"),
        ("auth = 3", "[auth] is not a table"),
    ],
)  # fmt: skip
async def test_a_bad_file_is_refused_with_its_name_and_the_key(own: Home, text: str, said: str) -> None:
    with pytest.raises(RefusedError) as error:
        own.open(text + "\n")
    assert said in str(error.value)
    assert str(own.file) in str(error.value)


async def test_what_the_file_says(own: Home) -> None:
    own.write('[auth]\nheader = "X-Ticket"\ntrustedProxies = ["10.0.0.0/24", "unix"]\n' + PEER)
    found = load_auth_settings(own.settings())
    assert found.header == "x-ticket"
    assert found.trusted_proxies == ("10.0.0.0/24", "unix")
    assert found.chain == ({"type": "peer"},)


async def test_without_a_chain_there_are_tokens_keys_and_the_kernels_word(own: Home) -> None:
    chain = own.open()
    assert [entry.type for entry in chain.entries] == ["tokens", "ssh-keys", "peer"]
    assert (await chain.decide(from_peer(OWN))).scopes == EVERYTHING
    assert (await chain.decide(from_peer(0))).scopes == EVERYTHING
    for request in (REQUEST, bearer("kcg_" + "x" * 49), bearer("x"), from_peer(4_000_000)):
        decision = await chain.decide(request)
        assert (decision.allowed, decision.status, decision.scopes) == (False, 401, ())


async def test_a_wrong_credential_on_the_socket_is_not_replaced_by_its_user(own: Home) -> None:
    chain = own.open()
    decision = await chain.decide(from_peer(OWN, credential=b"Bearer kcg_" + b"x" * 49))
    assert not decision.allowed


# --- while it runs


async def test_another_file_is_taken_up_and_the_old_authenticators_are_closed(own: Home) -> None:
    own.plugins = {"one": Plugin(), "two": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "one"\n')
    assert (await chain.decide(bearer("x"))).authenticator == "one"
    before = chain.generation
    own.write('[[auth.chain]]\ntype = "two"\nsubject = "bob"\n')
    assert (await chain.decide(bearer("x"))).subject == "bob"
    assert chain.generation > before
    assert own.plugins["one"].made[0][2].closed == 1
    assert [entry.name for entry in chain.entries] == ["two"]


async def test_who_is_being_answered_keeps_the_old_ones_until_then(own: Home) -> None:
    own.plugins = {"one": Plugin(), "two": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "one"\n')
    old, gate = own.plugins["one"].made[0][2], asyncio.Event()
    old.before = gate.wait
    waiting = asyncio.ensure_future(chain.decide(bearer("x")))
    async with asyncio.timeout(5):
        while not old.asked:  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.005)
    own.write('[[auth.chain]]\ntype = "two"\n')
    await chain.refresh()
    assert old.closed == 0
    gate.set()
    assert (await waiting).allowed
    assert old.closed == 1


@pytest.mark.parametrize(
    "text", ["[auth\n", "[auth]\nheaders = 1\n", '[[auth.chain]]\ntype = "gone"\n', "", "[ui]\n"],
    ids=["no TOML", "unknown key", "no plugin", "empty", "no auth"],
)  # fmt: skip
async def test_a_bad_file_leaves_the_old_chain_and_says_so(
    own: Home, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    own.plugins = {"one": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "one"\n')
    own.write(text)
    for _ in range(2):
        assert (await chain.decide(bearer("x"))).allowed
    assert str(own.file) in chain.fault
    assert caplog.text.count("are not taken") == 1
    assert not (await chain.decide(from_peer(OWN))).allowed
    own.write('[[auth.chain]]\ntype = "one"\nsubject = "bob"\n')
    assert (await chain.decide(bearer("x"))).subject == "bob"
    assert chain.fault == ""


async def test_a_file_that_an_authenticator_reads_revokes_what_was_kept(own: Home) -> None:
    own.plugins = {"one": Plugin()}
    users = own.file.parent / "users"
    users.write_text("alice")
    chain = own.open('[[auth.chain]]\ntype = "one"\nfile = "users"\n')
    authenticator = own.plugins["one"].made[0][2]
    for _ in range(3):
        await chain.decide(bearer("x"))
    assert len(authenticator.asked) == 1
    before = chain.generation
    users.write_text("alice and bob")
    assert await chain.refresh() > before
    await chain.decide(bearer("x"))
    assert len(authenticator.asked) == 2


def token(name: str, **spec: Any) -> Document:
    now = format_time()
    times = {"createdAt": now, "updatedAt": now, "updatedBy": "test"}
    return {
        "apiVersion": "kc/v1",
        "kind": "Token",
        "name": name,
        "uid": f"uid-{name}",
        "metadata": {},
        "spec": spec,
        **times,
    }


def put(store: Store, document: Document) -> None:
    with store.transaction() as transaction:
        transaction.put(document)


@pytest.mark.parametrize(
    ("change", "revokes"),
    [
        (lambda store: put(store, token("b")), False),
        (lambda store: put(store, token("a", actions=["vm.read"])), True),
        (lambda store: delete(store, "Token", "uid-a"), True),
        (lambda store: put(store, {**token("a"), "kind": "VM"}), False),
        (lambda store: set_status(store, "uid-a"), False),
        (lambda store: None, False),
    ],
    ids=["new", "changed", "deleted", "of another kind", "used", "nothing"],
)
async def test_tokens_that_another_process_takes_away_are_seen(
    own: Home, change: Callable[[Store], None], revokes: bool
) -> None:
    put(own.store, token("a"))
    chain = own.open(PEER)
    before = await chain.refresh()
    other = open_store(own.store.url)
    change(other)
    other.close()
    assert (await chain.refresh() > before) is revokes
    assert await chain.refresh() == chain.generation


def delete(store: Store, kind: str, uid: str) -> None:
    with store.transaction() as transaction:
        transaction.delete(kind, uid)


def set_status(store: Store, uid: str) -> None:
    with store.transaction() as transaction:
        transaction.put_status("Token", uid, {"usedAt": "now"})


async def test_a_store_that_does_not_answer_keeps_no_decision_alive(
    own: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own.plugins = {"one": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "one"\n')
    authenticator = own.plugins["one"].made[0][2]
    await chain.decide(bearer("x"))

    def fail_to_look(_: RevocationWatch) -> bool:
        raise UnreachableError("store", "no answer")

    monkeypatch.setattr(RevocationWatch, "look", fail_to_look)
    monkeypatch.setattr("backend.auth.chain._STALE_SECONDS", 0.0)
    await chain.decide(bearer("x"))
    await chain.decide(bearer("x"))
    assert len(authenticator.asked) == 3
    assert "what was revoked" in caplog.text


async def test_a_store_that_hangs_does_not_hold_every_request_up(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    own.plugins = {"one": Plugin()}
    chain = own.open('[[auth.chain]]\ntype = "one"\n')
    monkeypatch.setattr(RevocationWatch, "look", lambda _: time.sleep(1.0))
    monkeypatch.setattr("backend.auth.chain._LOOK_SECONDS", 0.1)
    began = time.monotonic()
    for _ in range(5):
        assert (await chain.decide(bearer("x"))).allowed
    assert time.monotonic() - began < 0.5


def test_files_are_found_wherever_they_are_named(tmp_path: Path) -> None:
    tables = [
        {"type": "htpasswd", "file": "users", "groupFile": "/etc/groups", "url": "http://127.0.0.1/check"},
        {"type": "all", "of": [{"type": "x", "ca": "/etc/ca.pem"}, {"keyFile": 3}]},
    ]
    assert sorted(find_files(tables, tmp_path)) == sorted([str(tmp_path / "users"), "/etc/groups", "/etc/ca.pem"])
