"""`kc init`: what a newcomer needs."""

from __future__ import annotations

import sys
from argparse import Namespace

from backend.model.kinds import find_kind
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session


def _add_arguments(_parser: Parser) -> None:
    """It takes none of its own."""


def _initialise(session: Session, _arguments: Namespace) -> int:
    made = session.service.initialise(session.note)
    if session.output in ("json", "yaml"):
        print_data(session, {"made": made})
    elif session.output == "name":
        sys.stdout.write("".join(f"{entry.rpartition(' ')[2]}\n" for entry in made))
    else:
        for entry in made:
            kind, _, name = entry.partition(" ")
            print(f"made {find_kind(kind).title} {sanitise(name)}")
        if not made:
            session.note("all is there already")
    return 0


COMMANDS = {
    "": Command(
        "make the default network, machine types and starter image",
        _add_arguments,
        _initialise,
        "Make the default network, the machine types tiny, small, medium and large, and the starter image, where "
        "they are missing. Safe to repeat; what it did not make it does not touch.",
        ("kc init",),
    )
}
