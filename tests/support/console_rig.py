"""An sshd that serves KC as `kc ssh-console install` sets it up: a mount namespace, and a user, of the test's own.

`/etc`, `/usr/local` and `/srv` are other folders in there, so that nothing of the machine's is changed; its KC is in
`/srv/kc`, on libvirt's test driver, or, with `memory`, on a host in memory in each session of its own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pty_driver import Terminal
from support.ssh_daemon import free_port
from support.world import Lab

PROJECT = Path(__file__).parents[2]
MEMORY_PROGRAM = PROJECT / "tests" / "support" / "console_program.py"
KEYS_PROGRAM = "/usr/local/libexec/kc-ssh-keys"
URI = "test:///default"
_START_SECONDS = 20
_CONFIG = """
[[auth.chain]]
type = "ssh-keys"

[[auth.grants]]
group = "ops"
actions = ["*"]

[[auth.grants]]
subject = "bob"
actions = ["vm.*", "image.read", "network.read", "type.read", "op.read", "trash.read"]
selector = "tenant=beta"
"""


class Rig:
    """The running sshd: `home` is KC's folder as it is seen from here, `key(name)` the path of somebody's key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "srv" / "kc"
        self.port = free_port()
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._known = folder / "known_hosts"

    # --- its inside

    def start(self, *, memory: bool) -> None:
        """Make the namespace, install KC in it, and start sshd."""
        script = self._write_mounts()
        said = self.folder / "namespace"
        with said.open("wb") as output:
            self._holder = subprocess.Popen(
                ["unshare", "-m", "sh", "-ec", script], stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        ends = time.monotonic() + _START_SECONDS
        while not said.read_text().endswith("ready\n"):
            is_coming = self._holder.poll() is None and time.monotonic() < ends
            assert is_coming, f"no mount namespace: {said.read_text()}"
            time.sleep(0.02)
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/test_host_key")
        self._known.write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'etc/ssh/test_host_key.pub').read_text()}")
        self.run(sys.executable, "-m", "kc_tui", "ssh-console", "install", "--home", "/srv/kc")
        self._furnish()
        self._write_home()
        if memory:
            text = f'#!/bin/sh\nexport KC_HOME=/srv/kc; exec {sys.executable} -I {MEMORY_PROGRAM} __ssh-keys "$@"\n'
            (self.folder / "local" / "libexec" / "kc-ssh-keys").write_text(text)
        self._start_daemon()

    def _write_mounts(self) -> str:
        folder = self.folder
        lines = [f"mkdir -p {folder}/srv {folder}/local/libexec {folder}/hold", f"cp -a /etc {folder}/etc"]
        for number, path in enumerate(sorted(self._find_needed())):
            lines += [f"mkdir {folder}/hold/{number}", f"mount --bind {path} {folder}/hold/{number}"]
        for top in sorted({top for top, _path in self._list_hidden()}):
            lines.append(f"mount -t tmpfs -o mode=0755 none {top}")
        for number, path in enumerate(sorted(self._find_needed())):
            if any(path == hidden for _top, hidden in self._list_hidden()):
                lines += [f"mkdir -p {path}", f"mount --bind {folder}/hold/{number} {path}"]
        lines += [
            f"mkdir {folder}/hold/local",
            f"mount --bind /usr/local {folder}/hold/local",
            f'for entry in /usr/local/*; do ln -s "{folder}/hold/local/${{entry##*/}}" {folder}/local/ || true; done',
            f"mount --bind {folder}/local /usr/local",
            f"mount --bind {folder}/etc /etc",
            f"mount --bind {folder}/srv /srv",
            "mkdir -p /run/sshd",
            "echo ready",
            "exec sleep 1000",
        ]
        return "\n".join(lines)

    def _find_needed(self) -> set[str]:
        return {os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, PROJECT)}

    def _list_hidden(self) -> list[tuple[str, str]]:
        """Return what the user needs below folders that only their owner may enter, each with that folder."""
        found = []
        for path in sorted(self._find_needed()):
            for top in reversed(Path(path).parents):
                if not top.stat().st_mode & stat.S_IXOTH:
                    found.append((str(top), path))
                    break
        return found

    def _furnish(self) -> None:
        """Put VMs of two tenants into the store, on the host of nobody."""
        lab = Lab(self.home)
        for name, tenant in (("web-1", "acme"), ("web-2", "acme"), ("build-7", "beta")):
            lab.add_vm(name, "stopped", metadata={"tenant": tenant})
        lab.service.close()
        self.run("chown", "-R", "kc:kc", "/srv/kc")

    def write_config(self, more: str = "") -> None:
        """Write the settings, and more of them; sessions that begin from now on have them."""
        (self.home / "config" / "config.toml").write_text(_CONFIG + more)

    def _write_home(self) -> None:
        for name, *more in (("alice", "--group", "ops"), ("bob",), ("carol",)):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key(name))], check=True, timeout=30
            )
            self.run_kc("ssh-console", "keys", "--add", f"{self.key(name)}.pub", "--subject", name, *more)
        self.write_config()
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key("stranger"))], check=True, timeout=30
        )

    def _start_daemon(self) -> None:
        log = self.folder / "log"
        # As generous with the client's environment as an operator could be, LD_… left out, which no sshd should take.
        config = (
            "HostKey /etc/ssh/test_host_key\nPidFile none\nAcceptEnv LANG LC_* TEXTUAL* PYTHON* KC_* EDITOR VISUAL\n"
        )
        config += "AcceptEnv PAGER BASH_ENV ENV COLORTERM HOME XDG_* DISPLAY TMUX STY NO_COLOR SHELL\n"
        # An authority whose certificates everybody else is let in by.
        config += "TrustedUserCAKeys /etc/ssh/test_authority.pub\nPasswordAuthentication yes\n"
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/test_authority")
        (self.folder / "etc/ssh/test_config").write_text(f"{config}Include /etc/ssh/sshd_config\n")
        command = ["/usr/sbin/sshd", "-D", "-E", str(log), "-f", "/etc/ssh/test_config", "-p", str(self.port)]
        self._daemon = subprocess.Popen([*self._enter(), *command, "-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no"])
        ends = time.monotonic() + _START_SECONDS
        while not (log.exists() and "Server listening" in log.read_text()):
            assert time.monotonic() < ends, log.read_text() if log.exists() else "sshd does not listen"
            time.sleep(0.02)

    def _enter(self) -> list[str]:
        assert self._holder is not None
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--wd=/"]

    def run(self, *command: str) -> str:
        """Run a program as root in the namespace and return what it prints."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KC_")}
        done = subprocess.run(
            [*self._enter(), *command], capture_output=True, text=True, timeout=120, check=False,
            env=environment | {"KC_LIBVIRT_URI": URI, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
        return done.stdout

    def run_kc(self, *arguments: str) -> str:
        """Run kc as the console's user, on its home, and return what it prints."""
        place = ["env", "KC_HOME=/srv/kc", sys.executable, "-m", "kc_tui"]
        command = ["setpriv", "--reuid=kc", "--regid=kc", "--init-groups", *place]
        if arguments[:2] == ("ssh-console", "keys"):
            # Root may: the files stay the user's.
            command = place
        return self.run(*command, *arguments)

    def processes(self) -> list[int]:
        """Return the processes of the console's user in this rig's namespace, by what the kernel tells."""
        assert self._holder is not None
        uid = int(self.run("id", "-u", "kc"))
        # Another rig's user has the same number.
        namespace = Path(f"/proc/{self._holder.pid}/ns/mnt").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and entry.stat().st_uid == uid and (entry / "cmdline").read_bytes():
                    found += [int(entry.name)] if (entry / "ns/mnt").readlink() == namespace else []
        return found

    def close(self) -> None:
        """End sshd and the namespace."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(10)
        if self._holder is not None:
            self._holder.terminate()
            self._holder.wait(10)

    # --- from outside

    def key(self, name: str) -> Path:
        """Return where somebody's private key is."""
        return self.folder / name

    def ssh(self, name: str, *options: str, program: str = "ssh") -> list[str]:
        """Return a client's command up to the host, which is last but for what is appended."""
        common = ["-F", "none", "-i", str(self.key(name)), "-o", f"UserKnownHostsFile={self._known}"]
        common += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
        return [program, *common, "-P" if program in ("scp", "sftp") else "-p", str(self.port), *options]

    def call(
        self, name: str, *words: str, options: tuple[str, ...] = (), data: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command over SSH, as a person would type it after the host."""
        return subprocess.run(
            [*self.ssh(name, *options), "kc@127.0.0.1", "--", *words], input=data, capture_output=True, timeout=60,
            check=False, env=self._environment() | environment,
        )  # fmt: skip

    def open(self, name: str, *words: str, options: tuple[str, ...] = (), **environment: str) -> Terminal:
        """Open a session with a terminal."""
        variables = self._environment() | {"TERM": "xterm-256color"} | environment
        return Terminal([*self.ssh(name, "-tt", *options), "kc@127.0.0.1", "--", *words], variables)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}


@contextlib.contextmanager
def console_rig(folder: Path, *, memory: bool = False) -> Iterator[Rig]:
    """Run a rig in a folder; the test is skipped where no namespace can be made."""
    if os.geteuid() != 0 or not Path("/usr/sbin/sshd").exists() or shutil.which("nsenter") is None:
        pytest.skip("needs root, openssh-server and util-linux")
    folder.mkdir(exist_ok=True)
    rig = Rig(folder)
    try:
        rig.start(memory=memory)
        yield rig
    finally:
        rig.close()
