"""Basic credentials against a real slapd, and against servers that never answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support.authenticating import decide, make_context, ticking
from support.ldap_server import (
    BASE,
    GROUPS,
    PASSWORD,
    PEOPLE,
    SERVICE_PASSWORD,
    Directory,
    full_backlog,
    slapd,
    tarpit,
)
from support.ssh_daemon import free_port

from backend.auth.ldap import Ldap
from backend.errors import RefusedError

TEMPLATE = {"bindDn": f"uid={{user}},{PEOPLE}"}
SEARCH = {"search": {"base": PEOPLE, "filter": "(uid={user})"}}
Make = Callable[..., Ldap]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    with slapd(tmp_path_factory.mktemp("slapd")) as running:
        yield running


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes authenticators in a home that has the service's password in `config/password`."""
    context = make_context(tmp_path)
    context.paths.config.mkdir()
    password = context.paths.config / "password"
    password.write_text(f"{SERVICE_PASSWORD}\n")
    password.chmod(0o600)
    made: list[Ldap] = []

    def build(url: str, **settings: Any) -> Ldap:
        made.append(Ldap(context, {"type": "ldap", "url": url, **settings}))
        return made[-1]

    yield build
    for each in made:
        await each.close()
    context.store.close()


def with_service(**more: str) -> dict[str, Any]:
    return {"search": {**SEARCH["search"], "bindDn": f"cn=kc,{BASE}", "passwordFile": "password", **more}}


# --- who comes in


@pytest.mark.parametrize("mode", [TEMPLATE, SEARCH, with_service()], ids=["template", "search", "service"])
@pytest.mark.parametrize("way", ["plain", "startTls", "ldaps"])
async def test_a_right_password_is_let_in_and_a_wrong_one_is_not(
    make: Make, directory: Directory, mode: dict[str, Any], way: str
) -> None:
    url = directory.secure_url if way == "ldaps" else directory.url
    tls = {} if way == "plain" else {"ca": str(directory.ca), "startTls": way == "startTls"}
    authenticator = make(url, **mode, **tls)
    decision = await decide(authenticator, "alice", PASSWORD)
    assert (decision.outcome, decision.subject, decision.ttl) == ("allow", "alice", 60.0), decision.detail
    for user, password in (("alice", "wrong"), ("alice", "bob-s3cret"), ("nobody", PASSWORD), ("bob", PASSWORD)):
        assert (await decide(authenticator, user, password)).outcome == "challenge"
    assert await authenticator.check_health() == ""


@pytest.mark.parametrize("user", ["ALICE", "Alice", "aLiCe"])
@pytest.mark.parametrize("mode", [TEMPLATE, SEARCH], ids=["template", "search"])
async def test_however_a_name_is_spelt_the_subject_is_the_directorys(
    make: Make, directory: Directory, mode: dict[str, Any], user: str
) -> None:
    assert (await decide(make(directory.url, **mode), user, PASSWORD)).subject == "alice"


async def test_who_logs_in_by_mail_is_known_by_uid_and_a_mail_of_two_lets_in_none(
    make: Make, directory: Directory
) -> None:
    authenticator = make(directory.url, search={"base": PEOPLE, "filter": "(mail={user})"})
    assert (await decide(authenticator, "alice@example.org", PASSWORD)).subject == "alice"
    for password in (PASSWORD, "bob-s3cret"):
        assert (await decide(authenticator, "shared@example.org", password)).outcome == "challenge"


@pytest.mark.parametrize("mode", [TEMPLATE, SEARCH, with_service()], ids=["template", "search", "service"])
@pytest.mark.parametrize(
    ("groups", "of_alice", "of_bob"),
    [
        ({"memberOf": True}, {"ops", "readers"}, {"readers", "admins"}),
        ({"memberOf": True, "base": GROUPS.upper()}, {"ops", "readers"}, {"readers"}),
        ({"base": GROUPS}, {"ops", "readers"}, {"readers"}),
        ({"base": GROUPS, "filter": f"(member=uid={{user}},{PEOPLE})"}, {"ops", "readers"}, {"readers"}),
    ],
    ids=["memberOf", "memberOf-base", "search", "search-user"],
)
async def test_groups(
    make: Make, directory: Directory, mode: dict[str, Any], groups: dict[str, Any], of_alice: set[str], of_bob: set[str]
) -> None:
    authenticator = make(directory.url, **mode, groups=groups)
    assert set((await decide(authenticator, "alice", PASSWORD)).groups) == of_alice
    assert set((await decide(authenticator, "bob", "bob-s3cret")).groups) == of_bob


# --- attacks


