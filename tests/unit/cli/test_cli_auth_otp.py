"""`kc auth otp`: a QR code, one good code, recovery codes once."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import pyotp
import pytest

from backend.auth.enrolment import open_enrolments
from backend.settings import load_settings
from kc_tui.cli import auth_otp
from kc_tui.cli.commands import NOUNS, Noun
from kc_tui.cli.main import run

RECOVERY = re.compile(r"^[a-z2-7]{4}(-[a-z2-7]{4}){3}$", re.MULTILINE)


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        import json

        return json.loads(self.out)


class Typed(io.StringIO):
    """Standard input: what is typed, on a terminal or not; a callable is asked for its line when it comes to that."""

    def __init__(self, *lines: Any, terminal: bool = False) -> None:
        super().__init__()
        self._lines = list(lines)
        self._terminal = terminal

    def readline(self, *_: Any) -> str:
        line = self._lines.pop(0) if self._lines else ""
        return line() if callable(line) else line

    def isatty(self) -> bool:
        return self._terminal


class Otp:
    def __init__(self, home: Path, capsys: Any, monkeypatch: Any) -> None:
        self.home, self._capsys, self._monkeypatch = home, capsys, monkeypatch

    def __call__(self, *arguments: str, typed: Typed | None = None) -> Result:
        self._monkeypatch.setattr("sys.stdin", typed)
        self._capsys.readouterr()
        code = run(["auth", "otp", *arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def use(self, subject: str, code: str) -> bool:
        enrolments, store = open_enrolments(load_settings(environment={"KC_HOME": str(self.home)}))
        try:
            return enrolments.use(subject, code)
        finally:
            store.close()


@pytest.fixture
def otp(tmp_path: Path, capsys: Any, monkeypatch: Any) -> Otp:
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    monkeypatch.setitem(NOUNS, "auth", NOUNS.get("auth", Noun("auth", "who may do what")))
    return Otp(tmp_path, capsys, monkeypatch)


def test_a_script_enrols_in_two_steps(otp: Otp) -> None:
    begun = otp("enrol", "alice", "-o", "json", typed=Typed("123456\n")).json()
    assert begun["uri"].startswith("otpauth://totp/KC:alice?secret=" + begun["secret"])
    assert (begun["subject"], begun["active"]) == ("alice", False)
    totp = pyotp.TOTP(begun["secret"])
    assert otp("list", "-o", "json").json()["items"][0]["active"] is False
    wrong = otp("enrol", "alice", "--code", f"{(int(totp.now()) + 1) % 1_000_000:06d}")
    assert (wrong.code, wrong.out) == (8, "")
    done = otp("enrol", "alice", "--code", totp.now(), "-o", "json")
    assert (done.code, done.json()["active"], len(done.json()["recoveryCodes"])) == (0, True, 10)
    assert otp.use("alice", done.json()["recoveryCodes"][3])
    assert otp("list", "-o", "json").json()["items"][0] == {
        "subject": "alice",
        "active": True,
        "createdAt": otp("list", "-o", "json").json()["items"][0]["createdAt"],
        "usedAt": otp("list", "-o", "json").json()["items"][0]["usedAt"],
        "recoveryCodes": 9,
    }


def test_a_pipe_is_asked_for_the_code(otp: Otp, capsys: Any) -> None:
    secret = []

    def answer() -> str:
        shown = capsys.readouterr().out
        secret.append(re.search(r"^secret  (.*)$", shown, re.MULTILINE)[1].replace(" ", ""))
        return pyotp.TOTP(secret[0]).now() + "\n"

    done = otp("enrol", "alice", typed=Typed(answer))
    assert done.code == 0
    assert len(RECOVERY.findall(done.out)) == 10
    assert "not shown again" in done.err
    assert otp.use("alice", pyotp.TOTP(secret[0]).at(time.time() + 30))


@pytest.mark.parametrize("typed", [None, Typed(), Typed("\n")], ids=["none", "end", "empty"])
def test_without_an_answer_it_is_said_how_to_go_on(otp: Otp, typed: Typed | None) -> None:
    done = otp("enrol", "alice", typed=typed)
    assert done.code == 0
    assert "otpauth://totp/KC:alice" in done.out
    assert "kc auth otp enrol alice --code CODE" in done.err
    assert otp("list").out.split("\n")[1].split()[:2] == ["alice", "begun"]


def test_three_wrong_codes_end_it(otp: Otp) -> None:
    done = otp("enrol", "alice", typed=Typed("1\n", "2\n", "3\n"))
    assert done.code == 8
    assert done.err.count("the code is wrong") == 3
    assert otp("list", "-o", "json").json()["items"][0]["active"] is False


def test_names_alone_are_for_scripts(otp: Otp) -> None:
    secret = otp("enrol", "alice", "-o", "name").out.strip()
    codes = otp("enrol", "alice", "--code", pyotp.TOTP(secret).now(), "-o", "name").out
    assert len(RECOVERY.findall(codes)) == len(codes.splitlines()) == 10
    assert otp("list", "-o", "name").out == "alice\n"


def test_codes_in_force_are_not_replaced_but_removed(otp: Otp) -> None:
    secret = otp("enrol", "alice", "-o", "name").out.strip()
    otp("enrol", "alice", "--code", pyotp.TOTP(secret).now())
    assert otp("enrol", "alice").code == 4
    assert otp("remove", "alice").code == 2
    assert otp("remove", "alice", typed=Typed("no\n", terminal=True)).code == 1
    assert otp("list", "-o", "name").out == "alice\n"
    assert otp("remove", "alice", "--yes", "-o", "json").json() == {"subject": "alice", "removed": True}
    assert otp("list", "-o", "name").out == ""
    assert otp("remove", "alice", "--yes").code == 3
    assert not otp.use("alice", pyotp.TOTP(secret).at(time.time() + 30))
    assert otp("enrol", "alice").code == 0


def test_a_remote_kc_is_refused_plainly(otp: Otp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KC_URL", "https://kc.example.org")
    for arguments in (("enrol", "alice"), ("list",), ("remove", "alice", "--yes")):
        done = otp(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "run the command where that KC has its store" in done.err


def test_a_hostile_subject_is_refused_and_not_shown(otp: Otp) -> None:
    done = otp("enrol", "a\x1b]0;x\x07b")
    assert done.code == 8
    assert "\x1b" not in done.out + done.err


# --- the QR code


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def read_modules(lines: list[str]) -> list[list[int]]:
    """Return the modules that half blocks show, 1 for dark."""
    halves = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
    rows = []
    for line in lines:
        pairs = [halves[sign] for sign in line]
        rows += [[top for top, _ in pairs], [bottom for _, bottom in pairs]]
    return rows


@pytest.mark.parametrize("subject", ["a", "alice@example.org", "x" * 60])
def test_the_qr_code_is_the_uri_and_fits_a_terminal(monkeypatch: Any, subject: str) -> None:
    import segno

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    uri = pyotp.TOTP("A" * 32, name=subject, issuer="KC").provisioning_uri()
    coloured = auth_otp._draw(uri)
    assert all(line.startswith("\x1b[0;97;40m") and line.endswith("\x1b[0m") for line in coloured)
    lines = [line.removeprefix("\x1b[0;97;40m").removesuffix("\x1b[0m") for line in coloured]
    assert len(lines) <= 22
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= 80
    code = segno.make(uri, error="l", boost_error=False, micro=False)
    border = (len(lines[0]) - code.symbol_size(border=0)[0]) // 2
    shown = [row[border : len(row) - border] for row in read_modules(lines)][border:]
    expected = [list(row) for row in code.matrix]
    assert shown[: len(expected)] == expected
    monkeypatch.setenv("NO_COLOR", "1")
    assert auth_otp._draw(uri) == lines


def test_a_name_that_is_too_long_for_a_qr_code_or_a_terminal_without_blocks_gets_the_secret(monkeypatch: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert "too long" in auth_otp._draw(pyotp.TOTP("A" * 32, name="x" * 200, issuer="KC").provisioning_uri())[0]
    monkeypatch.setattr(Terminal, "encoding", "ascii")
    assert "shows no QR code" in auth_otp._draw(pyotp.TOTP("A" * 32, name="x").provisioning_uri())[0]
