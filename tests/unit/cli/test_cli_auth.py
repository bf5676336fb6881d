"""`kc auth`: the authenticators, and how a decision comes about, here and on a server."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.api_server import make_token, running_server
from support.memory_kc import close_services, furnish, make_service, settle, vm_document

from kc_tui.cli.main import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    for name in ("KC_URL", "KC_AUTH_HEADER", "KC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    service = make_service(tmp_path)
    furnish(service)
    settle(service, service.create(vm_document("ours", metadata={"tenant": "acme"})))
    settle(service, service.create(vm_document("theirs", metadata={"tenant": "other"})))
    yield service
    close_services()


def kc(home: Any, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = run(["auth", *words, "-o", "json"], lambda *_args, **_options: home)
    return code, json.loads(capsys.readouterr().out)


def test_the_authenticators_stand_in_their_order(home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = kc(home, capsys, "list")
    assert code == 0
    names = [entry["name"] for entry in value["items"]]
    assert (names[0], names[-1]) == ("tokens", "peer")


def test_without_a_credential_it_is_the_own_user(home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = kc(home, capsys, "check", "--action", "vm.start", "--vm", "theirs")
    assert (code, value["permitted"], value["authenticator"]) == (0, True, "peer")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--action", "vm.start", "--vm", "ours"], 0),
        (["--action", "vm.start", "vm", "theirs"], 5),
        (["--action", "vm.delete", "vm", "ours"], 5),
        (["--action", "vm.start"], 0),
        (["--action", "vm.start", "vm", "absent"], 5),
    ],
    ids=["ours", "theirs", "another-verb", "any", "absent"],
)
def test_a_token_may_what_its_scopes_say(
    home: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    scopes = [{"actions": ["vm.start"], "selector": "tenant=acme"}]
    secret = make_token(home, "limited", type="limited", scopes=scopes)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Bearer {secret}\n"))
    found, value = kc(home, capsys, "check", *words, "--credential", "-")
    assert (found, value["permitted"]) == (code, code == 0)
    assert secret not in json.dumps(value)


def test_a_server_explains_its_own_decisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(tmp_path / "server") as server:
        server.make_vm("ours", tenant="acme")
        monkeypatch.setenv("KC_HOME", str(tmp_path / "client"))
        monkeypatch.setenv("KC_URL", server.url)
        monkeypatch.setenv("KC_AUTH_HEADER", f"Bearer {server.god}")
        monkeypatch.setattr("sys.stdin", io.StringIO(f"Bearer {server.acme}\n"))
        assert run(["auth", "check", "--action", "vm.pause", "--vm", "ours", "--credential", "-"]) == 5
        assert "permitted no" in capsys.readouterr().out
        assert run(["auth", "list"]) == 2
