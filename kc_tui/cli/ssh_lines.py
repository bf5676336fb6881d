"""`kc __ssh-keys`: the line of authorized_keys for a key, as sshd asks for it; nothing for a key that KC does not know.

sshd runs it with what it knows of the key that a client offers, and lets in whoever proves to hold it, for the command
of the line alone: `restrict` takes away forwarding, agent, X11 and rc files, `pty` gives the terminal back.
"""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Final

from backend.errors import KCError
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

PROGRAM: list[str] = [sys.executable, "-I", "-X", "utf8", "-m", "kc_tui"]
"""How KC is started where nothing of the caller's environment or folder may have a say in it."""
PLACES: Final = ("KC_HOME", "KC_LIBVIRT_URI", "KC_STORE", "KC_POOL")
"""The variables that say which KC it is; a session gets those that the operator set, and no others."""


def list_places(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that say which KC it is, each as `NAME=VALUE`."""
    return [f"{name}={environment[name]}" for name in PLACES if environment.get(name)]


def build_command(fingerprint: str, places: list[str]) -> str:
    """Return the shell command that serves the holder of a key."""
    words = [*PROGRAM, "__ssh-shell", "--fingerprint", fingerprint, *(f"--place={place}" for place in places)]
    # sshd hands it to the user's shell, which is to stay no longer than it must.
    return f"exec {shlex.join(words)}"


def build_line(public: str, command: str) -> str:
    """Return a line of authorized_keys: a key, and the one command that it runs."""
    quoted = command.replace("\\", "\\\\").replace('"', '\\"')
    return f'restrict,pty,command="{quoted}" {public}'


def _add_arguments(parser: Parser) -> None:
    parser.add("user", metavar="USER")
    parser.add("fingerprint", metavar="FINGERPRINT")
    parser.add("type", metavar="TYPE")
    parser.add("key", metavar="KEY")


def _print_line(session: Session, arguments: Namespace) -> int:
    from backend.auth.ssh_keys import find_key_file, read_key_file, watch_key_file  # noqa: PLC0415 - for sshd alone

    try:
        settings = session.settings
        keys = read_key_file(watch_key_file(find_key_file(settings.paths, settings.auth)))
    except KCError:
        # sshd has nobody to tell it to; `kc ssh-console keys` says what is wrong.
        return 0
    key = keys.find(arguments.fingerprint)
    if key is not None and key.public == f"{arguments.type} {arguments.key}":
        sys.stdout.write(build_line(key.public, build_command(key.fingerprint, list_places(os.environ))) + "\n")
    return 0


COMMANDS = {"": Command("", _add_arguments, _print_line, finishes=False)}
