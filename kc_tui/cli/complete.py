"""`kc __complete`: the names of a kind, one a line, for shells; fast, and silent on any error."""

from __future__ import annotations

import re
import sys
from argparse import Namespace

from backend.errors import KCError
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

MAXIMUM_NAMES = 1000
# Names of KC's objects are DNS labels; nothing else may reach a shell that pastes it into a command line.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _add_arguments(parser: Parser) -> None:
    parser.add("kind", metavar="KIND")


def _complete(session: Session, arguments: Namespace) -> int:
    try:
        if arguments.kind == "profile":
            names = ["local", *session.settings.profiles]
        else:
            page = session.service.list_documents(
                arguments.kind, limit=MAXIMUM_NAMES, everything=True, observe=False
            )  # fmt: skip
            names = [document["name"] for document in page.items]
    except KCError:
        return 0
    sys.stdout.write("".join(f"{name}\n" for name in dict.fromkeys(names) if _PLAIN.fullmatch(name)))
    return 0


COMMANDS = {"": Command("", _add_arguments, _complete, finishes=False)}
