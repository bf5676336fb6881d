"""The application as a person meets it: a program on a terminal, its bytes, its keys, its end."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pty_driver import Terminal

PROGRAM = Path(__file__).parents[1] / "support" / "memory_app.py"
# Operating system commands but Textual's own: links (8) and the pointer's shape (22).
_OSC = re.compile(rb"\x1b\](?!8;;|22;)[^\x07\x1b]*")


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def start(terminals: list[Terminal], home: Path, scene: str = "usual", **environment: str) -> Terminal:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("KC_", "TEXTUAL"))}
    variables |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "HOME": str(home / "user"), "LANG": "C.UTF-8"}
    terminal = Terminal([sys.executable, str(PROGRAM), str(home), scene], variables | environment)
    terminals.append(terminal)
    return terminal


def drain(terminal: Terminal, seconds: float) -> bytes:
    """Return what is written within a time."""
    before = len(terminal.output)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        terminal.pump(0.05)
    return bytes(terminal.output[before:])


def test_it_starts_follows_the_size_of_the_terminal_and_leaves_it_clean(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path)
    terminal.wait_for("web-1", 60)
    terminal.wait_for("● live")
    terminal.resize(140, 40)
    terminal.wait_for("TENANT")
    terminal.resize(50, 12)
    terminal.wait_for("KC needs 60 columns")
    terminal.resize(80, 24)
    terminal.wait_for("web-1")
    terminal.send("q")
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
    # An operation is under way in this lab: another process is asked to finish it.
    assert (tmp_path / "goes-on").exists()
    assert b"goes on in the background" in terminal.output
    tail = bytes(terminal.output[-400:])
    for restored in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1003l"):
        assert restored in tail


def test_the_wizard_by_real_keys_ends_in_the_guests_own_words(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path, "empty")
    terminal.wait_for("There is no VM yet", 60)
    terminal.wait_for("● live")
    keys = 0
    for key, page in (("n", "Image"), ("\r", "Networks"), ("\r", "Machine type"), ("\r", "Name and size")):
        terminal.send(key)
        keys += 1
        terminal.wait_for(f" {page}")
    terminal.send("web-1")
    terminal.wait_for("web-1")
    for key, words in (("\r", "Enter makes on the host"), ("\r", "running")):
        terminal.send(key)
        keys += 1
        terminal.wait_for(words)
    assert keys <= 8
    terminal.wait_for("192.168.150.")
    terminal.send("c")
    terminal.wait_for("KC starter: up")
    terminal.send("hello\x1b")
    terminal.wait_for("hello")
    terminal.send("\x1d")
    terminal.wait_for("ADDRESS")
    terminal.send("q")
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
    assert not (tmp_path / "goes-on").exists()


def test_a_line_that_drops_ends_it_in_order_and_keeps_the_draft(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path, "empty")
    terminal.wait_for("● live", 60)
    for key, page in (("n", "Image"), ("\r", "Networks"), ("\r", "Machine type"), ("\r", "Name and size")):
        terminal.send(key)
        terminal.wait_for(f" {page}")
    terminal.send("half-way")
    terminal.wait_for("half-way")
    os.close(terminal.descriptor)
    terminals.clear()
    deadline = time.monotonic() + 15
    pid = status = 0
    while not pid and time.monotonic() < deadline:
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        time.sleep(0.02)
    if not pid:
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)
    assert pid, "it went on without a terminal"
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert '"name": "half-way"' in (tmp_path / "data" / "tui.json").read_text()


def test_term_ends_it_in_order(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path, "empty")
    terminal.wait_for("● live", 60)
    os.kill(terminal.pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 128 + signal.SIGTERM
    assert b"\x1b[?1049l" in terminal.output[-400:]


def test_a_fault_gives_the_terminal_back_and_one_line(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path, "crash")
    assert os.waitstatus_to_exitcode(terminal.wait_end(60)) == 1
    after = bytes(terminal.output).rpartition(b"\x1b[?1049l")[2].decode()
    lines = [line for line in re.sub(r"\x1b\[[0-9;?=><]*[a-zA-Z]", "", after).splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("kc: KC: internal error (ZeroDivisionError). the report is ")
    assert list((tmp_path / "data").glob("crash-*.txt"))


def test_hostile_names_reach_no_terminal_as_commands(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path, "hostile")
    terminal.wait_for("web", 60)
    terminal.wait_for("● live")
    for key in ("j", "k", "\r", "m", "\x1b", "6", "1", "n", "\x1b"):
        terminal.send(key)
        drain(terminal, 0.3)
    assert _OSC.findall(bytes(terminal.output)) == []
    assert b"\x9b" not in terminal.output.decode("utf-8", "replace").encode("latin-1", "ignore")
    assert b"\x07" not in re.sub(rb"\x1b\]22;default\x07", b"", bytes(terminal.output))
    assert "\u202e" not in terminal.output.decode("utf-8", "replace")


def test_at_rest_it_writes_nothing(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path)
    terminal.wait_for("● live", 60)
    drain(terminal, 3.0)
    assert drain(terminal, 4.0) == b""


def test_no_color_and_ascii_are_honoured(terminals: list[Terminal], tmp_path: Path):
    terminal = start(terminals, tmp_path, NO_COLOR="1", LANG="C", LC_ALL="C")
    terminal.wait_for("web-1", 60)
    terminal.wait_for("* live")
    text = terminal.output.decode("utf-8", "replace")
    assert re.search(r"\x1b\[[0-9;]*(?:38|48);2;", text) is None
    assert terminal.text().isascii()


def test_an_editor_gets_the_terminal_and_gives_it_back(terminals: list[Terminal], tmp_path: Path):
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\nprintf 'the editor is here\\n'\nread -r line\nprintf 'it read <%s>\\n' \"$line\"\n"
        'sed -i "s/^metadata: {}/metadata: {rack: $line}/" "$1"\n'
    )
    editor.chmod(0o755)
    terminal = start(terminals, tmp_path, "hostile", VISUAL=str(editor))
    terminal.wait_for("● live", 60)
    terminal.send("4e")
    terminal.wait_for("the editor is here")
    # A key that interrupts is the editor's: the shell script ends by it, KC does not.
    terminal.send("\x03")
    terminal.wait_for("nothing was changed")
    terminal.send("e")
    terminal.wait_for("the editor is here")
    terminal.send("r7\n")
    terminal.wait_for("Change arm-tiny?")
    terminal.wait_for("+ metadata.rack")
    terminal.send("\r")
    deadline = time.monotonic() + 30
    while "Change arm-tiny?" in terminal.text() and time.monotonic() < deadline:
        terminal.pump(0.05)
    terminal.send("h")
    terminal.wait_for("2 versions")
    terminal.send("q")
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
