"""Ways out of the SSH console, each tried on a real sshd: none leads anywhere."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.console_rig import URI, Rig
from support.pty_driver import Terminal
from support.ssh_daemon import free_port

pytestmark = pytest.mark.timeout(180)

HOSTILE = {
    "LC_ALL": "\x1b]0;owned\x07",
    "LC_TERMINAL": "\x1b[31m",
    "TEXTUAL": "debug,devtools",
    "TEXTUAL_DRIVER": "os:system",
    "TEXTUAL_LOG": "/srv/textual.log",
    "PYTHONPATH": "/tmp/evil",
    "PYTHONSTARTUP": "/tmp/evil.py",
    "PYTHONINSPECT": "1",
    "PYTHONHOME": "/nowhere",
    "KC_HOME": "/tmp/other",
    "KC_STORE": "tinydb:/tmp/other.db",
    "KC_URL": "http://127.0.0.1:1",
    "KC_DEBUG": "1",
    "EDITOR": "sh -c id",
    "VISUAL": "sh -c id",
    "PAGER": "sh -c id",
    "BASH_ENV": "/tmp/evil.sh",
    "ENV": "/tmp/evil.sh",
    "XDG_CONFIG_HOME": "/tmp/evil",
    "DISPLAY": "localhost:10",
    "TMUX": "/tmp/tmux",
    "LD_PRELOAD": "/tmp/evil.so",
    "COLORTERM": "truecolor",
}
ALLOWED = {"PATH", "LANG", "HOME", "USER", "LOGNAME", "TERM", "KC_HOME", "KC_LIBVIRT_URI"}
OF_SSHD = {"SSH_CONNECTION", "SSH_ORIGINAL_COMMAND"}


def environment_of(pid: int) -> dict[str, str]:
    pairs = (Path("/proc") / str(pid) / "environ").read_bytes().decode("utf-8", "replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def state_of(pid: int) -> str:
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def secret_server() -> Iterator[tuple[int, list[object]]]:
    """Run a server on loopback that a forward would reach, and keep who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, peer = server.accept()
                    came.append(peer)
                    link.sendall(b"secret")
                    link.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@contextlib.contextmanager
