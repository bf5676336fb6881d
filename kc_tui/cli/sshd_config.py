"""The part of sshd's configuration that serves KC, and the program that sshd asks for keys."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

from kc_tui.cli import ssh_lines

USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
KEYS_PROGRAM: Final = "/usr/local/libexec/kc-ssh-keys"
"""Root's alone, as are all folders above it: sshd runs no other (sshd_config(5), AuthorizedKeysCommand)."""

SETTINGS: Final[tuple[tuple[str, str, str], ...]] = (
    ("AuthorizedKeysCommand", "{program} %u %f %t %k", "which keys there are, and whose: KC says it"),
    ("AuthorizedKeysCommandUser", "{user}", "it reads what only this user may read"),
    ("AuthorizedKeysFile", "none", "no other keys"),
    ("TrustedUserCAKeys", "none", "no certificate either: it would come without KC's command, and so with a shell"),
    ("AuthorizedPrincipalsFile", "none", ""),
    ("AuthorizedPrincipalsCommand", "none", ""),
    ("AuthenticationMethods", "publickey", "the key is who one is: no password, no host, no ticket"),
    ("ForceCommand", "none", "each key has a command of its own, which one for all would replace"),
    ("DisableForwarding", "yes", "no ports, no agent, no X11, no sockets; and each of them by its name"),
    ("AllowTcpForwarding", "no", ""),
    ("AllowStreamLocalForwarding", "no", ""),
    ("AllowAgentForwarding", "no", ""),
    ("X11Forwarding", "no", ""),
    ("PermitOpen", "none", ""),
    ("PermitListen", "none", ""),
    ("GatewayPorts", "no", ""),
    ("PermitTunnel", "no", "restrict did not cover tunnels before OpenSSH 10.5 (CVE-2026-73283)"),
    ("PermitUserRC", "no", "no ~/.ssh/rc"),
    ("PermitTTY", "yes", "KC draws on a terminal"),
    ("MaxSessions", "4", "sessions in one connection"),
    ("ClientAliveInterval", "15", "a line that dropped is noticed, and its session ended, after 45 s"),
    ("ClientAliveCountMax", "3", ""),
)
"""Keyword, value, and why; without a reason it is that of the one above."""


def list_settings(user: str, program: str) -> list[tuple[str, str]]:
    """Return the keywords and the values that sshd is to have for a user."""
    return [(keyword, value.format(user=user, program=program)) for keyword, value, _why in SETTINGS]


def write_config(user: str, program: str) -> str:
    """Return the text of the configuration's part."""
    lines = [
        "# KC on a terminal for whoever has a key that KC knows, and nothing else: see kc ssh-console --help.",
        "# What a client sends as environment (AcceptEnv adds up and cannot be taken back here) KC throws away.",
        f"Match User {user}",
    ]
    for (keyword, value), (_keyword, _value, why) in zip(list_settings(user, program), SETTINGS, strict=True):
        if why:
            lines.append(f"    # {why}")
        lines.append(f"    {keyword} {value}")
    # Whatever is included after this file is about everybody again.
    return "\n".join([*lines, "Match all", ""])


def write_wrapper(places: Sequence[str]) -> str:
    """Return the program that sshd asks for keys; `places` are the variables, `NAME=VALUE`, that say which KC."""
    exports = [
        f"{name}={shlex.quote(value)}; export {name}" for name, _, value in (item.partition("=") for item in places)
    ]
    lines = [
        "#!/bin/sh",
        "# sshd asks this which command the holder of a key is served with; kc ssh-console install writes it.",
        *exports,
        f'exec {shlex.join(ssh_lines.PROGRAM)} __ssh-keys "$@"',
    ]
    return "\n".join([*lines, ""])
