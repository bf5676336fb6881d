"""`kc schema`: the JSON Schema of the documents."""

from __future__ import annotations

import sys
from argparse import Namespace

from backend.model.kinds import KINDS, find_kind
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import format_json, print_data
from kc_tui.cli.session import Session


def _add_arguments(parser: Parser) -> None:
    words = [kind.command for kind in KINDS]
    parser.add("kind", metavar="KIND", nargs="?", choices=[*words, None], help=f"one of {', '.join(words)}")


def _print_schema(session: Session, arguments: Namespace) -> int:
    if session.output == "name":
        sys.stdout.write("".join(f"{kind.command}\n" for kind in KINDS))
        return 0
    if arguments.kind:
        schema = session.service.schema(find_kind(arguments.kind).name)
    else:
        # Each has an $id, so that its own references still lead to its own definitions.
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "oneOf": [session.service.schema(kind.name) for kind in KINDS],
        }
    if session.output == "table":
        sys.stdout.write(format_json(schema) + "\n")
    else:
        print_data(session, schema)
    return 0


COMMANDS = {
    "": Command(
        "the JSON Schema of the documents",
        _add_arguments,
        _print_schema,
        "Print the JSON Schema (2020-12) of one kind's documents, or of all.",
        ("kc schema vm",),
        finishes=False,
    )
}
