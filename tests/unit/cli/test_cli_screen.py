"""A VM's screen on the command line: a viewer on the loopback, and a picture in a file."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from screen_program import PROGRAM
from support.memory_service import MemoryConsole

from backend.errors import ConflictError, FailedError
from kc_tui.cli.screen_listener import carry, find_user
from kc_tui.cli.viewer import find_viewer

GREETING = b"RFB 003.008\n"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def environment(tmp_path):
    """No viewer on PATH, and no display."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("KC_", "DISPLAY", "WAYLAND"))}
    folder = tmp_path / "bin"
    folder.mkdir()
    return {**kept, "KC_HOME": str(tmp_path), "KC_TEST_CALLS": str(tmp_path / "calls"), "PATH": str(folder)}


@pytest.fixture
def viewer(environment):
    """Run `kc vm viewer` in the background; whatever is left is killed at the end."""
    started = []

    def start(*arguments, **more):
        process = subprocess.Popen(
            [*PROGRAM, "vm", "viewer", "web", *arguments], env={**environment, **more}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def install(environment, name, body):
    """Put a program of that name on the PATH; `body` is Python, and `address` in it what it was called with."""
    path = Path(environment["PATH"], name)
    path.write_text(f"#!{sys.executable}\nimport socket, sys\naddress = sys.argv[-1]\n{body}\n")
    path.chmod(0o755)
    return {"DISPLAY": ":7"}


def read_address(process):
    address = process.stdout.readline().strip()
    assert address.startswith("vnc://127.0.0.1:"), process.stderr.read()
    return ("127.0.0.1", int(address.rpartition(":")[2]))


def read_some(connection, count):
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def ended(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# --- the listener


def test_a_screen_is_served_to_several_viewers_until_ctrl_c(viewer, environment):
    process = viewer("--print")
    address = read_address(process)
    with socket.create_connection(address, 10) as first, socket.create_connection(address, 10) as second:
        for connection, keys in ((first, b"one"), (second, b"two")):
            assert read_some(connection, len(GREETING)) == GREETING
            connection.sendall(keys)
            assert read_some(connection, 5) == b"<" + keys + b">"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert ended(first)
        assert ended(second)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 10)
    assert "kc: the screen of VM web is there until ctrl-c\n" in process.stderr.read()
    # One to see whether there is a screen, and one for each viewer.
    assert Path(environment["KC_TEST_CALLS"]).read_text().count("display") == 3


def test_a_viewer_that_leaves_leaves_the_others(viewer):
    process = viewer("--print")
    address = read_address(process)
    with socket.create_connection(address, 10) as stays:
        assert read_some(stays, len(GREETING)) == GREETING
        for _time in range(20):
            with socket.create_connection(address, 10) as leaves:
                assert read_some(leaves, len(GREETING)) == GREETING
        stays.sendall(b"x")
        assert read_some(stays, 3) == b"<x>"


def test_of_too_many_viewers_the_last_are_turned_away(viewer):
    process = viewer("--print")
    address = read_address(process)
    taken = [socket.create_connection(address, 10) for _number in range(8)]
    assert [read_some(connection, len(GREETING)) for connection in taken] == [GREETING] * 8
    with socket.create_connection(address, 10) as turned_away:
        assert ended(turned_away)
    for connection in taken:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_listener(viewer, number):
    process = viewer("--print")
    address = read_address(process)
    with socket.create_connection(address, 10) as connection:
        assert read_some(connection, len(GREETING)) == GREETING
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert ended(connection)


def test_the_address_is_data(viewer):
    process = viewer("--print", "-o", "json", "-q")
    text = process.stdout.readline() + process.stdout.readline() + process.stdout.readline()
    assert '"name": "web"' in text
    assert '"address": "vnc://127.0.0.1:' in text


def test_without_a_viewer_or_a_display_the_address_is_printed(viewer, environment):
    process = viewer()
    read_address(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert "no viewer is installed" in process.stderr.read()
    install(environment, "vncviewer", "")
    read_address(viewer())  # there is one, and no display


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_connections_of_other_users_are_turned_away(viewer):
    process = viewer("--print")
    port = read_address(process)[1]
    script = f"""
import encodings.idna, os, socket, sys  # the codec is out of reach for somebody else
os.setuid(65534)
with socket.create_connection(("127.0.0.1", {port}), 10) as connection:
    sys.stdout.write(repr(connection.recv(12)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    # The listener runs as root: nobody is not it.
    assert done.stdout == "b''" or "ConnectionResetError" in done.stderr


def test_the_user_of_a_connection_is_found_by_its_ports():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            assert find_user(connection.getsockname()[1], port) == os.getuid()
            assert find_user(port, port) == -1


class BrokenStream(MemoryConsole):
    """A screen that fails when it is read or written."""

    def read(self, timeout):
        raise FailedError("screen", "it broke")

    def write(self, data):
        raise FailedError("screen", "it broke")


@pytest.mark.parametrize("stream", [MemoryConsole(GREETING), BrokenStream(b"")])
def test_when_either_side_ends_so_does_the_other(stream):
    ours, theirs = socket.socketpair()
    carrying = threading.Thread(target=carry, args=(ours, stream, threading.Event()), daemon=True)
    carrying.start()
    with suppress(BrokenPipeError):
        theirs.sendall(b"\x04")  # the screen in memory ends after it, the broken one may have ended already
    theirs.settimeout(10)
    while theirs.recv(100):
        pass
    carrying.join(10)
    assert not carrying.is_alive()
    ours.close()
    theirs.close()


# --- viewers


def test_an_installed_viewer_is_started_with_the_address_and_its_end_ends_it(viewer, environment, tmp_path):
    body = f"""
host, port = address.split("::")
with socket.create_connection((host, int(port)), 10) as screen:
    open({str(tmp_path / "seen")!r}, "wb").write(screen.recv(12))
"""
    process = viewer(**install(environment, "vncviewer", body))
    assert process.wait(20) == 0, process.stderr.read()
    assert process.stdout.read() == ""
    assert (tmp_path / "seen").read_bytes() == GREETING


def test_the_first_of_several_viewers_is_taken(environment, tmp_path):
    assert find_viewer({**environment, "DISPLAY": ":7"}) == ""
    for name in ("vncviewer", "remote-viewer"):
        install(environment, name, "")
    assert find_viewer({**environment, "DISPLAY": ":7"}) == str(tmp_path / "bin" / "remote-viewer")
    assert find_viewer({**environment, "WAYLAND_DISPLAY": "wayland-0"}).endswith("remote-viewer")
    assert find_viewer(environment) == ""


def test_a_viewer_that_fails_is_an_error(viewer, environment):
    process = viewer(**install(environment, "remote-viewer", "assert address.startswith('vnc://'); sys.exit(3)"))
    assert process.wait(20) == 1
    told = process.stderr.read()
    assert (
        told == "kc: viewer remote-viewer: it ended with 3. kc vm viewer web --print serves the screen to another one\n"
    )


def test_ctrl_c_ends_a_viewer_too(viewer, environment, tmp_path):
    body = f"""
import os, time
with open({str(tmp_path / "new")!r}, "w") as file:
    file.write(str(os.getpid()))
os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "pid")!r})
time.sleep(60)
"""
    process = viewer(**install(environment, "remote-viewer", body))
    while not (tmp_path / "pid").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_vm_without_a_screen_is_told_before_anything_starts(kept):
    assert kept("vm", "viewer", "gone", "--print").code == 3
    kept.add_vm("web", power="stopped")
    result = kept("vm", "viewer", "web", "--print")
    assert (result.code, result.out) == (4, "")
    assert len(result.err.splitlines()) == 1
    assert kept("vm", "viewer").code == 2


# --- screenshots


def test_a_picture_is_written_whole_and_over_an_older_one(kept, tmp_path):
    kept.add_vm("web")
    path = tmp_path / "web.png"
    result = kept("vm", "screenshot", "web", str(path))
    assert (result.code, result.out) == (0, "")
    assert result.err == f"kc: the screen of VM web is in {path}\n"
    assert path.read_bytes().startswith(PNG)
    path.write_bytes(PNG + b"old")
    described = kept("vm", "screenshot", "web", str(path), "-o", "json").json()
    assert described == {"name": "web", "file": str(path), "sizeBytes": path.stat().st_size}
    assert path.read_bytes() == kept.service.screenshot("web")
    assert kept("vm", "screenshot", "web", str(path), "-o", "name").out == f"{path}\n"
    assert [entry.name for entry in tmp_path.iterdir() if "png" in entry.name] == ["web.png"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_picture_is_left_as_it_is(kept, tmp_path):
    kept.add_vm("web")
    path = tmp_path / "notes.png"
    path.write_text("my notes")
    result = kept("vm", "screenshot", "web", str(path))
    assert (result.code, path.read_text()) == (8, "my notes")
    assert "it is there, and no PNG picture" in result.err
    empty = tmp_path / "empty.png"
    empty.touch()
    assert kept("vm", "screenshot", "web", str(empty), "-q").code == 0
    assert empty.read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [("no/folder/web.png", 3, "no folder"), (".", 8, "it is there, and no file"), ("a" * 300, 8, "cannot be read")],
)
def test_files_that_cannot_be_written(kept, tmp_path, monkeypatch, file, code, words):
    monkeypatch.chdir(tmp_path)
    kept.add_vm("web")
    result = kept("vm", "screenshot", "web", file)
    assert (result.code, result.out) == (code, "")
    assert words in result.err


def test_a_picture_goes_to_standard_output_alone(kept, tmp_path, monkeypatch):
    kept.add_vm("web")
    with (tmp_path / "out").open("w", encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        result = kept("vm", "screenshot", "web", "-")
    monkeypatch.undo()
    assert (result.code, result.err) == (0, "")
    assert (tmp_path / "out").read_bytes() == kept.service.screenshot("web")


def test_a_picture_is_not_for_terminals_or_json(kept, monkeypatch):
    kept.add_vm("web")
    assert kept("vm", "screenshot", "web", "-", "-o", "json").code == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert kept("vm", "screenshot", "web", "-").code == 2
    assert kept("vm", "screenshot", "web").code == 2


def test_a_vm_that_is_off_has_no_picture_and_no_file_is_made(kept, tmp_path):
    kept.add_vm("web", power="stopped")
    path = tmp_path / "web.png"
    result = kept("vm", "screenshot", "web", str(path), "-o", "json")
    assert result.code == ConflictError.exit_code
    assert result.problem()["code"] == "conflict"
    assert not path.exists()
    assert kept("vm", "screenshot", "gone", str(path)).code == 3


def test_a_full_disk_is_told(kept, tmp_path, monkeypatch):
    kept.add_vm("web")
    kept("vm", "list")

    def fail(_path, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kc_tui.cli.screenshot.write_atomically", fail)
    result = kept("vm", "screenshot", "web", str(tmp_path / "web.png"))
    assert result.code == 1
    assert "no space left on device" in result.err
