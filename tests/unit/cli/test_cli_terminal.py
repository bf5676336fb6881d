"""The command line on a real terminal: progress, questions, ctrl-c, the console, completion by the shells."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import PROGRAM
from support.pty_driver import Terminal

from kc_tui.cli.commands import NOUNS, load_commands, visible_nouns

CREATE = ("vm", "create", "web", "--image", "starter", "--network", "default", "--type", "tiny")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("KC_", "NO_COLOR"))},
        "KC_HOME": str(tmp_path), "TERM": "xterm-256color", "KC_TEST_VMS": "web db", "PS1": "$ ",
        "KC_TEST_CALLS": str(tmp_path / "calls"),
    }  # fmt: skip


@pytest.fixture
def open_terminal(environment) -> Iterator[object]:
    terminals: list[Terminal] = []

    def start(*command: str, columns: int = 80, **more: str) -> Terminal:
        terminals.append(Terminal(list(command), {**environment, **more}, columns))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def calls(environment) -> str:
    return Path(environment["KC_TEST_CALLS"]).read_text()


def code(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def test_a_list_fits_the_terminal_and_has_its_colours(open_terminal):
    terminal = open_terminal(*PROGRAM, "vm", "list", columns=40, KC_TEST_VMS="web a-name-that-is-much-longer-than-that")
    assert code(terminal.wait_end()) == 0
    lines = [line.rstrip() for line in terminal.screen.display if line.strip()]
    assert len(lines) == 3
    assert lines[1].startswith("a-n")
    assert "…" in lines[1]
    assert all("512 MiB" in line for line in lines[1:])
    assert b"\x1b[32mrun" in terminal.output
    plain = open_terminal(*PROGRAM, "vm", "list", NO_COLOR="1")
    plain.wait_end()
    assert b"\x1b" not in plain.output


def test_progress_is_one_line_that_is_gone_at_the_end(open_terminal):
    terminal = open_terminal(*PROGRAM, *CREATE, "-o", "name", KC_TEST_VMS="")
    assert code(terminal.wait_end()) == 0
    assert b"\r\x1b[K" in terminal.output
    assert b"step 2 of 3: defining the domain  33 %" in terminal.output
    assert [line.rstrip() for line in terminal.screen.display if line.strip()] == ["web"]


def test_deleting_asks_for_the_name(open_terminal, environment):
    terminal = open_terminal(*PROGRAM, "vm", "delete", "web")
    terminal.wait_for("Delete VM web and its disks? type the name:")
    terminal.send("web\n")
    assert code(terminal.wait_end()) == 0
    assert "('delete', 'VM', 'web', False)" in calls(environment)


@pytest.mark.parametrize(
    ("arguments", "question", "answer"),
    [
        (("web",), "Delete VM web and its disks? type the name:", "yes"),
        (("web", "db"), "Delete 2 VMs (web, db) and their disks? type how many:", "y"),
        (("web", "--keep-disks"), "Delete VM web? type y:", ""),
    ],
)
def test_another_answer_deletes_nothing(open_terminal, environment, arguments, question, answer):
    terminal = open_terminal(*PROGRAM, "vm", "delete", *arguments)
    terminal.wait_for(question)
    terminal.send(f"{answer}\n")
    assert code(terminal.wait_end()) == 1
    assert "nothing was deleted" in terminal.text()
    assert "'delete'" not in calls(environment)


def test_a_name_that_is_not_there_is_told_before_anybody_is_asked(open_terminal):
    terminal = open_terminal(*PROGRAM, "vm", "delete", "gone")
    assert code(terminal.wait_end()) == 3
    assert "type" not in terminal.text()


def test_ctrl_c_cancels_and_waits_for_the_undo(open_terminal, environment):
    terminal = open_terminal(*PROGRAM, *CREATE, KC_TEST_BLOCK="1", KC_TEST_VMS="")
    terminal.wait_for("web: step 1 of 3: making the disk  0 %")
    terminal.send("\x03")
    terminal.wait_for("kc: cancelling op-1; ctrl-c again leaves it to the background")
    assert code(terminal.wait_end()) == 130
    assert "VM web: cancelled" in terminal.text()
    assert "('cancel', 'op-1')" in calls(environment)


def test_a_hang_up_leaves_without_cancelling(open_terminal, environment):
    terminal = open_terminal(*PROGRAM, *CREATE, KC_TEST_BLOCK="1", KC_TEST_VMS="", KC_LIBVIRT_URI="test:///default")
    terminal.wait_for("web: step 1 of 3")
    os.kill(terminal.pid, signal.SIGHUP)
    assert code(terminal.wait_end()) == 128 + signal.SIGHUP
    assert "cancel" not in calls(environment)


def test_the_console_carries_keys_and_words_until_it_is_left(open_terminal, environment):
    said = repr(b"\x1b]0;owned\x07login: ")
    terminal = open_terminal("bash", "--norc", "-i", KC_TEST_LOG=said)
    terminal.wait_for("$")
    terminal.send(f"{shlex.join(PROGRAM)} vm console web\n")
    terminal.wait_for("console of VM web; ctrl-] leaves")
    terminal.wait_for("login: ")
    assert not termios.tcgetattr(terminal.descriptor)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    terminal.send("root\x03\x1a")
    terminal.wait_for("<root")
    terminal.send("\x1d")
    terminal.wait_for("left the console")
    terminal.send("echo again$((1+1))\n")
    terminal.wait_for("again2")
    assert b"owned" not in terminal.output.split(b"login:")[0].split(b"console of VM")[1]
    terminal.send("stty -a | grep -c -e -icanon\n")
    terminal.wait_for("\n0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back(open_terminal, number):
    terminal = open_terminal("bash", "--norc", "-i")
    terminal.wait_for("$")
    terminal.send(f"{shlex.join(PROGRAM)} vm console web & pid=$!; fg\n")
    terminal.wait_for("ctrl-] leaves")
    # Bash is waiting for the console; another process ends it, as a lost connection would.
    found = subprocess.run(
        ["pgrep", "-P", str(terminal.pid)], capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()  # fmt: skip
    os.kill(int(found[0]), number)
    while Path(f"/proc/{found[0]}").exists():
        terminal.pump(0.05)
    terminal.send("echo back$((20+3))\n")
    terminal.wait_for("back23")
    terminal.send("stty -a | grep -c -e -icanon\n")
    terminal.wait_for("\n0")


def test_the_console_ends_with_the_guest(open_terminal):
    terminal = open_terminal(*PROGRAM, "vm", "console", "web")
    terminal.wait_for("ctrl-] leaves")
    terminal.send("\x04")
    assert code(terminal.wait_end()) == 0
    assert "the console ended" in terminal.text()


@pytest.fixture
def shell_path(tmp_path: Path, environment) -> str:
    """A PATH on which `kc` is the command line on the service in memory."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kc").write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    (folder / "kc").chmod(0o755)
    (tmp_path / "disk.raw").write_text("")
    return f"{folder}:{os.environ['PATH']}"


