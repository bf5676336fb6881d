"""`kc token inspect`: what a token says of itself."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Any

from backend.auth.attenuation import inspect_token
from backend.model.documents import format_time
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.output import format_json, print_data
from kc_tui.cli.session import Session

_LONGEST = 8192


def add_arguments(parser: Parser) -> None:
    """Add what the command takes."""
    parser.add("token", metavar="TOKEN|-", help="the token; - reads it from stdin")


def read_token(session: Session, given: str) -> str:
    """Return a token that was given, or with `-` stands on the first line of stdin."""
    if given != "-":
        session.note("warning: other users of this machine can read what stands on a command line; - reads from stdin")
        return given.strip()
    text = sys.stdin.readline(_LONGEST) if sys.stdin is not None else ""
    # People copy the whole header.
    return text.strip().removeprefix("Authorization:").strip().removeprefix("Bearer").strip()


def run(session: Session, arguments: Namespace) -> int:
    """Print what the token says."""
    told = inspect_token(read_token(session, arguments.token))
    if session.output in ("json", "yaml"):
        print_data(session, told)
    elif session.output == "name":
        sys.stdout.write(f"{told['uid']}\n")
    else:
        lines = [("type", told["type"]), ("uid", told["uid"]), *_describe_caveats(told["caveats"])]
        sys.stdout.write("".join(f"{label:<10}  {sanitise(text)}\n" for label, text in lines))
    return 0


def _describe_caveats(entries: list[list[Any]]) -> list[tuple[str, str]]:
    return [("narrowed", _describe_caveat(*entry)) for entry in entries] or [("narrowed", "by nothing")]


def _describe_caveat(tag: str, *values: Any) -> str:
    if tag in ("expires", "not-before"):
        over = ", which has passed" if values[0] <= time.time() and tag == "expires" else ""
        return f"{'until' if tag == 'expires' else 'from'} {format_time(values[0])}{over}"
    if tag == "actions":
        return f"to {', '.join(values[0])}"
    if tag == "selector":
        return f"to what matches {values[0]}"
    if tag == "read-only":
        return "to reading"
    if tag == "client":
        return f"to clients {', '.join(values[0])}"
    if tag == "bound":
        return f"to the {values[0].upper()} key {values[1]}"
    return f"by what this KC does not know, so it is worth nothing here: {format_json(values[0], indent=None)}"
