"""A VM of plain QEMU, so that the starter image is judged without any of KC's own driver."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import pycdlib

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
SEED_NAMES = {"meta-data": "/METADATA.;1", "user-data": "/USERDATA.;1", "network-config": "/NETWORK.;1"}
MAC = "52:54:00:4b:43:01"
BOOT_SECONDS = 120.0

T = TypeVar("T")


def write_seed(path: Path, **documents: str) -> Path:
    """Write a NoCloud seed; the documents' names have underscores for dashes."""
    iso = pycdlib.PyCdlib()
    iso.new(joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for name, text in documents.items():
        file_name, data = name.replace("_", "-"), text.encode()
        iso.add_fp(io.BytesIO(data), len(data), SEED_NAMES[file_name], rr_name=file_name, joliet_path=f"/{file_name}")
    iso.write(str(path))
    iso.close()
    return path


def wait_for(condition: Callable[[], T], seconds: float, what: Callable[[], str]) -> T:
    """Return the first true value of `condition`; fails with `what` when the time is over."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            msg = f"not within {seconds} s: {what()}"
            raise AssertionError(msg)
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class JsonChannel:
    """A line of JSON there, a line of JSON back, over a unix socket of QEMU's."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.waiting = b""

    def receive(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\n" not in self.waiting:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.waiting += data
        line, _, self.waiting = self.waiting.partition(b"\n")
        # The agent marks a fresh start with this byte.
        return json.loads(line.lstrip(b"\xff"))

    def call(self, command: str, seconds: float = 20, **arguments: Any) -> Any:
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        end = time.monotonic() + seconds
        while True:
            answer = self.receive(end - time.monotonic())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(answer["error"])

    def close(self) -> None:
        self.socket.close()


class Machine:
    """A running VM: q35 without acceleration, the image unchanged (`snapshot=on`), everything of it in one folder.

    Its NIC is on QEMU's own user network with ports forwarded from loopback, or on a tap device that is made for it.
    """

    def __init__(
        self,
        folder: Path,
        image: Path,
        *,
        seed: Path | None = None,
        uefi: bool = False,
        memory_mib: int = 256,
        guest_address: str = "",
        tap: str = "",
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.http_port, self.ssh_port = free_port(), free_port()
        network = (
            f"tap,ifname={tap},script=no,downscript=no"
            if tap
            else (
                f"user,ipv6-prefix=fd4b:43::,"
                f"hostfwd=tcp:127.0.0.1:{self.http_port}-{guest_address}:80,"
                f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-{guest_address}:22"
            )
        )
        arguments = [
            *("-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "tcg", "-cpu", "max"),
            *("-m", f"size={memory_mib}M,slots=2,maxmem=1G", "-smp", "1,maxcpus=2"),
            *("-drive", f"file={image},format=raw,if=virtio,snapshot=on"),
            *("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci"),
            *("-netdev", f"{network},id=net0", "-device", f"virtio-net-pci,netdev=net0,mac={MAC}"),
            *("-device", "pcie-root-port,id=spare,chassis=9"),
            *("-chardev", f"socket,id=serial,path={folder}/serial,server=on,wait=off,logfile={folder}/serial.log"),
            *("-serial", "chardev:serial"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
            *("-qmp", f"unix:{folder}/qmp,server=on,wait=off"),
        ]
        if seed:
            arguments += ["-device", "virtio-scsi-pci", "-drive", f"file={seed},if=none,id=seed,format=raw,readonly=on"]
            arguments += ["-device", "scsi-cd,drive=seed"]
        if uefi:
            shutil.copy(OVMF_VARIABLES, folder / "variables.fd")
            arguments += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"]
            arguments += ["-drive", f"if=pflash,format=raw,unit=1,file={folder}/variables.fd"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: (folder / "qmp").exists() or self._fail_if_ended(), 20, lambda: "QEMU's sockets")
        self.qmp = JsonChannel(folder / "qmp")
        self.qmp.receive(20)
        self.qmp.call("qmp_capabilities")
        self.agent = JsonChannel(folder / "agent")
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(str(folder / "serial"))
        # A console that nobody reads stops its guest after some 300 characters.
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.qmp.close()
        self.agent.close()
        self.process.kill()
        self.process.wait(20)
        self.reader.join(20)
        self.line.close()
        if self.process.stderr:
            self.process.stderr.close()

    def _drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self.line.recv(4096):
                pass

    def _fail_if_ended(self) -> None:
        if self.process.poll() is not None and self.process.stderr:
            raise AssertionError(self.process.stderr.read().decode())

    @property
    def serial(self) -> str:
        """Everything that the serial line said so far."""
        return (self.folder / "serial.log").read_text(errors="replace")

    def wait_for_serial(self, text: str, seconds: float = BOOT_SECONDS) -> float:
        """Return the seconds since the start at which `text` was on the serial line."""
        wait_for(lambda: text in self.serial, seconds, lambda: f"{text!r} in {self.serial[-3000:]!r}")
        return time.monotonic() - self.started

    def wait_until_off(self, seconds: float) -> float:
        """Return the seconds from now until QEMU ended by itself."""
        start = time.monotonic()
        wait_for(lambda: self.process.poll() is not None, seconds, lambda: f"powered off: {self.serial[-1000:]!r}")
        assert self.process.returncode == 0
        return time.monotonic() - start

    def http_get(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/", timeout=10) as answer:
            return str(answer.read().decode())

    def type(self, text: str) -> None:
        """Type on the serial console."""
        self.line.sendall(text.encode())

    def run(self, command: str, seconds: float = 30, stdin: str = "") -> tuple[int, str]:
        """Run a shell command by the guest agent; returns exit code and both outputs together."""
        started = self.agent.call(
            "guest-exec",
            **{
                "path": "/bin/sh",
                "arg": ["-c", f"{{ {command}\n}} 2>&1"],
                "capture-output": True,
                "input-data": base64.b64encode(stdin.encode()).decode(),
            },
        )

        def ended() -> dict[str, Any] | None:
            status = self.agent.call("guest-exec-status", pid=started["pid"])
            return status if status["exited"] else None

        status = wait_for(ended, seconds, lambda: command)
        assert status is not None
        return status.get("exitcode", -1), base64.b64decode(status.get("out-data", "")).decode()

    def output(self, command: str, seconds: float = 30, stdin: str = "") -> str:
        """Run a shell command that must succeed and return what it printed."""
        code, text = self.run(command, seconds, stdin)
        assert code == 0, f"{command}: {code}: {text}"
        return text

    def ssh(self, *options: str, user: str = "root", command: str = "hostname") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-p", str(self.ssh_port), "-o", "ConnectTimeout=15"),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
                *options,
                *(f"{user}@127.0.0.1", command),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
