"""Versions on a real terminal: what is shown and asked, the editor that comes back, completion of what is kept."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pty_driver import Terminal

PROGRAM = [sys.executable, str(Path(__file__).parent / "kept_program.py")]


@pytest.fixture
def environment(kept) -> dict[str, str]:
    """A KC with machine type `tiny` at version 3, and one in the trash."""
    for memory in (640, 768):
        assert kept("type", "set", "tiny", f"spec.hardware.memoryMiB={memory}", "-q").code == 0
    assert kept("type", "delete", "large", "--yes", "-q").code == 0
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("KC_", "NO_COLOR", "VISUAL"))},
        "KC_HOME": str(kept.home), "TERM": "xterm-256color", "PS1": "$ ",
    }  # fmt: skip


@pytest.fixture
def open_terminal(environment) -> Iterator[object]:
    terminals: list[Terminal] = []

    def start(*command: str, columns: int = 100, **more: str) -> Terminal:
        terminals.append(Terminal(list(command), {**environment, **more}, columns))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def code(terminal: Terminal) -> int:
    return os.waitstatus_to_exitcode(terminal.wait_end())


def memory(kept) -> int:
    return kept("type", "show", "tiny", "-o", "json").json()["spec"]["hardware"]["memoryMiB"]


@pytest.mark.parametrize(
    ("command", "question", "left"),
    [
        (("rollback", "tiny", "--to", "1"), "Roll machine type tiny back to 1? [Y/n]", 512),
        (("undo", "tiny"), "Take back the last change of machine type tiny? [Y/n]", 640),
    ],
)
@pytest.mark.parametrize("answer", ["", "y", "n", "what"])
def test_the_difference_is_shown_before_the_question(open_terminal, kept, command, question, left, answer):
    terminal = open_terminal(*PROGRAM, "type", *command)
    terminal.wait_for(question)
    assert f"~ spec.hardware.memoryMiB: 768 → {left}" in terminal.text()
    assert b"\x1b[33m~ spec.hardware" in terminal.output
    terminal.send(f"{answer}\n")
    agreed = answer in ("", "y")
    assert code(terminal) == (0 if agreed else 1)
    assert memory(kept) == (left if agreed else 768)
    if not agreed:
        assert "kc type: not confirmed. nothing was changed" in terminal.text()


def test_with_yes_nobody_is_asked(open_terminal, kept):
    terminal = open_terminal(*PROGRAM, "type", "undo", "tiny", "--yes", NO_COLOR="1")
    assert code(terminal) == 0
    assert "[Y/n]" not in terminal.text()
    assert b"\x1b[3" not in terminal.output
    assert memory(kept) == 640


def test_what_changed_after_it_was_shown_is_not_rolled_back(open_terminal, kept):
    terminal = open_terminal(*PROGRAM, "type", "undo", "tiny")
    terminal.wait_for("[Y/n]")
    assert kept("type", "set", "tiny", "spec.hardware.memoryMiB=1024", "-q").code == 0
    terminal.send("\n")
    assert code(terminal) == 4
    assert "it is at version 4, not 3" in terminal.text()
    assert "~ spec.hardware.memoryMiB: 768 → 1024" in terminal.text()
    assert memory(kept) == 1024


def test_who_deletes_is_told_how_it_comes_back(open_terminal, kept):
    terminal = open_terminal(*PROGRAM, "type", "delete", "tiny")
    terminal.wait_for("Delete machine type tiny? type y:")
    assert "kc: for 24 h kc type restore tiny will bring back what is deleted now" in terminal.text()
    terminal.send("y\n")
    assert code(terminal) == 0
    assert "kc type restore tiny brings it back" in terminal.text()
    for_good = open_terminal(*PROGRAM, "type", "delete", "medium", "--now")
    for_good.wait_for("Delete machine type medium for good? type y:")
    assert "bring back" not in for_good.text()
    for_good.send("\n")
    assert code(for_good) == 1


def test_emptying_the_trash_asks_how_many(open_terminal, kept):
    terminal = open_terminal(*PROGRAM, "trash", "empty")
    terminal.wait_for("Remove 1 deleted object (type-large-")
    terminal.wait_for("for good? type how many:")
    terminal.send("2\n")
    assert code(terminal) == 1
    assert "nothing was removed" in terminal.text()
    assert kept("trash", "list", "-o", "name").out.startswith("type-large-")
    again = open_terminal(*PROGRAM, "trash", "empty")
    again.wait_for("type how many:")
    again.send("1\n")
    assert code(again) == 0
    assert kept("trash", "list", "-o", "name").out == ""


EDITOR = """
import sys
path = sys.argv[-1]
text = open(path).read()
print("ERROR" if "# ERROR:" in text.splitlines()[1] else "first")
answer = input("editor> ")
if answer:
    old, new = answer.split("/")
    open(path, "w").write(text.replace(old, new))
