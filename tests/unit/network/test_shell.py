"""Commands on the host that a libvirt URI means."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ssh_daemon import Daemon, free_port, ssh_daemon

from backend.errors import FailedError, TimedOutError, UnreachableError
from backend.network.shell import Finished, LocalShell, Shell, SshShell, failure, open_shell

AWKWARD = ["a b", "$(id)", "`id`", 'it\'s "so"', "", "*", "a\nb", "\\", "-n", "Größe", "; true", "~", "!x", "a=b", "#"]
# What is run says each of its arguments, one after the other.
SAY = ["printf", "<%s>"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with ssh_daemon(tmp_path_factory.mktemp("ssh") / "with blank") as started:
        yield started


def uri_of(daemon: Daemon, key: Path | None = None, verify: str = "") -> str:
    verify = verify or f"known_hosts={daemon.known_hosts}"
    return f"qemu+ssh://root@127.0.0.1:{daemon.port}/system?keyfile={key or daemon.key}&{verify}&no_tty=1"


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.libvirt)])
def shell(request: pytest.FixtureRequest) -> Shell:
    """Each kind of shell; what holds for one holds for the other."""
    if request.param == "local":
        return open_shell("qemu:///system")
    return open_shell(uri_of(request.getfixturevalue("daemon")))


# --- what a URI means


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu+ssh://h1/system", ["--", "h1"]),
        ("qemu+ssh://root@H1.example/system", ["-l", "root", "--", "H1.example"]),
        ("qemu+ssh://a%40b@h1:2222/system", ["-l", "a@b", "-p", "2222", "--", "h1"]),
        ("qemu+ssh://[fd00::1]:22/system", ["-p", "22", "--", "fd00::1"]),
        ("qemu+libssh2:///system", ["--", "localhost"]),
        ("qemu+ssh://-oProxyCommand=x/system", ["--", "-oProxyCommand=x"]),
        ("qemu+ssh://h1/system?keyfile=/k%20e/y+1", ["-i", "/k e/y+1", "--", "h1"]),
        ("qemu+ssh://h1/system?known_hosts=/k%20h", ["-o", 'UserKnownHostsFile="/k h"', "--", "h1"]),
        ("qemu+ssh://h1/system?no_verify=1&no_tty=1", ["-o", "StrictHostKeyChecking=no", "--", "h1"]),
        ("qemu+ssh://h1/system?no_verify=0", ["--", "h1"]),
        ("qemu+libssh://h1/system?known_hosts_verify=ignore", ["-o", "StrictHostKeyChecking=no", "--", "h1"]),
    ],
)
def test_a_uri_becomes_the_arguments_of_ssh(uri: str, expected: list[str]) -> None:
    shell = open_shell(uri)
    assert isinstance(shell, SshShell)
    always = list(SshShell("h")._ssh[:-2])
    assert "BatchMode=yes" in always
    assert list(shell._ssh) == always + expected
    assert shell.where == expected[-1]


def test_the_program_that_a_uri_names_is_run_in_the_place_of_ssh() -> None:
    shell = open_shell("qemu+ssh://h1/system?command=/opt/bin/ssh")
    assert isinstance(shell, SshShell)
    assert shell._ssh[0] == "/opt/bin/ssh"


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu:///session", "qemu+unix:///system", "qemu+unix://x/system"])
def test_a_uri_without_a_host_is_this_machine(uri: str) -> None:
    assert isinstance(open_shell(uri), LocalShell)


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+tcp://h1/system", "qemu+tls://h1/system", "qemu://h1/system", "qemu+ext://h1/system", "xen+ssh://h1/",
        "test:///default", "qemu+ssh://[::1/system", "qemu+ssh://h1:port/system", "qemu+ssh://a:b:c/system", "h1", "",
    ],
)  # fmt: skip
def test_of_any_other_host_nobody_gets_at_the_kernel(uri: str) -> None:
    with pytest.raises(UnreachableError) as caught:
        open_shell(uri)
    assert "by ssh" in caught.value.why
    assert "qemu+ssh://USER@HOST/system" in caught.value.hint


def test_a_hostile_uri_reaches_no_terminal() -> None:
    with pytest.raises(UnreachableError) as caught:
        open_shell("\x1b]0;gotcha\x07://h1")
    assert "\x1b" not in str(caught.value)


# --- how a command is run, here and over ssh


def test_arguments_arrive_as_they_are(shell: Shell) -> None:
    done = shell.run([*SAY, *AWKWARD])
    assert done == Finished(0, "".join(f"<{each}>" for each in AWKWARD), "")


def test_what_a_command_is_given_to_read_arrives_and_its_errors_are_its_own(shell: Shell) -> None:
    text = "Größe \\ $(id)\n" * 20_000
    assert shell.run(["cat"], stdin=text) == Finished(0, text, "")
    assert shell.run(["cat"]).output == ""
    assert shell.run(["sh", "-c", "echo out; echo err >&2; exit 7"]) == Finished(7, "out\n", "err\n")


def test_an_exit_code_that_ssh_has_too_is_the_commands_own(shell: Shell) -> None:
    assert shell.run(["sh", "-c", "exit 255"]).code == 255
    assert shell.run(["sh", "-c", "exit 127"]).code == 127
    assert shell.run(["sh", "-c", "exit 124"]).code == 124


def test_programs_speak_english_and_those_of_root_are_found(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = shell.run(["sh", "-c", 'echo "$LC_ALL $PATH"'])
    assert done.output.startswith("C ")
    assert "/usr/sbin" in done.output


def test_bytes_that_are_no_text_break_nothing(shell: Shell) -> None:
    assert shell.run(["printf", "\\377x"]).output == "\ufffdx"


def test_a_program_that_is_not_there_is_told_with_its_package(shell: Shell) -> None:
    with pytest.raises(FailedError) as caught:
        shell.run(["kc-no-such-program", "x"])
    assert "kc-no-such-program is missing" in caught.value.why
    assert caught.value.hint == "apt-get install kc-no-such-program"


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(shell: Shell, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $$ $! >{pids}; wait"
    began = time.monotonic()
    with pytest.raises(TimedOutError) as caught:
        shell.run(["sh", "-c", script], seconds=0.5)
    assert time.monotonic() - began < 9, "the way there has its own seconds, and no more"
    assert caught.value.what == shell.where
    first, second = (int(each) for each in pids.read_text().split())
    assert ends(first), "the program went on"
    if isinstance(shell, LocalShell):
        assert ends(second), "what the program started went on"
    else:
        os.kill(second, 9)


def ends(pid: int) -> bool:
    """Return whether a process ends within a few seconds."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_command_has_no_terminal_and_a_process_group_of_its_own() -> None:
    done = LocalShell().run(["sh", "-c", "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat; tty"])
    group, terminal = done.output.split("\n")[:2]
    assert int(group) != os.getpgrp()
    assert terminal == "not a tty"