COMPLETIONS = [
    ("kc vm cre", "kc vm create"),
    ("kc vm show w", "kc vm show web"),
    ("kc -o json vm start d", "kc -o json vm start db"),
    ("kc vm show --output ya", "kc vm show --output yaml"),
    ("kc vm delete web d", "kc vm delete web db"),
    ("kc doc", "kc doctor"),
    ("kc vm snap", "kc vm snapshot"),
    ("kc vm disk gr", "kc vm disk grow"),
    ("kc vm disk grow w", "kc vm disk grow web"),
    ("kc vm disk grow web ro", "kc vm disk grow web root"),
    ("kc vm -o json snapshot cr", "kc vm -o json snapshot create"),
    ("kc vm nic add web --netw", "kc vm nic add web --network"),
    ("kc vm create x --wait rea", "kc vm create x --wait ready"),
    ("kc vm create x --user-d", "kc vm create x --user-data"),
    ("kc image upload dis", "kc image upload disk.raw"),
    ("kc completion zs", "kc completion zsh"),
    ("kc schema net", "kc schema network"),
    ("kc --profile loc", "kc --profile local"),
]


def complete(terminal: Terminal, typed: str, wanted: str) -> None:
    terminal.send(f"{typed}\t")
    terminal.wait_for(wanted)
    terminal.send("\x15")  # ctrl-u clears the line