def client(rig: Rig, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an ssh that only forwards, until the end of the block."""
    process = subprocess.Popen(
        [*rig.ssh("alice", "-v", "-N", *options), "kc@127.0.0.1"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def read_port(port: int) -> bytes:
    """Return what comes from a port within some seconds of trying; b"" where it only hangs up."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5) as link:
            link.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                return link.recv(100)
            return b""
        time.sleep(0.05)
    pytest.fail("the client never listened")


@pytest.mark.parametrize(
    "command",
    [
        "bash", "sh -c id", "vm show $(id)", "`id`", ";id", "vm list; id", "vm list\nid", "vm list && id",
        "vm list | sh", "vm list > /srv/out", "-o ProxyCommand=id vm list", "__ssh-keys", "__resume", "serve",
        "vm edit web-1", "vm list 'unclosed", "\x1b]0;owned\x07",
    ],
    ids=str,
)  # fmt: skip
def test_no_word_is_anything_to_a_shell(rig: Rig, command: str):
    done = rig.call("alice", command)
    assert done.returncode in (2, 3, 5)
    assert done.stdout == b""
    assert b"uid=" not in done.stderr
    assert b"\x1b" not in done.stderr
    assert not (rig.folder / "srv" / "out").exists()


def test_help_is_nothing_to_pipe_into_a_shell(rig: Rig):
    done = rig.call("alice", "--help | sh")
    assert done.returncode == 0
    assert done.stdout.startswith(b"KC manages")
    assert done.stderr == b""


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "-f", "/etc/passwd"),
        ("vm", "create", "x", "--image", "i", "--type", "t", "--no-network", "--user-data", "/etc/passwd"),
        ("vm", "create", "x", "--image", "i", "--type", "t", "--no-network", "--ssh-key", "/etc/passwd"),
        ("image", "upload", "/etc/passwd", "--name", "x"),
        ("export", "/srv/kc/out"),
        ("import", "/etc/passwd"),
        ("vm", "screenshot", "web-1", "/srv/kc/out"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_no_argument_is_a_file_of_the_server(rig: Rig, words: tuple[str, ...]):
    done = rig.call("alice", *words)
    assert done.returncode == 2
    assert b"there are no files over SSH" in done.stderr
    assert b"root:" not in done.stderr + done.stdout
    assert not (rig.home / "out").exists()


def test_a_terminal_makes_no_shell_of_a_command(rig: Rig, terminals: list[Terminal]):
    terminal = rig.open("alice", "bash")
    terminals.append(terminal)
    assert os.waitstatus_to_exitcode(terminal.wait_end(30)) == 2
    assert "no command 'bash'" in terminal.text()


@pytest.mark.parametrize("options", [(), ("-O",)], ids=["sftp", "old"])
def test_scp_brings_nothing_and_takes_nothing(rig: Rig, tmp_path: Path, options: tuple[str, ...]):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    scp = rig.ssh("alice", *options, program="scp")
    up = subprocess.run([*scp, str(mine), "kc@127.0.0.1:/srv/kc/stolen"], capture_output=True, timeout=60, check=False)
    down = subprocess.run(
        [*scp, "kc@127.0.0.1:/etc/passwd", str(tmp_path / "got")], capture_output=True, timeout=60, check=False
    )
    assert up.returncode != 0
    assert down.returncode != 0
    assert not (rig.home / "stolen").exists()
    assert not (tmp_path / "got").exists()


def test_sftp_is_not_there(rig: Rig):
    done = subprocess.run(
        [*rig.ssh("alice", "-b", "-", program="sftp"), "kc@127.0.0.1"],
        input=b"get /etc/passwd\n", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"Fetching" not in done.stdout


def test_ports_are_not_forwarded_out(rig: Rig):
    with secret_server() as (port, came):
        mine, socks = free_port(), free_port()
        with client(rig, "-L", f"{mine}:127.0.0.1:{port}", "-D", str(socks)):
            assert read_port(mine) == b""
            with socket.create_connection(("127.0.0.1", socks), 10) as link:
                link.sendall(b"\x05\x01\x00")
                assert link.recv(2) == b"\x05\x00"
                link.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
                assert b"secret" not in link.recv(100)
        direct = rig.call("alice", options=("-W", f"127.0.0.1:{port}"))
        assert direct.returncode != 0
        assert b"secret" not in direct.stdout
        assert came == []


def test_ports_are_not_forwarded_in(rig: Rig):
    port = free_port()
    done = rig.call("alice", options=("-N", "-R", f"{port}:127.0.0.1:22", "-o", "ExitOnForwardFailure=yes"))
    assert done.returncode == 255
    assert b"remote port forwarding failed" in done.stderr


def test_sockets_are_not_forwarded(rig: Rig, tmp_path: Path):
    inside = rig.folder / "srv" / "secret.sock"
    with socket.socket(socket.AF_UNIX) as server:
        # Everybody may connect: a refusal is sshd's, and none of the file system's.
        server.bind(str(inside))
        inside.chmod(0o777)
        server.listen()
        server.settimeout(1)
        with client(rig, "-L", f"{tmp_path}/mine.sock:/srv/secret.sock"):
            ends = time.monotonic() + 20
            while not (tmp_path / "mine.sock").exists() and time.monotonic() < ends:
                time.sleep(0.05)
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(tmp_path / "mine.sock"))
                link.settimeout(10)
                assert link.recv(10) == b""
        with pytest.raises(TimeoutError):
            server.accept()
    inside.unlink()
    options = ("-N", "-R", "/srv/kc/in.sock:127.0.0.1:22", "-o", "ExitOnForwardFailure=yes")
    done = rig.call("alice", options=options)
    assert done.returncode == 255
    assert not (rig.home / "in.sock").exists()


def test_tunnels_are_not_made(rig: Rig):
    said = rig.run("/usr/sbin/sshd", "-T", "-f", "/etc/ssh/test_config", "-C", "user=kc,host=h,addr=127.0.0.1")
    assert "permittunnel no" in said.splitlines()
    done = rig.call("alice", options=("-N", "-w", "any:any", "-o", "ExitOnForwardFailure=yes"))
    assert done.returncode == 255


def test_nothing_of_the_client_s_environment_is_there(rig: Rig, terminals: list[Terminal], tmp_path: Path):
    names = [option for name in HOSTILE for option in ("-o", f"SendEnv={name}")]
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        hostile = {key: value for key, value in HOSTILE.items() if not key.startswith("LD_")}
        terminal = rig.open(
            "alice", options=(*names, "-A", "-X", "-o", "SetEnv=LD_PRELOAD=/tmp/evil.so"),
            SSH_AUTH_SOCK=str(tmp_path / "agent"), **hostile | {"TERM": "xterm\x1b]0;owned\x07"},
        )  # fmt: skip
        terminals.append(terminal)
        terminal.wait_for("● live", 60)
        [pid] = [pid for pid in rig.processes() if "__ssh-shell" in (Path("/proc") / str(pid) / "cmdline").read_text()]
        found = environment_of(pid)
        assert set(found) == ALLOWED | OF_SSHD - {"SSH_ORIGINAL_COMMAND"}
        assert (found["TERM"], found["LANG"], found["KC_HOME"]) == ("xterm-256color", "C.UTF-8", "/srv/kc")
        assert found["KC_LIBVIRT_URI"] == URI
        assert b"owned" not in terminal.output
        assert not list((rig.folder / "srv").glob("*.log"))
        terminal.send("q")
        terminal.wait_end()
    finally:
        agent.terminate()
        agent.wait(10)


def test_rc_files_and_other_keys_of_its_home_are_nothing(rig: Rig):
    folder = rig.home / ".ssh"
    folder.mkdir(exist_ok=True)
    (folder / "rc").write_text("touch /srv/kc/rc-ran\nid\n")
    (folder / "environment").write_text("LD_PRELOAD=/tmp/evil.so\n")
    (folder / "authorized_keys").write_text(rig.key("stranger").with_suffix(".pub").read_text())
    (rig.home / ".profile").write_text("touch /srv/kc/rc-ran\nid\n")
    rig.run("chown", "-R", "kc:kc", "/srv/kc/.ssh", "/srv/kc/.profile")
    done = rig.call("alice", "vm", "list", "-o", "name")
    assert done.returncode == 0
    assert b"uid=" not in done.stdout + done.stderr
    assert b"preload" not in done.stderr
    assert not (rig.home / "rc-ran").exists()
    assert rig.call("stranger", "id").returncode == 255


def test_a_certificate_that_sshd_trusts_is_no_key_of_kc_s(rig: Rig):
    authority = rig.folder / "etc" / "ssh" / "test_authority"
    public = rig.key("stranger").with_suffix(".pub")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-n", "kc,root", str(public)], check=True, timeout=30
    )
    done = rig.call("stranger", "id")
    assert done.returncode == 255
    assert b"uid=" not in done.stdout


