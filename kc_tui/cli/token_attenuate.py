"""`kc token attenuate`: narrows a token with nothing but the token."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from typing import Any

from backend.auth.attenuation import check_caveat, narrow_token
from backend.errors import KCError, RefusedError, UsageError
from kc_tui.cli.arguments import Parser
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.token_create import parse_actions, parse_end
from kc_tui.cli.token_inspect import read_token

_COMMAND = "kc token attenuate"


def parse_selector(text: str) -> str:
    """Return a selector; raise ArgumentTypeError for what is none."""
    try:
        check_caveat("selector", text)
    except KCError as error:
        raise ArgumentTypeError(error.why) from error
    return text


def parse_client(text: str) -> str:
    """Return a network in CIDR form, or `uid:N`; raise ArgumentTypeError."""
    try:
        check_caveat("client", [text])
    except RefusedError as error:
        msg = f"{text!r} is neither a network such as 192.0.2.0/24 nor a user such as uid:1000"
        raise ArgumentTypeError(msg) from error
    return text


def parse_bound(text: str) -> tuple[str, str]:
    """Return what holds the key, and the key's fingerprint, of `tls:SHA256:…`; raise ArgumentTypeError."""
    where, _, fingerprint = text.partition(":")
    try:
        check_caveat("bound", where, fingerprint)
    except RefusedError as error:
        msg = f"{text!r} is neither tls:SHA256:… nor ssh:SHA256:…"
        raise ArgumentTypeError(msg) from error
    return where, fingerprint


def add_arguments(parser: Parser) -> None:
    """Add what the command takes."""
    parser.add("token", metavar="TOKEN|-", help="the token to narrow; - reads it from stdin")
    parser.add("--allow", metavar="ACTION,…", type=parse_actions, help="of what it may do, these alone")
    parser.add("-l", "--selector", metavar="SELECTOR", type=parse_selector, help="of the objects, what matches too")
    parser.add("--expires", metavar="TIME", type=parse_end, help="for no longer than this, such as 10m")
    parser.add("--read-only", action="store_true", help="of what it may do, reading alone")
    parser.add(
        "--client", metavar="CIDR", action="append", type=parse_client,
        help="only from this network, or as uid:N on the unix socket; repeated: from any of them",
    )  # fmt: skip
    parser.add(
        "--bound", metavar="tls:SHA256:…", type=parse_bound,
        help="only along with this client certificate, or with ssh:SHA256:… this SSH key",
    )  # fmt: skip


def run(session: Session, arguments: Namespace) -> int:
    """Print the narrower token."""
    if session.output == "name":
        raise UsageError(_COMMAND, "a token made here has no name of its own", "leave -o name out")
    entries = _build(arguments)
    if not entries:
        raise UsageError(_COMMAND, "it is not said how it is to be narrowed", f"see {_COMMAND} --help")
    narrower = narrow_token(read_token(session, arguments.token), entries)
    if session.output == "table":
        sys.stdout.write(f"{narrower}\n")
    else:
        print_data(session, {"token": narrower, "caveats": entries})
    return 0


def _build(arguments: Namespace) -> list[list[Any]]:
    """Return the caveats that a command line asks for."""
    entries: list[list[Any]] = []
    if arguments.allow is not None:
        entries.append(["actions", arguments.allow])
    if arguments.selector is not None and arguments.selector.strip():
        entries.append(["selector", arguments.selector])
    if arguments.read_only:
        entries.append(["read-only"])
    if arguments.expires is not None:
        entries.append(["expires", arguments.expires])
    if arguments.client:
        entries.append(["client", arguments.client])
    if arguments.bound is not None:
        entries.append(["bound", *arguments.bound])
    return entries