@pytest.mark.parametrize("mode", [TEMPLATE, SEARCH, with_service()], ids=["template", "search", "service"])
@pytest.mark.parametrize(
    "user",
    [
        "*",
        "al*",
        "alice)(uid=*",
        "*)(|(uid=*",
        "alice)(|(uid=alice",
        "alice\0",
        "\0",
        "alice,ou=people",
        f"alice,{PEOPLE}",
        f"bob,{PEOPLE}+uid=alice",
        "alice+cn=Alice",
        "alice\\",
        "alice\\2a",
        "#alice",
        "alice;x",
        " alice",
        "alice ",
        "\N{FULLWIDTH LATIN SMALL LETTER A}lice",
        "alice\n",
        "{user}",
        "{dn}",
    ],
    ids=range(21),
)
async def test_a_name_is_never_part_of_a_filter_or_a_dn(
    make: Make, directory: Directory, mode: dict[str, Any], user: str
) -> None:
    assert (await decide(make(directory.url, **mode), user, PASSWORD)).outcome == "challenge"


async def test_the_names_above_are_harmful_where_they_are_not_escaped(directory: Directory) -> None:
    import ldap

    connection = ldap.initialize(directory.url)
    assert len(connection.search_s(PEOPLE, ldap.SCOPE_SUBTREE, "(uid=*)")) == 2
    # The careless server takes an empty password for anybody: it is KC that must refuse it.
    assert connection.simple_bind_s(f"uid=alice,{PEOPLE}", "") is not None
    connection.unbind_s()


@pytest.mark.parametrize("mode", [TEMPLATE, SEARCH, with_service()], ids=["template", "search", "service"])
@pytest.mark.parametrize("password", ["", "\0", f"{PASSWORD}\0", "\0x"], ids=["empty", "nul", "after", "before"])
async def test_an_empty_password_or_one_with_nul_is_refused(
    make: Make, directory: Directory, mode: dict[str, Any], password: str
) -> None:
    assert (await decide(make(directory.url, **mode), "alice", password)).outcome == "challenge"


async def test_they_are_refused_before_there_is_any_network(make: Make) -> None:
    authenticator = make(f"ldap://127.0.0.1:{free_port()}", **TEMPLATE)
    assert (await decide(authenticator, "alice", "")).outcome == "challenge"
    assert (await decide(authenticator, "alice\0", "x")).outcome == "challenge"
    assert (await decide(authenticator, "alice", "x")).outcome == "error"


@pytest.fixture
def careless() -> Iterator[None]:
    """What `TLS_REQCERT never` in the machine's ldap.conf does."""
    import ldap

    before = ldap.get_option(ldap.OPT_X_TLS_REQUIRE_CERT)
    ldap.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_NEVER)
    yield
    ldap.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, before)


@pytest.mark.parametrize("way", ["startTls", "ldaps"])
async def test_a_server_of_another_ca_is_an_error_whatever_the_machine_is_set_to(
    make: Make, directory: Directory, way: str, careless: None
) -> None:
    url = directory.secure_url if way == "ldaps" else directory.url
    for ca in ({"ca": str(directory.other_ca)}, {}):
        decision = await decide(make(url, **TEMPLATE, **ca, startTls=way == "startTls"), "alice", PASSWORD)
        assert decision.outcome == "error"
        assert PASSWORD not in repr(decision)
    wrong_name = url.replace("127.0.0.1", "127.0.0.2")
    decision = await decide(
        make(wrong_name, **TEMPLATE, ca=str(directory.ca), startTls=way == "startTls"), "alice", "x"
    )
    assert decision.outcome == "error"


async def test_a_ca_that_is_not_there_is_an_error(make: Make, directory: Directory) -> None:
    authenticator = make(directory.secure_url, **TEMPLATE, ca="/nowhere/ca.pem")
    decision = await decide(authenticator, "alice", PASSWORD)
    assert (decision.outcome, "its CA's file cannot be read" in decision.detail) == ("error", True)
    assert "its CA's file cannot be read" in await authenticator.check_health()


async def test_kcs_own_password_being_wrong_is_an_error_and_no_wrong_password(
    make: Make, directory: Directory, tmp_path: Path
) -> None:
    authenticator = make(directory.url, **with_service())
    file = tmp_path / "config" / "password"
    assert (await decide(authenticator, "alice", PASSWORD)).allowed
    file.write_text("wrong\n")
    assert "refuses KC's own password" in (await decide(authenticator, "alice", PASSWORD)).detail
    assert "refuses KC's own password" in await authenticator.check_health()
    for content, mode in ((SERVICE_PASSWORD, 0o640), ("\n", 0o600)):
        file.write_text(content)
        file.chmod(mode)
        decision = await decide(authenticator, "alice", PASSWORD)
        assert decision.outcome == "error"
        assert SERVICE_PASSWORD not in decision.detail
    file.write_text(SERVICE_PASSWORD)
    assert (await decide(authenticator, "alice", PASSWORD)).allowed


# --- servers that do not answer


