"""A host that is reached by ssh alone: everything goes through libvirt's own API."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import PrivateHost, wait_until
from support.boot_sector import SIZE, make_disk

from backend.errors import UnreachableError
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DiskPlan, DomainPlan
from backend.hypervisor.protocol import Hypervisor

pytestmark = pytest.mark.libvirt

# What libvirt runs over ssh where its own helper cannot reach a socket of another name: `nc -U PATH`.
NETCAT = """
import os, select, socket, sys
if "-U" not in sys.argv: sys.exit(1)
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[-1])
while True:
    for source in select.select([0, line], [], [])[0]:
        data = os.read(0, 65536) if source == 0 else line.recv(65536)
        if not data: sys.exit(0)
        line.sendall(data) if source == 0 else os.write(1, data)
"""


@pytest.fixture(scope="module")
def remote(private_host: PrivateHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The private host's URI by way of an sshd on loopback."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None or os.geteuid() != 0:
        pytest.skip("needs root and openssh-server")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=30)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    daemon = subprocess.Popen([sshd, "-D", "-E", str(folder / "log"), "-f", str(config)])
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    wrapper = folder / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={known} -o IdentitiesOnly=yes "$@"\n')
    wrapper.chmod(0o755)
    netcat = folder / "nc"
    netcat.write_text(f"#!{sys.executable}\n{NETCAT}")
    netcat.chmod(0o755)
    path = private_host.uri.partition("socket=")[2]
    query = f"socket={path}&keyfile={folder}/user&command={wrapper}&netcat={netcat}"
    wait_until(lambda: is_open(port), "sshd listens")
    yield f"qemu+ssh://root@127.0.0.1:{port}/system?{query}"
    daemon.terminate()
    daemon.wait(10)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def driver(remote: str, tmp_path: Path) -> Iterator[Hypervisor]:
    driver = open_hypervisor(remote, "kc", tmp_path)
    driver.ensure_pool()
    yield driver
    driver.close()


def test_a_vm_is_made_runs_and_goes_over_ssh(driver: Hypervisor) -> None:
    uid = str(uuid.uuid4())
    disk = make_disk(b"KC over ssh\r\n")
    driver.upload(f"kc-{uid}-base", io.BytesIO(disk), SIZE)
    driver.ensure_overlay(f"kc-{uid}-root", base=f"kc-{uid}-base", base_format="raw", capacity_bytes=SIZE)
    plan = DomainPlan(
        uid=uid, name=f"vm-{uid[:8]}", version=1, owner="owner", owner_label="tests", metadata="{}", arch="x86_64",
        cpus=1, memory_mib=32, firmware="bios", accelerator=driver.accelerator("aarch64"),
        disks=(DiskPlan("root", f"kc-{uid}-root", "qcow2", f"kc-{uid}-base", "raw"),), nics=(), seed="",
        console_log=f"kc-{uid}-console.log",
    )  # fmt: skip
    driver.ensure_defined(plan)
    driver.ensure_running(uid)
    wait_until(lambda: b"KC over ssh" in driver.read_log(plan.console_log, 1000), "the guest is up", 20)
    console = driver.console(uid)
    console.write(b"typed")
    said = b""
    ends = time.monotonic() + 10
    while b"typed" not in said and time.monotonic() < ends:
        said += console.read(0.5) or b""
    assert b"typed" in said
    console.close()
    assert driver.ensure_stopped(uid, grace_seconds=10, force=False)
    driver.ensure_undefined(uid, "owner")
    for volume in driver.list_volumes(f"kc-{uid}"):
        if not volume.name.endswith("base"):
            driver.ensure_volume_gone(volume.name)
    driver.ensure_volume_gone(f"kc-{uid}-base")
    assert driver.list_volumes(f"kc-{uid}") == []


def test_a_host_that_asks_for_a_password_is_unreachable_and_asks_nobody(remote: str, tmp_path: Path) -> None:
    driver = open_hypervisor(remote.replace("/user&", "/host&"), "kc", tmp_path)
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        driver.inventory()
    assert time.monotonic() - began < 10
    assert "ssh" in caught.value.hint
