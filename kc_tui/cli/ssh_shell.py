"""`kc __ssh-shell`: what somebody gets who comes in over SSH; this much is done before anything else is imported.

sshd starts it for a key that it has checked, by way of the line that `kc __ssh-keys` wrote. Nothing that the client
sent has a say in how it runs but the name of the terminal, out of a list, and the words of the command.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Final

from backend.errors import UsageError
from backend.text import sanitise
from kc_tui.cli import ssh_lines
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

COMMAND: Final = "SSH_ORIGINAL_COMMAND"
CONNECTION: Final = "SSH_CONNECTION"
"""What sshd itself says of a session; a client has no other way to set them."""
DUMB: Final = "dumb"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TERMINALS: Final = re.compile(
    r"(xterm|screen|tmux|rxvt|rxvt-unicode|alacritty|foot|linux|vt100|vt220|konsole|kitty|gnome|vte|st|wezterm|ghostty)"
    r"(-(16|88|256)color|-(kitty|ghostty|direct|bce))?"
)
_USUAL_TERMINAL: Final = "xterm-256color"


def build_environment(given: Mapping[str, str], places: Sequence[str]) -> dict[str, str]:
    """Return the environment of a session, built from nothing; `places` are `NAME=VALUE` from sshd's own line."""
    user = pwd.getpwuid(os.getuid())
    environment = {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "TERM": choose_terminal(given.get("TERM", "")),
    }
    for place in places:
        name, sign, value = place.partition("=")
        if not sign or name not in ssh_lines.PLACES:
            raise UsageError("SSH console", f"{sanitise(name, 40)!r} is no place")
        environment[name] = value
    return environment | {name: given[name] for name in (COMMAND, CONNECTION) if name in given}


def choose_terminal(name: str) -> str:
    """Return the name of a terminal that is known to be one: what the client says, or the usual one."""
    return name if name == DUMB or _TERMINALS.fullmatch(name) else _USUAL_TERMINAL


def _add_arguments(parser: Parser) -> None:
    parser.add("--fingerprint", metavar="SHA256:…", required=True)
    parser.add("--place", metavar="NAME=VALUE", dest="places", action="append", default=[])
    parser.add("--clean", action="store_true")


def _serve(session: Session, arguments: Namespace) -> int:
    if not arguments.clean:
        # Anew, so that nothing was imported, opened or set up by what the client sent.
        environment = build_environment(os.environ, arguments.places)
        command = [*ssh_lines.PROGRAM, "__ssh-shell", "--clean", "--fingerprint", arguments.fingerprint]
        sys.stdout.flush()
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
    from kc_tui.cli.ssh_visit import serve  # noqa: PLC0415 - in the clean environment alone

    command_line, connection = (os.environ.pop(name, "") for name in (COMMAND, CONNECTION))
    return serve(session, arguments.fingerprint, connection.partition(" ")[0], command_line)


COMMANDS = {"": Command("", _add_arguments, _serve, finishes=False)}
