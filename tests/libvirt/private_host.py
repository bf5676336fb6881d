"""A libvirt host of a test's own, in namespaces of its own; run as `unshare … python private_host.py FOLDER`.

It is PID 1 there: it reaps every orphan at once (without that libvirt probes its QEMUs for a minute) and does what the
lines on its standard input say: `start DAEMON`, `signal DAEMON NAME`, `qemu DOMAIN SIGNAL`, `run COMMAND`. Each is
answered by one line; at the end of its input everything ends. The daemon's socket is FOLDER/libvirt-sock.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

HIDDEN = ("/run", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")
FOLDERS = (
    "/run/libvirt", "/run/lock", "/var/lib/libvirt/images", "/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/dnsmasq",
    "/var/lib/libvirt/network", "/var/lib/libvirt/boot",
)  # fmt: skip
SMALL = "/var/lib/libvirt/small"
SMALL_BYTES = 8 << 20
QEMU_CONF = 'user="root"\ngroup="root"\n'
VIRTLOGD_CONF = "max_size = 65536\nmax_backups = 3\n"


def prepare(folder: Path) -> None:
    """Hide the machine's own libvirt, and configure another one."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for path in HIDDEN:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    for path in FOLDERS:
        Path(path).mkdir(parents=True, exist_ok=True)
    Path(SMALL).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", SMALL], check=True)
    etc = folder / "etc"
    shutil.copytree("/etc/libvirt", etc, symlinks=True, dirs_exist_ok=True)
    for pattern in ("storage/**/*.xml", "qemu/**/*.xml"):
        for file in etc.glob(pattern):
            file.unlink()
    with (etc / "qemu.conf").open("a") as file:
        file.write(QEMU_CONF)
    with (etc / "virtlogd.conf").open("a") as file:
        file.write(VIRTLOGD_CONF)
    with (etc / "libvirtd.conf").open("a") as file:
        file.write(f'unix_sock_dir="{folder}"\nhost_uuid="{uuid.uuid4()}"\nauth_unix_rw="none"\n')
    subprocess.run(["mount", "--bind", str(etc), "/etc/libvirt"], check=True)


def reap() -> None:
    """Collect every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(words: list[str], daemons: dict[str, int]) -> None:
    """Do what one line says."""
    match words:
        case ["start", daemon]:
            daemons[daemon] = subprocess.Popen([daemon], stdin=subprocess.DEVNULL).pid
        case ["signal", daemon, name]:
            os.kill(daemons[daemon], signal.Signals[f"SIG{name}"])
        case ["qemu", domain, name]:
            os.kill(int(Path(f"/run/libvirt/qemu/{domain}.pid").read_text()), signal.Signals[f"SIG{name}"])
        case ["run", *command]:
            subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    """Serve until the test is done, or gone."""
    prepare(Path(sys.argv[1]))
    daemons: dict[str, int] = {}
    for daemon in ("virtlogd", "libvirtd"):
        serve(["start", daemon], daemons)
    print("ready", flush=True)
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        reap()
        if not readable:
            continue
        data = os.read(0, 4096)
        if not data:
            return
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            serve(line.decode().split(), daemons)
            print("done", flush=True)


if __name__ == "__main__":
    main()
