"""`kc token`: the secret on stdout and nowhere else; narrowing and looking at tokens without any service."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from backend.auth.protocol import EVERYTHING, Decision
from backend.auth.secrets import has_checksum, read_macaroon
from backend.auth.tokens import mint_session
from backend.model.documents import parse_time

FINGERPRINT = "SHA256:" + "A" * 43


@pytest.fixture
def type_in(monkeypatch: Any) -> Any:
    """Put a text onto stdin."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.fixture
def offline(kept: Any, monkeypatch: Any) -> Any:
    """A command line that must open no service."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError

    token = kept("token", "create", "ci", "--allow", "vm.*", "-l", "tenant=acme").out.strip()
    monkeypatch.setattr("support.memory_kc.LocalService", refuse)
    kept.token = token
    return kept


def test_the_secret_stands_alone_on_stdout(kept: Any, tmp_path: Path) -> None:
    made = kept(
        *("token", "create", "ci", "--allow", "vm.start,vm.stop", "-l", "tenant=acme", "--meta", "tenant=acme"),
        *("--scope", "image.read, network.read", "--scope", "op.*: tenant in (acme, bob)", "--expires", "30d"),
    )
    assert made.code == 0, made.err
    assert read_macaroon(made.out.removesuffix("\n")) is not None
    assert "not shown again" in made.err
    assert made.out.strip() not in made.err
    document = kept("token", "show", "ci", "-o", "json").json()
    assert document["metadata"] == {"tenant": "acme"}
    assert document["spec"]["scopes"] == [
        {"actions": ["vm.start", "vm.stop"], "selector": "tenant=acme"},
        {"actions": ["image.read", "network.read"], "selector": ""},
        {"actions": ["op.*"], "selector": "tenant in (acme, bob)"},
    ]
    assert parse_time(document["spec"]["expiresAt"]) == pytest.approx(time.time() + 30 * 86400, abs=60)
    assert made.out.strip().encode() not in b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


def test_json_has_the_secret_beside_the_document(kept: Any) -> None:
    made = kept("token", "create", "root", "--god", "--never", "-o", "json")
    document = made.json()
    assert has_checksum(document["token"])
    assert (document["kind"], document["name"], document["spec"]["expiresAt"]) == ("Token", "root", None)
    assert "token" not in kept("token", "show", "root", "-o", "json").json()
    assert kept("token", "create", "quiet", "--god", "-q").err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ci",), 2, "not said what it may do"),
        (("ci", "--god", "--allow", "vm.read"), 2, "give one of them"),
        (("ci", "--god", "--never", "--expires", "1d"), 2, "exclude each other"),
        (("ci", "--god", "-l", "tenant=acme"), 2, "-l goes with --allow"),
        (("ci", "--allow", "vm.strt"), 2, "the nearest is vm.start"),
        (("ci", "--allow", "vm.read,"), 2, "no action ''"),
        (("ci", "--scope", "vm.red: a=1"), 2, "the nearest is vm.read"),
        (("ci", "--allow", "vm.read", "-l", "status.power=on"), 8, "asks for a status"),
        (("ci", "--allow", "vm.read", "-l", "a in (b"), 8, "closing parenthesis"),
        (("ci", "--allow", "vm.read", "--expires", "soon"), 2, "is no time"),
        (("ci", "--allow", "vm.read", "--expires", "99999999d"), 2, "100 years"),
        (("ci", "--god", "-o", "name"), 2, "lose the secret"),
        (("Ci!", "--god"), 8, "not a valid name"),
    ],
    ids=lambda value: "-".join(value).replace(" ", "") if isinstance(value, tuple) else "",
)
def test_what_makes_no_token_is_told(kept: Any, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = kept("token", "create", *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert kept("token", "list", "--all", "-o", "name").out == ""


def test_a_key_makes_it_once(kept: Any) -> None:
    arguments = ("token", "create", "ci", "--god", "--never", "--idempotency-key", "k1")
    assert kept(*arguments).code == 0
    again = kept(*arguments)
    assert (again.code, again.out) == (4, "")
    assert "was shown then" in again.err


def test_tokens_are_listed_shown_narrowed_and_revoked(kept: Any) -> None:
    kept("token", "create", "ci", "--allow", "vm.start,vm.stop", "-l", "tenant=acme")
    kept("token", "create", "root", "--god", "--never")
    listed = kept("token", "list").out.splitlines()
    assert [line.split()[:2] for line in listed] == [["NAME", "TYPE"], ["ci", "limited"], ["root", "god"]]
    assert "vm.start, vm.stop: tenant=acme" in listed[1]
    assert "never" in listed[2]
    shown = kept("token", "show", "ci").out
    assert "may do" in shown
    assert "vm.start, vm.stop: tenant=acme" in shown
    assert kept("token", "show", "ci", "--version", "1", "-o", "json").json()["version"] == 1
    changed = kept("token", "set", "ci", "--meta", "tier=1", 'spec.scopes.0.actions=["vm.start"]')
    assert changed.code == 0
    assert "undo" not in changed.err
    assert kept("token", "set", "ci", 'spec.scopes.0.actions=["vm.*"]').code == 8
    assert "vm.stop" in kept("token", "diff", "ci", "1").out
    for verb in ("restore", "undo", "rollback"):
        assert kept("token", verb, "ci").code == 2
    assert kept("token", "delete", "ci").code == 2
    assert kept("token", "delete", "ci", "--yes", "--now").code == 2
    gone = kept("token", "delete", "ci", "--yes", "--message", "leaked")
    assert gone.code == 0
    assert "for good" in gone.err
    assert "restore" not in gone.err
    assert kept("token", "show", "ci").code == 3
    history = kept("token", "history", "ci")
    assert "deleted: leaked" in history.out
    assert "restore" not in history.err
    assert kept("__complete", "token").out.split() == ["root"]


def test_sessions_are_listed_with_all(kept: Any) -> None:
    from backend.auth.keys import open_master_key

    decision = Decision("allow", subject="alice", groups=("staff",), scopes=EVERYTHING, from_grants=True)
    document = mint_session(kept.service.store, open_master_key(kept.service.settings), decision)[1]
    assert kept("token", "list", "-o", "name").out == ""
    assert kept("token", "list", "--all", "-o", "name").out.split() == [document["name"]]
    row = kept("token", "list", "--all").out.splitlines()[1]
    assert "what its subject may" in row
    assert "alice" in row
    assert "staff" in kept("token", "show", document["name"]).out


def test_a_configured_chain_without_tokens_is_told(kept: Any, tmp_path: Path) -> None:
    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text('[[auth.chain]]\ntype = "htpasswd"\nfile = "/etc/kc/htpasswd"\n')
    made = kept("token", "create", "ci", "--god")
    assert made.code == 0
    assert "takes no tokens" in made.err
    config.write_text('[[auth.chain]]\ntype = "htpasswd"\n[[auth.chain]]\ntype = "tokens"\n')
    assert "takes no tokens" not in kept("token", "create", "other", "--god").err


def test_a_token_is_narrowed_without_a_service(offline: Any, type_in: Any) -> None:
    type_in(f"Authorization: Bearer {offline.token}\n")
    made = offline("token", "attenuate", "-", "--allow", "vm.start, vm.read", "-l", "name=web", "--expires", "10m",
                   "--read-only", "--client", "192.0.2.0/24", "--client", "uid:1000", "--bound", f"tls:{FINGERPRINT}",
                   "-o", "json")  # fmt: skip
    assert made.code == 0, made.err
    assert made.err == ""
    narrower = made.json()
    tags = ["actions", "selector", "read-only", "expires", "client", "bound"]
    assert [entry[0] for entry in narrower["caveats"]] == tags
    found = read_macaroon(narrower["token"])
    assert found is not None
    assert [json.loads(caveat) for caveat in found.caveats] == narrower["caveats"]
    type_in(narrower["token"])
    told = offline("token", "inspect", "-", "-o", "json").json()
    assert (told["type"], told["caveats"]) == ("limited", narrower["caveats"])
    type_in(narrower["token"])
    text = offline("token", "inspect", "-").out
    for words in ("to vm.start, vm.read", "name=web", "to reading", "until 20", "uid:1000", "the TLS key"):
        assert words in text
    plain = offline("token", "attenuate", offline.token, "--read-only")
    assert "other users" in plain.err
    assert read_macaroon(plain.out.strip()) is not None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "not said how"),
        (("--allow", "vm.strt"), 2, "the nearest is vm.start"),
        (("-l", "status.power=on"), 2, "asks for a status"),
        (("-l", " "), 2, "not said how"),
        (("--client", "10.0.0.1/8"), 2, "neither a network"),
        (("--bound", "tls:x"), 2, "neither tls:SHA256"),
        (("--read-only", "-o", "name"), 2, "no name"),
    ],
    ids=["nothing", "action", "selector", "blank", "client", "bound", "name"],
)
def test_a_narrowing_that_is_none_is_told(offline: Any, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = offline("token", "attenuate", offline.token, *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err


def test_what_is_no_limited_token_is_not_narrowed(kept: Any, type_in: Any) -> None:
    god = kept("token", "create", "root", "--god", "-q").out.strip()
    for token, code, words in (
        (god, 2, "god token cannot be narrowed"), ("kct_AAAA", 8, "not whole"), ("", 8, "not whole"),
        ("\x1b]52;c;QQ==\x07", 8, "not whole"),
    ):  # fmt: skip
        type_in(f"{token}\n")
        result = kept("token", "attenuate", "-", "--read-only")
        assert (result.code, result.out) == (code, "")
        assert words in result.err
        assert "\x1b" not in result.err
        if token:
            assert token not in result.err


def test_inspecting_tells_a_token_that_was_not_copied_whole(kept: Any, type_in: Any) -> None:
    god = kept("token", "create", "root", "--god", "-q").out.strip()
    uid = kept("token", "show", "root", "-o", "json").json()["uid"]
    type_in(god)
    assert kept("token", "inspect", "-", "-o", "name").out.strip() == uid
    for wrong in (god[:-1], god[:9] + ("A" if god[9] != "A" else "B") + god[10:]):
        type_in(wrong)
        assert kept("token", "inspect", "-").code == 8


def test_a_caveat_that_is_not_known_is_shown_harmlessly(offline: Any, type_in: Any) -> None:
    from backend.auth.macaroon import attenuate, encode

    found = read_macaroon(offline.token)
    assert found is not None
    type_in(
        "kct_" + encode(attenuate(found, [b'["moon","\x1b]0;x\x07"]', "\u202e\udcff".encode("utf-8", "surrogatepass")]))
    )
    result = offline("token", "inspect", "-")
    assert result.code == 0
    assert result.out.replace("\n", "").isprintable()
    assert "worth nothing here" in result.out