@pytest.mark.parametrize("server", [tarpit, full_backlog])
@pytest.mark.parametrize("way", ["plain", "startTls", "ldaps", "search"])
async def test_a_server_that_does_not_answer_is_an_error_in_time_and_holds_nothing_up(
    make: Make, directory: Directory, server: Callable[[], AbstractContextManager[int]], way: str
) -> None:
    with server() as port:
        url = f"{'ldaps' if way == 'ldaps' else 'ldap'}://127.0.0.1:{port}"
        tls = {"ca": str(directory.ca), "startTls": way == "startTls"} if way in ("ldaps", "startTls") else {}
        authenticator = make(url, **(SEARCH if way == "search" else TEMPLATE), **tls)
        async with ticking() as ticker:
            began = time.monotonic()
            decision = await decide(authenticator, "alice", PASSWORD)
            took = time.monotonic() - began
        assert decision.outcome == "error"
        assert 1.5 < took < 3
        assert ticker.longest < 0.1


async def test_many_that_wait_for_a_dead_server_are_answered_in_time_on_few_threads(make: Make) -> None:
    with tarpit() as port:
        authenticator = make(f"ldap://127.0.0.1:{port}", **TEMPLATE)
        before = threading.active_count()
        async with ticking() as ticker:
            began = time.monotonic()
            decisions = await asyncio.gather(*(decide(authenticator, "alice", PASSWORD) for _ in range(200)))
            took = time.monotonic() - began
        assert {decision.outcome for decision in decisions} == {"error"}
        assert took < 3
        assert threading.active_count() <= before + 4
        assert ticker.longest < 0.1


async def test_a_server_that_is_not_there_is_an_error_and_said_by_health(make: Make) -> None:
    authenticator = make(f"ldap://127.0.0.1:{free_port()}", **TEMPLATE)
    assert (await decide(authenticator, "alice", PASSWORD)).outcome == "error"
    assert "Can't contact LDAP server" in await authenticator.check_health()


async def test_a_server_that_comes_back_is_used_again(make: Make, directory: Directory, tmp_path: Path) -> None:
    authenticator = make(directory.url, **TEMPLATE)
    with tarpit() as port:
        dead = make(f"ldap://127.0.0.1:{port}", **TEMPLATE, timeout=0.2)
        began = time.monotonic()
        assert (await decide(dead, "alice", PASSWORD)).outcome == "error"
        assert time.monotonic() - began < 1
    assert (await decide(authenticator, "alice", PASSWORD)).allowed


# --- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "http://127.0.0.1", **TEMPLATE}, "is no address of one LDAP server"),
        ({"url": "", **TEMPLATE}, "is no address of one LDAP server"),
        ({"url": "ldaps://a ldaps://b", **TEMPLATE}, "is no address of one LDAP server"),
        ({"url": "ldap://ldap.example.org", **TEMPLATE}, "would send passwords over the network in the clear"),
        ({"url": "ldap://10.0.0.1", **TEMPLATE}, "would send passwords over the network in the clear"),
        ({"url": "ldap://[::1", **TEMPLATE}, "is no address of an LDAP server"),
        ({"url": "ldaps://a", "startTls": True, **TEMPLATE}, "startTls does not go with ldaps://"),
        ({"url": "ldaps://a"}, "bindDn or search"),
        ({"url": "ldaps://a", **TEMPLATE, **SEARCH}, "bindDn or search"),
        ({"url": "ldaps://a", "bindDn": "uid=alice"}, r"has no \{user\}"),
        ({"url": "ldaps://a", "search": {"base": "x", "filter": "(uid=*)"}}, r"has no \{user\}"),
        ({"url": "ldaps://a", "search": {}}, "base is missing"),
        ({"url": "ldaps://a", "search": "x"}, "search is no table"),
        ({"url": "ldaps://a", "search": {"base": "x", "bindDn": "cn=kc"}}, "and passwordFile go together"),
        ({"url": "ldaps://a", "search": {"base": "x", "password": "x"}}, "password is no setting"),
        ({"url": "ldaps://a", **TEMPLATE, "verify": False}, "verify is no setting"),
        ({"url": "ldaps://a", **TEMPLATE, "timeout": 0}, "timeout is no number"),
        ({"url": "ldaps://a", **TEMPLATE, "groups": {"base": "x", "filter": "(cn=a)"}}, r"neither \{dn\} nor \{user\}"),
        ({"url": "ldaps://a", **TEMPLATE, "groups": {"memberOf": True, "filter": "(a={dn})"}}, "with memberOf"),
    ],
    ids=range(19),
)
def test_bad_ldap_settings_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    context = make_context(tmp_path)
    with pytest.raises(RefusedError, match=said):
        Ldap(context, {"type": "ldap", **settings})
    context.store.close()


def test_without_python_ldap_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ldap", None)
    context = make_context(tmp_path)
    with pytest.raises(RefusedError, match=r"pip install kc-tui\[ldap\]"):
        Ldap(context, {"type": "ldap", "url": "ldaps://a", **TEMPLATE})
    context.store.close()