def test_a_password_is_not_even_asked_for(rig: Rig):
    done = rig.call("stranger", "id", options=("-o", "PreferredAuthentications=password,keyboard-interactive"))
    assert done.returncode == 255
    assert b"Permission denied (publickey)" in done.stderr


def wait_gone(terminal: Terminal, words: str) -> None:
    """Wait until the screen shows some words no more."""
    ends = time.monotonic() + 30
    while words in terminal.text():
        assert time.monotonic() < ends, terminal.text()
        terminal.pump(0.05)


def test_the_application_starts_no_program_and_does_not_stop(rig: Rig, terminals: list[Terminal]):
    terminal = rig.open("alice")
    terminals.append(terminal)
    terminal.wait_for("● live", 60)
    [pid] = [pid for pid in rig.processes() if "__ssh-shell" in (Path("/proc") / str(pid) / "cmdline").read_text()]
    # Not ctrl-c: it leaves, as q does.
    for keys in ("\x1a", "\x1c", "\x1a"):
        terminal.send(keys)
        terminal.pump(0.3)
    assert state_of(pid) != "T"
    terminal.send("/web-1\r")
    terminal.wait_for("1 of ")
    terminal.send("e")
    terminal.wait_for("there is no editor here")
    for word, absent in (("screenshot", "Save screenshot"), ("suspend", "Suspend"), ("maximize", "Maximize")):
        terminal.send(":")
        terminal.wait_for("Commands and objects")
        terminal.send(word)
        terminal.wait_for(f"/ {word}")
        for _ in range(10):
            terminal.pump(0.1)
        assert absent not in terminal.text()
        terminal.send("\x1b")
        wait_gone(terminal, "Commands and objects")
    children = [(Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text()]
    assert children == [""]
    assert not list(rig.home.glob("*.svg"))
    terminal.send("\x03")
    assert os.waitstatus_to_exitcode(terminal.wait_end(30)) == 0