"""


@pytest.fixture
def editor(tmp_path) -> dict[str, str]:
    """An editor that asks OLD/NEW and replaces one by the other."""
    script = tmp_path / "editor.py"
    script.write_text(EDITOR)
    return {"VISUAL": shlex.join([sys.executable, str(script)])}


def test_a_wrong_text_comes_back_with_the_error_until_it_is_right(open_terminal, kept, editor):
    terminal = open_terminal(*PROGRAM, "type", "edit", "tiny", **editor)
    terminal.wait_for("first")
    terminal.wait_for("editor>")
    terminal.send("memoryMiB: 768/memoryMiB: lots\n")
    terminal.wait_for("ERROR")
    terminal.send("memoryMiB: lots/memoryMiB: 896\n")
    assert code(terminal) == 0
    assert memory(kept) == 896
    assert list((kept.home / "cache" / "edit").iterdir()) == []


def test_who_gives_up_finds_the_text_again(open_terminal, kept, editor):
    terminal = open_terminal(*PROGRAM, "type", "edit", "tiny", columns=250, **editor)
    terminal.wait_for("editor>")
    terminal.send("memoryMiB: 768/memoryMiB: lots\n")
    terminal.wait_for("ERROR")
    terminal.send("\n")
    assert code(terminal) == 8
    (path,) = (kept.home / "cache" / "edit").iterdir()
    assert f"your text is kept: kc type edit tiny --from {path}" in terminal.text()
    assert "memoryMiB: lots" in path.read_text()
    assert memory(kept) == 768


def test_ctrl_c_in_the_editor_is_the_editors(open_terminal, kept, tmp_path):
    script = tmp_path / "stubborn.py"
    script.write_text(
        "import sys, signal\nsignal.signal(signal.SIGINT, lambda *_: print('heard'))\n"
        "print('ready')\ninput()\npath = sys.argv[-1]\ntext = open(path).read().replace('768', '800')\n"
        "open(path, 'w').write(text)\n"
    )
    terminal = open_terminal(*PROGRAM, "type", "edit", "tiny", VISUAL=shlex.join([sys.executable, str(script)]))
    terminal.wait_for("ready")
    terminal.send("\x03")
    terminal.wait_for("heard")
    terminal.send("\n")
    assert code(terminal) == 0
    assert memory(kept) == 800


# --- completion

COMPLETIONS = [
    ("kc type rollback tiny --to ", {"1", "2", "3"}),
    ("kc type diff tiny 2 ", {"1", "2", "3"}),
    ("kc type show tiny --version ", {"1", "2", "3"}),
    ("kc type restore ", {"large"}),
    ("kc type set tiny spec.hardware.me", {"spec.hardware.memoryMiB="}),
    ("kc type set tiny a=b spec.hardware.c", {"spec.hardware.cpus="}),
    ("kc type set tiny --unset spec.hardware.d", {"spec.hardware.diskGiB"}),
    ("kc vm nic ", {"list", "add", "set", "remove"}),
    ("kc type undo t", {"tiny"}),
    ("kc type undo tiny t", set()),
]


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kc").write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    (folder / "kc").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def offered(command: list[str], environment: dict[str, str]) -> list[set[str]]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert done.stderr == ""
    return [{word for word in line.split("|") if word} for line in done.stdout.splitlines()]


def test_bash_completes_versions_paths_and_deleted_names(environment, shell_path):
    script = "source <(kc completion bash)\n"
    script += "offer() { COMP_LINE=$1 COMP_POINT=${#1}; _kc; printf '%s|' \"${COMPREPLY[@]}\"; echo; }\n"
    script += "".join(f"offer {shlex.quote(typed)}\n" for typed, _wanted in COMPLETIONS)
    got = offered(["bash", "--norc", "-c", script], {**environment, "PATH": shell_path})
    assert dict(zip((typed for typed, _wanted in COMPLETIONS), got, strict=True)) == dict(COMPLETIONS)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_versions_paths_and_deleted_names(environment, shell_path):
    script = "kc completion fish | source\n"
    script += "".join(
        f"complete -C {shlex.quote(typed)} | string replace -r '\\t.*' '' | string join '|'; echo\n"
        for typed, _wanted in COMPLETIONS
    )
    got = iter(offered(["fish", "--no-config", "-c", script], {**environment, "PATH": shell_path}))
    for typed, wanted in COMPLETIONS:
        words = next(got)
        # What is offered is a line of its own, then comes the empty one of echo.
        if words:
            next(got)
        assert words == wanted, typed


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_a_path_without_a_space_after_it(open_terminal, shell_path, tmp_path):
    terminal = open_terminal("zsh", "-f", "-i", PATH=shell_path, PROMPT="$ ")
    terminal.wait_for("$")
    terminal.send(f"cd {tmp_path}; autoload -U compinit; compinit -u -d {tmp_path}/dump; source <(kc completion zsh)\n")
    terminal.send("unsetopt zle_bracketed_paste; clear; echo set$((1+1))\n")
    terminal.wait_for("set2")
    terminal.send("kc type set tiny spec.hardware.me\t")
    terminal.wait_for("spec.hardware.memoryMiB=")
    terminal.send("7\x15")
    terminal.wait_for("$")
    terminal.send("kc type restore l\t")
    terminal.wait_for("kc type restore large")
