"""A KC elsewhere, over HTTP alone: a guest is made, spoken to, changed and deleted; one tenant sees no other's."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guest_vm import Guest, wait_until
from support.kc import URI, Result, pool_volumes, run_kc, virsh
from support.narrow_line import NarrowLine
from support.pty_driver import Terminal
from support.serving_kc import ServingKc

# One guest boots twice, without KVM where there is none.
pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

MIB = 1 << 20
ACME = "vm.read,vm.start,vm.stop,vm.console,vm.display"


class Elsewhere:
    """A server on the ready home, a client with a home of its own, and one guest of acme's."""

    def __init__(self, home: Path, client: Path) -> None:
        self.home, self.client = home, client
        self.stem = f"far-{uuid.uuid4().hex[:6]}"
        self.name = f"{self.stem}-a"
        self.other = f"{self.stem}-g"
        self.tokens = {
            "god": self._make_token("god", "--god"),
            "acme": self._make_token("acme", "--allow", ACME, "-l", "tenant=acme"),
        }
        self.server = ServingKc(home, "--listen", "127.0.0.1:0", KC_LIBVIRT_URI=URI)
        self.guest = Guest(home, self.name)

    def _make_token(self, name: str, *scope: str) -> str:
        made = run_kc(self.home, "token", "create", f"{self.stem}-{name}", *scope, "--expires", "1h")
        assert made.status == 0, made.stderr
        return made.stdout.strip()

    def environment(self, token: str, url: str = "") -> dict[str, str]:
        """Return what a client is told of the server, and nothing of this machine's libvirt."""
        return {
            "KC_URL": url or self.server.url,
            "KC_AUTH_HEADER": f"Bearer {self.tokens[token]}",
            "KC_LIBVIRT_URI": "qemu+unix:///system?socket=/nonexistent",
        }

    def call(self, token: str, *arguments: str, url: str = "") -> Result:
        """Run `kc` against the server."""
        return run_kc(self.client, *arguments, timeout=240, **self.environment(token, url))

    def kc(self, token: str, *arguments: str) -> str:
        """Return what a command that must succeed prints."""
        done = self.call(token, *arguments)
        assert done.status == 0, (arguments, done.stderr)
        return done.stdout

    def end(self) -> None:
        """Take everything away that was made, whoever lives."""
        self.server.end()
        run_kc(self.home, "vm", "delete", "-l", f"name~{self.stem}*", "--yes", "--now")
        run_kc(self.home, "image", "delete", f"{self.stem}-i", "--yes", "--now")
        run_kc(self.home, "token", "delete", "-l", f"name~{self.stem}*", "--yes")