def test_bash_completes_on_a_terminal(open_terminal, shell_path, tmp_path):
    terminal = open_terminal("bash", "--norc", "-i", PATH=shell_path)
    terminal.wait_for("$")
    terminal.send(f"cd {tmp_path}; source <(kc completion bash); clear\n")
    for typed, wanted in [*COMPLETIONS, ("kc vm show --output=ya", "kc vm show --output=yaml")]:
        complete(terminal, typed, wanted)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_on_a_terminal(open_terminal, shell_path, tmp_path):
    terminal = open_terminal("zsh", "-f", "-i", PATH=shell_path, PROMPT="$ ")
    terminal.wait_for("$")
    terminal.send(f"cd {tmp_path}; autoload -U compinit; compinit -u -d {tmp_path}/dump; source <(kc completion zsh)\n")
    terminal.send("unsetopt zle_bracketed_paste; clear; echo set$((1+1))\n")
    terminal.wait_for("set2")
    for typed, wanted in [*COMPLETIONS, ("kc vm show --output=ya", "kc vm show --output=yaml")]:
        complete(terminal, typed, wanted)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(shell_path, environment, tmp_path):
    for typed, wanted in [*COMPLETIONS, ("kc vm show --output=ya", "--output=yaml")]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"kc completion fish | source; complete -C {shlex.quote(typed)}"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**environment, "PATH": shell_path},
            check=True,
        )
        offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert wanted.split()[-1] in offered, (typed, done.stdout, done.stderr)


def test_bash_offers_what_comes_next_and_never_runs_a_name(open_terminal, shell_path, tmp_path, environment):
    names = "good $(touch${IFS}owned) `id` ;reboot"
    script = """
source <(kc completion bash)
offer() { COMP_LINE=$1 COMP_POINT=${#1}; _kc; printf '%s|' "${COMPREPLY[@]}"; echo; }
offer 'kc vm show '
offer 'kc '
offer 'kc vm '
offer 'kc vm list --'
offer 'kc vm list --limit '
offer 'kc vm list -l tenant=acme -o '
offer 'kc vm create --image starter x --net'
offer 'kc nonsense '
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
        env={**environment, "PATH": shell_path, "KC_TEST_VMS": names},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert lines[0] == "good|"
    assert lines[1].rstrip("|").split("|") == visible_nouns()
    verbs = list(load_commands(NOUNS["vm"]))
    assert lines[2].rstrip("|").split("|") == verbs
    assert {"history", "diff", "set", "edit", "rollback", "undo", "restore", "nic", "disk", "snapshot"} <= set(verbs)
    assert {"--help", "--selector", "--limit", "--all", "--profile", "--no-wait"} <= set(lines[3].split("|"))
    assert lines[4] == "|"
    assert lines[5] == "table|json|yaml|name|"
    assert lines[6] == "--network|"
    assert lines[7] == "|"
    assert not (tmp_path / "owned").exists()


def test_scripts_tell_of_no_hidden_command():
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run([*PROGRAM, "completion", shell], capture_output=True, text=True, timeout=30, check=True)
        assert "__resume" not in done.stdout
        assert "--after" not in done.stdout


def test_completing_is_silent_whatever_is_wrong(tmp_path):
    environment = {**os.environ, "KC_HOME": str(tmp_path), "KC_STORE": "nonsense:x"}
    done = subprocess.run(
        [sys.executable, "-m", "kc_tui", "__complete", "vm"],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
