"""`kc token create`."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentTypeError, Namespace
from typing import Any

from backend.errors import ConflictError, UsageError
from backend.model.actions import find_fault
from backend.model.documents import Document, format_time
from backend.model.kinds import TOKEN
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_idempotency_key, add_metadata, build_tree, key_of
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.state.network_values import parse_duration

_COMMAND = "kc token create"
_LONGEST_SECONDS = 100 * 366 * 86400


def parse_actions(text: str) -> list[str]:
    """Return the actions of `vm.start,vm.stop`; raise ArgumentTypeError for one that there is not."""
    actions = [action.strip() for action in text.split(",")]
    for action in actions:
        fault = find_fault(action)
        if fault:
            raise ArgumentTypeError(sanitise(fault, 300))
    return actions


def parse_scope(text: str) -> dict[str, Any]:
    """Return the scope that `ACTION,…: SELECTOR` says; without a selector, on all objects."""
    actions, _, selector = text.partition(":")
    return {"actions": parse_actions(actions), "selector": selector.strip()}


def parse_end(text: str) -> int:
    """Return the Unix seconds after a time from now such as `30d`."""
    seconds = parse_duration(text)
    if seconds > _LONGEST_SECONDS:
        msg = f"{text!r} is more than 100 years"
        raise ArgumentTypeError(msg)
    return int(time.time()) + seconds


def add_arguments(parser: Parser) -> None:
    """Add what the command takes."""
    parser.add("name", metavar="NAME", help="what to call it; requests with it are those of token:NAME")
    parser.add("--god", action="store_true", help="it may do everything; each use of it is audited")
    parser.add("--allow", metavar="ACTION,…", type=parse_actions, help="what it may do; * is everything")
    parser.add("-l", "--selector", metavar="SELECTOR", help="on what: only what matches, such as tenant=acme")
    parser.add(
        "--scope", metavar="'ACTION,…: SELECTOR'", dest="scopes", action="append", default=[], type=parse_scope,
        help="something more that it may do, on something else; may be repeated",
    )  # fmt: skip
    parser.add("--expires", metavar="TIME", type=parse_end, help="how long it holds, such as 12h or 30d (default: 90d)")
    parser.add("--never", action="store_true", help="it holds until it is deleted")
    add_metadata(parser)
    add_idempotency_key(parser)


def run(session: Session, arguments: Namespace) -> int:
    """Make the token, and print its secret, or its document with it."""
    if session.output == "name":
        raise UsageError(_COMMAND, "the name alone would lose the secret, which is told once", "leave -o name out")
    document = {
        "kind": TOKEN.name,
        "name": arguments.name,
        "metadata": build_tree(arguments.meta, "--meta"),
        "spec": _build_spec(arguments),
    }
    accepted = session.service.create(document, key=key_of(arguments, arguments.name))
    made = accepted.document
    if "token" not in made:
        why = "it was made before under this key, and its secret was shown then"
        hint = f"kc token delete {arguments.name} --yes, and make another under another key"
        raise ConflictError(f"token {arguments.name}", why, hint)
    _warn(session)
    if session.output == "table":
        sys.stdout.write(f"{sanitise(made['token'], 8192)}\n")
        session.note(f"this is the secret of token {arguments.name}; it is not shown again. It {_describe_end(made)}")
    else:
        print_data(session, made)
    return 0


def _build_spec(arguments: Namespace) -> Document:
    if arguments.never and arguments.expires is not None:
        raise UsageError(_COMMAND, "--never and --expires exclude each other", "give one of them")
    scopes = [] if arguments.allow is None else [{"actions": arguments.allow, "selector": arguments.selector or ""}]
    scopes += arguments.scopes
    if arguments.god and scopes:
        raise UsageError(_COMMAND, "a god token may do everything, --allow and --scope say what", "give one of them")
    if not arguments.god and not scopes:
        raise UsageError(_COMMAND, "it is not said what it may do", f"--allow ACTION,… or --god; see {_COMMAND} --help")
    if arguments.selector is not None and arguments.allow is None:
        raise UsageError(_COMMAND, "-l goes with --allow", "write --scope 'ACTION,…: SELECTOR' for the others")
    spec: Document = {"type": "god"} if arguments.god else {"type": "limited", "scopes": scopes}
    if arguments.never:
        spec["expiresAt"] = None
    elif arguments.expires is not None:
        spec["expiresAt"] = format_time(arguments.expires)
    return spec


def _describe_end(document: Document) -> str:
    until = document["spec"]["expiresAt"]
    return f"holds until {until[:10]} {until[11:16]}Z" if until else "holds until it is deleted"


def _warn(session: Session) -> None:
    """Tell where the service that these settings describe would take no token."""
    chain = session.settings.auth.get("chain")
    if session.settings.url or not isinstance(chain, list):
        return
    if not any(isinstance(entry, dict) and entry.get("type") == "tokens" for entry in chain):
        hint = f'add [[auth.chain]] type = "tokens" to {session.settings.paths.config_file}'
        session.note(f"warning: this KC's service takes no tokens, for auth.chain names no such authenticator; {hint}")
