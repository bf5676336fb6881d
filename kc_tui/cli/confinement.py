"""What of the command line there is for a visitor: KC's documents, and nothing of the machine that it runs on.

Two rules. Only the commands that are named here are served: none that starts a program, opens a port, or reads and
writes places or settings of the machine. And no argument names a file: `-`, the visitor's own end, is all.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from backend.errors import DeniedError, UsageError
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import NOUNS, Command, Noun

_HINT: Final = "kc --help lists what is; the rest is done in a shell of that machine"
_KEPT: Final = frozenset({"list", "show", "history", "diff", "set", "rollback", "undo", "restore", "delete"})
_NO_VERBS: Final = frozenset({""})

SERVED: Final[dict[str, frozenset[str]]] = {
    "init": _NO_VERBS,
    "doctor": _NO_VERBS,
    "vm": _KEPT
    | {"create", "start", "stop", "reboot", "pause", "resume", "resize", "rename", "clone", "adopt", "reconcile"}
    | {"nic", "disk", "cd", "snapshot", "console", "screenshot"},
    "image": _KEPT | {"upload"},
    "network": _KEPT | {"create", "reconcile", "topology"},
    "type": _KEPT | {"create"},
    "trash": frozenset({"list", "show", "empty"}),
    "op": frozenset({"list", "show", "cancel"}),
    "token": _KEPT | {"create"},
    "audit": frozenset({"list"}),
    "apply": _NO_VERBS,
    "watch": _NO_VERBS,
    "schema": _NO_VERBS,
    "export": _NO_VERBS,
    "import": _NO_VERBS,
    "store": frozenset({"check", "compact"}),
}
"""The verbs of each noun; a noun that is itself the command has the empty one."""


def served_nouns() -> list[str]:
    """Return the nouns that a visitor is told about."""
    return [noun for noun, entry in NOUNS.items() if entry.summary and noun in SERVED]


def served_commands(noun: str, commands: dict[str, Command | Noun]) -> dict[str, Command | Noun]:
    """Return those of a noun's commands that a visitor is told about."""
    return {verb: entry for verb, entry in commands.items() if verb in SERVED.get(noun, frozenset())}


def check_path(path: str) -> None:
    """Raise DeniedError for a command that is not served, by its words after kc."""
    noun, verb = (*path.split(" "), "")[:2]
    if verb not in SERVED.get(noun, frozenset()):
        raise DeniedError(f"kc {path}", "it is not served over SSH", _HINT)


def check_values(parser: Parser, values: Namespace) -> None:
    """Raise UsageError where an argument names a file of the machine, DeniedError where one names a profile."""
    if values.profile:
        raise DeniedError("--profile", "this console serves one KC", "leave it out")
    for destination, names_file in parser.files.items():
        given = getattr(values, destination)
        for value in given if isinstance(given, list) else [given]:
            if value and names_file(value):
                why = "there are no files over SSH"
                raise UsageError(f"usage of {parser.prog}", why, "write - and let your own shell redirect it")
