"""Several processes at one serial console of a real guest: all see all, all may type, and none is in another's way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import GREETING, PrivateHost, wait_until

from backend.errors import ConflictError
from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.protocol import Hypervisor
from backend.local.console import open_console
from backend.local.console_sharing import MeetingPoint
from backend.service import ConsoleStream

pytestmark = pytest.mark.libvirt

VIEWER = """
import os, sys, threading
from pathlib import Path
from backend.hypervisor.host import open_hypervisor
from backend.local.console import open_console
uri, cache, folder, uid = sys.argv[1:5]
driver = open_hypervisor(uri, "kc", Path(cache))
stream = open_console(driver, {"name": "guest", "uid": uid}, Path(folder))
print("open", file=sys.stderr, flush=True)
def type_keys():
    while keys := os.read(0, 4096):
        stream.write(keys)
    stream.close()
threading.Thread(target=type_keys, daemon=True).start()
while (data := stream.read(0.5)) != b"":
    if data:
        os.write(1, data)
stream.close()
driver.close()
"""


class Viewer:
    """A process that shows a console on its standard output and types what comes on its standard input."""

    def __init__(self, arguments: tuple[str, ...], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", VIEWER, *arguments], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE
            )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line == b"open\n", line + self.process.stderr.read()

    @property
    def seen(self) -> bytes:
        return self._output.read_bytes()

    def type(self, keys: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(keys)
        self.process.stdin.flush()

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(15) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(15)

    def end(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Longer than a socket's address can be.
    return tmp_path / ("long" * 30) / "run"


@pytest.fixture
def domain(hypervisor: Hypervisor, make: Callable[..., DomainPlan]) -> DomainPlan:
    plan = make()
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    return plan


@pytest.fixture
def watch(
    private_host: PrivateHost, tmp_path: Path, folder: Path, domain: DomainPlan
) -> Iterator[Callable[[], Viewer]]:
    """Starts one more viewer."""
    viewers: list[Viewer] = []

    def start() -> Viewer:
        arguments = (private_host.uri, str(tmp_path), str(folder), domain.uid)
        viewers.append(Viewer(arguments, tmp_path / f"viewer-{len(viewers)}"))
        return viewers[-1]

    yield start
    for viewer in viewers:
        viewer.end()


def all_see(viewers: list[Viewer], text: bytes, seconds: float = 10) -> None:
    """Wait until every viewer has been shown exactly this much."""
    wait_until(
        lambda: all(viewer.seen.endswith(text) for viewer in viewers), f"all see {text[-40:]!r}", seconds
    )  # fmt: skip


def open_here(hypervisor: Hypervisor, domain: DomainPlan, folder: Path) -> ConsoleStream:
    return open_console(hypervisor, {"name": "guest", "uid": domain.uid}, folder)


def read_until(stream: ConsoleStream, text: bytes, seconds: float = 10) -> bytes:
    ends = time.monotonic() + seconds
    data = b""
    while text not in data:
        assert time.monotonic() < ends, data[-200:]
        data += stream.read(0.2) or b""
    return data


def test_all_see_all_and_all_may_type(watch: Callable[[], Viewer], folder: Path) -> None:
    viewers = [watch(), watch()]
    all_see(viewers, GREETING)
    viewers[0].type(b"one ")
    all_see(viewers, GREETING + b"one ")
    viewers[1].type(b"two ")
    viewers.append(watch())
    all_see(viewers, GREETING + b"one two ")
    viewers[2].type(b"three ")
    all_see(viewers, GREETING + b"one two three ")
    assert [viewer.seen.count(GREETING) for viewer in viewers] == [1, 1, 1]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (socket,) = folder.glob("*.console")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["leaves", "killed"])
def test_when_the_owner_goes_another_goes_on_where_it_was(watch: Callable[[], Viewer], how: str) -> None:
    viewers = [watch(), watch(), watch()]
    all_see(viewers, GREETING)
    viewers[0].type(b"before ")
    all_see(viewers, GREETING + b"before ")
    if how == "leaves":
        viewers[0].leave()
    else:
        viewers[0].kill()
    viewers[1].type(b"A")
    viewers[2].type(b"B")
    rest = viewers[1:]
    wait_until(lambda: all(len(viewer.seen) == len(GREETING) + 9 for viewer in rest), "both are shown both keys")
    assert rest[0].seen == rest[1].seen
    assert sorted(rest[0].seen[-2:]) == sorted(b"AB")
    before = rest[0].seen
    rest[0].kill()
    rest[1].type(b" after")
    all_see(rest[1:], before + b" after")
    late = watch()
    all_see([late], before + b" after")


def test_scrollback_survives_detaching(watch: Callable[[], Viewer], folder: Path) -> None:
    first = watch()
    first.type(b"work")
    all_see([first], GREETING + b"work")
    first.leave()
    assert list(folder.iterdir()) == [], "no viewer, no socket"
    second = watch()
    all_see([second], GREETING + b"work")
    second.type(b"!")
    all_see([second], GREETING + b"work!")


def test_nothing_is_missed_however_soon_after_the_start_it_is_opened(
    hypervisor: Hypervisor, domain: DomainPlan, folder: Path
) -> None:
    for _ in range(3):
        hypervisor.ensure_stopped(domain.uid, grace_seconds=0, force=True)
        before = hypervisor.read_log(domain.console_log, 1 << 20)
        hypervisor.ensure_running(domain.uid)
        stream = open_here(hypervisor, domain, folder)
        said = read_until(stream, before + GREETING)
        assert said == before + GREETING
        stream.write(b"x")
        assert read_until(stream, b"x") == b"x"
        stream.close()


def test_a_stale_socket_is_nobody(watch: Callable[[], Viewer], folder: Path, domain: DomainPlan) -> None:
    first = watch()
    all_see([first], GREETING)
    first.kill()
    assert (folder / f"{domain.uid}.console").exists()
    second = watch()
    second.type(b"ok")
    all_see([second], GREETING + b"ok")


def test_a_viewer_that_is_stopped_is_in_nobodys_way(watch: Callable[[], Viewer]) -> None:
    viewers = [watch(), watch(), watch()]
    all_see(viewers, GREETING)
    os.kill(viewers[1].process.pid, signal.SIGSTOP)
    viewers[0].type(b"on ")
    all_see([viewers[0], viewers[2]], GREETING + b"on ")
    os.kill(viewers[1].process.pid, signal.SIGCONT)
    all_see(viewers, GREETING + b"on ")


def test_an_owner_that_is_stopped_is_replaced_and_joins_again(watch: Callable[[], Viewer]) -> None:
    viewers = [watch(), watch()]
    all_see(viewers, GREETING)
    os.kill(viewers[0].process.pid, signal.SIGSTOP)
    third = watch()
    third.type(b"on ")
    all_see([third], GREETING + b"on ")
    all_see([viewers[1]], GREETING + b"on ", 20)
    os.kill(viewers[0].process.pid, signal.SIGCONT)
    all_see([*viewers, third], GREETING + b"on ", 20)
    viewers[0].type(b"again")
    all_see([*viewers, third], GREETING + b"on again", 20)


def test_the_end_of_the_guest_is_the_end_for_all(
    watch: Callable[[], Viewer], hypervisor: Hypervisor, domain: DomainPlan, folder: Path
) -> None:
    viewers = [watch(), watch()]
    all_see(viewers, GREETING)
    hypervisor.ensure_stopped(domain.uid, grace_seconds=0, force=True)
    for viewer in viewers:
        assert viewer.process.wait(15) == 0
    with pytest.raises(ConflictError, match="it is stopped"):
        open_here(hypervisor, domain, folder)
    assert list(folder.iterdir()) == []


def test_the_console_after_the_next_start_is_not_the_one_that_ended(
    hypervisor: Hypervisor, domain: DomainPlan, folder: Path
) -> None:
    old = open_here(hypervisor, domain, folder)
    read_until(old, GREETING)
    hypervisor.ensure_stopped(domain.uid, grace_seconds=0, force=True)
    wait_until(lambda: old.read(0.2) == b"", "the console ends")
    hypervisor.ensure_running(domain.uid)
    # The one who had it has not closed it yet.
    new = open_here(hypervisor, domain, folder)
    read_until(new, GREETING + GREETING)
    new.write(b"y")
    read_until(new, b"y")
    new.close()
    old.close()


def test_without_a_private_folder_one_is_alone(hypervisor: Hypervisor, domain: DomainPlan, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(PermissionError):
        MeetingPoint(folder, domain.uid).claim()
    stream = open_here(hypervisor, domain, folder)
    read_until(stream, GREETING)
    assert list(folder.iterdir()) == []
    stream.close()