# --- a host that cannot be reached


@pytest.mark.libvirt
def test_a_key_that_is_refused_is_told_at_once(daemon: Daemon) -> None:
    assert_unreachable(uri_of(daemon, daemon.stranger), "Permission denied")


@pytest.mark.libvirt
def test_a_host_that_nobody_knows_is_not_trusted_unless_the_uri_says_so(daemon: Daemon, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert_unreachable(uri_of(daemon, verify=f"known_hosts={empty}"), "Host key verification failed")
    trusting = open_shell(uri_of(daemon, verify=f"known_hosts={empty}&no_verify=1"))
    assert trusting.run(["echo", "in"]) == Finished(0, "in\n", "")


def test_a_port_where_nobody_listens_is_told_at_once(tmp_path: Path) -> None:
    assert_unreachable(f"qemu+ssh://root@127.0.0.1:{free_port()}/system", "Connection refused")


def test_a_host_that_says_nothing_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert_unreachable(f"qemu+ssh://root@127.0.0.1:{silent.getsockname()[1]}/system", "")


def assert_unreachable(uri: str, why: str) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("needs openssh-client")
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        open_shell(uri).run(["true"], seconds=5)
    assert time.monotonic() - began < 12
    assert why in caught.value.why
    assert "127.0.0.1" in caught.value.what
    assert "ssh" in caught.value.hint


def test_an_ssh_that_is_not_there_is_told_with_its_package() -> None:
    with pytest.raises(FailedError) as caught:
        SshShell("h1", program="/nowhere/ssh").run(["true"])
    assert "/nowhere/ssh is missing" in caught.value.why


# --- whose rights a command has


@pytest.fixture
def user(tmp_path: Path) -> list[str]:
    """What runs a command as an ordinary user, with a folder of ours first in PATH."""
    if os.geteuid() != 0:
        return ["env", f"PATH={tmp_path}:{os.environ['PATH']}"]
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PATH={tmp_path}:/usr/bin:/bin"]


def make_sudo(folder: Path, script: str) -> None:
    sudo = folder / "sudo"
    sudo.write_text(f"#!/bin/sh\n{script}\n")
    sudo.chmod(0o755)


def test_an_ordinary_user_has_roots_rights_by_sudo(user: list[str], tmp_path: Path) -> None:
    make_sudo(tmp_path, '[ "$1" = -n ] && shift && [ "$1" = -- ] && shift; BY=sudo exec "$@"')
    done = LocalShell(user).run(["sh", "-c", 'echo "by $BY, $LC_ALL, $1"', "x", "a  b"])
    assert done == Finished(0, "by sudo, C, a  b\n", "")


def test_where_sudo_asks_for_a_password_what_needs_no_right_still_works(user: list[str], tmp_path: Path) -> None:
    make_sudo(tmp_path, "echo 'sudo: a password is required' >&2; exit 1")
    shell = LocalShell(user)
    assert shell.run(["echo", "read"]) == Finished(0, "read\n", "")
    refused = shell.run(["ip", "link", "add", "name", "kc-never", "type", "dummy"])
    assert refused.code != 0
    error = failure(shell, "VXLAN 42", refused)
    assert "Operation not permitted" in error.why
    assert "sudo" in error.hint
    assert not Path("/sys/class/net/kc-never").exists()


def test_the_last_words_of_a_command_are_safe_to_show() -> None:
    error = failure(LocalShell(), "device x", Finished(2, "", "first\n\x1b[2Jno such device.\n\n"), "look")
    assert error.why == "\ufffd[2Jno such device (this machine)"
    assert error.hint == "look"
    assert "ended with 3" in failure(LocalShell(), "x", Finished(3, "", "")).why


# --- a libvirtd elsewhere on this machine


LISTENER = """
import socket, sys
line = socket.socket(socket.AF_UNIX)
line.bind(sys.argv[1])
line.listen()
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.libvirt
@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "elsewhere"])
def test_commands_run_in_the_namespaces_of_the_libvirtd_behind_a_socket(tmp_path: Path, is_elsewhere: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces of its own need root")
    path = tmp_path / "libvirt-sock"
    prefix = ["unshare", "--net", "--pid", "--fork", "--kill-child"] if is_elsewhere else []
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", LISTENER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        shell = open_shell(f"qemu+unix:///system?socket={path}")
        there = shell.run(["ip", "-br", "link"] if is_elsewhere else ["readlink", "/proc/self/ns/net"]).output
        process.communicate(b"", timeout=10)
    if is_elsewhere:
        assert [line.split()[0] for line in there.splitlines()] == ["lo"], "a new namespace has nothing else"
    else:
        assert there.strip() == str(Path("/proc/self/ns/net").readlink())
    with pytest.raises(UnreachableError) as caught:
        shell.run(["true"])
    assert str(path) in caught.value.what
