"""KC over SSH, through a real sshd: what it serves to whom, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.console_rig import Rig, console_rig
from support.pty_driver import Terminal

pytestmark = pytest.mark.timeout(180)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def open_app(rig: Rig, terminals: list[Terminal], name: str = "alice", **environment: str) -> Terminal:
    terminal = rig.open(name, **environment)
    terminals.append(terminal)
    terminal.wait_for("● live", 60)
    return terminal


def pump_until(terminal: Terminal, condition: Callable[[], object], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what}\n{terminal.text()}"
        terminal.pump(0.1)


def test_a_command_answers_as_kc_does(rig: Rig):
    done = rig.call("alice", "vm", "list", "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {"web-1", "web-2", "build-7"} < {item["name"] for item in answer["items"]}
    again = rig.call("alice", "kc", "vm", "show", "web-1", "-o", "name")
    assert (again.returncode, again.stdout) == (0, b"web-1\n")
    missing = rig.call("alice", "vm", "show", "none")
    assert missing.returncode == 3
    assert b"no such VM" in missing.stderr


def test_each_subject_sees_and_does_what_is_theirs(rig: Rig):
    seen = json.loads(rig.call("bob", "vm", "list", "-o", "json").stdout)
    assert [item["name"] for item in seen["items"]] == ["build-7"]
    hidden = rig.call("bob", "vm", "show", "web-1")
    missing = rig.call("bob", "vm", "show", "nowhere")
    assert hidden.returncode == missing.returncode == 3
    assert hidden.stderr.replace(b"web-1", b"X") == missing.stderr.replace(b"nowhere", b"X")
    nobody = rig.call("carol", "vm", "list")
    assert (nobody.returncode, nobody.stdout) == (5, b"")
    assert nobody.stderr.count(b"\n") == 1
    stranger = rig.call("stranger", "vm", "list")
    assert stranger.returncode == 255
    assert b"Permission denied" in stranger.stderr


def test_what_a_subject_writes_has_their_name(rig: Rig):
    document = json.dumps({"kind": "MachineType", "name": "tiny", "metadata": {"rack": "r7"}})
    done = rig.call("alice", "apply", "-f", "-", "-o", "json", data=document.encode())
    assert done.returncode == 0, done.stderr
    shown = json.loads(rig.call("alice", "type", "show", "tiny", "-o", "json").stdout)
    assert (shown["metadata"]["rack"], shown["updatedBy"]) == ("r7", "alice")


def test_without_terminal_and_command_it_tells_what_there_is(rig: Rig):
    done = rig.call("alice")
    assert done.returncode == 2
    assert b"usage: kc" in done.stderr
    assert b"ssh-console" not in done.stderr
    assert b"serve" not in done.stderr


def test_the_application_has_its_keys_and_follows_the_terminal(rig: Rig, terminals: list[Terminal]):
    terminal = open_app(rig, terminals)
    assert "alice on " in terminal.text()
    terminal.wait_for("web-1")
    terminal.resize(50, 12)
    terminal.wait_for("KC needs 60 columns")
    terminal.resize(140, 40)
    terminal.wait_for("TENANT")
    terminal.send("/build")
    terminal.wait_for("1 of ")
    terminal.send("\x1b")
    pump_until(terminal, lambda: "1 of " not in terminal.text(), 10, "the filter stays")
    terminal.send("4")
    terminal.wait_for("arm-tiny")
    terminal.send("q")
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
    assert b"\x1b[?1049l" in terminal.output[-600:]


def test_one_who_sees_less_has_an_application_too(rig: Rig, terminals: list[Terminal]):
    terminal = open_app(rig, terminals, "bob")
    terminal.wait_for("build-7")
    assert "web-1" not in terminal.text()
    assert "foreign" not in terminal.text()
    terminal.send("q")
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0


def test_a_line_that_drops_leaves_nobody_and_keeps_the_draft(rig: Rig, terminals: list[Terminal]):
    terminal = open_app(rig, terminals)
    for key, page in (("n", "Image"), ("\r", "Networks"), ("\r", "Machine type"), ("\r", "Name and size")):
        terminal.send(key)
        terminal.wait_for(f" {page}")
    terminal.send("half-way")
    terminal.wait_for("half-way")
    assert rig.processes()
    os.kill(terminal.pid, signal.SIGKILL)
    wait_until(lambda: not rig.processes(), 10, "it went on without a line")
    kept = list((rig.home / "data" / "visitors").glob("*/tui.json"))
    assert any('"name": "half-way"' in path.read_text() for path in kept)
    again = open_app(rig, terminals)
    again.send("n")
    again.wait_for("half-way")
    again.send("\x1bq")


@pytest.mark.parametrize("words", [["watch"]], ids=["watch"])
def test_a_command_without_terminal_ends_with_its_line(rig: Rig, words: list[str]):
    import subprocess

    client = subprocess.Popen([*rig.ssh("alice"), "kc@127.0.0.1", *words], stdout=subprocess.PIPE)
    wait_until(rig.processes, 30, "it does not begin")
    client.kill()
    client.communicate()
    wait_until(lambda: not rig.processes(), 10, "it went on without a line")


def test_who_presses_no_key_is_warned_and_shown_out(rig: Rig, terminals: list[Terminal]):
    rig.write_config("\n[ssh]\nidleMinutes = 0.2\n")
    try:
        terminal = open_app(rig, terminals)
        terminal.wait_for("this session ends in", 30)
        terminal.send("j")
        pump_until(terminal, lambda: "this session ends in" not in terminal.text(), 5, "a key does not count")
        terminal.wait_for("this session ends in", 30)
        assert os.waitstatus_to_exitcode(terminal.wait_end(30)) == 7
        assert "kc: no key was pressed for 12 seconds" in terminal.text()
    finally:
        rig.write_config()


def test_a_key_that_is_removed_ends_its_sessions(rig: Rig, terminals: list[Terminal]):
    terminal = open_app(rig, terminals, "bob")
    [key] = [item for item in json.loads(rig.run_kc("ssh-console", "keys", "-o", "json"))["items"]
             if item["subject"] == "bob"]  # fmt: skip
    rig.run_kc("ssh-console", "keys", "--remove", key["fingerprint"])
    try:
        assert os.waitstatus_to_exitcode(terminal.wait_end(40)) == 5
        assert "kc: SSH console: the session has ended" in terminal.text()
        assert rig.call("bob", "vm", "list").returncode == 255
    finally:
        rig.run_kc("ssh-console", "keys", "--add", f"{rig.key('bob')}.pub", "--subject", "bob")


def test_a_grant_that_is_taken_back_counts_in_a_session(rig: Rig, terminals: list[Terminal]):
    terminal = open_app(rig, terminals)
    terminal.wait_for("web-1")
    config = rig.home / "config" / "config.toml"
    whole = config.read_text()
    try:
        config.write_text(whole.replace('group = "ops"', 'group = "nobody"'))
        assert os.waitstatus_to_exitcode(terminal.wait_end(40)) == 5
        assert "alice may do nothing here" in terminal.text()
    finally:
        config.write_text(whole)


def test_a_console_is_spoken_to_and_counts_keys(tmp_path_factory: pytest.TempPathFactory, terminals: list[Terminal]):
    folder: Path = tmp_path_factory.mktemp("console") / "rig"
    with console_rig(folder, memory=True) as rig:
        terminal = rig.open("alice", "vm", "console", "web-1")
        terminals.append(terminal)
        terminal.wait_for("console of VM web-1; ctrl-] leaves", 60)
        terminal.send("hello\r")
        terminal.wait_for("hello")
        terminal.send("\x1d")
        assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
        rig.write_config("\n[ssh]\nidleMinutes = 0.1\n")
        away = rig.open("alice", "vm", "console", "web-1")
        terminals.append(away)
        away.wait_for("this session ends in 3 seconds", 60)
        assert os.waitstatus_to_exitcode(away.wait_end(30)) == 7
        assert "no key was pressed for 6 seconds" in away.text()