@pytest.fixture(scope="module")
def far(ready_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    far = Elsewhere(ready_home, tmp_path_factory.mktemp("far") / "home")
    options = ("--image", "starter", "--network", "default", "--type", "tiny")
    try:
        far.kc("god", "vm", "create", far.other, *options, "--meta", "tenant=globex", "--no-start")
        far.kc("god", "vm", "create", far.name, *options, "--meta", "tenant=acme", "--wait", "ready")
        yield far
    finally:
        far.end()


def test_a_guest_made_over_http_is_ready_and_no_file_of_the_server_is_the_clients(far: Elsewhere) -> None:
    shown = run_kc(far.home, "vm", "show", far.name, "-o", "json").json()
    assert shown["status"]["power"] == "running"
    assert shown["updatedBy"] == f"token:{far.stem}-god"
    assert far.name in virsh("list", "--name").split()
    assert not (far.client / "data" / "kc.db").exists()


def test_a_terminal_elsewhere_speaks_to_the_guest(far: Elsewhere) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KC_")}
    environment = {**kept, **far.environment("acme"), "KC_HOME": str(far.client), "TERM": "xterm-256color"}
    terminal = Terminal([sys.executable, "-m", "kc_tui", "vm", "console", far.name], environment)
    try:
        terminal.wait_for("ctrl-] leaves")
        terminal.send("\recho kc$((40+2)) >/dev/tty\r")
        terminal.wait_for("kc42")
        terminal.send("\x1d")
        assert os.waitstatus_to_exitcode(terminal.wait_end()) == 0
        assert "left the console" in terminal.text()
    finally:
        terminal.close()
    wait_until(lambda: "kc42" in far.kc("acme", "vm", "console", far.name, "--log"), "the log has it", 10)


def test_a_nic_that_is_added_elsewhere_is_in_the_guest(far: Elsewhere) -> None:
    far.guest.wait_for_agent()
    assert far.call("acme", "vm", "nic", "add", far.name, "--network", "default").status == 5
    far.kc("god", "vm", "nic", "add", far.name, "--network", "default")
    wait_until(lambda: "eth1" in far.guest.output("ls /sys/class/net").split(), "the guest has the NIC", 30)


def test_a_snapshot_takes_the_guest_back(far: Elsewhere) -> None:
    far.guest.wait_for_agent()
    far.guest.write("/root/note", "before")
    far.kc("god", "vm", "snapshot", "create", far.name, "clean")
    far.guest.write("/root/note", "after")
    far.kc("god", "vm", "snapshot", "restore", far.name, "clean", "--yes")
    far.guest.wait_for_agent()
    assert far.guest.output("cat /root/note") == "before"
    far.kc("god", "vm", "snapshot", "delete", far.name, "clean", "--yes")


def test_one_tenant_sees_and_moves_its_own_alone(far: Elsewhere) -> None:
    assert far.kc("acme", "vm", "list", "-o", "name").split() == [far.name]
    hidden, missing = (far.call("acme", "vm", "show", name) for name in (far.other, f"{far.stem}-x"))
    assert hidden.status == missing.status == 3
    assert hidden.stderr.replace(far.other, "X") == missing.stderr.replace(f"{far.stem}-x", "X")
    for verb in (("start",), ("stop",), ("console", "--log")):
        assert far.call("acme", "vm", verb[0], far.other, *verb[1:]).status == 3, verb
    assert far.call("acme", "vm", "delete", far.name, "--yes", "--now").status == 5
    assert far.other in virsh("list", "--all", "--name").split()


def test_a_picture_of_the_screen_comes_over(far: Elsewhere, tmp_path: Path) -> None:
    far.kc("acme", "vm", "screenshot", far.name, str(tmp_path / "screen.png"))
    picture = (tmp_path / "screen.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">2I", picture[16:24])) > 100


def test_an_upload_whose_sender_was_killed_goes_on_where_it_was(far: Elsewhere, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(os.urandom(MIB) * 64)
    line = NarrowLine(far.server.port, 24 * MIB)
    url = f"http://127.0.0.1:{line.port}"
    upload = ("image", "upload", str(image), "--name", f"{far.stem}-i", "--format", "raw")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KC_")}
    environment = {**kept, **far.environment("god", url), "KC_HOME": str(far.client)}
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "kc_tui", *upload], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as sender:  # fmt: skip
            assert line.is_full.wait(30)
            sender.send_signal(signal.SIGKILL)
            assert sender.wait(10) == -signal.SIGKILL
        assert far.call("god", "image", "show", f"{far.stem}-i").status == 3
        line.widen()
        done = far.call("god", *upload, "-o", "json", url=url)
    finally:
        line.close()
    assert done.status == 0, done.stderr
    assert done.json()["spec"]["sizeBytes"] == 64 * MIB
    # Of what the server had, nothing came twice but the last pieces that it had not written yet.
    assert 40 * MIB <= line.passed < 44 * MIB
    # The digest is the server's own, of what it stores.
    assert done.json()["spec"]["digest"] == f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"


def test_the_tenant_stops_and_starts_the_guest_and_it_is_deleted(far: Elsewhere) -> None:
    uid = far.guest.show()["uid"]
    far.kc("acme", "vm", "stop", far.name)
    assert "shut" in virsh("domstate", far.name)
    begun = time.monotonic()
    far.kc("acme", "vm", "start", far.name)
    assert "running" in virsh("domstate", far.name)
    assert time.monotonic() - begun < 60
    assert far.guest.show()["updatedBy"] == f"token:{far.stem}-acme"
    far.kc("god", "vm", "delete", far.name, "--yes", "--now")
    assert far.name not in virsh("list", "--all", "--name").split()
    assert pool_volumes(f"kc-{uid}") == []
    assert far.call("god", "vm", "show", far.name).status == 3
