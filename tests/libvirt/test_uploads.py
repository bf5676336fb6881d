"""A volume is whole or is not there, whoever dies when, and however many come at once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import PrivateHost, wait_until

from backend.errors import FailedError, UnreachableError
from backend.hypervisor import upload as upload_module
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import Volume
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt

SIZE = 24 << 20
# Uploads SIZE bytes of one kind, and says so at each step of a MiB; waits for a line after the byte that it is told.
UPLOADER = f"""
import sys
from pathlib import Path
from backend.hypervisor import upload
from backend.hypervisor.host import open_hypervisor
upload.STALL_SECONDS = float(sys.argv[6])
uri, cache, name, file, stop_at = sys.argv[1:6]
driver = open_hypervisor(uri, "kc", Path(cache))
def report(done):
    if done == int(stop_at):
        print("there", flush=True)
        sys.stdin.readline()
with open(file, "rb") as source:
    print(driver.upload(name, source, {SIZE}, report=report).whole, flush=True)
"""


@pytest.fixture
def content(tmp_path: Path) -> Path:
    file = tmp_path / "content"
    file.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
    return file


@pytest.fixture
def name(hypervisor: Hypervisor) -> Iterator[str]:
    name = f"kc-image-{uuid.uuid4().hex}"
    yield name
    for volume in hypervisor.list_volumes("kc-image-"):
        hypervisor.ensure_volume_gone(volume.name)


@pytest.fixture(autouse=True)
def soon_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "STALL_SECONDS", 2.0)


def start_uploader(
    host: PrivateHost, folder: Path, name: str, content: Path, stop_at: int, stall: float = 2.0
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", UPLOADER, host.uri, str(folder), name, str(content), str(stop_at), str(stall)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=20)


def send(hypervisor: Hypervisor, name: str, content: Path) -> Volume:
    with content.open("rb") as source:
        return hypervisor.upload(name, source, SIZE)


def test_a_killed_upload_is_no_volume_and_the_next_one_is_whole(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path, name: str, content: Path
) -> None:
    process = start_uploader(private_host, tmp_path, name, content, 4 << 20)
    assert read_line(process) == "there"
    assert hypervisor.find_volume(name) is None  # while it is on its way
    process.send_signal(signal.SIGKILL)
    end(process)
    assert hypervisor.find_volume(name) is None
    assert [volume.whole for volume in hypervisor.list_volumes(name)] == [False]
    assert send(hypervisor, name, content).capacity_bytes == SIZE
    assert hypervisor.find_volume(name) is not None
    assert hypervisor.read_volume(name) == content.read_bytes()
    assert private_host.virsh("vol-list", "kc").count(name) == 2  # name and path of one line: no marker is left


def test_a_killed_upload_can_be_cleared_away(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path, name: str, content: Path
) -> None:
    process = start_uploader(private_host, tmp_path, name, content, 1 << 20)
    assert read_line(process) == "there"
    process.send_signal(signal.SIGKILL)
    end(process)
    hypervisor.ensure_volume_gone(name)
    assert hypervisor.list_volumes(name) == []
    assert name not in private_host.virsh("vol-list", "kc")


def test_two_uploads_of_one_name_end_with_one_whole_volume(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path, name: str, content: Path
) -> None:
    process = start_uploader(private_host, tmp_path, name, content, 2 << 20, stall=60)
    assert read_line(process) == "there"
    sent: list[int] = []
    with content.open("rb") as source:
        waiting = threading.Thread(target=lambda: hypervisor.upload(name, source, SIZE, report=sent.append))
        upload_module.STALL_SECONDS = 60.0
        waiting.start()
        wait_until(lambda: sent, "the second one waits and tells so")
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert read_line(process) == "True"
        waiting.join(20)
        assert not waiting.is_alive()
    end(process)
    assert hypervisor.read_volume(name) == content.read_bytes()
    assert name in private_host.virsh("vol-list", "kc")
    assert ".part" not in private_host.virsh("vol-list", "kc")


def test_many_that_start_at_once_end_with_one_whole_volume(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path, name: str, content: Path
) -> None:
    processes = [start_uploader(private_host, tmp_path, name, content, -1, stall=60) for _ in range(4)]
    assert [read_line(process) for process in processes] == ["True"] * 4
    for process in processes:
        end(process)
    assert hypervisor.read_volume(name) == content.read_bytes()
    assert ".part" not in private_host.virsh("vol-list", "kc")


def test_one_that_was_taken_for_dead_does_no_harm_when_it_comes_back(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path, name: str, content: Path
) -> None:
    process = start_uploader(private_host, tmp_path, name, content, 3 << 20)
    assert read_line(process) == "there"
    assert send(hypervisor, name, content).whole
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert read_line(process) in ("True", "there")
    end(process)
    wait_until(lambda: ".part" not in private_host.virsh("vol-list", "kc"), "no marker is left")
    assert hypervisor.read_volume(name) == content.read_bytes()


def test_an_upload_whose_daemon_dies_fails_and_is_told_from_a_whole_one(
    hypervisor: Hypervisor, private_host: PrivateHost, name: str, content: Path
) -> None:
    def report(done: int) -> None:
        if done == 3 << 20:
            private_host.tell("signal libvirtd KILL")

    began = time.monotonic()
    try:
        with content.open("rb") as source, pytest.raises(UnreachableError):
            hypervisor.upload(name, source, SIZE, report=report)
        assert time.monotonic() - began < 10
    finally:
        private_host.tell("start libvirtd")
        private_host.wait_for_daemon()
    assert hypervisor.find_volume(name) is None
    assert send(hypervisor, name, content).whole
    assert hypervisor.read_volume(name) == content.read_bytes()


def test_no_room_is_said_and_nothing_stays(private_host: PrivateHost, tmp_path: Path, content: Path) -> None:
    private_host.virsh("pool-define-as", "small", "dir", "--target", "/var/lib/libvirt/small")
    driver = open_hypervisor(private_host.uri, "small", tmp_path)
    driver.ensure_pool()
    assert driver.free_bytes() <= 8 << 20
    with content.open("rb") as source, pytest.raises(FailedError, match="no room"):
        driver.upload("big", source, SIZE)
    assert driver.list_volumes() == []
    assert driver.upload("small", io.BytesIO(b"x" * 4096), 4096).whole
    driver.close()


def test_holes_stay_holes(hypervisor: Hypervisor, name: str, tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as made:
        made.write(b"head")
        made.seek(8 << 20)
        made.write(b"middle")
        made.truncate(SIZE)
    volume = send(hypervisor, name, file)
    assert volume.capacity_bytes == SIZE
    assert volume.allocation_bytes < 1 << 20
    assert hypervisor.read_volume(name) == file.read_bytes()
