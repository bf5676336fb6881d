"""An error is one line, or one problem object, and one exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.command_line import PROGRAM, CommandLine

from backend.errors import (
    ConflictError,
    DeniedError,
    FailedError,
    KCError,
    NotFoundError,
    RefusedError,
    TimedOutError,
    UnreachableError,
    UsageError,
)  # fmt: skip
from kc_tui.cli.reporting import report_internal_error


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


ERRORS = [
    (FailedError, 1), (UsageError, 2), (NotFoundError, 3), (ConflictError, 4), (DeniedError, 5), (UnreachableError, 6),
    (TimedOutError, 7), (RefusedError, 8),
]  # fmt: skip


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_each_error_has_its_exit_code_and_both_forms(kc, monkeypatch, error: type[KCError], code: int):
    def get(*_arguments: object, **_options: object) -> None:
        raise error("VM web", "it is so", "do that", path="spec.type")

    monkeypatch.setattr(kc.service, "get", get)
    plain = kc("vm", "show", "web")
    assert (plain.code, plain.out, plain.err) == (code, "", "kc: VM web: it is so. do that\n")
    problem = kc("vm", "show", "web", "-o", "json")
    assert problem.code == code
    assert problem.out == ""
    assert problem.err.count("\n") == 1
    assert problem.problem() == error("VM web", "it is so", "do that", path="spec.type").problem()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("vmm", "list"), "kc: usage of kc: no command 'vmm'. did you mean vm? see kc --help"),
        (("vm", "lst"), "kc: usage of kc vm: no verb 'lst'. did you mean list? see kc vm --help"),
        (("vm", "list", "--foo"), "kc: usage of kc vm list: unrecognized arguments: --foo. see kc vm list --help"),
        (("vm", "show"), "kc: usage of kc vm show: the following arguments are required: NAME. see kc vm show --help"),
        (("vm", "delete", "--yes"), "kc: kc vm: give names, or -l SELECTOR. see kc vm --help"),
        (("vm", "start", "a", "-l", "b=c"), "kc: kc vm: give names, or -l SELECTOR. see kc vm --help"),
        (("vm", "stop", "-l", ""), "kc: kc vm: an empty selector would mean all of them. name what is meant"),
        (("vm", "delete", "web"), "kc: kc vm delete: it asks first, and here is no terminal. add --yes to mean it"),
        (("history",), None),
        (("vm", "histroy", "web"), "kc: usage of kc vm: no verb 'histroy'. did you mean history? see kc vm --help"),
        (("vm", "history"), None),
        (("vm", "rollback", "web"), None),
        (("apply",), None),
        (("image", "create"), None),
        (("-o", "xml", "vm", "list"), None),
        (("vm",), None),
        (("-q",), None),
        (("",), None),
        (("op", "delete", "x"), None),
        (("vm", "show", "a\x1b]0;x\x07", "--b\x1b[2J"), None),
    ],
)
def test_wrong_usage_is_one_line_and_2(kc, monkeypatch, arguments, line):
    monkeypatch.setattr("sys.stdin", None)
    result = kc(*arguments)
    assert result.code == 2
    assert result.out == ""
    last = result.err.splitlines()[-1]
    assert last == line if line else last.startswith("kc: ")
    assert "\x1b" not in result.err
    assert not kc.service.calls


def test_wrong_usage_is_a_problem_object_with_json(kc):
    for arguments in (("vm", "list", "--foo", "-o", "json"), ("-o", "json", "cat"), ("-o", "json"), ("vm", "-ojson")):
        result = kc(*arguments)
        assert result.code == 2
        assert result.out == ""
        assert result.problem()["code"] == "usage"


def test_without_a_command_and_a_terminal_the_usage_goes_to_stderr(kc):
    result = kc()
    assert result.code == 2
    assert result.out == ""
    assert "usage: kc" in result.err
    assert "kc COMMAND" in result.err


def test_help_is_data(kc):
    for arguments in (("--help",), ("-h", "vm"), ("vm", "--help"), ("vm", "create", "-h")):
        result = kc(*arguments)
        assert result.code == 0
        assert "usage: kc" in result.out
        assert result.err == ""


def test_version_in_each_form(kc):
    from backend import __version__

    assert kc("--version").out == f"kc {__version__}\n"
    assert kc("--version", "-o", "json").json() == {"version": __version__}
    done = subprocess.run(
        [sys.executable, "-m", "kc_tui", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"kc {__version__}\n"


def test_an_unknown_profile_and_a_bad_file_are_errors_like_others(kc, tmp_path):
    assert kc("--profile", "nowhere", "vm", "list").code == 3
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("[broken")
    result = kc("vm", "list", "-o", "json")
    assert result.code == 8
    assert "config.toml" in result.problem()["title"]


def test_a_bug_is_one_line_and_its_traceback_is_kept(tmp_path, capsys, monkeypatch):
    def raise_it():
        raise ZeroDivisionError("by \x1b[31mzero")

    monkeypatch.setattr("sys.argv", ["kc"])
    with pytest.raises(ZeroDivisionError) as caught:
        raise_it()
    report_internal_error(caught.type, caught.value, caught.tb)
    path = tmp_path / "cache" / "last-error.txt"
    assert capsys.readouterr().err == (
        f"kc: internal error: ZeroDivisionError: by \ufffd[31mzero. its traceback is in {path}\n"
    )
    assert "in raise_it" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("KC_DEBUG", "1")
    report_internal_error(caught.type, caught.value, caught.tb)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_exits_1_whole_process(tmp_path):
    # A store that is a folder is no bug; an attribute that the environment breaks is: the service's own constructor.
    script = (
        "import sys, kc_tui.__main__ as m, kc_tui.cli.session as s\n"
        "s.Session.service = property(lambda self: 1 / 0)\n"
        "sys.argv = ['kc', 'vm', 'list', '-o', 'json']\n"
        "sys.exit(m.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith('{"type": "urn:kc:error:internal", "title": "internal error"')
    assert done.stderr.count("\n") == 1


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os
    import shlex

    text = command.replace("KC", shlex.join(PROGRAM))
    # Unbuffered, Python loses what a pipe does not take at once, and tells nobody.
    variables = {**os.environ, "PYTHONUNBUFFERED": "", **environment}
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, env=variables, check=False)


def test_a_closed_pipe_is_quiet():
    names = " ".join(f"vm-{number}" for number in range(3000))
    done = shell("KC vm list -o json | head -c 10; echo ${PIPESTATUS[0]} >&2", KC_TEST_VMS=names)
    assert done.stderr == "141\n"
    assert done.stdout == '{\n  "items'


def test_help_into_a_closed_pipe_is_quiet():
    done = shell("KC vm create --help | true; echo ${PIPESTATUS[0]} >&2")
    assert done.stderr in ("141\n", "0\n")


def test_a_full_disk_is_an_error():
    done = shell("KC vm list > /dev/full", KC_TEST_VMS="web")
    assert done.returncode == 1
    assert done.stderr == "kc: standard output: no space left on device\n"


def test_closed_streams_do_no_harm():
    done = shell("KC vm list >&- 2>&- </dev/null", KC_TEST_VMS="web")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_that_lacks_a_sign_gets_it_escaped():
    done = shell("KC vm list -o name", KC_TEST_VMS="grün", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.stdout == "gr\\xfcn\n"
