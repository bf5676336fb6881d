"""A visit over SSH while things go wrong: lines that are cut in the midst of work, many visitors, late terminals."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.console_rig import Rig, console_rig
from support.guest_vm import wait_until
from support.pty_driver import Terminal

pytestmark = pytest.mark.timeout(180)

HELD = Path(__file__).parents[1] / "support" / "held_kc.py"
SESSIONS = 10
MOST_SESSION_MIB = 120
# Questions whose answers Textual does not know, and would take for keys: device, keyboard, cursor, colours.
UNKNOWN_QUESTIONS = re.compile(
    rb"\x1b\[[>=]?0?c|\x1b\[\?u|\x1b\[\??[56]n|\x1b\[1[468]t|\x1b\]1?[0-9];[^\x07\x1b]*\?|\x1bP[+$]q"
)


# --- lines that are cut while an operation runs


class Held:
    """The rig with a kc whose operations stand still while `hold` is there."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._keys = rig.folder / "local" / "libexec" / "kc-ssh-keys"
        self._before = self._keys.read_text()
        self.hold = rig.home / "hold"
        self.reached = rig.home / "hold.reached"
        self._keys.write_text(
            "#!/bin/sh\nexport KC_HOME=/srv/kc KC_LIBVIRT_URI=test:///default\n"
            f'exec {sys.executable} -I {HELD} /srv/kc/hold __ssh-keys "$@"\n'
        )
        self.hold.touch()

    def network_state(self, name: str) -> str:
        """Return how the operation stands that makes a network."""
        # As a visitor: somebody at home would bring what was interrupted to its end before the list is made.
        found = json.loads(self.rig.call("alice", "op", "list", "-o", "json").stdout)["items"]
        states = [item["status"]["state"] for item in found if item["spec"]["target"]["name"] == name]
        return states[0] if states else ""

    def end(self) -> None:
        """Put the plain kc back."""
        self.hold.unlink(missing_ok=True)
        self.reached.unlink(missing_ok=True)
        self._keys.write_text(self._before)


@pytest.fixture
def held(rig: Rig) -> Iterator[Held]:
    held = Held(rig)
    yield held
    held.end()


@pytest.mark.parametrize("has_terminal", [False, True], ids=["plain", "terminal"])
def test_what_a_command_began_goes_on_when_its_line_drops(held: Held, has_terminal: bool) -> None:
    name = f"cut-{int(has_terminal)}"
    words = ("network", "create", name, "--uplink", "isolated", "--ipv4", f"10.98.{int(has_terminal)}.0/24")
    options = ("-tt",) if has_terminal else ()
    with subprocess.Popen(
        [*held.rig.ssh("alice", *options), "kc@127.0.0.1", *words],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        wait_until(held.reached.exists, "the operation has begun", 30)
        client.kill()
    # The step stands still as long as the hold is there, and so does who has it: it is others that end it.
    wait_until(lambda: held.network_state(name) == "succeeded", lambda: held.network_state(name), 30)
    assert held.hold.exists()
    wait_until(lambda: not held.rig.processes(), "nobody is left", 30)


def test_what_the_application_began_goes_on_when_its_line_drops(held: Held, terminals: list[Terminal]) -> None:
    terminal = held.rig.open("alice")
    terminals.append(terminal)
    terminal.wait_for("● live", 60)
    for keys, words in (("3", "default"), ("n", "Name"), ("cut-app\r", "IPv4"), ("10.98.7.0/24", "10.98.7.0/24")):
        terminal.send(keys)
        terminal.wait_for(words)

    def has_begun() -> bool:
        # A key more than the pages want does no harm on the page of what is made.
        terminal.send("\r")
        terminal.pump(1)
        return held.reached.exists()

    wait_until(has_begun, terminal.text, 30)
    os.kill(terminal.pid, signal.SIGKILL)
    wait_until(lambda: held.network_state("cut-app") == "succeeded", lambda: held.network_state("cut-app"), 40)
    assert held.hold.exists()
    wait_until(lambda: not held.rig.processes(), "nobody is left", 30)


# --- many at once


def read_private_mib(pid: int) -> float:
    """Return the memory of a process in MiB, its share of what it shares with others included."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def test_ten_visitors_at_once_have_an_application_each(
    rig: Rig, terminals: list[Terminal], record_property: Callable[[str, object], None]
) -> None:
    terminals.extend(rig.open("alice") for _ in range(SESSIONS))
    for terminal in terminals:
        terminal.wait_for("● live", 120)
    uid = rig.run("id", "-u", "kc").strip()
    sizes = [read_private_mib(pid) for pid in rig.processes()]
    whole = sum(sizes)
    record_property("session_mib", round(whole / SESSIONS))
    print(f"{SESSIONS} sessions of user {uid}: {whole:.0f} MiB in {len(sizes)} processes")
    assert whole / SESSIONS < MOST_SESSION_MIB
    for terminal in terminals:
        terminal.send("q")
        assert os.waitstatus_to_exitcode(terminal.wait_end(30)) == 0
    wait_until(lambda: not rig.processes(), "nobody is left", 20)


# --- files


def test_an_image_comes_over_standard_input(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = bytes(8 << 20) + os.urandom(1 << 20)
    with console_rig(tmp_path_factory.mktemp("image") / "rig", memory=True) as rig:
        done = rig.call("alice", "image", "upload", "-", "--name", "piped", "--format", "raw", "-o", "json", data=data)
        assert done.returncode == 0, done.stderr
        spec = json.loads(done.stdout)["spec"]
        assert (spec["sizeBytes"], spec["digest"]) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
        refused = rig.call("alice", "image", "upload", "/etc/hostname", "--name", "file")
        assert refused.returncode == 2
        assert b"no files over SSH" in refused.stderr


# --- terminals that answer late


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_late_answers_of_a_terminal_are_no_keys(rig: Rig, terminals: list[Terminal], pieces: int) -> None:
    terminal = rig.open("alice")
    terminals.append(terminal)
    terminal.wait_for("● live", 60)
    terminal.send("/ha")
    terminal.wait_for("0 of ")
    assert UNKNOWN_QUESTIONS.search(bytes(terminal.output)) is None
    modes = re.findall(rb"\x1b\[\?(\d+)\$p", bytes(terminal.output))
    assert modes
    for answer in (f"\x1b[?{mode.decode()};2$y" for mode in modes):
        # As a line of many hops would cut it.
        length = -(-len(answer) // pieces)
        for start in range(0, len(answer), length):
            terminal.send(answer[start : start + length])
            terminal.pump(0.03)
    terminal.send("lf")
    terminal.wait_for("half")
    assert re.search(r"^ / half +0 of \d+ *$", terminal.text(), re.MULTILINE), terminal.text()
    terminal.send("\x1b")
    terminal.wait_for("web-1")
    terminal.send("q")
    assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
