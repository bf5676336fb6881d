"""`kc login` and `kc logout`: a credential is tried first, kept where it is safe, and sent where it belongs."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Result
from support.fake_kc import Asked, FakeKC, Reply, answering

from backend import credentials
from backend.credentials import FILE_NAME
from backend.service import FILTERED
from kc_tui.cli.main import run

Cli = Callable[..., Result]
GOOD = "Bearer kct_good"
SESSION = "Bearer kcs_session"
BASIC = "Basic " + base64.b64encode(b"alice:hunter2").decode()
WITH_CODE = "Basic " + base64.b64encode(b"alice:hunter2123456").decode()
ACCESS = {
    "subject": "alice",
    "groups": ["ops"],
    "scopes": [{"actions": ["vm.*"], "selector": "tenant=acme"}],
    "expiresAt": "2030-01-01T00:00:00.000Z",
}


def answer(asked: Asked) -> Reply:
    """Do as KC does about sessions; a code is good for one request."""
    given = asked.headers.get("authorization", asked.headers.get("x-token", ""))
    if asked.path != "/v1/session":
        return Reply({"items": [], "continue": "", "revision": 1, "warnings": [FILTERED], "filtered": True})
    if asked.method == "POST" and given in (WITH_CODE, BASIC, GOOD):
        return Reply({"token": "kcs_session", "subject": "alice", "expiresAt": ACCESS["expiresAt"]}, 201)
    if asked.method == "DELETE" and given == SESSION:
        return Reply(None, 204)
    if asked.method == "GET" and given in (GOOD, SESSION, BASIC):
        return Reply(ACCESS)
    detail = {"code": "denied", "title": "request", "detail": "wrong user or password", "status": 401}
    return Reply(detail, 401, {"WWW-Authenticate": "Basic"})


@pytest.fixture
def server() -> Iterator[FakeKC]:
    with answering(answer) as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, server: FakeKC) -> Cli:
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    for name in ("KC_PROFILE", "KC_URL", "KC_AUTH_HEADER", "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(credentials, "KEYRINGS", ())

    def call(*arguments: str, stdin: str | None = None) -> Result:
        monkeypatch.setattr("sys.stdin", None if stdin is None else io.StringIO(stdin))
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    assert call("profile", "add", "lab", "--url", server.url).code == 0
    return call


def sent(server: FakeKC) -> list[tuple[str, str]]:
    return [(asked.method, asked.headers.get("authorization", "")) for asked in server.asked]


def test_a_token_is_tried_and_kept_and_used(cli: Cli, server: FakeKC, tmp_path: Path) -> None:
    done = cli("login", "lab", "--stdin", "--file", stdin="kct_good\n")
    assert done.code == 0, done.err
    assert "alice" in done.out
    assert "vm.* where tenant=acme" in done.out
    assert "2030-01-01" in done.out
    assert "kct_good" not in done.out + done.err
    assert sent(server) == [("GET", GOOD)]
    assert (tmp_path / "config" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    listed = cli("--profile", "lab", "vm", "list")
    assert listed.code == 0, listed.err
    assert FILTERED in listed.err
    assert sent(server)[-1] == ("GET", GOOD)


def test_one_that_does_not_hold_is_not_kept(cli: Cli, tmp_path: Path) -> None:
    done = cli("login", "lab", "--stdin", "--file", stdin="kct_bad\n")
    assert done.code == 5
    assert "wrong user or password" in done.err
    assert not (tmp_path / "config" / FILE_NAME).exists()


def test_a_code_is_changed_for_a_session_and_never_kept(cli: Cli, server: FakeKC, tmp_path: Path) -> None:
    done = cli("login", "lab", "--user", "alice", "--otp", "--stdin", "--file", stdin="hunter2\n123456\n")
    assert done.code == 0, done.err
    assert sent(server) == [("POST", WITH_CODE), ("GET", SESSION)]
    kept = (tmp_path / "config" / FILE_NAME).read_text()
    assert "kcs_session" in kept
    assert WITH_CODE not in kept
    out = cli("logout", "lab")
    assert out.code == 0, out.err
    assert sent(server)[-1] == ("DELETE", SESSION)
    assert not (tmp_path / "config" / FILE_NAME).exists()
    assert cli("logout", "lab").code == 3


def test_a_password_is_kept_as_basic_says(cli: Cli, server: FakeKC) -> None:
    assert cli("login", "lab", "--user", "alice", "--stdin", "--file", stdin="hunter2\n").code == 0
    assert sent(server) == [("GET", BASIC)]
    assert cli("login", "lab", "--user", "alice", "--session", "--stdin", "--file", stdin="hunter2\n").code == 0
    assert sent(server)[1:] == [("POST", BASIC), ("GET", SESSION)]


def test_the_header_of_the_environment_is_kept_as_it_is(
    cli: Cli, server: FakeKC, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KC_AUTH_HEADER", GOOD)
    done = cli("login", "lab", "--file", "-o", "json")
    assert done.json()["subject"] == "alice"
    assert sent(server) == [("GET", GOOD)]


def test_without_a_keyring_it_says_so_before_it_asks_the_server(cli: Cli, server: FakeKC, tmp_path: Path) -> None:
    done = cli("login", "lab", "--user", "alice", "--otp", "--stdin", stdin="secret\n123456\n")
    assert sent(server) == []
    assert done.code == 1
    assert "keyring: there is none here" in done.err
    assert f"--file keeps it in {tmp_path}/config/{FILE_NAME}" in done.err
    assert not (tmp_path / "config" / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("lab",), 2), (("lab", "--otp", "--stdin"), 2), (("local",), 2), (("none",), 3), (("lab", "--stdin"), 2)],
)
def test_what_cannot_be_is_said(cli: Cli, server: FakeKC, arguments: tuple[str, ...], code: int) -> None:
    assert cli("login", *arguments, stdin="").code == code
    assert server.asked == []


def test_no_secret_is_an_option(cli: Cli) -> None:
    for option in ("--password", "--token", "--secret"):
        assert cli("login", "lab", option, "hunter2").code == 2


def test_the_profiles_own_header_carries_it(cli: Cli, server: FakeKC) -> None:
    cli("profile", "add", "other", "--url", server.url, "--header", "X-Token")
    assert cli("login", "other", "--stdin", "--file", stdin="kct_good\n").code == 0
    assert server.asked[-1].headers["x-token"] == GOOD
    assert "authorization" not in server.asked[-1].headers


def test_a_credential_goes_to_no_other_place_than_its_profiles(
    cli: Cli, server: FakeKC, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("login", "lab", "--stdin", "--file", stdin="kct_good\n").code == 0
    with answering(answer) as other:
        monkeypatch.setenv("KC_URL", other.url)
        cli("--profile", "lab", "vm", "list")
        assert [asked.headers.get("authorization") for asked in other.asked] == [None]
    monkeypatch.delenv("KC_URL")
    with answering(answer) as other:
        server.answer = lambda _asked: Reply(None, 307, {"Location": f"{other.url}/v1/vms"})
        done = cli("--profile", "lab", "vm", "list")
        assert done.code == 6
        assert "it sends to" in done.err
        assert other.asked == []


def test_forgetting_works_where_the_server_is_gone(cli: Cli, server: FakeKC, tmp_path: Path) -> None:
    cli("login", "lab", "--user", "alice", "--session", "--stdin", "--file", stdin="hunter2\n")
    server.answer = lambda _asked: None
    done = cli("logout", "lab")
    assert done.code == 0
    assert "goes on to its end on the server" in done.err
    assert not (tmp_path / "config" / FILE_NAME).exists()


def test_removing_a_profile_forgets_its_credential(cli: Cli, tmp_path: Path) -> None:
    cli("login", "lab", "--stdin", "--file", stdin="kct_good\n")
    assert cli("profile", "remove", "lab").code == 0
    assert not (tmp_path / "config" / FILE_NAME).exists()


def test_headless_it_ends_soon_and_claims_nothing(server: FakeKC, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'[profiles.lab]\nurl = "{server.url}"\n')
    environment = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "kc_tui", "login", "lab", "--stdin"], input="kct_good\n", text=True,
        capture_output=True, timeout=20, check=False,
        env={**environment, "KC_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("kc: keyring: ")
    assert not (config / FILE_NAME).exists()
