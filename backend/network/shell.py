"""Commands on the host that a libvirt URI means: on this machine, or over ssh.

Each command is a list of arguments and its standard input, and reaches its program as it is; no shell reads any of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from backend.errors import FailedError, KCError, TimedOutError, UnreachableError
from backend.text import sanitise

PACKAGE_OF_PROGRAM = {
    "bridge": "iproute2",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "sysctl": "procps",
    "tc": "iproute2",
}

_CONNECT_SECONDS = 5
_SSH_FAILED = 255
_NO_PROGRAM = 127
_BEGAN, _MISSING = "kc-began\n", "kc-missing\n"
# What it says first parts ssh's own words from the program's, and tells that the host was reached. An ordinary user's
# PATH leaves out where these programs live; root's rights come by sudo, where it gives them without asking. `timeout`
# ends what we may not: a program that is root's, or on another machine.
_SCRIPT = (
    "PATH=$PATH:/usr/sbin:/sbin LC_ALL=C; export PATH LC_ALL; echo kc-began >&2; "
    f'command -v "$2" >/dev/null || {{ echo kc-missing >&2; exit {_NO_PROGRAM}; }}; '
    'set -- env PATH="$PATH" LC_ALL=C timeout --foreground --kill-after=1 "$@"; '
    '[ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null || exec sudo -n -- "$@"; exec "$@"'
)
_SSH_TRANSPORTS = ("ssh", "libssh", "libssh2")
_AUTHORITY = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\[\]]*\]|[^:@\[\]]*)(?::(?P<port>\d*))?")
_NO_RIGHT = r"(?i)operation not permitted|permission denied|must be root"
_WHY_LIMIT = 400


class Finished(NamedTuple):
    """How a command ended: its exit code (negative: the signal), what it wrote, and what it said of errors."""

    code: int
    output: str
    errors: str


class Shell(Protocol):
    """A host that does commands; `where` names it in messages."""

    @property
    def where(self) -> str:
        """Return the host's name for a reader."""

    def run(self, arguments: Sequence[str], *, stdin: str = "", seconds: float = 10.0) -> Finished:
        """Run a program to its end, whatever its exit code.

        Raises FailedError where the program is not there, TimedOutError after `seconds`, UnreachableError where the
        host cannot be reached.
        """


class LocalShell:
    """This machine; `prefix` is a command that runs another one elsewhere on it: `ip netns exec NAME`."""

    where = "this machine"

    def __init__(self, prefix: Sequence[str] = (), libvirt_socket: str = "") -> None:
        self._prefix = tuple(prefix)
        self._socket = libvirt_socket

    def run(self, arguments: Sequence[str], *, stdin: str = "", seconds: float = 10.0) -> Finished:
        """Run a program to its end."""
        prefix = [*self._prefix, *(_way_to(self._socket) if self._socket else ())]
        return _perform(self.where, [*prefix, *_wrap(arguments, seconds)], arguments[0], stdin, seconds)


class SshShell:
    """A host behind ssh, which is never asked for a password; `options` come before its name."""

    def __init__(self, host: str, options: Sequence[str] = (), program: str = "ssh") -> None:
        self.where = sanitise(host, 100)
        # A master connection that ssh leaves behind would keep our pipes open.
        self._ssh = (
            program, "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-o", "ControlMaster=no",
            "-o", "LogLevel=ERROR", *options, "--", host,
        )  # fmt: skip

    def run(self, arguments: Sequence[str], *, stdin: str = "", seconds: float = 10.0) -> Finished:
        """Run a program to its end; `seconds` are its own, those of the way there come on top."""
        # ssh hands the host's login shell one line, in which each argument is one quoted word.
        command = [*self._ssh, shlex.join(_wrap(arguments, seconds))]
        return _perform(self.where, command, arguments[0], stdin, seconds + _CONNECT_SECONDS)


def open_shell(uri: str) -> Shell:
    """Return the shell of the host that a libvirt URI means; connects nowhere yet.

    `qemu:///…` and `qemu+unix://…` are this machine, `qemu+ssh://[USER@]HOST[:PORT]/…` goes by ssh with what the URI
    says of it (`keyfile`, `known_hosts`, `no_verify`, `command`). Of any other, UnreachableError says that nobody gets
    at its kernel. Source: libvirt's "Remote support", https://libvirt.org/uri.html.
    """
    parts = _split(uri)
    driver, _, transport = parts.scheme.partition("+")
    # libvirt, unlike forms of the web, takes a plus sign for itself.
    asked = dict(parse_qsl(parts.query.replace("+", "%2B")))
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if driver == "qemu" and (transport == "unix" or not (transport or parts.netloc)):
        return LocalShell(libvirt_socket=asked.get("socket", ""))
    if driver != "qemu" or transport not in _SSH_TRANSPORTS or authority is None:
        raise UnreachableError(
            f"the networks of {sanitise(uri, 200)}",
            "KC gets at the kernel of a host on this machine, or by ssh",
            "use qemu:///system, or qemu+ssh://USER@HOST/system",
        )
    options = []
    for option, value in (("-l", unquote(authority["user"] or "")), ("-p", authority["port"])):
        options += [option, value] if value else []
    options += ["-i", asked["keyfile"]] if asked.get("keyfile") else []
    options += ["-o", f"UserKnownHostsFile={_quote(asked['known_hosts'])}"] if asked.get("known_hosts") else []
    if asked.get("no_verify", "0") != "0" or asked.get("known_hosts_verify") == "ignore":
        options += ["-o", "StrictHostKeyChecking=no"]
    host = unquote(authority["host"].strip("[]")) or "localhost"
    return SshShell(host, options, asked.get("command") or "ssh")


def failure(shell: Shell, what: str, finished: Finished, hint: str = "") -> KCError:
    """Return the error of a command that ended badly: its last words, and a hint where only the right to it lacks."""
    why = _last_words(finished.errors) or f"the command ended with {finished.code}"
    if re.search(_NO_RIGHT, finished.errors):
        hint = f"KC needs root on {shell.where} for this: run it as root, or let its user `sudo` without a password"
    return FailedError(what, f"{why} ({shell.where})", hint)


def _split(uri: str) -> SplitResult:
    """Return a URI's parts; none of one that is no URI."""
    try:
        return urlsplit(uri)
    except ValueError:
        return urlsplit("")


def _wrap(arguments: Sequence[str], seconds: float) -> list[str]:
    """Return what runs a program with our settings, and ends it a little after we have given it up."""
    return ["sh", "-c", _SCRIPT, "kc", f"{seconds + 1:g}", *arguments]


def _last_words(text: str) -> str:
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return sanitise(said[-1], _WHY_LIMIT).rstrip(". ") if said else ""


def _quote(path: str) -> str:
    """Return a path as ssh's configuration takes it, where blanks part one file from the next."""
    return f'"{path}"'


def _way_to(libvirt_socket: str) -> list[str]:
    """Return what leads to the namespaces of the libvirtd behind a socket, where they are not ours; [] otherwise."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(libvirt_socket)
        except OSError as error:
            raise UnreachableError(
                f"the libvirtd of {sanitise(libvirt_socket, 200)}",
                f"it does not answer, and KC looks for networks where it runs: {error.strerror}",
                "start it, or correct KC_LIBVIRT_URI",
            ) from error
        peer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    (pid, _, _) = struct.unpack("3i", peer)
    with contextlib.suppress(OSError):
        # One of another user's is not told apart, and could not be entered either.
        if not Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net"):
            return ["nsenter", "--target", str(pid), "--all"]
    return []


def _perform(where: str, command: list[str], program: str, stdin: str, seconds: float) -> Finished:
    """Run a wrapped command, which has our process group to itself, and tell what became of it."""
    with _start(command, has_input=bool(stdin)) as process:
        is_late = False
        try:
            output, errors = process.communicate(stdin.encode() if stdin else None, timeout=seconds)
        except subprocess.TimeoutExpired:
            is_late = True
            _kill(process)
            output, errors = process.communicate()
        finally:
            _kill(process)
    chatter, began, said = errors.decode(errors="replace").partition(_BEGAN)
    if not began:
        raise _never_began(where, command[0], f"no answer within {seconds:g} seconds" if is_late else chatter)
    if is_late:
        raise TimedOutError(where, f"{program} did not end within {seconds:g} seconds", "try again")
    if process.returncode == _NO_PROGRAM and said == _MISSING:
        raise _missing(where, program)
    return Finished(process.returncode, output.decode(errors="replace"), said)


def _start(command: list[str], *, has_input: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(LocalShell.where, command[0]) from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that still runs, with its group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _missing(where: str, program: str) -> FailedError:
    package = PACKAGE_OF_PROGRAM.get(program, program)
    return FailedError(
        where, f"the program {sanitise(program, 60)} is missing", f"apt-get install {sanitise(package, 60)}"
    )


def _never_began(where: str, program: str, chatter: str) -> UnreachableError:
    why = _last_words(chatter) or "it ended without a word"
    hint = "" if where == LocalShell.where else f"check that `ssh {where}` reaches it without asking for anything"
    return UnreachableError(where, f"no command can be run there by {sanitise(program, 200)}: {why}", hint)
